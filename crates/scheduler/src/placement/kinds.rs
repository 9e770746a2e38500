//! What tasks take and which group they count for, stored once for all that are alike.

use std::collections::HashMap;
use std::sync::Arc;

use berth_model::needs::Demand;
use foldhash::fast::RandomState;

use super::class::index;

#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) demand: Arc<Demand>,
    pub(super) cpu: u32,
    pub(super) memory: u32,
    /// It takes ports, GPUs, interfaces or public addresses as well.
    pub(super) takes_more: bool,
    pub(super) group: u32,
    uses: u32,
}

#[derive(Debug, Clone)]
struct Group {
    name: Arc<str>,
    /// Its tasks by class, in the order of classes.
    counts: Vec<(u32, u32)>,
    /// Its kinds, by what they take; the group lives as long as it has some.
    kinds: HashMap<Arc<Demand>, u32, RandomState>,
}

/// All kinds of tasks and their groups. A kind lives as long as it is used.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds {
    kinds: Vec<Kind>,
    free_kinds: Vec<u32>,
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    by_name: HashMap<Arc<str>, u32, RandomState>,
}

impl Kinds {
    pub(super) fn kind(&self, number: u32) -> &Kind {
        &self.kinds[number as usize]
    }

    /// The number of a group that has tasks.
    pub(super) fn group(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(super) fn group_name(&self, group: u32) -> &str {
        &self.groups[group as usize].name
    }

    pub(super) fn shared_name(&self, group: u32) -> Arc<str> {
        Arc::clone(&self.groups[group as usize].name)
    }

    pub(super) fn counts_of(&self, group: u32) -> &[(u32, u32)] {
        &self.groups[group as usize].counts
    }

    /// A kind's number. Whoever asks counts a [use](Self::take_again), or nobody ever forgets it.
    pub(super) fn number(&mut self, group: &str, demand: &Demand) -> u32 {
        let group = self.by_name.get(group).copied().unwrap_or_else(|| {
            let name: Arc<str> = group.into();
            let new = Group { name: Arc::clone(&name), counts: Vec::new(), kinds: HashMap::default() };
            let number = put(&mut self.groups, &mut self.free_groups, new);
            self.by_name.insert(name, number);
            number
        });
        let kinds = &mut self.groups[group as usize].kinds;
        kinds.get(demand).copied().unwrap_or_else(|| {
            let demand = Arc::new(demand.clone());
            let takes_ports = !demand.ports_tcp.is_empty() || !demand.ports_udp.is_empty();
            let takes_more = takes_ports || demand.gpus > 0 || demand.interfaces > 0 || demand.public_addresses > 0;
            let new = Kind { cpu: demand.cpu, memory: demand.memory, takes_more, demand: Arc::clone(&demand), group, uses: 0 };
            let number = put(&mut self.kinds, &mut self.free_kinds, new);
            kinds.insert(demand, number);
            number
        })
    }

    /// Counts so many uses more.
    pub(super) fn take_again(&mut self, kind: u32, more: u32) {
        self.kinds[kind as usize].uses += more;
    }

    /// Counts one use less.
    pub(super) fn give_back(&mut self, number: u32) {
        let kind = &mut self.kinds[number as usize];
        kind.uses -= 1;
        if kind.uses > 0 {
            return;
        }
        let group_number = kind.group;
        let demand = std::mem::take(&mut kind.demand);
        self.free_kinds.push(number);
        let group = &mut self.groups[group_number as usize];
        group.kinds.remove(&demand);
        if group.kinds.is_empty() {
            self.by_name.remove(&group.name);
            group.counts = Vec::new();
            self.free_groups.push(group_number);
        }
    }

    /// Counts tasks of a group in a class in, or out.
    pub(super) fn count(&mut self, group: u32, class: u32, more: i64) {
        let counts = &mut self.groups[group as usize].counts;
        match counts.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(at) => {
                counts[at].1 = u32::try_from(i64::from(counts[at].1) + more).unwrap_or(0);
                if counts[at].1 == 0 {
                    counts.remove(at);
                }
            }
            Err(at) => {
                if let Ok(count @ 1..) = u32::try_from(more) {
                    counts.insert(at, (class, count));
                }
            }
        }
    }

    /// Forgets which classes groups' tasks are in.
    pub(super) fn forget_counts(&mut self) {
        self.groups.iter_mut().for_each(|group| group.counts.clear());
    }
}

fn put<T>(all: &mut Vec<T>, free: &mut Vec<u32>, one: T) -> u32 {
    if let Some(number) = free.pop() {
        all[number as usize] = one;
        number
    } else {
        all.push(one);
        index(all.len() - 1)
    }
}
