//! `cargo xtask sim`: the whole control plane under a virtual clock, many seeds, or one again. The simulation is a crate of its own,
//! so that xtask need not link the product; what it takes is said there alone.

use std::error::Error;
use std::ffi::OsString;
use std::process::Command;

use crate::workspace;

/// What `cargo xtask sim` takes is the simulation's own: `cargo xtask sim --help`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// Given to the simulation as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Builds the simulation and runs it.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace()).args(["run", "--quiet", "--release", "--package", "berth-sim", "--"]);
    if command.args(&arguments.rest).status()?.success() { Ok(()) } else { Err("the simulation found something".into()) }
}
