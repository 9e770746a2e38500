//! Deployments in the midst of which the control plane dies, at any instant and again and again: what comes back knows the records and
//! nothing else. Between restarts a service is planned as the loop does it, when something changed or the last plan asked for it, so that
//! a plan which forgets to ask shows as well.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod durable;
#[allow(dead_code, reason = "each test binary uses its own part")]
mod shifting;
#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use std::collections::BTreeSet;

use berth_model::ids::DeploymentId;
use berth_model::rollout::{HookKind, HookStatus, LifecycleStage as Stage};
use berth_model::service::{RolloutState, Service};
use berth_model::task::{StopCode, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::service::ServicePlan;
use proptest::prelude::*;
use shifting::{Shifting, bake, hook};
use world::{Fate, World, service};

const V2: DeploymentId = DeploymentId(2);
/// When a service that found no room is planned again although nothing changed, in milliseconds.
const ROOM_RETRY: i64 = 15_000;

/// What the loop keeps between two plans, and loses with each restart.
struct Loop {
    wake_at: Option<UnixMillis>,
    is_dirty: bool,
}

impl Loop {
    /// One that has just started plans everything.
    const NEW: Self = Self { wake_at: None, is_dirty: true };

    fn is_due(&self, now: UnixMillis) -> bool {
        self.is_dirty || self.wake_at.is_some_and(|at| at <= now)
    }

    /// Plans the service, if there is a reason to.
    fn step(&mut self, world: &mut World) -> Option<ServicePlan> {
        if !self.is_due(world.now) {
            return None;
        }
        let before = (world.service.clone(), world.tasks.len());
        let steps = world.step();
        self.wake_at = steps.wake_at;
        if steps.start > 0 && world.tasks.len() == before.1 {
            let retry = world.now.plus_millis(ROOM_RETRY);
            self.wake_at = Some(self.wake_at.map_or(retry, |at| at.min(retry)));
        }
        // Its own commit wakes it.
        self.is_dirty = before != (world.service.clone(), world.tasks.len()) || !steps.stop.is_empty();
        Some(steps)
    }
}

fn with_breaker(mut service: Service, rolls_back: bool) -> Service {
    let breaker = service.settings.deployment_configuration.deployment_circuit_breaker.get_or_insert_default();
    (breaker.enable, breaker.rollback) = (Some(true), Some(rolls_back));
    service
}

fn fates() -> impl Strategy<Value = Option<Fate>> {
    prop_oneof![
        Just(None),
        Just(Some(Fate::NeverRun)),
        (0_i64..60).prop_map(|after| Some(Fate::Crash(after))),
        (0_i64..60).prop_map(|after| Some(Fate::Sicken(after))),
        (0_i64..60).prop_map(|after| Some(Fate::Check(after))),
    ]
}

/// Seconds at which the control plane is made anew: never, at some, or at each of a stretch.
fn restarts() -> impl Strategy<Value = BTreeSet<usize>> {
    prop_oneof![
        4 => prop::collection::btree_set(0_usize..400, 1..16),
        1 => Just(BTreeSet::new()),
        1 => (0_usize..300).prop_map(|first| (first..first + 40).collect()),
    ]
}

#[test]
fn a_breaker_counts_on_after_a_restart() {
    for restarted in [false, true] {
        let mut world = World::new(with_breaker(service(2, 100, 200), false));
        world.run(60);
        world.fates.insert(V2, Fate::NeverRun);
        world.deploy(2);
        let mut failed_at = None;
        for second in 0..60 {
            if restarted {
                durable::restart(&mut world);
            }
            world.step();
            world.agents();
            world.now = world.now.plus_millis(1_000);
            let state = world.service.primary().expect("it deploys by itself").rollout_state;
            failed_at = failed_at.or((state == RolloutState::Failed).then_some(second));
        }
        assert!(failed_at.is_some_and(|second| second < 30), "restarted {restarted}: {failed_at:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    /// No decision takes healthy tasks below the minimum or makes more than the maximum, and the deployment ends or says what it waits for.
    #[test]
    fn a_rolling_deployment_survives_restarts(
        desired in 1_u32..10,
        (minimum, maximum) in (0_u32..=100, 100_u32..=200),
        room in 0_usize..12,
        fate in fates(),
        breaker in any::<Option<bool>>(),
        minutes in 0_i32..3,
        deaths in prop::collection::vec((0_usize..200, any::<prop::sample::Index>()), 0..6),
        counts in prop::collection::vec((0_usize..200, 1_u32..10), 0..3),
        restarts in restarts(),
    ) {
        let plain = service(desired, minimum, maximum);
        let mut world = World::new(match breaker {
            Some(rolls_back) => with_breaker(plain, rolls_back),
            None => plain,
        });
        world.service.settings.deployment_configuration.bake_time_in_minutes = Some(minutes);
        world.room = usize::try_from(desired).unwrap() + room;
        world.run(60);
        prop_assert!(world.is_steady_on(1));
        world.fates.extend(fate.map(|fate| (V2, fate)));
        world.deploy(2);
        let mut own = Loop::NEW;
        for second in 0..2_000_usize {
            for (_, count) in counts.iter().filter(|(at, _)| *at == second) {
                world.service.set_desired_count(*count);
                own.is_dirty = true;
            }
            for (_, which) in deaths.iter().filter(|(at, _)| *at == second) {
                let running: Vec<_> = (0..world.tasks.len()).filter(|at| world.tasks[*at].last == TaskStatus::Running).collect();
                if !running.is_empty() {
                    world.stop(running[which.index(running.len())], StopCode::EssentialContainerExited);
                    own.is_dirty = true;
                }
            }
            if restarts.contains(&second) {
                durable::restart(&mut world);
                own = Loop::NEW;
            }
            let (healthy, before) = (world.healthy(), world.live());
            let lower = world.service.percentages.lower(world.service.desired_count);
            let upper = world.service.percentages.upper(world.service.desired_count);
            if let Some(steps) = own.step(&mut world) {
                let starts: u32 = steps.starts(&world.service).iter().map(|(_, count)| count).sum();
                prop_assert!(world.healthy() >= lower.min(healthy), "healthy {healthy} to {}, lower {lower}", world.healthy());
                prop_assert!(starts == 0 || world.live() <= upper.max(before), "live {before} to {}, upper {upper}", world.live());
            }
            let seen = world.tasks.clone();
            world.agents();
            own.is_dirty |= seen != world.tasks;
            world.now = world.now.plus_millis(1_000);
            if world.is_steady_on(2) && second > 200 {
                return Ok(());
            }
        }
        let steps = world.plan(false);
        prop_assert!(world.is_steady_on(2) || !steps.why.is_empty(), "it neither ends nor says why");
        let can_end = matches!(fate, None | Some(Fate::Check(_))) && usize::try_from(world.service.desired_count).unwrap() < world.room;
        let upper = world.service.percentages.upper(world.service.desired_count);
        let lower = world.service.percentages.lower(world.service.desired_count);
        if can_end && (upper > world.service.desired_count || lower < world.service.desired_count) && breaker.is_none() {
            prop_assert!(world.is_steady_on(2), "stuck: {:?}, next plan at {:?} of {}", steps.why, own.wake_at, world.now.0);
        }
    }

    /// Blue serves until green has all of the traffic, traffic goes one way only, and the deployment ends.
    #[test]
    fn a_deployment_with_stages_survives_restarts(
        desired in 0_u32..5,
        kind in 0_usize..3,
        minutes in 0_i32..6,
        has_hooks in any::<bool>(),
        breaks in any::<bool>(),
        back_at in prop::option::of(0_usize..100),
        deaths in prop::collection::vec((0_usize..200, any::<prop::sample::Index>()), 0..6),
        restarts in restarts(),
    ) {
        let mut shifting = Shifting::new(desired);
        shifting.deploy(|record| {
            record.configuration.strategy = Some(["BLUE_GREEN", "LINEAR", "CANARY"][kind].into());
            bake(record, minutes);
            if has_hooks {
                hook(record, HookKind::Pause, &[Stage::PreScaleUp, Stage::PreProductionTrafficShift]);
                hook(record, HookKind::Lambda, &[Stage::PostScaleUp, Stage::TestTrafficShift]);
            }
        });
        shifting.broken.extend(breaks.then_some(V2));
        for second in 0..900_usize {
            for (_, which) in deaths.iter().filter(|(at, _)| *at == second) {
                let running: Vec<_> =
                    (0..shifting.world.tasks.len()).filter(|at| shifting.world.tasks[*at].last == TaskStatus::Running).collect();
                if !running.is_empty() {
                    shifting.world.stop(running[which.index(running.len())], StopCode::EssentialContainerExited);
                }
            }
            // Tasks that never start never end by themselves what has stages: somebody asks for the way back.
            if back_at == Some(second) || (breaks && second == 300) {
                shifting.ask_back();
            }
            if second % 10 == 9 {
                shifting.settle(HookKind::Pause, HookStatus::Succeeded);
                shifting.settle(HookKind::Lambda, HookStatus::Succeeded);
            }
            if restarts.contains(&second) {
                durable::restart(&mut shifting.world);
                for record in &mut shifting.records {
                    *record = durable::reread(record);
                }
            }
            shifting.run(1);
        }
        let why = shifting.step();
        prop_assert!(shifting.record().status.is_finished(), "{:?} in {}: {why:?}", shifting.record().status, shifting.stage());
        prop_assert_eq!(shifting.world.live(), shifting.world.service.desired_count);
        prop_assert_eq!(shifting.world.service.deployments.len(), 1);
    }
}
