//! What the server answers from: zones as they are given, and the table that they are compiled into.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use foldhash::fast::RandomState;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record as WireRecord, RecordType};
use serde::{Deserialize, Serialize};

use super::verdict::NEGATIVE_TTL;

/// How many of a name's answers of one type a question gets.
/// <https://docs.aws.amazon.com/cloud-map/latest/api/API_DnsConfig.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Routing {
    /// Up to eight, in random order.
    Multivalue,
    /// One, at random, all being of the same weight.
    Weighted,
}

/// A namespace's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its name, without a dot at its end: `ns.local`.
    pub name: String,
    /// Its names. What is not here, nor above a name that is, does not exist.
    pub records: Vec<Record>,
}

/// A name and its answers of all types. A name may be there several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name relative to its zone; empty for the zone itself.
    pub name: String,
    /// How long an answer may be kept, in seconds.
    pub ttl_seconds: u32,
    /// How many answers a question gets.
    pub routing: Routing,
    /// The answers.
    pub answers: Vec<Answer>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Answer {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Where a service listens (RFC 2782).
    Srv {
        /// Lower ones first.
        priority: u16,
        /// How often, among those of the same priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The whole name of the machine, without a dot at its end.
        target: String,
    },
    /// Another name, whole, without a dot at its end.
    Cname(String),
}

/// Zones in the form in which questions are answered. Immutable: a change is a new table.
#[derive(Debug, Default)]
pub struct Table {
    zones: Vec<Apex>,
    by_name: HashMap<Name, usize, RandomState>,
    nodes: HashMap<Name, Node, RandomState>,
}

/// A zone's top.
#[derive(Debug)]
pub(super) struct Apex {
    /// The record that says how long a name may count as missing (RFC 2308).
    pub soa: WireRecord,
}

/// An existing name; without sets where it only lies above others.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Its zone's place.
    pub zone: usize,
    /// One for each type and routing.
    pub sets: Vec<Set>,
}

/// A name's answers of one type.
#[derive(Debug)]
pub(super) struct Set {
    pub kind: RecordType,
    pub ttl: u32,
    pub routing: Routing,
    pub data: Vec<RData>,
}

impl Table {
    /// Compiles zones. `revision` becomes their serial. What cannot be a name is left out and told of, a line each.
    #[must_use]
    pub fn new(revision: u64, zones: &[Zone]) -> (Self, Vec<String>) {
        let mut table = Self::default();
        let mut problems = Vec::new();
        let mut named = Vec::with_capacity(zones.len());
        // Every zone first: a name belongs to the longest that it lies in.
        for zone in zones {
            match name_of(&[&zone.name]).filter(|name| !name.is_root()) {
                Some(name) => {
                    table.add_zone(name, revision);
                    named.push(zone);
                }
                None => problems.push(format!("zone {:?} is no domain name", shortened(&zone.name))),
            }
        }
        // So does what lies between a zone and another around it.
        for name in table.by_name.keys().cloned().collect::<Vec<_>>() {
            table.add_above(&name);
        }
        for zone in named {
            for record in &zone.records {
                match name_of(&[&record.name, &zone.name]) {
                    Some(name) => table.add(name, record, &mut problems),
                    None => problems.push(format!("name {:?} in {:?} is no domain name", shortened(&record.name), shortened(&zone.name))),
                }
            }
        }
        (table, problems)
    }

    /// How many zones there are.
    #[must_use]
    pub fn zones(&self) -> usize {
        self.zones.len()
    }

    pub(super) fn node(&self, name: &Name) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub(super) fn apex(&self, zone: usize) -> &Apex {
        &self.zones[zone]
    }

    /// The longest zone that a name lies in.
    pub(super) fn zone_of(&self, name: &Name) -> Option<usize> {
        if self.zones.is_empty() {
            return None;
        }
        let mut rest = name.clone();
        while !rest.is_root() {
            if let Some(zone) = self.by_name.get(&rest) {
                return Some(*zone);
            }
            rest = rest.base_name();
        }
        None
    }

    fn add_zone(&mut self, name: Name, revision: u64) {
        if self.by_name.contains_key(&name) {
            return;
        }
        let of_zone = |label: &str| Name::from_labels([label.as_bytes()]).ok()?.append_name(&name).ok();
        let host = of_zone("ns").unwrap_or_else(|| name.clone());
        let mail = of_zone("hostmaster").unwrap_or_else(|| name.clone());
        // A serial is 32 bits, and goes round.
        let serial = u32::try_from(revision & u64::from(u32::MAX)).unwrap_or_default();
        let soa = SOA::new(host, mail, serial, 7200, 900, 1_209_600, NEGATIVE_TTL);
        let zone = self.zones.len();
        self.zones.push(Apex { soa: WireRecord::from_rdata(name.clone(), NEGATIVE_TTL, RData::SOA(soa)) });
        self.by_name.insert(name.clone(), zone);
        self.nodes.entry(name).or_default().zone = zone;
    }

    /// What lies between a name and its zone exists too, and has no answers (RFC 8020).
    fn add_above(&mut self, name: &Name) {
        let mut above = name.base_name();
        while let Some(zone) = self.zone_of(&above)
            && !self.nodes.contains_key(&above)
        {
            let higher = above.base_name();
            self.nodes.insert(above, Node { zone, sets: Vec::new() });
            above = higher;
        }
    }

    fn add(&mut self, name: Name, record: &Record, problems: &mut Vec<String>) {
        let Some(zone) = self.zone_of(&name) else { return };
        self.add_above(&name);
        let node = self.nodes.entry(name).or_default();
        node.zone = zone;
        let known = !node.sets.is_empty();
        let mut seen = HashSet::with_capacity(record.answers.len());
        // An answer that is there twice would be drawn twice as often, and RFC 2181 forbids it.
        for answer in record.answers.iter().filter(|answer| seen.insert(*answer)) {
            let Some(data) = data_of(answer) else {
                problems.push(format!("{answer:?} of {:?} leads to what is no domain name", shortened(&record.name)));
                continue;
            };
            let kind = data.record_type();
            match node.sets.iter_mut().find(|set| set.kind == kind) {
                Some(set) if known && set.data.contains(&data) => {}
                Some(set) => {
                    set.ttl = set.ttl.min(record.ttl_seconds);
                    set.data.push(data);
                }
                None => node.sets.push(Set { kind, ttl: record.ttl_seconds, routing: record.routing, data: vec![data] }),
            }
        }
    }
}

fn data_of(answer: &Answer) -> Option<RData> {
    Some(match answer {
        Answer::A(address) => RData::A(A(*address)),
        Answer::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Answer::Srv { priority, weight, port, target } => RData::SRV(SRV::new(*priority, *weight, *port, name_of(&[target])?)),
        Answer::Cname(target) => RData::CNAME(CNAME(name_of(&[target])?)),
    })
}

/// The name whose parts these are, from left to right; an empty part is none. By bytes, not by what a host's name may consist of: names of
/// services may have underscores.
fn name_of(parts: &[&str]) -> Option<Name> {
    let parts = parts.iter().map(|part| part.strip_suffix('.').unwrap_or(part)).filter(|part| !part.is_empty());
    let labels: Vec<&[u8]> = parts.flat_map(|part| part.split('.')).map(str::as_bytes).collect();
    if labels.iter().any(|label| label.is_empty() || label.len() > 63) {
        return None;
    }
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
