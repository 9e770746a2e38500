//! Tasks folded in at once leave the index as they do one by one, whatever stands twice, has ended, or is on a machine that nobody knows.

mod fleet;

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_model::container_instance::INTERFACES;
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::needs::Demand;
use berth_model::task::Task;
use berth_scheduler::placement::{Index, PlaceRequest, SpreadField, Strategy};
use fleet::instance;
use proptest::prelude::{Strategy as Generator, *};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const GROUPS: [&str; 3] = ["service:web", "service:api", "family:cron"];
/// Of so many machines, some of which no record is known of.
const MACHINES: u128 = 8;
const KNOWN: u128 = 6;

/// Of ids below this, so that some come twice.
fn tasks(ids: u128) -> impl Generator<Value = Task> {
    let sizes = || prop::sample::select(vec![0_u32, 1, 10, 200]);
    let ports = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(80_u16..83, 1..3)];
    (1..ids, 1..=MACHINES, 0..GROUPS.len(), sizes(), sizes(), ports, 0_u8..8).prop_map(|(id, machine, group, cpu, memory, ports, dice)| {
        let gpus: Vec<_> = if dice == 7 { vec![format!("GPU-{machine}-{}", id % 3)] } else { Vec::new() };
        serde_json::from_value(serde_json::json!({
            "id": TaskId(id), "cluster": "c", "definition": {"family": "f", "revision": 1},
            "container_instance": ContainerInstanceId(machine), "group": GROUPS[group], "launch_type": "EC2",
            "demand": {"cpu": cpu, "memory": memory, "ports_tcp": ports, "gpus": gpus.len(), "interfaces": u32::from(dice % 2 == 0)},
            "desired_status": "RUNNING", "last_status": if dice == 0 { "STOPPED" } else { "RUNNING" }, "created_at": 1,
            "containers": [{
                "id": TaskId(id), "name": "app", "image": "i", "last_status": "RUNNING", "health_status": "UNKNOWN", "gpu_ids": gpus,
            }],
        }))
        .expect("a task")
    })
}

/// The machines of which a record is known.
fn machines() -> Index {
    let mut index = Index::default();
    (1..=KNOWN).for_each(|id| {
        let mut machine = instance(id, 2_000, 2_000, if id % 2 == 0 { "a" } else { "b" });
        machine.attributes.insert(INTERFACES.to_owned(), Some((id * 7).to_string()));
        machine.registered.gpus = (0..3).map(|gpu| format!("GPU-{id}-{gpu}")).collect();
        index.apply_instance(&machine);
    });
    index
}

/// All that can be asked of an index.
fn shown(index: &mut Index, tasks: &[Task]) -> Vec<String> {
    let rooms = (1..=MACHINES).map(|machine| format!("{machine}: {:?}", index.room(ContainerInstanceId(machine))));
    let gpus = tasks.iter().map(|task| format!("{}: {:?}", task.id, index.gpus_of(task.id)));
    let mut shown: Vec<_> = rooms.chain(gpus).collect();
    let strategies = [Strategy::Spread(SpreadField::Attribute("ecs.availability-zone".into())), Strategy::Spread(SpreadField::Instance)];
    for (first, group) in (1_000_u128..).step_by(100).zip(GROUPS) {
        let wanted: Vec<_> = (first..first + 40).map(TaskId).collect();
        let placement = index.place(&PlaceRequest {
            tasks: &wanted,
            demand: &Demand { cpu: 20, memory: 20, interfaces: 1, ..Demand::default() },
            attributes: &BTreeSet::new(),
            group,
            constraints: &[],
            capacity_provider: None,
            strategies: &strategies,
            seed: 7,
        });
        shown.push(format!("{group}: {placement:?}"));
    }
    for task in tasks {
        index.release(task.id);
    }
    shown.extend((1..=MACHINES).map(|machine| format!("after all ended, {machine}: {:?}", index.room(ContainerInstanceId(machine)))));
    shown
}

proptest! {
    #[test]
    fn folding_in_many_is_folding_in_each(
        before in prop::collection::vec(tasks(60), 0..10),
        tasks in prop::collection::vec(tasks(60), 0..150),
        shares in any::<bool>(),
        asked_before in any::<bool>(),
    ) {
        // Names are one text where records were read together, and not where they came by themselves.
        let names: Vec<Arc<str>> = GROUPS.iter().map(|name| Arc::from(*name)).collect();
        let mut tasks = tasks;
        if shares {
            for task in &mut tasks {
                task.group = names.iter().find(|name| **name == task.group).map_or_else(|| Arc::clone(&task.group), Arc::clone);
            }
        }
        let mut each = machines();
        before.iter().for_each(|task| each.apply_task(task));
        if asked_before {
            // From the first search on, orders are kept.
            shown(&mut each.clone(), &[]);
            let one = [TaskId(1 << 90)];
            each.place(&PlaceRequest {
                tasks: &one, demand: &Demand::default(), attributes: &BTreeSet::new(), group: GROUPS[0], constraints: &[],
                capacity_provider: None, strategies: &[Strategy::BinpackMemory], seed: 1,
            });
        }
        let mut many = each.clone();
        tasks.iter().for_each(|task| each.apply_task(task));
        many.apply_tasks(tasks.len(), tasks.iter());
        prop_assert_eq!(shown(&mut many, &tasks), shown(&mut each, &tasks));
    }
}

/// So many that they go into the table in its own order.
#[test]
fn thousands_are_folded_in_like_each() {
    let mut tasks = prop::collection::vec(tasks(2_500), 5_000).new_tree(&mut TestRunner::deterministic()).expect("tasks").current();
    // Those with GPUs go in by themselves, each after all that came before it.
    tasks.retain(|task| task.demand.gpus == 0);
    for task in &mut tasks {
        (task.demand.cpu, task.demand.memory) = (task.demand.cpu.min(2), task.demand.memory.min(1));
    }
    let (mut each, mut many) = (machines(), machines());
    tasks.iter().for_each(|task| each.apply_task(task));
    many.apply_tasks(0, tasks.iter());
    assert_eq!(shown(&mut many, &tasks), shown(&mut each, &tasks));
}
