//! Whatever the checkers look for, they find when it is there.

use berth_sim::{Options, Sabotage, simulate};

/// Runs seeds until the sabotage found its occasion and was noticed; every other outcome is none.
fn noticed(sabotage: Sabotage) -> &'static str {
    let (_folder, registry) = berth_sim::registry().unwrap();
    let options = Options { sabotage: Some(sabotage), ..Default::default() };
    let found = (0..10).find_map(|seed| simulate(seed, options, &registry).violation);
    found.map_or("nothing", |violation| violation.property)
}

#[test]
fn a_write_that_is_acknowledged_and_lost() {
    assert_eq!(noticed(Sabotage::LostWrite), "durable");
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
