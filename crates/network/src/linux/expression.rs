//! nftables expressions as the kernel wants them: the instructions a rule is made of.
//!
//! The same that `nft --debug=netlink` prints for the rule beside each function.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use super::netlink::Attributes;
use crate::security_group::Cidr;
use crate::subnet::Subnet;

/// Name of the map from published ports to containers.
pub const PORTS: &str = "ports";

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
/// The second four bytes of [`REGISTER`], counted in the kernel's 32-bit numbering: where a concatenation's second part goes.
const REGISTER_SECOND: u32 = 9;
const VERDICT_CHAIN: u16 = 2;
const JUMP: u32 = (-3i32).cast_unsigned();
/// The four bytes after a link's name of 16, in the kernel's 32-bit numbering.
const REGISTER_AFTER_NAME: u32 = 12;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
const META_IN_INDEX: u32 = 4;
const META_FAMILY: u32 = 15;
const BASE_LINK: u32 = 0;
const HARDWARE_SOURCE_OFFSET: u32 = 6;
const META_IN_NAME: u32 = 6;
const META_OUT_NAME: u32 = 7;
const META_TRANSPORT: u32 = 16;
const CONNECTION_STATE: u32 = 0;
const CONNECTION_STATUS: u32 = 2;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;
const PORT_OFFSET: u32 = 2;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_IN_INDEX: u32 = 8;
const FIB_LINK: u32 = 1;
const FIB_ADDRESS_TYPE: u32 = 3;
const ROUTE_LOCAL: u32 = 2;

/// Writes the expressions of one rule.
#[derive(Debug)]
pub struct Expressions<'a, 'b>(pub &'a mut Attributes<'b>);

/// Which interface name a rule looks at.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    /// Where the packet came in.
    In,
    /// Where it goes out.
    Out,
}

/// Which links a rule is about.
#[derive(Debug, Clone, Copy)]
pub enum Links<'a> {
    /// The one of this name.
    Named(&'a str),
    /// All whose names begin like this.
    Prefixed(&'a str),
}

impl std::fmt::Display for Links<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Prefixed(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// A link's name as the kernel compares it.
pub fn padded(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    padded
}

/// The address family of a packet, where a table sees both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which address a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The sender.
    Source,
    /// The receiver.
    Destination,
}

impl Expressions<'_, '_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.0.nest(LIST_ELEMENT, |m| {
            m.text(EXPRESSION_NAME, name);
            m.nest(EXPRESSION_DATA, data);
        });
        self
    }

    fn compare(&mut self, operator: u32, value: &[u8]) -> &mut Self {
        self.expression("cmp", |m| {
            m.be32(1, REGISTER);
            m.be32(2, operator);
            m.nest(3, |m| m.bytes(DATA_VALUE, value));
        })
    }

    fn mask(&mut self, mask: &[u8; 4]) -> &mut Self {
        self.expression("bitwise", |m| {
            m.be32(1, REGISTER);
            m.be32(2, REGISTER);
            m.be32(3, 4);
            m.nest(4, |m| m.bytes(DATA_VALUE, mask));
            m.nest(5, |m| m.bytes(DATA_VALUE, &[0; 4]));
        })
    }

    fn meta(&mut self, key: u32) -> &mut Self {
        self.expression("meta", |m| {
            m.be32(2, key);
            m.be32(1, REGISTER);
        })
    }

    fn payload(&mut self, register: u32, base: u32, offset: u32, length: u32) -> &mut Self {
        self.expression("payload", |m| {
            m.be32(1, register);
            m.be32(2, base);
            m.be32(3, offset);
            m.be32(4, length);
        })
    }

    fn connection(&mut self, key: u32, bits: u32) -> &mut Self {
        self.expression("ct", |m| {
            m.be32(2, key);
            m.be32(1, REGISTER);
        })
        .mask(&bits.to_ne_bytes())
        .compare(NOT_EQUAL, &[0; 4])
    }

    fn verdict(&mut self, code: u32) {
        self.expression("immediate", |m| {
            m.be32(1, REGISTER_VERDICT);
            m.nest(2, |m| m.nest(DATA_VERDICT, |m| m.be32(VERDICT_CODE, code)));
        });
    }

    /// `iifname NAME` or `oifname NAME`, or of all names with a beginning; with `same` false `!=`.
    pub fn link(&mut self, side: Side, links: Links<'_>, same: bool) -> &mut Self {
        let operator = if same { EQUAL } else { NOT_EQUAL };
        match links {
            Links::Named(name) => self.link_name(side).compare(operator, &padded(name)),
            // Only as many bytes are compared as are given.
            Links::Prefixed(prefix) => self.link_name(side).compare(operator, prefix.as_bytes()),
        }
    }

    fn link_name(&mut self, side: Side) -> &mut Self {
        self.meta(match side {
            Side::In => META_IN_NAME,
            Side::Out => META_OUT_NAME,
        })
    }

    /// `ip saddr NETWORK` or `ip daddr NETWORK`.
    pub fn within(&mut self, end: End, network: Ipv4Addr, mask: Ipv4Addr) -> &mut Self {
        let offset = match end {
            End::Source => SOURCE_OFFSET,
            End::Destination => DESTINATION_OFFSET,
        };
        self.payload(REGISTER, BASE_NETWORK, offset, 4).mask(&mask.octets()).compare(EQUAL, &network.octets())
    }

    /// [`Self::within`] a subnet.
    pub fn within_subnet(&mut self, end: End, subnet: Subnet) -> &mut Self {
        self.within(end, subnet.network(), subnet.mask())
    }

    /// [`Self::within`] 127.0.0.0/8.
    pub fn within_loopback(&mut self, end: End) -> &mut Self {
        self.within(end, Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(255, 0, 0, 0))
    }

    /// `ct state established,related`.
    pub fn established(&mut self) -> &mut Self {
        self.connection(CONNECTION_STATE, 0b110)
    }

    /// `ct status dnat`: the connection came in by a published port.
    pub fn published(&mut self) -> &mut Self {
        self.connection(CONNECTION_STATUS, 1 << 5)
    }

    /// `ct state invalid`.
    pub fn invalid(&mut self) -> &mut Self {
        self.connection(CONNECTION_STATE, 0b1)
    }

    /// `meta nfproto ipv4` or `ipv6`.
    pub fn family(&mut self, family: Family) -> &mut Self {
        let number = match family {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        };
        self.meta(META_FAMILY).compare(EQUAL, &[number as u8])
    }

    /// `meta l4proto NUMBER`.
    pub fn transport(&mut self, number: u8) -> &mut Self {
        self.meta(META_TRANSPORT).compare(EQUAL, &[number])
    }

    /// `th dport FIRST-LAST`.
    pub fn ports(&mut self, first: u16, last: u16) -> &mut Self {
        let port = self.payload(REGISTER, BASE_TRANSPORT, PORT_OFFSET, 2);
        if first == last {
            return port.compare(EQUAL, &first.to_be_bytes());
        }
        port.compare(AT_LEAST, &first.to_be_bytes()).compare(AT_MOST, &last.to_be_bytes())
    }

    /// `th dport @SET`.
    pub fn port_in(&mut self, set: &str) -> &mut Self {
        self.payload(REGISTER, BASE_TRANSPORT, PORT_OFFSET, 2).lookup(set, true)
    }

    /// `icmp type KIND` and `icmp code CODE`, of either family.
    pub fn icmp(&mut self, kind: Option<u8>, code: Option<u8>) -> &mut Self {
        for (offset, wanted) in [(0, kind), (1, code)] {
            if let Some(wanted) = wanted {
                self.payload(REGISTER, BASE_TRANSPORT, offset, 1).compare(EQUAL, &[wanted]);
            }
        }
        self
    }

    /// `meta iif 0`: this machine itself sends it.
    pub fn sent_here(&mut self) -> &mut Self {
        self.meta(META_IN_INDEX).compare(EQUAL, &[0; 4])
    }

    /// `ip saddr RANGE` and the like, of either family; `family` must have been asked.
    pub fn within_range(&mut self, end: End, range: Cidr) -> &mut Self {
        match range.address() {
            _ if range.prefix() == 0 => self,
            IpAddr::V4(network) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(range.prefix())).unwrap_or(0);
                self.within(end, network, mask.into())
            }
            IpAddr::V6(network) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(range.prefix())).unwrap_or(0);
                self.address(REGISTER, end, Family::V6)
                    .expression("bitwise", |m| {
                        m.be32(1, REGISTER);
                        m.be32(2, REGISTER);
                        m.be32(3, 16);
                        m.nest(4, |m| m.bytes(DATA_VALUE, &mask.to_be_bytes()));
                        m.nest(5, |m| m.bytes(DATA_VALUE, &[0; 16]));
                    })
                    .compare(EQUAL, &network.octets())
            }
        }
    }

    fn address(&mut self, register: u32, end: End, family: Family) -> &mut Self {
        let (offset, length) = match (family, end) {
            (Family::V4, End::Source) => (SOURCE_OFFSET, 4),
            (Family::V4, End::Destination) => (DESTINATION_OFFSET, 4),
            (Family::V6, End::Source) => (8, 16),
            (Family::V6, End::Destination) => (24, 16),
        };
        self.payload(register, BASE_NETWORK, offset, length)
    }

    fn lookup(&mut self, set: &str, within: bool) -> &mut Self {
        self.expression("lookup", |m| {
            m.be32(2, REGISTER);
            m.text(1, set);
            if !within {
                m.be32(5, 1);
            }
        })
    }

    /// `ip saddr @SET` and the like; with `within` false `!= @SET`.
    pub fn address_in(&mut self, end: End, family: Family, set: &str, within: bool) -> &mut Self {
        self.address(REGISTER, end, family).lookup(set, within)
    }

    /// `iifname . ip saddr . ether saddr != @SET`: whoever sends it is not whom the link was given to.
    pub fn forged(&mut self, family: Family, set: &str) -> &mut Self {
        let hardware = REGISTER_AFTER_NAME + if family == Family::V4 { 1 } else { 4 };
        self.link_name(Side::In)
            .address(REGISTER_AFTER_NAME, End::Source, family)
            .payload(hardware, BASE_LINK, HARDWARE_SOURCE_OFFSET, 6)
            .lookup(set, false)
    }

    /// `iifname . ip daddr @SET`.
    pub fn link_and_destination_in(&mut self, family: Family, set: &str) -> &mut Self {
        self.link_name(Side::In).address(REGISTER_AFTER_NAME, End::Destination, family).lookup(set, true)
    }

    /// `fib saddr . iif oif missing`: answers would not go back by the link that it came by.
    pub fn astray(&mut self) -> &mut Self {
        self.expression("fib", |m| {
            m.be32(3, FIB_SOURCE | FIB_IN_INDEX);
            m.be32(2, FIB_LINK);
            m.be32(1, REGISTER);
        })
        .compare(EQUAL, &[0; 4])
    }

    /// `iifname vmap @MAP` or `oifname vmap @MAP`.
    pub fn judged_by_link(&mut self, side: Side, map: &str) {
        self.link_name(side).expression("lookup", |m| {
            m.be32(2, REGISTER);
            m.be32(3, REGISTER_VERDICT);
            m.text(1, map);
        });
    }

    /// `jump CHAIN`.
    pub fn jump(&mut self, chain: &str) {
        self.expression("immediate", |m| {
            m.be32(1, REGISTER_VERDICT);
            m.nest(2, |m| {
                m.nest(DATA_VERDICT, |m| {
                    m.be32(VERDICT_CODE, JUMP);
                    m.text(VERDICT_CHAIN, chain);
                });
            });
        });
    }

    /// `accept`.
    pub fn accept(&mut self) {
        self.verdict(1);
    }

    /// `drop`.
    pub fn reject_silently(&mut self) {
        self.verdict(0);
    }

    /// `masquerade`.
    pub fn masquerade(&mut self) {
        self.expression("masq", |_| {});
    }

    /// `snat ip to ip saddr map @MAP` or `dnat ip to ip daddr map @MAP`, of IPv4.
    pub fn translated(&mut self, end: End, map: &str) {
        let kind = match end {
            End::Source => 0,
            End::Destination => 1,
        };
        self.address(REGISTER, end, Family::V4)
            .expression("lookup", |m| {
                m.be32(2, REGISTER);
                m.be32(3, REGISTER);
                m.text(1, map);
            })
            .expression("nat", |m| {
                m.be32(1, kind);
                m.be32(2, libc::NFPROTO_IPV4 as u32);
                m.be32(3, REGISTER);
            });
    }

    /// `ip daddr ADDRESS tcp dport PORT`.
    pub fn asks(&mut self, place: SocketAddrV4) -> &mut Self {
        self.within(End::Destination, *place.ip(), Ipv4Addr::BROADCAST).transport(libc::IPPROTO_TCP as u8).ports(place.port(), place.port())
    }

    /// `dnat ip to ADDRESS:PORT`.
    pub fn translated_to(&mut self, place: SocketAddrV4) {
        self.immediate(REGISTER, &place.ip().octets()).immediate(REGISTER_SECOND, &place.port().to_be_bytes()).expression("nat", |m| {
            m.be32(1, 1);
            m.be32(2, libc::NFPROTO_IPV4 as u32);
            m.be32(3, REGISTER);
            m.be32(5, REGISTER_SECOND);
        });
    }

    fn immediate(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.expression("immediate", |m| {
            m.be32(1, register);
            m.nest(2, |m| m.bytes(DATA_VALUE, value));
        })
    }

    /// `fib daddr type local`.
    pub fn meant_for_machine(&mut self) -> &mut Self {
        self.expression("fib", |m| {
            m.be32(3, FIB_DESTINATION);
            m.be32(2, FIB_ADDRESS_TYPE);
            m.be32(1, REGISTER);
        })
        .compare(EQUAL, &ROUTE_LOCAL.to_ne_bytes())
    }

    /// `fib daddr type local dnat ip to meta l4proto . th dport map @ports`.
    pub fn translate_published(&mut self) {
        self.meant_for_machine()
            .meta(META_TRANSPORT)
            .payload(REGISTER_SECOND, BASE_TRANSPORT, PORT_OFFSET, 2)
            .expression("lookup", |m| {
                m.be32(2, REGISTER);
                m.be32(3, REGISTER);
                m.text(1, PORTS);
            })
            .expression("nat", |m| {
                m.be32(1, 1);
                m.be32(2, libc::NFPROTO_IPV4 as u32);
                m.be32(3, REGISTER);
                m.be32(5, REGISTER_SECOND);
            });
    }
}
