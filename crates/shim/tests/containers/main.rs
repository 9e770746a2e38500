//! The shim and the monitor by themselves, with real containers and no agent.
#![cfg(target_os = "linux")]

mod bench;
mod launch;
mod monitor;
