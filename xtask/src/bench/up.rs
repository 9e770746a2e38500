//! `bench up`: from starting the process to ready, and memory when idle.

use std::error::Error;
use std::time::Duration;

use super::server::Berth;
use super::{quantile, row};

pub(super) fn run(runs: usize) -> Result<(), Box<dyn Error>> {
    let mut first = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..runs {
        let berth = Berth::start("up", &["--ephemeral"])?;
        first.push(berth.ready_after.as_secs_f64() * 1000.0);
        std::thread::sleep(Duration::from_secs(2));
        memory.push(berth.resident_mib()?);
    }
    row("up/ready-p50", quantile(&first, 0.5), "ms", None);
    row("up/idle-memory", quantile(&memory, 0.5), "MiB", None);
    Ok(())
}
