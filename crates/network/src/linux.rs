//! The `Network` port on Linux: a bridge, veth pairs, named namespaces and nftables.
//!
//! The bridge is IPv4 only. Runs no program: everything goes to the kernel by netlink, system calls and `/proc/sys`. Never moves a thread
//! of an async runtime into another namespace.

mod bridge;
mod config;
mod conntrack;
mod docker_user;
mod enforcement;
mod expression;
mod firewall;
mod forgetting;
mod forwarding;
mod interfaces;
mod kept_ports;
mod link;
mod machine;
mod namespace;
mod netlink;
mod nft;
mod opening;
mod peers;
mod public_addresses;
mod record;
mod reservation;
mod ruleset;
mod shortcut;
mod slots;
mod task_link;

pub use bridge::BridgeNetwork;
pub use config::{BridgeConfig, OpenError, dynamic_ports};
pub use interfaces::{InterfaceConfig, InterfaceNetwork};
pub use kept_ports::{KeptPorts, KeptPortsError};
pub use machine::MachineNetwork;
pub use shortcut::try_shortcut;
