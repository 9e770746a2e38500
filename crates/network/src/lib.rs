//! Network namespaces, bridge and host ports of containers, and the DNS server that they ask.
//!
//! Never knows the runtime.

pub mod dns;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod port;
pub mod subnet;
