//! The hash of ids. They are random bits that the server drew itself, so there is nothing to mix and nobody who could choose them
//! to collide; it must not be used for what users name.

use std::hash::{BuildHasherDefault, Hasher};

/// For maps by id.
pub(super) type ById = BuildHasherDefault<IdHasher>;

/// Folds an id into a word.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHasher(u64);

/// Bits without a pattern: the first of pi behind the point.
const PI: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PI[0]);
        }
    }

    fn write_u128(&mut self, id: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
        let halves = |wide: u128| ((wide >> 64) as u64, wide as u64);
        let (high, low) = halves(id);
        // Each bit of one half meets each of the other, and both ends of the product have some of all.
        let (high, low) = halves(u128::from(high ^ PI[0]) * u128::from(low ^ PI[1]));
        self.0 = high ^ low;
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
