//! Where containers ask the task metadata endpoint, and where this machine answers.
//!
//! Each network of a machine leads what its own containers ask to its own agent, so that several agents can live on one machine, beside
//! Amazon's as well. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4.html>

use std::net::{Ipv4Addr, SocketAddrV4};

/// Where containers ask. No machine has the address: it is translated on the way.
pub const ASKED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80);

/// The port of the official agent's endpoint (there on 127.0.0.1), which ECS keeps from tasks on every machine (`ECS_RESERVED_PORTS`).
const PORT: u16 = 51679;

/// Where the machine answers, given its own address on the bridge of its containers. That address is no other agent's: bridges of one
/// machine have each their subnet.
#[must_use]
pub const fn answered_at(gateway: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(gateway, PORT)
}
