//! `DiscoverPollEndpoint`: where agents connect. One port serves ACS and TCS.

use berth_shapes::ecs::{DiscoverPollEndpointRequest, DiscoverPollEndpointResponse};

use crate::context::Api;
use crate::failure::Failure;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, _request: DiscoverPollEndpointRequest) -> Result<DiscoverPollEndpointResponse, Failure> {
    let endpoint = Some(api.config.endpoint.clone());
    Ok(DiscoverPollEndpointResponse { telemetry_endpoint: endpoint.clone(), endpoint, ..Default::default() })
}
