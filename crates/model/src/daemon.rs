//! Managed daemons, their deployments and revisions, and daemon task definitions.
//!
//! Daemons run on Managed Instances, of which there are none here: a deployment finds no instance to place a task on, and is done
//! once its bake time is over. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/managed-daemons.html>

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

use crate::arn::{self, DefinitionReference, ReferenceError, Scope, clip};
use crate::ids::{CapacityProviderName, ClusterName, DaemonDeploymentId, DaemonName, DaemonRevisionId, DefinitionId};
use crate::tags::Tags;
use crate::time::UnixMillis;

/// Most deployments that are remembered of a daemon.
pub const MOST_DEPLOYMENTS: usize = 50;

wire_enum!(
    /// A daemon deployment's status.
    DaemonDeploymentStatus {
        /// It bakes.
        InProgress = "IN_PROGRESS",
        /// It is done.
        Successful = "SUCCESSFUL",
        /// Another one took its place before it was done.
        Stopped = "STOPPED",
    }
);

wire_enum!(
    /// A daemon task definition's status.
    DaemonTaskDefinitionStatus {
        /// Usable.
        Active = "ACTIVE",
        /// Its deletion was asked for, and a daemon still uses it.
        DeleteInProgress = "DELETE_IN_PROGRESS",
        /// Deleted.
        Deleted = "DELETED",
    }
);

/// A container of a daemon revision with its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerImage {
    /// The container's name.
    pub container: String,
    /// Its image as the definition has it.
    pub image: String,
}

/// What a deployment is to bring: a snapshot that never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRevision {
    /// Its id.
    pub id: DaemonRevisionId,
    /// When it was made.
    pub created_at: UnixMillis,
    /// The daemon task definition.
    pub definition: DefinitionId,
    /// Its containers' images.
    pub images: Vec<ContainerImage>,
    /// The capacity providers whose instances get a task each.
    pub capacity_providers: Vec<CapacityProviderName>,
    /// Tasks get the daemon's tags (`propagateTags` DAEMON).
    pub propagates_tags: bool,
    /// `enableECSManagedTags`.
    pub enable_ecs_managed_tags: bool,
    /// `enableExecuteCommand`.
    pub enable_execute_command: bool,
    /// `critical`.
    pub critical: bool,
}

/// A deployment of a daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonDeployment {
    /// Its id.
    pub id: DaemonDeploymentId,
    /// Its number in the daemon, counted up.
    pub number: u64,
    /// When it was made, and began.
    pub created_at: UnixMillis,
    /// When it is, or would have been, done.
    pub finished_at: UnixMillis,
    /// When another one took its place, if it was not done by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<UnixMillis>,
    /// What it brings; nothing, if it takes the daemon away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<DaemonRevision>,
    /// The revision that it replaces, with its capacity providers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<(DaemonRevisionId, Vec<CapacityProviderName>)>,
    /// `deploymentConfiguration` with defaults.
    pub configuration: ecs::DaemonDeploymentConfiguration,
}

impl DaemonDeployment {
    /// Its status at a time.
    #[must_use]
    pub fn status(&self, now: UnixMillis) -> DaemonDeploymentStatus {
        match self.stopped_at {
            Some(_) => DaemonDeploymentStatus::Stopped,
            None if now < self.finished_at => DaemonDeploymentStatus::InProgress,
            None => DaemonDeploymentStatus::Successful,
        }
    }
}

/// A daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its name.
    pub name: DaemonName,
    /// When it was created.
    pub created_at: UnixMillis,
    /// When it was last changed.
    pub updated_at: UnixMillis,
    /// When it was deleted; then only its deployments and revisions are visible, for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<UnixMillis>,
    /// Its tags.
    pub tags: Tags,
    /// `clientToken` of its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// Its deployments, newest first, [`MOST_DEPLOYMENTS`] of them; never none.
    pub deployments: Vec<DaemonDeployment>,
}

impl Daemon {
    /// It is there.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.deleted_at.is_none()
    }

    /// The revision that it runs; none once it is deleted.
    #[must_use]
    pub fn current(&self) -> Option<&DaemonRevision> {
        self.deployments.first().and_then(|deployment| deployment.target.as_ref())
    }

    /// Starts another deployment: one that is not done yet stops, and the oldest beyond [`MOST_DEPLOYMENTS`] go.
    pub fn deploy(&mut self, mut deployment: DaemonDeployment, now: UnixMillis) {
        if let Some(last) = self.deployments.first_mut() {
            deployment.number = last.number + 1;
            deployment.source = last.target.as_ref().map(|target| (target.id, target.capacity_providers.clone()));
            if last.status(now) == DaemonDeploymentStatus::InProgress {
                last.stopped_at = Some(now);
            }
        }
        self.deployments.insert(0, deployment);
        self.deployments.truncate(MOST_DEPLOYMENTS);
        self.updated_at = now;
    }
}

/// A revision of a daemon task definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonTaskDefinition {
    /// Family and revision.
    pub id: DefinitionId,
    /// When it was registered.
    pub registered_at: UnixMillis,
    /// ARN of who registered it.
    pub registered_by: String,
    /// When its deletion was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_requested_at: Option<UnixMillis>,
    /// Its tags.
    pub tags: Tags,
    /// The document with defaults filled in; without ARN, revision, status and times, which are rendered.
    pub document: ecs::DaemonTaskDefinition,
}

impl DaemonTaskDefinition {
    /// Its status; `used` says whether a daemon runs it.
    #[must_use]
    pub const fn status(&self, used: bool) -> DaemonTaskDefinitionStatus {
        match self.delete_requested_at {
            None => DaemonTaskDefinitionStatus::Active,
            Some(_) if used => DaemonTaskDefinitionStatus::DeleteInProgress,
            Some(_) => DaemonTaskDefinitionStatus::Deleted,
        }
    }
}

/// `...:daemon/CLUSTER/NAME`
#[must_use]
pub fn arn(scope: &Scope, cluster: &ClusterName, name: &DaemonName) -> String {
    scope.ecs(format_args!("daemon/{cluster}/{name}"))
}

/// `...:daemon-deployment/CLUSTER/NAME/ID`
#[must_use]
pub fn deployment_arn(scope: &Scope, cluster: &ClusterName, name: &DaemonName, id: DaemonDeploymentId) -> String {
    scope.ecs(format_args!("daemon-deployment/{cluster}/{name}/{id}"))
}

/// `...:daemon-revision/CLUSTER/NAME/ID`
#[must_use]
pub fn revision_arn(scope: &Scope, cluster: &ClusterName, name: &DaemonName, id: DaemonRevisionId) -> String {
    scope.ecs(format_args!("daemon-revision/{cluster}/{name}/{id}"))
}

/// `...:daemon-task-definition/FAMILY:REVISION`
#[must_use]
pub fn definition_arn(scope: &Scope, id: &DefinitionId) -> String {
    scope.ecs(format_args!("daemon-task-definition/{id}"))
}

/// Reads a daemon's ARN. Requests have no member for its cluster, so a name alone means nothing.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse(scope: &Scope, text: &str) -> Result<(ClusterName, DaemonName), ReferenceError> {
    let rest = scope.strip(text).and_then(|rest| rest.strip_prefix("daemon/")).ok_or(ReferenceError::ForeignArn)?;
    let parsed = rest.split_once('/').and_then(|(cluster, name)| Some((ClusterName::parse(cluster)?, DaemonName::parse(name)?)));
    parsed.ok_or_else(|| ReferenceError::Malformed(clip(text)))
}

/// Reads the ARN of a daemon's deployment (`kind` is `daemon-deployment`) or revision (`daemon-revision`).
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_part<I: std::str::FromStr>(scope: &Scope, kind: &str, text: &str) -> Result<(ClusterName, DaemonName, I), ReferenceError> {
    let rest = scope.strip(text).and_then(|rest| rest.strip_prefix(kind)?.strip_prefix('/')).ok_or(ReferenceError::ForeignArn)?;
    let malformed = || ReferenceError::Malformed(clip(text));
    let mut parts = rest.splitn(3, '/');
    let cluster = parts.next().and_then(ClusterName::parse).ok_or_else(malformed)?;
    let name = parts.next().and_then(DaemonName::parse).ok_or_else(malformed)?;
    let id = parts.next().and_then(|id| id.parse().ok()).ok_or_else(malformed)?;
    Ok((cluster, name, id))
}

/// Reads a daemon task definition: `family`, `family:revision` or an ARN.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_definition(scope: &Scope, text: &str) -> Result<DefinitionReference, ReferenceError> {
    arn::parse_definition(scope, "daemon-task-definition/", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(id: u128, at: i64, bake: i64) -> DaemonDeployment {
        let revision = DaemonRevision {
            id: DaemonRevisionId(id),
            created_at: UnixMillis(at),
            definition: definition_id(),
            images: Vec::new(),
            capacity_providers: Vec::new(),
            propagates_tags: false,
            enable_ecs_managed_tags: false,
            enable_execute_command: false,
            critical: true,
        };
        DaemonDeployment {
            id: DaemonDeploymentId(id),
            number: 0,
            created_at: UnixMillis(at),
            finished_at: UnixMillis(at + bake),
            stopped_at: None,
            target: Some(revision),
            source: None,
            configuration: Default::default(),
        }
    }

    fn definition_id() -> DefinitionId {
        DefinitionId { family: crate::ids::Family::parse("f").unwrap(), revision: 1 }
    }

    fn daemon() -> Daemon {
        Daemon {
            cluster: ClusterName::parse("c").unwrap(),
            name: DaemonName::parse("d").unwrap(),
            created_at: UnixMillis(0),
            updated_at: UnixMillis(0),
            deleted_at: None,
            tags: Tags::new(),
            client_token: None,
            deployments: vec![deployment(1, 0, 100)],
        }
    }

    #[test]
    fn a_deployment_bakes_and_a_newer_one_stops_it() {
        let mut daemon = daemon();
        assert_eq!(daemon.deployments[0].status(UnixMillis(99)), DaemonDeploymentStatus::InProgress);
        assert_eq!(daemon.deployments[0].status(UnixMillis(100)), DaemonDeploymentStatus::Successful);
        daemon.deploy(deployment(2, 50, 0), UnixMillis(50));
        assert_eq!(daemon.deployments[1].status(UnixMillis(1_000)), DaemonDeploymentStatus::Stopped);
        assert_eq!(daemon.deployments[0].status(UnixMillis(50)), DaemonDeploymentStatus::Successful);
        assert_eq!(daemon.deployments[0].source, Some((DaemonRevisionId(1), Vec::new())));
        daemon.deploy(deployment(3, 60, 0), UnixMillis(60));
        assert_eq!(daemon.deployments[1].stopped_at, None, "one that was done stays so");
    }

    #[test]
    fn deployments_are_bounded_and_counted_on() {
        let mut daemon = daemon();
        for id in 2..100 {
            daemon.deploy(deployment(id, 0, 0), UnixMillis(0));
        }
        assert_eq!(daemon.deployments.len(), MOST_DEPLOYMENTS);
        assert_eq!((daemon.deployments[0].number, daemon.deployments[0].id), (98, DaemonDeploymentId(99)));
    }

    #[test]
    fn arns_read_back() {
        let scope = Scope { region: "us-east-1".into(), account: "000000000000".into() };
        let (cluster, name) = (ClusterName::parse("c").unwrap(), DaemonName::parse("d").unwrap());
        assert_eq!(parse(&scope, &arn(&scope, &cluster, &name)), Ok((cluster.clone(), name.clone())));
        let id = DaemonRevisionId(7);
        let text = revision_arn(&scope, &cluster, &name, id);
        assert_eq!(parse_part(&scope, "daemon-revision", &text), Ok((cluster, name, id)));
        assert_eq!(parse_part::<DaemonDeploymentId>(&scope, "daemon-deployment", &text), Err(ReferenceError::ForeignArn));
        assert!(parse(&scope, "d").is_err());
        let definition = definition_id();
        assert_eq!(parse_definition(&scope, &definition_arn(&scope, &definition)), Ok(DefinitionReference::Exact(definition)));
    }
}
