//! Blocks of addresses. A block is kept in its canonical form: the bits below the prefix are zero, as AWS keeps it.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The text is not a CIDR block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a CIDR block")]
pub struct CidrError(pub String);

/// A block of IPv4 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv4Cidr {
    network: u32,
    prefix: u8,
}

impl Ipv4Cidr {
    /// Everywhere.
    pub const ANYWHERE: Self = Self { network: 0, prefix: 0 };

    /// The block of this length that an address is in; `None` if the length is above 32.
    #[must_use]
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        (prefix <= 32).then_some(Self { network: u32::from(address) & mask, prefix })
    }

    /// How many bits of an address say which block.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its first address.
    #[must_use]
    pub fn first(self) -> Ipv4Addr {
        self.network.into()
    }

    /// Its last address.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        (self.network | u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0)).into()
    }

    /// How many addresses it has.
    #[must_use]
    pub const fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// Is the address in it?
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first()..=self.last()).contains(&address)
    }

    /// Is all of the other block in it?
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.contains(other.first()) && self.contains(other.last())
    }

    /// Have they an address in common?
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

impl FromStr for Ipv4Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let read = || {
            let (address, prefix) = split(text)?;
            Self::containing(address, prefix)
        };
        read().ok_or_else(|| CidrError(text.chars().take(64).collect()))
    }
}

/// A block of IPv6 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv6Cidr {
    network: u128,
    prefix: u8,
}

impl Ipv6Cidr {
    /// The block of this length that an address is in; `None` if the length is above 128.
    #[must_use]
    pub fn containing(address: Ipv6Addr, prefix: u8) -> Option<Self> {
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
        (prefix <= 128).then_some(Self { network: u128::from(address) & mask, prefix })
    }

    /// Its first address.
    #[must_use]
    pub fn first(self) -> Ipv6Addr {
        self.network.into()
    }

    /// How many bits of an address say which block.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Ipv6Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

impl FromStr for Ipv6Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let read = || {
            let (address, prefix) = split(text)?;
            Self::containing(address, prefix)
        };
        read().ok_or_else(|| CidrError(text.chars().take(64).collect()))
    }
}

/// Address and prefix; a prefix is one to three digits and nothing else (`parse` alone would take a sign).
fn split<A: FromStr>(text: &str) -> Option<(A, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let digits = (1..=3).contains(&prefix.len()) && prefix.bytes().all(|digit| digit.is_ascii_digit());
    if digits { Some((address.parse().ok()?, prefix.parse().ok()?)) } else { None }
}

macro_rules! as_text {
    ($($name:ident),+) => {
        $(
            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    fmt::Display::fmt(self, f)
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                }
            }
        )+
    };
}

as_text!(Ipv4Cidr, Ipv6Cidr);

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> Ipv4Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_are_kept_canonical() {
        for (text, kept) in [("100.68.0.18/18", "100.68.0.0/18"), ("1.2.3.4/32", "1.2.3.4/32"), ("9.9.9.9/0", "0.0.0.0/0")] {
            assert_eq!(v4(text).to_string(), kept);
            assert_eq!(v4(kept).to_string(), kept);
        }
        for (text, kept) in [("2001:db8::1/32", "2001:db8::/32"), ("::1/128", "::1/128"), ("fe80::1/0", "::/0")] {
            assert_eq!(text.parse::<Ipv6Cidr>().unwrap().to_string(), kept);
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in ["", "1.2.3.4", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/+8", "1.2.3/8", "1.2.3.4/8/8", "::/0", "1.2.3.4/0008", " 1.2.3.4/8"]
        {
            assert!(text.parse::<Ipv4Cidr>().is_err(), "{text}");
        }
        for text in ["", "::", "::/129", "1.2.3.4/8", "::/-1"] {
            assert!(text.parse::<Ipv6Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn blocks_know_what_they_share() {
        let (vpc, subnet) = (v4("10.0.0.0/16"), v4("10.0.16.0/20"));
        assert!(vpc.covers(subnet) && !subnet.covers(vpc) && vpc.overlaps(subnet) && subnet.overlaps(vpc));
        assert!(!v4("10.0.0.0/20").overlaps(subnet) && !vpc.covers(v4("10.0.0.0/15")));
        assert_eq!((subnet.first().to_string(), subnet.last().to_string()), ("10.0.16.0".into(), "10.0.31.255".into()));
        assert_eq!((subnet.size(), v4("0.0.0.0/0").size(), v4("1.1.1.1/32").size()), (4096, 1 << 32, 1));
        assert!(Ipv4Cidr::ANYWHERE.covers(vpc));
    }
}
