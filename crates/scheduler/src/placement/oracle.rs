//! Placement, written to be obviously right: it looks at every instance for every task. What [`super::Index`] answers is compared with
//! it; nothing else may use it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use berth_model::container_instance::{CAPACITY_PROVIDER, ContainerInstance, ContainerInstanceStatus};
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::needs::Demand;

use super::{Constraint, PlaceRequest, Refusal, Rule, SpreadField, Strategy};
use crate::query::Subject;

#[derive(Debug, Clone)]
struct Held {
    demand: Demand,
    group: String,
}

#[derive(Debug, Clone)]
struct Seen {
    instance: ContainerInstance,
    free_cpu: u32,
    free_memory: u32,
    free_gpus: u32,
    free_interfaces: u32,
    free_public_addresses: u32,
    ports: BTreeSet<(bool, u16)>,
    groups: HashMap<String, u32>,
    tasks: u32,
}

/// A fleet and its tasks.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    fleet: BTreeMap<ContainerInstanceId, Seen>,
    tasks: BTreeMap<ContainerInstanceId, BTreeMap<TaskId, Held>>,
    places: HashMap<TaskId, ContainerInstanceId>,
}

fn ports(tcp: impl IntoIterator<Item = u16>, udp: impl IntoIterator<Item = u16>) -> impl Iterator<Item = (bool, u16)> {
    tcp.into_iter().map(|port| (false, port)).chain(udp.into_iter().map(|port| (true, port)))
}

impl Seen {
    /// What is left of an instance under its tasks.
    fn new(instance: ContainerInstance, tasks: Option<&BTreeMap<TaskId, Held>>) -> Self {
        let tasks = || tasks.into_iter().flat_map(BTreeMap::values);
        let free = |all: u32, each: fn(&Held) -> u32| {
            u64::from(all).saturating_sub(tasks().map(|held| u64::from(each(held))).sum()).try_into().unwrap_or(0)
        };
        let registered = &instance.registered;
        let mut taken: BTreeSet<_> = ports(registered.ports_tcp.iter().copied(), registered.ports_udp.iter().copied()).collect();
        let mut groups = HashMap::new();
        for held in tasks() {
            taken.extend(ports(held.demand.ports_tcp.iter().copied(), held.demand.ports_udp.iter().copied()));
            *groups.entry(held.group.clone()).or_default() += 1;
        }
        Self {
            free_cpu: free(registered.cpu, |held| held.demand.cpu),
            free_memory: free(registered.memory, |held| held.demand.memory),
            free_gpus: free(u32::try_from(registered.gpus.len()).unwrap_or(0), |held| held.demand.gpus),
            free_interfaces: free(instance.interfaces(), |held| held.demand.interfaces),
            free_public_addresses: free(instance.public_addresses().map_or(0, |own| own.count()), |held| held.demand.public_addresses),
            ports: taken,
            groups,
            tasks: tasks().map(|_| 1).sum(),
            instance,
        }
    }

    fn of_group(&self, group: &str) -> u32 {
        self.groups.get(group).copied().unwrap_or(0)
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        self.instance.attributes.get(name).and_then(Option::as_deref)
    }

    fn refuse(&self, request: &PlaceRequest<'_>) -> Option<Rule> {
        let (instance, demand) = (&self.instance, request.demand);
        if instance.status != ContainerInstanceStatus::Active {
            return Some(Rule::Inactive);
        }
        if !instance.agent_connected {
            return Some(Rule::Agent);
        }
        if let Some(missing) = request.attributes.iter().find(|name| !instance.attributes.contains_key(*name)) {
            return Some(Rule::Attribute(missing.clone()));
        }
        if self.free_cpu < demand.cpu {
            return Some(Rule::Cpu { wanted: demand.cpu, free: self.free_cpu });
        }
        if self.free_memory < demand.memory {
            return Some(Rule::Memory { wanted: demand.memory, free: self.free_memory });
        }
        if self.free_gpus < demand.gpus {
            return Some(Rule::Gpu { wanted: demand.gpus, free: self.free_gpus });
        }
        if self.free_interfaces < demand.interfaces {
            return Some(Rule::Interfaces { wanted: demand.interfaces, free: self.free_interfaces });
        }
        if self.free_public_addresses < demand.public_addresses {
            return Some(Rule::PublicAddresses { wanted: demand.public_addresses, free: self.free_public_addresses });
        }
        let mut wanted = ports(demand.ports_tcp.iter().copied(), demand.ports_udp.iter().copied());
        if let Some((_, port)) = wanted.find(|port| self.ports.contains(port)) {
            return Some(Rule::Port(port));
        }
        request.constraints.iter().find_map(|constraint| match constraint {
            Constraint::DistinctInstance => (self.of_group(request.group) > 0).then_some(Rule::DistinctInstance),
            Constraint::MemberOf(expression) => {
                let subject = Subject {
                    attributes: &instance.attributes,
                    agent_connected: instance.agent_connected,
                    agent_version: instance.agent.agent_version.as_deref(),
                    ec2_instance_id: instance.ec2_instance_id.as_deref(),
                    registered_at: instance.registered_at,
                    running_tasks: self.tasks,
                    any_group: &|accepts| self.groups.keys().any(|group| accepts(group)),
                };
                (!expression.holds(&subject)).then(|| Rule::MemberOf(expression.to_string()))
            }
        })
    }
}

impl Oracle {
    /// Folds in a new or changed instance.
    pub fn apply_instance(&mut self, instance: &ContainerInstance) {
        let seen = Seen::new(instance.clone(), self.tasks.get(&instance.id));
        self.fleet.insert(instance.id, seen);
    }

    /// Forgets an instance; its tasks hold what they have until they are released.
    pub fn remove_instance(&mut self, id: ContainerInstanceId) {
        self.fleet.remove(&id);
    }

    /// A task holds what it takes.
    pub fn take(&mut self, task: TaskId, instance: ContainerInstanceId, demand: &Demand, group: &str) {
        let held = Held { demand: demand.clone(), group: group.to_owned() };
        self.tasks.entry(instance).or_default().insert(task, held);
        self.places.insert(task, instance);
        self.look_again(instance);
    }

    /// A task holds nothing any more.
    pub fn release(&mut self, task: TaskId) {
        let Some(instance) = self.places.remove(&task) else { return };
        if let Some(tasks) = self.tasks.get_mut(&instance) {
            tasks.remove(&task);
        }
        self.look_again(instance);
    }

    fn look_again(&mut self, instance: ContainerInstanceId) {
        if let Some(seen) = self.fleet.get_mut(&instance) {
            *seen = Seen::new(seen.instance.clone(), self.tasks.get(&instance));
        }
    }

    /// The instances to any of which the next task may go: one, unless strategies leave it to chance; none if there is no room.
    #[must_use]
    pub fn choices(&self, request: &PlaceRequest<'_>) -> Vec<ContainerInstanceId> {
        let mut candidates: Vec<&Seen> = self.fleet.values().filter(|seen| fits(seen, request)).collect();
        let mut spread_over: Vec<&str> = Vec::new();
        for strategy in request.strategies {
            match strategy {
                Strategy::Random => return ids(&candidates),
                Strategy::Spread(SpreadField::Instance) => keep_least(&mut candidates, |seen| seen.of_group(request.group)),
                Strategy::Spread(SpreadField::Attribute(name)) => {
                    spread_over.push(name);
                    let cell = |seen: &Seen| spread_over.iter().map(|name| seen.attribute(name).map(str::to_owned)).collect::<Vec<_>>();
                    let mut counts: HashMap<_, u32> = HashMap::new();
                    // Tasks on instances that take no more are tasks in the zone as well.
                    self.fleet.values().for_each(|seen| *counts.entry(cell(seen)).or_default() += seen.of_group(request.group));
                    keep_least(&mut candidates, |seen| counts[&cell(seen)]);
                }
                Strategy::BinpackCpu => keep_least(&mut candidates, |seen| seen.free_cpu),
                Strategy::BinpackMemory => keep_least(&mut candidates, |seen| seen.free_memory),
            }
        }
        if request.strategies.is_empty() {
            return ids(&candidates);
        }
        #[expect(clippy::cast_possible_truncation, reason = "half an id tells instances apart")]
        let half = |seen: &Seen| seen.instance.id.0 as u64;
        let packed = request.strategies.iter().find(|strategy| matches!(strategy, Strategy::BinpackCpu | Strategy::BinpackMemory));
        let best = match packed {
            Some(Strategy::BinpackMemory) => candidates.iter().min_by_key(|seen| (seen.free_memory, seen.free_cpu, Reverse(half(seen)))),
            Some(_) => candidates.iter().min_by_key(|seen| (seen.free_cpu, seen.free_memory, Reverse(half(seen)))),
            None => candidates.iter().max_by_key(|seen| (seen.free_memory, seen.free_cpu, Reverse(half(seen)))),
        };
        best.map(|seen| seen.instance.id).into_iter().collect()
    }

    /// Why each instance refuses, in the order of ids; one of another capacity provider is not asked.
    #[must_use]
    pub fn refusals(&self, request: &PlaceRequest<'_>) -> Vec<Refusal> {
        let asked = self.fleet.iter().filter(|(_, seen)| is_asked(seen, request));
        asked.filter_map(|(id, seen)| seen.refuse(request).map(|rule| Refusal { instance: *id, rule })).collect()
    }
}

fn is_asked(seen: &Seen, request: &PlaceRequest<'_>) -> bool {
    request.capacity_provider.is_none_or(|wanted| seen.attribute(CAPACITY_PROVIDER) == Some(wanted))
}

fn fits(seen: &Seen, request: &PlaceRequest<'_>) -> bool {
    is_asked(seen, request) && seen.refuse(request).is_none()
}

fn ids(candidates: &[&Seen]) -> Vec<ContainerInstanceId> {
    candidates.iter().map(|seen| seen.instance.id).collect()
}

fn keep_least(candidates: &mut Vec<&Seen>, measure: impl Fn(&Seen) -> u32) {
    let least = candidates.iter().map(|seen| measure(seen)).min();
    candidates.retain(|seen| Some(measure(seen)) == least);
}
