//! `ListServiceDeployments`: a service's deployments, newest first, by status and by when they were made; twenty a page unless told
//! otherwise.

use berth_model::service::ServiceStatus;
use berth_model::service_deployment::ServiceDeployment;
use berth_shapes::ecs::{ListServiceDeploymentsRequest, ListServiceDeploymentsResponse};
use berth_store::Entry;

use super::{service_history, service_settings};
use crate::context::{Api, active};
use crate::failure::Failure;
use crate::page::Page;

const ACTION: &str = "ListServiceDeployments";

pub(crate) async fn run(api: &Api, request: ListServiceDeploymentsRequest) -> Result<ListServiceDeploymentsResponse, Failure> {
    let cluster = api.cluster_name(request.cluster.as_deref())?;
    let page = Page::parse(ACTION, request.next_token.as_deref(), request.max_results, 20)?;
    let state = api.store.state();
    active(&state, &cluster)?;
    let service = service_settings::find(api, &state, &cluster, request.service.as_deref().unwrap_or_default())?;
    let service = service.filter(|service| service.status != ServiceStatus::Inactive).ok_or_else(Failure::service_not_found)?;
    let statuses = request.status.unwrap_or_default();
    let (before, after) = request.created_at.map_or((None, None), |range| (range.before, range.after));
    let mut found: Vec<_> = state
        .service_deployments_of(&cluster, &service.name)
        .filter(|one| statuses.is_empty() || statuses.iter().any(|status| status.as_str() == one.status.as_str()))
        .filter(|one| before.is_none_or(|before| one.created_at.0 < before.as_millis()))
        .filter(|one| after.is_none_or(|after| one.created_at.0 > after.as_millis()))
        .collect();
    let key = |one: &&Entry<ServiceDeployment>| order(one);
    found.sort_by_key(|one| std::cmp::Reverse(key(one)));
    let (found, next_token) = page.take(ACTION, found.into_iter(), key, true);
    let shown = found.iter().map(|one| service_history::render_brief(api.scope(), one)).collect();
    Ok(ListServiceDeploymentsResponse { service_deployments: Some(shown), next_token })
}

/// Sorts as text by the time, then by the id.
fn order(one: &ServiceDeployment) -> String {
    format!("{:020} {}", one.created_at.0.max(0), one.id)
}
