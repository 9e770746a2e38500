//! What placement promises, rule by rule.

mod fleet;

use std::collections::BTreeSet;

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus, DEFAULT_INTERFACES, INTERFACES};
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::needs::Demand;
use berth_scheduler::placement::{Constraint, Index, PlaceRequest, Placement, Rule, Strategy};
use fleet::instance;

fn index(instances: &[ContainerInstance]) -> Index {
    let mut index = Index::default();
    for instance in instances {
        index.apply_instance(instance);
    }
    index
}

fn place(index: &mut Index, first: u128, count: u128, demand: &Demand, constraints: &[Constraint], strategies: &[Strategy]) -> Placement {
    let tasks: Vec<_> = (first..first + count).map(TaskId).collect();
    let attributes = BTreeSet::from(["cap".to_owned()]);
    index.place(&PlaceRequest {
        tasks: &tasks,
        demand,
        attributes: &attributes,
        group: "g",
        constraints,
        capacity_provider: None,
        strategies,
        seed: 7,
    })
}

fn on(placement: &Placement) -> Vec<u128> {
    placement.placed.iter().map(|(_, instance)| instance.0).collect()
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let mut index = index(&[instance(1, 100, 100, "a")]);
    let demand = Demand { cpu: 60, memory: 10, ..Default::default() };
    let placement = place(&mut index, 1, 2, &demand, &[], &[]);
    assert_eq!(on(&placement), [1]);
    assert_eq!(placement.refusals[0].rule, Rule::Cpu { wanted: 60, free: 40 });
    index.release(TaskId(1));
    assert_eq!(on(&place(&mut index, 3, 1, &demand, &[], &[])), [1]);
}

#[test]
fn ports_of_tasks_and_of_the_machine_are_taken_once() {
    let mut index = index(&[instance(1, 1000, 1000, "a"), instance(2, 1000, 1000, "a")]);
    let demand = Demand { ports_tcp: vec![8080], ..Default::default() };
    let placement = place(&mut index, 1, 3, &demand, &[], &[]);
    assert_eq!(placement.placed.len(), 2);
    assert_eq!(placement.refusals[0].rule.reason(), "RESOURCE:PORTS");
    let own = Demand { ports_tcp: vec![22], ..Default::default() };
    assert_eq!(place(&mut index, 9, 1, &own, &[], &[]).refusals[0].rule, Rule::Port(22));
}

#[test]
fn agents_that_are_away_and_missing_capabilities_refuse() {
    let mut away = instance(1, 100, 100, "a");
    away.agent_connected = false;
    let mut poor = instance(2, 100, 100, "a");
    poor.attributes.remove("cap");
    let mut draining = instance(3, 100, 100, "a");
    draining.status = ContainerInstanceStatus::Draining;
    let placement = place(&mut index(&[away, poor, draining]), 1, 1, &Demand::default(), &[], &[]);
    let reasons: Vec<_> = placement.refusals.iter().map(|r| r.rule.reason()).collect();
    assert_eq!(reasons, ["AGENT", "ATTRIBUTE", "INACTIVE"]);
}

#[test]
fn services_spread_over_zones_then_instances() {
    let fleet = [instance(1, 1000, 1000, "a"), instance(2, 1000, 1000, "a"), instance(3, 1000, 1000, "b")];
    let placement = place(&mut index(&fleet), 1, 4, &Demand::default(), &[], &Strategy::service_default());
    let mut zones = [0, 0];
    for instance in on(&placement) {
        zones[usize::from(instance == 3)] += 1;
    }
    assert_eq!(zones, [2, 2]);
}

#[test]
fn binpack_fills_the_fullest() {
    let fleet = [instance(1, 1000, 1000, "a"), instance(2, 1000, 500, "a")];
    let demand = Demand { memory: 200, ..Default::default() };
    let placement = place(&mut index(&fleet), 1, 3, &demand, &[], &[Strategy::BinpackMemory]);
    assert_eq!(on(&placement), [2, 2, 1]);
}

#[test]
fn distinct_instances_take_one_each() {
    let fleet = [instance(1, 1000, 1000, "a"), instance(2, 1000, 1000, "a")];
    let placement = place(&mut index(&fleet), 1, 3, &Demand::default(), &[Constraint::DistinctInstance], &[]);
    assert_eq!(placement.placed.len(), 2);
    assert_eq!(placement.refusals[0].rule, Rule::DistinctInstance);
}

/// Whatever comes and goes, what is drawn is one of those that are there and fit, and all of them come up.
#[test]
fn random_placement_finds_every_instance_that_fits() {
    let fleet: Vec<_> = (1..=40).map(|id| instance(id, if id % 4 == 0 { 1000 } else { 1 }, 1000, "a")).collect();
    let mut index = index(&fleet);
    for gone in [4, 7, 40, 1] {
        index.remove_instance(ContainerInstanceId(gone));
    }
    index.apply_instance(&instance(41, 1000, 1000, "a"));
    let demand = Demand { cpu: 2, ..Default::default() };
    let drawn: BTreeSet<_> = on(&place(&mut index, 1, 400, &demand, &[], &[])).into_iter().collect();
    assert_eq!(drawn, BTreeSet::from([8, 12, 16, 20, 24, 28, 32, 36, 41]));
}

/// One that fits among very many is found by looking at all.
#[test]
fn random_placement_finds_the_only_one() {
    let fleet: Vec<_> = (1..=5_000).map(|id| instance(id, if id == 4_321 { 10 } else { 1 }, 1000, "a")).collect();
    let demand = Demand { cpu: 5, ..Default::default() };
    assert_eq!(on(&place(&mut index(&fleet), 1, 3, &demand, &[], &[])), [4_321, 4_321]);
}

#[test]
fn releasing_twice_gives_back_once() {
    let mut index = index(&[instance(1, 100, 100, "a")]);
    let demand = Demand { cpu: 60, ..Default::default() };
    place(&mut index, 1, 1, &demand, &[], &[]);
    index.release(TaskId(1));
    index.release(TaskId(1));
    assert_eq!(place(&mut index, 2, 2, &demand, &[], &[]).placed.len(), 1);
}

#[test]
fn gpus_of_tasks_that_end_while_their_instance_is_away_are_free_when_it_is_back() {
    let mut one = instance(1, 100, 100, "a");
    one.registered.gpus = ["GPU-0".to_owned(), "GPU-1".to_owned()].into();
    let mut index = index(std::slice::from_ref(&one));
    // Another task keeps what is known of the instance.
    assert_eq!(on(&place(&mut index, 1, 1, &Demand { cpu: 1, ..Default::default() }, &[], &[])), [1]);
    assert_eq!(on(&place(&mut index, 2, 1, &Demand { gpus: 1, ..Default::default() }, &[], &[])), [1]);
    index.remove_instance(one.id);
    index.release(TaskId(2));
    index.apply_instance(&one);
    assert_eq!(on(&place(&mut index, 3, 1, &Demand { gpus: 2, ..Default::default() }, &[], &[])), [1]);
    assert_eq!(index.gpus_of(TaskId(3)), ["GPU-0", "GPU-1"]);
}

#[test]
fn an_instance_takes_as_many_interfaces_as_it_says_and_what_it_says_later_counts() {
    let says = |count: &str| {
        let mut one = instance(1, 100, 100, "a");
        one.attributes.insert(INTERFACES.to_owned(), Some(count.to_owned()));
        one
    };
    let mut index = index(&[says("2")]);
    let (with, without) = (Demand { interfaces: 1, ..Default::default() }, Demand::default());
    let placement = place(&mut index, 1, 3, &with, &[], &[]);
    assert_eq!(on(&placement), [1, 1]);
    assert_eq!(placement.refusals[0].rule, Rule::Interfaces { wanted: 1, free: 0 });
    assert_eq!(placement.refusals[0].rule.reason(), "RESOURCE:ENI");
    assert_eq!(on(&place(&mut index, 4, 1, &without, &[], &[])), [1], "a task without one takes none");
    index.apply_instance(&says("3"));
    assert_eq!(on(&place(&mut index, 5, 2, &with, &[], &[])), [1], "one more");
    index.apply_instance(&says("1"));
    index.release(TaskId(1));
    assert!(on(&place(&mut index, 7, 1, &with, &[], &[])).is_empty(), "two are more than it holds now");
    index.release(TaskId(2));
    index.release(TaskId(5));
    assert_eq!(on(&place(&mut index, 8, 2, &with, &[], &[])), [1]);
    // One that does not say holds many.
    index.apply_instance(&instance(1, 100, 100, "a"));
    let count = u128::from(DEFAULT_INTERFACES);
    assert_eq!(place(&mut index, 1_000, count + 10, &with, &[], &[]).placed.len() as u128, count - 1);
}
