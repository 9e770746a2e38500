//! Requests of one shape: what they ask is worked out once, and where the last search ended is remembered, so that the next alike goes
//! on from there. A remembered place is never trusted: what changed since is looked at first.

use std::collections::HashMap;
use std::sync::Arc;

use super::class::{Class, index};
use super::index::Fleet;
use super::level::{LEVELS, Level, Rank, Search, Walk, levels, search_of};
use super::order::Entry;
use super::slot::Wants;
use super::{Constraint, PlaceRequest, Strategy};

/// Most instances before a cursor's frontier that are remembered; with more it starts again.
const MOST_EARLY: usize = 64;
/// How many instances are drawn before all are looked at: where most of a fleet has room, one or two are enough.
const DRAWS: u64 = 64;
/// As many changes as this, and one for each block of the order, are looked at; a search that reads nothing but the order is done anew before it
/// looks at more.
const FEW_CHANGES: usize = 4;

/// Where the search in one class stands.
#[derive(Debug, Clone, Default)]
struct Cursor {
    /// The class's changes that were looked at; `None` before the first search.
    seen: Option<u64>,
    /// Nothing before this fits but `early`: tasks of the group on the instance (0 unless that counts) and a place on the walk.
    /// `None`: nothing else fits at all.
    frontier: Option<(u32, Entry)>,
    /// An instance that fits is at the frontier.
    is_hit: bool,
    /// Instances before the frontier that changed since, and fit.
    early: Vec<(u32, Entry)>,
    best: Option<(u32, Entry)>,
}

/// Classes whose instances will do, by their attributes, and that the leading spreads do not tell apart.
#[derive(Debug, Clone)]
struct Part {
    /// By leading field, its cell.
    cells: Vec<u32>,
    /// Classes, each with the number of its cursor.
    classes: Vec<(u32, u32)>,
}

/// A request's shape.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    attributes: std::collections::BTreeSet<String>,
    provider: Option<String>,
    group_name: Arc<str>,
    constraints: Vec<Constraint>,
    strategies: Vec<Strategy>,
    pub(super) wants: Wants,
    /// Demand and group, interned; the shape holds one use.
    pub(super) kind: u32,
    group: u32,
    filter: usize,
    levels: Vec<Level>,
    /// The fields of [`Level::Cell`]s, in order.
    fields: Vec<usize>,
    is_random: bool,
    walk: Walk,
    search: Search,
    /// The orders alone tell what fits, and what comes first.
    is_plain: bool,
    /// How many of the levels, from the first on, are cells.
    leading: usize,
    parts: Vec<Part>,
    cursors: Vec<Cursor>,
    /// Classes that were looked at: all before this number.
    met: usize,
    /// By field, the cell of each class; and how many cells.
    cells: Vec<Vec<u32>>,
    cell_numbers: Vec<HashMap<Vec<u32>, u32>>,
    counts: Vec<Vec<u32>>,
    pub(super) last_used: u64,
}

impl Shape {
    pub(super) fn new(request: &PlaceRequest<'_>, names: (Arc<str>, u32, u32), filter: usize, fields: Vec<usize>, wants: Wants) -> Self {
        let (group_name, kind, group) = names;
        let (levels, _, is_random) = levels(request.strategies);
        let (walk, search) = search_of(&levels);
        let is_plain = search == Search::First && wants.is_plain();
        Self {
            is_plain,
            attributes: request.attributes.clone(),
            provider: request.capacity_provider.map(str::to_owned),
            group_name,
            constraints: request.constraints.to_vec(),
            strategies: request.strategies.to_vec(),
            wants,
            kind,
            group,
            filter,
            cells: vec![Vec::new(); fields.len()],
            cell_numbers: vec![HashMap::new(); fields.len()],
            counts: vec![Vec::new(); fields.len()],
            fields,
            is_random,
            walk,
            search,
            leading: levels.iter().take_while(|level| matches!(level, Level::Cell(_))).count(),
            parts: Vec::new(),
            cursors: Vec::new(),
            met: 0,
            levels,
            last_used: 0,
        }
    }

    /// It is the shape of this request.
    pub(super) fn is_of(&self, request: &PlaceRequest<'_>) -> bool {
        *self.group_name == *request.group
            && self.wants.demand == *request.demand
            && self.provider.as_deref() == request.capacity_provider
            && self.strategies == request.strategies
            && self.constraints == request.constraints
            && self.attributes == *request.attributes
    }

    /// How many cursors it keeps.
    pub(super) fn cursors(&self) -> usize {
        self.cursors.len()
    }

    /// The best instance for a task of this shape now.
    pub(super) fn pick(&mut self, fleet: &Fleet<'_>, seed: u64) -> Option<u32> {
        self.meet_classes(fleet);
        self.count_cells(fleet);
        // The cursors are changed while the rest is read.
        let mut cursors = std::mem::take(&mut self.cursors);
        let picked = self.pick_with(fleet, seed, &mut cursors);
        self.cursors = cursors;
        picked
    }

    fn pick_with(&self, fleet: &Fleet<'_>, seed: u64, cursors: &mut [Cursor]) -> Option<u32> {
        let mut floor: Option<Rank> = None;
        // Parts are taken in the order of what the leading spreads say; the next ones only if these have no room.
        loop {
            let ranks = self.parts.iter().map(|part| self.rank_of(part));
            let least = ranks.filter(|rank| floor.is_none_or(|floor| *rank > floor)).min()?;
            let picked = match (self.is_random, self.levels.len() > self.leading) {
                (true, false) => self.draw(fleet, &least, seed),
                (true, true) => self.draw_among_best(fleet, &least, seed),
                (false, _) => self.best(fleet, &least, cursors),
            };
            if picked.is_some() {
                return picked;
            }
            floor = Some(least);
        }
    }

    /// Takes in classes that are new since the last request.
    fn meet_classes(&mut self, fleet: &Fleet<'_>) {
        let all = &fleet.classes.all;
        for (number, class) in all.iter().enumerate().skip(self.met) {
            let (mut values, mut cells) = (Vec::new(), Vec::new());
            for (at, field) in self.fields.iter().enumerate() {
                values.push(class.value(*field));
                let next = index(self.cell_numbers[at].len());
                let cell = *self.cell_numbers[at].entry(values.clone()).or_insert(next);
                self.cells[at].push(cell);
                cells.push(cell);
                if cell == next {
                    self.counts[at].push(0);
                }
            }
            if class.accepts(self.filter) {
                cells.truncate(self.leading);
                let class = (index(number), index(self.cursors.len()));
                self.cursors.push(Cursor::default());
                match self.parts.iter_mut().find(|part| part.cells == cells) {
                    Some(part) => part.classes.push(class),
                    None => self.parts.push(Part { cells, classes: vec![class] }),
                }
            }
        }
        self.met = all.len();
    }

    /// Counts the group's tasks in each cell, on all instances whatever their state.
    fn count_cells(&mut self, fleet: &Fleet<'_>) {
        for (counts, cells) in self.counts.iter_mut().zip(&self.cells) {
            counts.fill(0);
            for (class, count) in fleet.counts_of(self.group) {
                counts[cells[*class as usize] as usize] += count;
            }
        }
    }

    /// What the leading levels say of a part.
    fn rank_of(&self, part: &Part) -> Rank {
        let mut rank = [0; LEVELS];
        // They are all cells, so the fields are numbered as the levels are.
        for (field, cell) in part.cells.iter().enumerate() {
            rank[field] = self.counts[field][*cell as usize];
        }
        rank
    }

    /// The classes of which the leading levels say this, each with the number of its cursor.
    fn classes_of(&self, least: &Rank) -> impl Iterator<Item = (u32, u32)> {
        self.parts.iter().filter(|part| self.rank_of(part) == *least).flat_map(|part| part.classes.iter().copied())
    }

    fn count_of(&self, field: usize, class: u32) -> u32 {
        self.counts[field][self.cells[field][class as usize] as usize]
    }

    /// What all levels say of an instance.
    fn rank(&self, class: u32, (of_group, entry): &(u32, Entry)) -> Rank {
        let by_cpu = self.walk == Walk::LeastCpu;
        let mut rank = [0; LEVELS];
        for (at, level) in self.levels.iter().enumerate() {
            rank[at] = match level {
                Level::Cell(field) => self.count_of(*field, class),
                Level::Instance => *of_group,
                Level::Memory if by_cpu => entry.second(),
                Level::Memory => entry.first(),
                Level::Cpu if by_cpu => entry.first(),
                Level::Cpu => entry.second(),
            };
        }
        rank
    }

    /// Of two places on the walk, the first comes before the second.
    fn is_before(&self, one: &(u32, Entry), other: &(u32, Entry)) -> bool {
        match (one.0.cmp(&other.0), self.walk) {
            (std::cmp::Ordering::Equal, Walk::MostMemory) => one.1 > other.1,
            (std::cmp::Ordering::Equal, _) => one.1 < other.1,
            (order, _) => order.is_lt(),
        }
    }

    fn best(&self, fleet: &Fleet<'_>, least: &Rank, cursors: &mut [Cursor]) -> Option<u32> {
        let mut best: Option<(Rank, (u32, Entry))> = None;
        for (class, cursor) in self.classes_of(least) {
            let of_class = match self.search {
                Search::All => self.best_of_all(fleet, class),
                _ => self.search(fleet, class, &mut cursors[cursor as usize]),
            };
            let Some(found) = of_class else { continue };
            let rank = self.rank(class, &found);
            let is_better =
                best.as_ref().is_none_or(|(best, than)| rank < *best || rank == *best && self.is_before(&(0, found.1), &(0, than.1)));
            if is_better {
                best = Some((rank, found));
            }
        }
        best.map(|(_, (_, entry))| entry.slot)
    }

    /// The instance's tasks of the group, if they count in the order, and its place on the walk; `None` if it takes no such task.
    fn candidate(&self, fleet: &Fleet<'_>, class: u32, slot: u32) -> Option<(u32, Entry)> {
        let own = fleet.slot(slot);
        (own.class == class && own.is_open() && fleet.fits(&self.wants, own)).then(|| self.key(fleet, slot))
    }

    fn key(&self, fleet: &Fleet<'_>, slot: u32) -> (u32, Entry) {
        let own = fleet.slot(slot);
        let entry = if self.walk == Walk::LeastCpu { own.by_cpu(slot) } else { own.by_memory(slot) };
        let counts = self.levels.contains(&Level::Instance);
        (if counts { own.of_group(self.group) } else { 0 }, entry)
    }

    /// The best instance of a class, from where the last search ended.
    fn search(&self, fleet: &Fleet<'_>, number: u32, cursor: &mut Cursor) -> Option<(u32, Entry)> {
        let class = fleet.class(number);
        if cursor.seen == Some(class.changes()) {
            return cursor.best;
        }
        match cursor.seen.and_then(|seen| class.changed_since(seen)) {
            Some(changed) if !self.is_plain || changed.len() <= FEW_CHANGES + class.by_memory.blocks() => {
                changed.for_each(|entry| self.meet_change(fleet, number, cursor, entry));
            }
            _ => self.start_again(cursor),
        }
        if cursor.early.len() > MOST_EARLY {
            self.start_again(cursor);
        }
        cursor.seen = Some(class.changes());
        let early = cursor.early.iter().copied().reduce(|best, key| if self.is_before(&key, &best) { key } else { best });
        if early.is_none() && !cursor.is_hit {
            self.advance(fleet, number, cursor);
        }
        cursor.best = early.or(cursor.frontier);
        cursor.best
    }

    /// Takes in that an instance of the class changed: what was known of it is forgotten.
    fn meet_change(&self, fleet: &Fleet<'_>, class: u32, cursor: &mut Cursor, entry: &Entry) {
        if let Some(at) = cursor.early.iter().position(|(_, own)| own.slot == entry.slot) {
            cursor.early.swap_remove(at);
        }
        if cursor.frontier.is_some_and(|(_, own)| own.slot == entry.slot) {
            cursor.is_hit = false;
        }
        if entry.first() < self.wants.memory || entry.second() < self.wants.cpu {
            return;
        }
        // What went behind the frontier is found when the search comes there.
        let place = if self.walk == Walk::LeastCpu { entry.turned() } else { *entry };
        let may_be_early = |key: &(u32, Entry)| cursor.frontier.is_none_or(|frontier| self.is_before(key, &frontier));
        if self.search == Search::First && !may_be_early(&(0, place)) {
            return;
        }
        if let Some(key) = self.candidate(fleet, class, entry.slot).filter(may_be_early) {
            // It may have changed more than once.
            if !cursor.early.contains(&key) {
                cursor.early.push(key);
            }
        }
    }

    fn start_again(&self, cursor: &mut Cursor) {
        cursor.early.clear();
        cursor.is_hit = false;
        cursor.frontier = Some((0, if self.walk == Walk::MostMemory { Entry::LAST } else { Entry::at_least(0) }));
    }

    /// Moves the frontier to the next instance that fits, itself if it still does.
    fn advance(&self, fleet: &Fleet<'_>, number: u32, cursor: &mut Cursor) {
        let Some((level, start)) = cursor.frontier else { return };
        let class = fleet.class(number);
        let next = self.next(class, start, |entry| {
            if self.is_plain {
                return true;
            }
            let slot = fleet.slot(entry.slot);
            fleet.fits(&self.wants, slot) && (self.search == Search::First || slot.of_group(self.group) == level)
        });
        cursor.frontier = match (next, self.search) {
            (Some(entry), _) => Some((level, entry)),
            (None, Search::First) => None,
            // Nothing with so few tasks of the group: all with more are looked at once, for the fewest.
            (None, _) => self.best_of(fleet, class, |key| key.0 > level),
        };
        cursor.is_hit = cursor.frontier.is_some();
    }

    /// The next on the walk from a place on, itself included, that has enough and is accepted.
    fn next(&self, class: &Class, from: Entry, accept: impl FnMut(&Entry) -> bool) -> Option<Entry> {
        let (cpu, memory) = (self.wants.cpu, self.wants.memory);
        match self.walk {
            Walk::MostMemory => class.by_memory.last(from, (memory, cpu), accept),
            Walk::LeastMemory => class.by_memory.first(from.max(Entry::at_least(memory)), cpu, accept),
            Walk::LeastCpu => class.by_cpu.first(from.max(Entry::at_least(cpu)), memory, accept),
        }
    }

    /// The first, by tasks of the group and then on the walk, of those that fit and are wanted.
    fn best_of(&self, fleet: &Fleet<'_>, class: &Class, wanted: impl Fn(&(u32, Entry)) -> bool) -> Option<(u32, Entry)> {
        let mut best: Option<(u32, Entry)> = None;
        self.each_fitting(fleet, class, |key| {
            if wanted(&key) && best.is_none_or(|best| self.is_before(&key, &best)) {
                best = Some(key);
            }
        });
        best
    }

    /// The best by all levels of a class.
    fn best_of_all(&self, fleet: &Fleet<'_>, number: u32) -> Option<(u32, Entry)> {
        let mut best: Option<(Rank, (u32, Entry))> = None;
        self.each_fitting(fleet, fleet.class(number), |key| {
            let rank = self.rank(number, &key);
            let is_better =
                best.as_ref().is_none_or(|(best, than)| rank < *best || rank == *best && self.is_before(&(0, key.1), &(0, than.1)));
            if is_better {
                best = Some((rank, key));
            }
        });
        best.map(|(_, key)| key)
    }

    fn each_fitting(&self, fleet: &Fleet<'_>, class: &Class, mut each: impl FnMut((u32, Entry))) {
        let start = if self.walk == Walk::MostMemory { Entry::LAST } else { Entry::at_least(0) };
        self.next(class, start, |entry| {
            if fleet.fits(&self.wants, fleet.slot(entry.slot)) {
                each(self.key(fleet, entry.slot));
            }
            false
        });
    }

    /// Any that fits, each as likely as every other: draws until one does, and looks at all if none was hit.
    fn draw(&self, fleet: &Fleet<'_>, least: &Rank, seed: u64) -> Option<u32> {
        let classes: Vec<_> = self.classes_of(least).map(|(class, _)| fleet.class(class)).collect();
        let total: usize = classes.iter().map(|class| class.members.len()).sum();
        for draw in 0..DRAWS {
            // Seeds of one request's tasks are neighbours: the draws of each must not be those of the next, one later.
            let mut at = below(mix(mix(seed) ^ draw), total)?;
            for class in &classes {
                if let Some(slot) = class.members.get(at) {
                    if fleet.fits(&self.wants, fleet.slot(*slot)) {
                        return Some(*slot);
                    }
                    break;
                }
                at -= class.members.len();
            }
        }
        let mut fitting = Vec::new();
        classes.iter().for_each(|class| self.each_fitting(fleet, class, |(_, entry)| fitting.push(entry.slot)));
        below(mix(seed), fitting.len()).map(|at| fitting[at])
    }

    /// Any of those that all levels leave alike.
    fn draw_among_best(&self, fleet: &Fleet<'_>, least: &Rank, seed: u64) -> Option<u32> {
        let mut best: Option<Rank> = None;
        let mut alike = Vec::new();
        for (class, _) in self.classes_of(least) {
            self.each_fitting(fleet, fleet.class(class), |key| {
                let rank = self.rank(class, &key);
                if best.is_none_or(|best| rank < best) {
                    best = Some(rank);
                    alike.clear();
                }
                if best == Some(rank) {
                    alike.push(key.1.slot);
                }
            });
        }
        below(mix(seed), alike.len()).map(|at| alike[at])
    }
}

fn below(random: u64, count: usize) -> Option<usize> {
    let at = random.checked_rem(count as u64)?;
    usize::try_from(at).ok()
}

/// Spreads neighbouring seeds over the whole range (the finaliser of SplitMix64).
const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
