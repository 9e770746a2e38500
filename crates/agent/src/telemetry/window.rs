//! One container's readings since the last publication.

use berth_acs::messages::{ContainerMetric, CountSet, RestartStats, StatsSet, StorageStats};
use berth_runtime::port::Stats;

const MIB: f64 = 1024.0 * 1024.0;

/// One reading and when it was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// What was read.
    pub stats: Stats,
    /// Unix milliseconds.
    pub at: i64,
}

/// Readings summed up. CPU time and bytes count from one reading to the next, so the first one gives only a start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    last: Option<Reading>,
    cpu: StatsSet,
    memory: StatsSet,
    read: CountSet,
    written: CountSet,
    /// Starts again that were published.
    restarts: u32,
}

impl Window {
    /// Takes a reading in, on a machine of so many cores.
    pub fn add(&mut self, reading: Reading, cores: usize) {
        if let Some(last) = self.last
            && reading.at > last.at
        {
            let nanos = reading.stats.cpu_nanos.saturating_sub(last.stats.cpu_nanos) as f64;
            let elapsed = (reading.at - last.at) as f64 * 1e6;
            add(&mut self.cpu, nanos / elapsed / cores.max(1) as f64 * 100.0);
            add(&mut self.memory, reading.stats.memory_bytes as f64 / MIB);
            count(&mut self.read, reading.stats.read_bytes.saturating_sub(last.stats.read_bytes));
            count(&mut self.written, reading.stats.write_bytes.saturating_sub(last.stats.write_bytes));
        }
        self.last = Some(reading);
    }

    /// What there is to publish since the last time; `None` before the second reading. `restarts` is how often a container with a
    /// restart policy was started again in all its life; `None` for others.
    pub fn take(&mut self, container_name: &str, restarts: Option<u32>) -> Option<ContainerMetric> {
        let published = self.restarts;
        let is_due = self.cpu.sample_count > 0;
        let taken = std::mem::take(self);
        (self.last, self.restarts) = (taken.last, if is_due { restarts.unwrap_or(0) } else { published });
        let since = restarts.map(|restarts| RestartStats { restart_count: i64::from(restarts.saturating_sub(published)) });
        is_due.then(|| ContainerMetric {
            container_name: container_name.to_owned(),
            cpu_stats_set: Some(taken.cpu),
            memory_stats_set: Some(taken.memory),
            storage_stats_set: Some(StorageStats { read_size_bytes: Some(taken.read), write_size_bytes: Some(taken.written) }),
            restart_stats_set: since,
            ..Default::default()
        })
    }
}

fn add(set: &mut StatsSet, value: f64) {
    let first = set.sample_count == 0;
    set.min = if first { value } else { set.min.min(value) };
    set.max = if first { value } else { set.max.max(value) };
    set.sum += value;
    set.sample_count += 1;
}

fn count(set: &mut CountSet, value: u64) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    let first = set.sample_count == 0;
    set.min = if first { value } else { set.min.min(value) };
    set.max = if first { value } else { set.max.max(value) };
    set.sum = set.sum.saturating_add(value);
    set.sample_count += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_of_the_whole_machine() {
        let mut window = Window::default();
        let reading = |at, cpu_nanos, mib: u64, read_bytes| Reading {
            stats: Stats { cpu_nanos, memory_bytes: mib << 20, read_bytes, ..Default::default() },
            at,
        };
        window.add(reading(0, 0, 10, 100), 2);
        assert_eq!(window.take("c", None), None);
        window.add(reading(1000, 1_000_000_000, 20, 150), 2);
        window.add(reading(2000, 3_000_000_000, 40, 150), 2);
        let metric = window.take("c", Some(2)).unwrap();
        assert_eq!(metric.restart_stats_set.unwrap().restart_count, 2);
        assert_eq!(metric.cpu_stats_set.unwrap(), StatsSet { min: 50.0, max: 100.0, sum: 150.0, sample_count: 2 });
        assert_eq!(metric.memory_stats_set.unwrap(), StatsSet { min: 20.0, max: 40.0, sum: 60.0, sample_count: 2 });
        let read = metric.storage_stats_set.unwrap().read_size_bytes.unwrap();
        assert_eq!((read.min, read.max, read.sum), (0, 50, 50));
        assert_eq!(window.take("c", Some(3)), None, "nothing was read since");
        window.add(reading(3000, 3_000_000_000, 40, 150), 2);
        let metric = window.take("c", Some(3)).unwrap();
        assert_eq!((metric.cpu_stats_set.unwrap().max, metric.restart_stats_set.unwrap().restart_count), (0.0, 1));
    }
}
