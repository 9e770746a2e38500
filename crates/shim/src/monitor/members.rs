//! The processes that are left of a container whose first process has ended, where no pid namespace of its own takes them along.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process that was killed needs some time to be gone; one that forks meanwhile is killed the next time round.
const ROUNDS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(2);

/// Kills all members of the cgroup at `folder` but `first`, which is there until it is reaped, and waits until they are gone; for a second
/// at most, for the kernel may hold one up. Nothing is done without a folder.
pub fn end(folder: &str, first: i32) {
    if folder.is_empty() {
        return;
    }
    for _ in 0..ROUNDS {
        let members = members(Path::new(folder), first);
        if members.is_empty() {
            return;
        }
        // Version 2 kills all at once, also those that fork meanwhile.
        if std::fs::write(Path::new(folder).join("cgroup.kill"), "1").is_err() {
            for pid in members {
                // SAFETY: plain kill. The kernel lists only living members, and this cgroup is the container's alone.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// With those of the cgroups that a container made below its own.
fn members(folder: &Path, first: i32) -> Vec<i32> {
    let (mut folders, mut all) = (vec![PathBuf::from(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        all.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid != first));
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    all
}
