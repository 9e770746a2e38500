//! The `Network` port on Linux: a bridge, veth pairs, named namespaces and nftables.
//!
//! IPv4 only. Runs no program: everything goes to the kernel by netlink, system calls and `/proc/sys`. Never moves a thread
//! of an async runtime into another namespace.

mod bridge;
mod config;
mod conntrack;
mod expression;
mod firewall;
mod kept_ports;
mod link;
mod namespace;
mod netlink;
mod opening;
mod record;
mod reservation;

pub use bridge::BridgeNetwork;
pub use config::{BridgeConfig, OpenError, dynamic_ports};
pub use kept_ports::{KeptPorts, KeptPortsError};
