//! How much memory processes take: all that is mapped by each (RSS), and with what several map divided among them (PSS).

use std::path::Path;

/// Bytes of some processes together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) resident: f64,
    pub(super) proportional: f64,
    pub(super) processes: usize,
}

fn all() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Processes whose command lines have a word in them, this one apart.
pub(super) fn named(word: &str) -> Vec<u32> {
    all().filter(|pid| *pid != std::process::id() && names(*pid, word)).collect()
}

/// Of those that the condition holds for; ones that end meanwhile do not count.
pub(super) fn of(mut wanted: impl FnMut(u32) -> bool) -> Memory {
    let mut all = Memory::default();
    for pid in self::all().filter(|pid| wanted(*pid)) {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let field = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
        };
        all.resident += field("Rss:");
        all.proportional += field("Pss:");
        all.processes += 1;
    }
    all
}

/// Whether a process stands in a folder or below: the monitor of a container does, in the container's.
pub(super) fn stands_below(pid: u32, folder: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place.starts_with(folder))
}

/// Whether a process was started by another.
pub(super) fn is_child_of(pid: u32, parent: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|found| found.trim() == parent.to_string()))
}

/// Whether a process's command line has a word in it.
pub(super) fn names(pid: u32, word: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(word)
}
