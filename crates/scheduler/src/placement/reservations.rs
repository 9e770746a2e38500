//! Which task holds what, where, by the task's id. The table is its ids in the order of their hashes, with gaps: where one belongs is
//! computed, it stands there or a few cells on, and many that come in that order are written one after the other.
//!
//! A map of the standard library costs two misses a look, since what tells full cells from empty ones lies apart from them, and more
//! memory, since it only ever doubles. With a million tasks those misses are most of what a placement takes.

use berth_model::ids::TaskId;

/// A task's id, in halves: so it packs without gaps, and goes through registers. Read as a whole from memory where its halves were just
/// written, it would wait for every write before, most of which go to memory that is far away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TaskKey {
    low: u64,
    high: u64,
}

impl From<TaskId> for TaskKey {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    fn from(id: TaskId) -> Self {
        Self { low: id.0 as u64, high: (id.0 >> 64) as u64 }
    }
}

impl From<TaskKey> for TaskId {
    fn from(key: TaskKey) -> Self {
        Self(u128::from(key.high) << 64 | u128::from(key.low))
    }
}

impl TaskKey {
    /// Evenly spread, also for ids that are counted. Ids are the server's own: nobody chooses them so that they collide. For one upper half
    /// each hash is of one lower half only, so that both together are the id.
    pub(super) const fn hash(self) -> u64 {
        let mixed = self.low ^ self.high.wrapping_mul(0xd134_2543_de82_ef95);
        (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// What a task holds, where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reservation {
    pub(super) slot: u32,
    pub(super) kind: u32,
}

/// The hash, the upper half of the id, and the slot plus one above the kind.
type Cell = [u64; 3];
/// Zeroes, which cost nothing until they are written over.
const EMPTY: Cell = [0; 3];
/// Fewest places of a table that is not empty.
const FEWEST: usize = 16;
/// By how many cells the end moves when it must.
const TAIL: usize = 64;

/// The table.
#[derive(Debug, Clone, Default)]
pub(super) struct Reservations {
    /// Full ones are in order, none stands before its place, and none after a gap that it could stand in.
    cells: Vec<Cell>,
    /// Over how many cells the hashes are spread; those behind take what is pushed over the end.
    places: usize,
    taken: usize,
}

impl Reservations {
    /// What a task holds.
    pub(super) fn get(&self, task: TaskKey) -> Option<Reservation> {
        self.find(task).ok().map(|at| reservation(&self.cells[at]))
    }

    /// Notes what a task holds. `false`: it holds something already, and nothing is changed.
    pub(super) fn insert(&mut self, task: TaskKey, held: Reservation) -> bool {
        if (self.taken + 1) * 4 > self.places * 3 {
            self.spread_over((self.places + self.places / 2).max(FEWEST));
        }
        let Err(at) = self.find(task) else { return false };
        let mut gap = at;
        while self.cells.get(gap).is_some_and(|cell| *cell != EMPTY) {
            gap += 1;
        }
        reach(&mut self.cells, gap);
        self.cells.copy_within(at..gap, at + 1);
        self.cells[at] = [task.hash(), task.high, (u64::from(held.slot) + 1) << 32 | u64::from(held.kind)];
        self.taken += 1;
        true
    }

    /// Forgets a task; what it held.
    pub(super) fn remove(&mut self, task: TaskKey) -> Option<Reservation> {
        let at = self.find(task).ok()?;
        let held = reservation(&self.cells[at]);
        let mut end = at + 1;
        while self.cells.get(end).is_some_and(|cell| *cell != EMPTY && place(cell[0], self.places) < end) {
            end += 1;
        }
        self.cells.copy_within(at + 1..end, at);
        self.cells[end - 1] = EMPTY;
        self.taken -= 1;
        Some(held)
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        let wanted = self.taken + more;
        if wanted * 4 > self.places * 3 {
            self.spread_over((wanted + wanted / 2).max(FEWEST));
        }
    }

    /// Where a task's cell is, or belongs.
    fn find(&self, task: TaskKey) -> Result<usize, usize> {
        let hash = task.hash();
        let mut at = place(hash, self.places);
        loop {
            match self.cells.get(at) {
                None | Some(&EMPTY) => return Err(at),
                Some([own, high, _]) if (*own, *high) < (hash, task.high) => at += 1,
                Some([own, high, _]) => return if (*own, *high) == (hash, task.high) { Ok(at) } else { Err(at) },
            }
        }
    }

    /// More places for the same tasks. They are in order already: one pass over both.
    fn spread_over(&mut self, places: usize) {
        let mut cells = vec![EMPTY; places + TAIL];
        let mut next = 0;
        for cell in self.cells.iter().filter(|cell| **cell != EMPTY) {
            let at = place(cell[0], places).max(next);
            reach(&mut cells, at);
            cells[at] = *cell;
            next = at + 1;
        }
        (self.cells, self.places) = (cells, places);
    }
}

/// The cell is there: at the end of the table some may be pushed over it.
fn reach(cells: &mut Vec<Cell>, at: usize) {
    if at >= cells.len() {
        cells.reserve_exact(TAIL);
        cells.resize(at + TAIL, EMPTY);
    }
}

/// Where a hash belongs: hashes in order have places in order.
#[expect(clippy::cast_possible_truncation, reason = "below `places`")]
const fn place(hash: u64, places: usize) -> usize {
    ((hash as u128 * places as u128) >> 64) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "one of the halves")]
const fn reservation(cell: &Cell) -> Reservation {
    Reservation { slot: ((cell[2] >> 32) - 1) as u32, kind: cell[2] as u32 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u128),
        Remove(u128),
        Reserve(usize),
    }

    /// Some alike in a half, and some whose hashes are next to each other, at both ends.
    fn ids() -> impl Strategy<Value = u128> {
        prop_oneof![any::<u128>(), 0_u128..40, (0_u128..40).prop_map(|id| id << 64), (0_u128..40).prop_map(|id| u128::MAX - id)]
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![5 => ids().prop_map(Step::Insert), 4 => ids().prop_map(Step::Remove), 1 => (0_usize..60).prop_map(Step::Reserve)]
    }

    fn is_in_order(table: &Reservations) {
        let full: Vec<_> = table.cells.iter().enumerate().filter(|(_, cell)| **cell != EMPTY).collect();
        assert_eq!(full.len(), table.taken);
        assert!(table.taken * 4 <= table.places * 3);
        assert!(full.windows(2).all(|two| (two[0].1[0], two[0].1[1]) < (two[1].1[0], two[1].1[1])));
        for (at, cell) in full {
            let home = place(cell[0], table.places);
            assert!(home <= at && table.cells[home..at].iter().all(|before| *before != EMPTY), "found from its place on");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec(steps(), 1..400)) {
            let (mut table, mut naive) = (Reservations::default(), HashMap::new());
            for (number, step) in (0_u32..).zip(steps) {
                match step {
                    Step::Insert(id) => {
                        let held = Reservation { slot: number, kind: u32::MAX - number };
                        prop_assert_eq!(table.insert(TaskId(id).into(), held), !naive.contains_key(&id));
                        naive.entry(id).or_insert(held);
                    }
                    Step::Remove(id) => prop_assert_eq!(table.remove(TaskId(id).into()), naive.remove(&id)),
                    Step::Reserve(more) => table.reserve(more),
                }
                is_in_order(&table);
                prop_assert!(naive.iter().all(|(id, held)| table.get(TaskId(*id).into()) == Some(*held)));
            }
            let all: Vec<_> = naive.into_iter().collect();
            for (id, held) in all {
                prop_assert_eq!(table.remove(TaskId(id).into()), Some(held));
                is_in_order(&table);
            }
            prop_assert_eq!(table.get(TaskId(7).into()), None);
        }
    }

    /// Hashes that all belong at the end are pushed over it, and found again.
    #[test]
    fn the_end_moves() {
        let last = (0_u128..).filter(|id| TaskKey::from(TaskId(*id)).hash() > u64::MAX - u64::MAX / 64);
        let ids: Vec<_> = last.take(300).collect();
        let mut table = Reservations::default();
        for id in &ids {
            assert!(table.insert(TaskId(*id).into(), Reservation { slot: 1, kind: 2 }));
            is_in_order(&table);
        }
        assert!(ids.iter().all(|id| table.remove(TaskId(*id).into()).is_some()));
        assert_eq!(table.taken, 0);
    }
}
