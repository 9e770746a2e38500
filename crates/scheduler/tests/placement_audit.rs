//! An auditor that knows nothing of how placement decides, and that every plan must pass: nothing is booked twice, constraints hold, spreads
//! are even.

mod fleet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::container_instance::{ContainerInstance, INTERFACES};
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::needs::Demand;
use berth_scheduler::placement::{Constraint, Index, PlaceRequest, SpreadField, Strategy};
use berth_scheduler::query::Expression;
use fleet::instance;
use proptest::prelude::{Strategy as Generator, *};

/// A service of the plan: its tasks are placed and stopped one by one.
#[derive(Debug, Clone)]
struct Service {
    demand: Demand,
    is_distinct: bool,
    /// Only in this zone.
    zone: Option<&'static str>,
    strategies: Vec<Strategy>,
}

const ZONES: [&str; 3] = ["a", "b", "c"];

fn services() -> impl Generator<Value = Service> {
    let zones = || Strategy::Spread(SpreadField::Attribute("ecs.availability-zone".to_owned()));
    let strategies = vec![
        vec![],
        vec![zones()],
        vec![zones(), Strategy::BinpackMemory],
        vec![Strategy::Spread(SpreadField::Instance), Strategy::BinpackCpu],
        vec![Strategy::BinpackCpu, zones()],
        Strategy::service_default(),
    ];
    let port = prop_oneof![4 => Just(vec![]), 1 => Just(vec![8080]), 1 => Just(vec![8080, 9090])];
    let zone = prop_oneof![4 => Just(None), 1 => prop::sample::select(ZONES.to_vec()).prop_map(Some)];
    (1_u32..300, 1_u32..300, port, 0_u32..10, any::<bool>(), zone, prop::sample::select(strategies)).prop_map(
        |(cpu, memory, ports_tcp, gpus, is_distinct, zone, strategies)| Service {
            demand: Demand { cpu, memory, ports_tcp, gpus: gpus.saturating_sub(8), interfaces: gpus % 2, ..Demand::default() },
            is_distinct,
            zone,
            strategies,
        },
    )
}

/// What runs where.
type Placed = BTreeMap<TaskId, (ContainerInstanceId, usize)>;

/// Everything that is wrong with a plan.
fn audit(fleet: &[ContainerInstance], services: &[Service], placed: &Placed) -> Vec<String> {
    let mut wrong = Vec::new();
    for machine in fleet {
        let here: Vec<_> = placed.values().filter(|(on, _)| *on == machine.id).map(|(_, service)| *service).collect();
        let sum = |of: fn(&Demand) -> u32| here.iter().map(|service| of(&services[*service].demand)).sum::<u32>();
        let has = &machine.registered;
        if sum(|demand| demand.cpu) > has.cpu || sum(|demand| demand.memory) > has.memory {
            wrong.push(format!("{:?} is overbooked", machine.id));
        }
        if sum(|demand| demand.gpus) as usize > has.gpus.len() {
            wrong.push(format!("{:?} has not so many GPUs", machine.id));
        }
        if sum(|demand| demand.interfaces) > machine.interfaces() {
            wrong.push(format!("{:?} holds not so many interfaces", machine.id));
        }
        let ports: Vec<_> = here.iter().flat_map(|service| &services[*service].demand.ports_tcp).collect();
        if ports.iter().collect::<BTreeSet<_>>().len() != ports.len() || ports.iter().any(|port| has.ports_tcp.contains(port)) {
            wrong.push(format!("{:?} has a port twice", machine.id));
        }
        for (number, service) in services.iter().enumerate() {
            let count = here.iter().filter(|other| **other == number).count();
            if service.is_distinct && count > 1 {
                wrong.push(format!("{:?} has {count} tasks of service {number}, which wants distinct instances", machine.id));
            }
            if service.zone.is_some() && count > 0 && machine.availability_zone() != service.zone {
                wrong.push(format!("{:?} is not in the zone of service {number}", machine.id));
            }
        }
    }
    wrong
}

struct Plan {
    index: Index,
    placed: Placed,
    next: u128,
}

impl Plan {
    fn new(fleet: &[ContainerInstance]) -> Self {
        let mut index = Index::default();
        fleet.iter().for_each(|machine| index.apply_instance(machine));
        Self { index, placed: Placed::new(), next: 1 }
    }

    fn place(&mut self, services: &[Service], number: usize, count: usize) -> usize {
        let service = &services[number];
        let mut constraints = Vec::new();
        if service.is_distinct {
            constraints.push(Constraint::DistinctInstance);
        }
        if let Some(zone) = service.zone {
            let text = format!("attribute:ecs.availability-zone == {zone}");
            constraints.push(Constraint::MemberOf(Arc::new(Expression::parse(&text).expect("an expression"))));
        }
        let tasks: Vec<_> = (self.next..).take(count).map(TaskId).collect();
        self.next += count as u128;
        let placement = self.index.place(&PlaceRequest {
            tasks: &tasks,
            demand: &service.demand,
            attributes: &BTreeSet::new(),
            group: &format!("service:{number}"),
            constraints: &constraints,
            capacity_provider: None,
            strategies: &service.strategies,
            seed: 7,
        });
        self.placed.extend(placement.placed.iter().map(|(task, on)| (*task, (*on, number))));
        placement.placed.len()
    }

    fn stop(&mut self, at: prop::sample::Index) {
        if let Some(task) = (!self.placed.is_empty()).then(|| *self.placed.keys().nth(at.index(self.placed.len())).expect("within")) {
            self.placed.remove(&task);
            self.index.release(task);
        }
    }
}

fn machines(count: u128, room: u32) -> Vec<ContainerInstance> {
    let machine = |id: u128| {
        let mut one = instance(id, room, room, ZONES[id as usize % 3]);
        one.attributes.insert(INTERFACES.to_owned(), Some((id % 4).to_string()));
        one.registered.gpus = (0..id % 3).map(|gpu| format!("GPU-{id}-{gpu}")).collect();
        one
    };
    (1..=count).map(machine).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_booked_twice_and_constraints_hold(
        services in prop::collection::vec(services(), 1..6),
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..5, any::<prop::sample::Index>()), 1..80),
    ) {
        let fleet = machines(9, 1_000);
        let mut plan = Plan::new(&fleet);
        for (service, count, stopped) in steps {
            if count == 0 {
                plan.stop(stopped);
            } else {
                plan.place(&services, service.index(services.len()), count);
            }
            prop_assert_eq!(audit(&fleet, &services, &plan.placed), Vec::<String>::new());
        }
    }

    /// Where there is room everywhere, no value has two tasks more than another.
    #[test]
    fn spreads_are_even(count in 1_usize..40, machine_count in 3_u128..12, by_zone in any::<bool>()) {
        let fleet = machines(machine_count, 1_000_000);
        let field = if by_zone { SpreadField::Attribute("ecs.availability-zone".to_owned()) } else { SpreadField::Instance };
        let strategies = vec![Strategy::Spread(field), Strategy::BinpackMemory];
        let services = [Service { demand: Demand { cpu: 1, memory: 1, ..Demand::default() }, is_distinct: false, zone: None, strategies }];
        let mut plan = Plan::new(&fleet);
        prop_assert_eq!(plan.place(&services, 0, count), count);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for machine in &fleet {
            let value = if by_zone { machine.availability_zone().unwrap_or_default().to_owned() } else { machine.id.to_string() };
            *counts.entry(value).or_default() += plan.placed.values().filter(|(on, _)| *on == machine.id).count();
        }
        let (most, least) = (counts.values().max().expect("some"), counts.values().min().expect("some"));
        prop_assert!(most - least <= 1, "{:?}", counts);
    }
}
