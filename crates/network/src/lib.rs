//! Network namespaces, bridge and host ports of containers.
//!
//! Never knows the runtime.

#[cfg(target_os = "linux")]
pub mod linux;
pub mod port;
pub mod subnet;
