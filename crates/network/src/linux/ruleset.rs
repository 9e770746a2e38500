//! From the table of groups and the interfaces of this machine to nft sets and chains, and what changes between two of those.
//!
//! Pure. What never changes (where the kernel begins, how forged packets are told) is not here but in `enforcement`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::expression::{End, Family, padded};
use super::nft::{Form, Leads};
use crate::interface::TaskInterface;
use crate::security_group::{Cidr, NetworkTable, Peer, Rule, Traffic};

/// From an interface's link to the chain that judges what it sends.
pub const FROM: &str = "from";
/// From an interface's link to the chain that judges what it gets.
pub const TO: &str = "to";
/// What may send what: link, IPv4 address, hardware address.
pub const OWNED_V4: &str = "owned4";
/// What may send what: link, IPv6 address, hardware address.
pub const OWNED_V6: &str = "owned6";
/// Link and IPv4 address of a name server that it may always ask.
pub const RESOLVERS_V4: &str = "resolvers4";
/// Link and IPv6 address of a name server that it may always ask.
pub const RESOLVERS_V6: &str = "resolvers6";
/// IPv4 addresses of interfaces of all machines.
pub const INTERFACES: &str = "interfaces";

/// The UDP port at which other machines bring packets of their tasks.
pub const OVERLAY: &str = "overlay";
/// Addresses of other machines.
pub const MACHINES: &str = "machines";
/// From an address of the machine to the interface that it stands for.
pub const PUBLIC: &str = "public";
/// From an interface's address to the one that stands for it outside.
pub const PRIVATE: &str = "private";

/// Sets that are always there, and what they hold.
pub const FIXED: [(&str, Kind); 11] = [
    (FROM, Kind::LinkVerdicts),
    (TO, Kind::LinkVerdicts),
    (OWNED_V4, Kind::Owned(Family::V4)),
    (OWNED_V6, Kind::Owned(Family::V6)),
    (RESOLVERS_V4, Kind::LinkAddresses(Family::V4)),
    (RESOLVERS_V6, Kind::LinkAddresses(Family::V6)),
    (INTERFACES, Kind::Addresses(Family::V4)),
    (MACHINES, Kind::Addresses(Family::V4)),
    (OVERLAY, Kind::Ports),
    (PUBLIC, Kind::Translations),
    (PRIVATE, Kind::Translations),
];

/// Longest name of a chain made of names of groups; the kernel takes 255 bytes.
const LONGEST_NAME: usize = 200;

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Links, each leading to a chain.
    LinkVerdicts,
    /// Links with the addresses that they may send from.
    Owned(Family),
    /// Links with an address.
    LinkAddresses(Family),
    /// Addresses.
    Addresses(Family),
    /// Ports.
    Ports,
    /// IPv4 addresses, each leading to another.
    Translations,
}

/// An IPv4 address.
const IPV4: Form = Form { kind: 7, length: 4 };

impl Kind {
    /// What an element leads to.
    #[must_use]
    pub fn leads(self) -> Leads {
        match self {
            Self::LinkVerdicts => Leads::Verdict,
            Self::Translations => Leads::Data(IPV4),
            Self::Owned(_) | Self::LinkAddresses(_) | Self::Addresses(_) | Self::Ports => Leads::Nowhere,
        }
    }

    /// The key's form in the kernel.
    #[must_use]
    pub fn key(self) -> Form {
        const LINK: u32 = 41;
        const HARDWARE: u32 = 9;
        let address = |family| match family {
            Family::V4 => (7, 4),
            Family::V6 => (8, 16),
        };
        match self {
            Self::LinkVerdicts => Form { kind: LINK, length: 16 },
            Self::Translations => IPV4,
            Self::Ports => Form { kind: 13, length: 2 },
            Self::Addresses(family) => Form { kind: address(family).0, length: address(family).1 },
            Self::LinkAddresses(family) => Form { kind: LINK << 6 | address(family).0, length: 16 + address(family).1 },
            Self::Owned(family) => Form { kind: (LINK << 6 | address(family).0) << 6 | HARDWARE, length: 24 + address(family).1 },
        }
    }
}

/// Elements of a set: keys as the kernel has them, and what they lead to.
pub type Elements = BTreeMap<Vec<u8>, Lead>;

/// What an element leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lead {
    /// Nothing: it is in a set.
    Nowhere,
    /// A chain.
    Chain(String),
    /// An address.
    Address(Ipv4Addr),
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it holds.
    pub kind: Kind,
    /// Its elements.
    pub elements: Elements,
}

/// Who is at the other end, as a chain asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// An address of a range.
    Range(Cidr),
    /// An address in a set.
    Set(Family, String),
}

impl Match {
    /// The address family it is about.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Range(range) if range.address().is_ipv4() => Family::V4,
            Self::Range(_) => Family::V6,
            Self::Set(family, _) => *family,
        }
    }
}

/// A line of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Ask another chain first.
    Jump(String),
    /// Let it pass if it is this.
    Pass {
        /// What traffic.
        traffic: Traffic,
        /// Which end is the other one.
        end: End,
        /// Who is there.
        peer: Match,
    },
}

/// Sets and chains by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// Sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Chains.
    pub chains: BTreeMap<String, Vec<Line>>,
}

impl Ruleset {
    /// Adds what another one has. Both must agree where both speak.
    pub fn extend(&mut self, other: Self) {
        for (name, set) in other.sets {
            match self.sets.get_mut(&name) {
                Some(own) => own.elements.extend(set.elements),
                None => drop(self.sets.insert(name, set)),
            }
        }
        self.chains.extend(other.chains);
    }

    fn insert(&mut self, set: &str, kind: Kind, key: Vec<u8>, lead: Lead) {
        let set = self.sets.entry(set.to_owned()).or_insert_with(|| Set { kind, elements: Elements::new() });
        set.elements.insert(key, lead);
    }
}

/// All sets and chains for a table and the interfaces of this machine, each with the name of its link.
#[must_use]
pub fn rules<'a>(table: &NetworkTable, interfaces: impl IntoIterator<Item = (&'a str, &'a TaskInterface)>) -> Ruleset {
    let mut ruleset = group_rules(table);
    let referenced = referenced(table);
    for (link, interface) in interfaces {
        ruleset.extend(interface_rules(table, &referenced, link, interface));
    }
    ruleset
}

/// Groups that some rule names as its peer.
#[must_use]
pub fn referenced(table: &NetworkTable) -> BTreeSet<&str> {
    let rules = table.groups.values().flat_map(|group| group.ingress.iter().chain(&group.egress));
    let peers = rules.filter_map(|rule| match &rule.peer {
        Peer::Group(id) => Some(id.as_str()),
        Peer::Range(_) => None,
    });
    peers.collect()
}

/// What of it all comes from the table alone.
fn group_rules(table: &NetworkTable) -> Ruleset {
    let mut ruleset = Ruleset::default();
    for (name, kind) in FIXED {
        ruleset.sets.insert(name.to_owned(), Set { kind, elements: Elements::new() });
    }
    for (id, group) in &table.groups {
        for (end, rules) in [(End::Source, &group.ingress), (End::Destination, &group.egress)] {
            ruleset.chains.insert(chain_of(end, id), rules.iter().flat_map(|rule| lines(end, rule)).collect());
        }
    }
    if let Some(machine) = &table.machine {
        ruleset.insert(OVERLAY, Kind::Ports, machine.port.to_be_bytes().to_vec(), Lead::Nowhere);
    }
    let referenced = referenced(table);
    for id in &referenced {
        for family in [Family::V4, Family::V6] {
            ruleset.sets.insert(members(family, id), Set { kind: Kind::Addresses(family), elements: Elements::new() });
        }
    }
    for interface in table.interfaces.values() {
        let groups: Vec<&str> = interface.groups.iter().map(String::as_str).filter(|id| referenced.contains(id)).collect();
        interface.addresses.iter().for_each(|address| make_known(&mut ruleset, *address, &groups));
        if let Some(instance) = interface.instance {
            ruleset.insert(MACHINES, Kind::Addresses(Family::V4), instance.octets().to_vec(), Lead::Nowhere);
        }
    }
    ruleset
}

/// What of it all comes with one interface of this machine.
#[must_use]
pub fn interface_rules(table: &NetworkTable, referenced: &BTreeSet<&str>, link: &str, interface: &TaskInterface) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let groups: BTreeSet<&str> = table.groups_of(&interface.id, &interface.groups).iter().map(String::as_str).collect();
    for (map, end) in [(FROM, End::Destination), (TO, End::Source)] {
        // Of a group that nobody has told us of nothing passes.
        let known = groups.iter().filter(|id| table.groups.contains_key(**id));
        let chain = profile(end, &groups);
        ruleset.insert(map, Kind::LinkVerdicts, padded(link).to_vec(), Lead::Chain(chain.clone()));
        ruleset.chains.insert(chain, known.map(|id| Line::Jump(chain_of(end, id))).collect());
    }
    for address in interface.addresses() {
        let (set, kind) = match address {
            IpAddr::V4(_) => (OWNED_V4, Kind::Owned(Family::V4)),
            IpAddr::V6(_) => (OWNED_V6, Kind::Owned(Family::V6)),
        };
        let mut key = link_and_address(link, address);
        key.extend_from_slice(&interface.mac.0);
        key.extend_from_slice(&[0; 2]);
        ruleset.insert(set, kind, key, Lead::Nowhere);
    }
    for address in &interface.name_servers {
        let (set, kind) = match address {
            IpAddr::V4(_) => (RESOLVERS_V4, Kind::LinkAddresses(Family::V4)),
            IpAddr::V6(_) => (RESOLVERS_V6, Kind::LinkAddresses(Family::V6)),
        };
        ruleset.insert(set, kind, link_and_address(link, *address), Lead::Nowhere);
    }
    if let Some(public) = interface.public_address {
        let (outside, inside) = (public.octets().to_vec(), interface.address.octets().to_vec());
        ruleset.insert(PUBLIC, Kind::Translations, outside, Lead::Address(interface.address));
        ruleset.insert(PRIVATE, Kind::Translations, inside, Lead::Address(public));
    }
    let groups: Vec<&str> = groups.into_iter().filter(|id| referenced.contains(id)).collect();
    interface.addresses().for_each(|address| make_known(&mut ruleset, address, &groups));
    ruleset
}

fn make_known(ruleset: &mut Ruleset, address: IpAddr, groups: &[&str]) {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (Family::V4, address.octets().to_vec()),
        IpAddr::V6(address) => (Family::V6, address.octets().to_vec()),
    };
    for id in groups {
        ruleset.insert(&members(family, id), Kind::Addresses(family), bytes.clone(), Lead::Nowhere);
    }
    if family == Family::V4 {
        ruleset.insert(INTERFACES, Kind::Addresses(family), bytes, Lead::Nowhere);
    }
}

fn link_and_address(link: &str, address: IpAddr) -> Vec<u8> {
    let mut key = padded(link).to_vec();
    match address {
        IpAddr::V4(address) => key.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => key.extend_from_slice(&address.octets()),
    }
    key
}

/// One rule of a group. One that names a group is a line for each address family.
fn lines(end: End, rule: &Rule) -> Vec<Line> {
    let peers = match &rule.peer {
        Peer::Range(range) => vec![Match::Range(*range)],
        Peer::Group(id) => [Family::V4, Family::V6].map(|family| Match::Set(family, members(family, id))).to_vec(),
    };
    peers.into_iter().map(|peer| Line::Pass { traffic: rule.traffic, end, peer }).collect()
}

/// The set of a group's members.
fn members(family: Family, id: &str) -> String {
    match family {
        Family::V4 => format!("members4/{id}"),
        Family::V6 => format!("members6/{id}"),
    }
}

fn direction(end: End) -> &'static str {
    match end {
        End::Source => "in",
        End::Destination => "out",
    }
}

/// The chain of one group.
fn chain_of(end: End, id: &str) -> String {
    format!("{}/{id}", direction(end))
}

/// The chain of all interfaces with the same groups. Tasks of a service share it, so that hundreds of them need two chains and not hundreds.
fn profile(end: End, groups: &BTreeSet<&str>) -> String {
    let joined = groups.iter().copied().collect::<Vec<_>>().join("/");
    if joined.len() <= LONGEST_NAME {
        return format!("all-{}/{joined}", direction(end));
    }
    format!("all-{}/{:016x}", direction(end), fingerprint(joined.as_bytes()))
}

/// FNV-1a: the same in every version of this program, as names that outlive it must be.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Keys as the kernel has them, and what they lead to.
pub type NewElements<'a> = Vec<(&'a [u8], &'a Lead)>;

/// What makes one ruleset into another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change<'a> {
    /// Sets to make.
    pub new_sets: Vec<(&'a str, Kind)>,
    /// Chains to make.
    pub new_chains: Vec<&'a str>,
    /// Elements to take out, by set.
    pub gone_elements: Vec<(&'a str, Vec<&'a [u8]>)>,
    /// Chains that are emptied and written anew.
    pub rewritten: Vec<(&'a str, &'a [Line])>,
    /// Elements to add, by set.
    pub new_elements: Vec<(&'a str, NewElements<'a>)>,
    /// Chains to empty and delete.
    pub gone_chains: Vec<&'a str>,
    /// Sets to delete.
    pub gone_sets: Vec<&'a str>,
}

impl Change<'_> {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What makes `before` into `after`. With `keep` nothing is taken away: `after` is an addition.
#[must_use]
pub fn change<'a>(before: &'a Ruleset, after: &'a Ruleset, keep: bool) -> Change<'a> {
    let mut change = Change::default();
    for (name, set) in &after.sets {
        const NONE: &Elements = &Elements::new();
        let old = before.sets.get(name).map_or(NONE, |old| &old.elements);
        if !before.sets.contains_key(name) {
            change.new_sets.push((name, set.kind));
        }
        let new: Vec<_> = set.elements.iter().filter(|(key, lead)| old.get(*key) != Some(lead)).collect();
        let moved = new.iter().filter(|(key, _)| old.contains_key(*key)).map(|(key, _)| key.as_slice());
        let gone = old.keys().filter(|key| !keep && !set.elements.contains_key(*key)).map(Vec::as_slice);
        let gone: Vec<&[u8]> = moved.chain(gone).collect();
        if !gone.is_empty() {
            change.gone_elements.push((name, gone));
        }
        if !new.is_empty() {
            change.new_elements.push((name, new.into_iter().map(|(key, lead)| (key.as_slice(), lead)).collect()));
        }
    }
    for (name, lines) in &after.chains {
        match before.chains.get(name) {
            None => {
                change.new_chains.push(name);
                change.rewritten.push((name, lines));
            }
            Some(old) if old != lines => change.rewritten.push((name, lines)),
            Some(_) => {}
        }
    }
    if !keep {
        change.gone_chains = before.chains.keys().filter(|name| !after.chains.contains_key(*name)).map(String::as_str).collect();
        change.gone_sets = before.sets.keys().filter(|name| !after.sets.contains_key(*name)).map(String::as_str).collect();
    }
    change
}

#[cfg(test)]
#[path = "ruleset_tests.rs"]
mod tests;
