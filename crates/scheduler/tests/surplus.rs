//! Which tasks a scale-in stops: the mirror of how they are placed.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use std::collections::BTreeMap;

use berth_model::ids::{ContainerInstanceId, DeploymentId, TaskId};
use berth_model::task::TaskStatus;
use berth_model::time::UnixMillis;
use berth_scheduler::placement::{SpreadField, Strategy};
use berth_scheduler::service::{Machine, ServiceView, TaskView, plan};
use world::{HEALTHY_AFTER, service};

/// Machines by number: zone, rack, free CPU units, free MiB.
const MACHINES: [(&str, &str, u32, u32); 4] = [("a", "r1", 10, 900), ("a", "r2", 500, 50), ("b", "r1", 300, 300), ("b", "r2", 20, 20)];

/// Running tasks on these machines, the oldest first.
fn tasks(on: &[usize]) -> Vec<TaskView> {
    let task = |(number, machine): (usize, &usize)| TaskView {
        last: TaskStatus::Running,
        cpu: 100,
        memory: 100,
        zone: Some(MACHINES[*machine].0.into()),
        started_at: Some(UnixMillis(0)),
        ..TaskView::placed(TaskId(number as u128), DeploymentId(1), ContainerInstanceId(*machine as u128), number as u64, UnixMillis(0))
    };
    on.iter().enumerate().map(task).collect()
}

/// The machines of the tasks that a scale-in to `desired` stops, in order.
fn stopped(on: &[usize], desired: u32, strategies: &[Strategy]) -> Vec<usize> {
    let attributes = MACHINES.map(|(zone, rack, ..)| {
        let pair = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        BTreeMap::from([pair("ecs.availability-zone", zone), pair("rack", rack)])
    });
    let machine = |id: ContainerInstanceId| {
        let (_, _, free_cpu, free_memory) = MACHINES[id.0 as usize];
        Machine { attributes: Some(&attributes[id.0 as usize]), free_cpu, free_memory }
    };
    let (service, tasks) = (service(desired, 100, 200), tasks(on));
    let view = ServiceView {
        service: &service,
        tasks: &tasks,
        healthy_after_millis: HEALTHY_AFTER,
        minute_millis: 60_000,
        blocked: false,
        zones: Default::default(),
        strategies,
        alarms: &[],
        machine: &machine,
    };
    plan(&view, UnixMillis(1_000_000)).stop.iter().map(|stop| on[stop.task.0 as usize]).collect()
}

fn spread(name: &str) -> Strategy {
    Strategy::Spread(SpreadField::Attribute(name.to_owned()))
}

#[test]
fn by_default_the_fullest_zone_gives_one_up_then_the_fullest_instance() {
    assert_eq!(stopped(&[0, 0, 1, 2], 3, &Strategy::service_default()), [0]);
    assert_eq!(stopped(&[0, 0, 1, 2, 2, 3], 2, &Strategy::service_default()), [2, 0, 3, 1], "zones stay even");
}

#[test]
fn spreads_are_mirrored_in_order() {
    assert_eq!(stopped(&[0, 2, 2, 1], 3, &[spread("rack")]), [2], "rack r1 has three; the youngest of them goes");
    let racks_in_zones = [spread("ecs.availability-zone"), spread("rack")];
    assert_eq!(stopped(&[0, 0, 1, 2, 3], 4, &racks_in_zones), [0], "zone a has three, two of them in r1");
    assert_eq!(stopped(&[0, 1, 1, 2, 2, 2], 3, &[Strategy::Spread(SpreadField::Instance)]), [2, 2, 1]);
}

#[test]
fn packing_is_mirrored_by_what_is_left_after_the_stop() {
    assert_eq!(stopped(&[0, 1, 2, 3], 2, &[Strategy::BinpackMemory]), [0, 2]);
    assert_eq!(stopped(&[0, 1, 2, 3], 2, &[Strategy::BinpackCpu]), [1, 2]);
    assert_eq!(stopped(&[2, 2, 2, 1], 1, &[Strategy::BinpackMemory]), [2, 2, 2], "each stop leaves more there");
    assert_eq!(stopped(&[0, 1, 2, 3], 2, &[spread("ecs.availability-zone"), Strategy::BinpackMemory]), [0, 2], "zones come first");
}

#[test]
fn by_chance_the_youngest_goes() {
    assert_eq!(stopped(&[0, 1, 2, 3], 2, &[Strategy::Random, spread("rack")]), [3, 2]);
}
