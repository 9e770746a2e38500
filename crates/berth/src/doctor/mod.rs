//! `berth doctor`: whether this machine can run containers, what is in the way, and how to mend it. It changes nothing that lasts.

mod cgroup;
mod disk;
mod finding;
mod kernel;
mod machine;
mod ports;
mod trial;
mod volumes;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use berth_runtime::native::locate;
use serde::Serialize;

use crate::data_dir::DataDir;
use crate::failure::Failure;
use finding::{Finding, Verdict, overall};

/// Settings of `berth doctor`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DoctorSettings {
    /// Where Berth keeps or will keep its data [default: ~/.berth, for root /var/lib/berth]
    #[arg(long, value_name = "DIR", env = "BERTH_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port that Berth serves or will serve on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4566", env = "BERTH_LISTEN")]
    listen: SocketAddr,
    /// How to write the findings
    #[arg(long, value_enum, default_value = "text")]
    output: berth_cli::Output,
}

/// The findings for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// The worst of them.
    verdict: Verdict,
    findings: &'a [Finding],
}

/// Looks, and writes what was found to stdout. `false` if containers cannot run here.
///
/// # Errors
/// [`Failure`] if there is no place for data, or the findings cannot be written.
pub(crate) fn doctor(settings: &DoctorSettings) -> Result<bool, Failure> {
    let data_dir = DataDir::place(settings.data_dir.clone())?;
    let findings = look(&data_dir, settings.listen);
    let mut out = std::io::stdout().lock();
    let written = match settings.output {
        berth_cli::Output::Json => {
            let report = Report { verdict: overall(&findings), findings: &findings };
            serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from).and_then(|()| writeln!(out))
        }
        berth_cli::Output::Text => {
            let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            out.write_all(render(&findings, colours).as_bytes())
        }
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::part("output", error)),
        _ => Ok(overall(&findings) != Verdict::Bad),
    }
}

/// Everything, in the order in which people would ask.
fn look(data_dir: &Path, listen: SocketAddr) -> Vec<Finding> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    // SAFETY: geteuid only returns a number.
    let user = unsafe { libc::geteuid() };
    let is_root = user == 0;
    let place = disk::existing(data_dir);

    let mut findings = kernel::privileges(user, &read("/proc/self/status").unwrap_or_default());
    findings.push(kernel::version(release.trim()));
    findings.push(kernel::namespaces(Path::new("/proc/self/ns")));
    findings.push(kernel::seccomp(read("/proc/sys/kernel/seccomp/actions_avail").as_deref()));
    findings.extend(cgroup::look().into_iter().filter(|finding| is_root || finding.check != "cgroup trial"));
    if is_root {
        findings.push(kernel::overlay(&place));
        findings.push(network());
        findings.push(shortcut(berth_network::linux::try_shortcut()));
        findings.push(users_of_tasks(&place));
    }
    findings.extend(disk::look(&place));
    findings.push(volumes::ephemeral(&place));
    findings.push(volumes::efs(|name| std::env::var(name).ok()));
    findings.push(machine::clock());
    findings.push(ports::listen(listen));
    findings.push(ports::dynamic(&berth_network::linux::dynamic_ports()));
    findings.push(machine::open_files(hard_limit()));
    findings.push(machine::certificates());
    findings.push(machine::programs(&["berth-shim", "berth-monitor", "berth-seccomp"].map(|name| (name, locate(name)))));
    findings.push(machine::resources(berth_agent::machine::cpu_units(), berth_agent::machine::memory_mib()));
    findings.push(machine::docker(std::env::var("DOCKER_HOST").ok().as_deref()));
    findings
}

/// Whether large connections between two tasks can pass the machine's routes and rules by.
fn shortcut(tried: std::io::Result<()>) -> Finding {
    const CHECK: &str = "task shortcuts";
    match tried {
        Ok(()) => Finding::good(CHECK, "two tasks with interfaces of their own move as much as over a bare pair of links"),
        Err(error) => Finding::warning(
            CHECK,
            format!("two tasks with interfaces of their own move a fifth less than over a bare pair of links: {error}"),
            "it takes Linux 5.10 with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF, and in a container the capability BPF",
        ),
    }
}

/// Whether a task of Fargate can have users of its own.
fn users_of_tasks(place: &Path) -> Finding {
    const CHECK: &str = "fargate";
    let Some(shim) = locate("berth-shim") else {
        return Finding::warning(
            CHECK,
            "it cannot be tried whether a task can have users of its own: berth-shim is missing",
            "run `make install`",
        );
    };
    match berth_runtime::native::try_remapping(&shim, place) {
        Ok(()) => Finding::good(CHECK, "a task's root is nobody on this machine"),
        Err(why) => Finding::warning(
            CHECK,
            format!("a Fargate task's root would be root on this machine, kept in by namespaces, capabilities and seccomp alone: {why}"),
            "it takes Linux 5.19, user namespaces (sysctl user.max_user_namespaces), and a file system with idmapped mounts: ext4, xfs, btrfs, or tmpfs since 6.3",
        ),
    }
}

fn network() -> Finding {
    const CHECK: &str = "network";
    match trial::network() {
        Ok(address) => Finding::good(CHECK, format!("a container was given {address}, and a port was published")),
        Err(trouble) => Finding::bad(
            CHECK,
            format!("a container's network cannot be made: {trouble}"),
            "the kernel needs bridge, veth and nf_tables with nat and fib: `modprobe -a bridge veth nft_nat nft_masq nft_fib_inet`",
        ),
    }
}

fn hard_limit() -> u64 {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// For people: a line each, and below what is not good how to mend it.
fn render(findings: &[Finding], colours: bool) -> String {
    use std::fmt::Write;
    let paint = |code: &str, text: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, verdict, found, mend } in findings {
        let mark = match verdict {
            Verdict::Good => paint("32", "ok  "),
            Verdict::Warning => paint("33", "warn"),
            Verdict::Bad => paint("31", "FAIL"),
        };
        let _ = writeln!(text, "{mark}  {check:<width$}  {found}");
        if let Some(mend) = mend {
            let _ = writeln!(text, "      {:<width$}  {}", "", paint("1", &format!("-> {mend}")));
        }
    }
    let last = match overall(findings) {
        Verdict::Good => "This machine can run containers.",
        Verdict::Warning => "This machine can run containers; see the warnings.",
        Verdict::Bad => "This machine cannot run containers with Berth's own runtime until what failed is mended.",
    };
    let _ = writeln!(text, "\n{last}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_see() {
        let findings = [Finding::good("kernel", "Linux 6.1"), Finding::bad("overlay", "none", "modprobe overlay")];
        let expected = "ok    kernel   Linux 6.1\n\
                        FAIL  overlay  none\n               -> modprobe overlay\n\n\
                        This machine cannot run containers with Berth's own runtime until what failed is mended.\n";
        assert_eq!(render(&findings, false), expected);
        assert!(render(&findings, true).contains("\x1b[31mFAIL\x1b[0m"));
    }

    #[test]
    fn every_finding_that_is_not_good_says_how_to_mend_it() {
        let folder = tempfile::tempdir().unwrap();
        let findings = look(folder.path(), "127.0.0.1:0".parse().unwrap());
        assert!(findings.len() > 10);
        for finding in &findings {
            assert_eq!(finding.mend.is_some(), finding.verdict != Verdict::Good, "{finding:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }
}
