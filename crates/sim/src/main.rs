//! `berth-sim`: runs many seeds, or one again. Called by `cargo xtask sim`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use berth_sim::checker::{Tally, Violation};
use berth_sim::{Options, Report, WEEK, simulate, simulate_fleet};
use clap::{Parser, ValueEnum};

/// A week gives back and takes gigabytes in small pieces, on threads that share nothing (`docs/decisions/0054-cheaper-loops.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A simulation takes a fraction of a second; one that takes this long does not end.
const HANGS: Duration = Duration::from_secs(120);

#[derive(Parser)]
#[command(name = "cargo xtask sim", about = "The whole control plane under a virtual clock")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the whole trace, and what the product logs.
    #[arg(long)]
    verbose: bool,
    /// A fleet of that name instead: `week` is 1,000 services on 500 hollow machines for a week of virtual time. Ends with what it took as
    /// a row of a bench.
    #[arg(long)]
    fleet: Option<FleetName>,
    /// Run each seed twice; both must be the same, byte for byte.
    #[arg(long)]
    twice: bool,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FleetName {
    Week,
}

impl Arguments {
    fn simulate(&self, seed: u64, registry: &berth_registry::Registry) -> Report {
        match self.fleet {
            Some(FleetName::Week) => simulate_fleet(seed, WEEK, self.verbose, registry),
            None => simulate(seed, Options { aloud: self.verbose, ..Default::default() }, registry),
        }
    }

    /// The one command that runs a seed again.
    fn replay(&self, seed: u64) -> String {
        let fleet = if self.fleet.is_some() { " --fleet week" } else { "" };
        format!("cargo xtask sim{fleet} --seed {seed}")
    }
}

/// Seconds of processor time, user and system, of this process.
fn cpu_seconds() -> f64 {
    // SAFETY: an all-zero rusage is one, and the call writes nothing but that.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.verbose {
        let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_max_level(tracing::Level::DEBUG);
        lines.init();
    }
    let (_folder, registry) = match berth_sim::registry() {
        Ok(made) => made,
        Err(error) => {
            eprintln!("error: no folder for a registry: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (first, count) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(usize::try_from(count).unwrap_or(1));
    let (done, reports) = mpsc::channel::<(u64, Option<Report>)>();
    let mut ended = Tally::default();
    let mut failed: BTreeMap<u64, &'static str> = BTreeMap::new();
    let progress = (count / 100).max(50);
    let (mut commits, mut tasks, mut millis, mut finished) = (0, 0, 0, 0);
    let (next, registry, arguments) = (&next, &registry, &arguments);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let done = done.clone();
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || done.send((seed, None)).is_err() {
                        return;
                    }
                    let mut report = arguments.simulate(seed, registry);
                    if arguments.twice && report.violation.is_none() {
                        let again = arguments.simulate(seed, registry).hash;
                        let what = format!("the trace is {:016x}, then {again:016x}", report.hash);
                        report.violation = (again != report.hash).then_some(Violation { property: "one seed, one trace", what });
                    }
                    if done.send((seed, Some(report))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut under_way = BTreeSet::new();
        loop {
            match reports.recv_timeout(HANGS) {
                Ok((seed, None)) => drop(under_way.insert(seed)),
                Ok((seed, Some(report))) => {
                    under_way.remove(&seed);
                    finished += 1;
                    commits += report.commits;
                    tasks += report.tasks;
                    ended.add(report.deployments);
                    millis += report.millis;
                    if let Some(violation) = &report.violation {
                        failed.insert(seed, violation.property);
                        show(&report, &arguments.replay(report.seed));
                        if !arguments.keep_going {
                            next.store(u64::MAX / 2, Ordering::Relaxed);
                        }
                    }
                    if finished % progress == 0 {
                        eprintln!("{finished} of {count} seeds, {} failed, {:.1} s", failed.len(), started.elapsed().as_secs_f64());
                    }
                    if arguments.seed.is_some() {
                        eprintln!("seed {seed}: hash {:016x}", report.hash);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    list(&failed, arguments);
                    eprintln!("these seeds do not end: {under_way:?}\nreplay: {}", arguments.replay(*under_way.first().unwrap_or(&0)));
                    std::process::exit(1);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    eprintln!(
        "{finished} seeds, {} failed, {:.1} s; {:.1} virtual hours, {commits} commits, {tasks} tasks",
        failed.len(),
        started.elapsed().as_secs_f64(),
        millis as f64 / 3_600_000.0
    );
    eprintln!(
        "deployments: {} came out, {} of them through stages; {} circuit breakers triggered, {} without a way back; {} went back",
        ended.successful, ended.shifted, ended.broke, ended.failed, ended.rolled_back
    );
    if arguments.fleet.is_some() {
        println!(r#"{{"name":"sim/week-{count}-seeds-cpu-s","value":{:.1},"unit":"s"}}"#, cpu_seconds());
    }
    if failed.len() > 1 {
        list(&failed, arguments);
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Which seeds failed, by what they broke.
fn list(failed: &BTreeMap<u64, &'static str>, arguments: &Arguments) {
    for (seed, property) in failed {
        eprintln!("{property}: {}", arguments.replay(*seed));
    }
}

fn show(report: &Report, replay: &str) {
    let Some(violation) = &report.violation else { return };
    for line in &report.lines {
        eprintln!("  {}", line.chars().take(240).collect::<String>());
    }
    eprintln!("seed {} breaks '{}': {}\nreplay: {replay}", report.seed, violation.property, violation.what);
}
