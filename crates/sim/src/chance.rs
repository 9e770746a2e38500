//! All chance of a simulation, out of one seed. Each part of the world has a stream of its own, so that one part's draws do not move
//! another's. Never asks the machine for randomness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_control::Entropy;

/// A stream of random numbers (SplitMix64). Clones share it.
#[derive(Debug, Clone)]
pub struct Chance(Arc<AtomicU64>);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Chance {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(mix(seed.wrapping_add(STEP)))))
    }

    /// A stream of its own for a part of the world. Draws nothing from this one.
    #[must_use]
    pub fn part(&self, name: &str, number: u64) -> Self {
        let start = self.0.load(Ordering::Relaxed);
        let named = name.bytes().fold(start, |hash, byte| mix(hash ^ u64::from(byte)));
        Self::new(mix(named ^ number.wrapping_mul(STEP)))
    }

    /// 64 bits.
    pub fn bits(&self) -> u64 {
        mix(self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&self, end: u64) -> u64 {
        self.bits() % end
    }

    /// A number from `first` to `last`.
    pub fn within(&self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// True in so many of a thousand cases.
    pub fn per_mille(&self, cases: u64) -> bool {
        self.below(1000) < cases
    }

    /// One of them; the slice must not be empty.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("an index fits")]
    }

    /// A duration between two, in milliseconds.
    pub fn millis(&self, first: u64, last: u64) -> Duration {
        Duration::from_millis(self.within(first, last))
    }
}

impl Entropy for Chance {
    fn bits(&self) -> u128 {
        u128::from(Self::bits(self)) << 64 | u128::from(Self::bits(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_parts_do_not_meet() {
        let draw = |chance: &Chance| (0..4).map(|_| Chance::bits(chance)).collect::<Vec<_>>();
        assert_eq!(draw(&Chance::new(7)), draw(&Chance::new(7)));
        assert_ne!(draw(&Chance::new(7)), draw(&Chance::new(8)));
        let chance = Chance::new(7);
        let one = draw(&chance.part("a", 1));
        assert_eq!(one, draw(&chance.part("a", 1)));
        assert_ne!(one, draw(&chance.part("a", 2)));
        assert_ne!(one, draw(&chance.part("b", 1)));
    }
}
