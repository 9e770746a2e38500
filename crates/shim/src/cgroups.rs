//! Makes a container's cgroup, sets its limits, and puts a process into it without the detour that makes others slow.
//!
//! Writing a pid to `cgroup.procs` makes the kernel wait for an RCU grace period (5 to 18 ms on an idle machine) to keep the
//! whole process still. A single-threaded process that moves itself needs none: on version 1 it writes `0` to `tasks`; on
//! version 2 it is cloned straight into the cgroup.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::config::Resources;
use crate::fds;
use crate::rootfs::open_folder;

const ROOT: &str = "/sys/fs/cgroup";

/// Version 1 hierarchies that are used: those with limits or readings, and systemd's bookkeeping, so that stopping the agent's
/// service does not count containers as part of it.
const USED: [&str; 7] = ["cpu", "cpuacct", "memory", "devices", "blkio", "pids", "systemd"];

/// The devices of every container: null, zero, full, random, urandom, tty, console, ptmx and pseudo terminals; any may be made.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Controllers of version 2 that are handed down.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "io", "pids"];

/// A cgroup that can be entered.
pub enum Cgroup {
    /// The folders of version 1 and their open `tasks` files.
    V1 {
        /// Name of the hierarchy's mount point and the cgroup's folder.
        folders: Vec<(String, PathBuf)>,
        /// For [`Cgroup::enter`].
        tasks: Vec<File>,
    },
    /// The folder of version 2, for clone3.
    V2(OwnedFd),
}

/// The parent is the task's, and goes away with the task's last container, possibly right while the next one is made.
const ATTEMPTS: u32 = 8;

/// Makes the cgroup at `path` with its limits; `hierarchies` are version 1's mount points, none on version 2.
pub fn make(path: &str, hierarchies: &[PathBuf], resources: &Resources) -> io::Result<Cgroup> {
    for _ in 1..ATTEMPTS {
        match make_once(path, hierarchies, resources) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    make_once(path, hierarchies, resources)
}

fn make_once(path: &str, hierarchies: &[PathBuf], resources: &Resources) -> io::Result<Cgroup> {
    if hierarchies.is_empty() {
        return make_v2(path, resources);
    }
    for (name, folder) in used(path, hierarchies) {
        make_folder(&folder)?;
        let has = |controller: &str| name.split(',').any(|part| part == controller);
        if has("cpu") {
            set(&folder, "cpu.shares", resources.cpu.shares)?;
            set(&folder, "cpu.cfs_period_us", resources.cpu.period)?;
            set(&folder, "cpu.cfs_quota_us", resources.cpu.quota)?;
        }
        if has("memory") {
            set(&folder, "memory.limit_in_bytes", resources.memory.limit)?;
            set(&folder, "memory.soft_limit_in_bytes", resources.memory.reservation)?;
        }
        if has("pids") {
            set(&folder, "pids.max", resources.pids.limit)?;
        }
        if has("devices") && resources.devices.iter().any(|rule| !rule.allow) {
            set(&folder, "devices.deny", Some("a"))?;
            let mut allow = File::options().write(true).open(folder.join("devices.allow"))?;
            for device in DEVICES {
                allow.write_all(device.as_bytes())?;
            }
        }
    }
    open(path, hierarchies)
}

/// Opens a cgroup that is there.
pub fn open(path: &str, hierarchies: &[PathBuf]) -> io::Result<Cgroup> {
    if hierarchies.is_empty() {
        return Ok(Cgroup::V2(open_folder(&Path::new(ROOT).join(path.trim_start_matches('/')))?));
    }
    let folders: Vec<(String, PathBuf)> = used(path, hierarchies).collect();
    let tasks = folders.iter().map(|(_, folder)| File::options().write(true).open(folder.join("tasks"))).collect::<io::Result<_>>()?;
    Ok(Cgroup::V1 { folders, tasks })
}

impl Cgroup {
    /// Moves the calling process, which must have one thread. On version 2 it is there already.
    pub fn enter(&self) -> io::Result<()> {
        if let Cgroup::V1 { tasks, .. } = self {
            for mut file in tasks {
                file.write_all(b"0")?;
            }
        }
        Ok(())
    }

    /// The descriptor for CLONE_INTO_CGROUP.
    pub fn clone_target(&self) -> Option<i32> {
        match self {
            Cgroup::V1 { .. } => None,
            Cgroup::V2(folder) => Some(folder.as_raw_fd()),
        }
    }
}

fn used<'a>(path: &'a str, hierarchies: &'a [PathBuf]) -> impl Iterator<Item = (String, PathBuf)> + 'a {
    hierarchies.iter().filter_map(move |root| {
        let name = root.file_name()?.to_string_lossy().into_owned();
        let wanted = name.split(',').any(|part| USED.contains(&part));
        wanted.then(|| (name, root.join(path.trim_start_matches('/'))))
    })
}

/// Parents are usually there, or can be: the container's own folder never is.
fn make_folder(folder: &Path) -> io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
    .map_err(|e| io::Error::new(e.kind(), format!("make {}: {e}", folder.display())))
}

fn set(folder: &Path, file: &str, value: Option<impl ToString>) -> io::Result<()> {
    let Some(value) = value else { return Ok(()) };
    let (path, value) = (folder.join(file), value.to_string());
    let written = File::options().write(true).open(&path).and_then(|mut opened| opened.write_all(value.as_bytes()));
    written.map_err(|e| io::Error::new(e.kind(), format!("write {value:?} to {}: {e}", path.display())))
}

fn make_v2(path: &str, resources: &Resources) -> io::Result<Cgroup> {
    let mut folder = PathBuf::from(ROOT);
    for part in path.split('/').filter(|part| !part.is_empty()) {
        hand_down(&folder)?;
        folder.push(part);
        make_folder(&folder)?;
    }
    set(&folder, "cpu.weight", resources.cpu.shares.map(weight))?;
    if let (Some(quota), Some(period)) = (resources.cpu.quota, resources.cpu.period) {
        set(&folder, "cpu.max", Some(format!("{quota} {period}")))?;
    }
    set(&folder, "memory.max", resources.memory.limit)?;
    set(&folder, "memory.low", resources.memory.reservation)?;
    set(&folder, "pids.max", resources.pids.limit)?;
    Ok(Cgroup::V2(open_folder(&folder)?))
}

/// Lets children of a folder have the controllers that the folder has. One at a time: a missing one must not lose the others.
fn hand_down(folder: &Path) -> io::Result<()> {
    let available = std::fs::read_to_string(folder.join("cgroup.controllers"))?;
    let given = std::fs::read_to_string(folder.join("cgroup.subtree_control"))?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|entry| entry == name);
    for name in CONTROLLERS {
        if has(&available, name) && !has(&given, name) {
            set(folder, "cgroup.subtree_control", Some(format!("+{name}")))?;
        }
    }
    Ok(())
}

/// Shares (2 to 262144) as weight (1 to 10000), by the formula that all runtimes have used since version 2 came.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Opens a copy of the cgroup's mount, read-only unless `writable`, to be placed in the container: programs look there for
/// their limits.
pub fn view(folder: &Path, writable: bool) -> io::Result<OwnedFd> {
    let tree = fds::open_tree(folder, false)?;
    fds::set_mount(&tree, fds::NOSUID | fds::NODEV | fds::NOEXEC | if writable { 0 } else { fds::RDONLY }, false)?;
    Ok(tree)
}

/// Hierarchies that a container sees.
pub fn is_shown(name: &str) -> bool {
    name != "systemd" && name != "devices"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!([0, 2, 1024, 262_144].map(weight), [1, 1, 39, 10_000]);
    }

    #[test]
    fn only_useful_hierarchies_are_used() {
        let all: Vec<PathBuf> = ["cpu,cpuacct", "memory", "net_cls", "freezer", "pids"].iter().map(|n| Path::new(ROOT).join(n)).collect();
        let names: Vec<String> = used("/a/b", &all).map(|(_, folder)| folder.display().to_string()).collect();
        assert_eq!(names, ["/sys/fs/cgroup/cpu,cpuacct/a/b", "/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/pids/a/b"]);
    }
}
