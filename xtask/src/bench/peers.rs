//! Several servers over one etcd: how long after the death of the one that runs the loops another one runs them.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::json;

use super::restartable::Server;
use super::scratch::Folder;
use super::store_etcd::Etcd;
use super::store_tasks::definition;
use super::{quantile, row, wait};

/// Deaths the row rests on, at most.
const RUNS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(5);
/// From one death to the next: the one that was started again has joined by then.
const PAUSE: Duration = Duration::from_secs(2);

pub(super) fn run(runs: usize) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = Folder::make("peers")?;
    let etcd = runtime.block_on(Etcd::start(folder.path()))?;
    let store = format!("etcd://{}/bench", etcd.authority);
    let arguments = ["--store", store.as_str()];
    let data = [folder.path().join("a"), folder.path().join("b")];
    data.iter().try_for_each(std::fs::create_dir)?;
    let mut leader = Server::start_with(&data[0], None, &arguments)?;
    let mut other = Server::start_with(&data[1], None, &arguments)?;
    let mut leads = 0;
    leader.client()?.call("RegisterTaskDefinition", &definition())?;
    let mut seconds = Vec::new();
    for run in 0..runs.min(RUNS) {
        std::thread::sleep(PAUSE);
        let authority = leader.authority.clone();
        let mut client = other.client()?;
        let started = Instant::now();
        // kill -9.
        drop(leader);
        // Nothing but the loops makes a new service's deployment COMPLETED.
        let name = format!("s{run}");
        client.call("CreateService", &json!({"serviceName": name, "taskDefinition": "bench", "desiredCount": 0}))?;
        let completed = wait::until(PATIENCE, GLANCE, || {
            let answer = client.call("DescribeServices", &json!({"services": [name]}))?;
            Ok(answer.pointer("/services/0/deployments/0/rolloutState").filter(|state| *state == "COMPLETED").map(drop))
        });
        completed?.ok_or_else(|| format!("nobody took over within {PATIENCE:?}"))?;
        eprintln!("run {run}: {:.2} s", started.elapsed().as_secs_f64());
        seconds.push(started.elapsed().as_secs_f64());
        leader = other;
        other = Server::start_with(&data[leads], Some(&authority), &arguments)?;
        leads = 1 - leads;
    }
    row("peers/take-over-s", quantile(&seconds, 0.5), "s", None);
    row("peers/take-over-max-s", quantile(&seconds, 1.0), "s", None);
    Ok(())
}
