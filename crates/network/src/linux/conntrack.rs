//! Forgets UDP flows whose published port changed hands.
//!
//! Translation is decided at a flow's first packet. A UDP flow has no end, so a client that keeps sending would go on
//! reaching the old container, or none, until it pauses for half a minute.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::netlink::{ACK, Attributes, DUMP, NetlinkError, Request, Socket, attribute};

const CONNTRACK: u16 = 1;
const GET: u16 = CONNTRACK << 8 | 1;
const DELETE: u16 = CONNTRACK << 8 | 2;
const IPV4: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];
const TUPLE_ORIGINAL: u16 = 1;
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
    let mut socket = Socket::netfilter()?;
    let mut request = Request::new();
    request.message("list connections", GET, DUMP, &IPV4, |_: &mut Attributes<'_>| {});
    for flow in socket.dump(&request)? {
        let Some(tuple) = attribute(flow.body.get(4..).unwrap_or_default(), TUPLE_ORIGINAL) else { continue };
        if destination_udp_port(tuple).is_none_or(|port| !ports.contains(&port)) {
            continue;
        }
        let mut request = Request::new();
        request.message("forget a connection", DELETE, ACK, &IPV4, |m| m.nested_bytes(TUPLE_ORIGINAL, tuple));
        match socket.call(&request) {
            // It ended by itself meanwhile.
            Err(error) if error.errno != Errno::ENOENT => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn destination_udp_port(tuple: &[u8]) -> Option<u16> {
    let protocol = attribute(tuple, TUPLE_PROTOCOL)?;
    if attribute(protocol, PROTOCOL_NUMBER)? != [libc::IPPROTO_UDP as u8] {
        return None;
    }
    Some(u16::from_be_bytes(attribute(protocol, PROTOCOL_DESTINATION)?.try_into().ok()?))
}
