//! The service planner, by a small simulation under a virtual clock: after every step an auditor looks whether the promises hold.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use berth_model::ids::DeploymentId;
use berth_model::service::ServiceStatus;
use berth_model::task::{StopCode, TaskStatus};
use proptest::prelude::*;
use world::{Fate, World, service};

#[test]
fn a_service_reaches_its_count_and_says_so_once() {
    let mut world = World::new(service(3, 100, 200));
    world.run(5);
    assert!(world.is_steady_on(1));
    let steady = world.events.iter().filter(|event| *event == "has reached a steady state.").count();
    assert_eq!(steady, 1);
    assert!(world.plan(false).is_idle(&world.service), "the steady state needs nothing");
}

#[test]
fn what_dies_is_replaced_at_once() {
    let mut world = World::new(service(2, 100, 200));
    world.run(60);
    world.stop(0, StopCode::EssentialContainerExited);
    assert_eq!(world.step().start, 1);
    world.agents();
    world.step();
    assert!(world.is_steady_on(1));
}

#[test]
fn scaling_in_stops_the_surplus_and_pending_tasks_first() {
    let mut world = World::new(service(2, 100, 200));
    world.run(60);
    world.service.desired_count = 3;
    world.step();
    world.service.desired_count = 2;
    let steps = world.step();
    assert_eq!(steps.stop.len(), 1);
    let stopped = world.tasks.iter().find(|task| task.id == steps.stop[0].task).unwrap();
    assert_eq!(stopped.last, TaskStatus::Pending);
    assert!(steps.stop[0].reason.starts_with("Scaling activity initiated by (deployment ecs-svc/"));
}

#[test]
fn a_rolling_update_waits_until_new_tasks_count_as_healthy() {
    let mut world = World::new(service(2, 100, 200));
    world.run(60);
    world.deploy(2);
    world.run(30);
    assert_eq!(world.live(), 4, "old tasks stay while new ones have run for less than 40 s");
    world.run(30);
    assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
}

#[test]
fn without_room_old_tasks_make_some_down_to_the_minimum() {
    let mut world = World::new(service(4, 50, 100));
    world.room = 4;
    world.run(60);
    world.deploy(2);
    for _ in 0..400 {
        world.run(1);
        assert!(world.healthy() >= 2, "minimumHealthyPercent 50 of 4");
    }
    assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
}

#[test]
fn a_minimum_and_maximum_of_a_hundred_wait_for_ever_and_say_why() {
    let mut world = World::new(service(2, 100, 100));
    world.run(60);
    world.deploy(2);
    world.run(600);
    let steps = world.plan(false);
    assert_eq!((steps.start, steps.stop.len()), (0, 0));
    assert!(steps.why.iter().any(|why| why.contains("maximumPercent")), "{:?}", steps.why);
}

#[test]
fn tasks_that_never_run_are_throttled_ever_longer() {
    let mut world = World::new(service(1, 100, 200));
    let mut starts = Vec::new();
    for _ in 0..600 {
        if world.step().start > 0 {
            starts.push(world.now.0 / 1000);
            let newest = world.tasks.len() - 1;
            world.stop(newest, StopCode::TaskFailedToStart);
        }
        world.now = world.now.plus_millis(1_000);
    }
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] >= pair[0] * 2 - 1), "{gaps:?}");
    assert!(world.events.iter().any(|event| event.contains("unable to consistently start tasks")));
}

#[test]
fn no_old_task_makes_room_for_another_old_one() {
    let mut world = World::new(service(3, 66, 200));
    world.run(60);
    world.fates.insert(DeploymentId(2), Fate::NeverRun);
    world.deploy(2);
    // The new ones have failed so often that the next attempt is some time off; then two old ones go, and somebody else takes a place.
    world.run(60);
    for task in 0..2 {
        world.stop(task, StopCode::EssentialContainerExited);
    }
    world.room = 2;
    let before = world.tasks.len();
    let (mut restored, mut stopped) = (0, 0);
    for _ in 0..3 {
        let steps = world.step();
        assert_eq!(steps.start, 0, "an attempt of the new ones would make room: {:?}", steps.why);
        restored = world.tasks.len() - before;
        stopped += steps.stop.len();
    }
    assert_eq!((restored, stopped), (1, 0));
}

#[test]
fn what_cannot_be_restored_does_not_keep_new_tasks_out() {
    let mut world = World::new(service(4, 50, 100));
    world.run(60);
    world.stop(0, StopCode::EssentialContainerExited);
    world.deploy(2);
    // The maximum allows one task more, which the old deployment lost; nothing is placed as long as three are there.
    world.room = 3;
    world.run(60);
    assert!(world.tasks.iter().any(|task| task.deployment == DeploymentId(2)), "{:?}", world.plan(false).why);
}

#[test]
fn a_lower_desired_count_does_not_make_more_attempts_of_what_failed() {
    let mut world = World::new(service(8, 100, 200));
    for _ in 0..3 {
        while world.step().start == 0 {
            world.now = world.now.plus_millis(500);
        }
        for task in world.tasks.len() - 8..world.tasks.len() {
            world.stop(task, StopCode::TaskFailedToStart);
        }
    }
    let wait = |world: &World| world.plan(false).wake_at.map_or(0, |at| at.since(world.now));
    let before = wait(&world);
    assert!((1_000..=4_000).contains(&before), "three attempts: {before} ms");
    world.service.desired_count = 1;
    assert_eq!(wait(&world), before);
}

#[test]
fn a_clock_that_was_set_back_holds_up_no_start() {
    let mut world = World::new(service(1, 100, 200));
    // Four failures in a row; each of the tasks lives for half a minute.
    for _ in 0..120 {
        if world.step().start > 0 {
            world.now = world.now.plus_millis(30_000);
            let newest = world.tasks.len() - 1;
            world.stop(newest, StopCode::TaskFailedToStart);
        }
        world.now = world.now.plus_millis(1_000);
    }
    let (failed, back) = (world.tasks.len(), world.now.plus_millis(-3_600_000));
    assert!(failed > 3);
    world.now = back;
    // What ended in an hour from now says nothing of when to try again; the tasks that fail from now on do.
    assert_eq!(world.step().start, 1);
    let newest = world.tasks.len() - 1;
    world.stop(newest, StopCode::TaskFailedToStart);
    assert_eq!(world.plan(false).start, 0, "it is throttled as before");
    assert!(world.plan(false).wake_at.is_some_and(|at| at.since(back) <= 27 * 60 * 1_000), "{:?}", world.plan(false).wake_at);
}

#[test]
fn attempts_follow_each_other_in_the_order_of_their_commits() {
    let mut world = World::new(service(1, 100, 200));
    let attempt = |world: &mut World| {
        let started = world.step().start > 0;
        if started {
            let newest = world.tasks.len() - 1;
            world.stop(newest, StopCode::TaskFailedToStart);
        }
        world.now = world.now.plus_millis(10_000);
        started
    };
    // Until waits are as long as they get.
    while world.tasks.len() < 13 {
        attempt(&mut world);
    }
    // From here on it is planned by a peer whose clock is 18 minutes behind. When that reaches the time of the other's last attempt, its own
    // are the newer ones all the same.
    world.now = world.now.plus_millis(-18 * 60_000);
    let began = world.tasks.len();
    let mut waits = vec![0];
    for _ in 0..3 * 360 {
        *waits.last_mut().expect("the first") += 10;
        if attempt(&mut world) {
            waits.push(0);
        }
    }
    assert!(world.tasks.len() > began + 3, "waits of {waits:?} seconds");
    assert!(waits.iter().all(|wait| *wait <= 27 * 60 + 10), "waits of {waits:?} seconds");
}

#[test]
fn a_start_that_another_clock_told_counts_from_the_creation() {
    let mut world = World::new(service(2, 100, 200));
    world.run(60);
    world.deploy(2);
    world.run(1);
    for task in world.tasks.iter_mut().filter(|task| task.deployment.0 == 2) {
        task.started_at = task.started_at.map(|at| at.plus_millis(3_600_000));
    }
    world.run(100);
    assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
}

#[test]
fn a_deleted_service_drains_and_ends() {
    let mut world = World::new(service(2, 100, 200));
    world.run(5);
    world.service.status = ServiceStatus::Draining;
    world.service.desired_count = 0;
    world.step();
    assert_eq!(world.live(), 0);
    world.agents();
    world.step();
    assert_eq!(world.service.status, ServiceStatus::Inactive);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// Whatever the numbers: a deployment never takes healthy tasks below the minimum, never makes more than the maximum, and ends.
    #[test]
    fn a_deployment_keeps_its_promises(desired in 1_u32..12, minimum in 0_u32..=100, maximum in 100_u32..=200, spare in 0_usize..4) {
        let mut world = World::new(service(desired, minimum, maximum));
        world.room = usize::try_from(desired).unwrap() + spare;
        world.run(60);
        prop_assert!(world.is_steady_on(1));
        let lower = world.service.percentages.lower(desired);
        let upper = world.service.percentages.upper(desired);
        world.deploy(2);
        for _ in 0..4_000 {
            world.step();
            prop_assert!(world.healthy() >= lower, "healthy {} below {lower}", world.healthy());
            prop_assert!(world.live() <= upper.max(desired), "live {} above {upper}", world.live());
            world.agents();
            world.now = world.now.plus_millis(1_000);
            if world.is_steady_on(2) {
                return Ok(());
            }
        }
        // It can only hang where the numbers leave no way: nothing may be stopped first and nothing started first.
        let can_start_first = upper > desired && spare > 0;
        let can_stop_first = lower < desired;
        prop_assert!(!can_start_first && !can_stop_first, "stuck: {:?}", world.plan(false).why);
        if upper <= desired {
            // Then it says what the user has to change.
            let said = world.plan(false).announcements.iter().any(|text| text.contains("because of the service deployment configuration"));
            prop_assert!(said, "silent: {:?}", world.plan(false).why);
        }
    }
}
