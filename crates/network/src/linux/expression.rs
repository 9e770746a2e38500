//! nftables expressions as the kernel wants them: the instructions a rule is made of.
//!
//! The same that `nft --debug=netlink` prints for the rule beside each function.

use std::net::Ipv4Addr;

use super::netlink::Attributes;
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
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
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
const FIB_DESTINATION: u32 = 2;
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

/// Which address a rule looks at.
#[derive(Debug, Clone, Copy)]
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

    /// `iifname NAME` or `oifname NAME`; with `same` false `!= NAME`.
    pub fn interface(&mut self, side: Side, name: &str, same: bool) -> &mut Self {
        let mut padded = [0; 16];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        let key = match side {
            Side::In => META_IN_NAME,
            Side::Out => META_OUT_NAME,
        };
        self.meta(key).compare(if same { EQUAL } else { NOT_EQUAL }, &padded)
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

    /// `fib daddr type local dnat ip to meta l4proto . th dport map @ports`.
    pub fn translate_published(&mut self) {
        self.expression("fib", |m| {
            m.be32(3, FIB_DESTINATION);
            m.be32(2, FIB_ADDRESS_TYPE);
            m.be32(1, REGISTER);
        })
        .compare(EQUAL, &ROUTE_LOCAL.to_ne_bytes())
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
