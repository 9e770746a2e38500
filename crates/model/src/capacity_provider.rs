//! Capacity providers and the strategies that spread tasks over them.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CapacityProvider.html>

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

use crate::arn::{ReferenceError, Scope, clip};
use crate::ids::{CapacityProviderName, ClusterName};
use crate::tags::{Tags, render_tags};
use crate::time::UnixMillis;

/// The capacity providers that every account has without making them.
pub const BUILT_IN: [&str; 2] = ["FARGATE", "FARGATE_SPOT"];
/// Most capacity providers of a cluster, and most items of a strategy.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
pub const MOST_IN_CLUSTER: usize = 20;

wire_enum!(
    /// A capacity provider's status. PROVISIONING and DEPROVISIONING are never seen: there is nothing to make or to end.
    CapacityProviderStatus {
        /// Usable.
        Active = "ACTIVE",
        /// Deleted.
        Inactive = "INACTIVE",
    }
);

wire_enum!(
    /// What was done to a capacity provider last: `updateStatus`. Everything is complete at once.
    CapacityProviderUpdateStatus {
        /// It was made.
        Created = "CREATE_COMPLETE",
        /// It was changed.
        Updated = "UPDATE_COMPLETE",
        /// It was deleted.
        Deleted = "DELETE_COMPLETE",
    }
);

/// Where a provider's capacity comes from. A strategy has providers of one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapacityKind {
    /// FARGATE and FARGATE_SPOT.
    Fargate,
    /// An Auto Scaling group.
    AutoScalingGroup,
    /// Amazon ECS Managed Instances.
    ManagedInstances,
}

/// A provider's capacity as its user described it, with ECS's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Capacity {
    /// The instances of an Auto Scaling group; any cluster can use it.
    AutoScalingGroup(Box<ecs::AutoScalingGroupProvider>),
    /// Instances that ECS launches for one cluster.
    ManagedInstances {
        /// The only cluster that can use it.
        cluster: ClusterName,
        /// What to launch.
        provider: Box<ecs::ManagedInstancesProvider>,
    },
}

/// A capacity provider that somebody made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CapacityProvider {
    /// Its name.
    pub name: CapacityProviderName,
    /// Its status.
    pub status: CapacityProviderStatus,
    /// What was done to it last.
    pub update_status: CapacityProviderUpdateStatus,
    /// Its capacity.
    pub capacity: Capacity,
    /// Its tags.
    pub tags: Tags,
    /// When it was created.
    pub created_at: UnixMillis,
    /// When it was deleted; it stays visible for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<UnixMillis>,
}

impl CapacityProvider {
    /// It can be used.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.status == CapacityProviderStatus::Active
    }

    /// Where its capacity comes from.
    #[must_use]
    pub const fn kind(&self) -> CapacityKind {
        match self.capacity {
            Capacity::AutoScalingGroup(_) => CapacityKind::AutoScalingGroup,
            Capacity::ManagedInstances { .. } => CapacityKind::ManagedInstances,
        }
    }

    /// The cluster that it belongs to, if it belongs to one.
    #[must_use]
    pub const fn cluster(&self) -> Option<&ClusterName> {
        match &self.capacity {
            Capacity::AutoScalingGroup(_) => None,
            Capacity::ManagedInstances { cluster, .. } => Some(cluster),
        }
    }

    /// ECS is to scale its Auto Scaling group.
    #[must_use]
    pub fn has_managed_scaling(&self) -> bool {
        let Capacity::AutoScalingGroup(group) = &self.capacity else { return false };
        let status = group.managed_scaling.as_ref().and_then(|scaling| scaling.status.as_ref());
        status.is_some_and(|status| status.as_str() == "ENABLED")
    }

    /// As `DescribeCapacityProviders` shows it.
    #[must_use]
    pub fn render(&self, scope: &Scope, with_tags: bool) -> ecs::CapacityProvider {
        let mut shown = ecs::CapacityProvider {
            capacity_provider_arn: Some(arn(scope, &self.name)),
            name: Some(self.name.to_string()),
            status: Some(self.status.as_str().into()),
            update_status: Some(self.update_status.as_str().into()),
            tags: Some(if with_tags { render_tags(&self.tags) } else { Vec::new() }),
            ..Default::default()
        };
        match &self.capacity {
            Capacity::AutoScalingGroup(group) => {
                shown.r#type = Some("EC2_AUTOSCALING".into());
                shown.auto_scaling_group_provider = Some((**group).clone());
            }
            Capacity::ManagedInstances { cluster, provider } => {
                shown.r#type = Some("MANAGED_INSTANCES".into());
                shown.cluster = Some(scope.cluster(cluster));
                shown.managed_instances_provider = Some((**provider).clone());
            }
        }
        shown
    }
}

/// A provider that every account has, as `DescribeCapacityProviders` shows it.
#[must_use]
pub fn render_built_in(scope: &Scope, name: &CapacityProviderName) -> ecs::CapacityProvider {
    ecs::CapacityProvider {
        capacity_provider_arn: Some(arn(scope, name)),
        name: Some(name.to_string()),
        status: Some("ACTIVE".into()),
        r#type: Some(name.as_str().into()),
        tags: Some(Vec::new()),
        ..Default::default()
    }
}

/// The name is FARGATE or FARGATE_SPOT.
#[must_use]
pub fn is_built_in(name: &CapacityProviderName) -> bool {
    BUILT_IN.contains(&name.as_str())
}

/// `...:capacity-provider/NAME`
#[must_use]
pub fn arn(scope: &Scope, name: &CapacityProviderName) -> String {
    scope.ecs(format_args!("capacity-provider/{name}"))
}

/// Reads a capacity provider's name or ARN.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse(scope: &Scope, text: &str) -> Result<CapacityProviderName, ReferenceError> {
    let name = if text.starts_with("arn:") {
        scope.strip(text).and_then(|rest| rest.strip_prefix("capacity-provider/")).ok_or(ReferenceError::ForeignArn)?
    } else {
        text
    };
    CapacityProviderName::parse(name).ok_or_else(|| ReferenceError::Malformed(clip(text)))
}

/// An item of a capacity provider strategy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrategyItem {
    /// The provider.
    pub provider: CapacityProviderName,
    /// Its share of the tasks beyond the base, 0 to 1000.
    pub weight: u32,
    /// How many tasks it gets before any other, 0 to 100000.
    pub base: u32,
}

impl StrategyItem {
    /// As answers show it.
    #[must_use]
    pub fn render(&self) -> ecs::CapacityProviderStrategyItem {
        let number = |value: u32| Some(i32::try_from(value).unwrap_or(i32::MAX));
        ecs::CapacityProviderStrategyItem {
            capacity_provider: Some(self.provider.to_string()),
            weight: number(self.weight),
            base: number(self.base),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope { region: "us-east-1".into(), account: "000000000000".into() }
    }

    #[test]
    fn names_and_arns_read_back() {
        let name = CapacityProviderName::parse("spare").unwrap();
        assert_eq!(arn(&scope(), &name), "arn:aws:ecs:us-east-1:000000000000:capacity-provider/spare");
        assert_eq!(parse(&scope(), &arn(&scope(), &name)), Ok(name.clone()));
        assert_eq!(parse(&scope(), "spare"), Ok(name));
        assert_eq!(parse(&scope(), "arn:aws:ecs:us-east-1:000000000000:cluster/spare"), Err(ReferenceError::ForeignArn));
        assert!(parse(&scope(), "a b").is_err());
    }
}
