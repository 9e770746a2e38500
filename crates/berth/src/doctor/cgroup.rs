//! Control groups: which of the two versions this machine has, and whether a container's limits can be set.

use std::path::{Path, PathBuf};

use berth_runtime::native::cgroups::Layout;

use super::finding::Finding;

/// The name of the trial's control group.
const TRIAL: &str = "berth-doctor";

/// All that is to be said.
pub(super) fn look() -> Vec<Finding> {
    match Layout::detect() {
        Ok(Layout::V2) => {
            let root = Path::new("/sys/fs/cgroup");
            let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            let mut findings = vec![version_2(&controllers)];
            findings.push(trial("cgroup trial", &[root.to_owned()]));
            findings.push(swap(Path::new("/proc/swaps"), true));
            findings
        }
        Ok(layout) => {
            let hierarchies = layout.hierarchies();
            let mut findings = vec![version_1(hierarchies)];
            findings.push(trial("cgroup trial", hierarchies));
            let memory = hierarchies.iter().find(|path| controllers_of(path).contains(&"memory"));
            let counts = memory.is_some_and(|path| path.join("memory.memsw.limit_in_bytes").exists());
            findings.push(swap(Path::new("/proc/swaps"), counts));
            findings
        }
        Err(error) => {
            let mend = "mount them: `mount -t cgroup2 none /sys/fs/cgroup`; in a container, mount the machine's into it";
            vec![Finding::bad("cgroups", error.to_string(), mend)]
        }
    }
}

fn controllers_of(hierarchy: &Path) -> Vec<&str> {
    hierarchy.file_name().and_then(|name| name.to_str()).map(|name| name.split(',').collect()).unwrap_or_default()
}

fn version_2(controllers: &str) -> Finding {
    const CHECK: &str = "cgroups";
    let missing: Vec<&str> =
        ["cpu", "memory", "pids"].into_iter().filter(|name| !controllers.split_whitespace().any(|one| one == *name)).collect();
    if missing.is_empty() {
        return Finding::good(CHECK, "version 2 (unified)");
    }
    let mend = "in a container: start it with `--cgroupns=host`; on a small machine add cgroup_enable=memory to the kernel's command line";
    Finding::bad(CHECK, format!("version 2 without the controllers {}", missing.join(", ")), mend)
}

fn version_1(hierarchies: &[PathBuf]) -> Finding {
    const CHECK: &str = "cgroups";
    let there: Vec<&str> = hierarchies.iter().flat_map(|path| controllers_of(path)).collect();
    let missing: Vec<&str> =
        ["cpu", "cpuacct", "memory", "pids", "devices", "freezer"].into_iter().filter(|name| !there.contains(name)).collect();
    let must: Vec<&str> = missing.iter().copied().filter(|name| matches!(*name, "cpu" | "memory")).collect();
    if !must.is_empty() {
        let mend = "mount them, or boot with cgroup_enable=memory and systemd.unified_cgroup_hierarchy=1 for version 2";
        return Finding::bad(CHECK, format!("version 1 without the controllers {}", must.join(", ")), mend);
    }
    if !missing.is_empty() {
        let mend = "mount these controllers, or boot with systemd.unified_cgroup_hierarchy=1 for version 2";
        return Finding::warning(CHECK, format!("version 1 without {}: what they limit is not limited", missing.join(", ")), mend);
    }
    Finding::good(CHECK, "version 1 (each controller in a hierarchy of its own)")
}

/// Makes a control group in each hierarchy and removes it.
fn trial(check: &'static str, roots: &[PathBuf]) -> Finding {
    for root in roots {
        let folder = root.join(format!("{TRIAL}-{}", std::process::id()));
        let made = std::fs::create_dir(&folder).and_then(|()| std::fs::remove_dir(&folder));
        if let Err(error) = made {
            let mend = "run as root; in a container, mount /sys/fs/cgroup writable (`--privileged --cgroupns=host`)";
            return Finding::bad(check, format!("no control group can be made in {}: {error}", root.display()), mend);
        }
    }
    Finding::good(check, "a control group was made and removed")
}

/// Swap: whether there is any, and whether it is counted.
fn swap(swaps: &Path, is_counted: bool) -> Finding {
    const CHECK: &str = "swap";
    let has_swap = std::fs::read_to_string(swaps).is_ok_and(|text| text.lines().count() > 1);
    match (has_swap, is_counted) {
        (false, _) => Finding::good(CHECK, "none: a container's memory limit is all it gets"),
        (true, true) => Finding::good(CHECK, "there is some, and it is counted"),
        (true, false) => {
            Finding::warning(CHECK, "there is some and it is not counted: maxSwap and swappiness have no effect", "boot with swapaccount=1")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version_2("cpuset cpu io memory hugetlb pids rdma misc\n").verdict, Verdict::Good);
        let small = version_2("cpuset cpu io pids\n");
        assert!(small.verdict == Verdict::Bad && small.found.ends_with("memory"), "{small:?}");
        let hierarchies = |names: &[&str]| names.iter().map(|name| Path::new("/sys/fs/cgroup").join(name)).collect::<Vec<_>>();
        assert_eq!(version_1(&hierarchies(&["cpu,cpuacct", "memory", "pids", "devices", "freezer"])).verdict, Verdict::Good);
        assert_eq!(version_1(&hierarchies(&["cpu,cpuacct", "memory"])).verdict, Verdict::Warning);
        assert_eq!(version_1(&hierarchies(&["memory"])).verdict, Verdict::Bad);
    }

    #[test]
    fn a_place_where_nothing_can_be_made() {
        assert_eq!(trial("t", &[PathBuf::from("/proc")]).verdict, Verdict::Bad);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(trial("t", &[folder.path().to_owned()]).verdict, Verdict::Good);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
