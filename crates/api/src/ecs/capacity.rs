//! Capacity provider strategies of requests: reading and checking them, and what a task or service gets that names none.

use std::collections::BTreeSet;

use berth_model::capacity_provider::{self, CapacityKind, MOST_IN_CLUSTER, StrategyItem};
use berth_model::cluster::Cluster;
use berth_model::ids::CapacityProviderName;
use berth_model::task::LaunchType;
use berth_shapes::ecs;
use berth_store::State;

use super::run_task::parse_launch_type;
use crate::context::Api;
use crate::failure::Failure;

/// Reads a strategy: what can be said of it without looking at anything else. Weights and bases are within their ranges already.
pub(crate) fn parse(api: &Api, items: &[ecs::CapacityProviderStrategyItem]) -> Result<Vec<StrategyItem>, Failure> {
    if items.len() > MOST_IN_CLUSTER {
        return Err(Failure::invalid(format!(
            "A capacity provider strategy can contain a maximum of {MOST_IN_CLUSTER} capacity providers."
        )));
    }
    let mut names = BTreeSet::new();
    let mut parsed = Vec::new();
    for item in items {
        let provider = capacity_provider::parse(api.scope(), item.capacity_provider.as_deref().unwrap_or_default())?;
        if !names.insert(provider.clone()) {
            return Err(Failure::invalid(format!(
                "A capacity provider strategy cannot contain a capacity provider more than once: {provider}"
            )));
        }
        let number = |value: Option<i32>| value.unwrap_or(0).unsigned_abs();
        parsed.push(StrategyItem { provider, weight: number(item.weight), base: number(item.base) });
    }
    if parsed.iter().filter(|item| item.base > 0).count() > 1 {
        return Err(Failure::invalid("Only one capacity provider in a capacity provider strategy can have a base greater than 0."));
    }
    Ok(parsed)
}

/// Every item's provider is one of those that the cluster has or is to have, and all are of one kind.
pub(crate) fn check(state: &State, associated: &[String], items: &[StrategyItem]) -> Result<(), Failure> {
    if items.iter().any(|item| !associated.iter().any(|own| own == item.provider.as_str())) {
        return Err(Failure::invalid(
            "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster. \
             Associate the capacity provider with the cluster and try again.",
        ));
    }
    let mut kinds = items.iter().filter_map(|item| kind(state, &item.provider));
    let first = kinds.next();
    if kinds.any(|kind| Some(kind) != first) {
        return Err(Failure::invalid(
            "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups, Managed Instances and \
             Fargate providers. Specify one or the other and try again.",
        ));
    }
    Ok(())
}

/// Where a provider's capacity comes from; `None` if there is no such ACTIVE one.
pub(crate) fn kind(state: &State, name: &CapacityProviderName) -> Option<CapacityKind> {
    if capacity_provider::is_built_in(name) {
        return Some(CapacityKind::Fargate);
    }
    state.capacity_provider(name).filter(|provider| provider.is_active()).map(|provider| provider.kind())
}

/// The launch type and the strategy of new tasks or of a service: a request names one or the other; without either the cluster's
/// default strategy counts, and without that launch type EC2. With a strategy the launch type is that of its providers.
pub(crate) fn chosen(
    api: &Api,
    state: &State,
    cluster: &Cluster,
    launch_type: Option<&ecs::LaunchType>,
    given: Option<&[ecs::CapacityProviderStrategyItem]>,
) -> Result<(LaunchType, Vec<StrategyItem>), Failure> {
    let given = given.unwrap_or_default();
    if launch_type.is_some() {
        if !given.is_empty() {
            return Err(Failure::invalid(
                "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
            ));
        }
        return Ok((parse_launch_type(launch_type)?, Vec::new()));
    }
    let items = if given.is_empty() { &cluster.default_capacity_provider_strategy[..] } else { given };
    let strategy = parse(api, items)?;
    check(state, &cluster.capacity_providers, &strategy)?;
    if strategy.len() > 1 && strategy.iter().all(|item| item.weight == 0) {
        return Err(Failure::invalid("At least one capacity provider in a capacity provider strategy must have a weight greater than 0."));
    }
    Ok((launch_type_of(&strategy), strategy))
}

/// The launch type of tasks of a strategy, whose providers are all of one kind.
pub(crate) fn launch_type_of(strategy: &[StrategyItem]) -> LaunchType {
    let is_fargate = strategy.iter().any(|item| capacity_provider::is_built_in(&item.provider));
    if is_fargate { LaunchType::Fargate } else { LaunchType::Ec2 }
}

/// A strategy as answers show it.
pub(crate) fn render(strategy: &[StrategyItem]) -> Vec<ecs::CapacityProviderStrategyItem> {
    strategy.iter().map(StrategyItem::render).collect()
}
