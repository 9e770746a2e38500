//! Network namespaces, bridge and host ports of containers; interfaces of tasks, security groups, ways to other machines; the DNS server that
//! containers ask.
//!
//! Never knows the runtime.

pub mod dns;
pub mod interface;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod metadata;
pub mod port;
pub mod security_group;
pub mod subnet;
