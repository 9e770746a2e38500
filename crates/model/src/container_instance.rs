//! Container instances: machines that joined a cluster, with what they registered.

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::fargate;
use crate::ids::{ClusterName, ContainerInstanceId};
use crate::public_addresses::{PUBLIC_ADDRESSES, PublicAddresses};
use crate::tags::Tags;
use crate::time::UnixMillis;

wire_enum!(
    /// A container instance's status.
    ContainerInstanceStatus {
        /// Takes tasks.
        Active = "ACTIVE",
        /// Takes no new tasks; service tasks move away.
        Draining = "DRAINING",
        /// Deregistered.
        Inactive = "INACTIVE",
    }
);

/// What a container instance has, or what is in use of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// CPU units; 1024 are one core.
    pub cpu: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// TCP ports in use.
    pub ports_tcp: BTreeSet<u16>,
    /// UDP ports in use.
    pub ports_udp: BTreeSet<u16>,
    /// The GPUs' ids, at most [`MAX_GPUS`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gpus: BTreeSet<String>,
}

/// Most GPUs of one container instance.
pub const MAX_GPUS: usize = 64;

/// The agent's versions, as `versionInfo` shows them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentVersion {
    /// `agentVersion`, e.g. `1.105.1`.
    pub agent_version: Option<String>,
    /// `agentHash`.
    pub agent_hash: Option<String>,
    /// `dockerVersion` in the agent's own words.
    pub docker_version: Option<String>,
}

/// The attribute whose value is the name of the capacity provider that an instance belongs to. Inside AWS the Auto Scaling group says
/// that; elsewhere the machine does (`ECS_INSTANCE_ATTRIBUTES`) or its owner (`PutAttributes`).
pub const CAPACITY_PROVIDER: &str = "berth.capacity-provider";

/// The attribute whose value is the machine's IPv4 address as other machines reach it. Inside AWS the EC2 instance has one; elsewhere the
/// agent says it, or its owner (`ECS_INSTANCE_ATTRIBUTES`, `PutAttributes`).
pub const HOST_IPV4: &str = "berth.host-ipv4";

/// The attribute whose value says how many tasks with network interfaces of their own (`networkMode: awsvpc`) the machine holds at once: a
/// whole number. Inside AWS the instance's type says it; elsewhere the machine does, or its owner (`ECS_INSTANCE_ATTRIBUTES`,
/// `PutAttributes`). Without it they are [`DEFAULT_INTERFACES`].
pub const INTERFACES: &str = "berth.interfaces";

/// How many interfaces of tasks a machine holds that does not say: no hardware sets a limit, so this only keeps a cluster from putting more
/// on one machine than has been shown to work. Each is a network namespace, a link, a route and a permanent neighbour of the kernel's, whose
/// table of neighbours holds 1,024 by default (`net.ipv4.neigh.default.gc_thresh3`); some are left for others.
pub const DEFAULT_INTERFACES: u32 = 1_000;

/// Reads the value of [`INTERFACES`]; `None` if it is no whole number.
#[must_use]
pub fn parse_interfaces(value: Option<&str>) -> Option<u32> {
    value?.parse().ok()
}

/// The attribute with which an agent says `true` where its machine also runs Fargate tasks, of every cluster. It is for the agent alone to
/// say, and no answer shows it: on AWS nobody sees such machines.
pub const FARGATE: &str = "berth.fargate";

/// How an agent's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Parting {
    /// Nothing came from it any more, not even an answer to heartbeats: the machine or its network is probably gone.
    Silent,
    /// It closed the connection, as an agent does that is restarted while its containers go on.
    Closed,
    /// The server that held the connection ended.
    ServerEnded,
}

/// Since when an agent is away, and how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// When it was noticed.
    pub since: UnixMillis,
    /// How it went.
    pub parting: Parting,
}

/// A container instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInstance {
    /// Its id.
    pub id: ContainerInstanceId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// `ec2InstanceId` out of the instance identity document, if one came.
    pub ec2_instance_id: Option<String>,
    /// `privateIp` out of the instance identity document, if one came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_address: Option<Ipv4Addr>,
    /// Its status.
    pub status: ContainerInstanceStatus,
    /// Why it is in this status.
    pub status_reason: Option<String>,
    /// The agent holds its ACS connection open.
    pub agent_connected: bool,
    /// The connection that last said so: the store's revision at that time and the server that holds it. A close of an older
    /// connection changes nothing.
    pub connection: u64,
    /// Since when it is not connected, if it ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<Away>,
    /// What it registered; `ports_*` are the ports it reserves for itself.
    pub registered: Resources,
    /// Attributes by name: the agent's capabilities, built-in and custom ones.
    pub attributes: BTreeMap<String, Option<String>>,
    /// When it registered first.
    pub registered_at: UnixMillis,
    /// The agent's versions, from its last ACS connection.
    pub agent: AgentVersion,
    /// Its tags.
    pub tags: Tags,
}

impl ContainerInstance {
    /// Notes that its agent is no longer connected.
    pub fn part(&mut self, parting: Parting, now: UnixMillis) {
        self.agent_connected = false;
        self.away = Some(Away { since: now, parting });
    }

    /// Notes that its agent is connected.
    pub fn join(&mut self, connection: u64) {
        self.connection = connection;
        self.agent_connected = true;
        self.away = None;
    }

    /// The capacity provider it belongs to: the attribute [`CAPACITY_PROVIDER`].
    #[must_use]
    pub fn capacity_provider(&self) -> Option<&str> {
        self.attributes.get(CAPACITY_PROVIDER)?.as_deref()
    }

    /// It runs Fargate tasks of every cluster, whatever else it does: the attribute [`FARGATE`].
    #[must_use]
    pub fn offers_fargate(&self) -> bool {
        self.attributes.get(FARGATE).is_some_and(|value| value.as_deref() == Some("true"))
    }

    /// It belongs to no cluster, and no user sees it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        fargate::is_reserved(&self.cluster)
    }

    /// Its address as other machines reach it: the attribute [`HOST_IPV4`].
    #[must_use]
    pub fn host_ipv4(&self) -> Option<core::net::Ipv4Addr> {
        self.attributes.get(HOST_IPV4)?.as_deref()?.parse().ok()
    }

    /// How many interfaces of tasks it holds at once: the attribute [`INTERFACES`], else [`DEFAULT_INTERFACES`].
    #[must_use]
    pub fn interfaces(&self) -> u32 {
        self.attributes.get(INTERFACES).and_then(|value| parse_interfaces(value.as_deref())).unwrap_or(DEFAULT_INTERFACES)
    }

    /// The addresses that it may give to tasks that ask for a public one: the attribute [`PUBLIC_ADDRESSES`].
    #[must_use]
    pub fn public_addresses(&self) -> Option<PublicAddresses> {
        PublicAddresses::parse(self.attributes.get(PUBLIC_ADDRESSES)?.as_deref()?)
    }

    /// Its machine fell silent: nobody knows whether anything of it still runs.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.away.is_some_and(|away| away.parting == Parting::Silent)
    }

    /// Its availability zone: the attribute `ecs.availability-zone`.
    #[must_use]
    pub fn availability_zone(&self) -> Option<&str> {
        self.attributes.get("ecs.availability-zone")?.as_deref()
    }
}
