//! The rest of the machine: clock, limits, certificates, programs, a Docker Engine.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::{Finding, size};

/// Each connection, container and pipe is an open file.
const FEW_FILES: u64 = 65_536;
/// A Docker Engine that answers at all answers sooner.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where certificates of public authorities are kept, by distribution.
const CERTIFICATES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// Whether the kernel says that somebody keeps the clock right.
pub(super) fn clock() -> Finding {
    // SAFETY: zero is a valid value for this plain structure; with no modes set the call only reads.
    let status = unsafe {
        let mut state: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut state) != -1).then_some(state.status)
    };
    judge_clock(status)
}

fn judge_clock(status: Option<i32>) -> Finding {
    const CHECK: &str = "clock";
    match status {
        Some(status) if status & libc::STA_UNSYNC == 0 => Finding::good(CHECK, "kept right"),
        Some(_) => Finding::warning(
            CHECK,
            "nothing keeps it right: requests signed by a clock that is five minutes off are refused",
            "start a time service: `apt install systemd-timesyncd` or chrony; in a virtual machine or container its host may do it",
        ),
        None => Finding::warning(CHECK, "the kernel does not say whether it is kept right", "start a time service like chrony"),
    }
}

/// How many files a process may open.
pub(super) fn open_files(limit: u64) -> Finding {
    const CHECK: &str = "open files";
    if limit < FEW_FILES {
        let mend = format!("raise it: `ulimit -Hn {FEW_FILES}`, or LimitNOFILE={FEW_FILES} in the systemd unit");
        return Finding::warning(CHECK, format!("at most {limit}: enough for a laptop, not for thousands of agents"), mend);
    }
    Finding::good(CHECK, if limit == u64::MAX { "without limit".to_owned() } else { format!("at most {limit}") })
}

/// Whether registries on the internet can be trusted.
pub(super) fn certificates() -> Finding {
    const CHECK: &str = "certificates";
    match CERTIFICATES.iter().find(|path| Path::new(path).exists()) {
        Some(path) => Finding::good(CHECK, (*path).to_owned()),
        None => Finding::warning(CHECK, "there are none: images cannot be pulled over TLS", "`apt install ca-certificates`"),
    }
}

/// The small programs beside this one.
pub(super) fn programs(found: &[(&'static str, Option<PathBuf>)]) -> Finding {
    const CHECK: &str = "programs";
    let missing: Vec<&str> = found.iter().filter(|(_, path)| path.is_none()).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        let folder = found.iter().find_map(|(_, path)| path.as_deref()?.parent()).unwrap_or(Path::new("/"));
        return Finding::good(CHECK, format!("berth-shim, berth-monitor and berth-seccomp in {}", folder.display()));
    }
    Finding::bad(
        CHECK,
        format!("{} not found beside this program", missing.join(", ")),
        "run `make install`, or set BERTH_LIBEXEC to their folder",
    )
}

/// What tasks can have.
pub(super) fn resources(cpu_units: u32, memory: Option<u64>) -> Finding {
    const CHECK: &str = "resources";
    let memory = memory.map_or_else(|| "an unknown amount of".to_owned(), |mib| size(mib << 20));
    Finding::good(CHECK, format!("{cpu_units} CPU units, {memory} memory"))
}

/// Whether a Docker Engine answers, which can run containers in the native runtime's place.
pub(super) fn docker(host: Option<&str>) -> Finding {
    const CHECK: &str = "docker";
    let path = host.unwrap_or("unix:///var/run/docker.sock");
    let Some(path) = path.strip_prefix("unix://") else {
        return Finding::good(CHECK, format!("DOCKER_HOST is {path}: not on this machine, so of no use to tasks here"));
    };
    match ping(Path::new(path)) {
        Ok(true) => Finding::good(CHECK, format!("an engine answers at {path}")),
        Ok(false) => Finding::good(CHECK, format!("whatever serves {path} is no Docker Engine; Berth does not need one")),
        Err(_) => Finding::good(CHECK, "none; Berth does not need one"),
    }
}

fn ping(path: &Path) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn clocks_and_limits() {
        assert_eq!(judge_clock(Some(0)).verdict, Verdict::Good);
        assert_eq!(judge_clock(Some(libc::STA_UNSYNC)).verdict, Verdict::Warning);
        assert_eq!(judge_clock(None).verdict, Verdict::Warning);
        assert_eq!(open_files(1024).verdict, Verdict::Warning);
        assert_eq!(open_files(u64::MAX).found, "without limit");
    }

    #[test]
    fn programs_that_are_missing_are_named() {
        let found = programs(&[("berth-shim", Some("/usr/libexec/berth/berth-shim".into())), ("berth-monitor", None)]);
        assert!(found.verdict == Verdict::Bad && found.found.starts_with("berth-monitor"), "{found:?}");
    }

    #[test]
    fn an_engine_that_answers_and_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let host = format!("unix://{}", path.display());
        assert!(docker(Some(&host)).found.starts_with("none"));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let engine = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK").unwrap();
        });
        assert!(docker(Some(&host)).found.starts_with("an engine answers"));
        engine.join().unwrap();
    }
}
