//! Which server peers share the store, and which of them runs the loops.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// A peer's number: no two living peers have the same. A store that one process has alone gives it 0.
pub type PeerNumber = u16;

/// The peers, as this one last heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// This peer.
    pub me: PeerNumber,
    /// This peer runs the loops. At most one does, but for the moment in which one that was cut off has not noticed yet:
    /// conditional commits make that harmless.
    pub leads: bool,
    /// All peers that are alive, this one too.
    pub living: BTreeSet<PeerNumber>,
}

impl Membership {
    /// A process that has its store for itself.
    #[must_use]
    pub fn alone() -> Self {
        Self { me: 0, leads: true, living: BTreeSet::from([0]) }
    }
}

/// Where the membership is posted. Not tokio's `watch`, which wakes its receivers in an order of chance: a seed has to give the same
/// simulation each time.
pub(crate) struct Board(Arc<Posted>);

struct Posted {
    /// Counted up with each change.
    now: RwLock<(u64, Membership)>,
    changed: Notify,
}

impl Board {
    pub(crate) fn new(membership: Membership) -> Self {
        Self(Arc::new(Posted { now: RwLock::new((0, membership)), changed: Notify::new() }))
    }

    pub(crate) fn watch(&self) -> MembershipWatch {
        let seen = self.0.now.read().0;
        MembershipWatch { posted: Arc::clone(&self.0), seen }
    }

    pub(crate) fn borrow(&self) -> MappedRwLockReadGuard<'_, Membership> {
        RwLockReadGuard::map(self.0.now.read(), |(_, membership)| membership)
    }

    /// Posts another membership; `change` says whether it did.
    pub(crate) fn send_if_modified(&self, change: impl FnOnce(&mut Membership) -> bool) {
        {
            let mut now = self.0.now.write();
            if !change(&mut now.1) {
                return;
            }
            now.0 += 1;
        }
        self.0.changed.notify_waiters();
    }
}

/// Follows who the peers are. Clones follow by themselves.
#[derive(Clone)]
pub struct MembershipWatch {
    posted: Arc<Posted>,
    seen: u64,
}

impl MembershipWatch {
    /// The membership as it is now. Hold it briefly: the next change waits for it to be dropped.
    pub fn borrow(&self) -> MappedRwLockReadGuard<'_, Membership> {
        RwLockReadGuard::map(self.posted.now.read(), |(_, membership)| membership)
    }

    /// The same; it counts as seen.
    pub fn borrow_and_update(&mut self) -> MappedRwLockReadGuard<'_, Membership> {
        let now = self.posted.now.read();
        self.seen = now.0;
        RwLockReadGuard::map(now, |(_, membership)| membership)
    }

    /// Waits for a change after the last that was seen; it then counts as seen. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let mut changed = std::pin::pin!(self.posted.changed.notified());
            // Waits from here on, so that nothing that comes after the look is missed.
            changed.as_mut().enable();
            let now = self.posted.now.read().0;
            if now != self.seen {
                self.seen = now;
                return;
            }
            changed.await;
        }
    }
}
