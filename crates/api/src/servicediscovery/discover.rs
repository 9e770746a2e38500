//! `DiscoverInstances` and `DiscoverInstancesRevision`: who is found under a name.
//!
//! <https://docs.aws.amazon.com/cloud-map/latest/api/API_DiscoverInstances.html>

use std::collections::BTreeMap;

use berth_model::discovery::{DiscoveryInstance, DiscoveryService};
use berth_model::namespace::Namespace;
use berth_scheduler::discovery::is_ending;
use berth_shapes::servicediscovery::{
    DiscoverInstancesRequest, DiscoverInstancesResponse, DiscoverInstancesRevisionRequest, DiscoverInstancesRevisionResponse, ErrorCode,
    HttpInstanceSummary,
};
use berth_store::{Entry, State};

use super::failure::failure;
use super::reference::clip;
use super::render;
use crate::context::Api;
use crate::failure::Failure;

/// How many instances an answer has where nobody says.
const DEFAULT: usize = 100;

type Found<'a> = (&'a Entry<Namespace>, &'a Entry<DiscoveryService>);

fn find<'a>(api: &Api, state: &'a State, owner: Option<&str>, namespace: &str, service: &str) -> Result<Found<'a>, Failure> {
    let is_ours = owner.is_none_or(|account| *account == *api.scope().account);
    let found = state.namespaces().find(|known| is_ours && known.name == namespace);
    let found = found.ok_or_else(|| failure(ErrorCode::NamespaceNotFound, format!("Failed to find namespace {}", clip(namespace))))?;
    let named = state.discovery_services_of(&found.id).find(|known| known.name == service);
    let text = || format!("Failed to find service {} in namespace {}", clip(service), clip(namespace));
    named.map(|service| (found, service)).ok_or_else(|| failure(ErrorCode::ServiceNotFound, text()))
}

/// The number of the last change of a service's instances: the commit that touched the service last.
fn number(service: &Entry<DiscoveryService>) -> Option<i64> {
    i64::try_from(service.modified.0).ok()
}

pub(super) async fn instances(api: &Api, request: DiscoverInstancesRequest) -> Result<DiscoverInstancesResponse, Failure> {
    let (namespace, service) = (request.namespace_name.unwrap_or_default(), request.service_name.unwrap_or_default());
    let most = request.max_results.and_then(|most| usize::try_from(most).ok()).unwrap_or(DEFAULT);
    let health = request.health_status.as_ref().map_or("HEALTHY", |health| health.as_str());
    let state = api.store.state();
    let (namespace, service) = find(api, &state, request.owner_account.as_deref(), &namespace, &service)?;
    let task = |instance: &DiscoveryInstance| instance.owner.as_ref().and_then(|owner| state.task(owner.task)).map(|task| &*task.value);
    let registered = state.discovery_instances_of(&service.id).map(|entry| &*entry.value);
    let there = registered.filter(|instance| !is_ending(instance, task(instance)));
    let (required, optional) = (request.query_parameters.unwrap_or_default(), request.optional_parameters.unwrap_or_default());
    let chosen = chosen(there.collect(), service.has_custom_health.then_some(health), &required, &optional);
    let summary = |instance: &&DiscoveryInstance| HttpInstanceSummary {
        instance_id: Some(instance.id.clone()),
        namespace_name: Some(namespace.name.clone()),
        service_name: Some(service.name.clone()),
        health_status: Some(render::health(instance)),
        attributes: Some(instance.attributes.clone()),
    };
    let instances = chosen.iter().take(most).map(summary).collect();
    Ok(DiscoverInstancesResponse { instances: Some(instances), instances_revision: number(service) })
}

pub(super) async fn revision(api: &Api, request: DiscoverInstancesRevisionRequest) -> Result<DiscoverInstancesRevisionResponse, Failure> {
    let (namespace, service) = (request.namespace_name.unwrap_or_default(), request.service_name.unwrap_or_default());
    let state = api.store.state();
    let (_, service) = find(api, &state, request.owner_account.as_deref(), &namespace, &service)?;
    Ok(DiscoverInstancesRevisionResponse { instances_revision: number(service) })
}

/// Those that are wanted: `required` all hold, `optional` too if they hold for any; `health` is the filter, none where no health is known,
/// which leaves the filter without effect.
fn chosen<'a>(
    instances: Vec<&'a DiscoveryInstance>,
    health: Option<&str>,
    required: &BTreeMap<String, String>,
    optional: &BTreeMap<String, String>,
) -> Vec<&'a DiscoveryInstance> {
    let holds = |instance: &DiscoveryInstance, wanted: &BTreeMap<String, String>| {
        wanted.iter().all(|(name, value)| instance.attributes.get(name) == Some(value))
    };
    let mut found: Vec<_> = instances.into_iter().filter(|instance| holds(instance, required)).collect();
    if found.iter().any(|instance| holds(instance, optional)) {
        found.retain(|instance| holds(instance, optional));
    }
    let is_any_healthy = found.iter().any(|instance| instance.is_healthy());
    match health {
        Some("HEALTHY") => found.retain(|instance| instance.is_healthy()),
        Some("UNHEALTHY") => found.retain(|instance| !instance.is_healthy()),
        Some("HEALTHY_OR_ELSE_ALL") if is_any_healthy => found.retain(|instance| instance.is_healthy()),
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use berth_model::discovery::{CustomHealth, DiscoveryServiceId};
    use berth_model::time::UnixMillis;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn instance(id: &str, health: CustomHealth, attributes: &[(&str, &str)]) -> DiscoveryInstance {
        DiscoveryInstance {
            id: id.to_owned(),
            service: DiscoveryServiceId::from_bits(1),
            attributes: map(attributes),
            health: Some(health),
            owner: None,
            creator_request_id: None,
            operation: None,
            created_at: UnixMillis(0),
        }
    }

    #[test]
    fn parameters_and_health_choose() {
        let well = instance("1", CustomHealth::Healthy, &[("v", "1"), ("az", "a")]);
        let ill = instance("2", CustomHealth::Unhealthy, &[("v", "1"), ("az", "b")]);
        let old = instance("3", CustomHealth::Unhealthy, &[("v", "0")]);
        let all = || vec![&well, &ill, &old];
        let ids = |health, required: &[(&str, &str)], optional: &[(&str, &str)]| -> String {
            chosen(all(), health, &map(required), &map(optional)).iter().map(|instance| instance.id.as_str()).collect()
        };
        assert_eq!(ids(Some("ALL"), &[], &[]), "123");
        assert_eq!(ids(Some("HEALTHY"), &[], &[]), "1");
        assert_eq!(ids(Some("UNHEALTHY"), &[("v", "1")], &[]), "2");
        assert_eq!(ids(Some("HEALTHY_OR_ELSE_ALL"), &[], &[]), "1");
        assert_eq!(ids(Some("HEALTHY_OR_ELSE_ALL"), &[("v", "0")], &[]), "3");
        assert_eq!(ids(None, &[("v", "1")], &[]), "12");
        assert_eq!(ids(None, &[], &[("az", "b")]), "2");
        assert_eq!(ids(None, &[], &[("az", "c")]), "123", "what nobody fulfils is not asked for");
    }
}
