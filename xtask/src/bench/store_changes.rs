//! Durable changes a second with many writers: each reads a task, changes its status, and commits that on condition that the
//! task is as it was read. Writers have tasks of their own, so that no condition fails. In etcd the same is a transaction
//! that compares the key's revision.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use berth_model::record::{Key, Record};
use berth_store::{CommitError, Store, Transaction};
use tokio::task::JoinSet;

use super::scratch::Folder;
use super::store::{TASKS, WARM_UP, WINDOW, WINDOWS, beside_etcd, etcd_key};
use super::store_etcd::{Connection, Etcd};
use super::store_tasks::{change_status, task_id};
use super::{Peer, quantile, row};

/// Most connections to etcd; writers share them.
const CONNECTIONS: usize = 16;

pub(super) fn run(name: &str, writers: usize) -> Result<(), Box<dyn Error>> {
    let folder = Folder::make(name)?;
    // As many threads as the server takes.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (store, value, etcd) = beside_etcd(folder.path()).await?;
        let mut writing = vec![Target::Store(store)];
        if let Some(etcd) = &etcd {
            writing.push(Target::Etcd(Keys::make(etcd, value).await?));
        }
        let mut rates = [const { Vec::new() }; 2];
        // The first round warms caches up and is not counted.
        for round in 0..=WINDOWS {
            for at in 0..writing.len() {
                let who = if round % 2 == 0 { at } else { writing.len() - 1 - at };
                let rate = window(&writing[who], writers).await?;
                if round > 0 {
                    rates[who].push(rate);
                }
                eprintln!("{name}, window {round}: {} {rate:.0}/s", writing[who].name());
            }
        }
        let peer = Peer { name: "etcd", value: quantile(&rates[1], 0.5) };
        row(&format!("store/{name}"), quantile(&rates[0], 0.5), "1/s", etcd.as_ref().map(|_| &peer));
        Ok(())
    })
}

/// What is written to; clones share it.
#[derive(Clone)]
enum Target {
    Store(Store),
    Etcd(Arc<Keys>),
}

impl Target {
    const fn name(&self) -> &'static str {
        match self {
            Self::Store(_) => "Berth",
            Self::Etcd(_) => "etcd",
        }
    }

    /// Changes a task; `false` if it was changed by somebody else meanwhile.
    async fn change(&self, number: usize) -> Result<bool, String> {
        match self {
            Self::Store(store) => change(store, number).await,
            Self::Etcd(keys) => keys.change(number).await,
        }
    }
}

/// Changes a second in one window.
async fn window(target: &Target, writers: usize) -> Result<f64, Box<dyn Error>> {
    let count = Arc::new(AtomicUsize::new(0));
    let until = Instant::now() + WARM_UP + WINDOW;
    let mut writing = JoinSet::new();
    for writer in 0..writers {
        let (target, count) = (target.clone(), Arc::clone(&count));
        writing.spawn(async move {
            let mut number = writer;
            let mut conflicts = 0_usize;
            while Instant::now() < until {
                if target.change(number).await? {
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    conflicts += 1;
                }
                number += writers;
                if number >= TASKS {
                    number = writer;
                }
            }
            Ok::<_, String>(conflicts)
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let (before, started) = (count.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep_until(until.into()).await;
    let (after, elapsed) = (count.load(Ordering::Relaxed), started.elapsed());
    let mut conflicts = 0;
    while let Some(ended) = writing.join_next().await {
        conflicts += ended??;
    }
    if conflicts > 0 {
        eprintln!("{conflicts} changes met another one and are not counted");
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of changes")]
    let done = (after - before) as f64;
    Ok(done / elapsed.as_secs_f64())
}

async fn change(store: &Store, number: usize) -> Result<bool, String> {
    let id = task_id(number);
    let mut transaction = Transaction::new();
    {
        let state = store.state();
        let entry = state.task(id).ok_or("a task is missing")?;
        let mut task = (*entry.value).clone();
        change_status(&mut task);
        transaction.expect(Key::Task(id), entry.modified);
        transaction.put(Record::Task(Arc::new(task)));
    }
    match store.commit(transaction).await {
        Ok(_) => Ok(true),
        Err(CommitError::Conflict(_)) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// The tasks in etcd.
struct Keys {
    connections: Vec<Connection>,
    value: Vec<u8>,
    /// By number: the key's last revision.
    revisions: Vec<AtomicU64>,
}

impl Keys {
    async fn make(etcd: &Etcd, value: Vec<u8>) -> Result<Arc<Self>, Box<dyn Error>> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(&etcd.authority).await?);
        }
        let keys = Arc::new(Self { connections, value, revisions: (0..TASKS).map(|_| AtomicU64::new(0)).collect() });
        let mut putting = JoinSet::new();
        for first in 0..CONNECTIONS {
            let keys = Arc::clone(&keys);
            putting.spawn(async move {
                for number in (first..TASKS).step_by(CONNECTIONS) {
                    let revision = keys.connections[first].put(etcd_key(number).as_bytes(), &keys.value).await?;
                    keys.revisions[number].store(revision, Ordering::Relaxed);
                }
                Ok::<_, String>(())
            });
        }
        while let Some(ended) = putting.join_next().await {
            ended??;
        }
        Ok(keys)
    }

    async fn change(&self, number: usize) -> Result<bool, String> {
        let connection = &self.connections[number % self.connections.len()];
        let expected = self.revisions[number].load(Ordering::Relaxed);
        let revision = connection.put_if(etcd_key(number).as_bytes(), &self.value, expected).await?;
        if let Some(revision) = revision {
            self.revisions[number].store(revision, Ordering::Relaxed);
        }
        Ok(revision.is_some())
    }
}
