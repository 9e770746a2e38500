//! Container instances to place tasks on.

use std::collections::BTreeSet;

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus, Resources};
use berth_model::ids::{ClusterName, ContainerInstanceId};
use berth_model::time::UnixMillis;

/// An instance of a zone with the capability `cap`.
pub fn instance(id: u128, cpu: u32, memory: u32, zone: &str) -> ContainerInstance {
    ContainerInstance {
        id: ContainerInstanceId(id),
        cluster: ClusterName::parse("c").unwrap(),
        ec2_instance_id: None,
        private_address: None,
        status: ContainerInstanceStatus::Active,
        status_reason: None,
        agent_connected: true,
        connection: 0,
        away: None,
        registered: Resources { cpu, memory, ports_tcp: [22].into(), ports_udp: BTreeSet::new(), gpus: BTreeSet::new() },
        attributes: [("ecs.availability-zone".to_owned(), Some(zone.to_owned())), ("cap".to_owned(), None)].into(),
        registered_at: UnixMillis(0),
        agent: Default::default(),
        tags: Default::default(),
    }
}
