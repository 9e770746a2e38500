//! Rolling updates that go wrong, and right: the tutorial's example step by step, lost and unhealthy tasks in mid-deployment, scale-out,
//! the circuit breaker, early success and bake time.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use std::fmt::Write;

use berth_model::ids::DeploymentId;
use berth_model::service::{RolloutState, Service};
use berth_model::service_deployment::ServiceRevisionId;
use berth_model::task::{DesiredStatus, HealthStatus, StopCode, TaskStatus};
use proptest::prelude::*;
use world::{Fate, World, service};

const V1: DeploymentId = DeploymentId(1);
const V2: DeploymentId = DeploymentId(2);

/// Tasks of a deployment that run or are on their way.
fn live(world: &World, of: DeploymentId) -> usize {
    let is_live = |desired, last| desired == DesiredStatus::Running && last != TaskStatus::Stopped;
    world.tasks.iter().filter(|task| task.deployment == of && is_live(task.desired, task.last)).count()
}

fn with_breaker(mut service: Service, rolls_back: bool) -> Service {
    let breaker = service.settings.deployment_configuration.deployment_circuit_breaker.get_or_insert_default();
    breaker.enable = Some(true);
    breaker.rollback = Some(rolls_back);
    service
}

fn state(world: &World) -> RolloutState {
    world.service.primary().expect("it deploys by itself").rollout_state
}

/// The tutorial's example: the counts of old and new tasks at every second in which they change.
#[test]
fn four_tasks_with_fifty_and_a_hundred_percent_go_two_by_two() {
    let mut world = World::new(service(4, 50, 100));
    world.run(60);
    world.deploy(2);
    let begin = world.now;
    let (mut seen, mut last) = (String::new(), None);
    while !world.is_steady_on(2) {
        let steps = world.step();
        let counts = (live(&world, V1), live(&world, V2), steps.start, steps.stop.len());
        if last != Some(counts) && (counts.2 > 0 || counts.3 > 0) {
            let second = world.now.since(begin) / 1_000;
            writeln!(seen, "{second:>3} s: stop {}, start {}; then {} of v1, {} of v2", counts.3, counts.2, counts.0, counts.1).unwrap();
        }
        last = Some(counts);
        world.agents();
        world.now = world.now.plus_millis(1_000);
        assert!(world.now.since(begin) < 600_000, "{seen}");
    }
    let golden = "  0 s: stop 2, start 0; then 2 of v1, 0 of v2
  1 s: stop 0, start 2; then 2 of v1, 2 of v2
 41 s: stop 2, start 0; then 0 of v1, 2 of v2
 42 s: stop 0, start 2; then 0 of v1, 4 of v2
";
    assert_eq!(seen, golden);
}

#[test]
fn a_task_that_is_lost_in_mid_deployment_is_replaced_from_its_own_revision() {
    let mut world = World::new(service(4, 100, 200));
    world.run(60);
    world.fates.insert(V2, Fate::Check(300));
    world.deploy(2);
    world.run(5);
    assert_eq!((live(&world, V1), live(&world, V2)), (4, 4));
    world.stop(0, StopCode::EssentialContainerExited);
    world.run(5);
    assert_eq!((live(&world, V1), live(&world, V2)), (4, 4), "both have what they should");
    world.run(400);
    assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
}

#[test]
fn a_scale_out_in_mid_deployment_applies_to_both_revisions() {
    let mut world = World::new(service(2, 100, 200));
    world.run(60);
    world.fates.insert(V2, Fate::Check(300));
    world.deploy(2);
    world.run(5);
    world.service.set_desired_count(5);
    world.step();
    assert!(world.step().is_idle(&world.service), "what is on its way stays: {:?}", world.plan(false));
    world.run(5);
    assert_eq!((live(&world, V1), live(&world, V2)), (5, 5));
    world.service.set_desired_count(1);
    world.run(5);
    assert_eq!((live(&world, V1), live(&world, V2)), (1, 1));
    world.run(400);
    assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
}

#[test]
fn old_tasks_that_crash_do_not_keep_the_cure_out() {
    let mut world = World::new(service(4, 50, 100));
    world.fates.insert(V1, Fate::Crash(2));
    world.run(120);
    world.deploy(2);
    world.run(600);
    assert!(world.is_steady_on(2), "{} of v1, {} of v2, {:?}", live(&world, V1), live(&world, V2), world.plan(false).why);
}

#[test]
fn an_unhealthy_task_stays_until_a_healthy_one_has_taken_its_place() {
    let mut world = World::new(service(3, 100, 200));
    world.fates.insert(V1, Fate::Check(3));
    world.run(60);
    world.fates.clear();
    world.tasks[0].health = HealthStatus::Unhealthy;
    let sick = world.tasks[0].id;
    let steps = world.step();
    assert_eq!((steps.start, steps.stop.len()), (1, 0), "its replacement comes first");
    world.run(30);
    assert_eq!(live(&world, V1), 4, "which does not count as healthy before 40 s");
    world.run(30);
    assert_eq!(live(&world, V1), 3);
    let stopped = world.tasks.iter().find(|task| task.id == sick).unwrap();
    assert!(stopped.failed_check && stopped.stop_code == Some(StopCode::ServiceSchedulerInitiated));
}

#[test]
fn without_room_unhealthy_tasks_go_one_at_a_time() {
    let mut world = World::new(service(3, 0, 100));
    world.fates.insert(V1, Fate::Check(3));
    world.run(60);
    world.tasks.iter_mut().for_each(|task| task.health = HealthStatus::Unhealthy);
    world.fates.insert(V1, Fate::Check(10));
    // Those of before stay unhealthy: only what starts now is checked.
    let before: Vec<_> = world.tasks.iter().map(|task| task.id).collect();
    let mut most = 0;
    for _ in 0..120 {
        world.tasks.iter_mut().filter(|task| before.contains(&task.id)).for_each(|task| task.health = HealthStatus::Unhealthy);
        most = most.max(world.step().stop.len());
        world.agents();
        world.now = world.now.plus_millis(1_000);
    }
    assert_eq!(most, 1);
    assert!(world.is_steady_on(1), "{:?}", world.plan(false).why);
}

#[test]
fn the_grace_period_covers_health_checks() {
    let mut world = World::new(service(1, 100, 200));
    world.service.settings.health_check_grace_period_seconds = Some(30);
    world.fates.insert(V1, Fate::Sicken(2));
    world.run(29);
    assert_eq!(world.tasks.len(), 1);
    assert!(world.plan(false).wake_at.is_some(), "the end of the grace period wakes it");
    world.run(3);
    assert_eq!(world.tasks.len(), 2);
}

#[test]
fn the_breaker_ends_a_deployment_whose_tasks_never_run_and_keeps_the_old_ones() {
    for fate in [Fate::NeverRun, Fate::Crash(3), Fate::Sicken(5)] {
        let mut world = World::new(with_breaker(service(4, 100, 200), false));
        world.run(60);
        assert!(world.is_steady_on(1));
        world.fates.insert(V2, fate);
        world.deploy(2);
        for _ in 0..600 {
            world.run(1);
            assert!(world.healthy() >= 4, "{fate:?}");
        }
        assert_eq!(state(&world), RolloutState::Failed, "{fate:?}: {:?}", world.plan(false).why);
        assert_eq!(live(&world, V1), 4, "{fate:?}");
        let failed = world.events.iter().filter(|event| event.ends_with("deployment failed: tasks failed to start.")).count();
        assert_eq!(failed, 1, "{fate:?}");
        assert_eq!(world.plan(false).start, 0);
        // What dies of the old revision is still replaced.
        let of_v1 = world.tasks.iter().position(|task| task.deployment == V1 && task.last == TaskStatus::Running).unwrap();
        world.stop(of_v1, StopCode::EssentialContainerExited);
        world.run(5);
        assert_eq!(live(&world, V1), 4, "{fate:?}");
    }
}

#[test]
fn the_breaker_asks_to_go_back_once() {
    let mut world = World::new(with_breaker(service(2, 100, 200), true));
    world.run(60);
    world.fates.insert(V2, Fate::NeverRun);
    world.deploy(2);
    let mut asked = 0;
    for _ in 0..120 {
        asked += usize::from(world.step().rollback.is_some());
        world.agents();
        world.now = world.now.plus_millis(1_000);
    }
    assert_eq!(asked, 1);
}

#[test]
fn a_healthy_task_sets_the_count_back() {
    for (resets, wanted) in [(None, RolloutState::InProgress), (Some(false), RolloutState::Failed)] {
        let mut world = World::new(with_breaker(service(2, 100, 200), false));
        let breaker = world.service.settings.deployment_configuration.deployment_circuit_breaker.as_mut().unwrap();
        breaker.reset_on_healthy_task = resets;
        // The first task counts as healthy after 40 s; the second one's place is taken again and again.
        for second in 0..60 {
            world.step();
            world.agents();
            if [2, 12, 45, 55].contains(&second) && state(&world) == RolloutState::InProgress {
                let newest = world.tasks.len() - 1;
                assert_eq!(world.tasks[newest].last, TaskStatus::Running);
                world.stop(newest, StopCode::EssentialContainerExited);
            }
            world.now = world.now.plus_millis(1_000);
        }
        assert_eq!(state(&world), wanted, "resetOnHealthyTask {resets:?}, {:?}", world.plan(false).why);
    }
}

#[test]
fn early_success_completes_before_the_old_tasks_are_gone_and_goes_on() {
    let mut world = World::new(service(4, 50, 100));
    world.run(60);
    let criteria = world.service.settings.deployment_configuration.early_success_criteria.get_or_insert_default();
    (criteria.enable, criteria.healthy_percent) = (Some(true), Some(50));
    criteria.source_service_revision_cleanup = Some("DEFERRED".into());
    world.deploy(2);
    world.run(41);
    assert_eq!(state(&world), RolloutState::Completed);
    assert!(!world.service.announced_steady, "two of four");
    world.run(200);
    assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
}

#[test]
fn a_bake_time_holds_the_deployment_open_and_the_breaker_watches_it() {
    let mut world = World::new(with_breaker(service(2, 100, 200), false));
    world.run(60);
    world.service.settings.deployment_configuration.bake_time_in_minutes = Some(10);
    world.service.completed_revision = Some(ServiceRevisionId(1));
    world.deploy(2);
    world.run(200);
    assert_eq!((state(&world), live(&world, V1), live(&world, V2)), (RolloutState::InProgress, 0, 2));
    assert!(world.plan(false).why.iter().any(|why| why.contains("bakeTimeInMinutes")), "{:?}", world.plan(false).why);
    world.run(600);
    assert!(world.is_steady_on(2));
}

#[test]
fn a_crash_loop_names_how_many_crashed_and_when_the_next_starts() {
    let mut world = World::new(service(2, 100, 200));
    world.fates.insert(V1, Fate::Crash(0));
    world.run(30);
    while world.tasks.iter().any(|task| task.last != TaskStatus::Stopped) {
        world.agents();
    }
    let why = world.plan(false).why;
    assert!(why.iter().any(|why| why.contains("tasks in a row ended soon after their start; the next start is in")), "{why:?}");
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// Whatever goes wrong: no decision takes healthy tasks below the minimum or makes more than the maximum, and the deployment ends or
    /// says what it waits for.
    #[test]
    fn a_deployment_keeps_its_promises_whatever_fails(
        desired in 1_u32..10,
        (minimum, maximum) in (0_u32..=100, 100_u32..=200),
        room in 0_usize..12,
        fate in fates(),
        breaker in any::<Option<bool>>(),
        deaths in proptest::collection::vec((0_usize..200, any::<prop::sample::Index>()), 0..6),
        counts in proptest::collection::vec((0_usize..200, 1_u32..10), 0..3),
    ) {
        let plain = service(desired, minimum, maximum);
        let mut world = World::new(match breaker {
            Some(rolls_back) => with_breaker(plain, rolls_back),
            None => plain,
        });
        world.room = usize::try_from(desired).unwrap() + room;
        world.run(60);
        prop_assert!(world.is_steady_on(1));
        world.fates.extend(fate.map(|fate| (V2, fate)));
        world.deploy(2);
        for second in 0..2_000_usize {
            for (_, count) in counts.iter().filter(|(at, _)| *at == second) {
                world.service.set_desired_count(*count);
            }
            for (_, which) in deaths.iter().filter(|(at, _)| *at == second) {
                let running: Vec<_> = (0..world.tasks.len()).filter(|at| world.tasks[*at].last == TaskStatus::Running).collect();
                if !running.is_empty() {
                    world.stop(running[which.index(running.len())], StopCode::EssentialContainerExited);
                }
            }
            let (healthy, before) = (world.healthy(), world.live());
            let lower = world.service.percentages.lower(world.service.desired_count);
            let upper = world.service.percentages.upper(world.service.desired_count);
            let starts: u32 = world.step().starts(&world.service).iter().map(|(_, count)| count).sum();
            prop_assert!(world.healthy() >= lower.min(healthy), "healthy {healthy} to {}, lower {lower}", world.healthy());
            prop_assert!(starts == 0 || world.live() <= upper.max(before), "live {before} to {}, upper {upper}", world.live());
            world.agents();
            world.now = world.now.plus_millis(1_000);
            if world.is_steady_on(2) && second > 200 {
                return Ok(());
            }
        }
        let steps = world.plan(false);
        // Tasks that crash at once are all there for a moment: then this very plan is what ends it.
        prop_assert!(world.is_steady_on(2) || steps.steady || !steps.why.is_empty(), "it neither ends nor says why");
        let can_end = matches!(fate, None | Some(Fate::Check(_))) && usize::try_from(world.service.desired_count).unwrap() < world.room;
        let upper = world.service.percentages.upper(world.service.desired_count);
        let lower = world.service.percentages.lower(world.service.desired_count);
        if can_end && (upper > world.service.desired_count || lower < world.service.desired_count) && breaker.is_none() {
            prop_assert!(world.is_steady_on(2), "stuck: {:?}", steps.why);
        }
    }
}
