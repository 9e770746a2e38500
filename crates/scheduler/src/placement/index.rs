//! What placement must know of a cluster, kept up by changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use berth_model::container_instance::{CAPACITY_PROVIDER, ContainerInstance, ContainerInstanceStatus, Resources};
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::needs::Demand;
use berth_model::task::{Task, TaskStatus};
use berth_model::time::UnixMillis;

use crate::query::{Expression, Subject};

use super::{Constraint, PlaceRequest, Placement, Refusal, Rule, SpreadField, Strategy};

/// One instance as placement sees it.
#[derive(Debug, Clone, Default)]
struct Slot {
    /// Where it stands in [`Index::order`].
    position: usize,
    active: bool,
    connected: bool,
    registered: Resources,
    attributes: BTreeMap<String, Option<String>>,
    agent_version: Option<String>,
    ec2_instance_id: Option<String>,
    registered_at: UnixMillis,
    used_cpu: u32,
    used_memory: u32,
    ports_tcp: BTreeSet<u16>,
    ports_udp: BTreeSet<u16>,
    by_group: HashMap<Arc<str>, u32>,
}

impl Slot {
    const fn free_cpu(&self) -> u32 {
        self.registered.cpu.saturating_sub(self.used_cpu)
    }

    const fn free_memory(&self) -> u32 {
        self.registered.memory.saturating_sub(self.used_memory)
    }

    /// It may take such a task at all. One that may not is no candidate: it refuses nothing.
    fn is_candidate(&self, request: &PlaceRequest<'_>) -> bool {
        let Some(provider) = request.capacity_provider else { return true };
        self.attributes.get(CAPACITY_PROVIDER).is_some_and(|name| name.as_deref() == Some(provider))
    }

    /// As expressions see it. Here every task counts that holds a place, whether it runs yet or not: one that is only on its way would
    /// otherwise let any number follow it.
    fn satisfies(&self, expression: &Expression) -> bool {
        expression.holds(&Subject {
            attributes: &self.attributes,
            agent_connected: self.connected,
            agent_version: self.agent_version.as_deref(),
            ec2_instance_id: self.ec2_instance_id.as_deref(),
            registered_at: self.registered_at,
            running_tasks: self.by_group.values().sum(),
            any_group: &|test| self.by_group.keys().any(|group| test(group)),
        })
    }

    fn of_group(&self, group: &str) -> u32 {
        self.by_group.get(group).copied().unwrap_or(0)
    }
}

#[derive(Debug, Clone)]
struct Reservation {
    instance: ContainerInstanceId,
    demand: Demand,
    group: Arc<str>,
}

/// A cluster's instances with what is free on them.
#[derive(Debug, Clone, Default)]
pub struct Index {
    slots: BTreeMap<ContainerInstanceId, Slot>,
    /// The instances in no order, to draw from.
    order: Vec<ContainerInstanceId>,
    reservations: HashMap<TaskId, Reservation>,
}

/// How many instances are drawn before all are looked at: where most of a fleet has room, one or two are enough.
const DRAWS: u64 = 64;

impl Index {
    /// No instance is known, whatever its state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Folds in a new or changed instance.
    pub fn apply_instance(&mut self, instance: &ContainerInstance) {
        if instance.status == ContainerInstanceStatus::Inactive {
            self.remove_instance(instance.id);
            return;
        }
        let slot = self.slot(instance.id);
        slot.active = instance.status == ContainerInstanceStatus::Active;
        slot.connected = instance.agent_connected;
        slot.registered.clone_from(&instance.registered);
        slot.attributes.clone_from(&instance.attributes);
        slot.agent_version.clone_from(&instance.agent.agent_version);
        slot.ec2_instance_id.clone_from(&instance.ec2_instance_id);
        slot.registered_at = instance.registered_at;
    }

    /// Forgets an instance.
    pub fn remove_instance(&mut self, id: ContainerInstanceId) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.order.swap_remove(slot.position);
        if let Some(moved) = self.order.get(slot.position).and_then(|id| self.slots.get_mut(id)) {
            moved.position = slot.position;
        }
    }

    /// An instance's slot, made if there is none.
    fn slot(&mut self, id: ContainerInstanceId) -> &mut Slot {
        let order = &mut self.order;
        self.slots.entry(id).or_insert_with(|| {
            order.push(id);
            Slot { position: order.len() - 1, ..Slot::default() }
        })
    }

    /// Folds in a new or changed task: it holds its resources until it is STOPPED. Folding one in twice changes nothing.
    pub fn apply_task(&mut self, task: &Task) {
        if task.last_status == TaskStatus::Stopped {
            self.release(task.id);
        } else if !self.reservations.contains_key(&task.id) {
            self.reserve(task.id, task.container_instance, task.demand.clone(), Arc::clone(&task.group));
        }
    }

    /// Gives back what a task held: it ended, or its placement was not committed.
    pub fn release(&mut self, id: TaskId) {
        let Some(Reservation { instance, demand, group }) = self.reservations.remove(&id) else { return };
        let Some(slot) = self.slots.get_mut(&instance) else { return };
        slot.used_cpu = slot.used_cpu.saturating_sub(demand.cpu);
        slot.used_memory = slot.used_memory.saturating_sub(demand.memory);
        for port in &demand.ports_tcp {
            slot.ports_tcp.remove(port);
        }
        for port in &demand.ports_udp {
            slot.ports_udp.remove(port);
        }
        if let Some(count) = slot.by_group.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                slot.by_group.remove(&group);
            }
        }
    }

    fn reserve(&mut self, id: TaskId, instance: ContainerInstanceId, demand: Demand, group: Arc<str>) {
        // The instance may be unknown yet: commits of one batch can come in any order of kinds.
        let slot = self.slot(instance);
        slot.used_cpu = slot.used_cpu.saturating_add(demand.cpu);
        slot.used_memory = slot.used_memory.saturating_add(demand.memory);
        slot.ports_tcp.extend(&demand.ports_tcp);
        slot.ports_udp.extend(&demand.ports_udp);
        *slot.by_group.entry(Arc::clone(&group)).or_default() += 1;
        self.reservations.insert(id, Reservation { instance, demand, group });
    }

    /// Places tasks and reserves what they take. A task that finds no place ends the placement: those after it are alike.
    pub fn place(&mut self, request: &PlaceRequest<'_>) -> Placement {
        let group: Arc<str> = request.group.into();
        let mut placement = Placement::default();
        for (number, task) in request.tasks.iter().enumerate() {
            let seed = request.seed.wrapping_add(number as u64);
            let place = self.draw(request, seed).or_else(|| {
                let fitting: Vec<_> = self.slots.iter().filter(|(_, slot)| fits(slot, request)).collect();
                choose(fitting, request, seed)
            });
            let Some(instance) = place else {
                placement.refusals = self.refusals(request);
                break;
            };
            self.reserve(*task, instance, request.demand.clone(), Arc::clone(&group));
            placement.placed.push((*task, instance));
        }
        placement
    }

    /// Where any instance that fits is as good as another: draws until one does. Each that fits is as likely as every other,
    /// as if one were drawn among those alone. `None` if none was hit, or the strategy wants more than that.
    fn draw(&self, request: &PlaceRequest<'_>, seed: u64) -> Option<ContainerInstanceId> {
        if !matches!(request.strategies.first(), None | Some(Strategy::Random)) || self.order.is_empty() {
            return None;
        }
        // Seeds of one request's tasks are neighbours: the draws of each must not be those of the next, one later.
        let drawn = (0..DRAWS).map(|draw| mix(mix(seed) ^ draw) % self.order.len() as u64);
        let mut ids = drawn.map(|at| self.order[usize::try_from(at).unwrap_or(0)]);
        ids.find(|id| self.slots.get(id).is_some_and(|slot| fits(slot, request)))
    }

    /// Places one task on a given instance (StartTask) and reserves what it takes.
    ///
    /// # Errors
    /// The rule that refuses; `None` if there is no such instance.
    pub fn place_on(&mut self, instance: ContainerInstanceId, request: &PlaceRequest<'_>) -> Result<(), Option<Rule>> {
        let slot = self.slots.get(&instance).ok_or(None)?;
        if let Some(rule) = refuse(slot, request) {
            return Err(Some(rule));
        }
        for task in request.tasks {
            self.reserve(*task, instance, request.demand.clone(), request.group.into());
        }
        Ok(())
    }

    fn refusals(&self, request: &PlaceRequest<'_>) -> Vec<Refusal> {
        let candidates = self.slots.iter().filter(|(_, slot)| slot.is_candidate(request));
        candidates.filter_map(|(id, slot)| refuse(slot, request).map(|rule| Refusal { instance: *id, rule })).collect()
    }
}

fn fits(slot: &Slot, request: &PlaceRequest<'_>) -> bool {
    slot.is_candidate(request) && refuse(slot, request).is_none()
}

/// The first rule by which an instance cannot take a task.
fn refuse(slot: &Slot, request: &PlaceRequest<'_>) -> Option<Rule> {
    if !slot.active {
        return Some(Rule::Inactive);
    }
    if !slot.connected {
        return Some(Rule::Agent);
    }
    if let Some(missing) = request.attributes.iter().find(|name| !slot.attributes.contains_key(*name)) {
        return Some(Rule::Attribute(missing.clone()));
    }
    let demand = request.demand;
    if demand.cpu > slot.free_cpu() {
        return Some(Rule::Cpu { wanted: demand.cpu, free: slot.free_cpu() });
    }
    if demand.memory > slot.free_memory() {
        return Some(Rule::Memory { wanted: demand.memory, free: slot.free_memory() });
    }
    let taken = |wanted: &[u16], used: &BTreeSet<u16>, own: &BTreeSet<u16>| {
        wanted.iter().find(|port| used.contains(port) || own.contains(port)).copied()
    };
    if let Some(port) = taken(&demand.ports_tcp, &slot.ports_tcp, &slot.registered.ports_tcp)
        .or_else(|| taken(&demand.ports_udp, &slot.ports_udp, &slot.registered.ports_udp))
    {
        return Some(Rule::Port(port));
    }
    request.constraints.iter().find_map(|constraint| match constraint {
        Constraint::DistinctInstance => (slot.of_group(request.group) > 0).then_some(Rule::DistinctInstance),
        Constraint::MemberOf(expression) => (!slot.satisfies(expression)).then(|| Rule::MemberOf(expression.to_string())),
    })
}

type Candidate<'a> = (&'a ContainerInstanceId, &'a Slot);

/// Narrows the candidates by each strategy in turn. What is left is alike; without `random` the lowest id wins, so that
/// the same state gives the same answer.
fn choose(mut candidates: Vec<Candidate<'_>>, request: &PlaceRequest<'_>, seed: u64) -> Option<ContainerInstanceId> {
    let random = request.strategies.is_empty() || request.strategies.contains(&Strategy::Random);
    for strategy in request.strategies {
        match strategy {
            Strategy::Random => break,
            Strategy::Spread(SpreadField::Instance) => keep_least(&mut candidates, |(_, slot)| slot.of_group(request.group)),
            Strategy::Spread(SpreadField::Attribute(name)) => {
                let mut counts: HashMap<Option<&str>, u32> = HashMap::new();
                let value = |slot: &'_ Slot| slot.attributes.get(name).and_then(Option::as_deref).map(str::to_owned);
                let values: Vec<_> = candidates.iter().map(|(_, slot)| value(slot)).collect();
                for ((_, slot), value) in candidates.iter().zip(&values) {
                    *counts.entry(value.as_deref()).or_default() += slot.of_group(request.group);
                }
                let least = counts.values().min().copied().unwrap_or(0);
                let keep: Vec<bool> = values.iter().map(|value| counts[&value.as_deref()] == least).collect();
                let mut keep = keep.into_iter();
                candidates.retain(|_| keep.next().unwrap_or(false));
            }
            Strategy::BinpackCpu => keep_least(&mut candidates, |(_, slot)| slot.free_cpu()),
            Strategy::BinpackMemory => keep_least(&mut candidates, |(_, slot)| slot.free_memory()),
        }
    }
    let pick = if random && !candidates.is_empty() { usize::try_from(mix(seed) % candidates.len() as u64).unwrap_or(0) } else { 0 };
    candidates.get(pick).map(|(id, _)| **id)
}

fn keep_least(candidates: &mut Vec<Candidate<'_>>, measure: impl Fn(&Candidate<'_>) -> u32) {
    let least = candidates.iter().map(&measure).min();
    candidates.retain(|candidate| Some(measure(candidate)) == least);
}

/// Spreads neighbouring seeds over the whole range (the finaliser of SplitMix64).
const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::ids::ClusterName;

    fn instance(id: u128, cpu: u32, memory: u32, zone: &str) -> ContainerInstance {
        ContainerInstance {
            id: ContainerInstanceId(id),
            cluster: ClusterName::parse("c").unwrap(),
            ec2_instance_id: None,
            status: ContainerInstanceStatus::Active,
            status_reason: None,
            agent_connected: true,
            connection: 0,
            away: None,
            registered: Resources { cpu, memory, ports_tcp: [22].into(), ports_udp: BTreeSet::new() },
            attributes: [("ecs.availability-zone".to_owned(), Some(zone.to_owned())), ("cap".to_owned(), None)].into(),
            registered_at: UnixMillis(0),
            agent: Default::default(),
            tags: Default::default(),
        }
    }

    fn index(instances: &[ContainerInstance]) -> Index {
        let mut index = Index::default();
        for instance in instances {
            index.apply_instance(instance);
        }
        index
    }

    fn place(
        index: &mut Index,
        first: u128,
        count: u128,
        demand: &Demand,
        constraints: &[Constraint],
        strategies: &[Strategy],
    ) -> Placement {
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
}
