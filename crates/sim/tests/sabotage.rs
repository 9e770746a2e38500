//! Whatever the checkers look for, they find when it is there.

use std::sync::Arc;

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::ids::{ClusterName, ContainerInstanceId, Family};
use berth_model::record::{Key, Record};
use berth_model::task_definition::FamilyCounter;
use berth_model::time::UnixMillis;
use berth_sim::checker::Checker;
use berth_sim::trace::Trace;
use berth_sim::{HomeKind, Options, Sabotage, simulate};
use berth_store::{Change, Commit, Memory, Revision, Store, Transaction};

/// Runs seeds until the sabotage found its occasion and was noticed; every other outcome is none.
fn noticed(sabotage: Sabotage) -> &'static str {
    noticed_at(sabotage, None)
}

fn noticed_at(sabotage: Sabotage, home: Option<HomeKind>) -> &'static str {
    let (_folder, registry) = berth_sim::registry().unwrap();
    let options = Options { sabotage: Some(sabotage), home, ..Default::default() };
    let found = (0..10).find_map(|seed| simulate(seed, options, &registry).violation);
    found.map_or("nothing", |violation| violation.property)
}

#[test]
fn a_write_that_is_acknowledged_and_lost() {
    assert_eq!(noticed_at(Sabotage::LostWrite, Some(HomeKind::Disk)), "durable");
}

#[test]
fn a_container_that_is_started_twice() {
    assert_eq!(noticed(Sabotage::DoubleStart), "no task doubled");
}

#[test]
fn a_status_that_goes_back() {
    assert_eq!(noticed(Sabotage::StatusBack), "status");
}

#[test]
fn resources_given_away_twice() {
    assert_eq!(noticed(Sabotage::DoubleBooking), "no double booking");
}

#[test]
fn an_event_that_is_not_so() {
    assert_eq!(noticed(Sabotage::FalseEvent), "true events");
}

#[test]
fn a_task_that_vanishes() {
    assert_eq!(noticed(Sabotage::LostTask), "acknowledged");
}

#[test]
fn a_client_token_that_gives_two_sets() {
    assert_eq!(noticed(Sabotage::TokenTwice), "client token");
}

#[test]
fn a_container_that_nobody_knows_of() {
    assert_eq!(noticed(Sabotage::Stray), "settles");
}

#[test]
fn a_start_that_no_event_tells_of() {
    assert_eq!(noticed(Sabotage::Silence), "true events");
}

#[test]
fn a_server_that_fails_without_a_reason() {
    assert_eq!(noticed(Sabotage::Failure), "answers");
}

#[test]
fn a_machine_that_burned_down_and_counts_as_connected() {
    assert_eq!(noticed_at(Sabotage::Ghost, Some(HomeKind::Disk)), "connectivity");
    assert_eq!(noticed_at(Sabotage::Ghost, Some(HomeKind::Etcd(3))), "connectivity");
}

#[test]
fn a_server_that_was_killed_and_still_writes() {
    assert_eq!(noticed_at(Sabotage::Undead, Some(HomeKind::Disk)), "stop");
    assert_eq!(noticed_at(Sabotage::Undead, Some(HomeKind::Etcd(2))), "stop");
}

#[test]
fn a_status_that_goes_back_among_several_servers() {
    assert_eq!(noticed_at(Sabotage::StatusBack, Some(HomeKind::Etcd(2))), "status");
}

fn judge() -> Arc<Checker> {
    Checker::new(Trace::new(tokio::time::Instant::now(), false), true, false)
}

fn counter(last_revision: u32) -> Record {
    Record::from(FamilyCounter { family: Family::parse("f").unwrap(), last_revision })
}

fn put(revision: u64) -> Commit {
    Commit { revision: Revision(revision), changes: vec![Change::Put(counter(1))] }
}

#[test]
fn a_server_whose_watch_skips_or_makes_up_a_commit() {
    let judge = judge();
    [3, 5, 9].into_iter().for_each(|revision| judge.commit(&put(revision)));
    assert_eq!(judge.is_next(0, 0, &put(3)), Ok(()));
    assert_eq!(judge.is_next(0, 5, &put(9)), Ok(()), "not every revision is a commit of records");
    assert_eq!(judge.is_next(0, 3, &put(9)).unwrap_err().0, "gapless watch", "5 was skipped");
    assert_eq!(judge.is_next(0, 5, &put(7)).unwrap_err().0, "gapless watch", "7 never was");
    let other = Commit { revision: Revision(9), changes: vec![Change::Delete(Key::Family(Family::parse("f").unwrap()))] };
    assert_eq!(judge.is_next(0, 5, &Commit { revision: Revision(9), changes: Vec::new() }).unwrap_err().0, "gapless watch");
    assert_eq!(judge.is_next(0, 3, &other).unwrap_err().0, "gapless watch");
    judge.commit(&put(9));
    assert_eq!(judge.verdict().map(|violation| violation.property), Some("gapless watch"), "one revision is given once");
}

#[tokio::test]
async fn a_server_that_does_not_have_what_there_is() {
    let instance = ContainerInstance {
        id: ContainerInstanceId(1),
        cluster: ClusterName::parse("c").unwrap(),
        ec2_instance_id: None,
        private_address: None,
        status: ContainerInstanceStatus::Active,
        status_reason: None,
        agent_connected: false,
        connection: 0,
        away: None,
        registered: Default::default(),
        attributes: Default::default(),
        registered_at: UnixMillis(0),
        agent: Default::default(),
        tags: Default::default(),
    };
    let judge = judge();
    judge.commit(&Commit { revision: Revision(2), changes: vec![Change::Put(Record::from(instance))] });
    let store = Store::open_inline(Memory).unwrap();
    let commit = async |record: Record| {
        let mut transaction = Transaction::new();
        transaction.put(record);
        store.commit(transaction).await.unwrap();
    };
    commit(counter(1)).await;
    assert!(!judge.compare(&store.state()), "it does not know all yet, and nothing is held against it");
    assert_eq!(judge.verdict(), None);
    commit(counter(2)).await;
    assert!(judge.compare(&store.state()));
    assert_eq!(judge.verdict().map(|violation| violation.property), Some("peers agree"));
}
