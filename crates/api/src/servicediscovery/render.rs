//! From records to the shapes of answers.

use berth_model::discovery::{DiscoveryInstance, DiscoveryService, DnsSettings, RecordType};
use berth_model::namespace::{Namespace, NamespaceKind, Operation};
use berth_shapes::servicediscovery as shapes;
use berth_store::State;

use crate::context::Api;

fn count(number: usize) -> Option<i32> {
    Some(i32::try_from(number).unwrap_or(i32::MAX))
}

/// Who owns everything: there is one account.
pub(super) fn account(api: &Api) -> Option<String> {
    Some(api.scope().account.to_string())
}

fn properties(namespace: &Namespace) -> shapes::NamespaceProperties {
    shapes::NamespaceProperties {
        dns_properties: Some(match namespace.zone() {
            None => shapes::DnsProperties::default(),
            Some(zone) => shapes::DnsProperties {
                hosted_zone_id: Some(zone.id.clone()),
                soa: Some(shapes::Soa { ttl: Some(i64::from(zone.soa_ttl_seconds)) }),
            },
        }),
        http_properties: Some(shapes::HttpProperties { http_name: Some(namespace.name.clone()) }),
    }
}

/// A namespace as GetNamespace shows it.
pub(super) fn namespace(api: &Api, state: &State, namespace: &Namespace) -> shapes::Namespace {
    shapes::Namespace {
        id: Some(namespace.id.to_string()),
        arn: Some(api.scope().namespace(&namespace.id)),
        resource_owner: account(api),
        name: Some(namespace.name.clone()),
        r#type: Some(namespace.namespace_type().as_str().into()),
        description: namespace.description.clone(),
        service_count: count(state.discovery_services_of(&namespace.id).count()),
        properties: Some(properties(namespace)),
        create_date: Some(namespace.created_at.to_wire()),
        creator_request_id: namespace.creator_request_id.clone(),
    }
}

/// A namespace as ListNamespaces shows it.
pub(super) fn namespace_summary(api: &Api, state: &State, one: &Namespace) -> shapes::NamespaceSummary {
    let whole = namespace(api, state, one);
    shapes::NamespaceSummary {
        id: whole.id,
        arn: whole.arn,
        resource_owner: whole.resource_owner,
        name: whole.name,
        r#type: whole.r#type,
        description: whole.description,
        service_count: whole.service_count,
        properties: whole.properties,
        create_date: whole.create_date,
    }
}

fn dns(namespace: &berth_model::namespace::NamespaceId, settings: &DnsSettings) -> shapes::DnsConfig {
    let record = |record: &berth_model::discovery::RecordSetting| shapes::DnsRecord {
        r#type: Some(record.kind.as_str().into()),
        ttl: Some(i64::from(record.ttl_seconds)),
    };
    shapes::DnsConfig {
        namespace_id: Some(namespace.to_string()),
        routing_policy: Some(settings.routing.as_str().into()),
        dns_records: Some(settings.records.iter().map(record).collect()),
    }
}

/// `Type`: how a service's instances are found.
fn service_type(state: &State, service: &DiscoveryService) -> shapes::ServiceType {
    let has_dns = service.dns.is_some() && state.namespace(&service.namespace).is_some_and(|n| n.kind != NamespaceKind::Http);
    if has_dns { "DNS_HTTP" } else { "HTTP" }.into()
}

/// A service as GetService shows it.
pub(super) fn service(api: &Api, state: &State, service: &DiscoveryService) -> shapes::Service {
    shapes::Service {
        id: Some(service.id.to_string()),
        arn: Some(api.scope().discovery_service(&service.id)),
        resource_owner: account(api),
        name: Some(service.name.clone()),
        namespace_id: Some(service.namespace.to_string()),
        description: service.description.clone(),
        instance_count: count(state.discovery_instances_of(&service.id).count()),
        dns_config: service.dns.as_ref().map(|settings| dns(&service.namespace, settings)),
        r#type: Some(service_type(state, service)),
        // The threshold is no longer anybody's choice: AWS always says 1.
        health_check_custom_config: service.has_custom_health.then_some(shapes::HealthCheckCustomConfig { failure_threshold: Some(1) }),
        health_check_config: None,
        create_date: Some(service.created_at.to_wire()),
        creator_request_id: service.creator_request_id.clone(),
        created_by_account: account(api),
    }
}

/// A service as ListServices shows it.
pub(super) fn service_summary(api: &Api, state: &State, one: &DiscoveryService) -> shapes::ServiceSummary {
    let whole = service(api, state, one);
    shapes::ServiceSummary {
        id: whole.id,
        arn: whole.arn,
        resource_owner: whole.resource_owner,
        name: whole.name,
        r#type: whole.r#type,
        description: whole.description,
        instance_count: whole.instance_count,
        dns_config: whole.dns_config,
        health_check_config: whole.health_check_config,
        health_check_custom_config: whole.health_check_custom_config,
        create_date: whole.create_date,
        created_by_account: whole.created_by_account,
    }
}

/// An instance as GetInstance shows it.
pub(super) fn instance(api: &Api, instance: &DiscoveryInstance) -> shapes::Instance {
    shapes::Instance {
        id: Some(instance.id.clone()),
        creator_request_id: instance.creator_request_id.clone(),
        attributes: Some(instance.attributes.clone()),
        created_by_account: account(api),
    }
}

/// An instance as ListInstances shows it.
pub(super) fn instance_summary(api: &Api, instance: &DiscoveryInstance) -> shapes::InstanceSummary {
    shapes::InstanceSummary {
        id: Some(instance.id.clone()),
        attributes: Some(instance.attributes.clone()),
        created_by_account: account(api),
    }
}

/// What is known of an instance's health.
pub(super) fn health(instance: &DiscoveryInstance) -> shapes::HealthStatus {
    instance.health.map_or("UNKNOWN", |health| health.as_str()).into()
}

/// An operation as GetOperation shows it.
pub(super) fn operation(api: &Api, operation: &Operation) -> shapes::OperationShape {
    shapes::OperationShape {
        id: Some(operation.id.to_string()),
        owner_account: account(api),
        r#type: Some(operation.kind.as_str().into()),
        status: Some(super::operations::STATUS.into()),
        create_date: Some(operation.created_at.to_wire()),
        update_date: Some(operation.created_at.to_wire()),
        targets: Some(operation.targets.iter().map(|(kind, id)| (kind.as_str().into(), id.clone())).collect()),
        ..Default::default()
    }
}

/// A record type's name, for errors.
pub(super) fn record_types(settings: &DnsSettings) -> String {
    settings.records.iter().map(|record| RecordType::as_str(record.kind)).collect::<Vec<_>>().join(", ")
}
