//! The nftables table of one network: a static ruleset, and one map element for each published port.
//!
//! Touches its own table only (and, where Docker runs, two marked rules in the chain Docker keeps for others). The table can
//! always be made again from what is published, so a ruleset flushed by somebody else heals at the next change.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nix::errno::Errno;

use super::docker_user;
use super::expression::{End, Expressions, Links, PORTS, Side};
use super::netlink::{NetlinkError, Socket};
use super::nft::{Batch, Datum, Form, Hook, Leads};
use crate::metadata;
use crate::port::Protocol;
use crate::subnet::Subnet;

const PROTOCOL_AND_PORT: Form = Form { kind: 12 << 6 | 13, length: 8 };
const ADDRESS_AND_PORT: Form = Form { kind: 7 << 6 | 13, length: 8 };

/// A port on the machine.
pub type HostPort = (Protocol, u16);
/// Where in a container a published port leads.
pub type Target = (Ipv4Addr, u16);

/// The table of one network.
#[derive(Debug)]
pub struct Firewall {
    socket: Socket,
    table: String,
    bridge: String,
    subnet: Subnet,
    published: BTreeMap<HostPort, Target>,
}

impl Firewall {
    /// Makes the table, in place of one of the same name, with what is published.
    ///
    /// # Errors
    /// The step that was refused; then nothing changed.
    pub fn open(table: &str, bridge: &str, subnet: Subnet, published: BTreeMap<HostPort, Target>) -> Result<Self, NetlinkError> {
        let mut firewall = Self { socket: Socket::netfilter()?, table: table.to_owned(), bridge: bridge.to_owned(), subnet, published };
        firewall.rebuild()?;
        Ok(firewall)
    }

    /// Publishes ports, all or none.
    ///
    /// # Errors
    /// The kernel's refusal; then none is published.
    pub fn publish(&mut self, ports: &[(HostPort, Target)]) -> Result<(), NetlinkError> {
        if ports.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(libc::NFPROTO_IPV4, &self.table);
        elements(&mut batch, ports, true);
        let request = batch.finish();
        self.published.extend(ports.iter().copied());
        let outcome = match self.socket.call(&request) {
            // Somebody flushed the ruleset (a firewall service that was restarted): make it again, the new ports included.
            Err(error) if error.errno == Errno::ENOENT => self.rebuild(),
            other => other.map(drop),
        };
        if outcome.is_err() {
            for (port, _) in ports {
                self.published.remove(port);
            }
        }
        outcome
    }

    /// Takes ports back; what is not published is passed over.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn unpublish(&mut self, ports: &[HostPort]) -> Result<(), NetlinkError> {
        let known: Vec<_> = ports.iter().filter_map(|port| Some((*port, *self.published.get(port)?))).collect();
        if known.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(libc::NFPROTO_IPV4, &self.table);
        elements(&mut batch, &known, false);
        let request = batch.finish();
        for (port, _) in &known {
            self.published.remove(port);
        }
        let outcome = match self.socket.call(&request) {
            Err(error) if error.errno == Errno::ENOENT => self.rebuild(),
            other => other.map(drop),
        };
        if outcome.is_err() {
            self.published.extend(known);
        }
        outcome
    }

    /// Removes the table and the rules in Docker's chain.
    ///
    /// # Errors
    /// The kernel's refusal; that there is no table is no error.
    pub fn remove(&mut self) -> Result<(), NetlinkError> {
        docker_user::leave(&mut self.socket, &self.table)?;
        let mut batch = Batch::new(libc::NFPROTO_IPV4, &self.table);
        batch.delete_table();
        match self.socket.call(&batch.finish()) {
            Err(error) if error.errno != Errno::ENOENT => Err(error),
            _ => Ok(()),
        }
    }

    /// The whole table in one transaction: there is no moment without it.
    fn rebuild(&mut self) -> Result<(), NetlinkError> {
        let mut batch = Batch::new(libc::NFPROTO_IPV4, &self.table);
        batch.table_anew();
        batch.set(PORTS, PROTOCOL_AND_PORT, Leads::Data(ADDRESS_AND_PORT));
        self.chains(&mut batch);
        self.rules(&mut batch);
        let published: Vec<_> = self.published.iter().map(|(port, target)| (*port, *target)).collect();
        elements(&mut batch, &published, true);
        let request = batch.finish();
        self.socket.call(&request).map(drop)
    }

    fn chains(&self, batch: &mut Batch<'_>) {
        let chains: [(&str, &'static str, u32, i32); 5] = [
            ("loopback", "filter", 0, -300),
            ("prerouting", "nat", 0, -100),
            ("output", "nat", 3, -100),
            ("forward", "filter", 2, 0),
            ("postrouting", "nat", 4, 100),
        ];
        for (name, kind, hook, priority) in chains {
            batch.chain(name, Some(Hook { kind, hook, priority }));
        }
    }

    fn rules(&self, batch: &mut Batch<'_>) {
        let (bridge, subnet) = (Links::Named(&self.bridge), self.subnet);
        let mut rule = |chain: &str, expressions: &dyn Fn(&mut Expressions<'_, '_>)| batch.rule(chain, |e| expressions(e));
        // route_localnet on the bridge, which published ports on 127.0.0.1 need, would otherwise let containers reach what
        // the machine serves on loopback only.
        rule("loopback", &|e| e.link(Side::In, bridge, true).within_loopback(End::Destination).reject_silently());
        // The task metadata endpoint. By the bridge alone: other networks of the machine have their own agents.
        rule("prerouting", &|e| {
            e.link(Side::In, bridge, true).asks(metadata::ASKED).translated_to(metadata::answered_at(subnet.gateway()))
        });
        rule("prerouting", &|e| e.translate_published());
        rule("output", &|e| e.translate_published());
        // Forwarding is on, so a neighbour could route to a container's address itself: only published ports are open to it.
        rule("forward", &|e| e.link(Side::In, bridge, true).accept());
        rule("forward", &|e| e.link(Side::Out, bridge, true).established().accept());
        rule("forward", &|e| e.link(Side::Out, bridge, true).published().accept());
        rule("forward", &|e| e.link(Side::Out, bridge, true).reject_silently());
        // A container cannot answer to 127.0.0.1 of the machine.
        rule("postrouting", &|e| e.link(Side::Out, bridge, true).within_loopback(End::Source).masquerade());
        // A neighbour on the bridge (or the container itself) would be answered directly, past the translation.
        rule("postrouting", &|e| {
            e.within_subnet(End::Source, subnet).within_subnet(End::Destination, subnet).published().masquerade();
        });
        // What the machine says to itself at the bridge's address comes from there: task metadata tells its own programs from others by it.
        rule("postrouting", &|e| e.link(Side::Out, Links::Named("lo"), true).accept());
        // Nobody outside knows the way back to the subnet.
        rule("postrouting", &|e| e.within_subnet(End::Source, subnet).link(Side::Out, bridge, false).masquerade());
    }

    /// Lets the bridge's packets through where Docker drops what it does not know.
    pub fn pass_docker(&mut self) {
        docker_user::pass(&mut self.socket, &self.table, Links::Named(&self.bridge));
    }
}

fn elements(batch: &mut Batch<'_>, ports: &[(HostPort, Target)], add: bool) {
    let elements: Vec<([u8; 8], [u8; 8])> = ports
        .iter()
        .map(|((protocol, port), (address, target))| {
            let number = match protocol {
                Protocol::Tcp => libc::IPPROTO_TCP as u8,
                Protocol::Udp => libc::IPPROTO_UDP as u8,
            };
            (concatenation([number, 0, 0, 0], *port), concatenation(address.octets(), *target))
        })
        .collect();
    if add {
        batch.add_elements(PORTS, elements.iter().map(|(key, target)| (&key[..], Datum::Bytes(target))));
    } else {
        batch.delete_elements(PORTS, elements.iter().map(|(key, _)| &key[..]));
    }
}

/// Two parts of a key, each padded to four bytes.
fn concatenation(first: [u8; 4], port: u16) -> [u8; 8] {
    let [high, low] = port.to_be_bytes();
    [first[0], first[1], first[2], first[3], high, low, 0, 0]
}
