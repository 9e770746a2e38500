//! Classes: instances that are alike in everything requests ask of attributes. A request is answered class by class; what an
//! attribute says is looked up once a class, not once an instance.
//!
//! Requests bring filters (attributes, a capacity provider, expressions) and fields to spread over; only what some request asked for
//! tells classes apart, so that an attribute with another value on every machine costs nothing until somebody asks for it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use berth_model::container_instance::{CAPACITY_PROVIDER, ContainerInstance};
use berth_model::time::UnixMillis;
use foldhash::fast::RandomState;

use super::order::{Entry, Order};
use super::slot::{NO_CLASS, Profile, Slot};
use super::{Constraint, PlaceRequest};
use crate::query::{Expression, Subject};

/// Most filters and most fields that tell classes apart; beyond it all are forgotten, and learnt again from the requests that come.
const MOST_FILTERS: usize = 256;
const MOST_FIELDS: usize = 32;

/// What attributes must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) attributes: BTreeSet<String>,
    pub(super) provider: Option<String>,
    /// Those that read attributes alone.
    pub(super) expressions: Vec<Arc<Expression>>,
}

/// A request's expressions that read attributes alone, or the others.
pub(super) fn expressions(request: &PlaceRequest<'_>, of_attributes: bool) -> Vec<Arc<Expression>> {
    let all = request.constraints.iter().filter_map(|constraint| match constraint {
        Constraint::MemberOf(expression) => Some(expression),
        Constraint::DistinctInstance => None,
    });
    all.filter(|expression| expression.reads_only_attributes() == of_attributes).cloned().collect()
}

impl Filter {
    /// What a request asks of attributes.
    pub(super) fn of(request: &PlaceRequest<'_>) -> Self {
        Self {
            attributes: request.attributes.clone(),
            provider: request.capacity_provider.map(str::to_owned),
            expressions: expressions(request, true),
        }
    }

    fn accepts(&self, profile: &Profile) -> bool {
        let attributes = &profile.attributes;
        let of_provider = |name: &String| attributes.get(CAPACITY_PROVIDER).is_some_and(|own| own.as_deref() == Some(name.as_str()));
        let subject = Subject {
            attributes,
            agent_connected: true,
            agent_version: None,
            ec2_instance_id: None,
            registered_at: UnixMillis(0),
            running_tasks: 0,
            any_group: &|_| false,
        };
        self.attributes.iter().all(|name| attributes.contains_key(name))
            && self.provider.as_ref().is_none_or(of_provider)
            && self.expressions.iter().all(|expression| expression.holds(&subject))
    }
}

/// The newest changes of a class's instances.
#[derive(Debug, Clone, Default)]
struct Log {
    entries: VecDeque<Entry>,
    /// How many there ever were.
    end: u64,
}

/// Instances that are alike.
#[derive(Debug, Clone, Default)]
pub(super) struct Class {
    /// By filter whether it is accepted (0 or 1), then by field its value.
    accepted: Vec<bool>,
    values: Vec<u32>,
    /// Open instances, in no order.
    pub(super) members: Vec<u32>,
    pub(super) by_memory: Order,
    pub(super) by_cpu: Order,
    log: Log,
}

impl Class {
    pub(super) fn accepts(&self, filter: usize) -> bool {
        self.accepted[filter]
    }

    pub(super) fn value(&self, field: usize) -> u32 {
        self.values[field]
    }

    /// Counts changes; unchanged as long as this is.
    pub(super) const fn changes(&self) -> u64 {
        self.log.end
    }

    /// What changed since it had counted this many changes, as it was by memory after each; `None` if that is too long ago.
    pub(super) fn changed_since(&self, seen: u64) -> Option<impl ExactSizeIterator<Item = &Entry>> {
        let back = usize::try_from(self.log.end - seen).ok().filter(|back| *back <= self.log.entries.len())?;
        Some(self.log.entries.range(self.log.entries.len() - back..))
    }

    fn note(&mut self, entry: Entry) {
        // Looking at more changes than this costs more than a new search.
        let most = self.members.len().clamp(16, 256);
        while self.log.entries.len() >= most {
            self.log.entries.pop_front();
        }
        self.log.entries.push_back(entry);
        self.log.end += 1;
    }

    fn enter(&mut self, at: u32, slot: &mut Slot, (is_sorted, by_cpu): (bool, bool)) {
        slot.place = index(self.members.len());
        self.members.push(at);
        if !is_sorted {
            return;
        }
        self.by_memory.insert(slot.by_memory(at));
        if by_cpu {
            self.by_cpu.insert(slot.by_cpu(at));
        }
        self.note(slot.by_memory(at));
    }
}

#[derive(Debug, Clone)]
struct Known {
    profile: Arc<Profile>,
    hash: u64,
    class: u32,
    uses: u32,
}

/// All classes of a cluster.
#[derive(Debug, Clone, Default)]
pub(super) struct Classes {
    filters: Vec<Filter>,
    fields: Vec<String>,
    /// By field, the numbers of its values; 0 is none.
    numbers: Vec<HashMap<String, u32>>,
    profiles: Vec<Known>,
    free_profiles: Vec<u32>,
    /// Profiles by hash.
    by_hash: HashMap<u64, Vec<u32>, RandomState>,
    pub(super) all: Vec<Class>,
    by_features: HashMap<(Vec<bool>, Vec<u32>), u32>,
    /// Orders and logs are kept: not before the first search, so that a fleet that is being read costs no sorting.
    is_sorted: bool,
    /// Somebody packs by CPU: the second order is kept as well.
    by_cpu: bool,
}

/// What came of asking for a filter or a field.
pub(super) struct Asked {
    pub(super) number: usize,
    /// Classes were split or renumbered: everything that names one must be made anew.
    pub(super) is_new_partition: bool,
}

impl Classes {
    pub(super) fn profile(&self, number: u32) -> &Profile {
        &self.profiles[number as usize].profile
    }

    /// The number of an instance's profile; counts one use more.
    pub(super) fn use_profile(&mut self, instance: &ContainerInstance) -> u32 {
        let hash = Profile::hash_of(instance);
        let alike = self.by_hash.get(&hash).into_iter().flatten();
        if let Some(number) = alike.copied().find(|number| self.profile(*number).is_of(instance)) {
            self.profiles[number as usize].uses += 1;
            return number;
        }
        let profile = Arc::new(Profile::of(instance));
        let class = self.class_of(&profile);
        let known = Known { profile, hash, class, uses: 1 };
        let number = if let Some(number) = self.free_profiles.pop() {
            self.profiles[number as usize] = known;
            number
        } else {
            self.profiles.push(known);
            index(self.profiles.len() - 1)
        };
        self.by_hash.entry(hash).or_default().push(number);
        number
    }

    /// Counts one use less.
    pub(super) fn drop_profile(&mut self, number: u32) {
        let known = &mut self.profiles[number as usize];
        known.uses -= 1;
        if known.uses == 0 {
            known.profile = Arc::default();
            if let Some(alike) = self.by_hash.get_mut(&known.hash) {
                alike.retain(|other| *other != number);
                if alike.is_empty() {
                    self.by_hash.remove(&known.hash);
                }
            }
            self.free_profiles.push(number);
        }
    }

    pub(super) fn class_of_profile(&self, number: u32) -> u32 {
        self.profiles[number as usize].class
    }

    fn class_of(&mut self, profile: &Profile) -> u32 {
        let accepted: Vec<_> = self.filters.iter().map(|filter| filter.accepts(profile)).collect();
        let values: Vec<_> = self.fields.iter().zip(&mut self.numbers).map(|(field, numbers)| value(profile, field, numbers)).collect();
        if let Some(class) = self.by_features.get(&(accepted.clone(), values.clone())) {
            return *class;
        }
        let class = index(self.all.len());
        self.all.push(Class { accepted: accepted.clone(), values: values.clone(), ..Class::default() });
        self.by_features.insert((accepted, values), class);
        class
    }

    /// An instance may take tasks from now on.
    pub(super) fn enter(&mut self, at: u32, slot: &mut Slot) {
        if let Some(class) = self.all.get_mut(slot.class as usize) {
            class.enter(at, slot, (self.is_sorted, self.by_cpu));
        }
    }

    /// An instance may take no tasks any more. The slot that takes its place among the members is told by number.
    pub(super) fn leave(&mut self, at: u32, slot: &Slot) -> Option<u32> {
        let class = self.all.get_mut(slot.class as usize)?;
        if self.is_sorted {
            class.by_memory.remove(&slot.by_memory(at));
            if self.by_cpu {
                class.by_cpu.remove(&slot.by_cpu(at));
            }
            class.note(slot.by_memory(at));
        }
        class.members.swap_remove(slot.place as usize);
        class.members.get(slot.place as usize).copied()
    }

    /// Something of an open instance changed; this was its place in the order by memory before.
    pub(super) fn changed(&mut self, at: u32, slot: &Slot, before: &Entry) {
        let Some(class) = self.all.get_mut(slot.class as usize) else { return };
        let after = slot.by_memory(at);
        if *before != after {
            class.by_memory.replace(before, after);
            if self.by_cpu {
                class.by_cpu.replace(&before.turned(), after.turned());
            }
        }
        class.note(after);
    }

    /// From now on instances are told apart by this filter.
    pub(super) fn ask_filter(&mut self, filter: &Filter, slots: &mut [Slot]) -> Asked {
        if let Some(number) = self.filters.iter().position(|known| known == filter) {
            return Asked { number, is_new_partition: false };
        }
        let forgets = self.filters.len() >= MOST_FILTERS;
        if forgets {
            self.filters.clear();
        }
        self.filters.push(filter.clone());
        let number = self.filters.len() - 1;
        let answers: Vec<_> = self.profiles.iter().map(|known| known.uses > 0 && filter.accepts(&known.profile)).collect();
        let splits = forgets || self.splits(|at| u32::from(answers[at]));
        if splits {
            self.divide(slots);
        } else {
            let mut of_class = vec![false; self.all.len()];
            let live = self.profiles.iter().zip(answers).filter(|(known, _)| known.uses > 0);
            live.for_each(|(known, answer)| of_class[known.class as usize] = answer);
            self.all.iter_mut().zip(of_class).for_each(|(class, answer)| class.accepted.push(answer));
            self.name_again();
        }
        Asked { number, is_new_partition: splits }
    }

    /// From now on instances are told apart by the value of this attribute.
    pub(super) fn ask_field(&mut self, field: &str, slots: &mut [Slot]) -> Asked {
        if let Some(number) = self.fields.iter().position(|known| known == field) {
            return Asked { number, is_new_partition: false };
        }
        if self.fields.len() >= MOST_FIELDS {
            self.fields.clear();
            self.numbers.clear();
        }
        self.fields.push(field.to_owned());
        self.numbers.push(HashMap::new());
        self.divide(slots);
        Asked { number: self.fields.len() - 1, is_new_partition: true }
    }

    /// The values that a field has in classes that a filter accepts and in which some instance takes tasks; one that several have comes
    /// once.
    pub(super) fn open_values(&self, filter: usize, field: usize) -> impl Iterator<Item = &str> {
        let open = self.all.iter().filter(move |class| class.accepts(filter) && !class.members.is_empty());
        let open: BTreeSet<u32> = open.map(|class| class.value(field)).collect();
        self.numbers[field].iter().filter(move |(_, number)| open.contains(*number)).map(|(value, _)| value.as_str())
    }

    /// Orders and logs are kept: changes must be told by [`Classes::changed`].
    pub(super) const fn is_sorted(&self) -> bool {
        self.is_sorted
    }

    /// From now on orders and logs are kept.
    pub(super) fn sort(&mut self, slots: &[Slot]) {
        if !self.is_sorted {
            self.is_sorted = true;
            for class in &mut self.all {
                class.by_memory = Order::of(class.members.iter().map(|at| slots[*at as usize].by_memory(*at)).collect());
            }
        }
    }

    /// From now on the order by CPU is kept, too.
    pub(super) fn ask_by_cpu(&mut self, slots: &[Slot]) {
        if !self.by_cpu {
            self.by_cpu = true;
            for class in &mut self.all {
                class.by_cpu = Order::of(class.members.iter().map(|at| slots[*at as usize].by_cpu(*at)).collect());
            }
        }
    }

    /// Two profiles of one class differ in this.
    fn splits(&self, answer: impl Fn(usize) -> u32) -> bool {
        let mut of_class = vec![None; self.all.len()];
        let mut live = self.profiles.iter().enumerate().filter(|(_, known)| known.uses > 0);
        live.any(|(at, known)| {
            let first = of_class[known.class as usize].get_or_insert_with(|| answer(at));
            *first != answer(at)
        })
    }

    /// A class without profiles has no answer of its own: whoever comes later must not be put into it.
    fn name_again(&mut self) {
        let live: BTreeSet<u32> = self.profiles.iter().filter(|known| known.uses > 0).map(|known| known.class).collect();
        let features = |number: u32| {
            let class = &self.all[number as usize];
            (class.accepted.clone(), class.values.clone())
        };
        self.by_features = live.into_iter().map(|number| (features(number), number)).collect();
    }

    /// Most classes are of machines that are gone.
    pub(super) fn is_wasteful(&self) -> bool {
        self.all.len() > 64 + 2 * (self.profiles.len() - self.free_profiles.len())
    }

    /// Makes all classes anew: everything that names one must be made anew.
    pub(super) fn divide(&mut self, slots: &mut [Slot]) {
        self.all.clear();
        self.by_features.clear();
        for at in 0..self.profiles.len() {
            if self.profiles[at].uses > 0 {
                let profile = Arc::clone(&self.profiles[at].profile);
                self.profiles[at].class = self.class_of(&profile);
            }
        }
        let mut entries: Vec<(Vec<Entry>, Vec<Entry>)> = vec![Default::default(); self.all.len()];
        for (at, slot) in slots.iter_mut().enumerate() {
            if !slot.registered {
                slot.class = NO_CLASS;
                continue;
            }
            slot.class = self.profiles[slot.profile as usize].class;
            if slot.is_open() {
                let class = &mut self.all[slot.class as usize];
                slot.place = index(class.members.len());
                class.members.push(index(at));
                if !self.is_sorted {
                    continue;
                }
                entries[slot.class as usize].0.push(slot.by_memory(index(at)));
                if self.by_cpu {
                    entries[slot.class as usize].1.push(slot.by_cpu(index(at)));
                }
            }
        }
        for (class, (by_memory, by_cpu)) in self.all.iter_mut().zip(entries) {
            class.by_memory = Order::of(by_memory);
            class.by_cpu = Order::of(by_cpu);
        }
    }
}

/// The number of an attribute's value; 0 for an instance that has none.
fn value(profile: &Profile, field: &str, numbers: &mut HashMap<String, u32>) -> u32 {
    let Some(value) = profile.attributes.get(field).and_then(Option::as_ref) else { return 0 };
    if let Some(number) = numbers.get(value) {
        return *number;
    }
    let number = index(numbers.len() + 1);
    numbers.insert(value.clone(), number);
    number
}

/// Counts of instances and of what they have are far below 2^32.
pub(super) fn index(number: usize) -> u32 {
    u32::try_from(number).expect("fewer than 2^32 of anything")
}
