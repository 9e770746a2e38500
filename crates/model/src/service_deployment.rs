//! A service's history: immutable snapshots of its workload (service revisions), and how each was brought out (service deployments).
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html> and
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-revision.html>.

use std::fmt;
use std::str::FromStr;

use berth_shapes::ecs;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::capacity_provider::StrategyItem;
use crate::ids::{ClusterName, DefinitionId, DeploymentId, IdError, ServiceName};
use crate::rollout::Rollout;
use crate::service::ServiceSettings;
use crate::task::LaunchType;
use crate::time::UnixMillis;

/// Most service deployments that are kept of a service: ECS keeps them for 90 days, and a service that is deployed every minute would
/// have 129 600 of them by then. The oldest goes when one more is made.
pub const MAX_SERVICE_DEPLOYMENTS: usize = 100;
/// How long a finished service deployment is kept, in milliseconds: ECS's 90 days.
pub const KEEP_SERVICE_DEPLOYMENTS_MILLIS: i64 = 90 * 24 * 60 * 60 * 1000;

/// A service revision's id: 19 digits, the last part of its ARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceRevisionId(pub u64);

impl ServiceRevisionId {
    /// An id of 19 digits from random bits, as ECS's are.
    #[must_use]
    pub const fn from_random(bits: u64) -> Self {
        Self(DeploymentId::from_random(bits).0)
    }
}

impl fmt::Display for ServiceRevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ServiceRevisionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
        number.map(Self).ok_or_else(|| IdError { kind: "service revision id", text: text.chars().take(64).collect() })
    }
}

/// A service deployment's id: 21 characters out of 64, the last part of its ARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceDeploymentId(u128);

/// Characters of a service deployment's id, six bits each.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// How many of them.
const LENGTH: u32 = 21;

impl ServiceDeploymentId {
    /// An id from random bits, of which it holds 126.
    #[must_use]
    pub const fn from_random(bits: u128) -> Self {
        Self(bits >> 2)
    }
}

impl fmt::Display for ServiceDeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..LENGTH).rev().try_for_each(|at| {
            let digit = (self.0 >> (6 * at)) & 63;
            write!(f, "{}", char::from(DIGITS[digit as usize]))
        })
    }
}

impl FromStr for ServiceDeploymentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError { kind: "service deployment id", text: text.chars().take(64).collect() };
        if text.len() != LENGTH as usize {
            return Err(error());
        }
        let mut digits = text.bytes().map(|byte| DIGITS.iter().position(|digit| *digit == byte));
        let bits = digits.try_fold(0_u128, |bits, digit| Some((bits << 6) | digit? as u128));
        bits.map(Self).ok_or_else(error)
    }
}

impl Serialize for ServiceDeploymentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServiceDeploymentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A container's image as a service revision shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionImage {
    /// The container.
    pub container: String,
    /// Its image as the definition has it.
    pub image: String,
    /// What that was when the first task reported on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A service's workload at one time. Only the images' digests are added later, once, since tasks have to tell them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRevision {
    /// Its id.
    pub id: ServiceRevisionId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its service.
    pub service: ServiceName,
    /// What it runs.
    pub definition: DefinitionId,
    /// Where.
    pub launch_type: LaunchType,
    /// The capacity providers that its tasks are spread over; empty with a launch type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capacity_provider_strategy: Vec<StrategyItem>,
    /// What else the service was set to.
    pub settings: ServiceSettings,
    /// The images of its containers.
    pub images: Vec<RevisionImage>,
    /// When it was made.
    pub created_at: UnixMillis,
}

wire_enum!(
    /// A service deployment's status.
    ServiceDeploymentStatus {
        /// Made, and not yet begun.
        Pending = "PENDING",
        /// On its way.
        InProgress = "IN_PROGRESS",
        /// A newer one takes its place.
        StopRequested = "STOP_REQUESTED",
        /// A newer one took its place.
        Stopped = "STOPPED",
        /// The target revision is the service's.
        Successful = "SUCCESSFUL",
        /// To go back to the source revision.
        RollbackRequested = "ROLLBACK_REQUESTED",
        /// On its way back.
        RollbackInProgress = "ROLLBACK_IN_PROGRESS",
        /// The source revision is the service's again.
        RollbackSuccessful = "ROLLBACK_SUCCESSFUL",
        /// It could not go back.
        RollbackFailed = "ROLLBACK_FAILED",
    }
);

impl ServiceDeploymentStatus {
    /// Nothing more will become of it.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Stopped | Self::Successful | Self::RollbackSuccessful | Self::RollbackFailed)
    }
}

/// How many tasks a service revision had in a deployment when that ended; while it goes on they are counted afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionTally {
    /// Which revision.
    pub revision: ServiceRevisionId,
    /// `requestedTaskCount`.
    pub requested: u32,
    /// `runningTaskCount`.
    pub running: u32,
    /// `pendingTaskCount`.
    pub pending: u32,
}

impl RevisionTally {
    /// No tasks.
    #[must_use]
    pub const fn none(revision: ServiceRevisionId) -> Self {
        Self { revision, requested: 0, running: 0, pending: 0 }
    }
}

/// What a deployment's circuit breaker counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerCount {
    /// `failureCount`.
    pub failures: u32,
    /// `threshold`, of the latest desired count.
    pub threshold: u32,
    /// It ended the deployment.
    pub triggered: bool,
}

/// That a service deployment went back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Why.
    pub reason: String,
    /// Since when.
    pub started_at: UnixMillis,
    /// To which revision; `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<ServiceRevisionId>,
}

/// How a service revision was brought out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceDeployment {
    /// Its id.
    pub id: ServiceDeploymentId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its service.
    pub service: ServiceName,
    /// How far it is.
    pub status: ServiceDeploymentStatus,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// The revisions that had tasks when it was made.
    pub sources: Vec<RevisionTally>,
    /// The revision it brings out.
    pub target: RevisionTally,
    /// The last revision before that had come out whole: where a rollback goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<ServiceRevisionId>,
    /// `deploymentConfiguration` at the time.
    pub configuration: ecs::DeploymentConfiguration,
    /// Its rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// What its circuit breaker counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerCount>,
    /// The alarms that ended it, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggered_alarms: Vec<String>,
    /// Where it is among the lifecycle stages; none for a rolling update without hooks, and for what is older than stages are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When it ended, however.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<UnixMillis>,
    /// When it ended without having come out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<UnixMillis>,
    /// When it last changed.
    pub updated_at: UnixMillis,
}

impl ServiceDeployment {
    /// The revisions it names.
    pub fn revisions(&self) -> impl Iterator<Item = ServiceRevisionId> {
        let rollback = self.rollback.as_ref().and_then(|rollback| rollback.revision);
        let sources = self.sources.iter().map(|source| source.revision);
        sources.chain([self.target.revision]).chain(self.candidate).chain(rollback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployment_ids_are_read_back() {
        for bits in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = ServiceDeploymentId::from_random(bits);
            assert_eq!(id.to_string().len(), 21);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "abc", "AAAAAAAAAAAAAAAAAAAA/", "AAAAAAAAAAAAAAAAAAAAAA", "ääääääääääA"] {
            assert!(text.parse::<ServiceDeploymentId>().is_err(), "{text}");
        }
    }

    #[test]
    fn revision_ids_are_digits() {
        assert_eq!("1234567890123456789".parse(), Ok(ServiceRevisionId(1_234_567_890_123_456_789)));
        for text in ["", "+1", "-1", "x", "99999999999999999999999"] {
            assert!(text.parse::<ServiceRevisionId>().is_err(), "{text}");
        }
    }
}
