//! `ListServices`: ARNs of ACTIVE services by name; ten a page unless told otherwise.

use berth_model::service::ServiceStatus;
use berth_shapes::ecs::{ListServicesRequest, ListServicesResponse};

use crate::context::{Api, active};
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListServicesRequest) -> Result<ListServicesResponse, Failure> {
    let cluster = api.cluster_name(request.cluster.as_deref())?;
    let page = Page::parse("ListServices", request.next_token.as_deref(), request.max_results, 10)?;
    let state = api.store.state();
    active(&state, &cluster)?;
    let launch_type = request.launch_type.as_ref().map(|launch_type| launch_type.as_str());
    // Every service is a REPLICA one that its user manages.
    let none = request.scheduling_strategy.as_ref().is_some_and(|strategy| strategy.as_str() != "REPLICA")
        || request.resource_management_type.as_ref().is_some_and(|kind| kind.as_str() != "CUSTOMER");
    let names = state
        .services_of(&cluster)
        .filter(|service| !none && service.status == ServiceStatus::Active)
        .filter(|service| launch_type.is_none_or(|launch_type| service.launch_type.as_str() == launch_type))
        .map(|service| service.name.clone());
    let (names, next_token) = page.take("ListServices", names, ToString::to_string, false);
    Ok(ListServicesResponse { service_arns: Some(names.iter().map(|name| api.scope().service(&cluster, name)).collect()), next_token })
}
