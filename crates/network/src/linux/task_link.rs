//! The two ends of a task's interface: `eth0` in the task's namespace, and a link of this machine that leads to it and nowhere else.
//!
//! There is no bridge: each address is a route of its own. The task sends everything to its gateway's hardware address, which is the other
//! end's, and both ends know each other's hardware address for good, so that nobody has to ask, and nobody can answer falsely.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::link::{
    IFA_ADDRESS, IFA_LOCAL, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, IFLA_NET_NS_FD, INNER_NAME,
    RTA_DST, RTA_GATEWAY, RTA_OIF, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, UP, VETH_INFO_PEER, index, link_header,
};
use super::netlink::{ACK, Attributes, CREATE, EXCLUSIVE, NetlinkError, REPLACE, Request, Socket};
use crate::interface::TaskInterface;

const IFA_FLAGS: u16 = 8;
const IFA_NO_DUPLICATE_DETECTION: u32 = 0x02;
const IFA_NO_PREFIX_ROUTE: u32 = 0x200;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const NDA_DESTINATION: u16 = 1;
pub(super) const NDA_LINK_ADDRESS: u16 = 2;
pub(super) const NUD_PERMANENT: u16 = 0x80;
const NO_ARP: u32 = libc::IFF_NOARP as u32;

/// By this number of a routing protocol routes to interfaces are known as Berth's; no other program has it in `/etc/iproute2/rt_protos`.
pub const PROTOCOL: u8 = 190;
/// The hardware address of the machine's end of every interface. Each is alone on its link with one task.
pub(super) const GATEWAY: [u8; 6] = [0x02, 0xbe, 0, 0, 0, 1];
/// The router of tasks with IPv6.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Makes the pair, both ends down: `eth0` in `namespace`, and `name` here.
///
/// # Errors
/// `EEXIST` if the name is taken; then nothing changed.
pub fn add_pair(socket: &mut Socket, name: &str, namespace: BorrowedFd<'_>, interface: &TaskInterface) -> Result<(), NetlinkError> {
    let mut request = Request::new();
    request.message("make the veth pair", RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &link_header(0, 0, 0), |m| {
        m.text(IFLA_IFNAME, name);
        m.bytes(IFLA_ADDRESS, &GATEWAY);
        m.ne32(IFLA_MTU, interface.mtu.into());
        m.nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "veth");
            m.nest(IFLA_INFO_DATA, |m| {
                m.nest_after(VETH_INFO_PEER, &link_header(0, 0, 0), |m| {
                    m.text(IFLA_IFNAME, INNER_NAME);
                    m.bytes(IFLA_ADDRESS, &interface.mac.0);
                    m.ne32(IFLA_MTU, interface.mtu.into());
                    m.bytes(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
    });
    socket.call(&request).map(drop)
}

/// Brings the machine's end up, with the way to the task. May be repeated.
///
/// # Errors
/// `ENODEV` if there is no such link.
pub fn raise_outer(socket: &mut Socket, name: &str, interface: &TaskInterface) -> Result<(), NetlinkError> {
    let index = found(socket, name)?;
    let mut request = Request::new();
    // Without ARP: what the task says of hardware addresses is not heard.
    let flags = UP | NO_ARP;
    request.message("bring the link up", RTM_NEWLINK, ACK, &link_header(index, flags, flags), |_: &mut Attributes<'_>| {});
    for address in interface.addresses() {
        neighbour(&mut request, index, address, interface.mac.0);
        route(&mut request, index, Some(address), None);
    }
    socket.call(&request).map(drop)
}

/// Brings loopback and `eth0` up with addresses and routes. `socket` is one of the task's namespace.
///
/// # Errors
/// The step that was refused.
pub fn raise_inner(socket: &mut Socket, interface: &TaskInterface) -> Result<(), NetlinkError> {
    let index = found(socket, INNER_NAME)?;
    let mut request = Request::new();
    request.message("bring eth0 up", RTM_NEWLINK, ACK, &link_header(index, UP, UP), |_: &mut Attributes<'_>| {});
    for address in interface.addresses() {
        let (prefix, flags, gateway) = match address {
            // The subnet shows, as on AWS, but its other addresses are reached by the gateway.
            IpAddr::V4(_) => (interface.prefix, IFA_NO_PREFIX_ROUTE, IpAddr::V4(interface.gateway)),
            IpAddr::V6(_) => (128, IFA_NO_PREFIX_ROUTE | IFA_NO_DUPLICATE_DETECTION, IpAddr::V6(GATEWAY_V6)),
        };
        let mut header = [family(address), prefix, 0, 0, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        request.message("give eth0 its address", RTM_NEWADDR, ACK | CREATE | REPLACE, &header, |m| {
            put(m, IFA_LOCAL, address);
            put(m, IFA_ADDRESS, address);
            m.ne32(IFA_FLAGS, flags);
        });
        neighbour(&mut request, index, gateway, GATEWAY);
        if gateway.is_ipv4() {
            route(&mut request, index, Some(gateway), None);
        }
        route(&mut request, index, None, Some(gateway));
    }
    socket.call(&request).map(drop)
}

fn found(socket: &mut Socket, name: &str) -> Result<u32, NetlinkError> {
    index(socket, name)?.ok_or(NetlinkError { step: "look up a task's link", errno: Errno::ENODEV, detail: None })
}

/// Who has an address, for good.
pub fn neighbour(request: &mut Request, link: u32, address: IpAddr, hardware: [u8; 6]) {
    let mut header = [0; 12];
    header[0] = family(address);
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    request.message("tell who has an address", RTM_NEWNEIGH, ACK | CREATE | REPLACE, &header, |m| {
        put(m, NDA_DESTINATION, address);
        m.bytes(NDA_LINK_ADDRESS, &hardware);
    });
}

/// The way to one address, or without one to all; by a gateway, or on the link itself.
pub fn route(request: &mut Request, link: u32, to: Option<IpAddr>, by: Option<IpAddr>) {
    let of = to.or(by).expect("a route leads somewhere");
    let length = to.map_or(0, |to| if to.is_ipv4() { 32 } else { 128 });
    let scope = if by.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let header = [family(of), length, 0, 0, libc::RT_TABLE_MAIN, PROTOCOL, scope, libc::RTN_UNICAST, 0, 0, 0, 0];
    request.message("set a route", RTM_NEWROUTE, ACK | CREATE | REPLACE, &header, |m| {
        if let Some(to) = to {
            put(m, RTA_DST, to);
        }
        if let Some(by) = by {
            put(m, RTA_GATEWAY, by);
        }
        m.ne32(RTA_OIF, link);
    });
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn put(m: &mut Attributes<'_>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => m.bytes(kind, &address.octets()),
        IpAddr::V6(address) => m.bytes(kind, &address.octets()),
    }
}
