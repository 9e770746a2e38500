//! Ids of the machine for tasks that are kept apart: each task's users are users of the machine that nobody else is, so that whoever gets out of a
//! container, or shares a file with another, is a stranger there. Which task has which stands in its containers' records.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;

/// How many users and groups a task has: all that 16 bits can say, as distributions give to a user namespace.
pub const COUNT: u32 = 65_536;

/// From here on. What systemd gives to its own containers ends before it, and so do the ranges of /etc/subuid; its last range, of foreign
/// images, begins where this ends. <https://systemd.io/UIDS-GIDS/>
const FIRST: u32 = 0x7000_0000;
const END: u32 = 0x7FFE_0000;
const TASKS: u32 = (END - FIRST) / COUNT;

/// A task's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ids {
    /// What its root is on the machine.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// The ranges that some container uses, by task.
#[derive(Debug, Default)]
pub struct Pool(Mutex<HashMap<String, Use>>);

#[derive(Debug)]
struct Use {
    ids: Ids,
    containers: usize,
}

impl Pool {
    /// The pool, with what containers found at the start have.
    pub fn with(known: impl Iterator<Item = (String, Ids)>) -> Pool {
        let mut used: HashMap<String, Use> = HashMap::new();
        for (task, ids) in known {
            used.entry(task).or_insert(Use { ids, containers: 0 }).containers += 1;
        }
        Pool(Mutex::new(used))
    }

    /// The range for one more container of a task; `None` if all are in use.
    pub fn take(&self, task: &str) -> Option<Ids> {
        let mut used = self.0.lock();
        if let Some(known) = used.get_mut(task) {
            known.containers += 1;
            return Some(known.ids);
        }
        let ids = unused(task, &used.values().map(|known| known.ids.first).collect())?;
        used.insert(task.to_owned(), Use { ids, containers: 1 });
        Some(ids)
    }

    /// A container of the task is gone, with all its files.
    pub fn give_back(&self, task: &str) {
        let mut used = self.0.lock();
        if let Some(known) = used.get_mut(task) {
            known.containers -= 1;
            if known.containers == 0 {
                used.remove(task);
            }
        }
    }
}

/// A range that nobody has. It begins where the task's name says, so that two agents of one machine do not give the same to their first tasks.
fn unused(task: &str, taken: &BTreeSet<u32>) -> Option<Ids> {
    // FNV-1a; any function would do that spreads.
    let hash = task.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let start = (hash % u64::from(TASKS)) as u32;
    let firsts = (0..TASKS).map(|step| FIRST + (start + step) % TASKS * COUNT);
    firsts.into_iter().find(|first| !taken.contains(first)).map(|first| Ids { first, count: COUNT })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_one_range_and_no_two_tasks_the_same() {
        let pool = Pool::default();
        let (one, again, other) = (pool.take("one"), pool.take("one"), pool.take("other"));
        assert!(one.is_some() && one == again && other.is_some() && one != other);
        pool.give_back("one");
        assert_eq!(pool.0.lock().len(), 2, "a container has it still");
        pool.give_back("one");
        pool.give_back("nobody");
        assert_eq!(pool.0.lock().len(), 1);
        assert_eq!(pool.take("one"), one, "the same as before, if nobody took it");
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let ids = Ids { first: FIRST, count: COUNT };
        let pool = Pool::with([("a".to_owned(), ids), ("a".to_owned(), ids)].into_iter());
        pool.give_back("a");
        assert_eq!(pool.take("a"), Some(ids));
    }

    #[test]
    fn all_are_used_before_there_is_none() {
        let mut taken = BTreeSet::new();
        while let Some(ids) = unused("task", &taken) {
            assert!(ids.first >= FIRST && ids.first + ids.count <= END);
            assert!(taken.insert(ids.first));
        }
        assert_eq!(taken.len(), TASKS as usize);
    }
}
