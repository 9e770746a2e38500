//! Berth's own message: what the names of service discovery answer, for the DNS server on each container instance. Only agents that ask for it
//! with `berthDns=1` get it; amazon-ecs-agent knows nothing of it.
//!
//! A connection begins with the whole table; an agent that says `berthDifferences=1` gets what changes after that, each time with the revision
//! of the table that it is a change of. A whole one that does not fit a frame goes in parts, of which an agent makes nothing before it has all.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::MAX_FRAME;
use super::name_table::{GoneNames, NameChanges, NameTable};

/// Most parts that a table goes in: some hundred thousand names. More would keep every agent's connection busy at each change.
pub const MOST_DNS_PARTS: usize = 32;
/// What a frame has around its zones, and a zone around its records, with room to spare. Names are at most 255 bytes.
const AROUND: usize = 4096;

/// A table, a part of one, or the changes of one. Not acknowledged: who misses something asks for the whole of it, and a new connection
/// begins with that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsTableMessage {
    /// The store's revision that it was made of; the same in all parts.
    pub revision: u64,
    /// Which part, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// The revision of the table that these are the changes of; `None`: this is a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// The zones. One that goes on in the next part is in both, with the rest of its names there. Of changes: see [`NameChanges`].
    pub zones: Vec<DnsZone>,
    /// What is no longer there; nothing where there is no `base`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<GoneNames>,
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
    pub fn split(revision: u64, zones: impl IntoIterator<Item = DnsZone>) -> Result<Vec<Self>, TableTooLarge> {
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
        Ok((0..count).zip(parts).map(|(part, zones)| Self { revision, part, parts: count, zones, ..Self::default() }).collect())
    }

    /// What makes the table of `revision` of the one of `base`, with its size in bytes; `None` if that does not fit a frame, where the table
    /// itself is to be sent.
    #[must_use]
    pub fn of_changes(base: u64, revision: u64, changes: NameChanges) -> Option<(Self, usize)> {
        let message = Self { revision, part: 0, parts: 1, base: Some(base), zones: changes.zones, gone: changes.gone };
        let size = json_size(&message);
        (size <= MAX_FRAME - AROUND).then_some((message, size))
    }
}

/// What a message makes of the table that an agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameNews {
    /// It is another one.
    Changed,
    /// Further parts are to come, or it is known already that the whole of it is.
    Waits,
    /// Something is missing: the whole of it is to be asked for.
    Lost,
}

/// The table as it comes over one connection.
#[derive(Debug, Default)]
pub struct ReceivedNames {
    table: NameTable,
    /// `None` before the first whole one, and after something was missed.
    revision: Option<u64>,
    /// The parts that came of the next whole one.
    coming: Option<Coming>,
    asked: bool,
}

#[derive(Debug)]
struct Coming {
    revision: u64,
    parts: u32,
    next: u32,
    zones: Vec<DnsZone>,
}

impl ReceivedNames {
    /// The store's revision of the table; `None`: there is none.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// The table as it was when it changed last.
    #[must_use]
    pub fn table(&self) -> &NameTable {
        &self.table
    }

    /// Takes a message. Changes of another table than the one that is here, and parts that do not follow the one before, are dropped with all
    /// that comes after them until a table begins anew; the table that is here goes on.
    pub fn take(&mut self, message: DnsTableMessage) -> NameNews {
        let DnsTableMessage { revision, part, parts, base, zones, gone } = message;
        if let Some(base) = base {
            // Between the parts of a table nothing else comes.
            if self.coming.is_some() || self.revision != Some(base) || parts != 1 {
                return self.lose();
            }
            self.table.apply(NameChanges { zones, gone });
            self.revision = Some(revision);
            return NameNews::Changed;
        }
        if part == 0 {
            self.coming = Some(Coming { revision, parts, next: 0, zones: Vec::new() });
        }
        let most = u32::try_from(MOST_DNS_PARTS).unwrap_or(u32::MAX);
        let follows = |coming: &&mut Coming| {
            part == coming.next && revision == coming.revision && parts == coming.parts && part < parts && parts <= most
        };
        let Some(coming) = self.coming.as_mut().filter(follows) else { return self.lose() };
        coming.zones.extend(zones);
        coming.next += 1;
        if coming.next < parts {
            return NameNews::Waits;
        }
        let whole = self.coming.take().into_iter().flat_map(|coming| coming.zones).collect();
        *self = Self { table: whole, revision: Some(revision), coming: None, asked: false };
        NameNews::Changed
    }

    fn lose(&mut self) -> NameNews {
        (self.coming, self.revision) = (None, None);
        // Once: what was sent before the question is answered is as useless.
        if std::mem::replace(&mut self.asked, true) { NameNews::Waits } else { NameNews::Lost }
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
        let mut table = ReceivedNames::default();
        for part in parts {
            assert_eq!(table.revision(), None, "nothing is whole before the last part");
            let text = ServerFrame::BerthDnsTable(part).encode().expect("a part fits a frame");
            let ServerFrame::BerthDnsTable(part) = ServerFrame::decode(&text).unwrap() else { panic!("{text}") };
            assert_ne!(table.take(part), NameNews::Lost);
        }
        table.revision().map(|revision| (revision, table.table().zones().collect()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_split_is_joined(shape in proptest::collection::vec(proptest::collection::vec(0_usize..6000, 0..10), 0..8)) {
            let zone = |(number, records): (usize, Vec<usize>)| DnsZone {
                name: format!("zone-{number}.local"),
                records: records.into_iter().enumerate().map(|(number, answers)| record(format!("n{number:02}"), answers)).collect(),
            };
            let zones: Vec<DnsZone> = shape.into_iter().enumerate().map(zone).collect();
            prop_assert_eq!(joined(DnsTableMessage::split(9, zones.clone()).unwrap()), Some((9, zones)));
        }
    }

    #[test]
    fn small_tables_are_one_message_and_hundreds_of_thousands_of_names_are_refused() {
        assert_eq!(joined(DnsTableMessage::split(3, Vec::new()).unwrap()), Some((3, Vec::new())));
        let names = |count: usize| {
            vec![DnsZone { name: "ns.local".into(), records: (0..count).map(|n| record(format!("name-{n:06}"), 1)).collect() }]
        };
        assert_eq!(DnsTableMessage::split(1, names(100)).unwrap().len(), 1);
        let parts = DnsTableMessage::split(1, names(50_000)).unwrap();
        assert!((4..8).contains(&parts.len()), "{}", parts.len());
        assert_eq!(joined(parts), Some((1, names(50_000))));
        assert!(matches!(DnsTableMessage::split(1, names(600_000)), Err(TableTooLarge::Parts { .. })));
        let wide = vec![DnsZone { name: "ns.local".into(), records: vec![record("wide".into(), 100_000)] }];
        assert!(matches!(DnsTableMessage::split(1, wide), Err(TableTooLarge::Record { .. })));
    }

    fn zones(name: &str) -> Vec<DnsZone> {
        vec![DnsZone { name: "ns.local".into(), records: vec![record(name.into(), 1)] }]
    }

    fn names(table: &ReceivedNames) -> Vec<String> {
        table.table().zones().flat_map(|zone| zone.records).map(|record| record.name).collect()
    }

    #[test]
    fn a_table_that_is_interrupted_is_none() {
        let part = |part| DnsTableMessage { revision: 5, part, parts: 3, ..Default::default() };
        let mut table = ReceivedNames::default();
        assert_eq!(table.take(part(0)), NameNews::Waits);
        assert_eq!(table.take(part(2)), NameNews::Lost);
        assert_eq!((table.take(part(1)), table.take(part(2))), (NameNews::Waits, NameNews::Waits), "what followed a gap is dropped");
        assert_eq!(table.take(part(0)), NameNews::Waits);
        let other = DnsTableMessage { revision: 6, part: 0, parts: 1, zones: zones("a"), ..Default::default() };
        assert_eq!((table.take(other), table.revision()), (NameNews::Changed, Some(6)), "a newer table begins anew");
        assert_eq!(table.take(DnsTableMessage { revision: 6, ..Default::default() }), NameNews::Lost, "no table has no parts");
        assert_eq!(names(&table), ["a"], "what was there goes on");
    }

    #[test]
    fn changes_lead_from_the_table_that_they_name_and_from_no_other() {
        let whole = |revision, name: &str| DnsTableMessage::split(revision, zones(name)).unwrap().remove(0);
        let changes = |base, revision, name: &str, gone: &[&str]| {
            let gone = GoneNames { zone: "ns.local".into(), names: Some(gone.iter().map(|name| (*name).to_owned()).collect()) };
            let changes = NameChanges { zones: zones(name), gone: vec![gone] };
            let (message, size) = DnsTableMessage::of_changes(base, revision, changes).expect("it fits a frame");
            let text = ServerFrame::BerthDnsTable(message.clone()).encode().expect("it does");
            assert!(text.len() > size && text.len() < size + AROUND, "{size} of {}", text.len());
            message
        };
        let mut table = ReceivedNames::default();
        assert_eq!(table.take(changes(1, 2, "b", &[])), NameNews::Lost, "there is nothing to change");
        assert_eq!(table.take(changes(2, 3, "b", &[])), NameNews::Waits, "it is asked for once");
        assert_eq!(table.take(whole(4, "a")), NameNews::Changed);
        assert_eq!(table.take(changes(4, 6, "b", &[])), NameNews::Changed);
        assert_eq!(table.take(changes(6, 9, "c", &["a"])), NameNews::Changed);
        assert_eq!((table.revision(), names(&table)), (Some(9), vec!["b".to_owned(), "c".to_owned()]));
        assert_eq!(table.take(changes(6, 9, "c", &["b"])), NameNews::Lost, "it came twice");
        assert_eq!((table.revision(), names(&table).len()), (None, 2), "what was there goes on, and nothing is built on it");
        assert_eq!(table.take(changes(9, 10, "d", &[])), NameNews::Waits);
        assert_eq!(table.take(whole(10, "d")), NameNews::Changed);
        assert_eq!(table.take(changes(12, 13, "e", &[])), NameNews::Lost, "one between was lost");
    }

    #[test]
    fn changes_beyond_a_frame_are_none() {
        let changes =
            NameChanges { zones: vec![DnsZone { name: "ns.local".into(), records: vec![record("wide".into(), 100_000)] }], gone: vec![] };
        assert_eq!(DnsTableMessage::of_changes(1, 2, changes), None);
    }
}
