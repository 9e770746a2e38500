//! Clusters.

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

use crate::gateway::Association;
use crate::ids::ClusterName;
use crate::tags::Tags;
use crate::time::UnixMillis;

wire_enum!(
    /// A cluster's status. A deleted cluster stays INACTIVE for a while, as in ECS, and can be created again.
    ClusterStatus {
        /// Usable.
        Active = "ACTIVE",
        /// Deleted.
        Inactive = "INACTIVE",
    }
);

/// A cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// Its status.
    pub status: ClusterStatus,
    /// When it was created.
    pub created_at: UnixMillis,
    /// Its tags.
    pub tags: Tags,
    /// `settings` as the user gave them, defaults added (`containerInsights`).
    pub settings: Vec<ecs::ClusterSetting>,
    /// `configuration` as the user gave it.
    pub configuration: Option<ecs::ClusterConfiguration>,
    /// `serviceConnectDefaults` as ECS shows it.
    pub service_connect_defaults: Option<ecs::ClusterServiceConnectDefaults>,
    /// Names of its capacity providers.
    pub capacity_providers: Vec<String>,
    /// Its default capacity provider strategy.
    pub default_capacity_provider_strategy: Vec<ecs::CapacityProviderStrategyItem>,
    /// Gateways that it is associated with, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<Association>,
}
