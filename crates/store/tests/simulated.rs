//! The conformance suite on peers of a simulated etcd, and what only a simulation can show exactly: answers that are lost, leases
//! that end, views that lag. The same code as over a real etcd (`etcd.rs`), but for what carries its calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_model::ids::Family;
use berth_model::record::{Key, Record};
use berth_model::task_definition::FamilyCounter;
use berth_store::conformance::{Kind, run_all};
use berth_store::{CommitError, Fate, Line, SimulatedEtcd, Store, Transaction};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

/// A way whose messages' fates are said by a test; without one they arrive at once.
#[derive(Default)]
struct Told {
    next: Mutex<Vec<Fate>>,
    always: Mutex<Option<Fate>>,
}

impl Line for Told {
    fn fate(&self) -> Fate {
        self.next.lock().pop().or(*self.always.lock()).unwrap_or(Fate::Arrives(Duration::ZERO))
    }
}

struct Peer {
    store: Store,
    line: Arc<Told>,
    work: JoinHandle<()>,
}

async fn join(etcd: &Arc<SimulatedEtcd>) -> Peer {
    let line = Arc::new(Told::default());
    let (store, work) = Store::open_simulated(etcd, etcd.settings(), vec![Arc::clone(&line) as Arc<dyn Line>]).await.unwrap();
    Peer { store, line, work: tokio::spawn(work) }
}

fn etcd() -> Arc<SimulatedEtcd> {
    let etcd = SimulatedEtcd::new(Arc::new(|_| {}));
    tokio::spawn(Arc::clone(&etcd).keep_time());
    etcd
}

fn family(name: &str) -> Family {
    Family::parse(name).unwrap()
}

fn put(name: &str, last_revision: u32) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.put(Record::from(FamilyCounter { family: family(name), last_revision }));
    transaction
}

fn shown(store: &Store, name: &str) -> Option<u32> {
    store.state().family(&family(name)).map(|entry| entry.last_revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_etcd_conforms() {
    let worlds: Mutex<BTreeMap<u32, Arc<SimulatedEtcd>>> = Mutex::default();
    run_all(Kind::Durable, |number| {
        let etcd = Arc::clone(worlds.lock().entry(number).or_insert_with(etcd));
        let opened = join(&etcd);
        let peer = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(opened));
        peer.store
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_found_again() {
    let peer = join(&etcd()).await;
    // There, then back: only the second breaks.
    peer.line.next.lock().extend([Fate::Breaks, Fate::Arrives(Duration::ZERO)]);
    let mut transaction = put("f", 1);
    transaction.expect_absent(Key::Family(family("f")));
    peer.store.commit(transaction).await.expect("it happened once, and is told so");
    assert_eq!(shown(&peer.store, "f"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_which_nothing_is_heard_any_more_is_unknown() {
    let peer = join(&etcd()).await;
    *peer.line.always.lock() = Some(Fate::Vanishes);
    let outcome = peer.store.commit(put("f", 1)).await;
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_peers_one_wins_and_the_other_learns_why() {
    let etcd = etcd();
    let (one, two) = (join(&etcd).await, join(&etcd).await);
    let expecting = |last_revision| {
        let mut transaction = put("f", last_revision);
        transaction.expect_absent(Key::Family(family("f")));
        transaction
    };
    let (first, second) = tokio::join!(one.store.commit(expecting(1)), two.store.commit(expecting(2)));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    assert!(matches!(first.and(second), Err(CommitError::Conflict(_))));
    assert_eq!(shown(&one.store, "f"), shown(&two.store, "f"), "who is refused sees by whom");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_hears_nothing_lags_and_catches_up() {
    let etcd = etcd();
    let (one, two) = (join(&etcd).await, join(&etcd).await);
    *two.line.always.lock() = Some(Fate::Vanishes);
    one.store.commit(put("f", 1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shown(&two.store, "f"), None);
    *two.line.always.lock() = None;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(shown(&two.store, "f"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_dies_another_leads_and_its_place_is_free() {
    let etcd = etcd();
    let (one, two) = (join(&etcd).await, join(&etcd).await);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(one.store.leads() && !two.store.leads());
    assert_eq!(two.store.membership().borrow().living.len(), 2);
    one.work.abort();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(two.store.leads());
    assert_eq!(two.store.membership().borrow().living.len(), 1);
    let three = join(&etcd).await;
    assert_eq!(three.store.membership().borrow().me, 1, "the dead one's number is free again");
    let outcome = one.store.commit(put("f", 1)).await;
    assert!(matches!(outcome, Err(CommitError::Closed)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_to_lead_before_another_does() {
    let etcd = etcd();
    let (one, two) = (join(&etcd).await, join(&etcd).await);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(one.store.leads());
    *one.line.always.lock() = Some(Fate::Vanishes);
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!(one.store.leads() && two.store.leads()), "two lead");
    }
    assert!(two.store.leads());
}

#[tokio::test(start_paused = true)]
async fn the_witness_sees_each_commit_once_and_in_order() {
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let told = Arc::clone(&seen);
    let etcd = SimulatedEtcd::new(Arc::new(move |commit| told.lock().push(commit.revision.0)));
    let (one, two) = (join(&etcd).await, join(&etcd).await);
    let mut revisions = Vec::new();
    for number in 0..20 {
        let store = if number % 2 == 0 { &one.store } else { &two.store };
        revisions.push(store.commit(put("f", number)).await.unwrap().0);
    }
    assert_eq!(*seen.lock(), revisions);
}

/// What another peer touched meanwhile must not be taken for the commit of which nothing was heard.
#[tokio::test(start_paused = true)]
async fn a_commit_that_never_arrived_is_not_found_in_somebody_elses_touch() {
    let etcd = etcd();
    let (one, two) = (join(&etcd).await, join(&etcd).await);
    let first = one.store.commit(put("f", 1)).await.unwrap();
    two.store.commit(put("g", 1)).await.unwrap();
    *one.line.next.lock() = vec![Fate::Vanishes];
    let mut lost = put("f", 2);
    lost.expect(Key::Family(family("f")), first);
    let touched = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut touch = Transaction::new();
        touch.touch(Key::Family(family("f")));
        two.store.commit(touch).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(one.store.commit(lost), touched);
    assert_eq!(outcome, Err(CommitError::Conflict(Key::Family(family("f")))));
    assert_eq!((shown(&one.store, "f"), shown(&two.store, "f")), (Some(1), Some(1)));
}
