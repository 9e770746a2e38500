//! Which addresses of a subnet an interface may have, and which one is next. Pure: what is taken comes in as an argument.
//!
//! AWS keeps the first four addresses of each subnet and the last for itself:
//! <https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html>.

use core::net::Ipv4Addr;
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

/// The next free address: the first one after `last` (the address given out before) that is not taken, from the start again at the
/// end; `None` if all are taken. So an address that became free is the last to be given again, when peers have forgotten whose it
/// was.
pub fn next_free(cidr: Ipv4Cidr, last: Option<Ipv4Addr>, is_taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let usable = usable(cidr);
    if usable.is_empty() {
        return None;
    }
    let (start, end) = (u32::from(*usable.start()), u32::from(*usable.end()));
    let from = last.filter(|last| usable.contains(last) && last != usable.end()).map_or(start, |last| u32::from(last) + 1);
    (from..=end).chain(start..from).map(Ipv4Addr::from).find(|address| !is_taken(*address))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> Ipv4Cidr {
        text.parse().unwrap()
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
        assert_eq!(next_free(block("10.0.0.0/30"), None, |_| false), None);
        assert_eq!(next_free(block("255.255.255.252/30"), None, |_| false), None);
    }

    proptest! {
        #[test]
        fn all_addresses_are_given_once_and_then_none(prefix in 26_u8..=29, network: u32) {
            let cidr = Ipv4Cidr::containing(network.into(), prefix).unwrap();
            let (mut taken, mut last) = (BTreeSet::new(), None);
            while let Some(address) = next_free(cidr, last, |address| taken.contains(&address)) {
                prop_assert!(usable(cidr).contains(&address));
                prop_assert!(taken.insert(address), "{address} was given twice");
                last = Some(address);
            }
            prop_assert_eq!(taken.len() as u64, capacity(cidr));
        }

        #[test]
        fn whatever_was_freed_is_found_again(prefix in 26_u8..=28, network: u32, last: Option<u32>, freed: prop::sample::Index) {
            let cidr = Ipv4Cidr::containing(network.into(), prefix).unwrap();
            let nth = u32::try_from(freed.index(usize::try_from(capacity(cidr)).unwrap())).unwrap();
            let freed = Ipv4Addr::from(u32::from(*usable(cidr).start()) + nth);
            prop_assert_eq!(next_free(cidr, last.map(Ipv4Addr::from), |address| address != freed), Some(freed));
        }

        #[test]
        fn what_was_freed_last_is_given_last(prefix in 26_u8..=28, network: u32, last: prop::sample::Index) {
            let cidr = Ipv4Cidr::containing(network.into(), prefix).unwrap();
            let nth = u32::try_from(last.index(usize::try_from(capacity(cidr)).unwrap())).unwrap();
            let last = Ipv4Addr::from(u32::from(*usable(cidr).start()) + nth);
            let (mut given, mut after) = (Vec::new(), Some(last));
            while let Some(address) = next_free(cidr, after, |address| given.contains(&address)) {
                given.push(address);
                after = Some(address);
            }
            prop_assert_eq!(given.last(), Some(&last));
        }
    }
}
