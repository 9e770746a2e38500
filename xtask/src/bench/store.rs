//! `bench store`: what a durable change costs, how many a second there can be, and how soon the server is back. Peers: etcd,
//! by gRPC, and a bare write and sync of 4 KiB in place. Both stores hold the same 10,000 tasks and write the same bytes.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_model::record::{Key, Record};
use berth_store::{CommitError, Store, Transaction};

use super::scratch::{Folder, prepare};
use super::store_etcd::{Connection, Etcd};
use super::store_tasks::{change_status, open, put_tasks, running_task, task_id};
use super::{Peer, Selection, quantile, row, store_changes, store_restart};

/// Tasks in the stores while they are measured.
pub(super) const TASKS: usize = 10_000;
/// Medians are of this many windows.
pub(super) const WINDOWS: usize = 24;
/// Puts in a window.
const PUTS: usize = 200;
/// What the bare writes go round in; there from the start, so that a sync writes no metadata.
const RAW_BYTES: u64 = 8 * 1024 * 1024;
const RAW_WRITE: u64 = 4096;

const ROWS: &[&str] = &["put-p50-us", "put-p50-us-raw", "changes-w64", "changes-w1000", "restart-1m-s", "kill9-gap-ms"];

pub(super) fn run(only: Option<&str>, runs: usize) -> Result<(), Box<dyn Error>> {
    prepare()?;
    let rows = Selection::new("store", ROWS, only)?;
    if rows.has("put-p50-us") || rows.has("put-p50-us-raw") {
        put(&rows)?;
    }
    for (name, writers) in [("changes-w64", 64), ("changes-w1000", 1_000)] {
        if rows.has(name) {
            store_changes::run(name, writers)?;
        }
    }
    if rows.has("restart-1m-s") {
        store_restart::restart(runs)?;
    }
    if rows.has("kill9-gap-ms") {
        store_restart::kill(runs)?;
    }
    Ok(())
}

/// A store with [`TASKS`] tasks, and etcd beside it with the same, if it is installed.
pub(super) async fn beside_etcd(folder: &Path) -> Result<(Store, Vec<u8>, Option<Etcd>), Box<dyn Error>> {
    let template = running_task()?;
    let store = tokio::task::block_in_place(|| -> Result<Store, Box<dyn Error>> {
        let store = open(folder)?;
        put_tasks(&store, &template, TASKS, &[])?;
        Ok(store)
    })?;
    let value = serde_json::to_vec(&template)?;
    let etcd = Etcd::start(folder).await;
    if let Err(error) = &etcd {
        eprintln!("NO PEER: etcd (Debian package etcd-server) cannot be measured beside Berth: {error}");
    }
    Ok((store, value, etcd.ok()))
}

/// The name of a task in etcd.
pub(super) fn etcd_key(number: usize) -> String {
    format!("task/{}", task_id(number))
}

/// One writer, one change after the other.
fn put(rows: &Selection) -> Result<(), Box<dyn Error>> {
    let folder = Folder::make("put")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let (store, value, etcd) = beside_etcd(folder.path()).await?;
        let connection = match &etcd {
            Some(etcd) => Some(Connection::open(&etcd.authority).await?),
            None => None,
        };
        let raw = Raw::make(&folder.path().join("raw"))?;
        // On a worker thread, as the product's callers are.
        let medians = tokio::spawn(async move { put_windows(&store, &value, connection.as_ref(), raw).await.map_err(|e| e.to_string()) });
        let [ours, etcd, raw] = medians.await??;
        if rows.has("put-p50-us") {
            let peer = Peer { name: "etcd", value: etcd };
            row("store/put-p50-us", ours, "us", Some(&peer).filter(|peer| !peer.value.is_nan()));
        }
        if rows.has("put-p50-us-raw") {
            row("store/put-p50-us-raw", ours, "us", Some(&Peer { name: "pwrite and fdatasync of 4 KiB", value: raw }));
        }
        Ok(())
    })
}

/// The medians of the windows' medians, in microseconds: the store, etcd, bare writes. They take turns.
async fn put_windows(
    store: &Store,
    value: &[u8],
    etcd: Option<&Connection>,
    mut raw: Raw,
) -> Result<[f64; 3], Box<dyn Error + Send + Sync>> {
    let mut medians = [const { Vec::new() }; 3];
    // The first window warms caches up and is not counted.
    for window in 0..=WINDOWS {
        let mut micros = [const { Vec::new() }; 3];
        let mut order = [0, 1, 2];
        if window % 2 == 1 {
            order.reverse();
        }
        for who in order {
            for turn in 0..PUTS {
                let number = (window * PUTS + turn) % TASKS;
                let started = Instant::now();
                match (who, etcd) {
                    (0, _) => put_one(store, number).await?,
                    (1, Some(etcd)) => drop(etcd.put(etcd_key(number).as_bytes(), value).await?),
                    (1, None) => break,
                    _ => raw.write()?,
                }
                micros[who].push(started.elapsed().as_secs_f64() * 1e6);
            }
        }
        eprintln!("window {window}: {:.0} us, etcd {:.0} us, bare {:.0} us", middle(&micros[0]), middle(&micros[1]), middle(&micros[2]));
        if window > 0 {
            for (medians, micros) in medians.iter_mut().zip(&micros) {
                medians.push(middle(micros));
            }
        }
    }
    Ok(medians.map(|medians| middle(&medians)))
}

fn middle(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

async fn put_one(store: &Store, number: usize) -> Result<(), CommitError> {
    let key = Key::Task(task_id(number));
    let mut transaction = Transaction::new();
    {
        let state = store.state();
        let entry = state.task(task_id(number)).ok_or(CommitError::Conflict(key))?;
        let mut task = (*entry.value).clone();
        change_status(&mut task);
        transaction.put(Record::Task(Arc::new(task)));
    }
    store.commit(transaction).await.map(drop)
}

/// The least that making a change durable can cost here.
struct Raw {
    file: File,
    at: u64,
}

impl Raw {
    fn make(path: &Path) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.write_all_at(&vec![1; usize::try_from(RAW_BYTES).unwrap_or(0)], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    fn write(&mut self) -> std::io::Result<()> {
        self.file.write_all_at(&[2; RAW_WRITE as usize], self.at)?;
        self.at = (self.at + RAW_WRITE) % RAW_BYTES;
        self.file.sync_data()
    }
}

/// How long a rate is counted, and what before is not: writers start, caches fill.
pub(super) const WINDOW: Duration = Duration::from_millis(250);
pub(super) const WARM_UP: Duration = Duration::from_millis(50);
