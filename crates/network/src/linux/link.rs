//! Links, addresses and routes: the bridge, veth pairs, and what the machine already uses.
//!
//! Never changes the thread's namespace: each function works in the namespace of the socket it is given.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::netlink::{ACK, Attributes, CREATE, DUMP, EXCLUSIVE, NetlinkError, REPLACE, Request, Socket, word};
use crate::subnet::Subnet;

pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
pub(super) const VETH_INFO_PEER: u16 = 1;
pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const UP: u32 = libc::IFF_UP as u32;
pub(super) const LOOPBACK_INDEX: u32 = 1;

/// The name of a container's interface inside its namespace.
pub(super) const INNER_NAME: &str = "eth0";

pub(super) fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn address_header(index: u32, prefix: u8) -> [u8; 8] {
    let mut header = [libc::AF_INET as u8, prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

/// A hardware address that follows from the address: when an address passes to another container, neighbour caches that
/// still hold the old entry are right all the same.
fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xbe, a, b, c, d]
}

/// The index of a link, if there is one of that name.
///
/// # Errors
/// The kernel's refusal.
pub fn index(socket: &mut Socket, name: &str) -> Result<Option<u32>, NetlinkError> {
    let mut request = Request::new();
    request.message("look up a link", RTM_GETLINK, ACK, &link_header(0, 0, 0), |m| m.text(IFLA_IFNAME, name));
    match socket.call(&request) {
        Ok(replies) => Ok(replies.first().and_then(|reply| word(reply.body.get(4..)?)).map(u32::from_ne_bytes)),
        Err(error) if error.errno == Errno::ENODEV => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the bridge with its gateway address and brings it up; an existing one is kept. Returns its index.
///
/// # Errors
/// The step that was refused.
pub fn ensure_bridge(socket: &mut Socket, name: &str, subnet: Subnet) -> Result<u32, NetlinkError> {
    let mut request = Request::new();
    request.message("make the bridge", RTM_NEWLINK, ACK | CREATE, &link_header(0, UP, UP), |m| {
        m.text(IFLA_IFNAME, name);
        // Without an address of its own a bridge takes its lowest port's, and changes it as containers come and go.
        m.bytes(IFLA_ADDRESS, &hardware_address(subnet.gateway()));
        m.nest(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
    });
    socket.call(&request)?;
    let missing = NetlinkError { step: "look up the bridge", errno: Errno::ENODEV, detail: None };
    let index = index(socket, name)?.ok_or(missing)?;
    let mut request = Request::new();
    add_address(&mut request, "give the bridge its address", index, subnet.gateway(), subnet);
    socket.call(&request)?;
    Ok(index)
}

fn add_address(request: &mut Request, step: &'static str, index: u32, address: Ipv4Addr, subnet: Subnet) {
    request.message(step, RTM_NEWADDR, ACK | CREATE | REPLACE, &address_header(index, subnet.prefix()), |m| {
        m.bytes(IFA_LOCAL, &address.octets());
        m.bytes(IFA_ADDRESS, &address.octets());
        m.bytes(IFA_BROADCAST, &subnet.broadcast().octets());
    });
}

/// Deletes a link; that there is none is no error.
///
/// # Errors
/// The kernel's refusal.
pub fn delete(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let mut request = Request::new();
    request.message("delete a link", RTM_DELLINK, ACK, &link_header(0, 0, 0), |m| m.text(IFLA_IFNAME, name));
    match socket.call(&request) {
        Err(error) if error.errno != Errno::ENODEV => Err(error),
        _ => Ok(()),
    }
}

/// Puts a link on the bridge, up, with the hairpin flag.
///
/// The flag is needed where `bridge-nf-call-iptables` is 1 (Docker loads it): a container's call to its own published port
/// is then translated while it is bridged and has to leave by the port it came in.
fn join_bridge(request: &mut Request, name: &str, bridge: u32) {
    request.message("put the link on the bridge", RTM_NEWLINK, ACK, &link_header(0, UP, UP), |m| {
        m.text(IFLA_IFNAME, name);
        m.ne32(IFLA_MASTER, bridge);
    });
    request.message("set the hairpin flag", RTM_NEWLINK, ACK, &link_header(0, 0, 0), |m| {
        m.text(IFLA_IFNAME, name);
        m.nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_SLAVE_KIND, "bridge");
            m.nest(IFLA_INFO_SLAVE_DATA, |m| m.bytes(IFLA_BRPORT_MODE, &[1]));
        });
    });
}

/// Puts an existing host end back on the bridge.
///
/// # Errors
/// `ENODEV` if there is no such link.
pub fn rejoin_bridge(socket: &mut Socket, name: &str, bridge: u32) -> Result<(), NetlinkError> {
    let mut request = Request::new();
    join_bridge(&mut request, name, bridge);
    socket.call(&request).map(drop)
}

/// Makes a veth pair in one message: the host end on the bridge and up, the other as `eth0` in `namespace`. It comes down,
/// because the kernel refuses to bring a peer up before both ends exist.
///
/// # Errors
/// `EEXIST` if the name is taken; then nothing changed.
pub fn add_pair(socket: &mut Socket, name: &str, bridge: u32, namespace: BorrowedFd<'_>, address: Ipv4Addr) -> Result<(), NetlinkError> {
    let mut request = Request::new();
    request.message("make the veth pair", RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &link_header(0, 0, 0), |m| {
        m.text(IFLA_IFNAME, name);
        m.nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "veth");
            m.nest(IFLA_INFO_DATA, |m| {
                m.nest_after(VETH_INFO_PEER, &link_header(0, 0, 0), |m| {
                    m.text(IFLA_IFNAME, INNER_NAME);
                    m.bytes(IFLA_ADDRESS, &hardware_address(address));
                    m.bytes(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
    });
    socket.call(&request)?;
    rejoin_bridge(socket, name, bridge)
}

/// Brings loopback up. `socket` is one of the container's namespace.
///
/// # Errors
/// The kernel's refusal.
pub fn raise_loopback(socket: &mut Socket) -> Result<(), NetlinkError> {
    let mut request = Request::new();
    request.message("bring lo up", RTM_NEWLINK, ACK, &link_header(LOOPBACK_INDEX, UP, UP), |_: &mut Attributes<'_>| {});
    socket.call(&request).map(drop)
}

/// Brings `eth0` up with its address and the default route. `socket` is one of the container's namespace.
///
/// # Errors
/// The step that was refused.
pub fn raise_inner(socket: &mut Socket, address: Ipv4Addr, subnet: Subnet) -> Result<(), NetlinkError> {
    let missing = NetlinkError { step: "look up eth0", errno: Errno::ENODEV, detail: None };
    let index = index(socket, INNER_NAME)?.ok_or(missing)?;
    let mut request = Request::new();
    request.message("bring eth0 up", RTM_NEWLINK, ACK, &link_header(index, UP, UP), |_: &mut Attributes<'_>| {});
    add_address(&mut request, "give eth0 its address", index, address, subnet);
    let route =
        [libc::AF_INET as u8, 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, 0, 0, 0, 0];
    request.message("set the default route", RTM_NEWROUTE, ACK | CREATE | REPLACE, &route, |m| {
        m.bytes(RTA_GATEWAY, &subnet.gateway().octets());
        m.ne32(RTA_OIF, index);
    });
    socket.call(&request).map(drop)
}

/// Subnets that routes or addresses of this machine use, those of link `except` left out.
///
/// Routes shorter than `/8` are default routes, halves of one (as VPNs make), and say nothing of who uses an address.
///
/// # Errors
/// The kernel's refusal.
pub fn networks_in_use(socket: &mut Socket, except: Option<u32>) -> Result<Vec<(Ipv4Addr, u8)>, NetlinkError> {
    let mut used = Vec::new();
    let mut request = Request::new();
    let mut header = [0; 12];
    header[0] = libc::AF_INET as u8;
    request.message("list routes", RTM_GETROUTE, DUMP, &header, |_: &mut Attributes<'_>| {});
    for reply in socket.dump(&request)? {
        let Some(&prefix) = reply.body.get(1) else { continue };
        let mut destination = None;
        let mut link = None;
        for (kind, value) in reply.attributes(12) {
            match kind {
                RTA_DST => destination = word(value).map(Ipv4Addr::from),
                RTA_OIF => link = word(value).map(u32::from_ne_bytes),
                _ => {}
            }
        }
        if let Some(destination) = destination
            && prefix >= 8
            && (except.is_none() || link != except)
        {
            used.push((destination, prefix));
        }
    }
    let mut request = Request::new();
    request.message("list addresses", RTM_GETADDR, DUMP, &address_header(0, 0), |_: &mut Attributes<'_>| {});
    for reply in socket.dump(&request)? {
        let (Some(&prefix), Some(link)) = (reply.body.get(1), reply.body.get(4..).and_then(word)) else { continue };
        let address = reply.attributes(8).find(|(kind, _)| *kind == IFA_LOCAL).and_then(|(_, value)| word(value));
        if let Some(address) = address
            && except != Some(u32::from_ne_bytes(link))
        {
            used.push((address.into(), prefix));
        }
    }
    Ok(used)
}
