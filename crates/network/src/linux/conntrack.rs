//! What the kernel knows of connections: forgets those that must not go on, UDP flows whose published port changed hands and those of a task
//! that is over, and has it watch others less closely.
//!
//! Translation is decided at a flow's first packet, and so is whether it passes. A UDP flow has no end, so a client that keeps sending would
//! go on reaching the old container, or none, until it pauses for half a minute; and whoever was let in to a task would be let in to the next one
//! that gets its address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use nix::errno::Errno;

use super::netlink::{ACK, Attributes, DUMP, NetlinkError, Request, Socket, attribute, word};

const CONNTRACK: u16 = 1;
const NEW: u16 = CONNTRACK << 8;
const GET: u16 = CONNTRACK << 8 | 1;
const DELETE: u16 = CONNTRACK << 8 | 2;
const IPV4: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];
const IPV6: [u8; 4] = [libc::AF_INET6 as u8, 0, 0, 0];
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const SOURCE_V4: u16 = 1;
const DESTINATION_V4: u16 = 2;
const SOURCE_V6: u16 = 3;
const DESTINATION_V6: u16 = 4;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE: u16 = 2;
const PROTOCOL_DESTINATION: u16 = 3;
const STATUS: u16 = 3;
const STATUS_TRANSLATED: u32 = 0x10 | 0x20;
const PROTOCOL_INFO: u16 = 4;
const INFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP_FLAGS: [u16; 2] = [4, 5];
const TCP_ESTABLISHED: u8 = 3;
/// What lies outside the window is taken for the connection's all the same.
const LIBERAL: u8 = 0x08;

/// One direction of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TcpFlow {
    /// Who sends.
    pub source: SocketAddrV4,
    /// Who receives.
    pub destination: SocketAddrV4,
}

impl TcpFlow {
    /// From one address and port to another.
    pub fn new(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        Self { source: SocketAddrV4::new(source.0, source.1), destination: SocketAddrV4::new(destination.0, destination.1) }
    }

    /// The other direction.
    pub const fn turned(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }

    fn write(self, m: &mut Attributes<'_>) {
        m.nest(TUPLE_ORIGINAL, |m| {
            m.nest(TUPLE_ADDRESSES, |m| {
                m.bytes(SOURCE_V4, &self.source.ip().octets());
                m.bytes(DESTINATION_V4, &self.destination.ip().octets());
            });
            m.nest(TUPLE_PROTOCOL, |m| {
                m.bytes(PROTOCOL_NUMBER, &[libc::IPPROTO_TCP as u8]);
                m.bytes(PROTOCOL_SOURCE, &self.source.port().to_be_bytes());
                m.bytes(PROTOCOL_DESTINATION, &self.destination.port().to_be_bytes());
            });
        });
    }
}

/// Has an established connection that nothing translates no longer judged by what was seen of its windows, in whichever direction it was
/// opened; `false` if there is none of that kind.
///
/// # Errors
/// The kernel's refusal; `EOPNOTSUPP` and the like where it has no connection tracking over netlink.
pub fn loosen(socket: &mut Socket, flow: TcpFlow) -> Result<bool, NetlinkError> {
    let mut request = Request::new();
    request.message("look up a connection", GET, ACK, &IPV4, |m| flow.write(m));
    let found = match socket.call(&request) {
        Err(error) if error.errno == Errno::ENOENT => return Ok(false),
        found => found?,
    };
    let body = found.first().and_then(|reply| reply.body.get(4..)).unwrap_or_default();
    let status = attribute(body, STATUS).and_then(word).map_or(STATUS_TRANSLATED, u32::from_be_bytes);
    let state = attribute(body, PROTOCOL_INFO).and_then(|info| attribute(attribute(info, INFO_TCP)?, TCP_STATE));
    if status & STATUS_TRANSLATED != 0 || state != Some(&[TCP_ESTABLISHED]) {
        return Ok(false);
    }
    let mut request = Request::new();
    request.message("watch a connection less closely", NEW, ACK, &IPV4, |m| {
        flow.write(m);
        m.nest(PROTOCOL_INFO, |m| m.nest(INFO_TCP, |m| TCP_FLAGS.iter().for_each(|own| m.bytes(*own, &[LIBERAL, LIBERAL]))));
    });
    match socket.call(&request) {
        // It ended meanwhile.
        Err(error) if error.errno == Errno::ENOENT => Ok(false),
        outcome => outcome.map(|_| true),
    }
}

/// Forgets flows to these UDP ports. One that is in fact meant for another machine merely begins anew with its next packet.
///
/// # Errors
/// The kernel's refusal; `EOPNOTSUPP` and the like where it has no connection tracking over netlink.
pub fn forget_udp(ports: &BTreeSet<u16>) -> Result<(), NetlinkError> {
    if ports.is_empty() {
        return Ok(());
    }
    forget(IPV4, |flow| {
        let tuple = attribute(flow, TUPLE_ORIGINAL)?;
        destination_udp_port(tuple).is_some_and(|port| ports.contains(&port)).then_some(tuple)
    })
}

/// Forgets connections in which these addresses are an end: of whom began them or answered, or whom they were meant for.
///
/// # Errors
/// See [`forget_udp`].
pub fn forget_addresses(addresses: &BTreeSet<IpAddr>) -> Result<(), NetlinkError> {
    for (header, is_v4) in [(IPV4, true), (IPV6, false)] {
        if !addresses.iter().any(|address| address.is_ipv4() == is_v4) {
            continue;
        }
        forget(header, |flow| {
            let original = attribute(flow, TUPLE_ORIGINAL)?;
            // Who answers is found in the reply: what the caller dialled may have been translated.
            ends(flow).any(|address| addresses.contains(&address)).then_some(original)
        })?;
    }
    Ok(())
}

/// Everybody who is an end of a connection; see [`forget_addresses`].
///
/// # Errors
/// See [`forget_udp`].
pub fn parties() -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let mut socket = Socket::netfilter()?;
    let mut parties = BTreeSet::new();
    for header in [IPV4, IPV6] {
        let mut request = Request::new();
        request.message("list connections", GET, DUMP, &header, |_: &mut Attributes<'_>| {});
        for flow in socket.dump(&request)? {
            let flow = flow.body.get(4..).unwrap_or_default();
            parties.extend(ends(flow));
        }
    }
    Ok(parties)
}

/// Forgets the connections for whose attributes `choose` returns their original tuple.
fn forget(header: [u8; 4], choose: impl Fn(&[u8]) -> Option<&[u8]>) -> Result<(), NetlinkError> {
    let mut socket = Socket::netfilter()?;
    let mut request = Request::new();
    request.message("list connections", GET, DUMP, &header, |_: &mut Attributes<'_>| {});
    for flow in socket.dump(&request)? {
        let Some(tuple) = choose(flow.body.get(4..).unwrap_or_default()) else { continue };
        let mut request = Request::new();
        request.message("forget a connection", DELETE, ACK, &header, |m| m.nested_bytes(TUPLE_ORIGINAL, tuple));
        match socket.call(&request) {
            // It ended by itself meanwhile.
            Err(error) if error.errno != Errno::ENOENT => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Who began a connection, whom it was meant for, and who answers, which is another where that was translated.
fn ends(flow: &[u8]) -> impl Iterator<Item = IpAddr> {
    let original = [SOURCE_V4, SOURCE_V6, DESTINATION_V4, DESTINATION_V6].map(|end| (TUPLE_ORIGINAL, end));
    let reply = [SOURCE_V4, SOURCE_V6].map(|end| (TUPLE_REPLY, end));
    original.into_iter().chain(reply).filter_map(|(tuple, end)| {
        let bytes = attribute(attribute(attribute(flow, tuple)?, TUPLE_ADDRESSES)?, end)?;
        match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    })
}

fn destination_udp_port(tuple: &[u8]) -> Option<u16> {
    let protocol = attribute(tuple, TUPLE_PROTOCOL)?;
    if attribute(protocol, PROTOCOL_NUMBER)? != [libc::IPPROTO_UDP as u8] {
        return None;
    }
    Some(u16::from_be_bytes(attribute(protocol, PROTOCOL_DESTINATION)?.try_into().ok()?))
}
