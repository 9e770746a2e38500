//! `CreateService` of Cloud Map.
//!
//! <https://docs.aws.amazon.com/cloud-map/latest/api/API_CreateService.html>

use std::collections::BTreeMap;

use berth_model::discovery::{DiscoveryService, DiscoveryServiceId, DnsSettings, RecordSetting, RecordType, is_service_name};
use berth_model::dns::Routing;
use berth_model::namespace::{Namespace, NamespaceKind};
use berth_model::record::Key;
use berth_shapes::servicediscovery::{CreateServiceRequest, CreateServiceResponse, DnsConfig, DnsRecord, ErrorCode};

use super::failure::{failure, invalid};
use super::{reference, render, tags};
use crate::context::Api;
use crate::failure::Failure;

pub(super) async fn run(api: &Api, request: CreateServiceRequest) -> Result<CreateServiceResponse, Failure> {
    let name = request.name.unwrap_or_default();
    if !is_service_name(&name) {
        return Err(invalid(
            "Name must be labels of letters, digits, underscores and inner hyphens with dots between, 127 characters: Name",
        ));
    }
    let tags = tags::read(request.tags.as_deref())?;
    let older = request.dns_config.as_ref().and_then(|dns| dns.namespace_id.as_deref());
    let namespace_id = match (request.namespace_id.as_deref(), older) {
        (Some(one), Some(other)) if one != other && !one.ends_with(&format!("/{other}")) => {
            return Err(invalid("NamespaceId and DnsConfig.NamespaceId name two namespaces: NamespaceId"));
        }
        (Some(id), _) | (None, Some(id)) => id.to_owned(),
        (None, None) => return Err(invalid("A service needs a namespace: NamespaceId")),
    };
    let is_api_only = request.r#type.is_some();
    if request.health_check_config.is_some() && request.health_check_custom_config.is_some() {
        return Err(invalid("Either HealthCheckConfig or HealthCheckCustomConfig can be specified, but not both."));
    }
    api.change(|state, transaction| {
        let namespace = reference::namespace(api, state, Some(&namespace_id))?;
        refuse_health_check(namespace, request.health_check_config.is_some())?;
        let dns = dns_settings(namespace, request.dns_config.as_ref(), is_api_only)?;
        let service = DiscoveryService {
            id: DiscoveryServiceId::of(&namespace.id, &name, namespace.kind != NamespaceKind::Http),
            name: name.clone(),
            namespace: namespace.id.clone(),
            description: request.description.clone().filter(|text| !text.is_empty()),
            dns,
            has_custom_health: request.health_check_custom_config.is_some(),
            attributes: BTreeMap::new(),
            creator_request_id: request.creator_request_id.clone(),
            tags: tags.clone(),
            created_at: api.now(),
        };
        let key = Key::DiscoveryService(service.id.clone());
        if let Some(known) = state.discovery_service(&service.id) {
            let is_retry = known.creator_request_id.is_some()
                && DiscoveryService { created_at: known.created_at, ..service.clone() }
                    == DiscoveryService { attributes: BTreeMap::new(), ..(*known.value).clone() };
            if is_retry {
                transaction.expect(key, known.modified);
                return Ok(CreateServiceResponse { service: Some(render::service(api, state, known)) });
            }
            return Err(exists(api, known));
        }
        transaction.expect_absent(key);
        // A deletion of the namespace at this moment sees the service, or this sees the deletion.
        transaction.expect(Key::Namespace(namespace.id.clone()), namespace.modified).touch(Key::Namespace(namespace.id.clone()));
        let shown = render::service(api, state, &service);
        transaction.put(service);
        Ok(CreateServiceResponse { service: Some(shown) })
    })
    .await
}

fn exists(api: &Api, known: &DiscoveryService) -> Failure {
    let text = format!("The service {} exists already in the namespace {}.", known.name, known.namespace);
    let refusal = failure(ErrorCode::ServiceAlreadyExists, text)
        .with("ServiceId", known.id.to_string().into())
        .with("ServiceArn", api.scope().discovery_service(&known.id).into());
    match &known.creator_request_id {
        Some(creator) => refusal.with("CreatorRequestId", creator.clone().into()),
        None => refusal,
    }
}

/// Route 53 would check what it can reach from the internet; there is none here, so nothing would ever be checked.
pub(super) fn refuse_health_check(namespace: &Namespace, is_given: bool) -> Result<(), Failure> {
    match &namespace.kind {
        _ if !is_given => Ok(()),
        NamespaceKind::Private { .. } => {
            Err(invalid("HealthCheckConfig is not supported for services in private DNS namespaces; use HealthCheckCustomConfig."))
        }
        _ => Err(invalid("Berth makes no Route 53 health checks, which HealthCheckConfig asks for; use HealthCheckCustomConfig.")),
    }
}

/// Reads `DnsConfig`.
fn dns_settings(namespace: &Namespace, config: Option<&DnsConfig>, is_api_only: bool) -> Result<Option<DnsSettings>, Failure> {
    let is_http = namespace.kind == NamespaceKind::Http;
    let Some(config) = config else {
        if is_http || is_api_only {
            return Ok(None);
        }
        return Err(invalid("DnsConfig is required for a service in a DNS namespace, unless Type is HTTP: DnsConfig"));
    };
    if is_http || is_api_only {
        return Err(invalid("DnsConfig cannot be specified for a service that is found by API calls only: DnsConfig"));
    }
    let records = record_settings(config.dns_records.as_deref().unwrap_or_default())?;
    let is_cname = records.iter().any(|record| record.kind == RecordType::Cname);
    let routing = config.routing_policy.as_ref().and_then(|policy| Routing::parse(policy.as_str()));
    // An alias to one of several names at once is against DNS's own rules.
    let routing = routing.unwrap_or(if is_cname { Routing::Weighted } else { Routing::Multivalue });
    if is_cname && routing == Routing::Multivalue {
        return Err(invalid("A service with a CNAME record needs the routing policy WEIGHTED: DnsConfig.RoutingPolicy"));
    }
    Ok(Some(DnsSettings { routing, records }))
}

/// Reads `DnsRecords`; the model has checked types and bounds.
pub(super) fn record_settings(list: &[DnsRecord]) -> Result<Vec<RecordSetting>, Failure> {
    let mut settings: Vec<RecordSetting> = Vec::new();
    for record in list {
        let kind = record.r#type.as_ref().and_then(|kind| RecordType::parse(kind.as_str()));
        let ttl_seconds = record.ttl.and_then(|ttl| u32::try_from(ttl).ok());
        let (Some(kind), Some(ttl_seconds)) = (kind, ttl_seconds) else { return Err(invalid("A record needs Type and TTL: DnsRecords")) };
        if settings.iter().any(|known| known.kind == kind) {
            return Err(invalid(format!("There is more than one record of type {kind}: DnsRecords")));
        }
        settings.push(RecordSetting { kind, ttl_seconds });
    }
    if settings.is_empty() {
        return Err(invalid("At least one record is needed: DnsRecords"));
    }
    if settings.len() > 1 && settings.iter().any(|known| known.kind == RecordType::Cname) {
        return Err(invalid("A CNAME record cannot be combined with records of other types: DnsRecords"));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str) -> DnsRecord {
        DnsRecord { r#type: Some(kind.into()), ttl: Some(10) }
    }

    #[test]
    fn records_go_together_as_dns_lets_them() {
        for kinds in [&["A"][..], &["A", "AAAA"], &["SRV", "A", "AAAA"], &["CNAME"]] {
            let records: Vec<_> = kinds.iter().map(|kind| record(kind)).collect();
            assert_eq!(record_settings(&records).map(|settings| settings.len()).ok(), Some(kinds.len()), "{kinds:?}");
        }
        for kinds in [&[][..], &["A", "A"], &["A", "CNAME"]] {
            let records: Vec<_> = kinds.iter().map(|kind| record(kind)).collect();
            assert!(record_settings(&records).is_err(), "{kinds:?}");
        }
    }
}
