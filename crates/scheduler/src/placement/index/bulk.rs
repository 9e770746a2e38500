//! Many tasks folded into an index at once, as a snapshot brings them. It must end as if each had been folded in by itself.

use std::sync::Arc;

use berth_model::ids::ContainerInstanceId;
use berth_model::task::{Task, TaskStatus};

use super::{Index, TaskKey, gpus_of};

/// Tasks that are looked at before the first of them is folded in, so that they come from memory together and none is waited for alone.
const AHEAD: usize = 32;
/// Kinds remembered; a cluster's services are about as many.
const KINDS: usize = 256;

/// What was found for the tasks just before: the next are mostly like one of them, and comparing addresses costs less than looking up texts.
struct Lately<'t> {
    kinds: [Option<(&'t Task, u32)>; KINDS],
    slot: Option<(ContainerInstanceId, u32)>,
}

impl<'t> Lately<'t> {
    const fn nothing() -> Self {
        Self { kinds: [None; KINDS], slot: None }
    }

    /// A task's kind; counts one use more.
    fn take_kind(&mut self, index: &mut Index, task: &'t Task) -> u32 {
        // Texts are aligned and have a head: the lowest bits of their addresses say nothing.
        let mixed =
            (task.group.as_ptr() as usize >> 4) ^ (task.demand.cpu as usize >> 4).wrapping_mul(31) ^ (task.demand.memory as usize >> 4);
        let place = &mut self.kinds[(mixed ^ mixed >> 8) % KINDS];
        if let Some((like, kind)) = *place
            && Arc::ptr_eq(&like.group, &task.group)
            && like.demand == task.demand
        {
            index.kinds.take_again(kind);
            return kind;
        }
        let kind = index.kinds.take(&task.group, &task.demand);
        *place = Some((task, kind));
        kind
    }

    fn slot(&mut self, index: &mut Index, instance: ContainerInstanceId) -> u32 {
        match self.slot {
            Some((known, at)) if known == instance => at,
            _ => {
                let at = index.slot(instance);
                self.slot = Some((instance, at));
                at
            }
        }
    }
}

impl Index {
    /// Folds in many tasks. The same as one by one, and several times as fast; it makes room for as many as are expected.
    pub fn apply_tasks<'t>(&mut self, expected: usize, tasks: impl Iterator<Item = &'t Task>) {
        self.reservations.reserve(expected);
        let mut lately = Lately::nothing();
        let mut next = Vec::with_capacity(AHEAD);
        let mut tasks = tasks.fuse();
        loop {
            next.extend(tasks.by_ref().take(AHEAD));
            if next.is_empty() {
                return;
            }
            let mut read = 0;
            for task in &next {
                read ^= u64::from(task.demand.cpu) ^ task.group.len() as u64 ^ u64::from(task.last_status == TaskStatus::Stopped);
                read ^= u64::from(self.reservations.contains_key(&TaskKey::from(task.id)));
            }
            std::hint::black_box(read);
            for task in next.drain(..) {
                if task.last_status != TaskStatus::Stopped {
                    self.fold_in(task, &mut lately);
                } else if self.reservations.contains_key(&TaskKey::from(task.id)) {
                    self.release(task.id);
                    // A kind or a slot that nobody uses any more may become another's.
                    lately = Lately::nothing();
                }
            }
        }
    }

    fn fold_in<'t>(&mut self, task: &'t Task, lately: &mut Lately<'t>) {
        if self.reservations.contains_key(&TaskKey::from(task.id)) {
            return;
        }
        let at = lately.slot(self, task.container_instance);
        let kind = lately.take_kind(self, task);
        self.reserve(task.id, at, kind, gpus_of(task));
    }
}
