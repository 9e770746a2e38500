//! Many tasks folded into an index at once, as a snapshot brings them. It must end as if each had been folded in by itself.
//!
//! What tasks take is counted as they come, an instance's together; into the table of reservations they go later, many at once and in the
//! order of its cells, since one by one each would be waited for. One that was in it already is then counted out again.

use std::sync::Arc;

use berth_model::ids::ContainerInstanceId;
use berth_model::task::{Task, TaskStatus};

use super::{Index, Kind, NO_CLASS, Reservation, TaskKey};

/// Tasks that are looked at before the first of them is folded in, so that they come from memory together and none is waited for alone.
const AHEAD: usize = 32;
/// Kinds remembered; a cluster's services are about as many.
const KINDS: usize = 256;
/// Tasks that go into the table together: what they take while they wait fits a processor's cache.
const TOGETHER: usize = 1 << 17;
/// Below this it is not worth sorting them.
const FEW: usize = 1 << 10;

/// A task on its way into the table, or out of it if it holds nothing any more.
type Waiting = (TaskKey, Option<Reservation>);

/// What is known while tasks come.
struct Bulk<'t> {
    /// What was found for the tasks just before: the next are mostly like one of them, and comparing addresses costs less than looking up
    /// texts.
    kinds: Vec<Option<(&'t Task, u32)>>,
    slot: Option<(ContainerInstanceId, u32)>,
    /// Tasks of that slot which are not counted yet, by kind; and the kinds that have some.
    uncounted: Vec<u32>,
    of_kinds: Vec<u32>,
    waiting: Vec<Waiting>,
    sorted: Vec<Waiting>,
}

impl<'t> Bulk<'t> {
    fn new(expected: usize) -> Self {
        let waiting = Vec::with_capacity(expected.min(TOGETHER));
        Self { kinds: vec![None; KINDS], slot: None, uncounted: Vec::new(), of_kinds: Vec::new(), waiting, sorted: Vec::new() }
    }

    /// A task's kind. No use of it is counted.
    fn kind(&mut self, index: &mut Index, task: &'t Task) -> u32 {
        // Texts are aligned and have a head: the lowest bits of their addresses say nothing.
        let mixed =
            (task.group.as_ptr() as usize >> 4) ^ (task.demand.cpu as usize >> 4).wrapping_mul(31) ^ (task.demand.memory as usize >> 4);
        let place = &mut self.kinds[(mixed ^ mixed >> 8) % KINDS];
        if let Some((like, kind)) = *place
            && Arc::ptr_eq(&like.group, &task.group)
            && like.demand == task.demand
        {
            return kind;
        }
        let kind = index.kinds.number(&task.group, &task.demand);
        *place = Some((task, kind));
        kind
    }

    /// The slot of a task's instance. What was on the one before is counted.
    fn slot(&mut self, index: &mut Index, instance: ContainerInstanceId) -> u32 {
        match self.slot {
            Some((known, at)) if known == instance => at,
            _ => {
                self.count(index);
                let at = index.slot(instance);
                self.slot = Some((instance, at));
                at
            }
        }
    }

    /// Counts the slot's tasks in.
    fn count(&mut self, index: &mut Index) {
        let Some((_, at)) = self.slot else { return };
        let slot = &mut index.slots[at as usize];
        for number in self.of_kinds.drain(..) {
            let count = std::mem::take(&mut self.uncounted[number as usize]);
            let Kind { group, cpu, memory, .. } = *index.kinds.kind(number);
            slot.take(cpu, memory, group, count);
            if slot.class != NO_CLASS {
                index.kinds.count(group, slot.class, i64::from(count));
            }
            index.kinds.take_again(number, count);
        }
    }

    fn fold_in(&mut self, index: &mut Index, task: &'t Task) {
        let id = TaskKey::from(task.id);
        if task.demand.gpus > 0 {
            // Few have some; their ids are in a table of their own.
            self.settle(index);
            index.apply_task(task);
            self.forget();
            return;
        }
        if task.last_status == TaskStatus::Stopped {
            self.waiting.push((id, None));
        } else {
            let slot = self.slot(index, task.container_instance);
            let kind = self.kind(index, task);
            if index.kinds.kind(kind).takes_more || index.classes.is_sorted() {
                index.kinds.take_again(kind, 1);
                index.hold(slot, kind, 0);
            } else {
                if self.uncounted.len() <= kind as usize {
                    self.uncounted.resize(kind as usize + 1, 0);
                }
                let uncounted = &mut self.uncounted[kind as usize];
                if *uncounted == 0 {
                    self.of_kinds.push(kind);
                }
                *uncounted += 1;
            }
            self.waiting.push((id, Some(Reservation { slot, kind })));
        }
        if self.waiting.len() >= TOGETHER {
            self.settle(index);
        }
    }

    /// Brings what waits into the table, or out of it. Those of one task stay in the order in which they came.
    fn settle(&mut self, index: &mut Index) {
        self.count(index);
        if self.waiting.len() >= FEW {
            self.sort();
        }
        let mut is_gone = false;
        for (task, held) in self.waiting.drain(..) {
            match held {
                Some(held) if index.reservations.insert(task, held) => {}
                Some(twice) => {
                    index.give_back(twice, 0);
                    is_gone = true;
                }
                None if index.reservations.get(task).is_some() => {
                    index.release(task.into());
                    is_gone = true;
                }
                None => {}
            }
        }
        if is_gone {
            self.forget();
        }
    }

    /// A kind or a slot that nobody uses any more may become another's.
    fn forget(&mut self) {
        self.kinds.fill(None);
        self.slot = None;
    }

    /// Puts what waits into the order of the table's cells, by the upper bits of the hashes.
    fn sort(&mut self) {
        const PARTS: usize = 256;
        let part = |task: TaskKey| (task.hash() >> 56) as usize;
        let mut next = [0; PARTS + 1];
        self.waiting.iter().for_each(|(task, _)| next[part(*task) + 1] += 1);
        (0..PARTS).for_each(|at| next[at + 1] += next[at]);
        if let Some(any) = self.waiting.first() {
            self.sorted.resize(self.waiting.len(), *any);
        }
        for one in self.waiting.drain(..) {
            let at = &mut next[part(one.0)];
            self.sorted[*at] = one;
            *at += 1;
        }
        std::mem::swap(&mut self.waiting, &mut self.sorted);
    }
}

impl Index {
    /// Folds in many tasks. The same as one by one, and several times as fast; it makes room for as many as are expected.
    pub fn apply_tasks<'t>(&mut self, expected: usize, tasks: impl Iterator<Item = &'t Task>) {
        self.reservations.reserve(expected);
        let mut bulk = Bulk::new(expected);
        let mut next = Vec::with_capacity(AHEAD);
        let mut tasks = tasks.fuse();
        loop {
            next.extend(tasks.by_ref().take(AHEAD));
            if next.is_empty() {
                break;
            }
            let mut read = 0;
            for task in &next {
                let (id, demand) = (TaskKey::from(task.id), &task.demand);
                read ^= id.hash() ^ task.container_instance.0 as u64 ^ task.group.len() as u64 ^ u64::from(task.is_stopped());
                read ^= u64::from(demand.cpu ^ demand.gpus) ^ demand.ports_tcp.len() as u64 ^ demand.ports_udp.len() as u64;
            }
            std::hint::black_box(read);
            next.drain(..).for_each(|task| bulk.fold_in(self, task));
        }
        bulk.settle(self);
    }
}
