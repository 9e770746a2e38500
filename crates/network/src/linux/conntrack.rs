//! Forgets connections that must not go on: UDP flows whose published port changed hands, and those of a task that is over.
//!
//! Translation is decided at a flow's first packet, and so is whether it passes. A UDP flow has no end, so a client that keeps sending would
//! go on reaching the old container, or none, until it pauses for half a minute; and whoever was let in to a task would be let in to the next one
//! that gets its address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::errno::Errno;

use super::netlink::{ACK, Attributes, DUMP, NetlinkError, Request, Socket, attribute};

const CONNTRACK: u16 = 1;
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
const PROTOCOL_DESTINATION: u16 = 3;

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
