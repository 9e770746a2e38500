//! Addresses that a machine may give to tasks so that they are reached from outside (`assignPublicIp`). Pure.

use core::net::Ipv4Addr;

/// The attribute with which an agent says which addresses its machine may give to tasks that ask for a public one: `FIRST-LAST` or one
/// address, with spaces between. Inside AWS they come of Amazon's pool; elsewhere whoever runs the machine has some that lead to it. It is
/// for the agent alone to say.
pub const PUBLIC_ADDRESSES: &str = "berth.public-addresses";

/// The addresses of one machine, as ranges that ascend and never touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublicAddresses(Vec<(u32, u32)>);

impl PublicAddresses {
    /// Reads the value of [`PUBLIC_ADDRESSES`]; `None` if it is none, or names no address.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((u32::from(first), u32::from(last)))
        };
        let mut ranges = value.split_whitespace().map(range).collect::<Option<Vec<_>>>()?;
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        (!merged.is_empty()).then_some(Self(merged))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().fold(0, |sum: u32, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// The first that is not taken. Costs as many questions as there are taken ones before it.
    pub fn first_free(&self, is_taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        self.0.iter().flat_map(|(first, last)| *first..=*last).map(Ipv4Addr::from).find(|address| !is_taken(*address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_merged_and_counted() {
        let pool = PublicAddresses::parse("192.0.2.20-192.0.2.22 192.0.2.10 192.0.2.11-192.0.2.12 192.0.2.12").expect("addresses");
        assert_eq!(pool.count(), 6);
        let mut given = Vec::new();
        while let Some(next) = pool.first_free(|address| given.contains(&address)) {
            given.push(next);
        }
        assert_eq!(given.iter().map(|address| address.octets()[3]).collect::<Vec<_>>(), [10, 11, 12, 20, 21, 22]);
        assert_eq!(PublicAddresses::parse("0.0.0.0-255.255.255.255").map(|all| all.count()), Some(u32::MAX));
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in ["", "  ", "192.0.2.1,192.0.2.2", "192.0.2.9-192.0.2.1", "192.0.2.0/24", "fd00::1", "192.0.2.1-"] {
            assert_eq!(PublicAddresses::parse(text), None, "{text}");
        }
    }
}
