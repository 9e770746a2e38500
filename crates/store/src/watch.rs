//! The gapless watch: a bounded log of the newest commits that any number of readers follow at their own pace.
//!
//! A reader costs a number. One that falls behind the log is told so and reads the state again. Readers are woken when a commit's
//! [`News`] is dropped, so that whoever commits can answer first: what follows from a commit is no part of it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Shared;
use crate::transaction::{Change, Revision};

/// How many commits the log holds.
const LOG_COMMITS: usize = 16_384;
/// After so many commits every reader is woken, whatever it waits for: so none falls behind only because nothing concerned it.
const WAKE_ALL: usize = LOG_COMMITS / 4;

/// Whether a change concerns a reader; of the change alone. One too many costs a wake-up, one too few leaves the reader asleep.
pub type Concerns = fn(&Change) -> bool;

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
    grown: Arc<Notify>,
    /// Those who wait for some commits only: a task that is woken for nothing costs more than to look here whether it must be.
    choosy: Mutex<Vec<(Concerns, Weak<Notify>)>>,
}

/// Commits that the log has and that nobody was woken for yet; dropping it wakes whoever they concern.
#[derive(Debug, Default)]
#[must_use = "watchers are woken when it is dropped"]
pub struct News(Vec<Arc<Notify>>);

impl Drop for News {
    fn drop(&mut self) {
        self.0.iter().for_each(|bell| bell.notify_waiters());
    }
}

struct Kept {
    /// All commits after this one are here.
    after: Revision,
    /// In the order of their revisions.
    commits: VecDeque<Arc<Commit>>,
    /// Commits since every reader was woken.
    since_all: usize,
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
        let kept = Kept { after: revision, commits: VecDeque::new(), since_all: 0 };
        Self { kept: Mutex::new(kept), grown: Arc::default(), choosy: Mutex::default() }
    }

    /// Appends commits that the state shows by now. Also without any: the state may show a later revision all the same.
    pub(crate) fn append(&self, batch: Vec<Arc<Commit>>) -> News {
        let wakes_all = {
            let mut kept = self.kept.lock();
            kept.since_all += batch.len();
            let wakes_all = kept.since_all >= WAKE_ALL;
            if wakes_all {
                kept.since_all = 0;
            }
            kept.commits.extend(batch.iter().cloned());
            let surplus = kept.commits.len().saturating_sub(LOG_COMMITS);
            if let Some(dropped) = surplus.checked_sub(1).and_then(|newest| kept.commits.get(newest)).map(|commit| commit.revision) {
                kept.after = dropped;
                kept.commits.drain(..surplus);
            }
            wakes_all
        };
        // Looked up after the commits are there: who comes to wait from now on finds them.
        let concerned = |concerns: Concerns| wakes_all || batch.iter().flat_map(|commit| &commit.changes).any(concerns);
        self.news(concerned)
    }

    fn news(&self, concerned: impl Fn(Concerns) -> bool) -> News {
        let mut bells = vec![Arc::clone(&self.grown)];
        self.choosy.lock().retain(|(concerns, bell)| {
            let Some(bell) = bell.upgrade() else { return false };
            if concerned(*concerns) {
                bells.push(bell);
            }
            true
        });
        News(bells)
    }

    /// What came before a revision was missed: every watcher behind it is told so.
    pub(crate) fn restart(&self, revision: Revision) {
        {
            let mut kept = self.kept.lock();
            kept.commits.clear();
            kept.after = revision;
        }
        drop(self.news(|_| true));
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
    bell: Arc<Notify>,
    concerns: Option<Concerns>,
}

impl Watcher {
    pub(crate) fn new(shared: Arc<Shared>, from: Revision) -> Self {
        let bell = Arc::clone(&shared.log.grown);
        Self { shared, position: from, bell, concerns: None }
    }

    pub(crate) fn choosy(shared: Arc<Shared>, from: Revision, concerns: Concerns) -> Self {
        let bell = Arc::default();
        shared.log.choosy.lock().push((concerns, Arc::downgrade(&bell)));
        Self { shared, position: from, bell, concerns: Some(concerns) }
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

    /// Waits until there are commits after the position that concern it, and gives them with those between. Cancel-safe. Never returns an
    /// empty batch.
    ///
    /// # Errors
    /// [`Compacted`].
    pub async fn next(&mut self) -> Result<Vec<Arc<Commit>>, Compacted> {
        let bell = Arc::clone(&self.bell);
        loop {
            let mut grown = std::pin::pin!(bell.notified());
            // Waits from here on, so that nothing that comes after the look is missed.
            grown.as_mut().enable();
            let batch = self.poll()?;
            if self.is_concerned(&batch) {
                return Ok(batch);
            }
            if batch.is_empty() {
                grown.await;
            }
        }
    }

    fn is_concerned(&self, batch: &[Arc<Commit>]) -> bool {
        let mut changes = batch.iter().flat_map(|commit| &commit.changes);
        self.concerns.map_or(!batch.is_empty(), |concerns| changes.any(concerns))
    }

    /// Goes on from another position, after [`Compacted`].
    pub fn resume_from(&mut self, position: Revision) {
        self.position = position;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use berth_model::ids::ClusterName;
    use berth_model::record::Key;

    use super::*;
    use crate::backend::Memory;
    use crate::{Store, Transaction};

    /// A commit about a cluster; there need be none.
    fn about(name: &str) -> Transaction {
        let mut transaction = Transaction::new();
        transaction.delete(Key::Cluster(ClusterName::parse(name).unwrap()));
        transaction
    }

    fn is_wanted(change: &Change) -> bool {
        matches!(change, Change::Delete(Key::Cluster(name)) if name.as_str() == "wanted")
    }

    /// Whether a task that waits so would be woken, and the wait over: it is polled again only where its waker was called.
    struct Waiting<F> {
        wait: F,
        woken: Arc<Woken>,
    }

    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    impl<F: Future> Waiting<Pin<&mut F>> {
        fn new(wait: Pin<&mut F>) -> Waiting<Pin<&mut F>> {
            Waiting { wait, woken: Arc::new(Woken(true.into())) }
        }

        fn look(&mut self) -> Option<F::Output> {
            if !self.woken.0.swap(false, std::sync::atomic::Ordering::Relaxed) {
                return None;
            }
            let waker = Arc::clone(&self.woken).into();
            match self.wait.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            }
        }

        fn was_woken(&self) -> bool {
            self.woken.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_choosy_watcher_sleeps_through_what_does_not_concern_it() {
        let store = Store::open_inline(Memory).unwrap();
        let mut watcher = store.watch_for(store.state().revision, is_wanted);
        let mut wait = pin!(watcher.next());
        let mut waiting = Waiting::new(wait.as_mut());
        assert!(waiting.look().is_none());
        for _ in 0..10 {
            store.commit(about("other")).await.unwrap();
        }
        assert!(!waiting.was_woken());
        let wanted = store.commit(about("wanted")).await.unwrap();
        let commits = waiting.look().expect("it is told").unwrap();
        assert_eq!(commits.last().map(|commit| commit.revision), Some(wanted));
    }

    #[tokio::test]
    async fn a_choosy_watcher_does_not_fall_behind_because_nothing_concerns_it() {
        let store = Store::open_inline(Memory).unwrap();
        let mut watcher = store.watch_for(store.state().revision, is_wanted);
        let mut wait = pin!(watcher.next());
        let mut waiting = Waiting::new(wait.as_mut());
        assert!(waiting.look().is_none());
        for _ in 0..2 * LOG_COMMITS {
            store.commit(about("other")).await.unwrap();
            assert!(waiting.look().is_none());
        }
        store.commit(about("wanted")).await.unwrap();
        assert!(waiting.look().expect("it is told").is_ok());
    }

    #[tokio::test]
    async fn who_watches_is_woken_by_the_news_and_sees_the_commit_before() {
        let store = Store::open_inline(Memory).unwrap();
        let mut early = store.watch(store.state().revision);
        let mut watcher = store.watch(store.state().revision);
        let mut wait = pin!(watcher.next());
        let mut waiting = Waiting::new(wait.as_mut());
        assert!(waiting.look().is_none());
        let (outcome, news) = store.commit_with_news(about("any")).await;
        assert!(!waiting.was_woken());
        assert_eq!(early.poll().unwrap().last().map(|commit| commit.revision), outcome.ok());
        drop(news);
        assert!(waiting.look().is_some());
    }
}
