//! What Docker says of a container, in the port's words. Pure.

use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::{
    ContainerBlkioStatEntry, ContainerInspectResponse, ContainerState as DockerState, ContainerStateStatusEnum, ContainerStatsResponse,
};

use crate::port::{ContainerState, Exit, Started, Stats};

/// A time as Docker writes it (RFC 3339); the epoch for what is none.
#[must_use]
pub fn time(text: Option<&str>) -> SystemTime {
    text.and_then(|text| text.parse::<jiff::Timestamp>().ok()).map_or(UNIX_EPOCH, SystemTime::from)
}

/// The state of a container that was inspected.
#[must_use]
pub fn observed(inspected: &ContainerInspectResponse) -> ContainerState {
    let Some(state) = &inspected.state else { return ContainerState::Lost };
    // A paused or restarting one has a first process; Docker says so beside the status.
    if state.running == Some(true) {
        let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        return ContainerState::Running(Started { pid, at: time(state.started_at.as_deref()), address: address(inspected) });
    }
    match state.status {
        Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
        Some(ContainerStateStatusEnum::EXITED) => ContainerState::Exited(exit(state)),
        // `dead`: Docker failed to remove it; how it ended is told all the same. Else nobody can say.
        Some(ContainerStateStatusEnum::DEAD) if state.exit_code.is_some() => ContainerState::Exited(exit(state)),
        _ => ContainerState::Lost,
    }
}

/// What Docker gave it on its default bridge. Older daemons say it beside the networks as well; newer ones only there.
fn address(inspected: &ContainerInspectResponse) -> Option<Ipv4Addr> {
    let networks = inspected.network_settings.as_ref()?.networks.as_ref()?;
    networks.get("bridge")?.ip_address.as_deref()?.parse().ok()
}

fn exit(state: &DockerState) -> Exit {
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
    Exit { code, oom_killed: state.oom_killed == Some(true), at: time(state.finished_at.as_deref()) }
}

/// One reading. Page cache is taken off as `docker stats` does: `total_inactive_file` of cgroup v1, `inactive_file` of v2.
#[must_use]
pub fn stats(read: &ContainerStatsResponse) -> Stats {
    let memory = read.memory_stats.as_ref();
    let cached = memory.and_then(|memory| memory.stats.as_ref()).and_then(|stats| {
        let of = |name: &str| stats.get(name).copied();
        of("total_inactive_file").or_else(|| of("inactive_file"))
    });
    let disk = read.blkio_stats.as_ref().and_then(|stats| stats.io_service_bytes_recursive.as_deref()).unwrap_or_default();
    let moved = |operation: &str| {
        let is = |entry: &&ContainerBlkioStatEntry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(operation));
        disk.iter().filter(is).filter_map(|entry| entry.value).sum()
    };
    let cpu = read.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref());
    Stats {
        cpu_nanos: cpu.and_then(|cpu| cpu.total_usage).unwrap_or_default(),
        user_nanos: cpu.and_then(|cpu| cpu.usage_in_usermode).unwrap_or_default(),
        kernel_nanos: cpu.and_then(|cpu| cpu.usage_in_kernelmode).unwrap_or_default(),
        cache_bytes: cached.unwrap_or_default(),
        memory_bytes: memory.and_then(|memory| memory.usage).unwrap_or_default().saturating_sub(cached.unwrap_or_default()),
        read_bytes: moved("read"),
        write_bytes: moved("write"),
        pids: read.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(text: &str) -> ContainerInspectResponse {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn states() {
        let running = r#"{"State":{"Status":"running","Running":true,"Pid":77,"StartedAt":"2026-01-01T00:00:01.5Z"}}"#;
        let ContainerState::Running(started) = observed(&inspected(running)) else { panic!("it runs") };
        assert_eq!(started.address, None);
        let bridged = r#"{"State":{"Running":true},"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}"#;
        let ContainerState::Running(there) = observed(&inspected(bridged)) else { panic!("it runs") };
        assert_eq!(there.address, Some(Ipv4Addr::new(172, 17, 0, 2)));
        assert_eq!((started.pid, started.at.duration_since(UNIX_EPOCH).unwrap().as_millis()), (77, 1_767_225_601_500));
        let created = r#"{"State":{"Status":"created","Running":false,"ExitCode":127,"StartedAt":"0001-01-01T00:00:00Z"}}"#;
        assert_eq!(observed(&inspected(created)), ContainerState::Created);
        let exited = r#"{"State":{"Status":"exited","ExitCode":137,"OOMKilled":true,"FinishedAt":"2026-01-01T00:00:00Z"}}"#;
        assert!(matches!(observed(&inspected(exited)), ContainerState::Exited(Exit { code: 137, oom_killed: true, .. })));
        assert_eq!(observed(&inspected("{}")), ContainerState::Lost);
    }

    #[test]
    fn a_reading_of_either_kind_of_cgroup() {
        let read = |text: &str| stats(&serde_json::from_str(text).unwrap());
        let first = r#"{"cpu_stats":{"cpu_usage":{"total_usage":5}},"memory_stats":{"usage":100,"stats":{"total_inactive_file":40,
            "inactive_file":1}},"pids_stats":{"current":2},"blkio_stats":{"io_service_bytes_recursive":[
            {"op":"Read","value":3},{"op":"Write","value":4},{"op":"Total","value":7}]}}"#;
        let expected =
            Stats { cpu_nanos: 5, memory_bytes: 60, cache_bytes: 40, read_bytes: 3, write_bytes: 4, pids: 2, ..Default::default() };
        assert_eq!(read(first), expected);
        let second = r#"{"memory_stats":{"usage":100,"stats":{"inactive_file":30}},"blkio_stats":{"io_service_bytes_recursive":[
            {"op":"read","value":3}]}}"#;
        assert_eq!((read(second).memory_bytes, read(second).read_bytes), (70, 3));
    }
}
