//! Express services: one web application described in a dozen members, of which ECS makes the rest. What is kept here is the
//! description, revision by revision, and the service's status.

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterName, DefinitionId, ServiceName};
use crate::service::ServiceStatus;
use crate::tags::Tags;
use crate::time::UnixMillis;

/// Most services of a cluster, Express services among them.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
pub const MAX_SERVICES_OF_CLUSTER: usize = 5_000;
/// The container that takes the traffic, in task definitions that ECS makes as in those of users.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateExpressGatewayService.html>
pub const MAIN_CONTAINER: &str = "Main";

/// An Express service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpressService {
    /// Its name, which no other service of the cluster has.
    pub name: ServiceName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its status.
    pub status: ServiceStatus,
    /// `infrastructureRoleArn`: never changes.
    pub infrastructure_role_arn: String,
    /// Its active revisions, never none: the newest first, then the one that it replaces.
    pub revisions: Vec<ExpressRevision>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created_at: UnixMillis,
    /// When it was last updated, or its deletion was asked for.
    pub updated_at: UnixMillis,
}

impl ExpressService {
    /// The revision that the service is to become.
    ///
    /// # Panics
    /// Never: a service always has a revision.
    #[must_use]
    pub fn newest(&self) -> &ExpressRevision {
        self.revisions.first().expect("an Express service has a revision")
    }

    /// With a revision that replaces the newest one. What that one was replacing is dropped: at most two are active.
    #[must_use]
    pub fn revised(&self, revision: ExpressRevision, now: UnixMillis) -> Self {
        let revisions = vec![revision, self.newest().clone()];
        Self { revisions, updated_at: now, ..self.clone() }
    }
}

/// One configuration of an Express service: what ECS calls a service revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpressRevision {
    /// Its number: the last part of its ARN.
    pub number: u64,
    /// What it would run.
    pub definition: DefinitionId,
    /// The user wrote the definition; otherwise ECS did, out of the configuration.
    pub is_definition_given: bool,
    /// The configuration in AWS's shape with ECS's defaults; without ARNs, ingress paths and time, which are rendered.
    pub configuration: ecs::ExpressGatewayServiceConfiguration,
    /// When it was made.
    pub created_at: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Family;

    fn revision(number: u64) -> ExpressRevision {
        ExpressRevision {
            number,
            definition: DefinitionId { family: Family::parse("web").unwrap(), revision: 1 },
            is_definition_given: false,
            configuration: Default::default(),
            created_at: UnixMillis(0),
        }
    }

    #[test]
    fn two_revisions_are_active_at_most() {
        let service = ExpressService {
            name: ServiceName::parse("web").unwrap(),
            cluster: ClusterName::parse("default").unwrap(),
            status: ServiceStatus::Active,
            infrastructure_role_arn: String::new(),
            revisions: vec![revision(1)],
            tags: Tags::new(),
            created_at: UnixMillis(0),
            updated_at: UnixMillis(0),
        };
        let service = service.revised(revision(2), UnixMillis(1)).revised(revision(3), UnixMillis(2));
        let numbers: Vec<_> = service.revisions.iter().map(|revision| revision.number).collect();
        assert_eq!((numbers, service.newest().number, service.updated_at), (vec![3, 2], 3, UnixMillis(2)));
    }
}
