//! What every backend must do, as one suite: each check opens a fresh store of the kind under test.
//!
//! `open` gives a store over the same data each time it is called with the same number: that is how a restart is tested.
//! Backends that keep nothing are told apart by [`Kind::Volatile`].

use berth_model::cluster::{Cluster, ClusterStatus};
use berth_model::ids::ClusterName;
use berth_model::record::{Key, Record};
use berth_model::tags::Tags;
use berth_model::time::UnixMillis;

use crate::transaction::{Change, CommitError, Revision, Transaction};
use crate::{Compacted, Store};

/// Does the data outlive the store's handle?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It does.
    Durable,
    /// It does not.
    Volatile,
}

/// Stops what a backend writes to, as a disk does whose sync does not end, and lets it go on.
pub trait SlowDisk {
    /// From here on nothing more becomes durable. Returns when that is so.
    fn hold(&self);
    /// It goes on.
    fn release(&self);
}

/// Commits while the disk stands still: they wait in a bounded queue, what is too much is refused at once, nothing of what waits is
/// shown, and all of it happens in its order once the disk goes on.
///
/// # Panics
/// If the backend does not conform; the message says where.
pub async fn a_slow_disk_holds_commits_back(store: &Store, disk: &impl SlowDisk) {
    /// Far more than any backend lets wait.
    const MANY: i64 = 50_000;
    let before = store.commit(put("a", 0)).await.expect("a commit on a quick disk");
    disk.hold();
    let mut waiting = Vec::new();
    let mut refused = None;
    for at in 1..MANY {
        match store.enqueue(put("a", at)) {
            Ok(outcome) => waiting.push(outcome),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert_eq!(refused, Some(CommitError::Overloaded), "the queue is bounded");
    assert_eq!(shown(store, "a"), Some((0, before, 1)), "reads go on, and show what is durable");
    assert!(store.watch(before).poll().expect("not behind").is_empty(), "nobody is told of what is not durable");
    for outcome in &mut waiting {
        let early = outcome.try_recv();
        assert_eq!(early, Err(tokio::sync::oneshot::error::TryRecvError::Empty), "nothing is acknowledged that is not durable");
    }
    disk.release();
    let (count, mut last) = (waiting.len(), before);
    for outcome in waiting {
        let revision = outcome.await.expect("an outcome").expect("what was taken is written");
        assert!(revision > last, "in the order in which it was queued");
        last = revision;
    }
    let count = i64::try_from(count).expect("some thousands");
    assert_eq!(shown(store, "a").map(|shown| (shown.0, shown.1)), Some((count, last)), "the last one stays");
    assert!(store.commit(put("a", -1)).await.is_ok(), "there is room again");
}

/// Runs all checks. `open(n)` opens the n-th data set.
///
/// # Panics
/// If the backend does not conform; the message says where.
pub async fn run_all(kind: Kind, open: impl Fn(u32) -> Store) {
    commits_are_visible_and_counted(&open(1)).await;
    conditions_hold_or_nothing_happens(&open(2)).await;
    a_batch_sees_its_own_earlier_commits(&open(3)).await;
    the_watch_has_no_gaps(&open(4)).await;
    a_watcher_that_falls_behind_is_told(&open(5)).await;
    deleting_and_touching(&open(6)).await;
    concurrent_conditional_commits_lose_none(&open(7)).await;
    if kind == Kind::Durable {
        a_restart_finds_everything(&open).await;
    }
}

fn cluster(name: &str, at: i64) -> Cluster {
    Cluster {
        name: ClusterName::parse(name).expect("a legal name"),
        status: ClusterStatus::Active,
        created_at: UnixMillis(at),
        tags: Tags::new(),
        settings: Vec::new(),
        configuration: None,
        service_connect_defaults: None,
        capacity_providers: Vec::new(),
        default_capacity_provider_strategy: Vec::new(),
        gateways: Vec::new(),
    }
}

fn key(name: &str) -> Key {
    Key::Cluster(ClusterName::parse(name).expect("a legal name"))
}

fn put(name: &str, at: i64) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.put(cluster(name, at));
    transaction
}

fn shown(store: &Store, name: &str) -> Option<(i64, Revision, u64)> {
    let state = store.state();
    let entry = state.cluster(&ClusterName::parse(name)?)?;
    Some((entry.created_at.0, entry.modified, entry.version))
}

async fn commits_are_visible_and_counted(store: &Store) {
    let first = store.commit(put("a", 1)).await.expect("the first commit");
    let second = store.commit(put("a", 2)).await.expect("the second commit");
    assert!(second > first, "revisions grow");
    assert_eq!(shown(store, "a"), Some((2, second, 2)), "the second write is visible, with its counters");
    assert_eq!(store.commit(Transaction::new()).await, Ok(second), "an empty transaction makes no revision");
}

async fn conditions_hold_or_nothing_happens(store: &Store) {
    let first = store.commit(put("a", 1)).await.expect("a commit");
    let mut stale = put("a", 2);
    stale.put(cluster("b", 2)).expect(key("a"), Revision(first.0 + 7));
    assert_eq!(store.commit(stale).await, Err(CommitError::Conflict(key("a"))));
    assert_eq!((shown(store, "a").map(|s| s.0), shown(store, "b")), (Some(1), None), "a refused commit changes nothing");
    let mut twice = put("a", 3);
    twice.expect_absent(key("a"));
    assert_eq!(store.commit(twice).await, Err(CommitError::Conflict(key("a"))));
    let mut gone = put("b", 3);
    gone.expect(key("b"), first);
    assert_eq!(store.commit(gone).await, Err(CommitError::Conflict(key("b"))), "a record that is not there is not unchanged");
    let mut good = put("b", 4);
    good.expect(key("a"), first).expect_absent(key("b"));
    assert!(store.commit(good).await.is_ok());
}

/// Two conditional commits that wait together may end up in one batch: the second must see the first.
async fn a_batch_sees_its_own_earlier_commits(store: &Store) {
    let mut waiting = Vec::new();
    for at in 0..50 {
        let mut transaction = put("a", at);
        transaction.expect_absent(key("a"));
        waiting.push(store.enqueue(transaction).expect("room in the queue"));
    }
    let mut won = Vec::new();
    for (at, outcome) in (0_i64..).zip(waiting) {
        match outcome.await.expect("an outcome") {
            Ok(_) => won.push(at),
            Err(error) => assert_eq!(error, CommitError::Conflict(key("a"))),
        }
    }
    assert_eq!(won, [0], "exactly the first commit that expects absence wins");
}

async fn the_watch_has_no_gaps(store: &Store) {
    let mut watcher = store.watch(store.state().revision);
    let mut late = store.watch(store.state().revision);
    let writer = store.clone();
    let writes = tokio::spawn(async move {
        for at in 0..200 {
            writer.commit(put(&format!("c{}", at % 7), at)).await.expect("a commit");
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 200 {
        for commit in watcher.next().await.expect("not behind") {
            let [Change::Put(Record::Cluster(cluster))] = &commit.changes[..] else { panic!("one cluster a commit") };
            seen.push((commit.revision.0, cluster.created_at.0));
        }
    }
    writes.await.expect("the writer ends");
    assert!(seen.windows(2).all(|pair| pair[1].0 > pair[0].0), "revisions grow");
    assert!(seen.iter().map(|(_, at)| *at).eq(0..200), "every commit, in order");
    let mut count = 0;
    while count < 200 {
        count += late.poll().expect("not behind").len();
    }
    assert!(late.poll().expect("not behind").is_empty(), "nothing beyond the newest");
}

async fn a_watcher_that_falls_behind_is_told(store: &Store) {
    let mut watcher = store.watch(store.state().revision);
    let mut waiting = std::collections::VecDeque::new();
    for at in 0..20_000 {
        loop {
            // Several records: a backend may take one record's commits only one after another.
            match store.enqueue(put(&format!("c{}", at % 64), at)) {
                Ok(outcome) => break waiting.push_back(outcome),
                Err(CommitError::Overloaded) => {
                    let oldest: tokio::sync::oneshot::Receiver<_> = waiting.pop_front().expect("something waits");
                    oldest.await.expect("an outcome").expect("a commit");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    for outcome in waiting {
        outcome.await.expect("an outcome").expect("a commit");
    }
    assert_eq!(watcher.poll().err(), Some(Compacted));
    watcher.resume_from(store.state().revision);
    assert!(watcher.poll().expect("caught up").is_empty());
}

async fn deleting_and_touching(store: &Store) {
    let first = store.commit(put("a", 1)).await.expect("a commit");
    let mut touch = Transaction::new();
    touch.touch(key("a"));
    let second = store.commit(touch).await.expect("a commit");
    assert_eq!(shown(store, "a"), Some((1, second, 2)), "a touch counts and changes nothing else");
    let mut stale = put("a", 9);
    stale.expect(key("a"), first);
    assert!(matches!(store.commit(stale).await, Err(CommitError::Conflict(_))), "a touch makes older conditions fail");
    let mut delete = Transaction::new();
    delete.delete(key("a")).delete(key("never"));
    store.commit(delete).await.expect("a commit");
    assert_eq!(shown(store, "a"), None);
    let again = store.commit(put("a", 2)).await.expect("a commit");
    assert_eq!(shown(store, "a"), Some((2, again, 1)), "a record made again counts from one");
}

/// Sixteen writers count one record up, each by compare-and-set: no increment may be lost.
async fn concurrent_conditional_commits_lose_none(store: &Store) {
    store.commit(put("n", 0)).await.expect("a commit");
    let mut writers = Vec::new();
    for _ in 0..16 {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            for _ in 0..10 {
                loop {
                    let (value, modified, _) = shown(&store, "n").expect("it is there");
                    let mut transaction = put("n", value + 1);
                    transaction.expect(key("n"), modified);
                    match store.commit(transaction).await {
                        Ok(_) => break,
                        Err(CommitError::Conflict(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer ends");
    }
    assert_eq!(shown(store, "n").map(|s| s.0), Some(160));
}

async fn a_restart_finds_everything(open: &impl Fn(u32) -> Store) {
    let (before, revision) = {
        let store = open(8);
        for at in 0..20 {
            store.commit(put(&format!("c{at}"), at)).await.expect("a commit");
        }
        let mut transaction = put("c3", 33);
        transaction.touch(key("c4")).delete(key("c5"));
        store.commit(transaction).await.expect("a commit");
        let shown: Vec<_> = (0..20).map(|at| shown(&store, &format!("c{at}"))).collect();
        let revision = store.state().revision;
        (shown, revision)
    };
    let store = open(8);
    let after: Vec<_> = (0..20).map(|at| shown(&store, &format!("c{at}"))).collect();
    assert_eq!(before, after, "everything is there with its counters");
    assert!(store.state().revision >= revision, "no revision is given back");
    let next = store.commit(put("next", 0)).await.expect("a commit");
    assert!(next > revision, "revisions go on, none is given twice");
}
