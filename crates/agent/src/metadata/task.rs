//! A task as its containers are told of it. Pure.

use serde_json::{Map, Value, json};

use super::container::{STATUSES, container, known_status, put, time};
use super::request::Version;
use crate::engine::{Desired, TaskState};
use crate::plan::FARGATE;
use crate::tasks::TaskRecord;

/// What is told besides what the task itself says.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The availability zone; empty if it is not told.
    pub zone: String,
    /// The VPC of the container instance, if that was told one.
    pub vpc: String,
    /// `ClockDrift`.
    pub clock: Value,
    /// `EphemeralStorageMetrics`.
    pub storage: Value,
}

/// A task. Of its containers those are listed whose images are here.
#[must_use]
pub fn task(version: Version, record: &TaskRecord, state: &TaskState, around: Surroundings) -> Map<String, Value> {
    let sent = &record.task;
    let is_fargate = sent.launch_type == FARGATE;
    let known = state.containers.iter().map(known_status).min().unwrap_or_default();
    let whole = json!({
        "Cluster": sent.task_cluster_arn,
        "TaskARN": sent.arn,
        "Family": sent.family,
        "Revision": sent.version,
        "DesiredStatus": if state.desired == Desired::Running && !state.is_ending(&record.plan) { "RUNNING" } else { "STOPPED" },
        "KnownStatus": STATUSES[known],
    });
    let Value::Object(mut shown) = whole else { unreachable!("it is written above") };
    let mut limits = Map::new();
    put(&mut limits, "CPU", json!(sent.cpu.filter(|cpu| *cpu > 0.0)));
    put(&mut limits, "Memory", json!(sent.memory.filter(|memory| *memory > 0)));
    put(&mut shown, "Limits", limits.into());
    put(&mut shown, "PullStartedAt", time(state.pull_started_at.unwrap_or(0)));
    put(&mut shown, "PullStoppedAt", time(state.pull_stopped_at.unwrap_or(0)));
    put(&mut shown, "ExecutionStoppedAt", time(state.execution_stopped_at.unwrap_or(0)));
    put(&mut shown, "AvailabilityZone", around.zone.into());
    put(&mut shown, "LaunchType", if sent.launch_type.is_empty() { "EC2".into() } else { sent.launch_type.clone().into() });
    let here = (0..state.containers.len()).filter(|index| known_status(&state.containers[*index]) > 0);
    put(&mut shown, "Containers", here.map(|index| container(version, record, state, index)).collect());
    if version == Version::V4 {
        put(&mut shown, "ServiceName", sent.service_name.clone().into());
        // This agent injects no faults, whatever the task definition allows.
        put(&mut shown, "FaultInjectionEnabled", false.into());
        if is_fargate {
            put(&mut shown, "ClockDrift", around.clock);
            put(&mut shown, "EphemeralStorageMetrics", around.storage);
        } else {
            put(&mut shown, "VPCID", around.vpc.into());
        }
    }
    shown
}
