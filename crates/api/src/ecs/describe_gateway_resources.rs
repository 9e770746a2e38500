//! `DescribeGatewayResources`: the load balancers that a gateway has made. Connectors make them, and no service has one yet, so there
//! are none to show.

use berth_shapes::ecs::{
    DescribeGatewayResourcesRequest, DescribeGatewayResourcesResponse, GatewayInfrastructureResources, GatewayResources,
};

use super::gateways;
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

/// Most load balancers of a page, and how many without a wish.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeGatewayResources.html>
const MAX_PAGE: i32 = 20;
const DEFAULT_PAGE: usize = 10;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: DescribeGatewayResourcesRequest) -> Result<DescribeGatewayResourcesResponse, Failure> {
    let name = gateways::name(api, request.gateway.as_deref())?;
    if let Some(max) = request.max_results.filter(|max| *max > MAX_PAGE) {
        return Err(Failure::invalid(format!("Invalid maxResults: {max}. maxResults must be between 1 and {MAX_PAGE}.")));
    }
    Page::parse("DescribeGatewayResources", request.next_token.as_deref(), request.max_results, DEFAULT_PAGE)?;
    let state = api.store.state();
    let gateway = gateways::find(&state, &name)?;
    Ok(DescribeGatewayResourcesResponse {
        gateway_resources: Some(GatewayResources {
            gateway_arn: Some(api.scope().gateway(&gateway.name)),
            resources: Some(GatewayInfrastructureResources { host_shared_alb: Some(Vec::new()) }),
        }),
        next_token: None,
    })
}
