//! What the capacity provider actions share: finding a provider, a cluster's list of providers, and who uses one.

use std::collections::BTreeSet;

use berth_model::arn::Scope;
use berth_model::capacity_provider::{self, CapacityProvider, MOST_IN_CLUSTER};
use berth_model::cluster::{Cluster, ClusterStatus};
use berth_model::ids::{CapacityProviderName, ClusterName};
use berth_model::service::ServiceStatus;
use berth_shapes::ecs;
use berth_store::{Entry, State};

use crate::context::{Api, active};
use crate::failure::Failure;

/// The provider to change: somebody made it, it is ACTIVE, and the request names its cluster where it belongs to one. The built-in
/// ones cannot be `changed`, in the word of the action.
pub(crate) fn find<'a>(
    api: &Api,
    state: &'a State,
    text: &str,
    cluster: Option<&str>,
    changed: &str,
) -> Result<&'a Entry<CapacityProvider>, Failure> {
    let name = capacity_provider::parse(api.scope(), text)?;
    if capacity_provider::is_built_in(&name) {
        return Err(Failure::client(format!("The specified capacity provider is reserved and cannot be {changed}: {name}")));
    }
    let cluster = cluster.filter(|cluster| !cluster.is_empty()).map(|cluster| api.cluster_name(Some(cluster))).transpose()?;
    if let Some(cluster) = &cluster {
        active(state, cluster)?;
    }
    let provider = state.capacity_provider(&name).filter(|provider| provider.is_active()).ok_or_else(not_found)?;
    match (provider.cluster(), &cluster) {
        (Some(_), None) => {
            Err(Failure::invalid("A Managed Instances capacity provider belongs to a cluster, which must be named: cluster"))
        }
        (Some(own), Some(named)) if own != named => Err(not_found()),
        (None, Some(_)) => Err(Failure::invalid("An Auto Scaling group capacity provider belongs to no cluster: cluster")),
        _ => Ok(provider),
    }
}

fn not_found() -> Failure {
    Failure::client("The specified capacity provider does not exist. Specify a valid name or ARN and try again.")
}

/// Reads the `capacityProviders` that a cluster is to have, and adds those of Managed Instances that belong to it in any case.
pub(crate) fn association(api: &Api, state: &State, cluster: &ClusterName, named: &[String]) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for text in named {
        let name = capacity_provider::parse(api.scope(), text)?;
        if names.contains(&name) {
            return Err(Failure::invalid(format!("capacityProviders cannot contain a capacity provider more than once: {name}")));
        }
        check_association(state, cluster, &name)?;
        names.push(name);
    }
    let own = state.capacity_providers().filter(|provider| provider.is_active() && provider.cluster() == Some(cluster));
    for provider in own {
        if !names.contains(&provider.name) {
            names.push(provider.name.clone());
        }
    }
    if names.len() > MOST_IN_CLUSTER {
        return Err(Failure::invalid(format!("A cluster can have at most {MOST_IN_CLUSTER} capacity providers: capacityProviders")));
    }
    Ok(names.iter().map(ToString::to_string).collect())
}

fn check_association(state: &State, cluster: &ClusterName, name: &CapacityProviderName) -> Result<(), Failure> {
    if capacity_provider::is_built_in(name) {
        return Ok(());
    }
    let provider = state.capacity_provider(name).filter(|provider| provider.is_active());
    let Some(provider) = provider.filter(|provider| provider.cluster().is_none_or(|own| own == cluster)) else {
        return Err(Failure::invalid(format!(
            "The specified capacity provider was not found. Specify a valid capacity provider and try again: {name}"
        )));
    };
    if provider.has_managed_scaling()
        && let Some(other) = clusters_of(state, name).find(|other| other.name != *cluster)
    {
        return Err(Failure::invalid(format!(
            "A capacity provider with managed scaling can be associated with one cluster only; {name} is associated with {}: \
             capacityProviders",
            other.name
        )));
    }
    Ok(())
}

/// The ACTIVE clusters that a provider is associated with.
pub(crate) fn clusters_of<'a>(state: &'a State, name: &CapacityProviderName) -> impl Iterator<Item = &'a Entry<Cluster>> {
    let name = name.clone();
    state
        .clusters()
        .filter(move |cluster| cluster.status == ClusterStatus::Active && cluster.capacity_providers.iter().any(|own| own == name.as_str()))
}

/// Names of the providers that services and tasks of a cluster use.
pub(crate) fn used_in<'a>(state: &'a State, cluster: &ClusterName) -> BTreeSet<&'a str> {
    let services = state.services_of(cluster).filter(|service| service.status == ServiceStatus::Active);
    let items = services.flat_map(|service| {
        let of_deployments = service.value.deployments.iter().flat_map(|deployment| &deployment.capacity_provider_strategy);
        of_deployments.chain(service.value.task_sets.iter().flat_map(|set| &set.capacity_provider_strategy))
    });
    let tasks = state.index(cluster).into_iter().flat_map(|index| index.desired_running.iter().chain(&index.desired_stopped));
    let tasks = tasks.filter_map(|id| state.task(*id)).filter(|task| !task.is_stopped());
    let of_tasks = tasks.filter_map(|task| task.value.capacity_provider.as_ref());
    items.map(|item| item.provider.as_str()).chain(of_tasks.map(CapacityProviderName::as_str)).collect()
}

/// A cluster's `attachments`: what belongs to its capacity providers. With managed scaling that is a scaling policy, which stays
/// PRECREATED: there is no Auto Scaling group that it could be made for.
pub(crate) fn attachments(state: &State, scope: &Scope, cluster: &Cluster) -> Vec<ecs::Attachment> {
    let names = cluster.capacity_providers.iter().filter_map(|name| CapacityProviderName::parse(name));
    let scaled = names.filter(|name| state.capacity_provider(name).is_some_and(|provider| provider.has_managed_scaling()));
    let attachment = |name: CapacityProviderName| ecs::Attachment {
        id: Some(berth_model::ids::uuid(fnv(&format!("{}\0{name}", scope.cluster(&cluster.name))))),
        r#type: Some("as_policy".to_owned()),
        status: Some("PRECREATED".to_owned()),
        details: Some(vec![ecs::KeyValuePair { name: Some("capacityProviderName".to_owned()), value: Some(name.to_string()) }]),
    };
    scaled.map(attachment).collect()
}

/// FNV-1a with 128 bits: the same provider in the same cluster is always the same attachment.
fn fnv(text: &str) -> u128 {
    let step = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, step)
}
