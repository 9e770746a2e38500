//! The lifecycle stages of a service deployment: which comes next, what it waits for, what traffic it asks for, which hooks it runs. It
//! knows of tasks only what it is told, starts and stops none, and never goes back to an earlier stage but to repeat a traffic shift.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html> and
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/lambda-lifecycle-hooks.html>.

use berth_model::ids::uuid;
use berth_model::rollout::{
    ALL_TRAFFIC, Course, HookAction, HookKind, HookRun, HookStatus, LifecycleStage, MAX_HOOK_RUNS, Rollout, Strategy,
};
use berth_model::time::UnixMillis;

/// ECS fails a deployment that is in one stage for longer than a day, what the stage is meant to take left out. In minutes.
const STUCK_MINUTES: i64 = 24 * 60;
/// Stages that may follow each other at once: 34 steps of two stages, and the others.
const MOST_STAGES: usize = 100;
/// Why a deployment goes back whose hook did not succeed.
pub(super) const HOOK_FAILED: &str = "Service deployment rolled back because of a lifecycle hook failure.";

/// What the stages must know of the world.
pub(super) struct Sight<'a> {
    /// The rules.
    pub(super) course: &'a Course,
    /// The way is back: traffic to where it was, then an end.
    pub(super) goes_back: bool,
    /// Every task of the green revision that should be is healthy.
    pub(super) is_green_whole: bool,
    /// ...of the blue one.
    pub(super) is_blue_whole: bool,
    /// Of revisions other than blue and green nothing is left, or what is left serves where blue cannot.
    pub(super) others_may_stay: bool,
    /// Of revisions other than the one that stays nothing is left, and that one has what it should have.
    pub(super) is_clean: bool,
    /// How long a minute takes, in milliseconds.
    pub(super) minute: i64,
    /// Random bits for ids.
    pub(super) bits: &'a dyn Fn() -> u128,
}

/// What comes of a look at the stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Something is waited for, which may come with time.
    Waits { why: String, until: Option<UnixMillis> },
    /// It has to go back.
    Fails(String),
    /// There is nothing left to do.
    Ends,
}

/// What becomes of a stage.
enum Next {
    Stage(LifecycleStage),
    Verdict(Verdict),
}

/// Goes as far as it goes now.
pub(super) fn advance(rollout: &mut Rollout, sight: &Sight<'_>, now: UnixMillis) -> Verdict {
    if !rollout.is_entered {
        enter(rollout, rollout.stage, sight, now);
    }
    for _ in 0..MOST_STAGES {
        match next(rollout, sight, now) {
            Next::Stage(stage) => enter(rollout, stage, sight, now),
            Next::Verdict(verdict) => return verdict,
        }
    }
    Verdict::Waits { why: "the next stage is due".to_owned(), until: Some(now.plus_millis(1)) }
}

/// Turns round: the traffic that went over comes back, before anything of the green revision stops. Where the blue one may no longer be
/// whole it is made so first.
pub(super) fn turn_round(rollout: &mut Rollout, now: UnixMillis) {
    let may_be_incomplete = matches!(rollout.stage, LifecycleStage::ReconcileService | LifecycleStage::CleanUp);
    rollout.stage = if may_be_incomplete { LifecycleStage::ScaleUp } else { way_back(rollout) };
    rollout.since = now;
    // Entered with the next plan, which opens its hooks; at once for the traffic.
    give_back(rollout);
    rollout.is_entered = false;
}

/// The first stage of a rollback once the blue revision is whole. Hooks of a shift that never was are not called: ECS's page names the two
/// stages without saying so, but there would be nothing to tell them.
fn way_back(rollout: &Rollout) -> LifecycleStage {
    if rollout.production_weight > 0 {
        LifecycleStage::ProductionTrafficShift
    } else if rollout.test_weight > 0 {
        LifecycleStage::TestTrafficShift
    } else {
        LifecycleStage::CleanUp
    }
}

fn give_back(rollout: &mut Rollout) {
    match rollout.stage {
        LifecycleStage::ProductionTrafficShift => rollout.production_weight = 0,
        LifecycleStage::TestTrafficShift => rollout.test_weight = 0,
        _ => {}
    }
}

fn enter(rollout: &mut Rollout, stage: LifecycleStage, sight: &Sight<'_>, now: UnixMillis) {
    rollout.stage = stage;
    rollout.since = now;
    rollout.is_entered = true;
    rollout.visit += 1;
    if sight.goes_back {
        give_back(rollout);
    } else {
        match stage {
            LifecycleStage::TestTrafficShift => rollout.test_weight = ALL_TRAFFIC,
            LifecycleStage::ProductionTrafficShift => {
                rollout.step += 1;
                // With nothing to shift from there are no parts of it.
                let is_first = rollout.blue.is_none();
                rollout.production_weight = if is_first { ALL_TRAFFIC } else { sight.course.strategy.weight(rollout.step) };
            }
            _ => {}
        }
    }
    open_hooks(rollout, sight, now);
}

/// Begins the runs of the stage's hooks. On the way back only those of shifts are run, of which none pauses.
fn open_hooks(rollout: &mut Rollout, sight: &Sight<'_>, now: UnixMillis) {
    let stage = rollout.stage;
    if sight.goes_back && !matches!(stage, LifecycleStage::ProductionTrafficShift | LifecycleStage::TestTrafficShift) {
        return;
    }
    for (number, hook) in sight.course.hooks.iter().enumerate().filter(|(_, hook)| hook.stages.contains(&stage)) {
        let (id, status, call_at) = match hook.kind {
            HookKind::Pause => (pause_id((sight.bits)(), (sight.bits)()), HookStatus::AwaitingAction, None),
            HookKind::Lambda => (uuid((sight.bits)()), HookStatus::InProgress, Some(now)),
        };
        rollout.hooks.push(HookRun {
            id,
            hook: number,
            kind: hook.kind,
            stage,
            visit: rollout.visit,
            status,
            expires_at: now.plus_millis(hook.timeout_minutes.saturating_mul(sight.minute)),
            call_at,
            details: None,
            reason: None,
        });
    }
    let surplus = rollout.hooks.len().saturating_sub(MAX_HOOK_RUNS);
    let mut left = surplus;
    rollout.hooks.retain(|run| {
        let goes = left > 0 && !run.is_open();
        left -= usize::from(goes);
        !goes
    });
}

/// `ecs-pause-` and 256 bits, six to a character.
fn pause_id(high: u128, low: u128) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |bits: u128, count: u32| (0..count).rev().map(move |at| char::from(DIGITS[(bits >> (6 * at)) as usize & 63]));
    // 43 characters, as ECS's have.
    "ecs-pause-".chars().chain(digits(high, 22)).chain(digits(low, 21)).collect()
}

/// What the hooks of the current visit come to; `None`: they hold nothing up.
fn hooks(rollout: &mut Rollout, sight: &Sight<'_>, now: UnixMillis) -> Option<Verdict> {
    let visit = rollout.visit;
    let mut waits: Vec<String> = Vec::new();
    let mut until: Option<UnixMillis> = None;
    let mut failure = None;
    for run in rollout.hooks.iter_mut().filter(|run| run.visit == visit) {
        let action = sight.course.hooks.get(run.hook).map_or(HookAction::Rollback, |hook| hook.action);
        if run.is_open() && run.expires_at <= now {
            run.close(HookStatus::TimedOut, None);
        }
        match run.status {
            HookStatus::Failed => failure = Some(run.reason.clone().unwrap_or_default()),
            HookStatus::TimedOut if action == HookAction::Rollback => failure = Some(format!("Lifecycle hook {} timed out.", run.id)),
            HookStatus::Succeeded | HookStatus::TimedOut => {}
            HookStatus::AwaitingAction | HookStatus::InProgress => {
                waits.push(match run.kind {
                    HookKind::Pause => format!("lifecycle hook {} waits for ContinueServiceDeployment", run.id),
                    HookKind::Lambda => format!("lifecycle hook {} has not ended yet", run.id),
                });
                until = Some(until.map_or(run.expires_at, |at| at.min(run.expires_at)));
            }
        }
    }
    // On the way back nothing may hold the traffic, which is where it was already.
    match failure.filter(|_| !sight.goes_back) {
        Some(reason) => Some(Verdict::Fails(format!("{HOOK_FAILED} {reason}").trim_end().to_owned())),
        None if waits.is_empty() => None,
        None => Some(Verdict::Waits { why: format!("{}: {}", rollout.stage, waits.join(", ")), until }),
    }
}

fn next(rollout: &mut Rollout, sight: &Sight<'_>, now: UnixMillis) -> Next {
    use LifecycleStage as Stage;
    if let Some(verdict) = hooks(rollout, sight, now) {
        return Next::Verdict(verdict);
    }
    let stage = rollout.stage;
    let wait = |why: &str, meant: i64| waits_at_most(rollout, sight, why, meant, now);
    if sight.goes_back {
        return match stage {
            Stage::CleanUp if sight.is_clean => Next::Verdict(Verdict::Ends),
            Stage::CleanUp => wait("the way back: tasks of the green revision stop", 0),
            Stage::ScaleUp if !sight.is_blue_whole => wait("the way back: tasks of the blue revision come up", 0),
            _ => Next::Stage(way_back(rollout)),
        };
    }
    let is_rolling = sight.course.strategy == Strategy::Rolling;
    let minutes = |minutes: i64| if rollout.blue.is_none() { 0 } else { minutes.saturating_mul(sight.minute) };
    Next::Stage(match stage {
        Stage::ReconcileService if !sight.others_may_stay => return wait("tasks of earlier revisions stop", 0),
        Stage::ReconcileService => Stage::PreScaleUp,
        Stage::PreScaleUp => Stage::ScaleUp,
        Stage::ScaleUp if !sight.is_green_whole => return wait("tasks of the green revision come up", 0),
        Stage::ScaleUp => Stage::PostScaleUp,
        Stage::PostScaleUp if is_rolling => Stage::CleanUp,
        Stage::PostScaleUp => Stage::TestTrafficShift,
        Stage::TestTrafficShift => Stage::PostTestTrafficShift,
        Stage::PostTestTrafficShift => Stage::PreProductionTrafficShift,
        // Traffic goes to what is whole, or stays where it is.
        Stage::PreProductionTrafficShift if !sight.is_green_whole => return wait("the green revision is not healthy", 0),
        Stage::PreProductionTrafficShift => Stage::ProductionTrafficShift,
        Stage::ProductionTrafficShift if rollout.production_weight >= ALL_TRAFFIC => Stage::PostProductionTrafficShift,
        Stage::ProductionTrafficShift => {
            let bake = minutes(sight.course.strategy.step_bake_minutes());
            if now < rollout.since.plus_millis(bake) {
                return bakes(rollout, bake);
            }
            Stage::PreProductionTrafficShift
        }
        Stage::PostProductionTrafficShift => Stage::BakeTime,
        Stage::BakeTime => {
            let bake = minutes(sight.course.bake_minutes);
            if now < rollout.since.plus_millis(bake) {
                return bakes(rollout, bake);
            }
            if !sight.is_green_whole {
                return wait("the green revision is not healthy", bake);
            }
            Stage::CleanUp
        }
        Stage::CleanUp if sight.is_clean => return Next::Verdict(Verdict::Ends),
        Stage::CleanUp => return wait("tasks of earlier revisions stop", 0),
    })
}

fn bakes(rollout: &Rollout, bake: i64) -> Next {
    let until = rollout.since.plus_millis(bake);
    let tenths = rollout.production_weight;
    let why = format!("{}: {}.{} % of the production traffic bake", rollout.stage, tenths / 10, tenths % 10);
    Next::Verdict(Verdict::Waits { why, until: Some(until) })
}

/// Waits for tasks, but not for ever: `meant` is how long the stage takes by its nature, in milliseconds. What can no longer go back waits
/// as long as it takes.
fn waits_at_most(rollout: &Rollout, sight: &Sight<'_>, why: &str, meant: i64, now: UnixMillis) -> Next {
    let end = rollout.since.plus_millis(meant.saturating_add(STUCK_MINUTES.saturating_mul(sight.minute)));
    let can_fail = !sight.goes_back && rollout.stage != LifecycleStage::CleanUp;
    if can_fail && end <= now {
        let text = format!("Service deployment rolled back because lifecycle stage {} timed out: {why}.", rollout.stage);
        return Next::Verdict(Verdict::Fails(text));
    }
    Next::Verdict(Verdict::Waits { why: format!("{}: {why}", rollout.stage), until: Some(end).filter(|_| can_fail) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_pauses_look_like_those_of_ecs() {
        let id = pause_id(u128::MAX / 3, 7);
        assert_eq!(id.len(), "ecs-pause-e7tK9G_WRJqNF_EOMjztDXfKenlJuEUVjsNStf4WLKw".len());
        assert!(id.strip_prefix("ecs-pause-").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))));
        assert_ne!(id, pause_id(u128::MAX / 3, 8));
    }
}
