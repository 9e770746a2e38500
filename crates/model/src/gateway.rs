//! Gateways: shared load balancers as users describe them. None exists before a service's connector uses one, so what is kept here
//! is what was asked for and how far a change of it is.

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

use crate::ids::GatewayName;
use crate::tags::Tags;
use crate::time::UnixMillis;

wire_enum!(
    /// A gateway's status. A deleted one is no record any more, so DELETED is only ever an answer.
    GatewayStatus {
        /// Made, never updated.
        Active = "ACTIVE",
        /// A change goes to its load balancers.
        UpdateInProgress = "UPDATE_IN_PROGRESS",
        /// Every load balancer has taken the last change.
        UpdateComplete = "UPDATE_COMPLETE",
    }
);

wire_enum!(
    /// The status of a gateway's association with a cluster; one that ended is no record any more.
    AssociationStatus {
        /// Services of the cluster may use the gateway.
        Active = "ACTIVE",
        /// Ends with the cluster's last route.
        Disassociating = "DISASSOCIATING",
    }
);

/// Most gateways that a cluster is associated with.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_AssociateGatewayWithCluster.html>
pub const MAX_GATEWAYS_OF_CLUSTER: usize = 5;
/// Most gateways of an account. AWS names no number; one has to bound what is kept, and each gateway serves many services.
pub const MAX_GATEWAYS: usize = 1_000;

/// A gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its name.
    pub name: GatewayName,
    /// How far its last change is.
    pub status: GatewayStatus,
    /// `infrastructureRoleArn`.
    pub infrastructure_role_arn: String,
    /// `deletionProtection`.
    pub deletion_protection: bool,
    /// `configuration.hostSharedAlb`, the one kind of gateway there is, with ECS's defaults filled in.
    pub host_shared_alb: ecs::HostSharedAlbConfiguration,
    /// `propagateTags`: its tags go to what it manages.
    pub propagate_tags: bool,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// `clientToken` of its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// When it was created.
    pub created_at: UnixMillis,
    /// When it was last updated.
    pub updated_at: UnixMillis,
}

impl Gateway {
    /// Whether its load balancers face the Internet: `accessType` PUBLIC. Its scheme never changes.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.host_shared_alb.scheme != Some(ecs::GatewayElbScheme::from("internal"))
    }
}

/// A cluster's end of an association with a gateway; the cluster keeps it, so that both end together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// The gateway.
    pub gateway: GatewayName,
    /// Its status.
    pub status: AssociationStatus,
}
