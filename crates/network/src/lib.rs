//! Network namespaces, bridge and host ports of containers; interfaces of tasks, security groups, ways to other machines.
//!
//! Never knows the runtime.

pub mod interface;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod port;
pub mod security_group;
pub mod subnet;
