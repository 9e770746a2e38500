//! The gapless watch: a bounded log of the newest commits that any number of readers follow at their own pace.
//!
//! A reader costs a number. One that falls behind the log is told so and reads the state again.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Shared;
use crate::transaction::{Change, Revision};

/// How many commits the log holds.
const LOG_COMMITS: usize = 16_384;

/// A durable commit.
#[derive(Debug, PartialEq)]
pub struct Commit {
    /// Its number.
    pub revision: Revision,
    /// What it changed.
    pub changes: Vec<Change>,
}

/// The watcher fell behind the log: commits after its position are gone. Read the state, then watch from its revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watch fell behind the log of commits")]
pub struct Compacted;

pub(crate) struct Log {
    kept: Mutex<Kept>,
    /// Wakes watchers in the order in which they came to wait, the same each time; tokio's `watch` wakes its receivers in an order of chance.
    grown: Notify,
}

struct Kept {
    /// All commits after this one are here.
    after: Revision,
    /// In the order of their revisions.
    commits: VecDeque<Arc<Commit>>,
}

impl Kept {
    /// The place of the first commit after `from`. A watcher that was just woken misses the newest ones, or none: these are looked at first,
    /// since a search by halves reads commits all over the log that no cache holds any more.
    fn first_after(&self, from: Revision) -> usize {
        const NEWEST: usize = 8;
        let behind = self.commits.iter().rev().take(NEWEST + 1).take_while(|commit| commit.revision > from).count();
        if behind <= NEWEST { self.commits.len() - behind } else { self.commits.partition_point(|commit| commit.revision <= from) }
    }
}

impl Log {
    pub(crate) fn new(revision: Revision) -> Self {
        let kept = Mutex::new(Kept { after: revision, commits: VecDeque::new() });
        Self { kept, grown: Notify::new() }
    }

    /// Appends commits that the state shows by now. Also without any: the state may show a later revision all the same.
    pub(crate) fn append(&self, batch: Vec<Arc<Commit>>) {
        {
            let mut kept = self.kept.lock();
            kept.commits.extend(batch);
            let surplus = kept.commits.len().saturating_sub(LOG_COMMITS);
            if let Some(dropped) = surplus.checked_sub(1).and_then(|newest| kept.commits.get(newest)).map(|commit| commit.revision) {
                kept.after = dropped;
                kept.commits.drain(..surplus);
            }
        }
        self.grown.notify_waiters();
    }

    /// What came before a revision was missed: every watcher behind it is told so.
    pub(crate) fn restart(&self, revision: Revision) {
        {
            let mut kept = self.kept.lock();
            kept.commits.clear();
            kept.after = revision;
        }
        self.grown.notify_waiters();
    }

    /// Waits until something holds that changes only with what the state shows.
    pub(crate) async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let mut grown = std::pin::pin!(self.grown.notified());
            // Waits from here on, so that nothing that comes after the look is missed.
            grown.as_mut().enable();
            if holds() {
                return;
            }
            grown.await;
        }
    }

    /// The first commit after `from` that is the one sought.
    pub(crate) fn find(&self, from: Revision, mut is: impl FnMut(&Commit) -> bool) -> Result<Option<Revision>, Compacted> {
        let kept = self.kept.lock();
        if from < kept.after {
            return Err(Compacted);
        }
        Ok(kept.commits.range(kept.first_after(from)..).find(|commit| is(commit)).map(|commit| commit.revision))
    }

    /// Commits after `from`; at most `limit`.
    fn after(&self, from: Revision, limit: usize) -> Result<Vec<Arc<Commit>>, Compacted> {
        let kept = self.kept.lock();
        if from < kept.after {
            return Err(Compacted);
        }
        Ok(kept.commits.range(kept.first_after(from)..).take(limit).cloned().collect())
    }
}

/// A position in the log of commits.
pub struct Watcher {
    shared: Arc<Shared>,
    position: Revision,
}

impl Watcher {
    pub(crate) fn new(shared: Arc<Shared>, from: Revision) -> Self {
        Self { shared, position: from }
    }

    /// The last commit that was given out.
    #[must_use]
    pub const fn position(&self) -> Revision {
        self.position
    }

    /// The commits after the position that are there now; empty if there are none. Moves the position.
    ///
    /// # Errors
    /// [`Compacted`].
    pub fn poll(&mut self) -> Result<Vec<Arc<Commit>>, Compacted> {
        const BATCH: usize = 1_024;
        let batch = self.shared.log.after(self.position, BATCH)?;
        if let Some(last) = batch.last() {
            self.position = last.revision;
        }
        Ok(batch)
    }

    /// Waits until there are commits after the position, and gives them. Cancel-safe. Never returns an empty batch.
    ///
    /// # Errors
    /// [`Compacted`].
    pub async fn next(&mut self) -> Result<Vec<Arc<Commit>>, Compacted> {
        let shared = Arc::clone(&self.shared);
        loop {
            let mut grown = std::pin::pin!(shared.log.grown.notified());
            // Waits from here on, so that nothing that comes after the look is missed.
            grown.as_mut().enable();
            let batch = self.poll()?;
            if !batch.is_empty() {
                return Ok(batch);
            }
            grown.await;
        }
    }

    /// Goes on from another position, after [`Compacted`].
    pub fn resume_from(&mut self, position: Revision) {
        self.position = position;
    }
}
