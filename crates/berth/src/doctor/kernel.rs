//! The kernel: its age, what the runtime needs of it, and what this process may do.

use std::path::Path;

use super::finding::Finding;
use super::trial;

/// The oldest kernel with all system calls that the runtime makes: openat2(2), by which images are unpacked safely, came with it.
const OLDEST: (u32, u32) = (5, 6);
/// The oldest kernel that the project's tests have seen.
const OLDEST_TRIED: (u32, u32) = (6, 1);
/// What the native runtime cannot do without, by the numbers of linux/capability.h.
const NEEDED: [(&str, u32); 9] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_ADMIN", 12),
    ("SYS_CHROOT", 18),
    ("SYS_ADMIN", 21),
];
/// By it a process may raise its own limits.
const SYS_RESOURCE: u32 = 24;

/// What this process may do, out of its effective user and `/proc/self/status`.
pub(super) fn privileges(user: u32, status: &str) -> Vec<Finding> {
    const CHECK: &str = "privileges";
    if user != 0 {
        let mend = "start Berth with sudo for its own runtime; without root it needs a Docker Engine, see `berth up --help`";
        return vec![Finding::bad(CHECK, format!("user {user}, not root"), mend)];
    }
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let Some(mask) = mask else {
        return vec![Finding::warning(CHECK, "root; /proc/self/status does not say with which capabilities", "mount /proc")];
    };
    let has = |bit: u32| mask & (1 << bit) != 0;
    let missing: Vec<&str> = NEEDED.iter().filter(|(_, bit)| !has(*bit)).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let mend = "this looks like a container: start it privileged, or start Berth on the machine itself";
        return vec![Finding::bad(CHECK, format!("root without the capabilities {}", missing.join(", ")), mend)];
    }
    if !has(SYS_RESOURCE) {
        let mend = "start Berth with the capability SYS_RESOURCE if task definitions raise ulimits";
        return vec![Finding::warning(CHECK, "root without SYS_RESOURCE: ulimits above those of this process are refused", mend)];
    }
    vec![Finding::good(CHECK, "root, with all capabilities that are needed")]
}

/// The kernel's age.
pub(super) fn version(release: &str) -> Finding {
    const CHECK: &str = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let wanted = |(major, minor): (u32, u32)| format!("boot a kernel of {major}.{minor} or newer");
    if found < OLDEST {
        Finding::bad(CHECK, format!("Linux {release}: too old"), wanted(OLDEST))
    } else if found < OLDEST_TRIED {
        Finding::warning(CHECK, format!("Linux {release}: older than any that Berth is tested on"), wanted(OLDEST_TRIED))
    } else {
        Finding::good(CHECK, format!("Linux {release}"))
    }
}

/// Kinds of namespaces that a container has of its own.
pub(super) fn namespaces(folder: &Path) -> Finding {
    const CHECK: &str = "namespaces";
    let missing: Vec<&str> = ["mnt", "pid", "net", "ipc", "uts"].into_iter().filter(|kind| !folder.join(kind).exists()).collect();
    if missing.is_empty() {
        return Finding::good(CHECK, "mnt, pid, net, ipc, uts");
    }
    Finding::bad(CHECK, format!("the kernel has none of kind {}", missing.join(", ")), "boot a kernel with CONFIG_NAMESPACES and its kinds")
}

/// Whether system calls can be filtered, by `/proc/sys/kernel/seccomp/actions_avail`.
pub(super) fn seccomp(actions: Option<&str>) -> Finding {
    const CHECK: &str = "seccomp";
    match actions {
        Some(actions) if actions.split_whitespace().any(|action| action == "errno") => Finding::good(CHECK, "system calls can be filtered"),
        _ => Finding::bad(
            CHECK,
            "the kernel cannot filter system calls, and no unprivileged container starts without",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

/// Whether layers can be laid over each other below `folder`: tried, in a mount namespace of its own.
pub(super) fn overlay(folder: &Path) -> Finding {
    const CHECK: &str = "overlay";
    match trial::overlay(folder) {
        Ok(()) => Finding::good(CHECK, format!("layers can be mounted below {}", folder.display())),
        Err(trial::Trouble::Overlay(error)) => Finding::bad(
            CHECK,
            format!("an overlay cannot be mounted below {}: {error}", folder.display()),
            "`modprobe overlay`; and keep the data directory (--data-dir) on a disk's own file system like ext4 or xfs, not on an overlay or over a network",
        ),
        Err(other) => Finding::warning(CHECK, format!("it could not be tried: {other}"), "run `berth doctor` as root"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn old_kernels() {
        for (release, verdict) in [
            ("4.19.0-27-amd64", Verdict::Bad),
            ("5.4.0", Verdict::Bad),
            ("5.10.0-33-amd64", Verdict::Warning),
            ("6.1.0-30-cloud-amd64", Verdict::Good),
            ("6.18.5", Verdict::Good),
            ("unknown", Verdict::Bad),
        ] {
            assert_eq!(version(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn what_a_process_may_do() {
        let verdict = |user, mask: &str| privileges(user, &format!("Name:\tberth\nCapEff:\t{mask}\n"))[0].clone();
        assert_eq!(verdict(0, "000001ffffffffff").verdict, Verdict::Good);
        assert_eq!(verdict(1000, "0000000000000000").verdict, Verdict::Bad);
        // Docker's default set has no SYS_ADMIN and no NET_ADMIN.
        let contained = verdict(0, "00000000a80425fb");
        assert!(contained.verdict == Verdict::Bad && contained.found.ends_with("NET_ADMIN, SYS_ADMIN"), "{contained:?}");
        assert_eq!(verdict(0, "000001fffeffffff").verdict, Verdict::Warning);
        assert_eq!(privileges(0, "")[0].verdict, Verdict::Warning);
    }

    #[test]
    fn features() {
        assert_eq!(seccomp(Some("kill_process kill_thread trap errno log allow\n")).verdict, Verdict::Good);
        assert_eq!(seccomp(None).verdict, Verdict::Bad);
        assert_eq!(namespaces(Path::new("/proc/self/ns")).verdict, Verdict::Good);
        assert!(namespaces(Path::new("/nowhere")).found.contains("mnt, pid, net, ipc, uts"));
    }
}
