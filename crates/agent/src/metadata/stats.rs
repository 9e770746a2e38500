//! What a container uses, in Docker's form. Pure; who reads is `answer`.
//!
//! <https://docs.docker.com/reference/api/engine/version/v1.30/#tag/Container/operation/ContainerStats>

use berth_runtime::port::{Direction, Stats, Traffic};
use berth_shapes::timestamp::Timestamp;
use serde_json::{Value, json};

/// One reading of a container and of the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Of the container.
    pub stats: Stats,
    /// Of its network; none in the machine's own.
    pub traffic: Option<Traffic>,
    /// When, Unix milliseconds.
    pub at: i64,
    /// When, on a clock that only goes forward: nanoseconds since the machine was started.
    pub uptime_nanos: u64,
}

/// What is told of a container besides its readings.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Most bytes of memory that it may use.
    pub memory_limit: u64,
    /// Cores of the machine.
    pub cores: usize,
    /// Whether the rates of its network are told: of a task's own interface.
    pub has_rates: bool,
}

/// Two readings of a container, the later one last.
#[must_use]
pub fn render(of: Measured<'_>, before: &Sample, last: &Sample) -> Value {
    let time = |sample: &Sample| Timestamp::from_millis(sample.at).render_iso8601();
    let mut shown = json!({
        "read": time(last),
        "preread": time(before),
        "id": of.id,
        "name": format!("/{}", of.name),
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {"current": last.stats.pids},
        "blkio_stats": {
            // All devices together, which therefore have no number.
            "io_service_bytes_recursive": [
                {"major": 0, "minor": 0, "op": "Read", "value": last.stats.read_bytes},
                {"major": 0, "minor": 0, "op": "Write", "value": last.stats.write_bytes},
            ],
        },
        "cpu_stats": processors(of.cores, last),
        "precpu_stats": processors(of.cores, before),
        "memory_stats": {
            // Docker counts page cache in, and its clients take it off.
            "usage": last.stats.memory_bytes.saturating_add(last.stats.cache_bytes),
            "limit": of.memory_limit,
            "stats": {"inactive_file": last.stats.cache_bytes, "total_inactive_file": last.stats.cache_bytes},
        },
    });
    if let Some(traffic) = &last.traffic {
        shown["networks"] = json!({"eth0": interface(traffic)});
        if let Some(rates) = before.traffic.as_ref().and_then(|earlier| rates(earlier, traffic, before, last)).filter(|_| of.has_rates) {
            shown["network_rate_stats"] = rates;
        }
    }
    shown
}

/// The machine's processor time is that of all its cores, idle or not, as Docker has it.
fn processors(cores: usize, sample: &Sample) -> Value {
    json!({
        "cpu_usage": {
            "total_usage": sample.stats.cpu_nanos,
            "usage_in_usermode": sample.stats.user_nanos,
            "usage_in_kernelmode": sample.stats.kernel_nanos,
        },
        "system_cpu_usage": sample.uptime_nanos.saturating_mul(cores as u64),
        "online_cpus": cores,
    })
}

fn interface(traffic: &Traffic) -> Value {
    let Traffic { received, sent } = traffic;
    json!({
        "rx_bytes": received.bytes,
        "rx_packets": received.packets,
        "rx_errors": received.errors,
        "rx_dropped": received.dropped,
        "tx_bytes": sent.bytes,
        "tx_packets": sent.packets,
        "tx_errors": sent.errors,
        "tx_dropped": sent.dropped,
    })
}

/// Bytes a second; none if no time has passed.
fn rates(earlier: &Traffic, later: &Traffic, before: &Sample, last: &Sample) -> Option<Value> {
    let seconds = last.uptime_nanos.checked_sub(before.uptime_nanos).filter(|nanos| *nanos > 0)? as f64 / 1e9;
    let rate = |earlier: Direction, later: Direction| later.bytes.saturating_sub(earlier.bytes) as f64 / seconds;
    Some(json!({
        "rx_bytes_per_sec": rate(earlier.received, later.received),
        "tx_bytes_per_sec": rate(earlier.sent, later.sent),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, bytes: u64) -> Sample {
        let direction = |bytes| Direction { bytes, packets: 2, errors: 0, dropped: 1 };
        Sample {
            stats: Stats {
                cpu_nanos: seconds * 500_000_000,
                memory_bytes: 100,
                cache_bytes: 20,
                read_bytes: 7,
                pids: 3,
                ..Default::default()
            },
            traffic: Some(Traffic { received: direction(bytes), sent: direction(bytes * 2) }),
            at: 1_700_000_000_000 + i64::try_from(seconds).unwrap() * 1000,
            uptime_nanos: seconds * 1_000_000_000,
        }
    }

    #[test]
    fn what_dockers_clients_compute() {
        let of = Measured { id: "t1-0", name: "web", memory_limit: 1000, cores: 2, has_rates: true };
        let shown = render(of, &sample(10, 1000), &sample(12, 5000));
        let number = |pointer: &str| shown.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {shown}"));
        let usage = number("/cpu_stats/cpu_usage/total_usage") - number("/precpu_stats/cpu_usage/total_usage");
        let system = number("/cpu_stats/system_cpu_usage") - number("/precpu_stats/system_cpu_usage");
        // `docker stats`: half a core.
        assert!((usage / system * number("/cpu_stats/online_cpus") * 100.0 - 50.0).abs() < 1e-9);
        assert!((number("/memory_stats/usage") - number("/memory_stats/stats/inactive_file") - 100.0).abs() < 1e-9);
        assert_eq!(shown["network_rate_stats"], json!({"rx_bytes_per_sec": 2000.0, "tx_bytes_per_sec": 4000.0}));
        assert_eq!(shown["networks"]["eth0"]["tx_bytes"], 10_000);
        assert_eq!(shown["read"], "2023-11-14T22:13:32Z");
        assert_eq!(shown["preread"], "2023-11-14T22:13:30Z");
        assert_eq!(shown["name"], "/web");
    }

    #[test]
    fn without_an_interface_there_are_no_rates() {
        let of = Measured { id: "t1-0", name: "web", memory_limit: 1000, cores: 2, has_rates: false };
        assert!(render(of, &sample(10, 0), &sample(12, 0)).get("network_rate_stats").is_none());
        let of = Measured { has_rates: true, ..of };
        assert!(render(of, &sample(12, 0), &sample(12, 0)).get("network_rate_stats").is_none(), "no time has passed");
        let hosts = |seconds| Sample { traffic: None, ..sample(seconds, 0) };
        let shown = render(of, &hosts(1), &hosts(2));
        assert!(shown.get("networks").is_none() && shown.get("network_rate_stats").is_none());
    }
}
