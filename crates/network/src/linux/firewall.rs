//! The nftables table of one network: a static ruleset, and one map element for each published port.
//!
//! Touches its own table only (and, where Docker runs, two marked rules in the chain Docker keeps for others). The table can
//! always be made again from what is published, so a ruleset flushed by somebody else heals at the next change.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nix::errno::Errno;

use super::expression::{End, Expressions, PORTS, Side};
use super::netlink::{ACK, APPEND, Attributes, CREATE, DUMP, EXCLUSIVE, NetlinkError, Request, Socket};
use crate::port::Protocol;
use crate::subnet::Subnet;

const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const GET_CHAIN: u16 = NFTABLES << 8 | 4;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
const GET_RULE: u16 = NFTABLES << 8 | 7;
const DELETE_RULE: u16 = NFTABLES << 8 | 8;
const NEW_SET: u16 = NFTABLES << 8 | 9;
const NEW_ELEMENTS: u16 = NFTABLES << 8 | 12;
const DELETE_ELEMENTS: u16 = NFTABLES << 8 | 14;
const IPV4: [u8; 4] = [libc::NFPROTO_IPV4 as u8, 0, 0, 0];
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USER_DATA: u16 = 7;

/// Elements in one message: an attribute's length has 16 bits, an element takes at most 48 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1000;

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
        let mut request = begin();
        self.elements(&mut request, ports, true);
        self.published.extend(ports.iter().copied());
        let outcome = match self.socket.call(&end(request)) {
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
        let mut request = begin();
        self.elements(&mut request, &known, false);
        for (port, _) in &known {
            self.published.remove(port);
        }
        let outcome = match self.socket.call(&end(request)) {
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
        self.leave_docker()?;
        let mut request = begin();
        request.message("delete the nft table", DELETE_TABLE, ACK, &IPV4, |m| m.text(1, &self.table));
        match self.socket.call(&end(request)) {
            Err(error) if error.errno != Errno::ENOENT => Err(error),
            _ => Ok(()),
        }
    }

    /// The whole table in one transaction: there is no moment without it.
    fn rebuild(&mut self) -> Result<(), NetlinkError> {
        let mut request = begin();
        let table = self.table.as_str();
        // A table can only be deleted if it exists, hence the first of the three.
        request.message("make the nft table", NEW_TABLE, ACK | CREATE, &IPV4, |m| m.text(1, table));
        request.message("clear the nft table", DELETE_TABLE, ACK, &IPV4, |m| m.text(1, table));
        request.message("make the nft table again", NEW_TABLE, ACK | CREATE, &IPV4, |m| m.text(1, table));
        request.message("make the nft map of ports", NEW_SET, ACK | CREATE, &IPV4, |m| {
            const MAP: u32 = 8;
            const PROTOCOL_AND_PORT: u32 = 12 << 6 | 13;
            const ADDRESS_AND_PORT: u32 = 7 << 6 | 13;
            m.text(1, table);
            m.text(2, PORTS);
            m.be32(3, MAP);
            m.be32(4, PROTOCOL_AND_PORT);
            m.be32(5, 8);
            m.be32(6, ADDRESS_AND_PORT);
            m.be32(7, 8);
            m.be32(10, 1);
        });
        self.chains(&mut request);
        self.rules(&mut request);
        let published: Vec<_> = self.published.iter().map(|(port, target)| (*port, *target)).collect();
        self.elements(&mut request, &published, true);
        self.socket.call(&end(request)).map(drop)
    }

    fn chains(&self, request: &mut Request) {
        // (name, type, hook, priority)
        let chains: [(&str, &str, u32, i32); 5] = [
            ("loopback", "filter", 0, -300),
            ("prerouting", "nat", 0, -100),
            ("output", "nat", 3, -100),
            ("forward", "filter", 2, 0),
            ("postrouting", "nat", 4, 100),
        ];
        for (name, kind, hook, priority) in chains {
            request.message("make an nft chain", NEW_CHAIN, ACK | CREATE, &IPV4, |m| {
                m.text(1, &self.table);
                m.text(3, name);
                m.text(7, kind);
                m.nest(4, |m| {
                    m.be32(1, hook);
                    m.be32(2, priority.cast_unsigned());
                });
            });
        }
    }

    fn rules(&self, request: &mut Request) {
        let (bridge, subnet) = (self.bridge.as_str(), self.subnet);
        let mut rule = |chain: &str, expressions: &dyn Fn(&mut Expressions<'_, '_>)| {
            request.message("make an nft rule", NEW_RULE, ACK | CREATE | APPEND, &IPV4, |m| {
                m.text(RULE_TABLE, &self.table);
                m.text(RULE_CHAIN, chain);
                m.nest(RULE_EXPRESSIONS, |m| expressions(&mut Expressions(m)));
            });
        };
        // route_localnet on the bridge, which published ports on 127.0.0.1 need, would otherwise let containers reach what
        // the machine serves on loopback only.
        rule("loopback", &|e| e.interface(Side::In, bridge, true).within_loopback(End::Destination).reject_silently());
        rule("prerouting", &|e| e.translate_published());
        rule("output", &|e| e.translate_published());
        // Forwarding is on, so a neighbour could route to a container's address itself: only published ports are open to it.
        rule("forward", &|e| e.interface(Side::In, bridge, true).accept());
        rule("forward", &|e| e.interface(Side::Out, bridge, true).established().accept());
        rule("forward", &|e| e.interface(Side::Out, bridge, true).published().accept());
        rule("forward", &|e| e.interface(Side::Out, bridge, true).reject_silently());
        // A container cannot answer to 127.0.0.1 of the machine.
        rule("postrouting", &|e| e.interface(Side::Out, bridge, true).within_loopback(End::Source).masquerade());
        // A neighbour on the bridge (or the container itself) would be answered directly, past the translation.
        rule("postrouting", &|e| {
            e.within_subnet(End::Source, subnet).within_subnet(End::Destination, subnet).published().masquerade();
        });
        // Nobody outside knows the way back to the subnet.
        rule("postrouting", &|e| e.within_subnet(End::Source, subnet).interface(Side::Out, bridge, false).masquerade());
    }

    fn elements(&self, request: &mut Request, ports: &[(HostPort, Target)], add: bool) {
        let (step, kind, flags) = if add {
            ("publish ports in nft", NEW_ELEMENTS, ACK | CREATE | EXCLUSIVE)
        } else {
            ("take ports back from nft", DELETE_ELEMENTS, ACK)
        };
        for chunk in ports.chunks(ELEMENTS_PER_MESSAGE) {
            request.message(step, kind, flags, &IPV4, |m| {
                m.text(1, &self.table);
                m.text(2, PORTS);
                m.nest(3, |m| {
                    for ((protocol, port), (address, target)) in chunk {
                        m.nest(1, |m| {
                            let number = match protocol {
                                Protocol::Tcp => libc::IPPROTO_TCP as u8,
                                Protocol::Udp => libc::IPPROTO_UDP as u8,
                            };
                            m.nest(1, |m| m.bytes(1, &concatenation([number, 0, 0, 0], *port)));
                            if add {
                                m.nest(2, |m| m.bytes(1, &concatenation(address.octets(), *target)));
                            }
                        });
                    }
                });
            });
        }
    }

    /// Lets the bridge's packets through Docker's forward chain, whose policy is to drop what it does not know. In the chain
    /// `DOCKER-USER`, which Docker keeps for others; our own forward chain still restricts what may come in.
    ///
    /// Returns whether there is such a chain. Does nothing where the rules already stand.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn join_docker(&mut self) -> Result<bool, NetlinkError> {
        let Some(handles) = self.docker_rules()? else { return Ok(false) };
        if handles.len() == 2 {
            return Ok(true);
        }
        self.leave_docker()?;
        let mut request = begin();
        for side in [Side::In, Side::Out] {
            // Without APPEND a rule goes to the head of the chain, before the `return` that Docker puts there.
            request.message("let the bridge through DOCKER-USER", NEW_RULE, ACK | CREATE, &IPV4, |m| {
                docker_chain(m);
                m.nest(RULE_EXPRESSIONS, |m| Expressions(m).interface(side, &self.bridge, true).accept());
                m.bytes(RULE_USER_DATA, &self.mark());
            });
        }
        self.socket.call(&end(request)).map(|_| true)
    }

    fn leave_docker(&mut self) -> Result<(), NetlinkError> {
        let handles = self.docker_rules()?.unwrap_or_default();
        if handles.is_empty() {
            return Ok(());
        }
        let mut request = begin();
        for handle in handles {
            request.message("take a rule out of DOCKER-USER", DELETE_RULE, ACK, &IPV4, |m| {
                docker_chain(m);
                m.bytes(RULE_HANDLE, &handle);
            });
        }
        self.socket.call(&end(request)).map(drop)
    }

    /// Handles of our rules in Docker's chain, none where there is no such chain.
    fn docker_rules(&mut self) -> Result<Option<Vec<Vec<u8>>>, NetlinkError> {
        let mut request = Request::new();
        request.message("look for DOCKER-USER", GET_CHAIN, ACK, &IPV4, |m| {
            m.text(1, "filter");
            m.text(3, "DOCKER-USER");
        });
        match self.socket.call(&request) {
            Err(error) if error.errno == Errno::ENOENT => return Ok(None),
            other => drop(other?),
        }
        let mut request = Request::new();
        request.message("list DOCKER-USER", GET_RULE, DUMP, &IPV4, docker_chain);
        let mark = self.mark();
        let replies = self.socket.dump(&request)?;
        let ours = replies.iter().filter_map(|rule| {
            rule.attributes(4).find(|(kind, value)| *kind == RULE_USER_DATA && *value == mark)?;
            rule.attributes(4).find(|(kind, _)| *kind == RULE_HANDLE).map(|(_, value)| value.to_vec())
        });
        Ok(Some(ours.collect()))
    }

    /// The table's name as nft's and iptables' own comment, by which our rules are known again.
    fn mark(&self) -> Vec<u8> {
        let mut mark = vec![0, u8::try_from(self.table.len() + 1).expect("a table's name is short")];
        mark.extend_from_slice(self.table.as_bytes());
        mark.push(0);
        mark
    }
}

fn docker_chain(m: &mut Attributes<'_>) {
    m.text(RULE_TABLE, "filter");
    m.text(RULE_CHAIN, "DOCKER-USER");
}

/// Two parts of a key, each padded to four bytes.
fn concatenation(first: [u8; 4], port: u16) -> [u8; 8] {
    let [high, low] = port.to_be_bytes();
    [first[0], first[1], first[2], first[3], high, low, 0, 0]
}

fn begin() -> Request {
    let mut request = Request::new();
    request.message("begin an nft transaction", BATCH_BEGIN, 0, &batch_header(), |_: &mut Attributes<'_>| {});
    request
}

fn end(mut request: Request) -> Request {
    request.message("end an nft transaction", BATCH_END, 0, &batch_header(), |_: &mut Attributes<'_>| {});
    request
}

fn batch_header() -> [u8; 4] {
    let [high, low] = NFTABLES.to_be_bytes();
    [0, 0, high, low]
}
