//! `cargo xtask bench NAME`: measures a promise of SPECIFICATION.md and prints one JSON object a row on stdout: `name`, `value`,
//! `unit`, and where there is a peer `peer`, `peer_value`, `ratio`. Everything else goes to stderr.

mod api;
mod api_load;
mod api_turns;
mod cgroups;
mod client;
mod dns;
mod dns_visible;
mod docker;
mod floor;
mod hollow;
mod hollow_agent;
mod hollow_calls;
mod hollow_fleet;
mod hollow_idle;
mod hollow_loss;
mod image;
mod launch;
mod launch_many;
mod launch_memory;
mod launch_pull;
mod memory;
mod namespace;
mod network;
mod peers;
mod placement;
mod placement_fleet;
mod placement_scan;
// The one maker of ports for servers that must be told theirs; tests/ports.py holds them by the same names.
#[path = "../../../crates/store/tests/servers/ports.rs"]
mod ports;
mod registry;
mod remains;
mod restartable;
mod sandbox;
mod scratch;
mod server;
mod services;
mod store;
mod store_changes;
mod store_etcd;
mod store_restart;
mod store_tasks;
mod up;
mod wait;

use std::error::Error;

pub use floor::serve as serve_floor;
use serde_json::{Map, Value};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Which promises to measure
    name: Name,
    /// How many measurements a row rests on
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// Measure this row alone (`api`, `hollow`, `launch`, `placement` and `store`)
    #[arg(long, value_name = "ROW")]
    only: Option<String>,
    /// Be the process that so many hollow agents live in: COUNT@HOST:PORT
    #[arg(long, hide = true)]
    fleet: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Name {
    /// Signed calls a second, read and durable, with few tasks and with many
    Api,
    /// Answers a second of the DNS server on one core, beside dnsmasq; how soon a change is answered
    Dns,
    /// The whole control plane under agents that run nothing: tasks a second, memory, loss of a machine
    Hollow,
    /// RunTask accepted to RUNNING seen, beside `docker run -d`; a thousand tasks; pulls; the agent's memory
    Launch,
    /// Where tasks go: placements a second on one core
    Placement,
    /// A task's network: how long it takes, and what it carries beside a bare veth pair
    Network,
    /// Several servers: how long after one's death another runs the loops
    Peers,
    /// A killed container's replacement beside docker's restart policy; 20 tasks up and down
    Services,
    /// Durable changes, restart, kill -9
    Store,
    /// Start to ready, idle memory
    Up,
}

/// Runs a bench.
///
/// # Errors
/// If what it needs is not there, or Berth does not do what it should.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if let Some(fleet) = &arguments.fleet {
        return hollow_fleet::serve(fleet);
    }
    warn_if_busy();
    let only = arguments.only.as_deref();
    if only.is_some() && !matches!(arguments.name, Name::Api | Name::Hollow | Name::Launch | Name::Placement | Name::Store) {
        return Err("--only is for `api`, `hollow`, `launch`, `placement` and `store`".into());
    }
    match arguments.name {
        Name::Api => api::run(only),
        Name::Dns => dns::run(arguments.runs),
        Name::Hollow => hollow::run(only, arguments.runs),
        Name::Launch => launch::run(only, arguments.runs),
        Name::Network => network::run(arguments.runs),
        Name::Peers => peers::run(arguments.runs),
        Name::Placement => placement::run(only, arguments.runs),
        Name::Services => services::run(arguments.runs.min(20)),
        Name::Store => store::run(only, arguments.runs),
        Name::Up => up::run(arguments.runs.min(20)),
    }
}

/// A number beside its peer's.
struct Peer {
    name: &'static str,
    value: f64,
}

/// Prints a row. The ratio is ours to the peer's.
fn row(name: &str, value: f64, unit: &str, peer: Option<&Peer>) {
    row_noted(name, value, unit, peer, "");
}

/// Prints a row with what one has to know of it.
fn row_noted(name: &str, value: f64, unit: &str, peer: Option<&Peer>, note: &str) {
    let mut row = Map::new();
    row.insert("name".into(), name.into());
    row.insert("value".into(), rounded(value));
    row.insert("unit".into(), unit.into());
    if let Some(peer) = peer {
        row.insert("peer".into(), peer.name.into());
        row.insert("peer_value".into(), rounded(peer.value));
        row.insert("ratio".into(), rounded(value / peer.value));
    }
    if !note.is_empty() {
        row.insert("note".into(), note.into());
    }
    println!("{}", Value::Object(row));
}

/// Prints a row for what cannot be measured, with the reason.
fn unmet(name: &str, unit: &str, note: &str) {
    println!("{}", serde_json::json!({"name": name, "value": null, "unit": unit, "note": note}));
}

/// The rows of a bench that are asked for.
struct Selection<'a>(Option<&'a str>);

impl<'a> Selection<'a> {
    /// All of them, or the one named, with or without the bench's name before it.
    fn new(bench: &str, rows: &[&str], only: Option<&'a str>) -> Result<Self, Box<dyn Error>> {
        let Some(only) = only else { return Ok(Self(None)) };
        let row = only.strip_prefix(bench).and_then(|rest| rest.strip_prefix('/')).unwrap_or(only);
        if rows.contains(&row) { Ok(Self(Some(row))) } else { Err(format!("--only: {bench} has the rows {}", rows.join(", ")).into()) }
    }

    fn has(&self, row: &str) -> bool {
        self.0.is_none_or(|only| only == row)
    }
}

fn rounded(value: f64) -> Value {
    let scale = if value.abs() < 10.0 { 1000.0 } else { 10.0 };
    Value::from((value * scale).round() / scale)
}

/// The value below which the given share of the sorted samples lies.
fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the samples")]
    let at = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Figures of a busy machine say nothing; they are printed all the same, with a warning.
fn warn_if_busy() {
    let load = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    if let Some(load) = load.filter(|load| *load > 0.5) {
        eprintln!("NOISY: the load average is {load}; figures of a busy machine cannot be compared with others");
    }
}
