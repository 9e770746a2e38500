//! Makes a container's cgroup, sets its limits, and puts a process into it without the detour that makes others slow.
//!
//! Writing a pid to `cgroup.procs` makes the kernel wait for an RCU grace period (5 to 18 ms on an idle machine) to keep the
//! whole process still. A single-threaded process that moves itself needs none: on version 1 it writes `0` to `tasks`; on
//! version 2 it is cloned straight into the cgroup.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::config::{Memory, Resources};
use crate::{devices, fds};

const ROOT: &str = "/sys/fs/cgroup";

/// Version 1 hierarchies that are used: those with limits or readings, and systemd's bookkeeping, so that stopping the agent's
/// service does not count containers as part of it.
const USED: [&str; 7] = ["cpu", "cpuacct", "memory", "devices", "blkio", "pids", "systemd"];

/// Controllers of version 2 that are handed down.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "io", "pids"];

/// What the limit of a whole task's CPU is a share of, in microseconds; the kernel's own default.
const TASK_PERIOD: u64 = 100_000;

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

/// Makes the cgroup at `path` with its limits; `hierarchies` are version 1's mount points, none on version 2. `above` is the CPU
/// shares of the cgroup above, the task's: without, each task would weigh the same however many CPU units it has. The limit of
/// processes is that cgroup's too.
pub fn make(path: &str, hierarchies: &[PathBuf], resources: &Resources, above: Option<u64>) -> io::Result<Cgroup> {
    for _ in 1..ATTEMPTS {
        match make_once(path, hierarchies, resources, above) {
            // Somebody removes the parent meanwhile: it is not there, or its files say so.
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => {}
            result => return result,
        }
    }
    make_once(path, hierarchies, resources, above)
}

fn make_once(path: &str, hierarchies: &[PathBuf], resources: &Resources, above: Option<u64>) -> io::Result<Cgroup> {
    if hierarchies.is_empty() {
        return make_v2(path, resources, above);
    }
    for (name, folder) in used(path, hierarchies) {
        make_folder(&folder)?;
        let has = |controller: &str| name.split(',').any(|part| part == controller);
        if has("cpu") {
            let task = folder.parent().unwrap_or(&folder);
            // First: what is below cannot have more.
            set(task, "cpu.cfs_period_us", resources.cpu.of_task.map(|_| TASK_PERIOD))?;
            set(task, "cpu.cfs_quota_us", resources.cpu.of_task)?;
            set(&folder, "cpu.shares", resources.cpu.shares)?;
            set(&folder, "cpu.cfs_period_us", resources.cpu.period)?;
            set(&folder, "cpu.cfs_quota_us", resources.cpu.quota)?;
            set(task, "cpu.shares", above)?;
        }
        if has("memory") {
            set(&folder, "memory.limit_in_bytes", resources.memory.limit)?;
            set(&folder, "memory.soft_limit_in_bytes", resources.memory.reservation)?;
            set_if_known(&folder, "memory.memsw.limit_in_bytes", memory_and_swap(&resources.memory))?;
            set_if_known(&folder, "memory.swappiness", resources.memory.swappiness)?;
            if resources.memory.of_task.is_some() {
                let task = folder.parent().unwrap_or(&folder);
                count_together(task)?;
                set(task, "memory.limit_in_bytes", resources.memory.of_task)?;
                set_if_known(task, "memory.memsw.limit_in_bytes", resources.memory.of_task)?;
            }
        }
        if has("pids") {
            set(folder.parent().unwrap_or(&folder), "pids.max", resources.pids.of_task)?;
        }
        if has("devices") && are_restricted(resources) {
            devices::restrict_v1(&folder, &resources.devices)?;
        }
    }
    open(path, hierarchies)
}

/// Opens a cgroup that is there.
pub fn open(path: &str, hierarchies: &[PathBuf]) -> io::Result<Cgroup> {
    if hierarchies.is_empty() {
        return Ok(Cgroup::V2(fds::open_place(&Path::new(ROOT).join(path.trim_start_matches('/')), libc::O_DIRECTORY)?));
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

/// The limit of memory and swap together. Docker's default: as much swap as memory; without, the limit would be none where there is swap.
fn memory_and_swap(memory: &Memory) -> Option<i64> {
    let twice = |limit: u64| i64::try_from(limit.saturating_mul(2)).unwrap_or(i64::MAX);
    memory.swap.or(memory.limit.map(twice))
}

/// The limit of swap alone, as version 2 counts it.
fn swap_alone(memory: &Memory) -> Option<String> {
    let limit = i64::try_from(memory.limit?).unwrap_or(i64::MAX);
    match memory_and_swap(memory)? {
        ..0 => Some("max".to_owned()),
        both => Some((both - limit).max(0).to_string()),
    }
}

fn are_restricted(resources: &Resources) -> bool {
    resources.devices.iter().any(|rule| !rule.allow)
}

/// The cgroup of a process by its `/proc/<pid>/cgroup`, if it is `cgroup` or lies in it: from there on, since what is above
/// depends on where the agent itself sees the hierarchy's root.
pub fn member_of(text: &str, cgroup: &str) -> Option<String> {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| {
        let below = &path[path.find(cgroup)?..];
        let rest = &below[cgroup.len()..];
        (rest.is_empty() || rest.starts_with('/')).then(|| below.to_owned())
    })
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
    written.map_err(|e| match e.raw_os_error() {
        // As it is: with words it would have no number any more, by which it is recognised.
        Some(libc::ENODEV) => e,
        _ => io::Error::new(e.kind(), format!("write {value:?} to {}: {e}", path.display())),
    })
}

/// Has a cgroup of version 1 count what is below it. Kernels since 5.11 know nothing else; before, it can be said only while nothing is.
fn count_together(folder: &Path) -> io::Result<()> {
    let file = folder.join("memory.use_hierarchy");
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim() == "0" => std::fs::write(&file, "1")
            .map_err(|e| io::Error::new(e.kind(), format!("limit the memory of all containers of {} together: {e}", folder.display()))),
        _ => Ok(()),
    }
}

/// As [`set`], where the kernel may have been built or started without it.
fn set_if_known(folder: &Path, file: &str, value: Option<impl ToString>) -> io::Result<()> {
    if folder.join(file).exists() { set(folder, file, value) } else { Ok(()) }
}

fn make_v2(path: &str, resources: &Resources, above: Option<u64>) -> io::Result<Cgroup> {
    let mut folder = PathBuf::from(ROOT);
    for part in path.split('/').filter(|part| !part.is_empty()) {
        hand_down(&folder)?;
        folder.push(part);
        make_folder(&folder)?;
    }
    let task = folder.parent().unwrap_or(&folder).to_owned();
    set(&task, "cpu.weight", above.map(weight))?;
    set(&task, "cpu.max", resources.cpu.of_task.map(|quota| format!("{quota} {TASK_PERIOD}")))?;
    set(&task, "memory.max", resources.memory.of_task)?;
    set_if_known(&task, "memory.swap.max", resources.memory.of_task.map(|_| 0))?;
    set(&folder, "cpu.weight", resources.cpu.shares.map(weight))?;
    if let (Some(quota), Some(period)) = (resources.cpu.quota, resources.cpu.period) {
        set(&folder, "cpu.max", Some(format!("{quota} {period}")))?;
    }
    set(&folder, "memory.max", resources.memory.limit)?;
    set(&folder, "memory.low", resources.memory.reservation)?;
    set_if_known(&folder, "memory.swap.max", swap_alone(&resources.memory))?;
    set(&task, "pids.max", resources.pids.of_task)?;
    let opened = fds::open_place(&folder, libc::O_DIRECTORY)?;
    if are_restricted(resources) {
        devices::restrict_v2(&opened, &resources.devices)
            .map_err(|e| io::Error::new(e.kind(), format!("attach the device filter: {e}")))?;
    }
    Ok(Cgroup::V2(opened))
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
    let tree = fds::open_tree(&fds::open_place(folder, libc::O_DIRECTORY)?, false)?;
    fds::set_mount(&tree, fds::NOSUID | fds::NODEV | fds::NOEXEC | if writable { 0 } else { fds::RDONLY }, false)?;
    Ok(tree)
}

/// The folder by which all processes of a cgroup are found.
pub fn members_folder(path: &str, hierarchies: &[PathBuf]) -> PathBuf {
    let version_2 = || Path::new(ROOT).join(path.trim_start_matches('/'));
    used(path, hierarchies).next().map_or_else(version_2, |(_, folder)| folder)
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
    fn swap_is_counted_with_memory_or_by_itself() {
        let memory = |limit, swap| Memory { limit, swap, ..Memory::default() };
        let cases = [
            (memory(None, None), None, None),
            (memory(Some(100), None), Some(200), Some("100")),
            (memory(Some(100), Some(100)), Some(100), Some("0")),
            (memory(Some(100), Some(150)), Some(150), Some("50")),
            (memory(Some(100), Some(-1)), Some(-1), Some("max")),
        ];
        for (memory, together, alone) in cases {
            assert_eq!((memory_and_swap(&memory), swap_alone(&memory).as_deref()), (together, alone));
        }
    }

    #[test]
    fn members_are_told_from_strangers() {
        let version_1 = "9:memory:/berth/t/c\n1:name=systemd:/berth/t/c\n0::/user.slice\n";
        assert_eq!(member_of(version_1, "/berth/t/c").as_deref(), Some("/berth/t/c"));
        assert_eq!(member_of("0::/docker/x/berth/t/c/init.scope\n", "/berth/t/c").as_deref(), Some("/berth/t/c/init.scope"));
        assert_eq!(member_of("0::/berth/t/cc\n", "/berth/t/c"), None);
        assert_eq!(member_of("0::/berth/t\n", "/berth/t/c"), None);
        assert_eq!(member_of("", "/berth/t/c"), None);
    }

    #[test]
    fn only_useful_hierarchies_are_used() {
        let all: Vec<PathBuf> = ["cpu,cpuacct", "memory", "net_cls", "freezer", "pids"].iter().map(|n| Path::new(ROOT).join(n)).collect();
        let names: Vec<String> = used("/a/b", &all).map(|(_, folder)| folder.display().to_string()).collect();
        assert_eq!(names, ["/sys/fs/cgroup/cpu,cpuacct/a/b", "/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/pids/a/b"]);
    }
}
