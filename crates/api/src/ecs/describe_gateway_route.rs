//! `DescribeGatewayRoute`: no service has a connector, so no route is ever found.

use berth_shapes::ecs::{DescribeGatewayRouteRequest, DescribeGatewayRouteResponse, ErrorCode};

use crate::context::Api;
use crate::failure::Failure;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: DescribeGatewayRouteRequest) -> Result<DescribeGatewayRouteResponse, Failure> {
    let arn = request.gateway_route_arn.unwrap_or_default();
    let id = api.scope().strip(&arn).and_then(|rest| rest.strip_prefix("gateway-route/"));
    if id.is_none_or(str::is_empty) {
        return Err(Failure::invalid("Invalid arn syntax: gatewayRouteArn"));
    }
    Err(Failure::modelled(ErrorCode::ResourceNotFound, "The specified gateway route was not found: gatewayRouteArn"))
}
