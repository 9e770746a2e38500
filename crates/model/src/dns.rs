//! What names answer: the table that Cloud Map's namespaces are made into, and that every DNS server of ours reads.
//!
//! Small, whole and dumb: who is healthy was decided before, so a server only looks names up and picks among the answers.

use core::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Most answers that a MULTIVALUE name gives at once, chosen at random where there are more.
/// <https://docs.aws.amazon.com/cloud-map/latest/api/API_DnsConfig.html>
pub const MAX_MULTIVALUE_ANSWERS: usize = 8;

wire_enum!(
    /// How many of a name's answers one question gets: `DnsConfig.RoutingPolicy`.
    Routing {
        /// Up to [`MAX_MULTIVALUE_ANSWERS`] of them.
        Multivalue = "MULTIVALUE",
        /// One of them, at random; Cloud Map gives all the same weight.
        Weighted = "WEIGHTED",
    }
);

/// Every zone, as of one revision of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsTable {
    /// The store's revision that it was made of; a table with a lower one is older.
    pub revision: u64,
    /// The zones by name.
    pub zones: Vec<DnsZone>,
}

/// A namespace's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsZone {
    /// The namespace's name in lower case, without a dot at its end: `ns.local`.
    pub name: String,
    /// Its names, in order. A name that is not here does not exist (NXDOMAIN).
    pub records: Vec<DnsRecord>,
}

/// A name and what it answers to questions of every type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// The name in lower case, relative to the zone, without a dot at its end: `api`, or `INSTANCE.api` for what an SRV record points at; empty
    /// for the zone's own name.
    pub name: String,
    /// How long an answer may be kept, in seconds.
    pub ttl_seconds: u32,
    /// How many of the answers of the type that is asked for one question gets.
    pub routing: Routing,
    /// The answers, of all types. A question of a type that none of them has gets an empty answer (NODATA).
    pub answers: Vec<DnsAnswer>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsAnswer {
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
        /// The whole name of the machine, without a dot at its end: `INSTANCE.api.ns.local`.
        target: String,
    },
    /// Another name, whole, without a dot at its end.
    Cname(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back_as_it_was_written() {
        let srv = DnsAnswer::Srv { priority: 1, weight: 1, port: 8080, target: "i-1.api.ns.local".to_owned() };
        let answers =
            vec![DnsAnswer::A(Ipv4Addr::LOCALHOST), DnsAnswer::Aaaa(Ipv6Addr::LOCALHOST), srv, DnsAnswer::Cname("b.c".to_owned())];
        let record = DnsRecord { name: "api".to_owned(), ttl_seconds: 10, routing: Routing::Multivalue, answers };
        let table = DnsTable { revision: 7, zones: vec![DnsZone { name: "ns.local".to_owned(), records: vec![record] }] };
        let text = serde_json::to_string(&table).unwrap();
        assert!(text.contains(r#""routing":"MULTIVALUE","answers":[{"A":"127.0.0.1"},{"AAAA":"::1"},{"SRV":{"#), "{text}");
        assert_eq!(serde_json::from_str::<DnsTable>(&text).unwrap(), table);
    }
}
