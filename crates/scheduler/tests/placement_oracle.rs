//! The index against the oracle: whatever comes and goes, every decision and every refusal is the same.

mod fleet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::container_instance::{CAPACITY_PROVIDER, ContainerInstance, ContainerInstanceStatus, INTERFACES};
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::needs::Demand;
use berth_model::public_addresses::PUBLIC_ADDRESSES;
use berth_model::time::UnixMillis;
use berth_scheduler::placement::oracle::Oracle;
use berth_scheduler::placement::{Constraint, Index, PlaceRequest, SpreadField, Strategy};
use berth_scheduler::query::Expression;
use fleet::instance;
use proptest::prelude::{Strategy as Generator, *};

/// Everything but the ids of a request.
#[derive(Debug, Clone)]
struct Shape {
    demand: Demand,
    attributes: BTreeSet<String>,
    group: &'static str,
    constraints: Vec<Constraint>,
    provider: Option<&'static str>,
    strategies: Vec<Strategy>,
}

impl Shape {
    fn request<'a>(&'a self, tasks: &'a [TaskId], seed: u64) -> PlaceRequest<'a> {
        PlaceRequest {
            tasks,
            demand: &self.demand,
            attributes: &self.attributes,
            group: self.group,
            constraints: &self.constraints,
            capacity_provider: self.provider,
            strategies: &self.strategies,
            seed,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Tasks of a shape are wanted.
    Place {
        shape: prop::sample::Index,
        count: usize,
        seed: u64,
    },
    /// One is wanted on an instance.
    PlaceOn {
        shape: prop::sample::Index,
        instance: u128,
    },
    /// A task ends.
    Release(prop::sample::Index),
    /// An instance is new, or another than before.
    Instance(Box<ContainerInstance>),
    Remove(u128),
}

const EXPRESSIONS: [&str; 7] = [
    "attribute:rack == r1",
    "attribute:ecs.instance-type =~ t2.*",
    "attribute:ecs.availability-zone in [a, b] or attribute:rack !exists",
    "not (attribute:rack == r2)",
    "runningTasksCount < 2",
    "task:group == web",
    "agentVersion >= 1.10.0 and attribute:cap exists",
];

fn strategies() -> impl Generator<Value = Strategy> {
    let spread = |name: &str| Strategy::Spread(SpreadField::Attribute(name.to_owned()));
    prop::sample::select(vec![
        spread("ecs.availability-zone"),
        spread("rack"),
        spread("name"),
        Strategy::Spread(SpreadField::Instance),
        Strategy::BinpackCpu,
        Strategy::BinpackMemory,
        Strategy::Random,
    ])
}

fn constraints() -> impl Generator<Value = Constraint> {
    prop_oneof![
        Just(Constraint::DistinctInstance),
        prop::sample::select(EXPRESSIONS.to_vec())
            .prop_map(|text| Constraint::MemberOf(Arc::new(Expression::parse(text).expect("an expression")))),
    ]
}

fn demands() -> impl Generator<Value = Demand> {
    let ports = || prop_oneof![6 => Just(vec![]), 1 => prop::collection::vec(80_u16..83, 1..3)];
    (prop::sample::select(vec![0, 1, 10, 64, 100, 300]), prop::sample::select(vec![0, 1, 32, 100, 250]), ports(), ports(), 0_u32..12)
        .prop_map(|(cpu, memory, ports_tcp, ports_udp, dice)| Demand {
            cpu,
            memory,
            ports_tcp,
            ports_udp,
            gpus: dice.saturating_sub(9),
            interfaces: u32::from(dice % 3 == 0),
            public_addresses: u32::from(dice % 4 == 0),
        })
}

fn shapes() -> impl Generator<Value = Shape> {
    let attributes = prop_oneof![3 => Just(vec!["cap"]), 1 => Just(vec![]), 1 => Just(vec!["cap", "rack"])];
    (
        demands(),
        attributes,
        prop::sample::select(vec!["web", "batch", "family:cron"]),
        prop_oneof![3 => prop::collection::vec(constraints(), 0..1), 1 => prop::collection::vec(constraints(), 1..3)],
        prop_oneof![5 => Just(None), 1 => Just(Some("p0"))],
        prop::collection::vec(strategies(), 0..5),
    )
        .prop_map(|(demand, attributes, group, constraints, provider, strategies)| Shape {
            demand,
            attributes: attributes.into_iter().map(str::to_owned).collect(),
            group,
            constraints,
            provider,
            strategies,
        })
}

fn instances() -> impl Generator<Value = ContainerInstance> {
    let sizes = || prop::sample::select(vec![0, 100, 200, 500, 1_000]);
    (1_u128..25, sizes(), sizes(), prop::sample::select(vec!["a", "b", "c"]), 0_u32..1_000).prop_map(|(id, cpu, memory, zone, dice)| {
        let mut one = instance(id, cpu, memory, zone);
        let mut set = |name: &str, value: Option<&str>| one.attributes.insert(name.to_owned(), value.map(str::to_owned));
        set("name", Some(&format!("i{id}")));
        match dice % 5 {
            0 => drop(set("rack", Some("r1"))),
            1 => drop(set("rack", Some("r2"))),
            2 => drop(set("rack", None)),
            _ => {}
        }
        if dice % 3 == 0 {
            set(CAPACITY_PROVIDER, Some("p0"));
        }
        set("ecs.instance-type", Some(if dice % 2 == 0 { "t2.large" } else { "m5.large" }));
        // Few, so that they end before the rest does; and those that say nothing, or what is no number.
        match dice % 7 {
            few @ 0..=3 => drop(set(INTERFACES, Some(&few.to_string()))),
            4 => drop(set(INTERFACES, Some("many"))),
            _ => {}
        }
        match dice % 5 {
            0 => drop(set(PUBLIC_ADDRESSES, Some("192.0.2.1 198.51.100.7-198.51.100.8"))),
            1 => drop(set(PUBLIC_ADDRESSES, Some("no address"))),
            2 => drop(set(PUBLIC_ADDRESSES, Some("192.0.2.1-192.0.2.40"))),
            _ => {}
        }
        if dice % 17 == 0 {
            one.attributes.remove("cap");
        }
        one.agent.agent_version = [None, Some("1.9.3"), Some("1.105.1")][dice as usize % 3].map(str::to_owned);
        one.agent_connected = dice % 11 != 0;
        one.status = if dice % 13 == 0 { ContainerInstanceStatus::Draining } else { ContainerInstanceStatus::Active };
        one.registered.gpus = (0..dice % 4).map(|gpu| format!("GPU-{id}-{gpu}")).collect();
        one.registered_at = UnixMillis(i64::from(dice));
        one
    })
}

fn steps() -> impl Generator<Value = Step> {
    let any_index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (any_index(), 1_usize..6, any::<u64>()).prop_map(|(shape, count, seed)| Step::Place { shape, count, seed }),
        1 => (any_index(), 1_u128..25).prop_map(|(shape, instance)| Step::PlaceOn { shape, instance }),
        6 => any_index().prop_map(Step::Release),
        2 => instances().prop_map(|one| Step::Instance(Box::new(one))),
        1 => (1_u128..25).prop_map(Step::Remove),
    ]
}

/// Both, told the same.
#[derive(Default)]
struct Pair {
    index: Index,
    oracle: Oracle,
    tasks: BTreeMap<TaskId, (ContainerInstanceId, Demand, &'static str)>,
    next: u128,
}

impl Pair {
    fn apply(&mut self, instance: &ContainerInstance) {
        self.index.apply_instance(instance);
        self.oracle.apply_instance(instance);
    }

    fn place(&mut self, shape: &Shape, count: usize, seed: u64) -> Result<(), TestCaseError> {
        let ids: Vec<_> = (self.next..).take(count).map(TaskId).collect();
        self.next += count as u128;
        let placement = self.index.place(&shape.request(&ids, seed));
        for (at, id) in ids.iter().enumerate() {
            let choices = self.oracle.choices(&shape.request(&[*id], seed));
            match placement.placed.get(at) {
                Some((task, instance)) => {
                    prop_assert_eq!(task, id);
                    prop_assert!(choices.contains(instance), "{:?} is none of {:?}", instance, choices);
                    self.oracle.take(*id, *instance, &shape.demand, shape.group);
                    self.no_gpu_is_given_twice(*id, *instance, &shape.demand)?;
                    self.tasks.insert(*id, (*instance, shape.demand.clone(), shape.group));
                }
                None => {
                    prop_assert_eq!(choices, [], "the index found none");
                    prop_assert_eq!(&placement.refusals, &self.oracle.refusals(&shape.request(&[], seed)));
                    break;
                }
            }
        }
        prop_assert!(placement.placed.len() < count || placement.refusals.is_empty());
        Ok(())
    }

    fn no_gpu_is_given_twice(&self, task: TaskId, on: ContainerInstanceId, demand: &Demand) -> Result<(), TestCaseError> {
        let gpus: BTreeSet<_> = self.index.gpus_of(task).iter().collect();
        prop_assert_eq!(gpus.len(), demand.gpus as usize);
        let others = self.tasks.iter().filter(|(_, (instance, ..))| *instance == on);
        for (other, _) in others {
            prop_assert!(self.index.gpus_of(*other).iter().all(|gpu| !gpus.contains(gpu)), "{:?} has one of {:?}", other, gpus);
        }
        Ok(())
    }

    fn place_on(&mut self, shape: &Shape, instance: ContainerInstanceId) -> Result<(), TestCaseError> {
        let id = TaskId(self.next);
        self.next += 1;
        // StartTask does not ask which provider it is of.
        let shape = Shape { provider: None, ..shape.clone() };
        let request = shape.request(std::slice::from_ref(&id), 0);
        let refusals = self.oracle.refusals(&request);
        match self.index.place_on(instance, &request) {
            Ok(()) => {
                prop_assert!(refusals.iter().all(|refusal| refusal.instance != instance));
                self.oracle.take(id, instance, &shape.demand, shape.group);
                self.tasks.insert(id, (instance, shape.demand.clone(), shape.group));
            }
            Err(rule) => {
                let wanted = refusals.into_iter().find(|refusal| refusal.instance == instance).map(|refusal| refusal.rule);
                prop_assert_eq!(rule, wanted);
            }
        }
        Ok(())
    }

    fn release(&mut self, at: prop::sample::Index) {
        if let Some(task) = (!self.tasks.is_empty()).then(|| *self.tasks.keys().nth(at.index(self.tasks.len())).expect("within")) {
            self.tasks.remove(&task);
            self.index.release(task);
            self.oracle.release(task);
        }
    }
}

fn play(fleet: &[ContainerInstance], shapes: &[Shape], steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut pair = Pair { next: 1, ..Pair::default() };
    fleet.iter().for_each(|instance| pair.apply(instance));
    for step in steps {
        match step {
            Step::Place { shape, count, seed } => pair.place(shape.get(shapes), count, seed)?,
            Step::PlaceOn { shape, instance } => pair.place_on(shape.get(shapes), ContainerInstanceId(instance))?,
            Step::Release(at) => pair.release(at),
            Step::Instance(instance) => pair.apply(&instance),
            Step::Remove(id) => {
                pair.index.remove_instance(ContainerInstanceId(id));
                pair.oracle.remove_instance(ContainerInstanceId(id));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_decision_is_the_oracles(
        fleet in prop::collection::vec(instances(), 0..20),
        shapes in prop::collection::vec(shapes(), 1..8),
        steps in prop::collection::vec(steps(), 1..120),
    ) {
        play(&fleet, &shapes, steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Long enough that logs run over, blocks split and cursors start again.
    #[test]
    fn so_it_is_in_a_large_fleet_after_a_long_time(
        seed in prop::collection::vec(instances(), 20),
        shapes in prop::collection::vec(shapes(), 4..8),
        steps in prop::collection::vec(steps(), 700..900),
    ) {
        let large = (0..250_u128).map(|number| {
            let mut one = seed[number as usize % seed.len()].clone();
            one.id = ContainerInstanceId(1_000 + number);
            one
        });
        play(&large.collect::<Vec<_>>(), &shapes, steps)?;
    }
}

/// More shapes, filters and fields than are remembered.
#[test]
fn what_is_remembered_is_bounded_and_forgetting_changes_no_decision() {
    let mut pair = Pair { next: 1, ..Pair::default() };
    for id in 1..=60 {
        let mut one = instance(id, 100_000, 100_000, ["a", "b", "c"][id as usize % 3]);
        for field in 0..40 {
            one.attributes.insert(format!("field{field}"), Some(format!("{}", id % (field + 2))));
        }
        pair.apply(&one);
    }
    for round in 0..620_usize {
        let field = |number: usize| format!("field{}", (round + number) % 40);
        let expression = format!("attribute:{} != {}", field(0), round % 37);
        let shape = Shape {
            demand: Demand { cpu: 1 + u32::try_from(round % 600).expect("small"), memory: 1, ..Demand::default() },
            attributes: BTreeSet::from(["cap".to_owned()]),
            group: "web",
            constraints: vec![Constraint::MemberOf(Arc::new(Expression::parse(&expression).expect("an expression")))],
            provider: None,
            strategies: vec![
                Strategy::Spread(SpreadField::Attribute(field(1))),
                Strategy::Spread(SpreadField::Attribute(field(2))),
                Strategy::BinpackCpu,
            ],
        };
        pair.place(&shape, 1, 7).expect("the oracle agrees");
    }
}
