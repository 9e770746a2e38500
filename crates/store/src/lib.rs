//! The one revisioned store of all intent and all observation.
//!
//! One atomic conditional commit per decision, a gapless watch, and the whole state in memory, indexed: reads never touch
//! the disk, and they see only what is durable. It decides nothing.

pub mod backend;
pub mod conformance;
pub mod sqlite;
pub mod state;
pub mod transaction;
pub mod watch;
mod writer;

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::oneshot;

pub use backend::{Backend, BackendError, Memory};
pub use sqlite::Sqlite;
pub use state::{ClusterIndex, Entry, State};
pub use transaction::{Change, CommitError, Expect, Revision, Transaction};
pub use watch::{Commit, Compacted, Watcher};

use crate::writer::{Job, Writer};

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
}

pub(crate) struct Shared {
    pub(crate) state: RwLock<State>,
    pub(crate) log: watch::Log,
}

impl Store {
    /// Opens a store: loads everything out of the backend and starts the writer thread, which ends with the last handle.
    ///
    /// # Errors
    /// [`BackendError`] if the backend cannot be read.
    pub fn open(mut backend: impl Backend) -> Result<Self, BackendError> {
        let shared = load(&mut backend)?;
        let writer = Arc::new(Writer::start(Box::new(backend), Arc::clone(&shared))?);
        Ok(Self { shared, writer })
    }

    /// [`Store::open`] without a thread: every commit happens in its caller, which is what a simulation wants.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_inline(mut backend: impl Backend) -> Result<Self, BackendError> {
        let shared = load(&mut backend)?;
        let writer = Arc::new(Writer::inline(Box::new(backend), Arc::clone(&shared)));
        Ok(Self { shared, writer })
    }

    /// The state as of the last durable commit. Hold it briefly: the next commit waits for it to be dropped.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read()
    }

    /// Commits a transaction. When it returns `Ok` the change is durable and visible in [`Store::state`].
    ///
    /// # Errors
    /// [`CommitError`]; then nothing of it happened (except after [`CommitError::Closed`], where it may have).
    pub async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        match self.writer.commit_here(transaction) {
            Ok(outcome) => outcome,
            Err(transaction) => self.enqueue(transaction)?.await.map_err(|_| CommitError::Closed)?,
        }
    }

    /// [`Store::commit`] for threads that are not part of an async runtime.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_blocking(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        match self.writer.commit_here(transaction) {
            Ok(outcome) => outcome,
            Err(transaction) => self.enqueue(transaction)?.blocking_recv().map_err(|_| CommitError::Closed)?,
        }
    }

    /// Puts a transaction into the writer's queue at once, in the order of calls; the receiver gives its outcome.
    ///
    /// # Errors
    /// [`CommitError::Overloaded`] if the queue is full, [`CommitError::Closed`].
    pub fn enqueue(&self, transaction: Transaction) -> Result<oneshot::Receiver<Result<Revision, CommitError>>, CommitError> {
        let (reply, outcome) = oneshot::channel();
        self.writer.send(Job { transaction, reply })?;
        Ok(outcome)
    }

    /// Watches all commits after `from`, without a gap.
    #[must_use]
    pub fn watch(&self, from: Revision) -> Watcher {
        Watcher::new(Arc::clone(&self.shared), from)
    }
}

fn load(backend: &mut impl Backend) -> Result<Arc<Shared>, BackendError> {
    let mut state = State::default();
    backend.load(&mut |write| state.apply(write))?;
    state.revision = backend.revision()?;
    Ok(Arc::new(Shared { log: watch::Log::new(state.revision), state: RwLock::new(state) }))
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("revision", &self.state().revision).finish_non_exhaustive()
    }
}
