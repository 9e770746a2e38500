//! The fleet that `bench placement` places tasks on: three zones, eight kinds of machines, tasks of forty services.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_model::container_instance::ContainerInstance;
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::needs::Demand;
use berth_model::task::Task;
use berth_scheduler::placement::{Constraint, PlaceRequest, Strategy};
use berth_scheduler::query::Expression;
use serde_json::json;

use super::store_tasks::running_task;

pub(super) const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
/// Attribute values that tell machines apart: eight combinations.
const TYPES: [&str; 4] = ["m5.8xlarge", "m5.16xlarge", "c5.18xlarge", "t3.2xlarge"];
const STACKS: [&str; 2] = ["prod", "test"];
const EXPRESSIONS: [&str; 4] = [
    "attribute:stack == prod",
    "attribute:ecs.instance-type =~ m5.*",
    "attribute:ecs.instance-type != t3.2xlarge",
    "attribute:stack exists",
];
const SERVICES: usize = 40;

/// Numbers that look random and are the same in each run (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).unwrap_or(0)
    }
}

/// What a service's tasks ask for.
pub(super) struct Kind {
    pub(super) demand: Demand,
    pub(super) group: Arc<str>,
    pub(super) expression: usize,
    attributes: BTreeSet<String>,
    constraints: Vec<Constraint>,
    strategies: Vec<Strategy>,
}

impl Kind {
    pub(super) fn request<'a>(&'a self, tasks: &'a [TaskId]) -> PlaceRequest<'a> {
        PlaceRequest {
            tasks,
            demand: &self.demand,
            attributes: &self.attributes,
            group: &self.group,
            constraints: &self.constraints,
            capacity_provider: None,
            strategies: &self.strategies,
            seed: 7,
        }
    }
}

/// The services: sizes from 64 to 512 CPU units and 128 to 1,024 MiB.
pub(super) fn kinds() -> Vec<Kind> {
    let mut dice = Dice(40);
    let expressions = EXPRESSIONS.map(|text| Arc::new(Expression::parse(text).expect("an expression")));
    let mut kind = |number: usize| Kind {
        demand: Demand {
            cpu: 64 * u32::try_from(1 + dice.below(8)).unwrap_or(1),
            memory: 128 * u32::try_from(1 + dice.below(8)).unwrap_or(1),
            ..Demand::default()
        },
        group: format!("service:service-{number}").into(),
        expression: number % expressions.len(),
        attributes: capabilities().into_iter().take(3).collect(),
        constraints: vec![Constraint::MemberOf(Arc::clone(&expressions[number % expressions.len()]))],
        strategies: super::placement::strategies(),
    };
    (0..SERVICES).map(&mut kind).collect()
}

/// A service of average size that may go anywhere.
pub(super) fn one_kind() -> Kind {
    let kind = kinds().swap_remove(3);
    Kind { demand: Demand { cpu: 256, memory: 512, ..Demand::default() }, group: "service:large".into(), ..kind }
}

/// Whether the expression of that number holds for an instance.
pub(super) fn accepts(expression: usize, instance: &ContainerInstance) -> bool {
    let is = |name: &str, value: &str| instance.attributes.get(name).is_some_and(|own| own.as_deref() == Some(value));
    match expression {
        0 => is("stack", "prod"),
        1 => is("ecs.instance-type", TYPES[0]) || is("ecs.instance-type", TYPES[1]),
        2 => !is("ecs.instance-type", TYPES[3]),
        _ => true,
    }
}

/// As many attributes as an agent announces.
fn capabilities() -> Vec<String> {
    (18..44).map(|minor| format!("com.amazonaws.ecs.capability.docker-remote-api.1.{minor}")).collect()
}

/// The fleet.
pub(super) struct Fleet {
    pub(super) instances: Vec<ContainerInstance>,
    kinds: Vec<Kind>,
    tasks_each: usize,
    template: Task,
}

impl Fleet {
    /// So many instances that are about nine tenths full with so many tasks each.
    pub(super) fn new(instances: usize, tasks_each: usize) -> Self {
        let room = u32::try_from(tasks_each).unwrap_or(u32::MAX);
        let mut dice = Dice(3);
        let mut one = |number: usize| -> ContainerInstance {
            let more = 100 + u32::try_from(dice.below(20)).unwrap_or(0);
            let mut attributes: serde_json::Map<_, _> = capabilities().into_iter().map(|name| (name, json!(null))).collect();
            attributes.insert("ecs.availability-zone".into(), json!(ZONES[number % 3]));
            attributes.insert("ecs.instance-type".into(), json!(TYPES[number / 3 % 4]));
            attributes.insert("stack".into(), json!(STACKS[number / 12 % 2]));
            serde_json::from_value(json!({
                "id": format!("{:032x}", instance_id(number).0), "cluster": "bench", "status": "ACTIVE", "agent_connected": true, "connection": 1,
                "registered": {"cpu": 288 * room / 100 * more, "memory": 576 * room / 100 * more, "ports_tcp": [22, 2375, 2376, 51678], "ports_udp": []},
                "attributes": attributes, "registered_at": 1, "agent": {"agent_version": "1.105.1"}, "tags": {},
            }))
            .expect("an instance")
        };
        let instances = (0..instances).map(&mut one).collect();
        Self { instances, kinds: kinds(), tasks_each, template: running_task().expect("a task") }
    }

    pub(super) const fn tasks(&self) -> usize {
        self.instances.len() * self.tasks_each
    }

    /// The kind of the task of that number, and the number of its instance.
    pub(super) fn place_of(&self, number: usize) -> (&Kind, usize) {
        (&self.kinds[Dice(number as u64).below(self.kinds.len())], number / self.tasks_each)
    }

    /// The task of that number.
    pub(super) fn task(&self, number: usize) -> Task {
        let (kind, instance) = self.place_of(number);
        let mut task = self.template.clone();
        task.id = super::store_tasks::task_id(number);
        task.container_instance = self.instances[instance].id;
        task.demand.clone_from(&kind.demand);
        task.group = Arc::clone(&kind.group);
        task
    }
}

/// Ids look random, as real ones do.
fn instance_id(number: usize) -> ContainerInstanceId {
    ContainerInstanceId((number as u128 + 1).wrapping_mul(0xd134_2543_de82_ef95_9e37_79b9_7f4a_7c15))
}
