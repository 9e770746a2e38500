//! `ListDaemons`: a cluster's daemons by name; `capacityProviderArns` keeps those that have one of them.

use berth_model::{capacity_provider, daemon};
use berth_shapes::ecs::{DaemonSummary, ListDaemonsRequest, ListDaemonsResponse};

use crate::context::{Api, active};
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListDaemonsRequest) -> Result<ListDaemonsResponse, Failure> {
    let cluster = api.cluster_name(request.cluster_arn.as_deref())?;
    let page = Page::parse("ListDaemons", request.next_token.as_deref(), request.max_results, 100)?;
    let named = request.capacity_provider_arns.unwrap_or_default();
    let wanted = named.iter().map(|text| capacity_provider::parse(api.scope(), text)).collect::<Result<Vec<_>, _>>()?;
    let state = api.store.state();
    active(&state, &cluster)?;
    let daemons = state.daemons_of(&cluster).filter(|daemon| daemon.is_active()).filter(|daemon| {
        let own = daemon.current().map(|revision| &revision.capacity_providers[..]).unwrap_or_default();
        wanted.is_empty() || wanted.iter().any(|name| own.contains(name))
    });
    let (daemons, next_token) = page.take("ListDaemons", daemons, |daemon| daemon.name.to_string(), false);
    let summaries = daemons.iter().map(|daemon| DaemonSummary {
        daemon_arn: Some(daemon::arn(api.scope(), &daemon.cluster, &daemon.name)),
        status: Some("ACTIVE".into()),
        created_at: Some(daemon.created_at.to_wire()),
        updated_at: Some(daemon.updated_at.to_wire()),
    });
    Ok(ListDaemonsResponse { daemon_summaries_list: Some(summaries.collect()), next_token })
}
