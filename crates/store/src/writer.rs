//! The one thread that writes: takes what waits as one batch, checks each transaction's conditions in turn, makes the batch
//! durable with one sync, then shows it and answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_model::record::Key;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::Shared;
use crate::backend::{Backend, BackendError, Stored, Write};
use crate::transaction::{Change, CommitError, Expect, Revision, Transaction};
use crate::watch::Commit;

/// Most transactions that may wait; beyond it callers are told at once.
const QUEUE: usize = 4_096;
/// Most transactions made durable with one sync: bounds the time that the first of them waits.
const BATCH: usize = 512;
/// How long the queue must stay empty before housekeeping.
const IDLE: Duration = Duration::from_millis(200);

pub(crate) struct Job {
    pub(crate) transaction: Transaction,
    pub(crate) reply: oneshot::Sender<Result<Revision, CommitError>>,
}

pub(crate) struct Writer {
    queue: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(crate) fn start(backend: Box<dyn Backend>, shared: Arc<Shared>) -> Result<Self, BackendError> {
        let (queue, jobs) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(backend, &shared, &jobs))
            .map_err(|error| BackendError::Io(format!("cannot start the writer thread: {error}")))?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn send(&self, job: Job) -> Result<(), CommitError> {
        let queue = self.queue.lock();
        let queue = queue.as_ref().ok_or(CommitError::Closed)?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => CommitError::Overloaded,
            TrySendError::Disconnected(_) => CommitError::Closed,
        })
    }
}

impl Drop for Writer {
    /// Waits until what was accepted is durable.
    fn drop(&mut self) {
        self.queue.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the writer was printed by its thread; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

fn run(mut backend: Box<dyn Backend>, shared: &Shared, jobs: &Receiver<Job>) {
    let mut tidy = true;
    loop {
        let first = match jobs.recv_timeout(IDLE) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                if !std::mem::replace(&mut tidy, true) {
                    backend.idle();
                }
                match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        tidy = false;
        let mut batch = vec![first];
        batch.extend(jobs.try_iter().take(BATCH - 1));
        commit(&mut *backend, shared, batch);
    }
}

/// A transaction whose conditions hold, waiting for the batch to be durable.
struct Accepted {
    revision: Revision,
    commit: Arc<Commit>,
    reply: oneshot::Sender<Result<Revision, CommitError>>,
}

fn commit(backend: &mut dyn Backend, shared: &Shared, batch: Vec<Job>) {
    let mut accepted = Vec::with_capacity(batch.len());
    let mut writes = Vec::new();
    let mut revision = shared.state.read().revision;
    {
        let state = shared.state.read();
        let mut pending = Pending { overlay: HashMap::new() };
        for Job { transaction, reply } in batch {
            let counters = |pending: &Pending, key: &Key| pending.overlay.get(key).copied().unwrap_or_else(|| state.counters(key));
            if let Some(key) = first_conflict(&transaction, |key| counters(&pending, key)) {
                let _ = reply.send(Err(CommitError::Conflict(key)));
                continue;
            }
            if transaction.is_empty() {
                let _ = reply.send(Ok(revision));
                continue;
            }
            revision = Revision(revision.0 + 1);
            for change in &transaction.changes {
                let key = change.key();
                let before = counters(&pending, &key);
                writes.extend(pending.write(change, key, before, revision));
            }
            accepted.push(Accepted { revision, commit: Arc::new(Commit { revision, changes: transaction.changes }), reply });
        }
    }
    if accepted.is_empty() {
        return;
    }
    if let Err(error) = backend.persist(&writes, revision) {
        tracing::error!(%error, "the store cannot write");
        for Accepted { reply, .. } in accepted {
            let _ = reply.send(Err(CommitError::Backend(error.to_string())));
        }
        return;
    }
    {
        let mut state = shared.state.write();
        for write in writes {
            state.apply(write);
        }
        state.revision = revision;
    }
    let mut replies = Vec::with_capacity(accepted.len());
    let mut commits = Vec::with_capacity(accepted.len());
    for Accepted { revision, commit, reply } in accepted {
        commits.push(commit);
        replies.push((reply, revision));
    }
    shared.log.append(commits);
    for (reply, revision) in replies {
        // The caller may have gone; the commit stands all the same.
        let _ = reply.send(Ok(revision));
    }
}

type Counters = Option<(Revision, Revision, u64)>;

/// The counters of records that earlier transactions of the same batch changed.
struct Pending {
    overlay: HashMap<Key, Counters>,
}

impl Pending {
    fn write(&mut self, change: &Change, key: Key, before: Counters, revision: Revision) -> Option<Write> {
        let (write, after) = match (change, before) {
            (Change::Put(record), before) => {
                let (created, version) = before.map_or((revision, 1), |(created, _, version)| (created, version + 1));
                let stored = Stored { record: record.clone(), created, modified: revision, version };
                (Write::Put(stored), Some((created, revision, version)))
            }
            (Change::Touch(_), Some((created, _, version))) => {
                let write = Write::Touch { key: key.clone(), modified: revision, version: version + 1 };
                (write, Some((created, revision, version + 1)))
            }
            (Change::Delete(_), Some(_)) => (Write::Delete(key.clone()), None),
            (Change::Touch(_) | Change::Delete(_), None) => return None,
        };
        self.overlay.insert(key, after);
        Some(write)
    }
}

fn first_conflict(transaction: &Transaction, counters: impl Fn(&Key) -> Counters) -> Option<Key> {
    transaction.expects.iter().find_map(|expect| match expect {
        Expect::Absent(key) => counters(key).is_some().then(|| key.clone()),
        Expect::Unchanged(key, revision) => {
            let unchanged = counters(key).is_some_and(|(_, modified, _)| modified == *revision);
            (!unchanged).then(|| key.clone())
        }
    })
}
