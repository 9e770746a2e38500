//! Who writes: whoever finds the desk free, or else the one writer thread, which takes all that waits as one batch. A
//! batch's conditions are checked in turn, it is made durable with one sync, then shown, then answered.
//!
//! A caller that finds nobody writing commits by itself: handing a transaction to another thread and its outcome back
//! costs as much as a quick disk's sync. While one writes, all others queue up, and that queue is the next batch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use berth_model::record::Key;
use foldhash::fast::RandomState;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::Shared;
use crate::backend::{Backend, BackendError, Stored, Write};
use crate::transaction::{Change, CommitError, Expect, Revision, Transaction};
use crate::watch::Commit;

/// Most transactions that may wait; beyond it callers are told at once.
const QUEUE: usize = 4_096;
/// Most transactions made durable with one sync: bounds the time that the first of them waits.
const BATCH: usize = 512;
/// How long nothing must be written before housekeeping.
const IDLE: Duration = Duration::from_millis(200);
/// How long nothing must wait before the backend does what would hold up one of the next commits. Writers who wait for their last commit's
/// answer before they send the next leave shorter gaps than this.
const LULL: Duration = Duration::from_millis(1);
/// A disk whose syncs take longer is waited for by the writer thread alone: callers belong to a thread that serves others.
const QUICK: Duration = Duration::from_millis(1);

type Outcome = Result<Revision, CommitError>;

/// What waits for the writer thread.
struct Job {
    transaction: Transaction,
    reply: oneshot::Sender<Outcome>,
}

/// Where transactions are written, and where they wait for it.
struct Desk {
    shared: Arc<Shared>,
    /// Locked by whoever writes, before the queue is.
    pen: Mutex<Pen>,
    queue: Mutex<Queue>,
    /// Something is in the queue, the queue was closed, or housekeeping has become due.
    bell: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    /// Something was written since the last housekeeping.
    untidy: bool,
    /// The backend wants to be let do something before it holds up a commit.
    lull: bool,
}

struct Pen {
    backend: Box<dyn Backend>,
    /// A running mean of how long the backend takes.
    takes: Duration,
    written_at: Option<Instant>,
    /// The last batch could not be written, and that was said.
    refuses: bool,
}

pub(crate) struct Writer {
    desk: Arc<Desk>,
    /// `None` if every caller writes by itself.
    thread: Option<JoinHandle<()>>,
    /// Callers may write too. Not with a single processor: there everything else would wait with them.
    callers_write: bool,
}

impl Writer {
    pub(crate) fn start(backend: Box<dyn Backend>, shared: Arc<Shared>) -> Result<Self, BackendError> {
        let mut writer = Self::inline(backend, shared);
        let desk = Arc::clone(&writer.desk);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&desk))
            .map_err(|error| BackendError::Io(format!("cannot start the writer thread: {error}")))?;
        writer.thread = Some(thread);
        writer.callers_write = std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        Ok(writer)
    }

    /// A writer without a thread: every caller waits for the desk and writes by itself.
    pub(crate) fn inline(backend: Box<dyn Backend>, shared: Arc<Shared>) -> Self {
        let pen = Mutex::new(Pen { backend, takes: Duration::ZERO, written_at: None, refuses: false });
        // What an earlier life left to be tidied up.
        let queue = Mutex::new(Queue { untidy: true, ..Queue::default() });
        let desk = Arc::new(Desk { shared, pen, queue, bell: Condvar::new() });
        Self { desk, thread: None, callers_write: true }
    }

    /// Queues a transaction for the writer thread.
    pub(crate) fn send(&self, transaction: Transaction, reply: oneshot::Sender<Outcome>) -> Result<(), CommitError> {
        if self.thread.is_none() {
            let outcome = self.desk.pen.lock().commit_one(&self.desk.shared, transaction);
            let _ = reply.send(outcome);
            return Ok(());
        }
        let mut queue = self.desk.queue.lock();
        if queue.jobs.len() >= QUEUE {
            self.desk.shared.meter.refusals.inc();
            return Err(CommitError::Overloaded);
        }
        queue.jobs.push_back(Job { transaction, reply });
        self.desk.shared.meter.queue.inc();
        drop(queue);
        self.desk.bell.notify_one();
        Ok(())
    }

    /// Commits here and now if nobody else is writing or waiting and the disk is quick; otherwise gives the transaction back.
    pub(crate) fn commit_here(&self, transaction: Transaction) -> Result<Outcome, Transaction> {
        if self.thread.is_none() {
            return Ok(self.desk.pen.lock().commit_one(&self.desk.shared, transaction));
        }
        if !self.callers_write {
            return Err(transaction);
        }
        let Some(mut pen) = self.desk.pen.try_lock() else { return Err(transaction) };
        if pen.takes > QUICK || !self.desk.queue.lock().jobs.is_empty() {
            return Err(transaction);
        }
        let outcome = pen.commit_one(&self.desk.shared, transaction);
        let lull = pen.backend.wants_lull();
        drop(pen);
        let mut queue = self.desk.queue.lock();
        let is_news = !queue.untidy || lull && !queue.lull;
        (queue.untidy, queue.lull) = (true, lull);
        drop(queue);
        if is_news {
            self.desk.bell.notify_one();
        }
        Ok(outcome)
    }
}

impl Drop for Writer {
    /// Waits until what was accepted is durable.
    fn drop(&mut self) {
        self.desk.queue.lock().closed = true;
        self.desk.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was printed by its thread; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

fn run(desk: &Desk) {
    loop {
        let mut queue = desk.queue.lock();
        while queue.jobs.is_empty() {
            if queue.closed {
                return;
            }
            if queue.lull {
                if desk.bell.wait_for(&mut queue, LULL).timed_out() && queue.jobs.is_empty() {
                    queue.lull = false;
                    drop(queue);
                    let mut pen = desk.pen.lock();
                    // A commit may have done it meanwhile.
                    if pen.backend.wants_lull() {
                        pen.backend.lull();
                    }
                    drop(pen);
                    queue = desk.queue.lock();
                }
            } else if !queue.untidy {
                desk.bell.wait(&mut queue);
            } else if desk.bell.wait_for(&mut queue, IDLE).timed_out() && queue.jobs.is_empty() {
                queue.untidy = false;
                drop(queue);
                let left = desk.pen.lock().tidy_up(|| !desk.queue.lock().jobs.is_empty());
                queue = desk.queue.lock();
                queue.untidy |= left;
            }
        }
        drop(queue);
        // First the pen: a caller that holds it while the queue looks empty would otherwise write before what was taken here.
        let mut pen = desk.pen.lock();
        let batch: Vec<Job> = {
            let mut queue = desk.queue.lock();
            queue.untidy = true;
            let taken = queue.jobs.len().min(BATCH);
            desk.shared.meter.queue.dec_by(i64::try_from(taken).unwrap_or(0));
            queue.jobs.drain(..taken).collect()
        };
        let (batch, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.transaction, job.reply)).unzip();
        let outcomes = pen.commit(&desk.shared, batch);
        let lull = pen.backend.wants_lull();
        drop(pen);
        desk.queue.lock().lull = lull;
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // The caller may have gone; the commit stands all the same.
            let _ = reply.send(outcome);
        }
    }
}

impl Pen {
    fn commit_one(&mut self, shared: &Shared, transaction: Transaction) -> Outcome {
        self.commit(shared, vec![transaction]).pop().unwrap_or(Err(CommitError::Closed))
    }

    /// Commits a batch: one outcome for each transaction.
    fn commit(&mut self, shared: &Shared, batch: Vec<Transaction>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut commits = Vec::with_capacity(batch.len());
        let mut writes = Vec::new();
        let state = shared.state.read();
        let mut revision = state.revision;
        // A single transaction needs no overlay for conditions: they are all checked before its changes.
        let mut pending = Pending::default();
        for transaction in batch {
            let counters = |pending: &Pending, key: &Key| pending.counters.get(key).copied().unwrap_or_else(|| state.counters(key));
            if let Some(key) = first_conflict(&transaction, |key| counters(&pending, key)) {
                shared.meter.conflicts.inc();
                outcomes.push(Err(CommitError::Conflict(key)));
                continue;
            }
            if transaction.is_empty() {
                outcomes.push(Ok(revision));
                continue;
            }
            revision = Revision(revision.0 + 1);
            for change in &transaction.changes {
                let key = change.key();
                let before = counters(&pending, &key);
                writes.extend(pending.write(change, key, before, revision));
            }
            commits.push(Arc::new(Commit { revision, changes: transaction.changes }));
            outcomes.push(Ok(revision));
        }
        drop(state);
        if commits.is_empty() {
            return outcomes;
        }
        let started = Instant::now();
        let persisted = self.backend.persist(&writes, revision);
        let took = started.elapsed();
        self.takes = (self.takes * 7 + took) / 8;
        self.written_at = Some(started);
        let refused_before = std::mem::replace(&mut self.refuses, persisted.is_err());
        if let Err(error) = persisted {
            // Every caller is told; the log, once for however long it lasts.
            if !refused_before {
                tracing::error!(%error, "the store cannot write");
            }
            shared.meter.failures.inc_by(commits.len() as u64);
            let refused = CommitError::Backend(error.to_string());
            return outcomes.into_iter().map(|outcome| outcome.and(Err(refused.clone()))).collect();
        }
        if refused_before {
            tracing::info!("the store writes again");
        }
        let meter = &shared.meter;
        meter.commits.inc_by(commits.len() as u64);
        meter.changes.inc_by(writes.len() as u64);
        meter.sync_seconds.observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "at most a few hundred")]
        meter.batch.observe(commits.len() as f64);
        meter.revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
        {
            let mut state = shared.state.write();
            for write in writes {
                state.apply(write);
            }
            state.revision = revision;
        }
        shared.log.append(commits);
        outcomes
    }

    /// Housekeeping, if nothing was written for a while, until something waits; whether there is more to do.
    fn tidy_up(&mut self, something_waits: impl Fn() -> bool) -> bool {
        if self.written_at.is_some_and(|at| at.elapsed() < IDLE) {
            return true;
        }
        while self.backend.idle() {
            if something_waits() {
                return true;
            }
        }
        false
    }
}

type Counters = Option<(Revision, Revision, u64)>;

/// The counters of records that earlier transactions of the same batch changed.
#[derive(Default)]
struct Pending {
    counters: HashMap<Key, Counters, RandomState>,
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
        self.counters.insert(key, after);
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
