//! `cargo xtask sim`: the whole control plane under a virtual clock, many seeds, or one again. The simulation is a crate of its own,
//! so that xtask need not link the product.

use std::error::Error;
use std::process::Command;

use crate::workspace;

/// What `cargo xtask sim` takes; `cargo xtask sim --help` of the simulation itself says what each means.
#[derive(clap::Args)]
pub struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the whole trace, and what the product logs.
    #[arg(long)]
    verbose: bool,
    /// Run each seed twice; both must be the same, byte for byte.
    #[arg(long)]
    twice: bool,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
}

/// Builds the simulation and runs it.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace()).args(["run", "--quiet", "--release", "--package", "berth-sim", "--"]);
    command.args(["--seeds", &arguments.seeds.to_string(), "--from", &arguments.from.to_string()]);
    if let Some(seed) = arguments.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    for (flag, given) in [("--verbose", arguments.verbose), ("--twice", arguments.twice), ("--keep-going", arguments.keep_going)] {
        if given {
            command.arg(flag);
        }
    }
    if command.status()?.success() { Ok(()) } else { Err("the simulation found something".into()) }
}
