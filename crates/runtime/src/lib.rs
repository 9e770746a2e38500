//! Containers on this machine: images, content store, containers, exec, exit codes.
//!
//! Never knows the control plane.

pub mod port;

#[cfg(target_os = "linux")]
pub mod docker;
#[cfg(target_os = "linux")]
pub mod images;
#[cfg(target_os = "linux")]
pub mod native;
#[cfg(target_os = "linux")]
pub mod quota;

#[cfg(all(target_os = "linux", feature = "conformance"))]
pub mod conformance;
