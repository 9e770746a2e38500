//! The hash of ids. They are random bits that the server drew itself, so there is nothing to mix and nobody who could choose them
//! to collide; it must not be used for what users name.

use std::hash::{BuildHasherDefault, Hasher};

/// For maps by id.
pub(super) type ById = BuildHasherDefault<IdHasher>;

/// Folds an id into a word.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHasher(u64);

/// Odd, half of its bits set: carries a difference anywhere in a word up into the bits that a table looks at first.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(ODD);
        }
    }

    fn write_u128(&mut self, id: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
        let (high, low) = ((id >> 64) as u64, id as u64);
        // The table also looks at the lowest bits, where a product has only what was low before.
        let product = (high ^ low.rotate_left(32)).wrapping_mul(ODD);
        self.0 = product ^ (product >> 32);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use berth_model::ids::TaskId;

    use super::*;

    #[test]
    fn ids_that_differ_anywhere_differ_where_a_table_looks() {
        let of = |bits: u128| ById::default().hash_one(TaskId(bits));
        for look in [|hash: u64| hash & 0xffff, |hash: u64| hash >> 48] {
            let counted: HashSet<_> = (0..1_000).map(|number| look(of(number))).collect();
            let shifted: HashSet<_> = (0..128).map(|bit| look(of(1 << bit))).collect();
            assert!(counted.len() > 950 && shifted.len() > 100, "{} {}", counted.len(), shifted.len());
        }
    }
}
