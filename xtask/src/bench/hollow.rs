//! `bench hollow`: the whole control plane under agents that run nothing, over the real protocol.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use berth_identity::AccessKey;
use serde_json::{Value, json};

use super::client::Client;
use super::hollow_fleet::Fleet;
use super::restartable::Server;
use super::scratch::{Folder, own_cpu, prepare};
use super::store_tasks::definition;
use super::{Selection, hollow_idle, hollow_loss, quantile, row};

const ROWS: &[&str] =
    &["tasks-per-s", "run-task-10-p50-ms", "run-task-10-p99-ms", "bytes-task-1m", "idle-1000-mb", "idle-1000-cpu", "host-loss-s"];

/// Agents wanted.
const AGENTS: usize = 10_000;
/// Connections that call RunTask, each for so many tasks at a time.
const LAUNCHERS: usize = 16;
const TASKS_PER_CALL: u64 = 10;
/// Calls that are timed one by one.
const CALLS: usize = 500;
/// Tasks that may be on their way to RUNNING: enough to keep all parts busy, and no growing queue.
const UNDER_WAY: u64 = 4_000;
/// The rate is the median of this many windows.
const WINDOWS: usize = 24;
const WINDOW: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_secs(2);
/// How often the fleet is asked how far it is.
const GLANCE: Duration = Duration::from_millis(10);

pub(super) fn run(only: Option<&str>, runs: usize) -> Result<(), Box<dyn Error>> {
    prepare()?;
    let rows = Selection::new("hollow", ROWS, only)?;
    if ["tasks-per-s", "run-task-10-p50-ms", "run-task-10-p99-ms"].iter().any(|row| rows.has(row)) {
        with_many_agents(&rows)?;
    }
    if rows.has("bytes-task-1m") {
        hollow_idle::bytes_per_task()?;
    }
    if rows.has("idle-1000-mb") || rows.has("idle-1000-cpu") {
        hollow_idle::idle(&rows)?;
    }
    if rows.has("host-loss-s") {
        hollow_loss::run(runs)?;
    }
    Ok(())
}

fn with_many_agents(rows: &Selection<'_>) -> Result<(), Box<dyn Error>> {
    let folder = Folder::make("tasks")?;
    let server = Server::start(folder.path())?;
    let mut client = server.client()?;
    client.call("RegisterTaskDefinition", &definition())?;
    let mut fleet = Fleet::start(&server, AGENTS)?;
    match &fleet.held_back {
        Some(reason) => eprintln!("ONLY {} of {AGENTS} agents joined: {reason}", fleet.size),
        None => eprintln!("{} agents have joined", fleet.size),
    }
    let samples = run_task_ms(&mut client)?;
    for (name, share) in [("run-task-10-p50-ms", 0.5), ("run-task-10-p99-ms", 0.99)] {
        if rows.has(name) {
            row(&format!("hollow/{name}"), quantile(&samples, share), "ms", None);
        }
    }
    if rows.has("tasks-per-s") {
        tasks_per_second(&server, &mut client, &mut fleet, samples.len() as u64 * TASKS_PER_CALL)?;
    }
    Ok(())
}

/// How long RunTask for ten tasks takes while all agents are connected and what it started before comes up: placed by zone and memory
/// among the instances for which an expression holds, committed, answered.
fn run_task_ms(client: &mut Client) -> Result<Vec<f64>, Box<dyn Error>> {
    let zones = json!({"type": "spread", "field": "attribute:ecs.availability-zone"});
    let body = json!({
        "taskDefinition": "bench", "count": TASKS_PER_CALL,
        "placementStrategy": [zones, {"type": "binpack", "field": "memory"}],
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:ecs.os-type == linux or runningTasksCount >= 0"}],
    });
    let mut samples = Vec::new();
    for _ in 0..CALLS {
        let request = client.signed("RunTask", &body);
        let started = Instant::now();
        let (status, answer) = client.send(&request)?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        let answer = std::str::from_utf8(answer)?;
        if status != 200 || answer.matches("\"taskArn\":\"").count() as u64 != 2 * TASKS_PER_CALL {
            return Err(format!("RunTask answered {status}: {answer}").into());
        }
        samples.push(took);
        std::thread::sleep(GLANCE);
    }
    Ok(samples)
}

fn tasks_per_second(server: &Server, client: &mut Client, fleet: &mut Fleet, accepted: u64) -> Result<(), Box<dyn Error>> {
    let launchers = Launchers::start(&server.authority, &server.key, accepted);
    launchers.wait(fleet, WARM_UP)?;
    let before = used(server, fleet)?;
    let first = launchers.running.load(Ordering::Relaxed);
    let mut rates = Vec::new();
    for window in 0..WINDOWS {
        let (from, started) = (launchers.running.load(Ordering::Relaxed), Instant::now());
        launchers.wait(fleet, WINDOW)?;
        let rate = number(launchers.running.load(Ordering::Relaxed) - from) / started.elapsed().as_secs_f64();
        eprintln!("window {window}: {rate:.0} tasks/s");
        rates.push(rate);
    }
    let after = used(server, fleet)?;
    let tasks = number(launchers.running.load(Ordering::Relaxed) - first);
    let micros = |at: usize| (after[at] - before[at]) * 1e6 / tasks;
    eprintln!(
        "processors a task: server {:.0} us, agents {:.0} us, RunTask's callers {:.0} us; {} agents",
        micros(0),
        micros(1),
        micros(2),
        fleet.size
    );
    launchers.finish(fleet, client)?;
    row("hollow/tasks-per-s", quantile(&rates, 0.5), "1/s", None);
    Ok(())
}

/// Seconds of processors used so far: by the server, by the agents, by RunTask's callers.
fn used(server: &Server, fleet: &Fleet) -> Result<[f64; 3], Box<dyn Error>> {
    Ok([server.process.cpu()?, fleet.process.cpu()?, own_cpu()?])
}

#[expect(clippy::cast_precision_loss, reason = "a count of tasks")]
const fn number(count: u64) -> f64 {
    count as f64
}

/// Connections that launch tasks as long as not too many are on their way.
struct Launchers {
    accepted: Arc<AtomicU64>,
    /// Reported RUNNING, and the report answered, so durable.
    running: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Result<String, String>>>,
}

impl Launchers {
    /// So many tasks were accepted before.
    fn start(authority: &str, key: &AccessKey, before: u64) -> Self {
        let (accepted, running, ends) = (Arc::new(AtomicU64::new(before)), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let threads = (0..LAUNCHERS).map(|_| {
            let (accepted, running, ends) = (Arc::clone(&accepted), Arc::clone(&running), Arc::clone(&ends));
            let (authority, key) = (authority.to_owned(), key.clone());
            std::thread::spawn(move || launch(&authority, &key, &accepted, &running, &ends).map_err(|error| error.to_string()))
        });
        let threads = threads.collect();
        Self { accepted, running, ends, threads }
    }

    /// Keeps tasks going for a while.
    fn wait(&self, fleet: &mut Fleet, time: Duration) -> Result<(), Box<dyn Error>> {
        let started = Instant::now();
        while started.elapsed() < time {
            self.running.store(fleet.running()?.0, Ordering::Relaxed);
            std::thread::sleep(GLANCE.min(time.saturating_sub(started.elapsed())));
        }
        self.running.store(fleet.running()?.0, Ordering::Relaxed);
        Ok(())
    }

    /// Ends launching; every task that was accepted must come to RUNNING.
    fn finish(self, fleet: &mut Fleet, client: &mut Client) -> Result<(), Box<dyn Error>> {
        self.ends.store(true, Ordering::Relaxed);
        let mut last = String::new();
        for thread in self.threads {
            last = thread.join().map_err(|_| "a launcher's thread panicked")??;
        }
        let accepted = self.accepted.load(Ordering::Relaxed);
        let started = Instant::now();
        while fleet.running_of(accepted, started)? < accepted {
            std::thread::sleep(GLANCE);
        }
        let answer = client.call("DescribeTasks", &json!({"tasks": [last]}))?;
        match answer.pointer("/tasks/0/lastStatus").and_then(Value::as_str) {
            Some("RUNNING") => Ok(()),
            status => Err(format!("a task that was reported RUNNING is {status:?}").into()),
        }
    }
}

/// One connection's calls; the ARN of its last task.
fn launch(
    authority: &str,
    key: &AccessKey,
    accepted: &AtomicU64,
    running: &AtomicU64,
    ends: &AtomicBool,
) -> Result<String, Box<dyn Error>> {
    /// A signature holds for five minutes.
    const SIGNED_FOR: Duration = Duration::from_secs(60);
    let mut client = Client::connect(authority, key)?;
    let body = json!({"taskDefinition": "bench", "count": TASKS_PER_CALL});
    let (mut request, mut signed) = (client.signed("RunTask", &body), Instant::now());
    let mut last = String::new();
    while !ends.load(Ordering::Relaxed) || last.is_empty() {
        if accepted.load(Ordering::Relaxed).saturating_sub(running.load(Ordering::Relaxed)) >= UNDER_WAY {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        if signed.elapsed() > SIGNED_FOR {
            (request, signed) = (client.signed("RunTask", &body), Instant::now());
        }
        let (status, answer) = client.send(&request)?;
        let answer = std::str::from_utf8(answer)?;
        if status != 200 {
            return Err(format!("RunTask answered {status}: {answer}").into());
        }
        let tasks = answer.matches("\"taskArn\":\"").count() as u64;
        // Every container names its task as well.
        if tasks != 2 * TASKS_PER_CALL {
            return Err(format!("RunTask did not place all tasks: {answer}").into());
        }
        accepted.fetch_add(TASKS_PER_CALL, Ordering::Relaxed);
        if last.is_empty() {
            let answer: Value = serde_json::from_str(answer)?;
            last = super::server::text(&answer, "/tasks/0/taskArn")?;
        }
    }
    Ok(last)
}
