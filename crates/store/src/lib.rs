//! The one revisioned store of all intent and all observation.
//!
//! One atomic conditional commit per decision, a gapless watch, and the whole state in memory, indexed: reads never touch
//! the disk, and they see only what is durable. It decides nothing.

pub mod backend;
pub mod backup;
pub mod conformance;
pub mod etcd;
pub mod membership;
mod meter;
pub mod sqlite;
pub mod state;
pub mod transaction;
pub mod watch;
mod writer;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::oneshot;

pub use backend::{Backend, BackendError, Memory};
pub use etcd::{EtcdAccess, EtcdAddress, EtcdSettings, EtcdTls, EtcdUrl, EtcdUser, Fate, Line, SimulatedEtcd, UrlError, Witness};
pub use membership::{Membership, MembershipWatch, PeerNumber};
pub use meter::Meter;
pub use sqlite::Sqlite;
pub use state::{AddInterfaceError, ClusterIndex, Entry, Starter, State, Tally, VpcResources};
pub use transaction::{Change, CommitError, Expect, Revision, Transaction};
pub use watch::{Commit, Compacted, Watcher};

use crate::membership::Board;
use crate::writer::Writer;

/// What happens before a commit is written and before its caller learns of it; see [`Store::with_pauses`].
pub type Pause = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    desk: Desk,
    pause: Option<Pause>,
}

/// Who commits.
#[derive(Clone)]
enum Desk {
    /// This process has the store for itself.
    Local(Arc<Writer>),
    /// It is one of several peers.
    Etcd(Arc<etcd::Peer>),
}

pub(crate) struct Shared {
    pub(crate) state: RwLock<State>,
    pub(crate) log: watch::Log,
    pub(crate) meter: Meter,
    pub(crate) membership: Board,
}

impl Store {
    /// Opens a store: loads everything out of the backend and starts the writer thread, which ends with the last handle.
    ///
    /// # Errors
    /// [`BackendError`] if the backend cannot be read.
    pub fn open(mut backend: impl Backend) -> Result<Self, BackendError> {
        let shared = load(&mut backend)?;
        let writer = Arc::new(Writer::start(Box::new(backend), Arc::clone(&shared))?);
        Ok(Self { shared, desk: Desk::Local(writer), pause: None })
    }

    /// [`Store::open`] without a thread: every commit happens in its caller, which is what a simulation wants.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_inline(mut backend: impl Backend) -> Result<Self, BackendError> {
        let shared = load(&mut backend)?;
        let writer = Arc::new(Writer::inline(Box::new(backend), Arc::clone(&shared)));
        Ok(Self { shared, desk: Desk::Local(writer), pause: None })
    }

    /// Opens the store that this process shares with others: joins the peers, loads everything and starts to follow. Blocks
    /// the thread until etcd has answered, 15 s at most if it does not. The last handle's end gives the lease back.
    ///
    /// # Errors
    /// [`BackendError`] if etcd does not answer or what it holds cannot be read.
    pub fn open_etcd(settings: EtcdSettings) -> Result<Self, BackendError> {
        let nobody = Membership { me: 0, leads: false, living: Default::default() };
        let shared = Arc::new(Shared::new(State::default(), nobody));
        let peer = etcd::Peer::start(settings, Arc::clone(&shared))?;
        Ok(Self { shared, desk: Desk::Etcd(Arc::new(peer)), pause: None })
    }

    /// [`Store::open_etcd`] in a simulation: over an etcd cluster in memory, on the caller's runtime, with a way to each of its
    /// members. The future is all of the peer's own work and has to run; whoever drops it kills the peer.
    ///
    /// # Errors
    /// [`BackendError`] if nothing arrives for too long.
    pub async fn open_simulated(
        etcd: &Arc<SimulatedEtcd>,
        settings: EtcdSettings,
        lines: Vec<Arc<dyn Line>>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), BackendError> {
        let nobody = Membership { me: 0, leads: false, living: Default::default() };
        let shared = Arc::new(Shared::new(State::default(), nobody));
        let (peer, work) = etcd::Peer::simulate(etcd, settings, lines, Arc::clone(&shared)).await?;
        Ok((Self { shared, desk: Desk::Etcd(Arc::new(peer)), pause: None }, work))
    }

    /// The same store, whose [`Store::commit`] takes its time, as a disk or a network does: others may commit meanwhile, and a caller
    /// that is dropped meanwhile does not know what came of it. For simulations; there a commit would otherwise never wait.
    #[must_use]
    pub fn with_pauses(self, pause: Pause) -> Self {
        Self { pause: Some(pause), ..self }
    }

    /// The state as of the last durable commit. Hold it briefly: the next commit waits for it to be dropped.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read()
    }

    /// Commits a transaction. When it returns `Ok` the change is durable and visible in [`Store::state`].
    ///
    /// # Errors
    /// [`CommitError`]; then nothing of it happened, except after [`CommitError::Closed`] and [`CommitError::Unknown`],
    /// where it may have.
    pub async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let Some(pause) = &self.pause else { return self.commit_now(transaction).await };
        pause().await;
        let outcome = self.commit_now(transaction).await;
        pause().await;
        outcome
    }

    async fn commit_now(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        match self.commit_here(transaction) {
            Ok(outcome) => outcome,
            Err(transaction) => self.enqueue(transaction)?.await.map_err(|_| CommitError::Closed)?,
        }
    }

    /// [`Store::commit`] for threads that are not part of an async runtime.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_blocking(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        match self.commit_here(transaction) {
            Ok(outcome) => outcome,
            Err(transaction) => self.enqueue(transaction)?.blocking_recv().map_err(|_| CommitError::Closed)?,
        }
    }

    fn commit_here(&self, transaction: Transaction) -> Result<Result<Revision, CommitError>, Transaction> {
        match &self.desk {
            Desk::Local(writer) => writer.commit_here(transaction),
            Desk::Etcd(_) => Err(transaction),
        }
    }

    /// Queues a transaction at once; the receiver gives its outcome. Of two that write the same record, the one queued
    /// first goes first.
    ///
    /// # Errors
    /// [`CommitError::Overloaded`] if the queue is full, [`CommitError::Closed`].
    pub fn enqueue(&self, transaction: Transaction) -> Result<oneshot::Receiver<Result<Revision, CommitError>>, CommitError> {
        match &self.desk {
            Desk::Local(writer) => {
                let (reply, outcome) = oneshot::channel();
                writer.send(transaction, reply)?;
                Ok(outcome)
            }
            Desk::Etcd(peer) => peer.enqueue(transaction),
        }
    }

    /// Most changes, and most conditions, that one transaction should have. One with more may be refused with
    /// [`CommitError::Backend`].
    #[must_use]
    pub fn max_changes(&self) -> usize {
        match &self.desk {
            Desk::Local(_) => usize::MAX,
            Desk::Etcd(_) => etcd::MAX_CHANGES,
        }
    }

    /// Which peers share the store, and whether this one runs the loops; the receiver is told of every change. What is
    /// said here is never older than what [`Store::state`] shows.
    #[must_use]
    pub fn membership(&self) -> MembershipWatch {
        self.shared.membership.watch()
    }

    /// This peer runs the loops. Always true where one process has the store for itself.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.shared.membership.borrow().leads
    }

    /// A value on which all peers agree, beside the records: the first that any of them proposed under this name. Without
    /// peers that is what is proposed.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn agree(&self, name: &str, proposal: Vec<u8>) -> Result<Vec<u8>, CommitError> {
        match &self.desk {
            Desk::Local(_) => Ok(proposal),
            Desk::Etcd(peer) => peer.agree(name, proposal).await,
        }
    }

    /// Gives up leadership and this peer's place among the living, at once and for good. Commits still work.
    pub async fn leave(&self) {
        if let Desk::Etcd(peer) = &self.desk {
            peer.leave().await;
        }
    }

    /// What the store counts of itself.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    /// Watches all commits after `from`, without a gap.
    #[must_use]
    pub fn watch(&self, from: Revision) -> Watcher {
        Watcher::new(Arc::clone(&self.shared), from)
    }
}

fn load(backend: &mut impl Backend) -> Result<Arc<Shared>, BackendError> {
    let mut loading = state::Loading::new();
    backend.load(&mut |write| loading.take(write))?;
    let mut state = loading.finish();
    state.revision = backend.revision()?;
    Ok(Arc::new(Shared::new(state, Membership::alone())))
}

impl Shared {
    fn new(state: State, membership: Membership) -> Self {
        let log = watch::Log::new(state.revision);
        Self { log, state: RwLock::new(state), meter: Meter::default(), membership: Board::new(membership) }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("revision", &self.state().revision).finish_non_exhaustive()
    }
}
