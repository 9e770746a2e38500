//! How far a service deployment is on its way through the lifecycle stages, and the rules it goes by. It is what a restart needs to go
//! on in mid-stage; nothing of it is kept anywhere else.
//!
//! Stages: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html>; hooks:
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-lifecycle-hooks.html>.

use berth_shapes::{Document, ecs};
use serde::{Deserialize, Serialize};

use crate::ids::DeploymentId;
use crate::time::UnixMillis;

wire_enum!(
    /// A lifecycle stage, in the order in which they come.
    LifecycleStage {
        /// More than one revision was active: all but the last that had come out go first.
        ReconcileService = "RECONCILE_SERVICE",
        /// The green revision has not started.
        PreScaleUp = "PRE_SCALE_UP",
        /// The green revision comes up, without traffic.
        ScaleUp = "SCALE_UP",
        /// The green revision is up.
        PostScaleUp = "POST_SCALE_UP",
        /// Test traffic goes over to the green revision.
        TestTrafficShift = "TEST_TRAFFIC_SHIFT",
        /// It has all of it.
        PostTestTrafficShift = "POST_TEST_TRAFFIC_SHIFT",
        /// Before each step of the production traffic.
        PreProductionTrafficShift = "PRE_PRODUCTION_TRAFFIC_SHIFT",
        /// A step of the production traffic.
        ProductionTrafficShift = "PRODUCTION_TRAFFIC_SHIFT",
        /// The green revision has all of it.
        PostProductionTrafficShift = "POST_PRODUCTION_TRAFFIC_SHIFT",
        /// Both revisions run, in case of a rollback.
        BakeTime = "BAKE_TIME",
        /// What is no longer wanted stops.
        CleanUp = "CLEAN_UP",
    }
);

wire_enum!(
    /// What a lifecycle hook does: `targetType`.
    HookKind {
        /// Somebody is called, who answers.
        Lambda = "AWS_LAMBDA",
        /// ContinueServiceDeployment is waited for.
        Pause = "PAUSE",
    }
);

wire_enum!(
    /// How far a hook is.
    HookStatus {
        /// A pause that nobody has ended yet.
        AwaitingAction = "AWAITING_ACTION",
        /// To be called, or called again.
        InProgress = "IN_PROGRESS",
        /// The deployment may go on.
        Succeeded = "SUCCEEDED",
        /// The deployment has to go back.
        Failed = "FAILED",
        /// It took too long.
        TimedOut = "TIMED_OUT",
    }
);

wire_enum!(
    /// What becomes of a deployment at a hook's end.
    HookAction {
        /// It goes back.
        Rollback = "ROLLBACK",
        /// It goes on.
        Continue = "CONTINUE",
    }
);

/// All traffic, in tenths of a percent.
pub const ALL_TRAFFIC: u32 = 1_000;
/// Most hook runs that a deployment keeps: the oldest that have ended go. A linear deployment has up to 34 steps, each with up to 20 hooks.
pub const MAX_HOOK_RUNS: usize = 100;
/// Minutes that a hook has unless told otherwise.
pub const DEFAULT_HOOK_MINUTES: i32 = 1_440;

/// One run of a lifecycle hook, in one visit of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookRun {
    /// `hookId`.
    pub id: String,
    /// Which of the deployment configuration's `lifecycleHooks`.
    pub hook: usize,
    /// What kind that is.
    pub kind: HookKind,
    /// Where.
    pub stage: LifecycleStage,
    /// In which visit: [`Rollout::visit`].
    pub visit: u32,
    /// How far it is.
    pub status: HookStatus,
    /// When it has taken too long.
    pub expires_at: UnixMillis,
    /// When whoever it is gets called; only of [`HookKind::Lambda`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_at: Option<UnixMillis>,
    /// What its last answer added to `hookDetails`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Document>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl HookRun {
    /// Nothing is decided yet.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.status, HookStatus::AwaitingAction | HookStatus::InProgress)
    }

    /// Ends it.
    pub fn close(&mut self, status: HookStatus, reason: Option<String>) {
        self.status = status;
        self.reason = reason;
        self.call_at = None;
        // Of no use to anybody any more.
        self.details = None;
    }
}

/// Where a service deployment is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The stage.
    pub stage: LifecycleStage,
    /// Since when it is in it.
    pub since: UnixMillis,
    /// Its hooks are open, if it has any; not yet, if it was only told to be there.
    #[serde(default)]
    pub is_entered: bool,
    /// How many stages it has entered, repetitions counted.
    pub visit: u32,
    /// Steps of the production traffic that were made.
    pub step: u32,
    /// Test traffic that the green revision is to have, in tenths of a percent.
    pub test_weight: u32,
    /// Production traffic that the green revision is to have, in tenths of a percent.
    pub production_weight: u32,
    /// The deployment that served before, which stays whole until the last stage. None for a service's first, and in rolling updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue: Option<DeploymentId>,
    /// The deployment that comes; none in rolling updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub green: Option<DeploymentId>,
    /// Hooks that were run, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRun>,
}

impl Rollout {
    /// The hooks of the stage as it is visited now.
    pub fn current_hooks(&self) -> impl Iterator<Item = &HookRun> {
        self.hooks.iter().filter(|run| run.visit == self.visit)
    }

    /// Ends the hooks that nothing waits for any more.
    pub fn close_hooks(&mut self, why: &str) {
        self.hooks.iter_mut().filter(|run| run.is_open()).for_each(|run| run.close(HookStatus::Failed, Some(why.to_owned())));
    }
}

/// How the production traffic goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Not at all: tasks are replaced step by step.
    Rolling,
    /// At once.
    BlueGreen,
    /// In equal steps.
    Linear {
        /// Tenths of a percent.
        step: u32,
        /// Minutes after each but the last.
        bake_minutes: i64,
    },
    /// A part of it, then the rest.
    Canary {
        /// Tenths of a percent.
        first: u32,
        /// Minutes after it.
        bake_minutes: i64,
    },
}

impl Strategy {
    /// What the green revision has after so many steps, in tenths of a percent.
    #[must_use]
    pub fn weight(self, step: u32) -> u32 {
        let weight = match (self, step) {
            (_, 0) => 0,
            (Self::Linear { step: tenths, .. }, step) => tenths.saturating_mul(step),
            (Self::Canary { first, .. }, 1) => first,
            _ => ALL_TRAFFIC,
        };
        weight.min(ALL_TRAFFIC)
    }

    /// Minutes between two steps.
    #[must_use]
    pub const fn step_bake_minutes(self) -> i64 {
        match self {
            Self::Linear { bake_minutes, .. } | Self::Canary { bake_minutes, .. } => bake_minutes,
            Self::Rolling | Self::BlueGreen => 0,
        }
    }
}

/// A lifecycle hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What it does.
    pub kind: HookKind,
    /// Where.
    pub stages: Vec<LifecycleStage>,
    /// How long it may take.
    pub timeout_minutes: i64,
    /// What happens then.
    pub action: HookAction,
}

/// The rules of a deployment, read out of a `deploymentConfiguration` that was checked when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// How traffic goes over.
    pub strategy: Strategy,
    /// Minutes in [`LifecycleStage::BakeTime`].
    pub bake_minutes: i64,
    /// The hooks, in order.
    pub hooks: Vec<Hook>,
}

impl Course {
    /// Reads the rules; what is absent or unreadable has ECS's default.
    #[must_use]
    pub fn read(configuration: &ecs::DeploymentConfiguration) -> Self {
        let minutes = |value: Option<i32>, default: i32| i64::from(value.unwrap_or(default));
        let strategy = match configuration.strategy.as_ref().map(|strategy| strategy.as_str()) {
            Some("BLUE_GREEN") => Strategy::BlueGreen,
            Some("LINEAR") => {
                let linear = configuration.linear_configuration.clone().unwrap_or_default();
                let step = tenths(linear.step_percent).unwrap_or(100).max(1);
                Strategy::Linear { step, bake_minutes: minutes(linear.step_bake_time_in_minutes, 6) }
            }
            Some("CANARY") => {
                let canary = configuration.canary_configuration.clone().unwrap_or_default();
                let first = tenths(canary.canary_percent).unwrap_or(50);
                Strategy::Canary { first, bake_minutes: minutes(canary.canary_bake_time_in_minutes, 10) }
            }
            _ => Strategy::Rolling,
        };
        let hook = |hook: &ecs::DeploymentLifecycleHook| {
            let kind = hook.target_type.as_ref().and_then(|kind| HookKind::parse(kind.as_str())).unwrap_or(HookKind::Lambda);
            let stages = hook.lifecycle_stages.iter().flatten().filter_map(|stage| LifecycleStage::parse(stage.as_str())).collect();
            let timeout = hook.timeout_configuration.as_ref();
            let action = timeout.and_then(|timeout| timeout.action.as_ref()).and_then(|action| HookAction::parse(action.as_str()));
            Hook {
                kind,
                stages,
                timeout_minutes: minutes(timeout.and_then(|timeout| timeout.timeout_in_minutes), DEFAULT_HOOK_MINUTES),
                action: action.unwrap_or(HookAction::Rollback),
            }
        };
        Self {
            strategy,
            bake_minutes: minutes(configuration.bake_time_in_minutes, 0),
            hooks: configuration.lifecycle_hooks.iter().flatten().map(hook).collect(),
        }
    }
}

/// A percentage of AWS's in tenths; `None` if it has more than one decimal place, or is out of 0..=100.
#[must_use]
pub fn tenths(percent: Option<f64>) -> Option<u32> {
    let scaled = percent? * 10.0;
    let whole = scaled.round();
    let is_legal = (0.0..=f64::from(ALL_TRAFFIC)).contains(&whole) && (scaled - whole).abs() < 1e-6;
    // In 0..=1000, as just seen.
    is_legal.then_some(whole as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_one_decimal_place() {
        assert_eq!(tenths(Some(3.1)), Some(31));
        assert_eq!(tenths(Some(100.0)), Some(1_000));
        for wrong in [3.15, -0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(tenths(Some(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn steps_end_with_all_of_the_traffic() {
        let weights = |strategy: Strategy| (0..6).map(|step| strategy.weight(step)).collect::<Vec<_>>();
        assert_eq!(weights(Strategy::Linear { step: 300, bake_minutes: 0 }), [0, 300, 600, 900, 1_000, 1_000]);
        assert_eq!(weights(Strategy::Canary { first: 5, bake_minutes: 0 })[..3], [0, 5, 1_000]);
        assert_eq!(weights(Strategy::BlueGreen)[..2], [0, 1_000]);
    }

    #[test]
    fn defaults_are_those_of_ecs() {
        let mut configuration = ecs::DeploymentConfiguration { strategy: Some("LINEAR".into()), ..Default::default() };
        assert_eq!(Course::read(&configuration).strategy, Strategy::Linear { step: 100, bake_minutes: 6 });
        configuration.strategy = Some("CANARY".into());
        assert_eq!(Course::read(&configuration).strategy, Strategy::Canary { first: 50, bake_minutes: 10 });
        configuration.lifecycle_hooks = Some(vec![ecs::DeploymentLifecycleHook {
            target_type: Some("PAUSE".into()),
            lifecycle_stages: Some(vec!["PRE_SCALE_UP".into()]),
            ..Default::default()
        }]);
        let hook = Course::read(&configuration).hooks.remove(0);
        assert_eq!((hook.kind, hook.timeout_minutes, hook.action), (HookKind::Pause, 1_440, HookAction::Rollback));
    }
}
