//! `DeregisterInstance`, `GetInstance`, `ListInstances`, `GetInstancesHealthStatus`, `UpdateInstanceCustomHealthStatus`.

use berth_model::discovery::{CustomHealth, DiscoveryInstance, DiscoveryService};
use berth_model::namespace::{OperationTarget, OperationType};
use berth_model::record::Key;
use berth_shapes::servicediscovery::{
    DeregisterInstanceRequest, DeregisterInstanceResponse, ErrorCode, GetInstanceRequest, GetInstanceResponse,
    GetInstancesHealthStatusRequest, GetInstancesHealthStatusResponse, ListInstancesRequest, ListInstancesResponse,
    UpdateInstanceCustomHealthStatusRequest, UpdateInstanceCustomHealthStatusResponse,
};
use berth_store::{Entry, State};

use super::failure::{failure, invalid};
use super::reference::clip;
use super::{operations, reference, render};
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

/// An instance that must be there.
fn find<'a>(state: &'a State, service: &DiscoveryService, id: Option<&str>) -> Result<&'a Entry<DiscoveryInstance>, Failure> {
    let id = id.unwrap_or_default();
    let text = || format!("Failed to find instance {} in service {}", clip(id), service.id);
    state.discovery_instance(&service.id, id).ok_or_else(|| failure(ErrorCode::InstanceNotFound, text()))
}

pub(super) async fn deregister(api: &Api, request: DeregisterInstanceRequest) -> Result<DeregisterInstanceResponse, Failure> {
    let operation = operations::draw(api);
    api.change(|state, transaction| {
        let service = reference::service(api, state, request.service_id.as_deref())?;
        let known = find(state, service, request.instance_id.as_deref())?;
        let key = Key::DiscoveryInstance(service.id.clone(), known.id.clone());
        transaction.expect(key.clone(), known.modified).delete(key);
        transaction.touch(Key::DiscoveryService(service.id.clone()));
        let targets = [(OperationTarget::Instance, known.id.as_str()), (OperationTarget::Service, service.id.as_str())];
        operations::note(api, transaction, &operation, OperationType::DeregisterInstance, &targets);
        Ok(DeregisterInstanceResponse { operation_id: Some(operation.to_string()) })
    })
    .await
}

pub(super) async fn get(api: &Api, request: GetInstanceRequest) -> Result<GetInstanceResponse, Failure> {
    let state = api.store.state();
    let service = reference::service(api, &state, request.service_id.as_deref())?;
    let found = find(&state, service, request.instance_id.as_deref())?;
    Ok(GetInstanceResponse { resource_owner: render::account(api), instance: Some(render::instance(api, found)) })
}

pub(super) async fn list(api: &Api, request: ListInstancesRequest) -> Result<ListInstancesResponse, Failure> {
    const ACTION: &str = "ListInstances";
    let page = Page::parse(ACTION, request.next_token.as_deref(), request.max_results, 100)?;
    let state = api.store.state();
    let service = reference::service(api, &state, request.service_id.as_deref())?;
    let (found, next_token) = page.take(ACTION, state.discovery_instances_of(&service.id), |instance| instance.id.clone(), false);
    let instances = found.into_iter().map(|instance| render::instance_summary(api, instance)).collect();
    Ok(ListInstancesResponse { resource_owner: render::account(api), instances: Some(instances), next_token })
}

pub(super) async fn health(api: &Api, request: GetInstancesHealthStatusRequest) -> Result<GetInstancesHealthStatusResponse, Failure> {
    const ACTION: &str = "GetInstancesHealthStatus";
    let page = Page::parse(ACTION, request.next_token.as_deref(), request.max_results, 100)?;
    let state = api.store.state();
    let service = reference::service(api, &state, request.service_id.as_deref())?;
    let wanted = request.instances.unwrap_or_default();
    for id in &wanted {
        find(&state, service, Some(id))?;
    }
    let found = state.discovery_instances_of(&service.id).filter(|instance| wanted.is_empty() || wanted.contains(&instance.id));
    let (found, next_token) = page.take(ACTION, found, |instance| instance.id.clone(), false);
    let status = found.into_iter().map(|instance| (instance.id.clone(), render::health(instance))).collect();
    Ok(GetInstancesHealthStatusResponse { status: Some(status), next_token })
}

/// AWS waits for half a minute before it acts on what is said; here it counts at once.
pub(super) async fn update_custom_health(
    api: &Api,
    request: UpdateInstanceCustomHealthStatusRequest,
) -> Result<UpdateInstanceCustomHealthStatusResponse, Failure> {
    let health = request.status.as_ref().and_then(|status| CustomHealth::parse(status.as_str()));
    let health = health.ok_or_else(|| invalid("Status must be HEALTHY or UNHEALTHY: Status"))?;
    api.change(|state, transaction| {
        let service = reference::service(api, state, request.service_id.as_deref())?;
        let known = find(state, service, request.instance_id.as_deref())?;
        if !service.has_custom_health {
            let text = format!("The service {} has no custom health check.", service.id);
            return Err(failure(ErrorCode::CustomHealthNotFound, text));
        }
        if known.health != Some(health) {
            transaction.expect(Key::DiscoveryInstance(service.id.clone(), known.id.clone()), known.modified);
            transaction.put(DiscoveryInstance { health: Some(health), ..(*known.value).clone() });
        }
        Ok(UpdateInstanceCustomHealthStatusResponse::default())
    })
    .await
}
