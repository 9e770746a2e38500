//! `ListGatewayRoutes`: a route stands for a service whose connector uses the gateway. Connectors are refused, so there are none; the
//! filters are checked all the same.

use berth_model::arn::parse_service;
use berth_model::ids::ClusterName;
use berth_shapes::ecs::{ListGatewayRoutesRequest, ListGatewayRoutesResponse};

use super::gateways;
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: ListGatewayRoutesRequest) -> Result<ListGatewayRoutesResponse, Failure> {
    Page::parse("ListGatewayRoutes", request.next_token.as_deref(), request.max_results, 100)?;
    let gateway = request.gateway.as_deref().map(|text| gateways::name(api, Some(text))).transpose()?;
    let cluster = request.cluster.as_deref().map(|text| gateways::cluster_name(api, Some(text))).transpose()?;
    if let Some(service) = &request.service {
        // A service's ARN names its cluster itself; a name matches in every cluster.
        let named = api.scope().strip(service).and_then(|rest| rest.split('/').nth(1)).and_then(ClusterName::parse);
        let cluster = cluster.or(named).map_or_else(|| api.cluster_name(None), Ok)?;
        parse_service(api.scope(), &cluster, service)?;
    }
    if request.service_container_port_name.as_ref().is_some_and(String::is_empty) {
        return Err(Failure::invalid("The port's name cannot be empty: serviceContainerPortName"));
    }
    if let Some(gateway) = gateway {
        gateways::find(&api.store.state(), &gateway)?;
    }
    Ok(ListGatewayRoutesResponse { gateway_routes: Some(Vec::new()), next_token: None })
}
