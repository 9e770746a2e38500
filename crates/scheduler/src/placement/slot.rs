//! One container instance as placement sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use berth_model::container_instance::{ContainerInstance, MAX_GPUS};
use berth_model::ids::ContainerInstanceId;
use berth_model::needs::Demand;
use berth_model::time::UnixMillis;
use foldhash::fast::FixedState;

use super::order::Entry;
use super::{Constraint, Rule};
use crate::query::{Expression, Subject};

/// No class: an instance that is not registered, of which only tasks are known.
pub(super) const NO_CLASS: u32 = u32::MAX;

/// A port with its protocol, as one number.
pub(super) const fn tcp(port: u16) -> u32 {
    port as u32
}

/// See [`tcp`].
pub(super) const fn udp(port: u16) -> u32 {
    0x1_0000 | port as u32
}

/// The ports that a task takes.
pub(super) fn ports_of(demand: &Demand) -> impl Iterator<Item = u32> {
    demand.ports_tcp.iter().map(|port| tcp(*port)).chain(demand.ports_udp.iter().map(|port| udp(*port)))
}

/// What instances have alike that registered alike; stored once for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Profile {
    /// Attributes by name.
    pub(super) attributes: BTreeMap<String, Option<String>>,
    /// Ports that the machine keeps for itself.
    ports_tcp: BTreeSet<u16>,
    ports_udp: BTreeSet<u16>,
    /// The ids of its GPUs, in order; a bit of [`Slot::gpus`] each.
    pub(super) gpus: Vec<String>,
    /// How many interfaces of tasks it holds; its attributes say it.
    interfaces: u32,
    /// How many public addresses it has for tasks; likewise.
    public_addresses: u32,
    /// The agent's version, for expressions.
    pub(super) agent_version: Option<String>,
}

impl Profile {
    pub(super) fn of(instance: &ContainerInstance) -> Self {
        let registered = &instance.registered;
        Self {
            attributes: instance.attributes.clone(),
            ports_tcp: registered.ports_tcp.clone(),
            ports_udp: registered.ports_udp.clone(),
            gpus: registered.gpus.iter().take(MAX_GPUS).cloned().collect(),
            interfaces: instance.interfaces(),
            public_addresses: instance.public_addresses().map_or(0, |own| own.count()),
            agent_version: instance.agent.agent_version.clone(),
        }
    }

    /// It is the profile of this instance.
    pub(super) fn is_of(&self, instance: &ContainerInstance) -> bool {
        let registered = &instance.registered;
        self.agent_version == instance.agent.agent_version
            && self.gpus.iter().eq(registered.gpus.iter().take(MAX_GPUS))
            && self.ports_tcp == registered.ports_tcp
            && self.ports_udp == registered.ports_udp
            && self.attributes == instance.attributes
    }

    #[expect(clippy::cast_possible_truncation, reason = "the protocol is above the port's 16 bits")]
    fn keeps(&self, port: u32) -> bool {
        if port > u32::from(u16::MAX) { self.ports_udp.contains(&(port as u16)) } else { self.ports_tcp.contains(&(port as u16)) }
    }

    /// The same for instances of the same profile, and another for most others.
    pub(super) fn hash_of(instance: &ContainerInstance) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        instance.attributes.hash(&mut hasher);
        instance.registered.gpus.hash(&mut hasher);
        instance.agent.agent_version.hash(&mut hasher);
        hasher.finish()
    }
}

/// One instance.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) id: ContainerInstanceId,
    /// An instance record is known.
    pub(super) registered: bool,
    /// It is ACTIVE.
    pub(super) active: bool,
    /// Its agent is connected.
    pub(super) connected: bool,
    /// Instances that are alike in all that requests ask of attributes.
    pub(super) class: u32,
    /// Where it stands among its class's members, if it may take tasks.
    pub(super) place: u32,
    pub(super) profile: u32,
    /// Registered CPU units and MiB.
    pub(super) cpu: u32,
    pub(super) memory: u32,
    /// Taken; may exceed what is registered now.
    pub(super) used_cpu: u64,
    pub(super) used_memory: u64,
    /// Tasks that hold something here.
    pub(super) tasks: u32,
    /// The groups of its tasks, in no order, and how many of each.
    pub(super) groups: Vec<u32>,
    pub(super) counts: Vec<u32>,
    /// Ports in use, each as often as it was taken.
    pub(super) ports: Vec<u32>,
    /// GPUs in use, a bit each; and how many its tasks asked for, which may be more after it lost some.
    pub(super) gpus: u64,
    pub(super) used_gpus: u32,
    /// Interfaces of its tasks; may exceed what it holds now.
    pub(super) used_interfaces: u32,
    /// Public addresses that its tasks have; likewise.
    pub(super) used_public_addresses: u32,
    pub(super) registered_at: UnixMillis,
    pub(super) ec2_instance_id: Option<Arc<str>>,
}

impl Slot {
    pub(super) const fn unknown(id: ContainerInstanceId) -> Self {
        Self {
            id,
            registered: false,
            active: false,
            connected: false,
            class: NO_CLASS,
            place: 0,
            profile: 0,
            cpu: 0,
            memory: 0,
            used_cpu: 0,
            used_memory: 0,
            tasks: 0,
            groups: Vec::new(),
            counts: Vec::new(),
            ports: Vec::new(),
            gpus: 0,
            used_gpus: 0,
            used_interfaces: 0,
            used_public_addresses: 0,
            registered_at: UnixMillis(0),
            ec2_instance_id: None,
        }
    }

    pub(super) fn free_cpu(&self) -> u32 {
        free(self.cpu, self.used_cpu)
    }

    pub(super) fn free_memory(&self) -> u32 {
        free(self.memory, self.used_memory)
    }

    /// It may take tasks at all.
    pub(super) const fn is_open(&self) -> bool {
        self.registered && self.active && self.connected
    }

    /// Its place in the order by memory.
    pub(super) fn by_memory(&self, slot: u32) -> Entry {
        Entry::new(self.free_memory(), self.free_cpu(), tie(self.id), slot)
    }

    /// Its place in the order by CPU.
    pub(super) fn by_cpu(&self, slot: u32) -> Entry {
        Entry::new(self.free_cpu(), self.free_memory(), tie(self.id), slot)
    }

    /// A row of numbers is walked faster than anything cleverer: a cache line holds sixteen of them.
    fn place_of(&self, group: u32) -> Option<usize> {
        self.groups.iter().position(|other| *other == group)
    }

    pub(super) fn of_group(&self, group: u32) -> u32 {
        self.place_of(group).map_or(0, |at| self.counts[at])
    }

    /// So many tasks of a group take CPU units and MiB each.
    pub(super) fn take(&mut self, cpu: u32, memory: u32, group: u32, count: u32) {
        self.used_cpu += u64::from(cpu) * u64::from(count);
        self.used_memory += u64::from(memory) * u64::from(count);
        self.tasks += count;
        if let Some(at) = self.place_of(group) {
            self.counts[at] += count;
        } else {
            self.groups.push(group);
            self.counts.push(count);
        }
    }

    /// Counts a task of a group out.
    pub(super) fn count_out(&mut self, group: u32) {
        let Some(at) = self.place_of(group) else { return };
        self.counts[at] -= 1;
        if self.counts[at] == 0 {
            self.groups.swap_remove(at);
            self.counts.swap_remove(at);
        }
    }

    pub(super) fn take_ports(&mut self, demand: &Demand) {
        for port in ports_of(demand) {
            let at = self.ports.partition_point(|other| *other < port);
            self.ports.insert(at, port);
        }
    }

    pub(super) fn give_back_ports(&mut self, demand: &Demand) {
        for port in ports_of(demand) {
            if let Ok(at) = self.ports.binary_search(&port) {
                self.ports.remove(at);
            }
        }
    }

    pub(super) fn free_gpus(&self, profile: &Profile) -> u32 {
        every_gpu(profile.gpus.len()).count_ones().saturating_sub(self.used_gpus)
    }

    pub(super) const fn free_interfaces(&self, profile: &Profile) -> u32 {
        profile.interfaces.saturating_sub(self.used_interfaces)
    }

    pub(super) const fn free_public_addresses(&self, profile: &Profile) -> u32 {
        profile.public_addresses.saturating_sub(self.used_public_addresses)
    }

    /// So many GPUs that are free, the first ones; fewer if there are not so many.
    pub(super) fn choose_gpus(&self, profile: &Profile, count: u32) -> u64 {
        let mut free = every_gpu(profile.gpus.len()) & !self.gpus;
        let mut chosen = 0;
        for _ in 0..count {
            let first = free & free.wrapping_neg();
            chosen |= first;
            free &= !first;
        }
        chosen
    }

    /// The first port of a task that is taken here.
    fn taken_port(&self, profile: &Profile, demand: &Demand) -> Option<u32> {
        ports_of(demand).find(|port| self.ports.binary_search(port).is_ok() || profile.keeps(*port))
    }

    /// Whether an expression holds for it; `name` gives a group's name.
    pub(super) fn holds<'n>(&self, expression: &Expression, profile: &Profile, name: impl Fn(u32) -> &'n str) -> bool {
        expression.holds(&Subject {
            attributes: &profile.attributes,
            agent_connected: self.connected,
            agent_version: profile.agent_version.as_deref(),
            ec2_instance_id: self.ec2_instance_id.as_deref(),
            registered_at: self.registered_at,
            // A task that was placed a moment ago and does not run yet counts: whoever asks for `runningTasksCount < 1` wants one.
            running_tasks: self.tasks,
            any_group: &|accepts| self.groups.iter().any(|group| accepts(name(*group))),
        })
    }
}

const fn every_gpu(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

const fn free(registered: u32, used: u64) -> u32 {
    // What is free is at most what is registered, which is a u32.
    #[expect(clippy::cast_possible_truncation, reason = "at most `registered`")]
    let free = (registered as u64).saturating_sub(used) as u32;
    free
}

/// Ids are random: half of one tells them apart, and two that it does not are told apart by their slots.
#[expect(clippy::cast_possible_truncation, reason = "half an id, see above")]
const fn tie(id: ContainerInstanceId) -> u64 {
    !(id.0 as u64)
}

/// What a task asks of one instance, beyond what its class answers.
#[derive(Debug, Clone)]
pub(super) struct Wants {
    pub(super) cpu: u32,
    pub(super) memory: u32,
    pub(super) demand: Demand,
    pub(super) has_gpus: bool,
    pub(super) has_interfaces: bool,
    pub(super) has_public_addresses: bool,
    pub(super) has_ports: bool,
    /// The group of which no task may be there.
    pub(super) apart_from: Option<u32>,
    /// Conditions that read more than attributes.
    pub(super) conditions: Vec<Arc<Expression>>,
}

impl Wants {
    /// CPU and memory are all that is asked: what an order tells of an instance decides.
    pub(super) const fn is_plain(&self) -> bool {
        !(self.has_gpus || self.has_interfaces || self.has_public_addresses || self.has_ports)
            && self.apart_from.is_none()
            && self.conditions.is_empty()
    }

    /// An open instance of a class that will do has room.
    pub(super) fn fit<'n>(&self, slot: &Slot, profile: impl Fn() -> &'n Profile, name: impl Fn(u32) -> &'n str + Copy) -> bool {
        slot.free_memory() >= self.memory
            && slot.free_cpu() >= self.cpu
            && self.apart_from.is_none_or(|group| slot.of_group(group) == 0)
            && (!self.has_gpus || slot.free_gpus(profile()) >= self.demand.gpus)
            && (!self.has_interfaces || slot.free_interfaces(profile()) >= self.demand.interfaces)
            && (!self.has_public_addresses || slot.free_public_addresses(profile()) >= self.demand.public_addresses)
            && (!self.has_ports || slot.taken_port(profile(), &self.demand).is_none())
            && self.conditions.iter().all(|condition| slot.holds(condition, profile(), name))
    }
}

/// Everything that a request asks of an instance, for the reason of a refusal.
pub(super) struct Asked<'a> {
    pub(super) attributes: &'a BTreeSet<String>,
    pub(super) demand: &'a Demand,
    pub(super) constraints: &'a [Constraint],
    /// The request's group, if a task of it is known.
    pub(super) group: Option<u32>,
}

/// The first rule by which an instance cannot take a task.
pub(super) fn refuse<'n>(slot: &Slot, profile: &Profile, asked: &Asked<'_>, name: impl Fn(u32) -> &'n str + Copy) -> Option<Rule> {
    if !slot.active {
        return Some(Rule::Inactive);
    }
    if !slot.connected {
        return Some(Rule::Agent);
    }
    if let Some(missing) = asked.attributes.iter().find(|name| !profile.attributes.contains_key(*name)) {
        return Some(Rule::Attribute(missing.clone()));
    }
    let demand = asked.demand;
    if demand.cpu > slot.free_cpu() {
        return Some(Rule::Cpu { wanted: demand.cpu, free: slot.free_cpu() });
    }
    if demand.memory > slot.free_memory() {
        return Some(Rule::Memory { wanted: demand.memory, free: slot.free_memory() });
    }
    if demand.gpus > slot.free_gpus(profile) {
        return Some(Rule::Gpu { wanted: demand.gpus, free: slot.free_gpus(profile) });
    }
    if demand.interfaces > slot.free_interfaces(profile) {
        return Some(Rule::Interfaces { wanted: demand.interfaces, free: slot.free_interfaces(profile) });
    }
    if demand.public_addresses > slot.free_public_addresses(profile) {
        return Some(Rule::PublicAddresses { wanted: demand.public_addresses, free: slot.free_public_addresses(profile) });
    }
    if let Some(port) = slot.taken_port(profile, demand) {
        #[expect(clippy::cast_possible_truncation, reason = "the protocol is above the port's 16 bits")]
        return Some(Rule::Port(port as u16));
    }
    asked.constraints.iter().find_map(|constraint| match constraint {
        Constraint::DistinctInstance => asked.group.is_some_and(|group| slot.of_group(group) > 0).then_some(Rule::DistinctInstance),
        Constraint::MemberOf(expression) => (!slot.holds(expression, profile, name)).then(|| Rule::MemberOf(expression.to_string())),
    })
}
