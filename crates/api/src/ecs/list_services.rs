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
    let is_asked_for = |manager: &str| request.resource_management_type.as_ref().is_none_or(|asked| asked.as_str() == manager);
    let scheduling = request.scheduling_strategy.as_ref().map(|strategy| strategy.as_str());
    let services = state
        .services_of(&cluster)
        .filter(|service| is_asked_for("CUSTOMER") && service.status == ServiceStatus::Active)
        .filter(|service| launch_type.is_none_or(|launch_type| service.launch_type.as_str() == launch_type))
        .filter(|service| scheduling.is_none_or(|strategy| service.scheduling_strategy.as_str() == strategy))
        .map(|service| service.name.clone());
    let express = state
        .express_services_of(&cluster)
        .filter(|service| is_asked_for("ECS") && service.status == ServiceStatus::Active)
        .filter(|_| launch_type.is_none_or(|launch_type| launch_type == "FARGATE"))
        .filter(|_| scheduling.is_none_or(|strategy| strategy == "REPLICA"))
        .map(|service| service.name.clone());
    // Both kinds come by name, and no name is in both.
    let (mut services, mut express) = (services.peekable(), express.peekable());
    let names = std::iter::from_fn(|| match (services.peek(), express.peek()) {
        (Some(one), Some(other)) if other < one => express.next(),
        (Some(_), _) => services.next(),
        (None, _) => express.next(),
    });
    let (names, next_token) = page.take("ListServices", names, ToString::to_string, false);
    Ok(ListServicesResponse { service_arns: Some(names.iter().map(|name| api.scope().service(&cluster, name)).collect()), next_token })
}
