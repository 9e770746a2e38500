//! The names of service discovery as a value that both ends have: whole, or as what makes a newer one of an older one. Pure; how it is cut
//! into frames stands beside it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

use super::{DnsRecord, DnsZone};

/// A zone's names, each with its records: mostly one.
type Names = BTreeMap<String, Vec<DnsRecord>>;

/// All zones with their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameTable(BTreeMap<String, Names>);

/// What makes a newer table of an older one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameChanges {
    /// Zones that are new, and those in which names are new or answer otherwise, with these names.
    pub zones: Vec<DnsZone>,
    /// What is no longer there.
    pub gone: Vec<GoneNames>,
}

/// What is no longer there of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GoneNames {
    /// The zone's name.
    pub zone: String,
    /// Its names that are gone; `None`: the zone with all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
}

impl NameChanges {
    /// There is no difference.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.gone.is_empty()
    }
}

impl FromIterator<DnsZone> for NameTable {
    /// Zones of one name are one, and so are names of a zone.
    fn from_iter<I: IntoIterator<Item = DnsZone>>(zones: I) -> Self {
        let mut table = Self::default();
        for zone in zones {
            let names = table.0.entry(zone.name).or_default();
            for record in zone.records {
                push(names, record);
            }
        }
        table
    }
}

fn push(names: &mut Names, record: DnsRecord) {
    match names.entry(record.name.clone()) {
        Entry::Vacant(place) => drop(place.insert(vec![record])),
        Entry::Occupied(mut known) => known.get_mut().push(record),
    }
}

impl NameTable {
    /// The zones in order, each with its names in order.
    pub fn zones(&self) -> impl Iterator<Item = DnsZone> {
        self.0.iter().map(|(name, names)| DnsZone { name: name.clone(), records: names.values().flatten().cloned().collect() })
    }

    /// What makes `newer` of this one.
    #[must_use]
    pub fn changes_to(&self, newer: &Self) -> NameChanges {
        let mut changes = NameChanges::default();
        for (zone, names) in &newer.0 {
            let before = self.0.get(zone);
            let is_new = |name: &String, records: &Vec<DnsRecord>| before.and_then(|before| before.get(name)) != Some(records);
            let fresh: Vec<_> =
                names.iter().filter(|(name, records)| is_new(name, records)).flat_map(|(_, records)| records).cloned().collect();
            if before.is_none() || !fresh.is_empty() {
                changes.zones.push(DnsZone { name: zone.clone(), records: fresh });
            }
        }
        for (zone, before) in &self.0 {
            let left = |names: &Names| before.keys().filter(|name| !names.contains_key(*name)).cloned().collect::<Vec<_>>();
            let names = newer.0.get(zone).map(left);
            if names.as_ref().is_none_or(|names| !names.is_empty()) {
                changes.gone.push(GoneNames { zone: zone.clone(), names });
            }
        }
        changes
    }

    /// Makes it the newer one that the changes lead to.
    pub fn apply(&mut self, changes: NameChanges) {
        for gone in changes.gone {
            match gone.names {
                None => drop(self.0.remove(&gone.zone)),
                Some(names) => {
                    if let Some(known) = self.0.get_mut(&gone.zone) {
                        names.iter().for_each(|name| drop(known.remove(name)));
                    }
                }
            }
        }
        for zone in changes.zones {
            let known = self.0.entry(zone.name).or_default();
            let mut fresh = Names::new();
            zone.records.into_iter().for_each(|record| push(&mut fresh, record));
            known.extend(fresh);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::messages::{DnsAnswer, DnsRouting};

    fn record(name: &str, last: u8) -> DnsRecord {
        let answers = vec![DnsAnswer::A(Ipv4Addr::new(10, 0, 0, last))];
        DnsRecord { name: name.to_owned(), ttl_seconds: 10, routing: DnsRouting::Multivalue, answers }
    }

    /// Few zones, names and answers, so that two tables have much in common.
    fn table() -> impl Strategy<Value = NameTable> {
        let zones = prop::collection::vec((0..4_u8, prop::collection::vec((0..5_u8, 0..3_u8), 0..6)), 0..5);
        zones.prop_map(|zones| {
            let records = |names: Vec<(u8, u8)>| names.into_iter().map(|(name, last)| record(&format!("n{name}"), last)).collect();
            zones.into_iter().map(|(zone, names)| DnsZone { name: format!("z{zone}"), records: records(names) }).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_changed_is_the_newer_one_and_nothing_else_is_said(older in table(), newer in table()) {
            let changes = older.changes_to(&newer);
            prop_assert_eq!(changes.is_empty(), older == newer);
            let all: Vec<DnsZone> = newer.zones().collect();
            let said = |zones: &[DnsZone]| zones.iter().map(|zone| zone.records.len()).sum::<usize>();
            prop_assert!(said(&changes.zones) <= said(&all));
            let mut table = older;
            table.apply(changes.clone());
            prop_assert_eq!(&table, &newer);
            table.apply(changes);
            prop_assert_eq!(&table, &newer, "twice is as good as once");
            prop_assert_eq!(all.into_iter().collect::<NameTable>(), newer);
        }
    }

    #[test]
    fn one_name_of_many_is_one_record() {
        let names = |last: u8| (0..100).map(|number| record(&format!("n{number}"), if number == 7 { last } else { 1 })).collect();
        let table = |last: u8| NameTable::from_iter([DnsZone { name: "ns.local".to_owned(), records: names(last) }]);
        let changes = table(1).changes_to(&table(2));
        assert_eq!(changes.zones, [DnsZone { name: "ns.local".to_owned(), records: vec![record("n7", 2)] }]);
        assert_eq!(changes.gone, []);
        let none = table(1).changes_to(&NameTable::default());
        assert_eq!(none.gone, [GoneNames { zone: "ns.local".to_owned(), names: None }], "a zone is not told name by name");
    }
}
