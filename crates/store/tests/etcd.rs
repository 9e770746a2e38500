//! The conformance suite on etcd, and what only several peers and a store that can be away can show.

mod servers;

use std::time::Duration;

use berth_model::ids::Family;
use berth_model::record::{Key, Record};
use berth_model::task_definition::FamilyCounter;
use berth_store::conformance::{Kind, SlowDisk, a_slow_disk_holds_commits_back, run_all};
use berth_store::{Change, CommitError, EtcdSettings, Revision, Store, Transaction, Watcher};

use servers::{Cluster, Wire, settings};

/// No test judges speed: this only ends a test that would wait for ever.
const PATIENCE: Duration = Duration::from_secs(60);

fn family(name: &str) -> Family {
    Family::parse(name).unwrap()
}

fn put(name: &str, last_revision: u32) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.put(FamilyCounter { family: family(name), last_revision });
    transaction
}

fn shown(store: &Store, name: &str) -> Option<(u32, Revision, u64)> {
    let state = store.state();
    state.family(&family(name)).map(|entry| (entry.last_revision, entry.modified, entry.version))
}

/// Waits until a check gives something true.
async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"));
}

/// The counters that the next commits put, until there are `count`.
async fn puts(watcher: &mut Watcher, count: usize) -> Vec<u32> {
    let mut seen = Vec::new();
    while seen.len() < count {
        for commit in tokio::time::timeout(PATIENCE, watcher.next()).await.expect("commits come").expect("not behind") {
            seen.extend(commit.changes.iter().filter_map(|change| match change {
                Change::Put(Record::Family(counter)) => Some(counter.last_revision),
                _ => None,
            }));
        }
    }
    seen
}

async fn commit_after_retries(store: &Store, name: &str, value: u32) -> Revision {
    let wait = async {
        loop {
            match store.commit(put(name, value)).await {
                Ok(revision) => return revision,
                Err(CommitError::Backend(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("etcd is back")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_conforms() {
    let Some(cluster) = Cluster::start(1) else { return };
    run_all(Kind::Durable, |number| cluster.open(&format!("suite/{number}"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_see_each_others_commits_and_lose_none() {
    let Some(cluster) = Cluster::start(1) else { return };
    let (one, other) = (cluster.open("p"), cluster.open("p"));
    let stranger = cluster.open("q");
    let revision = one.commit(put("n", 0)).await.unwrap();
    until("the other peer to see it", || shown(&other, "n") == Some((0, revision, 1))).await;
    // Counting up by compare-and-set, and putting without any condition, on both peers at once.
    let mut writers = Vec::new();
    for number in 0..8_u32 {
        let store = if number % 2 == 0 { one.clone() } else { other.clone() };
        writers.push(tokio::spawn(async move {
            for _ in 0..20 {
                loop {
                    let (value, modified, _) = shown(&store, "n").unwrap();
                    let mut transaction = put("n", value + 1);
                    transaction.expect(Key::Family(family("n")), modified);
                    match store.commit(transaction).await {
                        Ok(revision) => {
                            assert!(shown(&store, "n").unwrap().1 >= revision, "a peer shows what it has committed");
                            break;
                        }
                        Err(CommitError::Conflict(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                store.commit(put("blind", number)).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    // Each peer is told of the other's commits in its own time, of "n" and of "blind" in one commit after the other.
    let shows_all =
        |store: &Store| shown(store, "n").is_some_and(|n| n.0 == 160) && shown(store, "blind").is_some_and(|blind| blind.2 >= 160);
    until("both to show all", || shows_all(&one) && shows_all(&other)).await;
    assert_eq!(shown(&one, "blind").unwrap().2, 160, "every put without condition happened, once");
    assert_eq!(stranger.state().families().count(), 0, "another prefix is another store");
    assert!(shown(&one, "n").unwrap().2 == 161, "and so did every conditional one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_told_when_the_state_shows_it() {
    let Some(cluster) = Cluster::start(1) else { return };
    let (one, other) = (cluster.open("p"), cluster.open("p"));
    for value in 0..50 {
        let before = shown(&other, "n").map(|n| n.1);
        let revision = one.commit(put("n", value)).await.unwrap();
        let mut stale = put("n", 1_000);
        match before {
            Some(modified) => stale.expect(Key::Family(family("n")), modified),
            None => stale.expect_absent(Key::Family(family("n"))),
        };
        assert_eq!(other.commit(stale).await, Err(CommitError::Conflict(Key::Family(family("n")))));
        assert_eq!(shown(&other, "n").unwrap().1, revision, "whoever is told of a conflict reads fresh state");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_would_not_take_is_refused_clearly() {
    let Some(cluster) = Cluster::start(1) else { return };
    let store = cluster.open("p");
    let many = |count: usize| {
        let mut transaction = Transaction::new();
        for number in 0..count {
            transaction.put(FamilyCounter { family: family(&format!("f{number}")), last_revision: 1 });
        }
        transaction
    };
    store.commit(many(store.max_changes())).await.unwrap();
    let refused = store.commit(many(200)).await;
    assert!(matches!(&refused, Err(CommitError::Backend(why)) if why.contains("200 changes") && why.contains("128")), "{refused:?}");
    // A record written, touched and removed within one transaction, one touched that is not there.
    let mut twice = put("x", 1);
    twice.put(FamilyCounter { family: family("x"), last_revision: 2 }).touch(Key::Family(family("x"))).touch(Key::Family(family("none")));
    twice.put(FamilyCounter { family: family("y"), last_revision: 2 }).delete(Key::Family(family("y")));
    store.commit(twice).await.unwrap();
    assert_eq!((shown(&store, "x").unwrap().0, shown(&store, "y")), (2, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_goes_on_after_etcd_restarts() {
    let Some(mut cluster) = Cluster::start(1) else { return };
    let (one, other) = (cluster.open("p"), cluster.open("p"));
    let mut watcher = other.watch(other.state().revision);
    for value in 0..20 {
        one.commit(put("n", value)).await.unwrap();
    }
    cluster.kill(0);
    cluster.revive(0);
    for value in 20..40 {
        commit_after_retries(&one, "n", value).await;
    }
    assert_eq!(puts(&mut watcher, 40).await, (0..40).collect::<Vec<_>>(), "no gap, nothing twice");
    until("somebody to lead", || [&one, &other].iter().filter(|store| store.leads()).count() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_etcd_fails_in_bounded_time_and_changes_nothing() {
    let Some(mut cluster) = Cluster::start(1) else { return };
    let store = cluster.open("p");
    let before = store.commit(put("n", 1)).await.unwrap();
    cluster.kill(0);
    // The first may meet the connection as it breaks; what is sent after that cannot have arrived.
    until("the loss to be noticed", || !store.leads()).await;
    let mut waiting = Vec::new();
    for value in 2..200 {
        waiting.push(store.enqueue(put("n", value)).unwrap());
    }
    for outcome in waiting {
        let outcome = tokio::time::timeout(PATIENCE, outcome).await.expect("an answer in bounded time").unwrap();
        assert!(matches!(outcome, Err(CommitError::Backend(_))), "{outcome:?}");
    }
    assert_eq!(shown(&store, "n"), Some((1, before, 1)), "reads go on, and show what was durable");
    cluster.revive(0);
    let after = commit_after_retries(&store, "m", 1).await;
    assert!(after > before);
    assert_eq!(shown(&store, "n"), Some((1, before, 1)), "nothing of what was refused came later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_out() {
    let Some(cluster) = Cluster::start(1) else { return };
    let wire = Wire::to(cluster.endpoint(0)).await;
    let (near, far) = (cluster.open("p"), Store::open_etcd(settings(&wire.address.to_string(), "p")).unwrap());
    for round in 0..3_u32 {
        let name = format!("n{round}");
        wire.lose_answers();
        let lost = far.enqueue(put(&name, round)).unwrap();
        // It has happened; the peer that asked for it does not know.
        until("etcd to have it", || shown(&near, &name).is_some()).await;
        let (_, happened, _) = shown(&near, &name).unwrap();
        // In the second round somebody else changes the record before the peer can ask again.
        if round == 1 {
            near.commit(put(&name, 100)).await.unwrap();
        }
        wire.mend();
        let outcome = tokio::time::timeout(PATIENCE, lost).await.expect("an answer").unwrap();
        assert_eq!(outcome, Ok(happened), "round {round}");
        let now = shown(&near, &name).unwrap();
        assert_eq!((now.0, now.2), if round == 1 { (100, 2) } else { (round, 1) }, "it happened once");
    }
    // The same with a rival: the answer that is lost is a refusal.
    let seen = shown(&far, "n0").unwrap().1;
    near.commit(put("n0", 7)).await.unwrap();
    wire.lose_answers();
    let mut stale = put("n0", 8);
    stale.expect(Key::Family(family("n0")), seen);
    let lost = far.enqueue(stale).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    wire.mend();
    let outcome = tokio::time::timeout(PATIENCE, lost).await.expect("an answer").unwrap();
    assert_eq!(outcome, Err(CommitError::Conflict(Key::Family(family("n0")))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_compacted_under_a_sleeping_peer_is_told_to_its_watchers() {
    let Some(cluster) = Cluster::start(1) else { return };
    let wire = Wire::to(cluster.endpoint(0)).await;
    let near =
        Store::open_etcd(EtcdSettings { keep_revisions: 10, compact_every: Duration::from_millis(50), ..cluster.settings("p") }).unwrap();
    until("the near peer to lead", || near.leads()).await;
    let far = Store::open_etcd(settings(&wire.address.to_string(), "p")).unwrap();
    near.commit(put("kept", 1)).await.unwrap();
    let gone = near.commit(put("gone", 1)).await.unwrap();
    until("the far peer to see them", || shown(&far, "gone").is_some()).await;
    let kept = shown(&far, "kept");
    let mut watcher = far.watch(gone);
    wire.cut();
    let mut delete = Transaction::new();
    delete.delete(Key::Family(family("gone")));
    near.commit(delete).await.unwrap();
    for value in 0..100 {
        near.commit(put("n", value)).await.unwrap();
    }
    // Several rounds of compaction have passed when the near peer has slept a while; what is awaited below does not depend on it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    wire.mend();
    assert!(tokio::time::timeout(PATIENCE, watcher.next()).await.expect("the watcher hears of it").is_err(), "it missed something");
    assert_eq!((shown(&far, "kept"), shown(&far, "gone")), (kept, None), "what was removed meanwhile is gone, the rest is there");
    assert_eq!(shown(&far, "n"), shown(&near, "n"));
    watcher.resume_from(far.state().revision);
    near.commit(put("n", 100)).await.unwrap();
    assert_eq!(puts(&mut watcher, 1).await, [100], "and the watch goes on from there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_member_of_three_loses_nothing() {
    let Some(mut cluster) = Cluster::start(3) else { return };
    let (one, other) = (cluster.open("p"), cluster.open("p"));
    let mut watcher = other.watch(other.state().revision);
    for member in 0..3 {
        for value in 0..20 {
            if value == 10 {
                cluster.kill(member);
            }
            // One of the three is etcd's leader; its loss costs an election, no commit.
            let store = if value % 2 == 0 { &one } else { &other };
            let number = u32::try_from(member).unwrap() * 20 + value;
            store.commit(put("n", number)).await.unwrap_or_else(|error| panic!("member {member}, commit {value}: {error}"));
        }
        cluster.revive(member);
        // The next is only killed when this one can stand in for it.
        let back = format!("{}", cluster.endpoint(member));
        let joined = tokio::task::spawn_blocking(move || Store::open_etcd(settings(&back, "other")));
        joined.await.unwrap().unwrap();
    }
    assert_eq!(puts(&mut watcher, 60).await, (0..60).collect::<Vec<_>>(), "every commit once, in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_leads_and_another_follows_it() {
    let Some(cluster) = Cluster::start(1) else { return };
    let one = cluster.open("p");
    until("the first to lead", || one.leads()).await;
    let wire = Wire::to(cluster.endpoint(0)).await;
    let two = Store::open_etcd(settings(&wire.address.to_string(), "p")).unwrap();
    let three = cluster.open("p");
    assert!(!two.leads() && !three.leads());
    assert_eq!(one.agree("secret", b"first".to_vec()).await.unwrap(), b"first");
    assert_eq!(two.agree("secret", b"second".to_vec()).await.unwrap(), b"first", "all peers agree on what came first");
    let numbers: Vec<_> = [&one, &two, &three].iter().map(|store| store.membership().borrow().me).collect();
    assert_eq!(numbers, [1, 2, 3]);
    until("the first to know all", || one.membership().borrow().living.len() == 3).await;

    // A clean end: at once, without waiting for the lease to run out.
    one.leave().await;
    assert!(!one.leads(), "who left does not lead");
    until("another to lead", || two.leads() || three.leads()).await;
    until("the first to be forgotten", || !three.membership().borrow().living.contains(&1)).await;
    one.commit(put("n", 1)).await.unwrap();
    three.leave().await;
    until("the second to lead", || two.leads()).await;
    drop(three);

    // Cut off, it stops to lead by its own clock, and others find it dead; when it is back it is one of them again.
    let four = cluster.open("p");
    wire.cut();
    until("the one cut off to stop", || !two.leads()).await;
    until("the other to lead", || four.leads()).await;
    until("the one cut off to be found dead", || !four.membership().borrow().living.contains(&2)).await;
    wire.mend();
    until("it to be back", || four.membership().borrow().living.contains(&2)).await;
    until("it to know", || two.membership().borrow().living.len() == 2).await;
    assert!(four.leads() && !two.leads());
}

/// A member of etcd that stands still, as one does whose disk does.
struct Stopped<'a>(&'a Cluster);

impl SlowDisk for Stopped<'_> {
    fn hold(&self) {
        self.0.pause(0);
    }

    fn release(&self) {
        self.0.resume(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_holds_commits_back() {
    let Some(cluster) = Cluster::start(1) else { return };
    a_slow_disk_holds_commits_back(&cluster.open("slow"), &Stopped(&cluster)).await;
}
