//! The nftables table that enforces security groups: what a [`Ruleset`] says, put into the kernel one transaction a change.
//!
//! Two places judge. What a task sends is judged before routing, by its own address and before anything is translated: there it does not
//! matter whether it is meant for this machine, for another task or for the world. What a task gets is judged last of all, after translation, so
//! that the sender is who the task sees. A link of ours without a word on it passes nothing: there is no moment at which a task is open.
//!
//! Connections are judged once, at their first packet. Those that are known go on when the rule goes that let them in, as those that EC2
//! tracks do: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>.

use std::net::SocketAddrV4;

use nix::errno::Errno;

use super::docker_user;
use super::expression::{End, Expressions, Family, Links, Side};
use super::netlink::{NetlinkError, Socket};
use super::nft::{Batch, Datum, Hook};
use super::ruleset::{
    Change, FROM, INTERFACES, Lead, Line, MACHINES, Match, OVERLAY, OWNED_V4, OWNED_V6, PRIVATE, PUBLIC, RESOLVERS_V4, RESOLVERS_V6,
    Ruleset, TO, change,
};
use crate::metadata;
use crate::security_group::{Cidr, Traffic};

const INET: i32 = libc::NFPROTO_INET;
/// A forged fragment must not become part of somebody else's packet.
const BEFORE_FRAGMENTS_ARE_JOINED: i32 = -450;
/// After the kernel knows the connection, before destinations are translated.
const BEFORE_TRANSLATION: i32 = -150;
/// After sources are translated.
const AFTER_TRANSLATION: i32 = 150;
const DNS: u16 = 53;
const ICMP: u8 = libc::IPPROTO_ICMP as u8;
const ICMP_V6: u8 = libc::IPPROTO_ICMPV6 as u8;

/// The table of one network's interfaces.
#[derive(Debug)]
pub struct Enforcement {
    socket: Socket,
    table: String,
    prefix: String,
    metadata: Option<SocketAddrV4>,
    current: Ruleset,
}

impl Enforcement {
    /// Makes the table, in place of one of the same name. `prefix` is how the names of the interfaces' links begin; `metadata`
    /// is where what they ask of the task metadata endpoint leads, if anywhere.
    ///
    /// # Errors
    /// The step that was refused; then nothing changed.
    pub fn open(table: &str, prefix: &str, metadata: Option<SocketAddrV4>, ruleset: Ruleset) -> Result<Self, NetlinkError> {
        let (socket, table_name, prefix_kept) = (Socket::netfilter()?, table.to_owned(), prefix.to_owned());
        let mut enforcement = Self { socket, table: table_name, prefix: prefix_kept, metadata, current: ruleset };
        enforcement.rebuild()?;
        docker_user::pass(&mut enforcement.socket, table, Links::Prefixed(prefix));
        Ok(enforcement)
    }

    /// Adds to what is there.
    ///
    /// # Errors
    /// The kernel's refusal; then nothing changed.
    pub fn add(&mut self, addition: Ruleset) -> Result<(), NetlinkError> {
        match self.apply(&change(&self.current, &addition, true)) {
            Ok(request) => {
                let outcome = self.socket.call(&request).map(drop);
                self.settle(outcome, |current| current.extend(addition))
            }
            Err(Nothing) => Ok(()),
        }
    }

    /// Puts another ruleset in the place of what is there.
    ///
    /// # Errors
    /// The kernel's refusal; then nothing changed.
    pub fn replace(&mut self, ruleset: Ruleset) -> Result<(), NetlinkError> {
        match self.apply(&change(&self.current, &ruleset, false)) {
            Ok(request) => {
                let outcome = self.socket.call(&request).map(drop);
                self.settle(outcome, |current| *current = ruleset)
            }
            Err(Nothing) => Ok(()),
        }
    }

    /// Removes the table.
    ///
    /// # Errors
    /// The kernel's refusal; that there is no table is no error.
    pub fn remove(&mut self) -> Result<(), NetlinkError> {
        docker_user::leave(&mut self.socket, &self.table)?;
        let mut batch = Batch::new(INET, &self.table);
        batch.delete_table();
        match self.socket.call(&batch.finish()) {
            Err(error) if error.errno != Errno::ENOENT => Err(error),
            _ => Ok(()),
        }
    }

    fn settle(&mut self, outcome: Result<(), NetlinkError>, advance: impl FnOnce(&mut Ruleset)) -> Result<(), NetlinkError> {
        match outcome {
            Ok(()) => {
                advance(&mut self.current);
                Ok(())
            }
            // Somebody flushed the ruleset (a firewall service that was restarted): make it again, the change included.
            Err(error) if error.errno == Errno::ENOENT => {
                let before = self.current.clone();
                advance(&mut self.current);
                self.rebuild().inspect_err(|_| self.current = before)
            }
            Err(error) => Err(error),
        }
    }

    fn apply(&self, change: &Change<'_>) -> Result<super::netlink::Request, Nothing> {
        if change.is_empty() {
            return Err(Nothing);
        }
        let mut batch = Batch::new(INET, &self.table);
        write(&mut batch, change);
        Ok(batch.finish())
    }

    /// The whole table in one transaction: there is no moment without it.
    fn rebuild(&mut self) -> Result<(), NetlinkError> {
        let mut batch = Batch::new(INET, &self.table);
        batch.table_anew();
        let nothing = Ruleset::default();
        let change = change(&nothing, &self.current, false);
        make(&mut batch, &change);
        self.fixed(&mut batch);
        fill(&mut batch, &change);
        let request = batch.finish();
        self.socket.call(&request).map(drop)
    }

    fn fixed(&self, batch: &mut Batch<'_>) {
        let ours = Links::Prefixed(&self.prefix);
        batch.chain("origin", Some(Hook { kind: "filter", hook: 0, priority: BEFORE_FRAGMENTS_ARE_JOINED }));
        batch.chain("egress", Some(Hook { kind: "filter", hook: 0, priority: BEFORE_TRANSLATION }));
        batch.chain("ingress", Some(Hook { kind: "filter", hook: 4, priority: AFTER_TRANSLATION }));
        batch.chain("overlay", Some(Hook { kind: "filter", hook: 1, priority: 0 }));
        batch.chain("prerouting", Some(Hook { kind: "nat", hook: 0, priority: -100 }));
        batch.chain("output", Some(Hook { kind: "nat", hook: 3, priority: -100 }));
        batch.chain("postrouting", Some(Hook { kind: "nat", hook: 4, priority: 100 }));
        let mut rule = |chain: &str, expressions: &dyn Fn(&mut Expressions<'_, '_>)| batch.rule(chain, |e| expressions(e));
        for (family, set) in [(Family::V4, OWNED_V4), (Family::V6, OWNED_V6)] {
            rule("origin", &|e| e.link(Side::In, ours, true).family(family).forged(family, set).reject_silently());
        }
        // A task's address comes by the way that leads to it: from its link here, or from the machine that has it.
        rule("egress", &|e| {
            e.link(Side::In, ours, false)
                .family(Family::V4)
                .address_in(End::Source, Family::V4, INTERFACES, true)
                .astray()
                .reject_silently();
        });
        rule("egress", &|e| e.link(Side::In, ours, false).accept());
        rule("egress", &|e| e.established().accept());
        // What belongs to no connection would leave with an address that nobody outside knows.
        rule("egress", &|e| e.invalid().reject_silently());
        if self.metadata.is_some() {
            // Not the machine's own yet: it is translated afterwards.
            rule("egress", &|e| e.family(Family::V4).asks(metadata::ASKED).accept());
        }
        // Groups never keep a task from the instance's own services: credentials, metadata, time, names.
        let services: Cidr = "169.254.0.0/16".parse().expect("a range");
        rule("egress", &|e| e.family(Family::V4).within_range(End::Destination, services).meant_for_machine().accept());
        // Those of others, such as a cloud's that would give away the machine's own credentials, are on the machine's links and not on the task's.
        rule("egress", &|e| e.family(Family::V4).within_range(End::Destination, services).reject_silently());
        for (family, set) in [(Family::V4, RESOLVERS_V4), (Family::V6, RESOLVERS_V6)] {
            for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_TCP] {
                rule("egress", &|e| {
                    e.family(family).transport(protocol as u8).ports(DNS, DNS).link_and_destination_in(family, set).accept()
                });
            }
        }
        rule("egress", &|e| e.judged_by_link(Side::In, FROM));
        rule("egress", &|e| e.reject_silently());
        rule("ingress", &|e| e.link(Side::Out, ours, false).accept());
        rule("ingress", &|e| e.established().accept());
        // This machine is the task's router: that a packet is too large or has nowhere to go must be told, also of a connection that
        // therefore never came about and that the kernel does not know.
        for (number, kinds) in [(ICMP, [3, 11]), (ICMP_V6, [1, 2])] {
            for kind in kinds {
                rule("ingress", &|e| e.sent_here().transport(number).icmp(Some(kind), None).accept());
            }
        }
        rule("ingress", &|e| e.invalid().reject_silently());
        rule("ingress", &|e| e.judged_by_link(Side::Out, TO));
        rule("ingress", &|e| e.reject_silently());
        // Whoever is no machine of ours cannot bring packets in the name of its tasks.
        rule("overlay", &|e| {
            e.family(Family::V4)
                .transport(libc::IPPROTO_UDP as u8)
                .port_in(OVERLAY)
                .address_in(End::Source, Family::V4, MACHINES, false)
                .reject_silently();
        });
        if let Some(place) = self.metadata {
            rule("prerouting", &|e| e.link(Side::In, ours, true).family(Family::V4).asks(metadata::ASKED).translated_to(place));
        }
        for chain in ["prerouting", "output"] {
            rule(chain, &|e| e.family(Family::V4).translated(End::Destination, PUBLIC));
        }
        // Nobody outside knows the way back to a private address; interfaces of other machines do.
        let outward = |e: &mut Expressions<'_, '_>| {
            e.family(Family::V4)
                .address_in(End::Source, Family::V4, INTERFACES, true)
                .address_in(End::Destination, Family::V4, INTERFACES, false)
                .link(Side::Out, ours, false);
        };
        rule("postrouting", &|e| {
            outward(e);
            e.translated(End::Source, PRIVATE);
        });
        rule("postrouting", &|e| {
            outward(e);
            e.masquerade();
        });
    }
}

/// A change that changes nothing.
struct Nothing;

fn write(batch: &mut Batch<'_>, change: &Change<'_>) {
    make(batch, change);
    for (set, keys) in &change.gone_elements {
        batch.delete_elements(set, keys.iter().copied());
    }
    let is_new = |name: &str| change.new_chains.contains(&name);
    change.rewritten.iter().filter(|(name, _)| !is_new(name)).for_each(|(name, _)| batch.clear_chain(name));
    // All of them before the first is deleted: one may lead to another.
    change.gone_chains.iter().for_each(|name| batch.clear_chain(name));
    fill(batch, change);
    change.gone_chains.iter().for_each(|name| batch.delete_chain(name));
    change.gone_sets.iter().for_each(|name| batch.delete_set(name));
}

/// Sets and chains first: rules and elements name them.
fn make(batch: &mut Batch<'_>, change: &Change<'_>) {
    for (name, kind) in &change.new_sets {
        batch.set(name, kind.key(), kind.leads());
    }
    change.new_chains.iter().for_each(|name| batch.chain(name, None));
}

fn fill(batch: &mut Batch<'_>, change: &Change<'_>) {
    for (chain, lines) in &change.rewritten {
        lines.iter().for_each(|line| batch.rule(chain, |e| rule(e, line)));
    }
    for (set, elements) in &change.new_elements {
        let datum = |lead| match lead {
            &Lead::Nowhere => Datum::Nothing,
            Lead::Chain(chain) => Datum::Jump(chain),
            Lead::Address(address) => Datum::Address(*address),
        };
        batch.add_elements(set, elements.iter().map(|(key, lead)| (*key, datum(lead))));
    }
}

fn rule(e: &mut Expressions<'_, '_>, line: &Line) {
    let (traffic, end, peer) = match line {
        Line::Jump(chain) => return e.jump(chain),
        Line::Pass { traffic, end, peer } => (*traffic, *end, peer),
    };
    e.family(peer.family());
    match traffic {
        Traffic::All => &mut *e,
        // A range of all ports is the protocol alone.
        Traffic::Tcp(0, u16::MAX) => e.transport(libc::IPPROTO_TCP as u8),
        Traffic::Udp(0, u16::MAX) => e.transport(libc::IPPROTO_UDP as u8),
        Traffic::Tcp(first, last) => e.transport(libc::IPPROTO_TCP as u8).ports(first, last),
        Traffic::Udp(first, last) => e.transport(libc::IPPROTO_UDP as u8).ports(first, last),
        Traffic::Icmp { kind, code } => e.transport(ICMP).icmp(kind, code),
        Traffic::Icmpv6 { kind, code } => e.transport(ICMP_V6).icmp(kind, code),
        Traffic::Other(number) => e.transport(number),
    };
    match peer {
        Match::Range(range) => e.within_range(end, *range),
        Match::Set(family, set) => e.address_in(end, *family, set, true),
    };
    e.accept();
}
