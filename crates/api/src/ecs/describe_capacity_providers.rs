//! `DescribeCapacityProviders`: those named, or all that are there; FARGATE and FARGATE_SPOT are always. Unknown ones become `failures[]`.

use berth_model::capacity_provider::{self, BUILT_IN};
use berth_model::ids::CapacityProviderName;
use berth_shapes::ecs::{DescribeCapacityProvidersRequest, DescribeCapacityProvidersResponse};

use super::render;
use crate::context::{Api, active};
use crate::failure::Failure;
use crate::page::Page;

const ACTION: &str = "DescribeCapacityProviders";
/// Most providers that one request names.
const MOST: usize = 100;
/// Most providers of a page, and how many it has by default.
const PAGE: i32 = 10;

pub(crate) async fn run(api: &Api, request: DescribeCapacityProvidersRequest) -> Result<DescribeCapacityProvidersResponse, Failure> {
    if let Some(max) = request.max_results.filter(|max| !(1..=PAGE).contains(max)) {
        return Err(Failure::invalid(format!("Invalid maxResults: {max}. maxResults must be between 1 and {PAGE}.")));
    }
    let page = Page::parse(ACTION, request.next_token.as_deref(), Some(request.max_results.unwrap_or(PAGE)), MOST)?;
    let named = request.capacity_providers.unwrap_or_default();
    if named.len() > MOST {
        return Err(Failure::invalid(format!("capacityProviders can have at most {MOST} items.")));
    }
    let mut names = Vec::new();
    for text in &named {
        let name = capacity_provider::parse(api.scope(), text)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let state = api.store.state();
    let cluster = match request.cluster.as_deref().filter(|cluster| !cluster.is_empty()) {
        Some(cluster) => Some(active(&state, &api.cluster_name(Some(cluster))?)?),
        None => None,
    };
    let in_cluster = |name: &CapacityProviderName| cluster.is_none_or(|c| c.capacity_providers.iter().any(|own| own == name.as_str()));
    if named.is_empty() {
        let built_in = BUILT_IN.iter().filter_map(|name| CapacityProviderName::parse(name));
        let made = state.capacity_providers().filter(|provider| provider.is_active()).map(|provider| provider.name.clone());
        names = built_in.chain(made).filter(|name| in_cluster(name)).collect();
        names.sort();
    }
    // Those named come in the request's order, which the caller repeats with every page; all others in the order of names.
    let items: Vec<(String, &CapacityProviderName)> =
        names.iter().enumerate().map(|(at, name)| (if named.is_empty() { name.to_string() } else { format!("{at:03}") }, name)).collect();
    let (items, next_token) = page.take(ACTION, items.into_iter(), |(key, _)| key.clone(), false);
    let with_tags = request.include.iter().flatten().any(|part| part.as_str() == "TAGS");
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (_, name) in items {
        let shown = match state.capacity_provider(name) {
            _ if !in_cluster(name) => None,
            _ if capacity_provider::is_built_in(name) => Some(capacity_provider::render_built_in(api.scope(), name)),
            known => known.map(|provider| provider.render(api.scope(), with_tags)),
        };
        match shown {
            Some(shown) => found.push(shown),
            None => failures.push(render::missing(capacity_provider::arn(api.scope(), name))),
        }
    }
    Ok(DescribeCapacityProvidersResponse { capacity_providers: Some(found), failures: Some(failures), next_token })
}
