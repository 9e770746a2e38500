//! `ListGatewayClusterAssociations`: by gateway, then by cluster. A filter that names nothing known finds nothing.

use berth_shapes::ecs::{GatewayClusterAssociationSummary, ListGatewayClusterAssociationsRequest, ListGatewayClusterAssociationsResponse};

use super::gateways;
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

const ACTION: &str = "ListGatewayClusterAssociations";

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(
    api: &Api,
    request: ListGatewayClusterAssociationsRequest,
) -> Result<ListGatewayClusterAssociationsResponse, Failure> {
    let page = Page::parse(ACTION, request.next_token.as_deref(), request.max_results, 100)?;
    let gateway = request.gateway.as_deref().map(|text| gateways::name(api, Some(text))).transpose()?;
    let cluster = request.cluster.as_deref().map(|text| gateways::cluster_name(api, Some(text))).transpose()?;
    let statuses = request.status.unwrap_or_default();
    let state = api.store.state();
    let mut found: Vec<_> = state
        .clusters()
        .filter(|holder| cluster.as_ref().is_none_or(|cluster| holder.name == *cluster))
        .flat_map(|holder| holder.gateways.iter().map(move |association| (association, &holder.name)))
        .filter(|(association, _)| gateway.as_ref().is_none_or(|gateway| association.gateway == *gateway))
        .filter(|(association, _)| statuses.is_empty() || statuses.iter().any(|s| s.as_str() == association.status.as_str()))
        .map(|(association, cluster)| (format!("{}/{cluster}", association.gateway), association, cluster))
        .collect();
    found.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
    let (found, next_token) = page.take(ACTION, found.into_iter(), |(key, ..)| key.clone(), false);
    let associations = found.into_iter().map(|(_, association, cluster)| GatewayClusterAssociationSummary {
        gateway_arn: Some(api.scope().gateway(&association.gateway)),
        cluster_arn: Some(api.scope().cluster(cluster)),
        status: Some(association.status.as_str().into()),
    });
    Ok(ListGatewayClusterAssociationsResponse { gateway_cluster_associations: Some(associations.collect()), next_token })
}
