//! `CreateCapacityProvider`: one of an Auto Scaling group, for any cluster, or one of Managed Instances, for one. It is complete at once:
//! there is nothing to make.

use berth_model::capacity_provider::{Capacity, CapacityProvider, CapacityProviderStatus, CapacityProviderUpdateStatus, MOST_IN_CLUSTER};
use berth_model::cluster::Cluster;
use berth_model::ids::CapacityProviderName;
use berth_model::record::Key;
use berth_model::tags::parse_tags;
use berth_shapes::ecs::{CreateCapacityProviderRequest, CreateCapacityProviderResponse, ErrorCode};

use super::{auto_scaling_group, managed_instances};
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

/// Most capacity providers of the account; AWS names no number, but there must be one.
const MOST: usize = 1_000;
/// How names may not begin, in any case.
const RESERVED: [&str; 3] = ["aws", "ecs", "fargate"];

pub(crate) async fn run(api: &Api, request: CreateCapacityProviderRequest) -> Result<CreateCapacityProviderResponse, Failure> {
    let name = parse_name(request.name.as_deref().unwrap_or_default())?;
    let tags = parse_tags(request.tags.as_deref())?;
    let cluster = request.cluster.as_deref().filter(|cluster| !cluster.is_empty());
    let capacity = match (request.auto_scaling_group_provider, request.managed_instances_provider, cluster) {
        (Some(group), None, None) => Capacity::AutoScalingGroup(Box::new(auto_scaling_group::create(group)?)),
        (Some(_), None, Some(_)) => {
            return Err(Failure::invalid("An Auto Scaling group capacity provider belongs to no cluster: cluster"));
        }
        (None, Some(provider), Some(cluster)) => Capacity::ManagedInstances {
            cluster: api.active_cluster(Some(cluster))?,
            provider: Box::new(managed_instances::create(provider)?),
        },
        (None, Some(_), None) => {
            return Err(Failure::invalid("A Managed Instances capacity provider belongs to a cluster, which must be named: cluster"));
        }
        _ => return Err(Failure::invalid("Exactly one of autoScalingGroupProvider and managedInstancesProvider must be specified.")),
    };
    api.change(|state, transaction| {
        let key = Key::CapacityProvider(name.clone());
        match state.capacity_provider(&name) {
            Some(known) if known.is_active() => {
                return Err(Failure::client(
                    "The specified capacity provider already exists. To change the configuration of an existing capacity provider, update \
                     the capacity provider.",
                ));
            }
            Some(inactive) => transaction.expect(key, inactive.modified),
            None => transaction.expect_absent(key),
        };
        let known = || state.capacity_providers().filter(|provider| provider.is_active());
        if known().count() >= MOST {
            let text = format!("An account can have at most {MOST} capacity providers.");
            return Err(Failure::modelled(ErrorCode::LimitExceeded, text));
        }
        match &capacity {
            Capacity::AutoScalingGroup(group) => {
                let is_same = |other: &CapacityProvider| match &other.capacity {
                    Capacity::AutoScalingGroup(other) => other.auto_scaling_group_arn == group.auto_scaling_group_arn,
                    Capacity::ManagedInstances { .. } => false,
                };
                if known().any(|other| is_same(&other.value)) {
                    return Err(Failure::client(
                        "The specified Auto Scaling group ARN is already being used by another capacity provider. Specify a unique Auto \
                         Scaling group ARN and try again.",
                    ));
                }
            }
            Capacity::ManagedInstances { cluster, .. } => {
                let holder = active(state, cluster)?;
                if holder.capacity_providers.len() >= MOST_IN_CLUSTER {
                    let text = format!("A cluster can have at most {MOST_IN_CLUSTER} capacity providers: cluster");
                    return Err(Failure::modelled(ErrorCode::LimitExceeded, text));
                }
                // It belongs to the cluster from the beginning.
                let mut holder_now: Cluster = (*holder.value).clone();
                holder_now.capacity_providers.push(name.to_string());
                expect_cluster(transaction, holder);
                transaction.put(holder_now);
            }
        }
        let provider = CapacityProvider {
            name: name.clone(),
            status: CapacityProviderStatus::Active,
            update_status: CapacityProviderUpdateStatus::Created,
            capacity: capacity.clone(),
            tags: tags.clone(),
            created_at: api.now(),
            deleted_at: None,
        };
        let shown = provider.render(api.scope(), true);
        transaction.put(provider);
        Ok(CreateCapacityProviderResponse { capacity_provider: Some(shown) })
    })
    .await
}

fn parse_name(text: &str) -> Result<CapacityProviderName, Failure> {
    let name = CapacityProviderName::parse(text).ok_or_else(|| {
        Failure::invalid(
            "The specified capacity provider name is not valid. Up to 255 characters are allowed, including letters (upper and lowercase), \
             numbers, underscores, and hyphens: name",
        )
    })?;
    let lower = text.to_ascii_lowercase();
    match RESERVED.iter().find(|prefix| lower.starts_with(**prefix)) {
        Some(prefix) => Err(Failure::invalid(format!("The specified capacity provider name cannot be prefixed with \"{prefix}\": name"))),
        None => Ok(name),
    }
}
