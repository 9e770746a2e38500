//! What placement must know of a cluster, kept up by changes. A placement costs what its answer needs, not the size of the fleet; and
//! what it answers is exact: [`super::oracle`] looks at every instance and says the same.

mod bulk;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use berth_model::container_instance::{CAPACITY_PROVIDER, ContainerInstance, ContainerInstanceStatus};
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::task::{Task, TaskStatus};
use foldhash::fast::RandomState;

use super::class::{self, Class, Classes, Filter, index};
use super::kinds::{Kind, Kinds};
use super::level::levels;
use super::reservations::{Reservation, Reservations, TaskKey};
use super::shape::Shape;
use super::shapes::Shapes;
use super::slot::{self, Asked, NO_CLASS, Slot, Wants};
use super::{Constraint, PlaceRequest, Placement, Refusal, Rule, Strategy};

/// A cluster's instances with what is free on them.
#[derive(Debug, Clone, Default)]
pub struct Index {
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    by_id: HashMap<ContainerInstanceId, u32, RandomState>,
    /// Instances that are registered.
    known: usize,
    reservations: Reservations,
    /// The ids of the GPUs of tasks that have some.
    gpus: HashMap<TaskKey, Vec<String>, RandomState>,
    classes: Classes,
    kinds: Kinds,
    shapes: Shapes,
}

/// What a search reads.
#[derive(Clone, Copy)]
pub(super) struct Fleet<'a> {
    slots: &'a [Slot],
    pub(super) classes: &'a Classes,
    kinds: &'a Kinds,
}

impl<'a> Fleet<'a> {
    pub(super) fn slot(&self, number: u32) -> &'a Slot {
        &self.slots[number as usize]
    }

    pub(super) fn class(&self, number: u32) -> &'a Class {
        &self.classes.all[number as usize]
    }

    /// A group's tasks by class.
    pub(super) fn counts_of(&self, group: u32) -> &'a [(u32, u32)] {
        self.kinds.counts_of(group)
    }

    /// An open instance of a class that will do has room.
    pub(super) fn fits(&self, wants: &Wants, slot: &Slot) -> bool {
        wants.fit(slot, || self.classes.profile(slot.profile), |group| self.kinds.group_name(group))
    }
}

impl Index {
    /// No instance is known, whatever its state.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.known == 0
    }

    /// Folds in a new or changed instance.
    pub fn apply_instance(&mut self, instance: &ContainerInstance) {
        if instance.status == ContainerInstanceStatus::Inactive {
            self.remove_instance(instance.id);
            return;
        }
        let at = self.slot(instance.id);
        let number = at as usize;
        self.close(at);
        let slot = &self.slots[number];
        let registered = &instance.registered;
        let was_registered = slot.registered;
        if !was_registered || !self.classes.profile(slot.profile).is_of(instance) {
            let old = was_registered.then_some(slot.profile);
            let profile = self.classes.use_profile(instance);
            let class = self.classes.class_of_profile(profile);
            self.count_groups(at, -1);
            let slot = &mut self.slots[number];
            (slot.profile, slot.class) = (profile, class);
            self.count_groups(at, 1);
            if let Some(old) = old {
                self.classes.drop_profile(old);
            }
            self.number_gpus_again(at);
        }
        self.known += usize::from(!was_registered);
        let slot = &mut self.slots[number];
        slot.registered = true;
        slot.active = instance.status == ContainerInstanceStatus::Active;
        slot.connected = instance.agent_connected;
        (slot.cpu, slot.memory) = (registered.cpu, registered.memory);
        slot.registered_at = instance.registered_at;
        if slot.ec2_instance_id.as_deref() != instance.ec2_instance_id.as_deref() {
            slot.ec2_instance_id = instance.ec2_instance_id.as_deref().map(Arc::from);
        }
        if slot.is_open() {
            self.classes.enter(at, slot);
        }
        if self.classes.is_wasteful() {
            self.classes.divide(&mut self.slots);
            self.start_again();
        }
    }

    /// It takes tasks, and no other does that is like it in all that requests asked of attributes. Only as an instance becomes that, there
    /// may be a [value](Self::values) that there was not before.
    #[must_use]
    pub fn is_alone(&self, instance: ContainerInstanceId) -> bool {
        let slot = self.by_id.get(&instance).map(|at| &self.slots[*at as usize]).filter(|slot| slot.is_open());
        slot.and_then(|slot| self.classes.all.get(slot.class as usize)).is_some_and(|class| class.members.len() == 1)
    }

    /// The values of an attribute among the instances that take tasks, as far as the request's attributes, capacity provider and
    /// constraints on attributes let its tasks go there. Whether there is room is not asked.
    pub fn values(&mut self, request: &PlaceRequest<'_>, attribute: &str) -> BTreeSet<String> {
        let filter = Filter::of(request);
        let filter = self.ask(|classes, slots| classes.ask_filter(&filter, slots));
        let field = self.ask(|classes, slots| classes.ask_field(attribute, slots));
        self.classes.open_values(filter, field).map(str::to_owned).collect()
    }

    /// Which GPUs of an instance that has others than before, or was not known, are in use.
    fn number_gpus_again(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        // What ended while the instance was not known gave no number back.
        slot.gpus = 0;
        if slot.used_gpus > 0 {
            let now = &self.classes.profile(slot.profile).gpus;
            let here = self.gpus.iter().filter(|(task, _)| self.reservations.get(**task).is_some_and(|held| held.slot == at));
            slot.gpus = here.fold(0, |bits, (_, ids)| bits | numbers(now, ids));
        }
    }

    /// The ids of the GPUs that a task was given.
    #[must_use]
    pub fn gpus_of(&self, task: TaskId) -> &[String] {
        self.gpus.get(&TaskKey::from(task)).map_or(&[], Vec::as_slice)
    }

    /// CPU units and MiB that are free on an instance.
    #[must_use]
    pub fn room(&self, instance: ContainerInstanceId) -> Option<(u32, u32)> {
        let slot = &self.slots[*self.by_id.get(&instance)? as usize];
        Some((slot.free_cpu(), slot.free_memory()))
    }

    /// The attributes of an instance that is registered.
    #[must_use]
    pub fn attributes(&self, instance: ContainerInstanceId) -> Option<&BTreeMap<String, Option<String>>> {
        let slot = &self.slots[*self.by_id.get(&instance)? as usize];
        slot.registered.then(|| &self.classes.profile(slot.profile).attributes)
    }

    /// Forgets an instance; its tasks hold what they have until they are released.
    pub fn remove_instance(&mut self, id: ContainerInstanceId) {
        let Some(at) = self.by_id.get(&id).copied().filter(|at| self.slots[*at as usize].registered) else { return };
        self.close(at);
        self.count_groups(at, -1);
        let slot = &mut self.slots[at as usize];
        let profile = slot.profile;
        slot.registered = false;
        slot.class = NO_CLASS;
        self.known -= 1;
        self.classes.drop_profile(profile);
        self.forget_if_unused(at);
    }

    /// It takes no tasks while it is changed.
    fn close(&mut self, at: u32) {
        let slot = &self.slots[at as usize];
        if slot.is_open()
            && let Some(moved) = self.classes.leave(at, slot)
        {
            self.slots[moved as usize].place = slot.place;
        }
    }

    fn forget_if_unused(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        if !slot.registered && slot.tasks == 0 {
            self.by_id.remove(&slot.id);
            *slot = Slot::unknown(slot.id);
            self.free_slots.push(at);
        }
    }

    /// An instance's slot, made if there is none.
    fn slot(&mut self, id: ContainerInstanceId) -> u32 {
        if let Some(at) = self.by_id.get(&id) {
            return *at;
        }
        let slot = Slot::unknown(id);
        let at = if let Some(at) = self.free_slots.pop() {
            self.slots[at as usize] = slot;
            at
        } else {
            self.slots.push(slot);
            index(self.slots.len() - 1)
        };
        self.by_id.insert(id, at);
        at
    }

    /// Counts an instance's tasks into the counts of its class, or out of them.
    fn count_groups(&mut self, at: u32, sign: i64) {
        let slot = &self.slots[at as usize];
        if slot.class != NO_CLASS {
            for (group, count) in slot.groups.iter().zip(&slot.counts) {
                self.kinds.count(*group, slot.class, sign * i64::from(*count));
            }
        }
    }

    /// Classes have new numbers: what names one is made anew.
    fn start_again(&mut self) {
        self.shapes.clear(&mut self.kinds);
        self.kinds.forget_counts();
        for at in 0..self.slots.len() {
            self.count_groups(index(at), 1);
        }
    }

    /// The instance is registered.
    #[must_use]
    pub fn knows(&self, instance: ContainerInstanceId) -> bool {
        self.by_id.get(&instance).is_some_and(|at| self.slots[*at as usize].registered)
    }

    /// Folds in a new or changed task: it holds its resources until it is STOPPED. Folding one in twice changes nothing.
    pub fn apply_task(&mut self, task: &Task) {
        self.apply_task_of(task, &task.group);
    }

    /// The same of a task that counts to another group here than to its own: groups of two clusters may be called alike.
    pub fn apply_task_of(&mut self, task: &Task, group: &str) {
        if task.last_status == TaskStatus::Stopped {
            self.release(task.id);
            return;
        }
        if self.reservations.get(task.id.into()).is_none() {
            let at = self.slot(task.container_instance);
            let kind = self.kinds.number(group, &task.demand);
            self.kinds.take_again(kind, 1);
            self.reserve(task.id, at, kind, gpus_of(task));
        }
    }

    /// Gives back what a task held: it ended, or its placement was not committed.
    pub fn release(&mut self, id: TaskId) {
        let Some(held) = self.reservations.remove(TaskKey::from(id)) else { return };
        let Kind { takes_more, ref demand, .. } = *self.kinds.kind(held.kind);
        let has_gpus = takes_more && demand.gpus > 0;
        let gpus = if has_gpus { self.gpu_numbers(held.slot, id) } else { 0 };
        if has_gpus {
            self.gpus.remove(&TaskKey::from(id));
        }
        self.give_back(held, gpus);
    }

    /// Counts a task out that has these GPUs.
    fn give_back(&mut self, Reservation { slot: at, kind }: Reservation, gpus: u64) {
        let Kind { group, cpu, memory, takes_more, ref demand, .. } = *self.kinds.kind(kind);
        let demand = takes_more.then(|| Arc::clone(demand));
        self.change(at, |slot| {
            slot.used_cpu -= u64::from(cpu);
            slot.used_memory -= u64::from(memory);
            if let Some(demand) = demand {
                slot.gpus &= !gpus;
                slot.used_gpus -= demand.gpus;
                slot.used_interfaces -= demand.interfaces;
                slot.used_public_addresses -= demand.public_addresses;
                slot.give_back_ports(&demand);
            }
            slot.count_out(group);
            slot.tasks -= 1;
        });
        let class = self.slots[at as usize].class;
        if class != NO_CLASS {
            self.kinds.count(group, class, -1);
        }
        self.kinds.give_back(kind);
        self.forget_if_unused(at);
    }

    /// A task holds what its kind takes, and these GPUs; the use of the kind was counted.
    fn reserve(&mut self, id: TaskId, at: u32, kind: u32, gpus: Vec<String>) {
        let is_new = self.reservations.insert(TaskKey::from(id), Reservation { slot: at, kind });
        debug_assert!(is_new, "a task holds one place");
        let mut bits = 0;
        if !gpus.is_empty() {
            self.gpus.insert(TaskKey::from(id), gpus);
            bits = self.gpu_numbers(at, id);
        }
        self.hold(at, kind, bits);
    }

    /// Counts a task in that has these GPUs; the use of the kind was counted.
    fn hold(&mut self, at: u32, kind: u32, gpus: u64) {
        let Kind { group, cpu, memory, takes_more, ref demand, .. } = *self.kinds.kind(kind);
        let demand = takes_more.then(|| Arc::clone(demand));
        self.change(at, |slot| {
            if let Some(demand) = demand {
                slot.gpus |= gpus;
                slot.used_gpus += demand.gpus;
                slot.used_interfaces += demand.interfaces;
                slot.used_public_addresses += demand.public_addresses;
                slot.take_ports(&demand);
            }
            slot.take(cpu, memory, group, 1);
        });
        let class = self.slots[at as usize].class;
        if class != NO_CLASS {
            self.kinds.count(group, class, 1);
        }
    }

    /// Changes what is taken on an instance.
    fn change(&mut self, at: u32, change: impl FnOnce(&mut Slot)) {
        let slot = &mut self.slots[at as usize];
        if !slot.is_open() || !self.classes.is_sorted() {
            change(slot);
            return;
        }
        let before = slot.by_memory(at);
        change(slot);
        self.classes.changed(at, slot, &before);
    }

    /// Places tasks and reserves what they take. A task that finds no place ends the placement: those after it are alike.
    pub fn place(&mut self, request: &PlaceRequest<'_>) -> Placement {
        let mut placement = Placement::default();
        let found = self.shapes.find(request).unwrap_or_else(|| {
            let shape = self.shape(request);
            self.shapes.put(request, shape, &mut self.kinds)
        });
        for (number, task) in request.tasks.iter().enumerate() {
            let shape = self.shapes.used(found);
            let fleet = Fleet { slots: &self.slots, classes: &self.classes, kinds: &self.kinds };
            let Some(at) = shape.pick(&fleet, request.seed.wrapping_add(number as u64)) else {
                placement.refusals = self.refusals(request);
                break;
            };
            let kind = shape.kind;
            self.kinds.take_again(kind, 1);
            let gpus = self.choose_gpus(at, request);
            self.reserve(*task, at, kind, gpus);
            placement.placed.push((*task, self.slots[at as usize].id));
        }
        placement
    }

    /// A new shape.
    fn shape(&mut self, request: &PlaceRequest<'_>) -> Shape {
        let filter = Filter::of(request);
        let (_, names, _) = levels(request.strategies);
        let mut fields: Vec<_> = names.iter().map(|name| self.ask(|classes, slots| classes.ask_field(name, slots))).collect();
        let filter = self.ask(|classes, slots| classes.ask_filter(&filter, slots));
        if names.len() > 1 {
            // The one asked for last may have made the first be forgotten.
            fields = names.iter().map(|name| self.ask(|classes, slots| classes.ask_field(name, slots))).collect();
        }
        self.classes.sort(&self.slots);
        if request.strategies.contains(&Strategy::BinpackCpu) {
            self.classes.ask_by_cpu(&self.slots);
        }
        let kind = self.kinds.number(request.group, request.demand);
        self.kinds.take_again(kind, 1);
        let group = self.kinds.kind(kind).group;
        let wants = Wants {
            cpu: request.demand.cpu,
            memory: request.demand.memory,
            demand: request.demand.clone(),
            has_gpus: request.demand.gpus > 0,
            has_interfaces: request.demand.interfaces > 0,
            has_public_addresses: request.demand.public_addresses > 0,
            has_ports: slot::ports_of(request.demand).next().is_some(),
            apart_from: request.constraints.contains(&Constraint::DistinctInstance).then_some(group),
            conditions: class::expressions(request, false),
        };
        let names = (self.kinds.shared_name(group), kind, group);
        Shape::new(request, names, filter, fields, wants)
    }

    fn ask(&mut self, ask: impl FnOnce(&mut Classes, &mut [Slot]) -> super::class::Asked) -> usize {
        let asked = ask(&mut self.classes, &mut self.slots);
        if asked.is_new_partition {
            self.start_again();
        }
        asked.number
    }

    /// Places one task on a given instance (StartTask) and reserves what it takes.
    ///
    /// # Errors
    /// The rule that refuses; `None` if there is no such instance.
    pub fn place_on(&mut self, instance: ContainerInstanceId, request: &PlaceRequest<'_>) -> Result<(), Option<Rule>> {
        let at = self.by_id.get(&instance).copied().filter(|at| self.slots[*at as usize].registered).ok_or(None)?;
        if let Some(rule) = self.refuse(&self.slots[at as usize], request) {
            return Err(Some(rule));
        }
        for task in request.tasks {
            let kind = self.kinds.number(request.group, request.demand);
            self.kinds.take_again(kind, 1);
            let gpus = self.choose_gpus(at, request);
            self.reserve(*task, at, kind, gpus);
        }
        Ok(())
    }

    /// The GPUs that a task gets on an instance that fits.
    fn choose_gpus(&self, at: u32, request: &PlaceRequest<'_>) -> Vec<String> {
        let slot = &self.slots[at as usize];
        if request.demand.gpus == 0 {
            return Vec::new();
        }
        let profile = self.classes.profile(slot.profile);
        let chosen = slot.choose_gpus(profile, request.demand.gpus);
        profile.gpus.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1).map(|(_, id)| id.clone()).collect()
    }

    /// The bits of a task's GPUs on its instance.
    fn gpu_numbers(&self, at: u32, task: TaskId) -> u64 {
        let slot = &self.slots[at as usize];
        if !slot.registered { 0 } else { numbers(&self.classes.profile(slot.profile).gpus, self.gpus_of(task)) }
    }

    fn refuse(&self, slot: &Slot, request: &PlaceRequest<'_>) -> Option<Rule> {
        let asked = Asked {
            attributes: request.attributes,
            demand: request.demand,
            constraints: request.constraints,
            group: self.kinds.group(request.group),
        };
        slot::refuse(slot, self.classes.profile(slot.profile), &asked, |group| self.kinds.group_name(group))
    }

    /// Why each instance refuses, in the order of ids. One of another capacity provider refuses nothing: it is not asked.
    fn refusals(&self, request: &PlaceRequest<'_>) -> Vec<Refusal> {
        let provider = |slot: &&Slot| {
            request.capacity_provider.is_none_or(|wanted| {
                let own = self.classes.profile(slot.profile).attributes.get(CAPACITY_PROVIDER);
                own.is_some_and(|own| own.as_deref() == Some(wanted))
            })
        };
        let asked = self.slots.iter().filter(|slot| slot.registered).filter(provider);
        let mut refusals: Vec<_> =
            asked.filter_map(|slot| self.refuse(slot, request).map(|rule| Refusal { instance: slot.id, rule })).collect();
        refusals.sort_unstable_by_key(|refusal| refusal.instance);
        refusals
    }
}

/// The ids of the GPUs that are a task's.
fn gpus_of(task: &Task) -> Vec<String> {
    if task.demand.gpus == 0 { Vec::new() } else { task.containers.iter().flat_map(|container| &container.gpu_ids).cloned().collect() }
}

/// The bits that stand for ids.
fn numbers(gpus: &[String], ids: &[String]) -> u64 {
    ids.iter().filter_map(|id| gpus.iter().position(|gpu| gpu == id)).fold(0, |bits, at| bits | 1 << at)
}
