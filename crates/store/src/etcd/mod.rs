//! The backend for several server peers: an etcd cluster holds the records, every peer follows it with a watch of its own.
//!
//! A commit is one etcd transaction, conditional on modification revisions; it is answered once this peer's own state shows
//! it. All of it happens on one thread with a runtime of its own, so that a busy server does not starve its own lease.

mod access;
mod address;
mod commit;
mod history;
mod import;
mod members;
mod replica;
mod roster;
mod rpc;
mod simulated;
mod turns;
mod wire;

use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub use access::{EtcdAccess, EtcdTls, EtcdUrl, EtcdUser, UrlError};
pub use address::{AddressError, EtcdAddress};
pub use import::import;
pub use simulated::{Fate, Line, SimulatedEtcd, Witness};

use self::members::Members;
use self::replica::Replica;
use self::roster::Roster;
use self::rpc::{PutRequest, RangeRequest, Request, TxnRequest, TxnResponse};
use self::turns::Turns;
use crate::Shared;
use crate::backend::BackendError;
use crate::meter::Meter;
use crate::transaction::{CommitError, Revision, Transaction};

/// The newest layout of keys and values that this code writes.
const SCHEMA: i64 = 1;
/// Most transactions that may wait or be under way; beyond it callers are told at once. As with the local writer.
const QUEUE: usize = 4_096;
/// Most transactions under way at etcd together. It syncs what comes together once; more than this only queues up there.
const IN_FLIGHT: usize = 64;
/// How long etcd may answer nothing before a commit's caller is told so: longer than an election.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long etcd may take to answer at the start.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How long giving the lease back may take.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);
/// etcd takes this many operations, and as many conditions, in a transaction (`--max-txn-ops`).
const MAX_OPERATIONS: usize = 128;
/// etcd takes requests of 1.5 MiB (`--max-request-bytes`); some of it is envelope.
const MAX_BYTES: usize = 1_400 * 1024;
/// What callers may use of [`MAX_OPERATIONS`]: a few are left for conditions that the store adds by itself.
pub(crate) const MAX_CHANGES: usize = 120;

/// How a peer uses etcd.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// Where etcd is, and under which keys.
    pub address: EtcdAddress,
    /// How etcd is entered.
    pub access: EtcdAccess,
    /// How many of etcd's newest revisions are kept for peers that fall behind; the leader has older ones compacted.
    pub keep_revisions: u64,
    /// How often it does so.
    pub compact_every: Duration,
}

impl EtcdSettings {
    /// The usual: 10,000 revisions, looked at every minute.
    #[must_use]
    pub const fn new(address: EtcdAddress) -> Self {
        Self { address, access: EtcdAccess { user: None, tls: None }, keep_revisions: 10_000, compact_every: Duration::from_secs(60) }
    }

    /// The usual, for a cluster that is entered in its own way.
    #[must_use]
    pub fn at(url: EtcdUrl) -> Self {
        Self { access: url.access, ..Self::new(url.address) }
    }
}

pub(crate) type Outcome = Result<Revision, CommitError>;

struct Job {
    transaction: Transaction,
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
    _place: OwnedSemaphorePermit,
}

enum Order {
    Commit(Job),
    Agree { name: String, proposal: Vec<u8>, reply: oneshot::Sender<Result<Vec<u8>, CommitError>> },
    Leave(oneshot::Sender<()>),
}

/// This peer's end of etcd.
pub(crate) struct Peer {
    orders: Option<mpsc::UnboundedSender<Order>>,
    /// Bounds `orders`.
    places: Arc<Semaphore>,
    meter: Meter,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread's tasks share.
struct Common {
    members: Members,
    address: EtcdAddress,
    shared: Arc<Shared>,
    roster: Roster,
}

impl Peer {
    /// Loads everything and starts to follow. Waits for etcd, for a bounded time.
    pub(crate) fn start(settings: EtcdSettings, shared: Arc<Shared>) -> Result<Self, BackendError> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let meter = shared.meter.clone();
        let (started, outcome) = std_mpsc::channel();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(BackendError::Io(format!("cannot start the store's runtime: {error}"))))),
            };
            runtime.block_on(run(settings, shared, inbox, started));
        };
        let thread = std::thread::Builder::new()
            .name("store-etcd".into())
            .spawn(run)
            .map_err(|error| BackendError::Io(format!("cannot start the store's thread: {error}")))?;
        let closed = |_| BackendError::Io("the store's thread ended while it started".to_owned());
        outcome.recv().map_err(closed)??;
        Ok(Self { orders: Some(orders), places: Arc::new(Semaphore::new(QUEUE)), meter, thread: Mutex::new(Some(thread)) })
    }

    /// A peer of a simulation: loads everything, and gives what follows and commits. That has to run; whoever drops it kills the peer.
    pub(crate) async fn simulate(
        etcd: &Arc<SimulatedEtcd>,
        settings: EtcdSettings,
        lines: Vec<Arc<dyn Line>>,
        shared: Arc<Shared>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), BackendError> {
        let members = Members::simulated(etcd, lines).map_err(BackendError::Io)?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let meter = shared.meter.clone();
        let (common, replica) = begin(&settings, members, shared).await?;
        let peer = Self { orders: Some(orders), places: Arc::new(Semaphore::new(QUEUE)), meter, thread: Mutex::new(None) };
        Ok((peer, work(settings, common, replica, inbox)))
    }

    pub(crate) fn enqueue(&self, transaction: Transaction) -> Result<oneshot::Receiver<Outcome>, CommitError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            self.meter.refusals.inc();
            CommitError::Overloaded
        })?;
        let (reply, outcome) = oneshot::channel();
        self.order(Order::Commit(Job { transaction, deadline: Instant::now() + COMMIT_PATIENCE, reply, _place: place }))?;
        Ok(outcome)
    }

    /// The value all peers agree on under a name: the first that was proposed.
    pub(crate) async fn agree(&self, name: &str, proposal: Vec<u8>) -> Result<Vec<u8>, CommitError> {
        let (reply, outcome) = oneshot::channel();
        self.order(Order::Agree { name: name.to_owned(), proposal, reply })?;
        outcome.await.map_err(|_| CommitError::Closed)?
    }

    /// Gives up leadership and the peer's place among the living, at once and for good.
    pub(crate) async fn leave(&self) {
        let (reply, done) = oneshot::channel();
        if self.order(Order::Leave(reply)).is_ok() {
            let _ = done.await;
        }
    }

    fn order(&self, order: Order) -> Result<(), CommitError> {
        self.orders.as_ref().ok_or(CommitError::Closed)?.send(order).map_err(|_| CommitError::Closed)
    }
}

impl Drop for Peer {
    /// Waits until what was accepted is answered, and the lease given back.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread was printed by it; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

async fn run(
    settings: EtcdSettings,
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Order>,
    started: std_mpsc::Sender<Result<(), BackendError>>,
) {
    let begun = match Members::new(&settings.address.endpoints, &settings.access) {
        Ok(members) => begin(&settings, members, shared).await,
        Err(reason) => Err(BackendError::Io(reason)),
    };
    let (common, replica) = match begun {
        Ok(begun) => begun,
        Err(error) => return drop(started.send(Err(error))),
    };
    let _ = started.send(Ok(()));
    work(settings, common, replica, inbox).await;
}

/// All of a peer's work, until its last handle is gone.
async fn work(settings: EtcdSettings, common: Arc<Common>, replica: Replica, inbox: mpsc::UnboundedReceiver<Order>) {
    let mut background = JoinSet::new();
    background.spawn(replica.follow());
    background.spawn(roster::keep(Arc::clone(&common)));
    background.spawn(history::compact(Arc::clone(&common), settings.keep_revisions, settings.compact_every));
    serve(&common, inbox).await;
    common.roster.leave(&common, LEAVE_PATIENCE).await;
    background.shutdown().await;
}

async fn begin(settings: &EtcdSettings, members: Members, shared: Arc<Shared>) -> Result<(Arc<Common>, Replica), BackendError> {
    let address = settings.address.clone();
    let common = Arc::new(Common { members, address, roster: Roster::default(), shared });
    let deadline = Instant::now() + START_PATIENCE;
    let io = |error: CommitError| BackendError::Io(format!("{}: {error}", settings.address));
    let schema = agree(&common, "schema", SCHEMA.to_string().into_bytes(), deadline).await.map_err(io)?;
    let found: i64 = std::str::from_utf8(&schema).ok().and_then(|text| text.parse().ok()).unwrap_or(i64::MAX);
    if import::is_under_way(&schema) {
        return Err(BackendError::HalfRestored(settings.address.to_string()));
    }
    if found > SCHEMA {
        return Err(BackendError::NewerSchema { found, known: SCHEMA });
    }
    // First a place among the living, then the load, so that the first view has this peer in it.
    common.roster.join(&common, deadline).await.map_err(|error| BackendError::Io(format!("{}: {error}", settings.address)))?;
    let replica = Replica::load(Arc::clone(&common), deadline).await?;
    common.roster.campaign(&common).await;
    Ok((common, replica))
}

/// Takes orders until the last handle is gone and all of them are answered.
async fn serve(common: &Arc<Common>, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut turns = Turns::default();
    let mut under_way = JoinSet::new();
    loop {
        let order = tokio::select! {
            biased;
            Some(_) = under_way.join_next() => continue,
            order = inbox.recv() => order,
        };
        match order {
            None => break,
            Some(Order::Commit(job)) => {
                let turn = turns.take(&job.transaction);
                let (common, in_flight) = (Arc::clone(common), Arc::clone(&in_flight));
                under_way.spawn(async move {
                    let turn = turn.wait().await;
                    let _permit = in_flight.acquire().await;
                    let (began, changes) = (Instant::now(), job.transaction.changes.len());
                    // What waited long for others, while etcd answered those, is not given up for that.
                    let deadline = job.deadline.max(common.members.answered() + COMMIT_PATIENCE);
                    let outcome = commit::commit(&common, job.transaction, deadline).await;
                    count(&common.shared, &outcome, changes, began.elapsed());
                    // The next in turn may go before the caller hears of it: it sees the state.
                    drop(turn);
                    // The caller may have gone; the commit stands all the same.
                    let _ = job.reply.send(outcome);
                });
            }
            Some(Order::Agree { name, proposal, reply }) => {
                let common = Arc::clone(common);
                under_way.spawn(async move {
                    let _ = reply.send(agree(&common, &name, proposal, Instant::now() + COMMIT_PATIENCE).await);
                });
            }
            Some(Order::Leave(reply)) => {
                common.roster.leave(common, LEAVE_PATIENCE).await;
                let _ = reply.send(());
            }
        }
    }
    while under_way.join_next().await.is_some() {}
}

fn count(shared: &Shared, outcome: &Outcome, changes: usize, took: Duration) {
    let meter = &shared.meter;
    match outcome {
        Ok(revision) => {
            meter.commits.inc();
            meter.changes.inc_by(changes as u64);
            meter.sync_seconds.observe(took.as_secs_f64());
            meter.revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
        }
        Err(CommitError::Conflict(_)) => drop(meter.conflicts.inc()),
        Err(_) => drop(meter.failures.inc()),
    }
}

/// Puts a value unless there is one, and gives what is there.
async fn agree(common: &Common, name: &str, proposal: Vec<u8>, deadline: Instant) -> Result<Vec<u8>, CommitError> {
    let key = common.address.key(name);
    let put = Request::Put(PutRequest { key: key.clone(), value: proposal.clone(), ..Default::default() });
    let get = Request::Range(RangeRequest { key: key.clone(), ..Default::default() });
    let request = TxnRequest { compare: vec![rpc::Compare::absent(key)], success: vec![put.into()], failure: vec![get.into()] };
    // Twice is as good as once: a second put finds the first.
    let answer: TxnResponse =
        common.members.call(rpc::TXN, request, deadline).await.map_err(|error| CommitError::Backend(error.to_string()))?;
    if answer.succeeded {
        return Ok(proposal);
    }
    let found = answer.responses.into_iter().find_map(|response| match response.response? {
        rpc::Response::Range(range) => range.kvs.into_iter().next(),
        _ => None,
    });
    found.map(|kv| kv.value).ok_or_else(|| CommitError::Backend(format!("{name} vanished while it was read")))
}

/// Waits until this peer's state shows a revision; `false` if it does not by the deadline.
async fn shown(shared: &Shared, revision: Revision, deadline: Instant) -> bool {
    let patience = deadline.saturating_duration_since(Instant::now());
    timeout(patience, shared.log.until(|| shared.state.read().revision >= revision)).await.is_ok()
}
