//! The project's own chores, run as `cargo xtask NAME`. A chore is one line in [`Chore`] and one module.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

mod bench;
mod codegen;
mod conformance;
mod pack;
mod sim;
mod tidy;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure what SPECIFICATION.md promises; one JSON object a row.
    Bench(bench::Arguments),
    /// The peer of `bench api`: what this machine allows at best.
    #[command(hide = true)]
    BenchFloor {
        /// Bytes of an answer's body
        answer: usize,
        /// Make 4 KiB durable in this file before each answer
        durable: Option<std::path::PathBuf>,
        /// Look for requests for a moment before sleeping
        #[arg(long)]
        awake: bool,
    },
    /// Generate crates/shapes from AWS's service models, as shipped in the pinned botocore.
    Codegen(codegen::Arguments),
    /// Write CONFORMANCE.md: every action, its state, its tests.
    Conformance(conformance::Arguments),
    /// Build examples/hello and write it as an image, target/hello.tar.
    Image(pack::Arguments),
    /// Run the whole control plane under a virtual clock, for many seeds or one.
    Sim(sim::Arguments),
    /// Check the house rules that a compiler does not.
    Tidy(tidy::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::BenchFloor { answer, durable, awake } => bench::serve_floor(answer, durable.as_deref(), awake),
        Chore::Codegen(arguments) => codegen::run(&arguments),
        Chore::Conformance(arguments) => conformance::run(&arguments),
        Chore::Image(arguments) => pack::run(&arguments),
        Chore::Sim(arguments) => sim::run(&arguments),
        Chore::Tidy(arguments) => tidy::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// The root of the checkout.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}
