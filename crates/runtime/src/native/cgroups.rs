//! Where the kernel keeps a container's cgroups, read and removed. The shim makes them; both the hybrid layout (controllers
//! in version 1) and pure version 2 are known.

use std::io;
use std::path::{Path, PathBuf};

use crate::port::Stats;

const ROOT: &str = "/sys/fs/cgroup";

/// How this machine's cgroups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Controllers each in a hierarchy of its own.
    V1 {
        /// Mount points, `/sys/fs/cgroup/<controllers>`.
        hierarchies: Vec<PathBuf>,
    },
    /// One hierarchy at `/sys/fs/cgroup`.
    V2,
}

impl Layout {
    /// Looks at this machine.
    ///
    /// # Errors
    /// Of the system, or if there are no cgroups at all.
    pub fn detect() -> io::Result<Layout> {
        let layout = Layout::parse(&std::fs::read_to_string("/proc/self/mountinfo")?);
        layout.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, format!("no cgroups are mounted at {ROOT}")))
    }

    /// Mount information: fields before " - " (the fifth is the mount point), then type and source.
    fn parse(mounts: &str) -> Option<Layout> {
        let mut hierarchies = Vec::new();
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(point) = before.split(' ').nth(4) else { continue };
            match after.split(' ').next() {
                Some("cgroup2") if point == ROOT => return Some(Layout::V2),
                Some("cgroup") if point.starts_with(ROOT) => hierarchies.push(PathBuf::from(point)),
                _ => {}
            }
        }
        (!hierarchies.is_empty()).then_some(Layout::V1 { hierarchies })
    }

    /// Folders of one cgroup, given its path below the hierarchies' roots (`/a/b`).
    fn folders(&self, path: &str) -> Vec<PathBuf> {
        let below = path.trim_start_matches('/');
        match self {
            Layout::V1 { hierarchies } => hierarchies.iter().map(|root| root.join(below)).collect(),
            Layout::V2 => vec![Path::new(ROOT).join(below)],
        }
    }

    /// The folder in which a controller's files are.
    fn controller(&self, path: &str, name: &str) -> Option<PathBuf> {
        let below = path.trim_start_matches('/');
        match self {
            Layout::V1 { hierarchies } => {
                let has = |root: &&PathBuf| root.file_name().is_some_and(|file| file.to_string_lossy().split(',').any(|part| part == name));
                Some(hierarchies.iter().find(has)?.join(below))
            }
            Layout::V2 => Some(Path::new(ROOT).join(below)),
        }
    }

    /// Mount points of version 1; none on version 2.
    pub fn hierarchies(&self) -> &[PathBuf] {
        match self {
            Layout::V1 { hierarchies } => hierarchies,
            Layout::V2 => &[],
        }
    }

    /// The file that counts OOM kills.
    pub fn oom_file(&self, path: &str) -> PathBuf {
        let file = if *self == Layout::V2 { "memory.events" } else { "memory.oom_control" };
        self.controller(path, "memory").map(|folder| folder.join(file)).unwrap_or_default()
    }

    /// One reading; `None` if the cgroup is gone.
    pub fn stats(&self, path: &str) -> Option<Stats> {
        match self {
            Layout::V1 { .. } => self.stats_v1(path),
            Layout::V2 => self.stats_v2(path),
        }
    }

    fn stats_v1(&self, path: &str) -> Option<Stats> {
        let memory = self.controller(path, "memory")?;
        let used = number(&memory.join("memory.usage_in_bytes"))?;
        let cache = field(&memory.join("memory.stat"), "total_inactive_file").unwrap_or(0);
        let io_file = self.controller(path, "blkio").map(|folder| folder.join("blkio.throttle.io_service_bytes"));
        let io_text = io_file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let (read_bytes, write_bytes) = parse_blkio(&io_text);
        let cpu = |file: &str| self.controller(path, "cpuacct").and_then(|folder| number(&folder.join(file))).unwrap_or(0);
        Some(Stats {
            cpu_nanos: cpu("cpuacct.usage"),
            user_nanos: cpu("cpuacct.usage_user"),
            kernel_nanos: cpu("cpuacct.usage_sys"),
            memory_bytes: used.saturating_sub(cache),
            cache_bytes: cache.min(used),
            read_bytes,
            write_bytes,
            pids: self.controller(path, "pids").and_then(|folder| number(&folder.join("pids.current"))).unwrap_or(0),
        })
    }

    fn stats_v2(&self, path: &str) -> Option<Stats> {
        let folder = self.controller(path, "")?;
        let used = number(&folder.join("memory.current"))?;
        let cache = field(&folder.join("memory.stat"), "inactive_file").unwrap_or(0);
        let (read_bytes, write_bytes) = parse_io_stat(&std::fs::read_to_string(folder.join("io.stat")).unwrap_or_default());
        let cpu_text = std::fs::read_to_string(folder.join("cpu.stat")).unwrap_or_default();
        let cpu = |name: &str| field_of(&cpu_text, name).unwrap_or(0).saturating_mul(1_000);
        Some(Stats {
            cpu_nanos: cpu("usage_usec"),
            user_nanos: cpu("user_usec"),
            kernel_nanos: cpu("system_usec"),
            memory_bytes: used.saturating_sub(cache),
            cache_bytes: cache.min(used),
            read_bytes,
            write_bytes,
            pids: number(&folder.join("pids.current")).unwrap_or(0),
        })
    }

    /// Whether the kernel limits how much of a cgroup is swapped out; version 1 counts that only where the kernel was told to.
    pub fn knows_swap(&self) -> bool {
        // A cgroup of version 2 that has been made says it for itself; at the root there are no limits.
        *self == Layout::V2 || self.controller("", "memory").is_some_and(|folder| folder.join("memory.memsw.limit_in_bytes").exists())
    }

    /// Whether a cgroup can be swapped out more or less readily than the rest of the machine.
    pub fn knows_swappiness(&self) -> bool {
        self.controller("", "memory").is_some_and(|folder| folder.join("memory.swappiness").exists())
    }

    /// Whether the kernel keeps device files in check for a cgroup: by a controller of version 1, or by a program on version 2.
    pub fn restricts_devices(&self) -> bool {
        *self == Layout::V2 || self.controller("", "devices").is_some()
    }

    /// The cgroup's folders with those that were made below, each after the one above it: a container that may write to its cgroup
    /// (a whole system in a privileged one) makes some and moves itself into them.
    fn tree(&self, path: &str) -> Vec<PathBuf> {
        let mut folders = self.folders(path);
        let mut next = 0;
        while next < folders.len() {
            let children = std::fs::read_dir(&folders[next]).into_iter().flatten().flatten();
            folders.extend(children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
            next += 1;
        }
        folders
    }

    /// The processes in a cgroup and below it.
    pub fn processes(&self, path: &str) -> Vec<i32> {
        let mut all: Vec<i32> = self
            .tree(path)
            .iter()
            .filter_map(|folder| std::fs::read_to_string(folder.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Kills whatever is in a cgroup.
    pub fn kill(&self, path: &str) {
        if *self == Layout::V2 {
            let file = Path::new(ROOT).join(path.trim_start_matches('/')).join("cgroup.kill");
            if std::fs::write(file, "1").is_ok() {
                return;
            }
        }
        for pid in self.processes(path) {
            // SAFETY: plain kill. The kernel lists only living members, and this cgroup is the container's alone.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// Removes an empty cgroup from all hierarchies; one that is not there is no error, one with others below stays.
    ///
    /// # Errors
    /// Of the system, with the folder; `ResourceBusy` while processes are still ending in it.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        Layout::remove_folders(self.folders(path).iter())
    }

    /// As [`Layout::remove`], with all that a container made below its own.
    ///
    /// # Errors
    /// As there.
    pub fn remove_tree(&self, path: &str) -> io::Result<()> {
        Layout::remove_folders(self.tree(path).iter().rev())
    }

    fn remove_folders<'a>(folders: impl Iterator<Item = &'a PathBuf>) -> io::Result<()> {
        for folder in folders {
            match std::fs::remove_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io::Error::new(error.kind(), format!("remove cgroup {}: {error}", folder.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills everything below a runtime's own cgroup and removes it as far as it is empty; best effort, for clearing up after
    /// a runtime that is gone.
    pub fn sweep(&self, root: &str) {
        for folder in self.tree(root).iter().rev() {
            let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for pid in text.lines().filter_map(|line| line.parse::<i32>().ok()) {
                // SAFETY: plain kill of a member of this runtime's own cgroup.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            let _ = std::fs::remove_dir(folder);
        }
    }

    /// Whether the cgroup exists in any hierarchy.
    pub fn exists(&self, path: &str) -> bool {
        self.folders(path).iter().any(|folder| folder.exists())
    }
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(file: &Path, name: &str) -> Option<u64> {
    field_of(&std::fs::read_to_string(file).ok()?, name)
}

fn field_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `<major:minor> Read <bytes>` and `... Write <bytes>`, a line per device.
fn parse_blkio(text: &str) -> (u64, u64) {
    let sum = |operation: &str| {
        let bytes = |line: &str| {
            let mut parts = line.split(' ');
            (parts.nth(1) == Some(operation)).then(|| parts.next()?.parse::<u64>().ok()).flatten()
        };
        text.lines().filter_map(bytes).sum()
    };
    (sum("Read"), sum("Write"))
}

/// `<major:minor> rbytes=N wbytes=N rios=N ...`, a line per device.
fn parse_io_stat(text: &str) -> (u64, u64) {
    let sum = |key: &str| text.split_whitespace().filter_map(|part| part.strip_prefix(key)?.parse::<u64>().ok()).sum();
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "25 30 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        27 25 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        28 25 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn layouts_are_told_apart() {
        let hybrid = Layout::parse(HYBRID).unwrap();
        assert_eq!(hybrid.oom_file("/a/b"), Path::new("/sys/fs/cgroup/memory/a/b/memory.oom_control"));
        assert_eq!(hybrid.controller("/a", "cpuacct").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a"));
        let pure = Layout::parse("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").unwrap();
        assert_eq!(pure, Layout::V2);
        assert_eq!(pure.oom_file("/a/b"), Path::new("/sys/fs/cgroup/a/b/memory.events"));
        assert_eq!(Layout::parse("30 24 0:26 / / rw - ext4 /dev/vda rw\n"), None);
        // Where nothing keeps device files in check, containers may not make any.
        assert!(pure.restricts_devices() && !hybrid.restricts_devices());
    }

    #[test]
    fn block_io_is_summed_over_devices() {
        assert_eq!(parse_blkio("8:0 Read 10\n8:0 Write 5\n8:0 Total 15\n9:0 Read 1\nTotal 16\n"), (11, 5));
        assert_eq!(parse_io_stat("8:0 rbytes=10 wbytes=5 rios=1 wios=1\n9:0 rbytes=1 wbytes=0\n"), (11, 5));
    }
}
