//! The whole control plane with many agents in one process, one thread, under a virtual clock and one seed: the real store, loops,
//! actions, agent protocol and agents, over simulated disks, networks and machines that fail as the seed says. Judges outside look at
//! what was promised. [`simulate_fleet`] is the same with hollow agents and for large fleets over days. Development only; it opens no socket and never waits in real time.

pub mod chance;
pub mod checker;
pub mod clock;
pub mod disk;
mod faults;
mod home;
mod host;
mod load;
mod machine;
mod net;
mod operator;
mod sabotage;
mod server;
pub mod trace;
mod week;
mod wire;
mod world;

pub use week::{Fleet, WEEK, simulate_fleet};
pub use world::{HomeKind, Options, Report, Sabotage, simulate};

/// An image registry in a folder of its own: the API wants one, and simulations never ask it.
///
/// # Errors
/// What the system or the registry says.
pub fn registry() -> Result<(tempfile::TempDir, berth_registry::Registry), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let registry = berth_registry::Registry::open(folder.path().join("registry"))?;
    Ok((folder, registry))
}
