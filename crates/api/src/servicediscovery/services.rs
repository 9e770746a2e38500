//! `GetService`, `ListServices`, `DeleteService` of Cloud Map.

use berth_model::discovery::DiscoveryService;
use berth_model::record::Key;
use berth_shapes::servicediscovery::{
    DeleteServiceRequest, DeleteServiceResponse, ErrorCode, GetServiceRequest, GetServiceResponse, ListServicesRequest,
    ListServicesResponse,
};

use super::failure::failure;
use super::namespaces::OWN;
use super::{filter, reference, render};
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

pub(super) async fn get(api: &Api, request: GetServiceRequest) -> Result<GetServiceResponse, Failure> {
    let state = api.store.state();
    let found = reference::service(api, &state, request.id.as_deref())?;
    Ok(GetServiceResponse { service: Some(render::service(api, &state, found)) })
}

pub(super) async fn list(api: &Api, request: ListServicesRequest) -> Result<ListServicesResponse, Failure> {
    const ACTION: &str = "ListServices";
    let page = Page::parse(ACTION, request.next_token.as_deref(), request.max_results, 100)?;
    let filters = filter::of_services(request.filters.as_deref())?;
    let is_wanted = |service: &DiscoveryService| {
        filters.iter().all(|filter| filter.takes(if filter.name == "NAMESPACE_ID" { service.namespace.as_str() } else { OWN }))
    };
    let state = api.store.state();
    let found = state.discovery_services().filter(|service| is_wanted(service));
    let (found, next_token) = page.take(ACTION, found, |service| service.id.to_string(), false);
    let services = found.into_iter().map(|service| render::service_summary(api, &state, service)).collect();
    Ok(ListServicesResponse { services: Some(services), next_token })
}

pub(super) async fn delete(api: &Api, request: DeleteServiceRequest) -> Result<DeleteServiceResponse, Failure> {
    api.change(|state, transaction| {
        let known = reference::service(api, state, request.id.as_deref())?;
        if state.discovery_instances_of(&known.id).next().is_some() {
            let text = "Service contains registered instances; delete the instances before deleting the service";
            return Err(failure(ErrorCode::ResourceInUse, text));
        }
        // An instance that is registered at this moment touches the service, so one of the two is too late.
        let key = Key::DiscoveryService(known.id.clone());
        transaction.expect(key.clone(), known.modified).delete(key);
        Ok(DeleteServiceResponse::default())
    })
    .await
}
