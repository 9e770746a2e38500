//! `bench api`: signed DescribeTasks and durable RunTask a second, with 1,200 tasks, at 1 and 16 connections. Tasks run on a
//! hollow agent: it takes what it is told and starts nothing. Beside it the least that any server could do on this machine:
//! an echo, and for RunTask an echo after one sync.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use berth_identity::AccessKey;
use serde_json::json;

use super::client::Client;
use super::floor::Floor;
use super::hollow_agent::HollowAgent;
use super::server::{Berth, text};
use super::{Peer, quantile, row};

/// Tasks that exist while calls are counted.
const TASKS: usize = 1_200;
/// Rates are medians of this many windows.
const WINDOWS: usize = 24;
const WINDOW: Duration = Duration::from_millis(250);
/// What of a window is not counted: threads wake up, caches fill.
const WARM_UP: Duration = Duration::from_millis(20);

pub(super) fn run() -> Result<(), Box<dyn Error>> {
    let berth = Berth::start("server", &[])?;
    let mut client = Client::connect(&berth.authority, &berth.key)?;
    let resources = json!([
        {"name": "CPU", "type": "INTEGER", "integerValue": 1_000_000_000},
        {"name": "MEMORY", "type": "INTEGER", "integerValue": 2_000_000_000},
    ]);
    let attributes = json!([{"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"}]);
    let instance = client.call("RegisterContainerInstance", &json!({"totalResources": resources, "attributes": attributes}))?;
    let arn = text(&instance, "/containerInstance/containerInstanceArn")?;
    let agent = HollowAgent::start(&berth.authority, &berth.key, &arn)?;
    let containers = json!([{"name": "app", "image": "hello", "cpu": 1, "memory": 6}]);
    client.call("RegisterTaskDefinition", &json!({"family": "bench", "containerDefinitions": containers}))?;
    let mut arns = Vec::new();
    while arns.len() < TASKS {
        let answer = client.call("RunTask", &json!({"taskDefinition": "bench", "count": 10}))?;
        let tasks = answer["tasks"].as_array().ok_or("RunTask gave no tasks")?;
        arns.extend(tasks.iter().filter_map(|task| task["taskArn"].as_str().map(str::to_owned)));
    }
    let describe = json!({"tasks": [arns[TASKS / 2]]});
    let launch = json!({"taskDefinition": "bench"});
    let synced = berth.dir.with_extension("floor");
    let rows = [
        ("describe-tasks", "DescribeTasks", &describe, "echo", None),
        ("run-task", "RunTask", &launch, "echo after fdatasync", Some(&synced)),
    ];
    for (row_name, operation, body, peer, durable) in rows {
        let request = client.signed(operation, body);
        let answer = client.send(&request)?.1.len();
        let floor = Floor::start(answer, durable.map(std::path::PathBuf::as_path))?;
        for connections in [1, 16] {
            let [ours, theirs] = rates([&berth.authority, &floor.authority], connections, &request)?;
            let peer = Peer { name: peer, value: theirs };
            row(&format!("api/{row_name}-c{connections}"), ours, "1/s", Some(&peer));
        }
    }
    agent.stop();
    // The tasks are nobody's; nothing has to be stopped, so the server just ends.
    super::server::signal(berth.pid(), "TERM");
    Ok(())
}

/// The median rate of each server over its windows, all connections together. The servers take turns, window by window.
fn rates<const N: usize>(authorities: [&str; N], connections: usize, request: &[u8]) -> Result<[f64; N], Box<dyn Error>> {
    const NOBODY: usize = usize::MAX;
    let turn = Arc::new(AtomicUsize::new(NOBODY));
    let stop = Arc::new(AtomicBool::new(false));
    let counts: Vec<_> = (0..N).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let mut threads = Vec::new();
    for (server, authority) in authorities.into_iter().enumerate() {
        for _ in 0..connections {
            let mut client = Client::connect(authority, &AccessKey::long_term("", "", ""))?;
            let request = request.to_vec();
            let (turn, stop, count) = (Arc::clone(&turn), Arc::clone(&stop), Arc::clone(&counts[server]));
            threads.push(std::thread::spawn(move || -> Result<(), String> {
                while !stop.load(Ordering::Relaxed) {
                    if turn.load(Ordering::Relaxed) != server {
                        std::thread::park();
                        continue;
                    }
                    let (status, answer) = client.send(&request).map_err(|error| error.to_string())?;
                    if status != 200 {
                        return Err(format!("{status}: {}", String::from_utf8_lossy(answer)));
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
    }
    let wake = || threads.iter().for_each(|thread| thread.thread().unpark());
    let mut rates = [const { Vec::new() }; N];
    for window in 0..WINDOWS * N {
        let server = window % N;
        turn.store(server, Ordering::Relaxed);
        wake();
        std::thread::sleep(WARM_UP);
        let (before, started) = (counts[server].load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(WINDOW);
        let done = counts[server].load(Ordering::Relaxed) - before;
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        rates[server].push(done as f64 / started.elapsed().as_secs_f64());
    }
    stop.store(true, Ordering::Relaxed);
    wake();
    for thread in threads {
        thread.join().map_err(|_| "a connection's thread panicked")??;
    }
    Ok(rates.map(|rates| quantile(&rates, 0.5)))
}
