//! What tasks of Fargate do not get on this machine: said once, when it begins to take them. docs/fargate-isolation.md names what follows.

use std::path::Path;

use berth_runtime::quota;

/// Open files that Fargate gives a container that does not say.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Ulimit.html>
const OPEN_FILES: u64 = 65_535;

/// CAP_SYS_RESOURCE, as a bit of a capability set.
const MAY_RAISE_LIMITS: u64 = 1 << 24;

/// A line for each, for the log. `remapping` is what the runtime found out about users of a task's own.
pub(crate) fn shortcomings(remapping: Result<(), String>, dir: &Path) -> Vec<String> {
    use rustix::process::{Resource, getrlimit};
    let most_files = if may_raise_limits() { u64::MAX } else { getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX) };
    lines(remapping, quota::available(dir).map_err(|why| why.to_string()), most_files)
}

fn lines(remapping: Result<(), String>, quotas: Result<(), String>, most_files: u64) -> Vec<String> {
    let users = remapping.err().map(|why| {
        format!(
            "tasks of Fargate have no users of their own on this machine: root in one of them is root here, kept in by namespaces, capabilities and seccomp \
             alone ({why})"
        )
    });
    let storage =
        quotas.err().map(|why| format!("nothing holds the ephemeral storage of tasks of Fargate to its size on this machine: {why}"));
    let files = (most_files < OPEN_FILES).then(|| {
        format!(
            "containers of tasks of Fargate may have {most_files} files open instead of {OPEN_FILES}: this process may not raise its limit"
        )
    });
    [users, storage, files].into_iter().flatten().collect()
}

fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:")).and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & MAY_RAISE_LIMITS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_said() {
        assert_eq!(lines(Ok(()), Ok(()), OPEN_FILES), Vec::<String>::new());
        let all = lines(Err("no idmapped mounts".into()), Err("its file system has none".into()), 20_000);
        assert_eq!(all.len(), 3);
        assert!(all[0].contains("no users of their own") && all[0].contains("no idmapped mounts"), "{}", all[0]);
        assert!(all[1].contains("ephemeral storage") && all[2].contains("20000 files"), "{all:?}");
    }
}
