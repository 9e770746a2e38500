//! `ListGateways`: summaries by name.

use berth_model::time::UnixMillis;
use berth_shapes::ecs::{GatewaySummary, ListGatewaysRequest, ListGatewaysResponse};

use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

/// Most names to filter by. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListGateways.html>
const MAX_NAMES: usize = 10;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: ListGatewaysRequest) -> Result<ListGatewaysResponse, Failure> {
    let page = Page::parse("ListGateways", request.next_token.as_deref(), request.max_results, 100)?;
    let names = request.names.unwrap_or_default();
    if names.len() > MAX_NAMES {
        return Err(Failure::invalid(format!("names can have at most {MAX_NAMES} items.")));
    }
    let statuses = request.status.unwrap_or_default();
    let state = api.store.state();
    let found = state
        .gateways()
        .filter(|gateway| names.is_empty() || names.iter().any(|name| name == gateway.name.as_str()))
        .filter(|gateway| statuses.is_empty() || statuses.iter().any(|status| status.as_str() == gateway.status.as_str()));
    let (found, next_token) = page.take("ListGateways", found, |gateway| gateway.name.to_string(), false);
    let gateways = found.into_iter().map(|gateway| GatewaySummary {
        gateway_arn: Some(api.scope().gateway(&gateway.name)),
        name: Some(gateway.name.to_string()),
        status: Some(gateway.status.as_str().into()),
        created_at: Some(UnixMillis::to_wire(gateway.created_at)),
    });
    Ok(ListGatewaysResponse { gateways: Some(gateways.collect()), next_token })
}
