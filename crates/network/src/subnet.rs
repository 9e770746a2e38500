//! IPv4 subnets: which one a bridge takes, and which of its addresses go to whom.
//!
//! Pure: what the machine already uses comes in as an argument.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 subnet in CIDR form whose host bits are zero, from `/8` to `/29`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: u32,
    prefix: u8,
}

/// Why a text or a pair of numbers is no usable subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not `a.b.c.d/n`.
    #[error("subnet {0:?}: expected a.b.c.d/n")]
    Syntax(String),
    /// Too large to be sensible or too small for a gateway and several containers.
    #[error("subnet {0}: the prefix length must be between 8 and 29")]
    Prefix(String),
    /// Bits right of the prefix are set.
    #[error("subnet {0}: bits right of the prefix must be zero")]
    HostBits(String),
}

impl Subnet {
    /// A subnet of `network/prefix`.
    ///
    /// # Errors
    /// [`SubnetError::Prefix`], [`SubnetError::HostBits`].
    pub fn new(network: Ipv4Addr, prefix: u8) -> Result<Self, SubnetError> {
        if !(8..=29).contains(&prefix) {
            return Err(SubnetError::Prefix(format!("{network}/{prefix}")));
        }
        if u32::from(network) & !mask(prefix) != 0 {
            return Err(SubnetError::HostBits(format!("{network}/{prefix}")));
        }
        Ok(Self { network: u32::from(network), prefix })
    }

    /// The network address.
    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        self.network.into()
    }

    /// Prefix length in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The netmask.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        mask(self.prefix).into()
    }

    /// The first host address, which the bridge itself has.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        (self.network + 1).into()
    }

    /// The broadcast address.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        (self.network | !mask(self.prefix)).into()
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.network
    }

    /// Whether it shares an address with `network/prefix` (any prefix length up to 32).
    #[must_use]
    pub fn overlaps(self, network: Ipv4Addr, prefix: u8) -> bool {
        let common = mask(self.prefix.min(prefix));
        self.network & common == u32::from(network) & common
    }

    /// The first `/20` of the private ranges that overlaps none of `taken`.
    ///
    /// 172.20.0.0/14 comes first because office and home networks hardly use it; the second range is there for machines where a
    /// provider or Docker's own pools have claimed all of 172.16.0.0/12.
    #[must_use]
    pub fn first_free(taken: &[(Ipv4Addr, u8)]) -> Option<Self> {
        const PREFIX: u8 = 20;
        const RANGES: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::new(172, 20, 0, 0), 14), (Ipv4Addr::new(10, 176, 0, 0), 12)];
        RANGES
            .iter()
            .flat_map(|(base, length)| {
                (0..1u32 << (PREFIX - length)).map(move |step| Self { network: u32::from(*base) + (step << (32 - PREFIX)), prefix: PREFIX })
            })
            .find(|candidate| !taken.iter().any(|(network, prefix)| candidate.overlaps(*network, *prefix)))
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let syntax = || SubnetError::Syntax(text.chars().take(64).collect());
        let (network, prefix) = text.split_once('/').ok_or_else(syntax)?;
        Self::new(network.parse().map_err(|_| syntax())?, prefix.parse().map_err(|_| syntax())?)
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

/// The host addresses of a subnet, without its gateway.
#[derive(Debug)]
pub struct AddressPool {
    subnet: Subnet,
    leased: BTreeSet<u32>,
    next: u32,
}

impl AddressPool {
    /// A pool in which `leased` are already given away.
    #[must_use]
    pub fn new(subnet: Subnet, leased: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        let leased: BTreeSet<u32> = leased.into_iter().filter(|a| subnet.contains(*a)).map(|a| u32::from(a) - subnet.network).collect();
        let next = leased.last().map_or(2, |last| last + 1);
        Self { subnet, leased, next }
    }

    /// The lowest free address after the one given away last, beginning again at the start when the end is reached: an
    /// address that was just released stays unused as long as possible, so that nobody's old connection meets a new container.
    pub fn lease(&mut self) -> Option<Ipv4Addr> {
        let end = !mask(self.subnet.prefix);
        let offset = (self.next..end).chain(2..self.next.min(end)).find(|offset| !self.leased.contains(offset))?;
        self.leased.insert(offset);
        self.next = offset + 1;
        Some((self.subnet.network + offset).into())
    }

    /// Takes an address back.
    pub fn release(&mut self, address: Ipv4Addr) {
        if self.subnet.contains(address) {
            self.leased.remove(&(u32::from(address) - self.subnet.network));
        }
    }

    /// The subnet.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn a_text_is_read_and_written_alike() {
        assert_eq!(subnet("172.20.16.0/20").to_string(), "172.20.16.0/20");
        assert_eq!(subnet("172.20.16.0/20").gateway(), Ipv4Addr::new(172, 20, 16, 1));
        assert_eq!(subnet("172.20.16.0/20").broadcast(), Ipv4Addr::new(172, 20, 31, 255));
        assert_eq!("172.20.16.0".parse::<Subnet>(), Err(SubnetError::Syntax("172.20.16.0".into())));
        assert_eq!("172.20.16.0/30".parse::<Subnet>(), Err(SubnetError::Prefix("172.20.16.0/30".into())));
        assert_eq!("172.20.16.1/20".parse::<Subnet>(), Err(SubnetError::HostBits("172.20.16.1/20".into())));
    }

    #[test]
    fn overlap_goes_both_ways() {
        let ours = subnet("172.20.16.0/20");
        assert!(ours.overlaps(Ipv4Addr::new(172, 16, 0, 0), 12));
        assert!(ours.overlaps(Ipv4Addr::new(172, 20, 17, 9), 32));
        assert!(ours.overlaps(Ipv4Addr::new(0, 0, 0, 0), 0));
        assert!(!ours.overlaps(Ipv4Addr::new(172, 20, 32, 0), 20));
    }

    #[test]
    fn the_first_free_subnet_avoids_what_is_taken() {
        assert_eq!(Subnet::first_free(&[]), Some(subnet("172.20.0.0/20")));
        assert_eq!(Subnet::first_free(&[(Ipv4Addr::new(172, 20, 15, 255), 32)]), Some(subnet("172.20.16.0/20")));
        assert_eq!(Subnet::first_free(&[(Ipv4Addr::new(172, 16, 0, 0), 12)]), Some(subnet("10.176.0.0/20")));
        assert_eq!(Subnet::first_free(&[(Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(10, 0, 0, 0), 8)]), None);
    }

    #[test]
    fn addresses_are_not_reused_at_once_and_run_out() {
        let mut pool = AddressPool::new(subnet("172.20.0.0/29"), []);
        let all: Vec<_> = std::iter::from_fn(|| pool.lease()).collect();
        assert_eq!(all, (2..=6).map(|last| Ipv4Addr::new(172, 20, 0, last)).collect::<Vec<_>>());
        pool.release(all[1]);
        pool.release(all[3]);
        assert_eq!(pool.lease(), Some(all[1]));
        pool.release(all[1]);
        assert_eq!(pool.lease(), Some(all[3]), "the cursor moves on before it comes back");
        assert_eq!(pool.lease(), Some(all[1]));
        assert_eq!(pool.lease(), None);
    }

    #[test]
    fn a_pool_knows_earlier_leases() {
        let mut pool = AddressPool::new(subnet("172.20.0.0/29"), [Ipv4Addr::new(172, 20, 0, 6), Ipv4Addr::new(172, 20, 0, 2)]);
        assert_eq!(pool.lease(), Some(Ipv4Addr::new(172, 20, 0, 3)));
    }
}
