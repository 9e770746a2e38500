//! The lifecycle stages of a service deployment that is played through: which it would stay in, and for what. The planner that acts says where
//! it is; here is only noted what it said. Hooks are thought to succeed at once, so that all that comes after them is told as well.

use berth_model::rollout::{ALL_TRAFFIC, HookKind, HookRun, HookStatus, LifecycleStage};
use berth_model::service_deployment::{ServiceDeployment, ServiceDeploymentStatus};
use berth_model::time::UnixMillis;
use serde::Serialize;

/// A lifecycle stage in which a deployment would wait for something. Those that it passes at once are left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageForecast {
    /// Which.
    pub stage: LifecycleStage,
    /// Seconds after the request at which it would be there at the earliest.
    pub after_seconds: i64,
    /// Seconds that it would stay there at least; what its hooks take left out.
    pub seconds: i64,
    /// Percent of the test traffic that the new revision is to have then.
    pub test_traffic_percent: f64,
    /// Percent of the production traffic that it is to have then.
    pub production_traffic_percent: f64,
    /// What is waited for, in words.
    pub waits_for: Vec<String>,
}

/// A deployment on its way.
pub(super) struct Stages {
    /// What it has become so far.
    pub(super) record: ServiceDeployment,
    begin: UnixMillis,
    seen: Vec<StageForecast>,
    /// The visit that the last of them is of.
    visit: Option<u32>,
    /// Hooks that were thought to succeed.
    hooks: usize,
}

impl Stages {
    /// `None`: it has no stages to go through any more.
    pub(super) fn of(record: ServiceDeployment, now: UnixMillis) -> Option<Self> {
        let is_staged = record.rollout.is_some() && !record.status.is_finished();
        is_staged.then(|| Self { record, begin: now, seen: Vec::new(), visit: None, hooks: 0 })
    }

    /// Notes what a plan made of it, and what that waits for.
    pub(super) fn follow(&mut self, after: ServiceDeployment, why: &[String], now: UnixMillis) {
        self.record = after;
        let Some(rollout) = &self.record.rollout else { return };
        if self.visit != Some(rollout.visit) {
            self.visit = Some(rollout.visit);
            end(&mut self.seen, self.begin, now);
            self.seen.push(StageForecast {
                stage: rollout.stage,
                after_seconds: now.since(self.begin) / 1_000,
                seconds: 0,
                test_traffic_percent: percent(rollout.test_weight),
                production_traffic_percent: percent(rollout.production_weight),
                waits_for: Vec::new(),
            });
        }
        let Some(stage) = self.seen.last_mut() else { return };
        let open: Vec<_> = rollout.current_hooks().filter(|run| run.is_open()).collect();
        let mut texts: Vec<_> = open.iter().map(|run| hook(&self.record, run)).collect();
        if open.is_empty() {
            // The plan's own words, each of which begins with the stage.
            let own = format!("{}: ", stage.stage);
            texts.extend(why.iter().filter_map(|text| text.strip_prefix(&own)).map(str::to_owned));
        }
        texts.retain(|text| !stage.waits_for.contains(text));
        stage.waits_for.extend(texts);
    }

    /// The hooks that are open succeed. `false`: there was none.
    pub(super) fn answer_hooks(&mut self) -> bool {
        let open = self.record.rollout.iter_mut().flat_map(|rollout| &mut rollout.hooks).filter(|run| run.is_open());
        let answered = open.map(|run| run.close(HookStatus::Succeeded, None)).count();
        self.hooks += answered;
        answered > 0
    }

    /// Why it would go back, if it would.
    pub(super) fn failure(&self) -> Option<&str> {
        let fails = self.record.status == ServiceDeploymentStatus::RollbackRequested;
        fails.then(|| self.record.status_reason.as_deref().unwrap_or("a rollback was asked for"))
    }

    /// The stages, and how many hooks were thought to succeed.
    pub(super) fn report(mut self, now: UnixMillis) -> (Vec<StageForecast>, usize) {
        end(&mut self.seen, self.begin, now);
        self.seen.retain(|stage| stage.seconds > 0 || !stage.waits_for.is_empty());
        (self.seen, self.hooks)
    }
}

/// The stage it was in ends.
fn end(seen: &mut [StageForecast], begin: UnixMillis, now: UnixMillis) {
    if let Some(last) = seen.last_mut() {
        last.seconds = now.since(begin) / 1_000 - last.after_seconds;
    }
}

fn percent(weight: u32) -> f64 {
    f64::from(weight) * 100.0 / f64::from(ALL_TRAFFIC)
}

/// What a run of a hook waits for.
fn hook(record: &ServiceDeployment, run: &HookRun) -> String {
    let configured = record.configuration.lifecycle_hooks.iter().flatten().nth(run.hook);
    let timeout = configured.and_then(|hook| hook.timeout_configuration.as_ref());
    let minutes = timeout.and_then(|timeout| timeout.timeout_in_minutes).unwrap_or(berth_model::rollout::DEFAULT_HOOK_MINUTES);
    let action = timeout.and_then(|timeout| timeout.action.as_ref()).map_or("ROLLBACK", |action| action.as_str());
    let what = match run.kind {
        HookKind::Pause => "ContinueServiceDeployment".to_owned(),
        HookKind::Lambda => {
            let target = configured.and_then(|hook| hook.hook_target_arn.as_deref()).unwrap_or_default();
            format!("{target} to answer")
        }
    };
    format!("lifecycle hook {}: {what}, at most {minutes} minutes, then {action}", run.hook + 1)
}
