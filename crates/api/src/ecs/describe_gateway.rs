//! `DescribeGateway`.

use berth_shapes::ecs::{DescribeGatewayRequest, DescribeGatewayResponse};

use super::gateways;
use crate::context::Api;
use crate::failure::Failure;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: DescribeGatewayRequest) -> Result<DescribeGatewayResponse, Failure> {
    let name = gateways::name(api, request.gateway.as_deref())?;
    let state = api.store.state();
    let gateway = gateways::find(&state, &name)?;
    Ok(DescribeGatewayResponse { gateway: Some(gateways::render(api.scope(), gateway)) })
}
