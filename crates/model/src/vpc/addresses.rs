//! Which addresses of a subnet an interface may have, which are taken, and which one is next. Pure.
//!
//! AWS keeps the first four addresses of each subnet and the last for itself:
//! <https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html>.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::cidr::Ipv4Cidr;

/// Addresses at the start of a subnet that nobody is given: the network's own, the router's, DNS's, and one for the future.
const KEPT_FIRST: u32 = 4;
/// Addresses at its end: the broadcast address.
const KEPT_LAST: u32 = 1;

/// The addresses that interfaces may have; none (an empty range) if the block is too small for any.
#[must_use]
pub fn usable(cidr: Ipv4Cidr) -> RangeInclusive<Ipv4Addr> {
    let (first, last) = (u32::from(cidr.first()), u32::from(cidr.last()));
    match (first.checked_add(KEPT_FIRST), last.checked_sub(KEPT_LAST)) {
        (Some(from), Some(to)) if from <= to => Ipv4Addr::from(from)..=Ipv4Addr::from(to),
        _ => RangeInclusive::new(Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED),
    }
}

/// How many addresses interfaces may have.
#[must_use]
pub fn capacity(cidr: Ipv4Cidr) -> u64 {
    let usable = usable(cidr);
    if usable.is_empty() { 0 } else { u64::from(u32::from(*usable.end()) - u32::from(*usable.start())) + 1 }
}

/// The router's address: the subnet's second. It is an interface's gateway.
#[must_use]
pub fn gateway(cidr: Ipv4Cidr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(cidr.first()).saturating_add(1))
}

/// Addresses that somebody has. Neighbours are kept as one run of them, so that the next free address after another is found without
/// passing those between: a subnet that is nearly full costs what an empty one does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// The first address of each run with its last. Between two runs at least one address is free.
    runs: BTreeMap<u32, u32>,
    count: u64,
}

impl Taken {
    /// No address.
    pub const NONE: Self = Self { runs: BTreeMap::new(), count: 0 };

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The run that an address is in.
    fn run_of(&self, address: u32) -> Option<(u32, u32)> {
        let (first, last) = self.runs.range(..=address).next_back()?;
        (*last >= address).then_some((*first, *last))
    }

    /// Somebody has it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.run_of(address.into()).is_some()
    }

    /// Somebody has this address from now on; `false` if somebody had it.
    pub fn insert(&mut self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        if self.run_of(address).is_some() {
            return false;
        }
        let before = address.checked_sub(1).and_then(|neighbour| self.run_of(neighbour));
        let after = address.checked_add(1).and_then(|neighbour| self.runs.remove(&neighbour));
        self.runs.insert(before.map_or(address, |(first, _)| first), after.unwrap_or(address));
        self.count += 1;
        true
    }

    /// Nobody has it any more; `false` if nobody had it.
    pub fn remove(&mut self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        let Some((first, last)) = self.run_of(address) else { return false };
        self.runs.remove(&first);
        if first < address {
            self.runs.insert(first, address - 1);
        }
        if address < last {
            self.runs.insert(address + 1, last);
        }
        self.count -= 1;
        true
    }

    /// The next free address of a subnet: the first one after `last` (the address given out before) that is not taken, from the start
    /// again at the end; `None` if all are taken. So an address that became free is the last to be given again, when peers have
    /// forgotten whose it was.
    #[must_use]
    pub fn next_free(&self, cidr: Ipv4Cidr, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let usable = usable(cidr);
        if usable.is_empty() {
            return None;
        }
        let (start, end) = (u32::from(*usable.start()), u32::from(*usable.end()));
        let from = last.filter(|last| usable.contains(last) && last != usable.end()).map_or(start, |last| u32::from(last) + 1);
        let first_free = |from: u32| self.run_of(from).map_or(Some(from), |(_, last)| last.checked_add(1));
        let ahead = first_free(from).filter(|address| *address <= end);
        ahead.or_else(|| first_free(start).filter(|address| *address < from)).map(Ipv4Addr::from)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> Ipv4Cidr {
        text.parse().unwrap()
    }

    fn taken(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Taken {
        let mut taken = Taken::NONE;
        addresses.into_iter().for_each(|address| assert!(taken.insert(address), "{address} twice"));
        taken
    }

    /// The same by looking at each.
    fn next_by_looking(cidr: Ipv4Cidr, last: Option<Ipv4Addr>, held: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let all: Vec<Ipv4Addr> = if usable(cidr).is_empty() {
            Vec::new()
        } else {
            (u32::from(*usable(cidr).start())..=u32::from(*usable(cidr).end())).map(Ipv4Addr::from).collect()
        };
        let from = last.and_then(|last| all.iter().position(|address| *address == last)).map_or(0, |at| at + 1);
        all[from..].iter().chain(&all[..from]).find(|address| !held.contains(address)).copied()
    }

    #[test]
    fn aws_keeps_the_first_four_and_the_last() {
        let range = usable(block("172.31.16.0/20"));
        assert_eq!(range, Ipv4Addr::new(172, 31, 16, 4)..=Ipv4Addr::new(172, 31, 31, 254));
        assert_eq!((capacity(block("172.31.16.0/20")), capacity(block("10.0.0.0/28"))), (4091, 11));
        assert_eq!(
            [29, 30, 31, 32].map(|prefix| capacity(Ipv4Cidr::containing(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap())),
            [3, 0, 0, 0]
        );
        assert_eq!(capacity(block("255.255.255.255/32")), 0);
        assert_eq!(gateway(block("172.31.16.0/20")), Ipv4Addr::new(172, 31, 16, 1));
    }

    #[test]
    fn a_subnet_too_small_has_none() {
        assert_eq!(Taken::NONE.next_free(block("10.0.0.0/30"), None), None);
        assert_eq!(Taken::NONE.next_free(block("255.255.255.252/30"), None), None);
    }

    proptest! {
        #[test]
        fn runs_say_what_looking_at_each_address_says(
            prefix in 26_u8..=30,
            network: u32,
            changes in prop::collection::vec((any::<bool>(), 0..64_u32), 0..200),
            last: Option<u32>,
            near in 0..64_u32,
        ) {
            let cidr = Ipv4Cidr::containing(network.into(), prefix).unwrap();
            let (mut taken, mut held) = (Taken::NONE, BTreeSet::new());
            // Some are of the network's neighbours, or at the end of all addresses.
            let at = |offset: u32| Ipv4Addr::from(u32::from(cidr.first()).saturating_add(offset));
            for (comes, offset) in changes {
                let address = at(offset);
                if comes {
                    prop_assert_eq!(taken.insert(address), held.insert(address));
                } else {
                    prop_assert_eq!(taken.remove(address), held.remove(&address));
                }
                prop_assert_eq!(taken.count(), held.len() as u64);
                prop_assert_eq!(taken.contains(at(near)), held.contains(&at(near)));
                for last in [None, last.map(Ipv4Addr::from), Some(at(near))] {
                    prop_assert_eq!(taken.next_free(cidr, last), next_by_looking(cidr, last, &held), "after {:?}", last);
                }
            }
            let ends: Vec<_> = taken.runs.iter().map(|(first, last)| (*first, *last)).collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "neighbours are one run: {ends:?}");
        }

        #[test]
        fn all_addresses_are_given_once_and_then_none(prefix in 26_u8..=29, network: u32) {
            let cidr = Ipv4Cidr::containing(network.into(), prefix).unwrap();
            let (mut held, mut last) = (Taken::NONE, None);
            while let Some(address) = held.next_free(cidr, last) {
                prop_assert!(usable(cidr).contains(&address));
                prop_assert!(held.insert(address), "{address} was given twice");
                last = Some(address);
            }
            prop_assert_eq!(held.count(), capacity(cidr));
        }

        #[test]
        fn what_was_freed_last_is_given_last(prefix in 26_u8..=28, network: u32, last: prop::sample::Index) {
            let cidr = Ipv4Cidr::containing(network.into(), prefix).unwrap();
            let nth = u32::try_from(last.index(usize::try_from(capacity(cidr)).unwrap())).unwrap();
            let last = Ipv4Addr::from(u32::from(*usable(cidr).start()) + nth);
            let (mut given, mut after) = (Vec::new(), Some(last));
            while let Some(address) = taken(given.iter().copied()).next_free(cidr, after) {
                given.push(address);
                after = Some(address);
            }
            prop_assert_eq!(given.last(), Some(&last));
        }
    }
}
