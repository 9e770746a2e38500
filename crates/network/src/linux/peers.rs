//! The ways to tasks of other machines: host routes where machines share a link, VXLAN where they do not.
//!
//! What is wanted follows from the table alone; what is there is asked of the kernel each time, so that what somebody else removed comes
//! back with the next table. Learns nothing from packets: who is where says the control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use nix::errno::Errno;

use super::link::{
    self, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, RTA_DST, RTA_GATEWAY, RTA_OIF, RTM_GETLINK,
    RTM_GETROUTE, RTM_NEWLINK, RTM_NEWROUTE, UP, link_header,
};
use super::netlink::{ACK, Attributes, CREATE, DUMP, EXCLUSIVE, NetlinkError, REPLACE, Reply, Request, Socket, word};
use super::ruleset::fingerprint;
use super::task_link::{NDA_DESTINATION, NDA_LINK_ADDRESS, NUD_PERMANENT, PROTOCOL, RTM_NEWNEIGH, neighbour};
use crate::security_group::{KnownInterface, MachineLink, NetworkTable, Overlay};

pub(super) const RTM_DELROUTE: u16 = 25;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
pub(super) const RTA_PRIORITY: u16 = 6;
const NEXT_HOP_ON_LINK: u32 = 4;
const NUD_NO_ARP: u16 = 0x40;
const NEIGHBOUR_OF_LINK: u8 = 0x02;
const VXLAN_ID: u16 = 1;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;
/// What VXLAN adds to a packet: Ethernet, IPv4, UDP and its own header.
const VXLAN_OVERHEAD: u32 = 50;

/// Which addresses are at which other machine. `local` are addresses of tasks of this machine, whatever the table says.
#[must_use]
pub fn remote(table: &NetworkTable, local: &BTreeSet<IpAddr>) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
    let Some(own) = table.machine.as_ref().map(|machine| machine.address) else { return BTreeMap::new() };
    let at = |known: &KnownInterface| known.instance.filter(|instance| *instance != own);
    let interfaces = table.interfaces.values().filter_map(|known| Some((at(known)?, &known.addresses)));
    let addresses = interfaces.flat_map(|(instance, addresses)| addresses.iter().map(move |address| (*address, instance)));
    let far = addresses.filter(|(address, _)| !local.contains(address));
    far.filter_map(|(address, instance)| match address {
        IpAddr::V4(address) => Some((address, instance)),
        IpAddr::V6(_) => None,
    })
    .collect()
}

/// Requests that are sent one after the other: the answers to a longer one would not fit where the kernel keeps them until they are read.
#[derive(Debug, Default)]
struct Requests(Vec<Request>);

/// Messages of one request.
const MESSAGES: usize = 500;

impl Requests {
    fn next(&mut self) -> &mut Request {
        if self.0.last().is_none_or(|last| last.len() >= MESSAGES) {
            self.0.push(Request::new());
        }
        self.0.last_mut().expect("one was just put there")
    }

    /// Sends all of them, also after one that was refused; returns the first refusal.
    fn send(&self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let outcomes: Vec<_> = self.0.iter().map(|request| socket.call(request).map(drop)).collect();
        outcomes.into_iter().collect()
    }
}

/// By their priority routes of several networks on one machine are told apart. It is never 0, which routes to tasks of this machine and its
/// own addresses have: those win.
pub(super) fn priority(mark: u16) -> u32 {
    u32::from(mark) + 1
}

/// The next hop of a route: the other machine, and the link by which it is reached.
type NextHop = (Ipv4Addr, u32);

/// The ways to other machines, as this one is told to make them.
#[derive(Debug)]
pub struct Peers<'a> {
    config: Option<&'a MachineLink>,
    device: String,
    prefix: String,
    /// See [`priority`].
    priority: u32,
}

impl<'a> Peers<'a> {
    /// `mark` tells the networks of one machine apart. Without a link to others there are no ways.
    #[must_use]
    pub fn new(config: Option<&'a MachineLink>, mark: u16) -> Self {
        // Its name says how it was made: a link with other settings is another link.
        let settings = config.map(|config| format!("{}/{}/{}", config.address, config.vni, config.port)).unwrap_or_default();
        let prefix = format!("x{mark:04x}");
        let device = format!("{prefix}{:08x}", fingerprint(settings.as_bytes()) >> 32);
        Self { device, prefix, priority: priority(mark), config }
    }

    /// Removes links of other settings. To be called where settings may have changed: to list all links takes the kernel a while.
    ///
    /// # Errors
    /// The step that was refused.
    pub fn clean(&self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let mut request = Request::new();
        request.message("list links", RTM_GETLINK, DUMP, &link_header(0, 0, 0), |_: &mut Attributes<'_>| {});
        for reply in socket.dump(&request)? {
            let name = reply.attributes(16).find(|(kind, _)| *kind == IFLA_IFNAME).map(|(_, value)| value);
            let name = String::from_utf8_lossy(name.unwrap_or_default()).trim_end_matches('\0').to_owned();
            if name.len() == self.device.len() && name.starts_with(&self.prefix) && (self.config.is_none() || name != self.device) {
                link::delete(socket, &name)?;
            }
        }
        Ok(())
    }

    /// Has exactly these addresses be reached at these machines.
    ///
    /// # Errors
    /// The first step that was refused; others have been tried.
    pub fn apply(&self, socket: &mut Socket, wanted: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> Result<(), NetlinkError> {
        let machines: BTreeSet<Ipv4Addr> = wanted.values().copied().collect();
        let (mut direct, mut carried, mut least) = (BTreeMap::new(), BTreeSet::new(), u32::MAX);
        for machine in machines {
            let Some(way) = self.way(socket, machine)? else {
                tracing::warn!(%machine, "no route leads to another machine; its tasks are not reached");
                continue;
            };
            if way.is_on_link && self.config.is_some_and(|config| config.overlay == Overlay::WhereNeeded) {
                direct.insert(machine, way.link);
            } else {
                least = least.min(mtu(socket, way.link)?);
                carried.insert(machine);
            }
        }
        let device = self.ensure_device(socket, &carried, least)?;
        let next_hop = |machine: &Ipv4Addr| match direct.get(machine) {
            Some(link) => Some((*machine, *link)),
            None => device.filter(|_| carried.contains(machine)).map(|device| (*machine, device)),
        };
        let wanted: BTreeMap<Ipv4Addr, NextHop> =
            wanted.iter().filter_map(|(address, machine)| Some((*address, next_hop(machine)?))).collect();
        self.set_routes(socket, &wanted, device)
    }

    fn way(&self, socket: &mut Socket, machine: Ipv4Addr) -> Result<Option<Way>, NetlinkError> {
        let mut request = Request::new();
        let header = [libc::AF_INET as u8, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        request.message("ask for the way to a machine", RTM_GETROUTE, ACK, &header, |m| m.bytes(RTA_DST, &machine.octets()));
        let replies = match socket.call(&request) {
            Err(error) if matches!(error.errno, Errno::ENETUNREACH | Errno::EHOSTUNREACH) => return Ok(None),
            other => other?,
        };
        let Some(reply) = replies.first() else { return Ok(None) };
        let link = number(reply, RTA_OIF);
        let is_on_link = reply.attributes(12).all(|(kind, _)| kind != RTA_GATEWAY);
        Ok(link.map(|link| Way { link, is_on_link }))
    }

    /// The overlay's link, with who is where on it; none if nobody is reached by it.
    fn ensure_device(&self, socket: &mut Socket, machines: &BTreeSet<Ipv4Addr>, mtu: u32) -> Result<Option<u32>, NetlinkError> {
        let Some(config) = self.config.filter(|_| !machines.is_empty()) else {
            link::delete(socket, &self.device)?;
            return Ok(None);
        };
        let mut request = Request::new();
        let port = config.port.to_be_bytes();
        request.message("make the overlay's link", RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &link_header(0, 0, 0), |m| {
            m.text(IFLA_IFNAME, &self.device);
            m.bytes(IFLA_ADDRESS, &hardware(config.address));
            m.nest(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "vxlan");
                m.nest(IFLA_INFO_DATA, |m| {
                    m.ne32(VXLAN_ID, config.vni);
                    m.bytes(VXLAN_LOCAL, &config.address.octets());
                    m.bytes(VXLAN_LEARNING, &[0]);
                    m.bytes(VXLAN_PORT, &port);
                });
            });
        });
        match socket.call(&request) {
            Err(error) if error.errno != Errno::EEXIST => return Err(error),
            _ => {}
        }
        let missing = NetlinkError { step: "look up the overlay's link", errno: Errno::ENODEV, detail: None };
        let device = link::index(socket, &self.device)?.ok_or(missing)?;
        let mut requests = Requests::default();
        requests.next().message("bring the overlay's link up", RTM_NEWLINK, ACK, &link_header(device, UP, UP), |m| {
            m.ne32(IFLA_MTU, mtu.saturating_sub(VXLAN_OVERHEAD));
        });
        for machine in machines {
            neighbour(requests.next(), device, IpAddr::V4(*machine), hardware(*machine));
            requests.next().message("tell where a machine is", RTM_NEWNEIGH, ACK | CREATE | REPLACE, &bridge_neighbour(device), |m| {
                m.bytes(NDA_LINK_ADDRESS, &hardware(*machine));
                m.bytes(NDA_DESTINATION, &machine.octets());
            });
        }
        requests.send(socket)?;
        self.forget_machines(socket, device, machines)?;
        Ok(Some(device))
    }

    /// Machines that are gone are no longer sent to.
    fn forget_machines(&self, socket: &mut Socket, device: u32, machines: &BTreeSet<Ipv4Addr>) -> Result<(), NetlinkError> {
        let mut request = Request::new();
        let mut header = [0; 12];
        header[0] = libc::AF_BRIDGE as u8;
        request.message("list machines of the overlay", RTM_GETNEIGH, DUMP, &header, |_: &mut Attributes<'_>| {});
        let known = socket.dump(&request)?;
        let ours = known.iter().filter(|reply| reply.body.get(4..).and_then(word).map(u32::from_ne_bytes) == Some(device));
        let gone = ours.filter_map(|reply| {
            let machine = reply.attributes(12).find(|(kind, _)| *kind == NDA_DESTINATION).and_then(|(_, value)| word(value))?;
            Some(Ipv4Addr::from(machine)).filter(|machine| !machines.contains(machine))
        });
        let mut requests = Requests::default();
        for machine in gone {
            requests.next().message("forget a machine", RTM_DELNEIGH, ACK, &bridge_neighbour(device), |m| {
                m.bytes(NDA_LINK_ADDRESS, &hardware(machine));
                m.bytes(NDA_DESTINATION, &machine.octets());
            });
        }
        requests.send(socket)
    }

    fn set_routes(&self, socket: &mut Socket, wanted: &BTreeMap<Ipv4Addr, NextHop>, device: Option<u32>) -> Result<(), NetlinkError> {
        let present = self.routes(socket)?;
        let mut requests = Requests::default();
        for (address, (machine, link)) in wanted.iter().filter(|(address, hop)| present.get(*address) != Some(*hop)) {
            let mut header = route_header();
            if Some(*link) == device {
                // The overlay has no addresses of its own that would make a machine a neighbour.
                header[8..12].copy_from_slice(&NEXT_HOP_ON_LINK.to_ne_bytes());
            }
            requests.next().message("set a route to another machine's task", RTM_NEWROUTE, ACK | CREATE | REPLACE, &header, |m| {
                m.bytes(RTA_DST, &address.octets());
                m.bytes(RTA_GATEWAY, &machine.octets());
                m.ne32(RTA_OIF, *link);
                m.ne32(RTA_PRIORITY, self.priority);
            });
        }
        for address in present.keys().filter(|address| !wanted.contains_key(*address)) {
            requests.next().message("remove a route to another machine's task", RTM_DELROUTE, ACK, &route_header(), |m| {
                m.bytes(RTA_DST, &address.octets());
                m.ne32(RTA_PRIORITY, self.priority);
            });
        }
        match requests.send(socket) {
            // It went with its link meanwhile.
            Err(error) if error.errno == Errno::ESRCH => Ok(()),
            other => other,
        }
    }

    /// Routes of ours that are there.
    fn routes(&self, socket: &mut Socket) -> Result<BTreeMap<Ipv4Addr, NextHop>, NetlinkError> {
        let mut request = Request::new();
        let mut header = [0; 12];
        header[0] = libc::AF_INET as u8;
        request.message("list routes", RTM_GETROUTE, DUMP, &header, |_: &mut Attributes<'_>| {});
        let replies = socket.dump(&request)?;
        let ours =
            replies.iter().filter(|reply| reply.body.get(5) == Some(&PROTOCOL) && number(reply, RTA_PRIORITY) == Some(self.priority));
        let hop = |reply: &Reply| Some((address(reply, RTA_DST)?, (address(reply, RTA_GATEWAY)?, number(reply, RTA_OIF)?)));
        Ok(ours.filter_map(hop).collect())
    }
}

struct Way {
    link: u32,
    is_on_link: bool,
}

fn mtu(socket: &mut Socket, link: u32) -> Result<u32, NetlinkError> {
    let mut request = Request::new();
    request.message("ask for a link's MTU", RTM_GETLINK, ACK, &link_header(link, 0, 0), |_: &mut Attributes<'_>| {});
    let replies = socket.call(&request)?;
    let told =
        replies.first().and_then(|reply| reply.attributes(16).find(|(kind, _)| *kind == IFLA_MTU).and_then(|(_, value)| word(value)));
    Ok(told.map_or(1500, u32::from_ne_bytes))
}

fn route_header() -> [u8; 12] {
    [libc::AF_INET as u8, 32, 0, 0, libc::RT_TABLE_MAIN, PROTOCOL, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, 0, 0, 0, 0]
}

fn bridge_neighbour(device: u32) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = libc::AF_BRIDGE as u8;
    header[4..8].copy_from_slice(&device.to_ne_bytes());
    header[8..10].copy_from_slice(&(NUD_PERMANENT | NUD_NO_ARP).to_ne_bytes());
    header[10] = NEIGHBOUR_OF_LINK;
    header
}

/// The overlay's hardware address of a machine follows from its address, so that nobody has to tell it.
fn hardware(machine: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = machine.octets();
    [0x02, 0xbf, a, b, c, d]
}

fn number(reply: &Reply, wanted: u16) -> Option<u32> {
    reply.attributes(12).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| word(value)).map(u32::from_ne_bytes)
}

fn address(reply: &Reply, wanted: u16) -> Option<Ipv4Addr> {
    reply.attributes(12).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| word(value)).map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security_group::KnownInterface;

    #[test]
    fn what_is_here_and_what_is_nowhere_needs_no_way() {
        let (own, other) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let known = |last: u8, instance| {
            let addresses = vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), IpAddr::V6(Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped())];
            (format!("eni-{last}"), KnownInterface { addresses, groups: Vec::new(), instance })
        };
        let interfaces = [known(5, Some(own)), known(6, Some(other)), known(7, None), known(8, Some(other))];
        let mut table = NetworkTable { interfaces: interfaces.into(), ..Default::default() };
        let local = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 8))].into();
        assert_eq!(remote(&table, &local), BTreeMap::new(), "a machine that is not told how others see it");
        table.machine = Some(MachineLink::new(own));
        assert_eq!(remote(&table, &local), [(Ipv4Addr::new(10, 0, 0, 6), other)].into());
    }
}
