//! Instances in the order of what is free on them: found, put and moved in a few cache lines, whatever their number.
//!
//! Sorted blocks under a row of heads. A head tells the most of the second quantity in its block, so that a search for "at least
//! this much of both" steps over whole blocks that have too little of it.

use std::cmp::Ordering;

/// Most entries of a block: two of them fit a page, and moving half of one costs less than a miss.
const MOST: usize = 128;

/// One instance in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// What the order is by, above the other quantity: one comparison for both.
    room: u64,
    /// Between equals; smaller for a higher id, so that the lowest id is the last of equals.
    tie: u64,
    /// The instance's slot.
    pub(super) slot: u32,
}

impl Entry {
    pub(super) const fn new(first: u32, second: u32, tie: u64, slot: u32) -> Self {
        Self { room: (first as u64) << 32 | second as u64, tie, slot }
    }

    /// What the order is by.
    pub(super) const fn first(&self) -> u32 {
        (self.room >> 32) as u32
    }

    /// The other quantity.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub(super) const fn second(&self) -> u32 {
        self.room as u32
    }

    /// The same instance in the order by the other quantity.
    pub(super) const fn turned(&self) -> Self {
        Self { room: self.room.rotate_left(32), ..*self }
    }

    /// Before every entry that has at least this much of the first quantity.
    pub(super) const fn at_least(first: u32) -> Self {
        Self::new(first, 0, 0, 0)
    }

    /// After every entry.
    pub(super) const LAST: Self = Self { room: u64::MAX, tie: u64::MAX, slot: u32::MAX };
}

#[derive(Debug, Clone, Copy)]
struct Head {
    last: Entry,
    most_second: u32,
}

/// The order.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    heads: Vec<Head>,
    blocks: Vec<Vec<Entry>>,
}

impl Order {
    /// The order of some entries, in any order now.
    pub(super) fn of(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable();
        // Three quarters full: most of what comes next finds room.
        let blocks: Vec<Vec<Entry>> = entries.chunks(MOST * 3 / 4).map(<[Entry]>::to_vec).collect();
        Self { heads: blocks.iter().map(|block| head(block)).collect(), blocks }
    }

    /// How many blocks there are: the most that a search may have to pass.
    pub(super) const fn blocks(&self) -> usize {
        self.heads.len()
    }

    /// The block in which an entry is, if it is there, or belongs.
    fn block_of(&self, entry: &Entry) -> usize {
        self.heads.partition_point(|head| head.last < *entry)
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        if self.blocks.is_empty() {
            self.blocks.push(vec![entry]);
            self.heads.push(Head { last: entry, most_second: entry.second() });
            return;
        }
        let at = self.block_of(&entry).min(self.blocks.len() - 1);
        let block = &mut self.blocks[at];
        let place = block.partition_point(|other| *other < entry);
        block.insert(place, entry);
        if block.len() > MOST {
            let upper = block.split_off(MOST / 2);
            self.heads[at] = head(block);
            self.heads.insert(at + 1, head(&upper));
            self.blocks.insert(at + 1, upper);
        } else {
            let head = &mut self.heads[at];
            head.last = head.last.max(entry);
            head.most_second = head.most_second.max(entry.second());
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let at = self.block_of(entry);
        let Some(block) = self.blocks.get_mut(at) else { return };
        let Ok(place) = block.binary_search(entry) else { return };
        block.remove(place);
        if block.is_empty() {
            self.blocks.remove(at);
            self.heads.remove(at);
            return;
        }
        if place == block.len() || entry.second() == self.heads[at].most_second {
            self.heads[at] = head(block);
        }
        let small = block.len() < MOST / 8;
        if small && self.blocks.get(at + 1).is_some_and(|next| next.len() < MOST / 2) {
            let next = self.blocks.remove(at + 1);
            self.heads.remove(at + 1);
            self.blocks[at].extend(next);
            self.heads[at] = head(&self.blocks[at]);
        }
    }

    /// An instance has more or less than before.
    pub(super) fn replace(&mut self, old: &Entry, new: Entry) {
        let at = self.block_of(old);
        // Mostly it stays in its block: then only what lies between the two places moves.
        let stays = self.heads.get(at).is_some_and(|head| new < head.last) && (at == 0 || self.heads[at - 1].last < new);
        if stays && let Ok(from) = self.blocks[at].binary_search(old) {
            let block = &mut self.blocks[at];
            match new.cmp(old) {
                Ordering::Less => {
                    let to = block[..from].partition_point(|other| *other < new);
                    block.copy_within(to..from, to + 1);
                    block[to] = new;
                }
                _ => {
                    let to = from + block[from + 1..].partition_point(|other| *other < new);
                    block.copy_within(from + 1..=to, from);
                    block[to] = new;
                }
            }
            let most = self.heads[at].most_second;
            if new.second() >= most {
                self.heads[at].most_second = new.second();
            } else if old.second() == most {
                self.heads[at] = head(block);
            }
            if *old == self.heads[at].last {
                self.heads[at] = head(&self.blocks[at]);
            }
            return;
        }
        self.remove(old);
        self.insert(new);
    }

    /// The first entry from `start` on, itself included, that has enough of the second quantity and is accepted.
    pub(super) fn first(&self, start: Entry, least_second: u32, mut accept: impl FnMut(&Entry) -> bool) -> Option<Entry> {
        let from = self.block_of(&start);
        for at in from..self.blocks.len() {
            if self.heads[at].most_second < least_second {
                continue;
            }
            let block = &self.blocks[at];
            let skipped = if at == from { block.partition_point(|entry| *entry < start) } else { 0 };
            if let Some(entry) = block[skipped..].iter().find(|entry| entry.second() >= least_second && accept(entry)) {
                return Some(*entry);
            }
        }
        None
    }

    /// The last entry up to `end`, itself included, that has enough of both quantities and is accepted.
    pub(super) fn last(
        &self,
        end: Entry,
        (least_first, least_second): (u32, u32),
        mut accept: impl FnMut(&Entry) -> bool,
    ) -> Option<Entry> {
        let from = self.block_of(&end).min(self.blocks.len().checked_sub(1)?);
        for at in (0..=from).rev() {
            let head = &self.heads[at];
            if head.last.first() < least_first {
                return None;
            }
            if head.most_second < least_second {
                continue;
            }
            let block = &self.blocks[at];
            let kept = if at == from { block.partition_point(|entry| *entry <= end) } else { block.len() };
            let enough = |entry: &&Entry| entry.first() >= least_first && entry.second() >= least_second && accept(entry);
            if let Some(entry) = block[..kept].iter().rev().find(enough) {
                return Some(*entry);
            }
        }
        None
    }
}

fn head(block: &[Entry]) -> Head {
    let most_second = block.iter().map(|entry| entry.second()).max().unwrap_or(0);
    Head { last: block.last().copied().unwrap_or(Entry::at_least(0)), most_second }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Entry> {
        (0_u32..40, 0_u32..40, 0_u32..200).prop_map(|(first, second, slot)| Entry::new(first, second, u64::from(slot % 7), slot))
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Entry),
        Remove(usize),
        Replace(usize, u32, u32),
        First(Entry, u32),
        Last(Entry, u32, u32),
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => entries().prop_map(Step::Insert),
            1 => any::<usize>().prop_map(Step::Remove),
            3 => (any::<usize>(), 0_u32..40, 0_u32..40).prop_map(|(at, first, second)| Step::Replace(at, first, second)),
            2 => (entries(), 0_u32..45).prop_map(|(start, least)| Step::First(start, least)),
            2 => (entries(), 0_u32..45, 0_u32..45).prop_map(|(end, first, second)| Step::Last(end, first, second)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_a_sorted_set(start in prop::collection::vec(entries(), 0..400), steps in prop::collection::vec(steps(), 1..600)) {
            let mut naive: BTreeSet<Entry> = start.into_iter().collect();
            let mut order = Order::of(naive.iter().rev().copied().collect());
            for step in steps {
                match step {
                    Step::Insert(entry) => if naive.insert(entry) { order.insert(entry) },
                    Step::Remove(at) if !naive.is_empty() => {
                        let entry = *naive.iter().nth(at % naive.len()).expect("within");
                        naive.remove(&entry);
                        order.remove(&entry);
                    }
                    Step::Replace(at, first, second) if !naive.is_empty() => {
                        let old = *naive.iter().nth(at % naive.len()).expect("within");
                        let new = Entry::new(first, second, old.tie, old.slot);
                        if old == new || !naive.contains(&new) {
                            naive.remove(&old);
                            naive.insert(new);
                            order.replace(&old, new);
                        }
                    }
                    Step::First(start, least) => {
                        let accept = |entry: &Entry| !entry.slot.is_multiple_of(3);
                        let wanted = naive.range(start..).find(|entry| entry.second() >= least && accept(entry)).copied();
                        prop_assert_eq!(order.first(start, least, accept), wanted);
                    }
                    Step::Last(end, first, second) => {
                        let accept = |entry: &Entry| !entry.slot.is_multiple_of(3);
                        let enough = |entry: &&Entry| entry.first() >= first && entry.second() >= second && accept(entry);
                        prop_assert_eq!(order.last(end, (first, second), accept), naive.range(..=end).rev().find(enough).copied());
                    }
                    Step::Remove(_) | Step::Replace(..) => {}
                }
                for (head, block) in order.heads.iter().zip(&order.blocks) {
                    prop_assert_eq!(head.last, *block.last().expect("no empty block"));
                    prop_assert_eq!(head.most_second, block.iter().map(|entry| entry.second()).max().expect("no empty block"));
                    prop_assert!(block.len() <= MOST);
                }
                prop_assert!(order.blocks.iter().flatten().eq(naive.iter()));
            }
        }
    }
}
