//! What stays when nothing happens: memory of tasks, memory and processor time of connected instances.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use super::hollow_fleet::Fleet;
use super::restartable::Server;
use super::scratch::Folder;
use super::store_restart::MILLION;
use super::store_tasks::fill;
use super::{Selection, quantile, row};

/// After a start, until what starting took is given back.
const SETTLED: Duration = Duration::from_secs(3);
/// Connected instances.
const INSTANCES: usize = 1_000;
/// Sixty seconds in windows.
const WINDOWS: usize = 20;
const WINDOW: Duration = Duration::from_secs(3);

/// Resident memory with a million tasks, less that with none, after a restart each.
pub(super) fn bytes_per_task() -> Result<(), Box<dyn Error>> {
    let mut resident = [0.0; 2];
    for (resident, count) in resident.iter_mut().zip([0, MILLION]) {
        let folder = Folder::make("memory")?;
        fill(folder.path(), count)?;
        *resident = resident_after_restart(folder.path())?;
        eprintln!("{count} tasks: {:.1} MB resident", *resident / 1e6);
    }
    #[expect(clippy::cast_precision_loss, reason = "a million")]
    row("hollow/bytes-task-1m", (resident[1] - resident[0]) / MILLION as f64, "B", None);
    Ok(())
}

fn resident_after_restart(folder: &Path) -> Result<f64, Box<dyn Error>> {
    // What the fill left in the log is moved on by the first start; the second is a restart like any other.
    let mut first = Server::start(folder)?;
    std::thread::sleep(SETTLED);
    first.process.terminate();
    let mut server = Server::start(folder)?;
    std::thread::sleep(SETTLED);
    let resident = server.process.settled_resident()?;
    server.process.terminate();
    Ok(resident)
}

/// The server with connected instances that have nothing to do but to answer heartbeats.
pub(super) fn idle(rows: &Selection) -> Result<(), Box<dyn Error>> {
    let folder = Folder::make("idle")?;
    let server = Server::start(folder.path())?;
    let alone = server.process.resident()?;
    let fleet = Fleet::start(&server, INSTANCES)?;
    if fleet.size < INSTANCES {
        return Err(format!("only {} of {INSTANCES} instances joined: {}", fleet.size, fleet.held_back.unwrap_or_default()).into());
    }
    eprintln!("{INSTANCES} instances are connected; {:.0} s follow", WINDOW.as_secs_f64() * WINDOWS as f64);
    std::thread::sleep(SETTLED);
    let (mut percents, mut resident, mut agents) = (Vec::new(), Vec::new(), Vec::new());
    for window in 0..WINDOWS {
        let (before, agents_before, started) = (server.process.cpu()?, fleet.process.cpu()?, Instant::now());
        std::thread::sleep(WINDOW);
        let seconds = started.elapsed().as_secs_f64();
        percents.push((server.process.cpu()? - before) / seconds * 100.0);
        agents.push((fleet.process.cpu()? - agents_before) / seconds * 100.0);
        resident.push(server.process.resident()?);
        eprintln!("window {window}: {:.1} % of a core, {:.1} MB", percents[window], resident[window] / 1e6);
    }
    eprintln!("the agents' process took {:.1} % of a core; the server without agents {:.1} MB", quantile(&agents, 0.5), alone / 1e6);
    if rows.has("idle-1000-mb") {
        row("hollow/idle-1000-mb", quantile(&resident, 0.5) / 1e6, "MB", None);
    }
    if rows.has("idle-1000-cpu") {
        row("hollow/idle-1000-cpu", quantile(&percents, 0.5), "%", None);
    }
    Ok(())
}
