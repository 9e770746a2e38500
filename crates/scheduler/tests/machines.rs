//! The service planner where machines fall silent, come back and are drained, and where tasks are protected.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use berth_model::ids::ContainerInstanceId;
use berth_model::task::{DesiredStatus, TaskStatus};
use berth_model::time::UnixMillis;
use proptest::prelude::*;
use world::{World, service};

#[test]
fn tasks_of_a_lost_machine_are_replaced_and_told_to_stop_when_others_run() {
    let mut world = World::new(service(3, 100, 200));
    world.run(60);
    world.silence(1, 5);
    let waiting = world.step();
    assert_eq!((waiting.start, waiting.wake_at), (0, Some(UnixMillis(65_000))), "the machine may come back");
    world.now = UnixMillis(65_000);
    let steps = world.step();
    assert_eq!((steps.start, steps.stop.len()), (1, 0), "nothing is given up before its replacement runs");
    world.agents();
    let steps = world.step();
    assert_eq!(steps.stop.len(), 1);
    assert!(steps.stop[0].reason.starts_with("Container instance 00000000000000000000000000000001 is not heard of"), "{steps:?}");
    world.step();
    assert!(world.is_steady_on(1), "{:?}", world.plan(false).why);
    world.comes_back(1);
    world.run(5);
    assert!(world.on(1).all(|task| task.last == TaskStatus::Stopped), "what was replaced ends where it comes back");
    assert!(world.is_steady_on(1));
}

#[test]
fn a_machine_that_comes_back_before_its_tasks_were_replaced_keeps_them() {
    let mut world = World::new(service(3, 100, 200));
    world.run(60);
    world.silence(1, 5);
    world.now = world.now.plus_millis(6_000);
    assert_eq!(world.step().start, 1);
    world.comes_back(1);
    let steps = world.step();
    let stopped = world.tasks.iter().find(|task| task.id == steps.stop[0].task).expect("a task of ours");
    assert_eq!((steps.stop.len(), stopped.last), (1, TaskStatus::Pending), "the replacement goes, it has not run yet");
    world.run(3);
    assert!(world.is_steady_on(1));
    assert!(world.on(1).any(|task| task.last == TaskStatus::Running));
}

#[test]
fn a_drained_machines_tasks_are_replaced_before_they_stop() {
    let mut world = World::new(service(3, 100, 200));
    world.run(60);
    world.drain(1);
    let steps = world.step();
    assert_eq!((steps.start, steps.stop.len()), (1, 0));
    for _ in 0..60 {
        world.run(1);
        assert!(world.healthy() >= 3, "minimumHealthyPercent 100 of 3");
    }
    assert!(world.is_steady_on(1), "{:?}", world.plan(false).why);
    assert!(world.on(1).all(|task| task.last == TaskStatus::Stopped));
}

#[test]
fn what_has_not_come_up_on_a_drained_machine_ends_at_once() {
    let mut world = World::new(service(3, 100, 200));
    world.step();
    world.drain(1);
    let steps = world.step();
    assert_eq!((steps.start, steps.stop.len()), (1, 1));
    world.run(60);
    assert!(world.is_steady_on(1));
    assert!(world.on(1).all(|task| task.started_at.is_none()));
}

#[test]
fn percentages_of_a_hundred_leave_a_drained_machine_as_it_is_and_say_so() {
    let mut world = World::new(service(3, 100, 100));
    world.run(60);
    world.drain(1);
    world.run(60);
    assert_eq!(world.healthy(), 3);
    assert!(world.plan(false).announcements.iter().any(|text| text.contains("minimumHealthyPercent or maximumPercent")));
}

#[test]
fn protected_tasks_stay_until_their_time_is_over() {
    let mut world = World::new(service(3, 0, 200));
    world.run(60);
    let until = world.now.plus_millis(100_000);
    world.tasks[0].protected_until = Some(until);
    let protected = world.tasks[0].id;
    world.service.desired_count = 0;
    let steps = world.step();
    assert_eq!(steps.stop.len(), 2);
    assert!(steps.stop.iter().all(|stop| stop.task != protected));
    assert_eq!(steps.wake_at, Some(until));
    world.service.desired_count = 3;
    world.deploy(2);
    world.run(90);
    assert_eq!(world.tasks[0].desired, DesiredStatus::Running, "deployments leave it alone as well");
    assert!(!world.service.announced_steady);
    world.run(60);
    assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
}

#[test]
fn nobody_takes_a_protected_tasks_place_while_its_machine_is_away() {
    let mut world = World::new(service(3, 100, 200));
    world.run(60);
    world.silence(1, 1);
    let lost = world.tasks.iter().position(|task| task.instance == ContainerInstanceId(1)).expect("one each");
    world.tasks[lost].protected_until = Some(world.now.plus_millis(30_000));
    world.now = world.now.plus_millis(29_000);
    assert_eq!(world.plan(false).start, 0, "there must never be two of it");
    world.now = world.now.plus_millis(2_000);
    assert_eq!(world.plan(false).start, 1);
}

#[test]
fn a_service_that_has_no_other_machine_keeps_what_it_had() {
    let mut world = World::new(service(3, 0, 200));
    world.run(60);
    world.room = 0;
    (0..3).for_each(|machine| world.silence(machine, 1));
    world.now = world.now.plus_millis(60_000);
    let steps = world.plan(true);
    assert_eq!((steps.start, steps.stop.len()), (3, 0));
    (0..3).for_each(|machine| world.comes_back(machine));
    assert!(world.plan(false).stop.is_empty() && world.plan(false).start == 0);
}

#[test]
fn a_deployment_ends_though_an_old_task_is_on_a_lost_machine() {
    let mut world = World::new(service(3, 50, 200));
    world.run(60);
    world.silence(2, 5);
    world.deploy(2);
    world.run(120);
    assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
    assert!(world.on(2).all(|task| task.desired == DesiredStatus::Stopped));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// Machines fall silent and come back in the middle of a deployment: it ends all the same, and no decision of ours takes healthy
    /// tasks below the minimum.
    #[test]
    fn a_deployment_survives_machines(
        desired in 1_u32..12,
        minimum in 0_u32..100,
        losses in prop::collection::vec((0_i64..200, 0_u128..3, 1_i64..60), 0..6),
    ) {
        let mut world = World::new(service(desired, minimum, 200));
        world.run(60);
        let lower = world.service.percentages.lower(desired);
        world.deploy(2);
        let from = world.now;
        for second in 0..1_000 {
            for (at, machine, away) in &losses {
                if second == *at && world.silent.len() < 2 {
                    world.silence(*machine, 5);
                }
                if second == at + away {
                    world.comes_back(*machine);
                }
            }
            let before = world.healthy();
            let steps = world.step();
            prop_assert!(world.healthy() >= lower.min(before), "healthy {} of {before}, below {lower}: {steps:?}", world.healthy());
            world.agents();
            world.now = from.plus_millis((second + 1) * 1_000);
        }
        prop_assert!(world.silent.is_empty());
        prop_assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
        prop_assert!(world.tasks.iter().filter(|task| task.last != TaskStatus::Stopped).count() == usize::try_from(desired).unwrap());
    }
}
