//! What the machine has: cores and memory.

/// CPU units: 1024 to a core.
#[must_use]
pub fn cpu_units() -> u32 {
    u32::try_from(cores().saturating_mul(1024)).unwrap_or(u32::MAX)
}

/// Cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// `MemTotal` in MiB; `None` where there is no `/proc/meminfo`.
#[must_use]
pub fn memory_mib() -> Option<u64> {
    parse_mem_total(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_mem_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_notation() {
        assert_eq!(parse_mem_total("MemTotal:        8061932 kB\nMemFree: 1 kB\n"), Some(7872));
        assert_eq!(parse_mem_total("MemFree: 1 kB\n"), None);
    }
}
