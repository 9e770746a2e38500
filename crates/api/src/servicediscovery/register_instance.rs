//! `RegisterInstance`: makes an instance, or replaces the attributes of one that is there.
//!
//! <https://docs.aws.amazon.com/cloud-map/latest/api/API_RegisterInstance.html>

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use berth_model::discovery::{
    CNAME, CustomHealth, DiscoveryInstance, DiscoveryService, INIT_HEALTH, IPV4, IPV6, MAX_ATTRIBUTES, MAX_ATTRIBUTES_LENGTH,
    MAX_INSTANCES, PORT, RecordType,
};
use berth_model::namespace::{OperationTarget, OperationType, is_dns_name};
use berth_model::record::Key;
use berth_shapes::servicediscovery::{ErrorCode, RegisterInstanceRequest, RegisterInstanceResponse};

use super::failure::{failure, invalid};
use super::{operations, reference};
use crate::context::Api;
use crate::failure::Failure;

/// Attributes that stand for what is not here.
const UNSERVED: [(&str, &str); 2] =
    [("AWS_ALIAS_DNS_NAME", "has no load balancers that an alias could name"), ("AWS_EC2_INSTANCE_ID", "knows no EC2 instances")];

pub(super) async fn run(api: &Api, request: RegisterInstanceRequest) -> Result<RegisterInstanceResponse, Failure> {
    let id = request.instance_id.unwrap_or_default();
    let attributes = request.attributes.unwrap_or_default();
    let operation = operations::draw(api);
    api.change(|state, transaction| {
        let service = reference::service(api, state, request.service_id.as_deref())?;
        let health = check(service, &id, &attributes)?;
        let creator = request.creator_request_id.as_deref();
        let same_request =
            |other: &&berth_store::Entry<DiscoveryInstance>| creator.is_some() && other.creator_request_id.as_deref() == creator;
        let known = state.discovery_instance(&service.id, &id);
        if let Some(other) = state.discovery_instances_of(&service.id).find(same_request) {
            let first = other.operation.as_ref().map(ToString::to_string).unwrap_or_default();
            if other.id != id {
                let text = "The CreatorRequestId was used for another instance of the service.";
                return Err(failure(ErrorCode::DuplicateRequest, text).with("DuplicateOperationId", first.into()));
            }
            if other.attributes == attributes {
                transaction.expect(Key::DiscoveryInstance(service.id.clone(), id.clone()), other.modified);
                return Ok(RegisterInstanceResponse { operation_id: Some(first) });
            }
        }
        if known.is_none() && state.discovery_instances_of(&service.id).count() >= MAX_INSTANCES {
            let text = format!("The service {} has {MAX_INSTANCES} instances, the most it can have.", service.id);
            return Err(failure(ErrorCode::ResourceLimitExceeded, text));
        }
        let key = Key::DiscoveryInstance(service.id.clone(), id.clone());
        match known {
            Some(known) => transaction.expect(key, known.modified),
            None => transaction.expect_absent(key),
        };
        // A deletion of the service at this moment sees the instance, or this sees the deletion; and its instances have a new revision.
        let holder = Key::DiscoveryService(service.id.clone());
        transaction.expect(holder.clone(), service.modified).touch(holder);
        transaction.put(DiscoveryInstance {
            id: id.clone(),
            service: service.id.clone(),
            attributes: attributes.clone(),
            health,
            owner: known.and_then(|known| known.owner.clone()),
            creator_request_id: request.creator_request_id.clone(),
            operation: Some(operation.clone()),
            created_at: known.map_or(api.now(), |known| known.created_at),
        });
        let targets = [(OperationTarget::Instance, id.as_str()), (OperationTarget::Service, service.id.as_str())];
        operations::note(api, transaction, &operation, OperationType::RegisterInstance, &targets);
        Ok(RegisterInstanceResponse { operation_id: Some(operation.to_string()) })
    })
    .await
}

/// Checks an instance against its service; gives the health that it begins with.
fn check(service: &DiscoveryService, id: &str, attributes: &BTreeMap<String, String>) -> Result<Option<CustomHealth>, Failure> {
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(invalid(format!("An instance can have at most {MAX_ATTRIBUTES} attributes: Attributes")));
    }
    let length: usize = attributes.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
    if length > MAX_ATTRIBUTES_LENGTH {
        return Err(invalid(format!("All attributes together can have at most {MAX_ATTRIBUTES_LENGTH} characters: Attributes")));
    }
    if let Some((name, why)) = UNSERVED.iter().find(|(name, _)| attributes.contains_key(*name)) {
        return Err(invalid(format!("Berth {why}: {name}")));
    }
    let get = |name: &str| attributes.get(name).map(String::as_str);
    let (ipv4, ipv6, port, cname) = (get(IPV4), get(IPV6), get(PORT), get(CNAME));
    if ipv4.is_some_and(|text| text.parse::<Ipv4Addr>().is_err()) {
        return Err(invalid(format!("A valid IPv4 address must be supplied: {IPV4}")));
    }
    if ipv6.is_some_and(|text| text.parse::<Ipv6Addr>().is_err()) {
        return Err(invalid(format!("A valid IPv6 address must be supplied: {IPV6}")));
    }
    if port.is_some_and(|text| !text.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(invalid(format!("A valid port number must be supplied: {PORT}")));
    }
    let dns = service.dns.as_ref();
    let has = |kind| dns.is_some_and(|dns| dns.has(kind));
    if has(RecordType::A) && ipv4.is_none() {
        return Err(invalid(format!("A valid IPv4 address must be supplied for a service with A records: {IPV4}")));
    }
    if has(RecordType::Aaaa) && ipv6.is_none() {
        return Err(invalid(format!("A valid IPv6 address must be supplied for a service with AAAA records: {IPV6}")));
    }
    if has(RecordType::Srv) {
        if port.is_none() {
            return Err(invalid(format!("A valid port number must be supplied for a service with SRV records: {PORT}")));
        }
        if ipv4.is_none() && ipv6.is_none() {
            return Err(invalid(format!("An address must be supplied for a service with SRV records: {IPV4} or {IPV6}")));
        }
        if !is_dns_name(id) {
            return Err(invalid("The id of an instance of a service with SRV records is part of a domain name: InstanceId"));
        }
    }
    if has(RecordType::Cname) && !cname.is_some_and(is_dns_name) {
        return Err(invalid(format!("A valid domain name must be supplied for a service with CNAME records: {CNAME}")));
    }
    match get(INIT_HEALTH) {
        None => Ok(service.has_custom_health.then_some(CustomHealth::Healthy)),
        Some(_) if !service.has_custom_health => {
            Err(invalid(format!("{INIT_HEALTH} can only be specified for a service with HealthCheckCustomConfig.")))
        }
        Some(text) => {
            let health = CustomHealth::parse(text);
            health.map(Some).ok_or_else(|| invalid(format!("{INIT_HEALTH} must be HEALTHY or UNHEALTHY.")))
        }
    }
}
