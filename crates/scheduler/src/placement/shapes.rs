//! The shapes of requests that came lately, found by what they ask. Bounded: the ones that were not used for longest go.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::FixedState;

use super::kinds::Kinds;
use super::shape::Shape;
use super::{PlaceRequest, SpreadField, Strategy};

/// Most shapes, and most cursors of all of them together.
const MOST_SHAPES: usize = 512;
const MOST_CURSORS: usize = 1 << 18;

/// The shapes, in the order of their hashes.
#[derive(Debug, Clone, Default)]
pub(super) struct Shapes {
    all: Vec<(u64, Box<Shape>)>,
    uses: u64,
}

impl Shapes {
    /// Where a request's shape stands.
    pub(super) fn find(&self, request: &PlaceRequest<'_>) -> Option<usize> {
        let hash = hash(request);
        let from = self.all.partition_point(|(own, _)| *own < hash);
        let found = self.all[from..].iter().take_while(|(own, _)| *own == hash).position(|(_, shape)| shape.is_of(request))?;
        Some(from + found)
    }

    /// The shape that stands there.
    pub(super) fn used(&mut self, at: usize) -> &mut Shape {
        self.uses += 1;
        let shape = &mut self.all[at].1;
        shape.last_used = self.uses;
        shape
    }

    /// Puts a new shape in; where it stands then.
    pub(super) fn put(&mut self, request: &PlaceRequest<'_>, mut shape: Shape, kinds: &mut Kinds) -> usize {
        let cursors: usize = self.all.iter().map(|(_, shape)| shape.cursors()).sum();
        if self.all.len() >= MOST_SHAPES || cursors > MOST_CURSORS {
            let mut uses: Vec<_> = self.all.iter().map(|(_, shape)| shape.last_used).collect();
            let middle = uses.len() / 2;
            let middle = *uses.select_nth_unstable(middle).1;
            self.keep(kinds, |shape| shape.last_used > middle);
        }
        self.uses += 1;
        shape.last_used = self.uses;
        let hash = hash(request);
        let at = self.all.partition_point(|(own, _)| *own < hash);
        self.all.insert(at, (hash, Box::new(shape)));
        at
    }

    /// Forgets all.
    pub(super) fn clear(&mut self, kinds: &mut Kinds) {
        self.keep(kinds, |_| false);
    }

    fn keep(&mut self, kinds: &mut Kinds, keep: impl Fn(&Shape) -> bool) {
        self.all.retain(|(_, shape)| {
            let stays = keep(shape);
            if !stays {
                kinds.give_back(shape.kind);
            }
            stays
        });
    }
}

/// What tells most shapes apart; the rest is compared.
fn hash(request: &PlaceRequest<'_>) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    request.group.hash(&mut hasher);
    (request.demand.cpu, request.demand.memory, request.constraints.len(), request.attributes.len()).hash(&mut hasher);
    request.capacity_provider.hash(&mut hasher);
    for strategy in request.strategies {
        let (number, field) = match strategy {
            Strategy::Random => (0, ""),
            Strategy::Spread(SpreadField::Instance) => (1, ""),
            Strategy::Spread(SpreadField::Attribute(name)) => (2, name.as_str()),
            Strategy::BinpackCpu => (3, ""),
            Strategy::BinpackMemory => (4, ""),
        };
        (number, field).hash(&mut hasher);
    }
    hasher.finish()
}
