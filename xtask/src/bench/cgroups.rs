//! The cgroups of what a bench started, by the name of the uppermost, in every hierarchy there is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "/sys/fs/cgroup";

/// All folders of that name and below, each after the one above it.
fn folders(name: &str) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    // Version 2 has one, mounted at the root.
    let mut found: Vec<PathBuf> =
        hierarchies.chain([ROOT.into()]).map(|hierarchy| hierarchy.join(name)).filter(|folder| folder.is_dir()).collect();
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        let below = std::fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        next += 1;
    }
    found
}

/// How many cgroups are below that name.
pub(super) fn count_below(name: &str) -> usize {
    folders(name).iter().filter(|folder| folder.file_name().is_some_and(|last| last != name)).count()
}

/// Kills what is in them and removes them.
pub(super) fn remove(name: &str, patience: Duration) {
    let started = Instant::now();
    loop {
        let left = folders(name);
        if left.is_empty() || started.elapsed() > patience {
            return;
        }
        for folder in left.iter().rev() {
            let members = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for pid in members.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = std::fs::remove_dir(folder);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
