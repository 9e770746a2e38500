//! `DescribeExpressGatewayService`: INACTIVE ones are shown for a while.

use berth_shapes::ecs::{DescribeExpressGatewayServiceRequest, DescribeExpressGatewayServiceResponse, ErrorCode};

use super::express_services;
use crate::context::Api;
use crate::failure::Failure;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(
    api: &Api,
    request: DescribeExpressGatewayServiceRequest,
) -> Result<DescribeExpressGatewayServiceResponse, Failure> {
    let state = api.store.state();
    let (cluster, name) = express_services::parse(api, &state, request.service_arn.as_deref())?;
    let service = state
        .express_service(&cluster, &name)
        .ok_or_else(|| Failure::modelled(ErrorCode::ResourceNotFound, "The specified Express service was not found: serviceArn"))?;
    let with_tags = request.include.iter().flatten().any(|part| part.as_str() == "TAGS");
    Ok(DescribeExpressGatewayServiceResponse { service: Some(express_services::render(api.scope(), service, with_tags)) })
}
