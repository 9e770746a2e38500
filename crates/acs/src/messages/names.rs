//! Berth's own message: what the names of service discovery answer, for the DNS server on each container instance. Only agents that ask for it
//! with `berthDns=1` get it; amazon-ecs-agent knows nothing of it.
//!
//! A table is sent whole each time. What does not fit a frame goes in parts, of which an agent makes nothing before it has all.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::MAX_FRAME;

/// Most parts that a table goes in: some hundred thousand names. More would keep every agent's connection busy at each change.
pub const MOST_DNS_PARTS: usize = 32;
/// What a frame has around its zones, and a zone around its records, with room to spare. Names are at most 255 bytes.
const AROUND: usize = 4096;

/// A table, or a part of one. Not acknowledged: a new connection begins with the whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsTableMessage {
    /// The store's revision that it was made of; the same in all parts.
    pub revision: u64,
    /// Which part, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// The zones. One that goes on in the next part is in both, with the rest of its names there.
    pub zones: Vec<DnsZone>,
}

/// A namespace's names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsZone {
    /// Its name, without a dot at its end.
    pub name: String,
    /// Its names.
    pub records: Vec<DnsRecord>,
}

/// A name and its answers of all types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecord {
    /// The name relative to the zone.
    pub name: String,
    /// How long an answer may be kept, in seconds.
    pub ttl_seconds: u32,
    /// How many of the answers one question gets.
    pub routing: DnsRouting,
    /// The answers.
    pub answers: Vec<DnsAnswer>,
}

/// How many of a name's answers of one type a question gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsRouting {
    /// Up to eight.
    Multivalue,
    /// One.
    Weighted,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsAnswer {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Where a service listens.
    Srv {
        /// Lower ones first.
        priority: u16,
        /// How often, among those of the same priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The whole name of the machine.
        target: String,
    },
    /// Another name, whole.
    Cname(String),
}

/// Why a table is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableTooLarge {
    /// One name has more answers than a frame holds.
    #[error("the answers of {name}.{zone} take {size} bytes, more than a frame holds")]
    Record {
        /// The zone.
        zone: String,
        /// The name in it.
        name: String,
        /// Its size in bytes.
        size: usize,
    },
    /// Too many names.
    #[error("the names take {parts} frames, of at most {MOST_DNS_PARTS}")]
    Parts {
        /// How many.
        parts: usize,
    },
}

impl DnsTableMessage {
    /// A table as messages that each fit a frame, in order; at least one.
    ///
    /// # Errors
    /// [`TableTooLarge`]; then none of it may be sent, since names would seem not to be there.
    pub fn split(revision: u64, zones: Vec<DnsZone>) -> Result<Vec<Self>, TableTooLarge> {
        let mut parts: Vec<Vec<DnsZone>> = vec![Vec::new()];
        let mut room = MAX_FRAME - AROUND;
        for zone in zones {
            let mut open: Option<DnsZone> = None;
            for record in zone.records {
                let size = json_size(&record) + 1;
                if size > MAX_FRAME - 2 * AROUND {
                    return Err(TableTooLarge::Record { zone: zone.name, name: record.name, size });
                }
                if size > room {
                    let full = parts.last_mut().expect("there is always one");
                    full.extend(open.take());
                    parts.push(Vec::new());
                    room = MAX_FRAME - AROUND;
                }
                if open.is_none() {
                    room = room.saturating_sub(json_size(&zone.name) + AROUND / 64);
                }
                room = room.saturating_sub(size);
                open.get_or_insert_with(|| DnsZone { name: zone.name.clone(), records: Vec::new() }).records.push(record);
            }
            // One without names is a zone all the same: whatever is asked of it is not there.
            let zone = open.unwrap_or_else(|| {
                room = room.saturating_sub(json_size(&zone.name) + AROUND / 64);
                DnsZone { name: zone.name, records: Vec::new() }
            });
            parts.last_mut().expect("there is always one").push(zone);
            if room < AROUND {
                parts.push(Vec::new());
                room = MAX_FRAME - AROUND;
            }
        }
        if parts.len() > 1 && parts.last().is_some_and(Vec::is_empty) {
            parts.pop();
        }
        if parts.len() > MOST_DNS_PARTS {
            return Err(TableTooLarge::Parts { parts: parts.len() });
        }
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        Ok((0..count).zip(parts).map(|(part, zones)| Self { revision, part, parts: count, zones }).collect())
    }
}

/// Puts the parts of tables together as they come over one connection.
#[derive(Debug, Default)]
pub struct DnsTableParts {
    revision: u64,
    parts: u32,
    next: u32,
    zones: Vec<DnsZone>,
}

impl DnsTableParts {
    /// Takes a part. With the last one of a table: its revision, and all its zones. A part that does not follow the one before is dropped with
    /// what was there, until a table begins anew.
    pub fn take(&mut self, message: DnsTableMessage) -> Option<(u64, Vec<DnsZone>)> {
        let DnsTableMessage { revision, part, parts, zones } = message;
        if part == 0 {
            *self = Self { revision, parts, next: 0, zones: Vec::new() };
        }
        let most = u32::try_from(MOST_DNS_PARTS).unwrap_or(u32::MAX);
        if part != self.next || revision != self.revision || parts != self.parts || part >= parts || parts > most {
            *self = Self::default();
            return None;
        }
        for zone in zones {
            match self.zones.last_mut().filter(|last| last.name == zone.name) {
                Some(last) => last.records.extend(zone.records),
                None => self.zones.push(zone),
            }
        }
        self.next += 1;
        if self.next < parts {
            return None;
        }
        let whole = std::mem::take(self);
        Some((whole.revision, whole.zones))
    }
}

fn json_size(value: &impl Serialize) -> usize {
    // Written once more when it is sent: a table is made a few times a second at most.
    serde_json::to_vec(value).map_or(usize::MAX / 2, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::ServerFrame;
    use proptest::prelude::*;

    fn record(name: String, answers: usize) -> DnsRecord {
        let answers = (0..answers).map(|number| DnsAnswer::A(Ipv4Addr::from(u32::try_from(number).unwrap()))).collect();
        DnsRecord { name, ttl_seconds: 10, routing: DnsRouting::Multivalue, answers }
    }

    fn joined(parts: Vec<DnsTableMessage>) -> Option<(u64, Vec<DnsZone>)> {
        let mut whole = None;
        let mut table = DnsTableParts::default();
        for part in parts {
            assert_eq!(whole, None, "nothing is whole before the last part");
            let text = ServerFrame::BerthDnsTable(part).encode().expect("a part fits a frame");
            let ServerFrame::BerthDnsTable(part) = ServerFrame::decode(&text).unwrap() else { panic!("{text}") };
            whole = table.take(part);
        }
        whole
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_split_is_joined(shape in proptest::collection::vec(proptest::collection::vec(0_usize..6000, 0..10), 0..8)) {
            let zone = |(number, records): (usize, Vec<usize>)| DnsZone {
                name: format!("zone-{number}.local"),
                records: records.into_iter().enumerate().map(|(number, answers)| record(format!("n{number}"), answers)).collect(),
            };
            let zones: Vec<DnsZone> = shape.into_iter().enumerate().map(zone).collect();
            prop_assert_eq!(joined(DnsTableMessage::split(9, zones.clone()).unwrap()), Some((9, zones)));
        }
    }

    #[test]
    fn small_tables_are_one_message_and_hundreds_of_thousands_of_names_are_refused() {
        assert_eq!(joined(DnsTableMessage::split(3, Vec::new()).unwrap()), Some((3, Vec::new())));
        let names =
            |count: usize| vec![DnsZone { name: "ns.local".into(), records: (0..count).map(|n| record(format!("name-{n}"), 1)).collect() }];
        assert_eq!(DnsTableMessage::split(1, names(100)).unwrap().len(), 1);
        let parts = DnsTableMessage::split(1, names(50_000)).unwrap();
        assert!((4..8).contains(&parts.len()), "{}", parts.len());
        assert_eq!(joined(parts), Some((1, names(50_000))));
        assert!(matches!(DnsTableMessage::split(1, names(600_000)), Err(TableTooLarge::Parts { .. })));
        let wide = vec![DnsZone { name: "ns.local".into(), records: vec![record("wide".into(), 100_000)] }];
        assert!(matches!(DnsTableMessage::split(1, wide), Err(TableTooLarge::Record { .. })));
    }

    #[test]
    fn a_table_that_is_interrupted_is_none() {
        let parts: Vec<DnsTableMessage> = (0..3).map(|part| DnsTableMessage { revision: 5, part, parts: 3, zones: Vec::new() }).collect();
        let mut table = DnsTableParts::default();
        assert_eq!(table.take(parts[0].clone()), None);
        assert_eq!(table.take(parts[2].clone()), None);
        assert_eq!(table.take(parts[1].clone()), None);
        assert_eq!(table.take(parts[2].clone()), None, "what followed a gap is dropped");
        assert_eq!(table.take(parts[0].clone()), None);
        let other = DnsTableMessage { revision: 6, part: 0, parts: 1, zones: Vec::new() };
        assert_eq!(table.take(other), Some((6, Vec::new())), "a newer table begins anew");
        assert_eq!(table.take(DnsTableMessage { revision: 6, part: 0, parts: 0, zones: Vec::new() }), None);
    }
}
