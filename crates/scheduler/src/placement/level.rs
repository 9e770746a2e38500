//! What a request's strategies mean: an order of instances, level by level, and how the first of that order is found.

use super::{SpreadField, Strategy};

/// Most strategies of a request that count: ECS takes five.
pub(super) const LEVELS: usize = 5;

/// By what the choice is narrowed, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Tasks of the group on instances with the same value, of this field and of those spread over before it: a table of cells.
    Cell(usize),
    /// Tasks of the group on the instance.
    Instance,
    /// Free memory.
    Memory,
    /// Free CPU.
    Cpu,
}

/// What decides between instances that the strategies leave alike, and the order in which a class is searched: packed, the fuller one;
/// otherwise the one with more room; then the one with the lower or higher id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    MostMemory,
    LeastMemory,
    LeastCpu,
}

/// How the best of a class is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// It is the first that fits on the walk.
    First,
    /// It is the first that fits among those with the fewest tasks of the group.
    FewestFirst,
    /// All that fit are compared.
    All,
}

/// What strategies say of an instance; less is better.
pub(super) type Rank = [u32; LEVELS];

/// The levels that strategies make, up to `random`; and the attributes that are spread over.
pub(super) fn levels(strategies: &[Strategy]) -> (Vec<Level>, Vec<&str>, bool) {
    let (mut levels, mut fields, mut is_random) = (Vec::new(), Vec::new(), strategies.is_empty());
    for strategy in strategies {
        let level = match strategy {
            Strategy::Random => {
                is_random = true;
                break;
            }
            Strategy::Spread(SpreadField::Instance) => Level::Instance,
            Strategy::Spread(SpreadField::Attribute(name)) => {
                if fields.contains(&name.as_str()) {
                    continue;
                }
                fields.push(name.as_str());
                Level::Cell(fields.len() - 1)
            }
            Strategy::BinpackCpu => Level::Cpu,
            Strategy::BinpackMemory => Level::Memory,
        };
        if !levels.contains(&level) && levels.len() < LEVELS {
            levels.push(level);
        }
    }
    (levels, fields, is_random)
}

/// How the best instance of a class is found by these levels.
pub(super) fn search_of(levels: &[Level]) -> (Walk, Search) {
    // In a class all cells are the same.
    let own: Vec<_> = levels.iter().filter(|level| !matches!(level, Level::Cell(_))).collect();
    let walk = match own.iter().find(|level| matches!(level, Level::Memory | Level::Cpu)) {
        Some(Level::Memory) => Walk::LeastMemory,
        Some(_) => Walk::LeastCpu,
        None => Walk::MostMemory,
    };
    let search = match own.as_slice() {
        [] | [Level::Memory] | [Level::Memory, Level::Cpu] | [Level::Cpu] | [Level::Cpu, Level::Memory] => Search::First,
        [Level::Instance, rest @ ..] if !rest.contains(&&Level::Instance) => Search::FewestFirst,
        _ => Search::All,
    };
    (walk, search)
}
