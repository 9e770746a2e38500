//! What DNS answers for Cloud Map's namespaces, as one table.
//!
//! Routing and health are those of <https://docs.aws.amazon.com/cloud-map/latest/api/API_DnsConfig.html> and, where no instance is healthy, of
//! <https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/routing-policy-multivalue.html>: then all of them are answered.

use std::collections::BTreeMap;

use berth_model::discovery::{DiscoveryInstance, DiscoveryService, DnsSettings, RecordType};
use berth_model::dns::{DnsAnswer, DnsRecord, DnsTable, DnsZone, Routing};
use berth_model::namespace::Namespace;

/// A namespace with what is in it.
#[derive(Debug, Clone)]
pub struct NamespaceView<'a> {
    /// The namespace.
    pub namespace: &'a Namespace,
    /// Its services.
    pub services: Vec<DiscoveryServiceView<'a>>,
}

/// A service with its instances.
#[derive(Debug, Clone)]
pub struct DiscoveryServiceView<'a> {
    /// The service.
    pub service: &'a DiscoveryService,
    /// Its instances, without those that are ending ([`super::is_ending`]).
    pub instances: Vec<&'a DiscoveryInstance>,
}

/// Everything that DNS answers: a zone for each private or public namespace, a name for each of its services that has instances and DNS
/// records, and one for each instance that an SRV record points at.
#[must_use]
pub fn dns_table(revision: u64, namespaces: &[NamespaceView<'_>]) -> DnsTable {
    let with_dns = namespaces.iter().filter(|view| view.namespace.zone().is_some());
    let mut zones: Vec<_> = with_dns.map(zone).collect();
    zones.sort_by(|one, other| one.name.cmp(&other.name));
    DnsTable { revision, zones }
}

fn zone(view: &NamespaceView<'_>) -> DnsZone {
    let name = view.namespace.name.to_ascii_lowercase();
    // Two services may make one name: an instance of `api` with the id `x` is `x.api`, as is a service of that name.
    let mut records: BTreeMap<String, DnsRecord> = BTreeMap::new();
    for service in &view.services {
        for record in service.service.dns.iter().flat_map(|dns| of_service(&name, service, dns)) {
            match records.get_mut(&record.name) {
                Some(known) => {
                    known.answers.extend(record.answers);
                    known.ttl_seconds = known.ttl_seconds.min(record.ttl_seconds);
                }
                None => drop(records.insert(record.name.clone(), record)),
            }
        }
    }
    for record in records.values_mut() {
        record.answers.sort();
        record.answers.dedup();
    }
    DnsZone { name, records: records.into_values().collect() }
}

fn of_service(zone: &str, view: &DiscoveryServiceView<'_>, dns: &DnsSettings) -> Vec<DnsRecord> {
    let own = if view.service.name == "." { String::new() } else { view.service.name.to_ascii_lowercase() };
    let host = |instance: &DiscoveryInstance| match own.as_str() {
        "" => instance.id.to_ascii_lowercase(),
        own => format!("{}.{own}", instance.id.to_ascii_lowercase()),
    };
    let is_any_healthy = view.instances.iter().any(|instance| instance.is_healthy());
    let answering = view.instances.iter().filter(|instance| !is_any_healthy || instance.is_healthy());
    let answer = |instance: &DiscoveryInstance, kind| match kind {
        RecordType::A => instance.ipv4().map(DnsAnswer::A),
        RecordType::Aaaa => instance.ipv6().map(DnsAnswer::Aaaa),
        RecordType::Cname => instance.cname().map(|name| DnsAnswer::Cname(name.to_ascii_lowercase())),
        // Cloud Map's priority and weight are always 1.
        RecordType::Srv => {
            let target = format!("{}.{zone}", host(instance));
            instance.port().map(|port| DnsAnswer::Srv { priority: 1, weight: 1, port, target })
        }
    };
    let answers: Vec<_> = answering.flat_map(|one| dns.records.iter().filter_map(|record| answer(one, record.kind))).collect();
    if answers.is_empty() {
        return Vec::new();
    }
    // A name's answers of all types are kept equally long: as long as those that are kept for the shortest time.
    let ttl_seconds = dns.records.iter().map(|record| record.ttl_seconds).min().unwrap_or_default();
    let mut records = vec![DnsRecord { name: own.clone(), ttl_seconds, routing: dns.routing, answers }];
    if dns.has(RecordType::Srv) {
        // Who was told of an instance while it was healthy still finds its address.
        records.extend(view.instances.iter().filter_map(|instance| {
            let addresses = instance.ipv4().map(DnsAnswer::A).into_iter().chain(instance.ipv6().map(DnsAnswer::Aaaa));
            let answers: Vec<_> = addresses.collect();
            (!answers.is_empty()).then(|| DnsRecord { name: host(instance), ttl_seconds, routing: Routing::Multivalue, answers })
        }));
    }
    records
}
