//! Task sets: what a service with an EXTERNAL deployment controller runs, each by its own definition and its share of the desired count.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-external.html>

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

use crate::capacity_provider::StrategyItem;
use crate::ids::{DefinitionId, DeploymentId};
use crate::tags::Tags;
use crate::task::{ClientToken, LaunchType};
use crate::task_interface::AwsvpcConfiguration;
use crate::time::UnixMillis;

/// Most task sets of a service. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
pub const MAX_TASK_SETS: usize = 5;

wire_enum!(
    /// A task set's status.
    TaskSetStatus {
        /// It serves production traffic.
        Primary = "PRIMARY",
        /// It does not.
        Active = "ACTIVE",
        /// Deleted; its tasks are ending.
        Draining = "DRAINING",
    }
);

wire_enum!(
    /// Whether a task set has what it should have.
    StabilityStatus {
        /// Exactly its computed desired count runs, healthy and nowhere that is drained.
        SteadyState = "STEADY_STATE",
        /// Not yet, or not any more.
        Stabilizing = "STABILIZING",
    }
);

/// A percentage of the service's desired count, to six places; a float would not always survive being stored and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scale {
    /// Millionths of a percent, up to [`Scale::MAX`]'s.
    millionths: u32,
}

impl Scale {
    /// All of the desired count.
    pub const MAX: Self = Self { millionths: 100_000_000 };

    /// Reads `scale.value`; `None` unless it is 0 to 100.
    #[must_use]
    pub fn from_percent(percent: f64) -> Option<Self> {
        let millionths = (percent * 1_000_000.0).round();
        // In range, so nothing is cut off.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        (0.0..=f64::from(Self::MAX.millionths)).contains(&millionths).then_some(Self { millionths: millionths as u32 })
    }

    /// As `scale` shows it.
    #[must_use]
    pub fn to_wire(self) -> ecs::Scale {
        ecs::Scale { value: Some(f64::from(self.millionths) / 1_000_000.0), unit: Some("PERCENT".into()) }
    }

    /// That share of a service's desired count, rounded up.
    #[must_use]
    pub fn of(self, desired: u32) -> u32 {
        let whole = u64::from(desired) * u64::from(self.millionths);
        u32::try_from(whole.div_ceil(u64::from(Self::MAX.millionths))).unwrap_or(u32::MAX)
    }
}

/// A task set. It has the same kind of id as a deployment, and its tasks carry it in the same way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSet {
    /// Its id.
    pub id: DeploymentId,
    /// Its status.
    pub status: TaskSetStatus,
    /// What it runs.
    pub definition: DefinitionId,
    /// Where.
    pub launch_type: LaunchType,
    /// `networkConfiguration`: where its tasks get interfaces of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_configuration: Option<AwsvpcConfiguration>,
    /// `capacityProviderStrategy`: how its tasks are split over providers, whose kind `launch_type` then is; empty: they are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capacity_provider_strategy: Vec<StrategyItem>,
    /// `serviceRegistries`: where its tasks are registered; at most one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_registries: Vec<ecs::ServiceRegistry>,
    /// Its share.
    pub scale: Scale,
    /// `externalId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// `clientToken` of its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<ClientToken>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created_at: UnixMillis,
    /// When it last changed.
    pub updated_at: UnixMillis,
    /// Whether it has what it should have.
    pub stability: StabilityStatus,
    /// Since when.
    pub stability_at: UnixMillis,
}

impl TaskSet {
    /// `computedDesiredCount`: none once it is deleted.
    #[must_use]
    pub fn computed_desired_count(&self, desired: u32) -> u32 {
        if self.status == TaskSetStatus::Draining { 0 } else { self.scale.of(desired) }
    }

    /// It is to have other tasks than before: not stable until it was looked at.
    pub const fn unsettle(&mut self, now: UnixMillis) {
        self.updated_at = now;
        if matches!(self.stability, StabilityStatus::SteadyState) {
            self.stability = StabilityStatus::Stabilizing;
            self.stability_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(percent: f64, desired: u32) -> u32 {
        Scale::from_percent(percent).expect("a percentage").of(desired)
    }

    #[test]
    fn shares_are_rounded_up() {
        assert_eq!([share(0.0, 7), share(100.0, 7), share(50.0, 3), share(12.0, 10), share(0.000_001, 1)], [0, 7, 2, 2, 1]);
        assert_eq!(share(33.333_333, 3), 1, "no more than a whole for less than a whole");
        assert_eq!(share(30.0, 10), 3, "an exact share is not rounded");
    }

    #[test]
    fn other_percentages_are_refused_and_good_ones_echoed() {
        for percent in [-0.1, 100.1, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Scale::from_percent(percent), None, "{percent}");
        }
        for percent in [0.0, 12.5, 33.333, 100.0] {
            assert_eq!(Scale::from_percent(percent).map(|scale| scale.to_wire().value), Some(Some(percent)));
        }
    }
}
