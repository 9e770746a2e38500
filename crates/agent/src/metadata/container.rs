//! A container as it is told to itself. Pure.

use berth_network::interface::TaskInterface;
use berth_network::port::Protocol;
use berth_runtime::port::BindMount;
use berth_shapes::timestamp::Timestamp;
use serde_json::{Map, Value, json};

use super::request::Version;
use crate::engine::{Ended, Millis, Phase, Reached, Run, TaskState, Verdict};
use crate::plan::{ContainerPlan, FARGATE, Wiring};
use crate::tasks::TaskRecord;

/// The kernel's least share of CPU, which a container without CPU units has.
const LEAST_CPU: i64 = 2;

/// How far a container is, in the official agent's words; in their order.
pub const STATUSES: [&str; 5] = ["NONE", "PULLED", "CREATED", "RUNNING", "STOPPED"];

/// Where in [`STATUSES`] a container is.
#[must_use]
pub fn known_status(phase: &Phase) -> usize {
    match phase {
        Phase::Waiting | Phase::Preparing | Phase::Cancelling { reached: Reached::Nothing, .. } => 0,
        Phase::Prepared(_) | Phase::Cancelling { .. } => 1,
        Phase::Launching { .. } => 2,
        Phase::Running(_) | Phase::Stopping { .. } | Phase::Exited(_) | Phase::Restarting { .. } => 3,
        Phase::Releasing(_) | Phase::Stopped(_) => 4,
    }
}

/// A time as the endpoint has it; none if it is not known.
pub fn time(at: Millis) -> Value {
    if at > 0 { Timestamp::from_millis(at).render_iso8601().into() } else { Value::Null }
}

/// Puts in what there is: an empty list, map or text is as good as none, as it is with the official agent.
pub fn put(into: &mut Map<String, Value>, name: &str, value: Value) {
    let is_empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    if !is_empty {
        into.insert(name.to_owned(), value);
    }
}

/// The container at a place of a task.
#[must_use]
pub fn container(version: Version, record: &TaskRecord, state: &TaskState, index: usize) -> Value {
    let (plan, phase, sent) = (&record.plan.containers[index], &state.containers[index], &record.task.containers[index]);
    let is_fargate = record.task.launch_type == FARGATE;
    let run = phase.run();
    let spec = plan.blueprint.as_ref().ok().map(|blueprint| &blueprint.spec);
    let mut limits = json!({"CPU": sent.cpu.max(LEAST_CPU), "Memory": sent.memory});
    if is_fargate && sent.memory == 0 {
        // It may have what the task has.
        limits = json!({"CPU": sent.cpu.max(LEAST_CPU)});
    }
    let whole = json!({
        "DockerId": plan.runtime_id.0,
        "Name": plan.name,
        // On Fargate there is no other name than that in the task.
        "DockerName": if is_fargate { &plan.name } else { &plan.runtime_id.0 },
        "Image": plan.image,
        "ImageID": image_id(phase),
        "DesiredStatus": if state.is_ending(&record.plan) { "STOPPED" } else { "RUNNING" },
        "KnownStatus": STATUSES[known_status(phase)],
        "Limits": limits,
        "Type": "NORMAL",
    });
    let Value::Object(mut shown) = whole else { unreachable!("it is written above") };
    put(&mut shown, "Labels", json!(spec.map(|spec| &spec.labels)));
    put(&mut shown, "Ports", run.map(|run| ports(version, run)).unwrap_or_default());
    put(&mut shown, "CreatedAt", run.map(|run| time(if run.created_at > 0 { run.created_at } else { run.started_at })).unwrap_or_default());
    put(&mut shown, "StartedAt", run.map(|run| time(run.started_at)).unwrap_or_default());
    if let Some(Ended::Exited { exit, .. }) = phase.ended() {
        put(&mut shown, "ExitCode", exit.code.into());
        put(&mut shown, "FinishedAt", time(exit.at));
    }
    put(&mut shown, "Networks", networks(version, plan, run));
    put(&mut shown, "Health", health(plan, run));
    put(&mut shown, "Volumes", spec.map(|spec| volumes(&spec.mounts, sent, is_fargate)).unwrap_or_default());
    if version == Version::V4 {
        let host = sent.docker_config.as_ref().and_then(|docker| docker.host_config().ok());
        if let Some(log) = host.and_then(|host| host.log_config) {
            // Options that are secrets are not among these.
            put(&mut shown, "LogOptions", json!(log.config));
            put(&mut shown, "LogDriver", log.kind.into());
        }
        put(&mut shown, "ContainerARN", sent.container_arn.clone().into());
        if plan.restart.is_some() {
            put(&mut shown, "RestartCount", run.map_or(0, |run| run.restarts).into());
        }
        if is_fargate {
            put(&mut shown, "Snapshotter", "overlayfs".into());
        }
    }
    Value::Object(shown)
}

fn image_id(phase: &Phase) -> &str {
    match (phase.run(), phase) {
        (Some(run), _) => run.image_digest.as_deref().unwrap_or_default(),
        (None, Phase::Prepared(prepared)) => &prepared.image_digest,
        (None, Phase::Launching { image_digest }) => image_digest,
        _ => "",
    }
}

fn ports(version: Version, run: &Run) -> Value {
    let port = |binding: &berth_network::port::PortBinding| {
        let protocol = if binding.protocol == Protocol::Udp { "udp" } else { "tcp" };
        let mut port = json!({"ContainerPort": binding.container_port, "Protocol": protocol, "HostPort": binding.host_port});
        if version == Version::V4 {
            port["HostIp"] = "0.0.0.0".into();
        }
        port
    };
    run.bindings.iter().map(port).collect()
}

fn networks(version: Version, plan: &ContainerPlan, run: Option<&Run>) -> Value {
    let network = match (plan.wiring, &plan.interface) {
        (Wiring::Interface, Some(interface)) => of_interface(version, interface),
        // Docker's own word for no address, as the official agent passes it on.
        (Wiring::Host, _) => json!({"NetworkMode": "host", "IPv4Addresses": [""]}),
        (Wiring::Isolated, _) => json!({"NetworkMode": "none", "IPv4Addresses": [""]}),
        _ => match run.and_then(|run| run.address) {
            Some(address) => json!({"NetworkMode": "bridge", "IPv4Addresses": [address.to_string()]}),
            None => return Value::Null,
        },
    };
    json!([network])
}

/// A task's own interface.
fn of_interface(version: Version, interface: &TaskInterface) -> Value {
    let mut network = Map::new();
    put(&mut network, "NetworkMode", "awsvpc".into());
    put(&mut network, "IPv4Addresses", json!([interface.address.to_string()]));
    put(&mut network, "IPv6Addresses", interface.ipv6.iter().map(ToString::to_string).collect());
    if version == Version::V4 {
        put(&mut network, "AttachmentIndex", 0.into());
        put(&mut network, "MACAddress", interface.mac.to_string().into());
        put(&mut network, "IPv4SubnetCIDRBlock", format!("{}/{}", interface.network(), interface.prefix).into());
        put(&mut network, "DomainNameServers", interface.name_servers.iter().map(ToString::to_string).collect());
        put(&mut network, "DomainNameSearchList", json!(interface.search_domains));
        put(&mut network, "PrivateDNSName", interface.private_dns_name.clone().into());
        put(&mut network, "SubnetGatewayIpv4Address", format!("{}/{}", interface.gateway, interface.prefix).into());
    }
    Value::Object(network)
}

/// What the health check says. While it says nothing there is only that there is one; what a probe printed is not kept.
fn health(plan: &ContainerPlan, run: Option<&Run>) -> Value {
    let Some((_, run)) = plan.health_check.as_ref().zip(run) else { return Value::Null };
    let status = match run.health.verdict {
        Verdict::Unknown => return Value::Null,
        Verdict::Healthy => "HEALTHY",
        Verdict::Unhealthy => "UNHEALTHY",
    };
    json!({"status": status, "statusSince": time(run.health.stands_since(run.started_at))})
}

/// What is mounted, with the volume's name in the task. Where it is on the machine is nobody's business on Fargate.
fn volumes(mounts: &[BindMount], sent: &berth_acs::messages::Container, is_fargate: bool) -> Value {
    let volume = |mount: &BindMount| {
        let point = sent.mount_points.iter().find(|point| mount.destination.as_os_str() == point.container_path.as_str());
        let mut shown = Map::new();
        put(&mut shown, "DockerName", point.map(|point| point.source_volume.clone()).into());
        if !is_fargate {
            put(&mut shown, "Source", mount.source.display().to_string().into());
        }
        put(&mut shown, "Destination", mount.destination.display().to_string().into());
        Value::Object(shown)
    };
    mounts.iter().map(volume).collect()
}
