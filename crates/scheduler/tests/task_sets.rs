//! Task sets under the service planner: shares are kept apart, deleted ones end.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use berth_model::ids::{DefinitionId, DeploymentId, Family};
use berth_model::service::{DeploymentController, Service, ServiceStatus};
use berth_model::task::{HealthStatus, LaunchType, StopCode, TaskStatus};
use berth_model::task_set::{Scale, StabilityStatus, TaskSet, TaskSetStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::service::task_set::{after, as_service};
use proptest::prelude::*;
use world::{World, service};

fn task_set(id: u64, percent: f64) -> TaskSet {
    TaskSet {
        id: DeploymentId(id),
        status: TaskSetStatus::Active,
        definition: DefinitionId { family: Family::parse("web").unwrap(), revision: 1 },
        launch_type: LaunchType::External,
        network_configuration: None,
        capacity_provider_strategy: Vec::new(),
        service_registries: Vec::new(),
        scale: Scale::from_percent(percent).unwrap(),
        external_id: None,
        client_token: None,
        tags: Default::default(),
        created_at: UnixMillis(0),
        updated_at: UnixMillis(0),
        stability: StabilityStatus::Stabilizing,
        stability_at: UnixMillis(0),
    }
}

fn external(desired: u32) -> Service {
    Service { controller: DeploymentController::External, deployments: Vec::new(), ..service(desired, 100, 200) }
}

/// What the services loop does with one task set.
fn step(world: &mut World, holder: &Service, set: &TaskSet) -> Option<TaskSet> {
    world.service = as_service(holder, set);
    let mut steps = world.step();
    after(set, &mut steps, &world.tasks, world.now)
}

fn run(world: &mut World, holder: &Service, set: &TaskSet, seconds: i64) -> Option<TaskSet> {
    let mut set = set.clone();
    for _ in 0..seconds {
        set = step(world, holder, &set)?;
        world.agents();
        world.now = world.now.plus_millis(1_000);
    }
    step(world, holder, &set)
}

#[test]
fn it_reaches_its_share_and_becomes_stable() {
    let (holder, mut world) = (external(5), World::new(external(5)));
    let set = run(&mut world, &holder, &task_set(7, 50.0), 3).expect("it stays");
    assert_eq!(world.live(), 3);
    assert_eq!(set.stability, StabilityStatus::SteadyState);
    assert!(set.stability_at > UnixMillis(0));
    assert!(world.tasks.iter().all(|task| task.deployment == DeploymentId(7)));
    world.stop(0, StopCode::EssentialContainerExited);
    let set = step(&mut world, &holder, &set).expect("it stays");
    assert_eq!(set.stability, StabilityStatus::Stabilizing);
    assert_eq!(world.live(), 3, "replaced at once");
}

#[test]
fn tasks_that_are_not_healthy_keep_it_from_being_stable() {
    let (holder, mut world) = (external(1), World::new(external(1)));
    let set = run(&mut world, &holder, &task_set(7, 100.0), 2).expect("it stays");
    world.tasks[0].has_check = true;
    let set = step(&mut world, &holder, &set).expect("it stays");
    assert_eq!(set.stability, StabilityStatus::Stabilizing);
    world.tasks[0].health = HealthStatus::Healthy;
    let mut steps = {
        world.service = as_service(&holder, &set);
        world.plan(false)
    };
    let set = after(&set, &mut steps, &world.tasks, world.now).expect("it stays");
    assert_eq!(set.stability, StabilityStatus::SteadyState);
    assert_eq!(steps.announcements, ["has reached a steady state."]);
}

#[test]
fn a_drained_machine_keeps_it_from_being_stable_until_its_tasks_are_replaced() {
    let (holder, mut world) = (external(3), World::new(external(3)));
    let set = run(&mut world, &holder, &task_set(7, 100.0), 60).expect("it stays");
    world.drain(1);
    let set = step(&mut world, &holder, &set).expect("it stays");
    assert_eq!(set.stability, StabilityStatus::Stabilizing);
    let set = run(&mut world, &holder, &set, 120).expect("it stays");
    assert_eq!((set.stability, world.live()), (StabilityStatus::SteadyState, 3));
    assert!(world.on(1).all(|task| task.last == TaskStatus::Stopped));
}

#[test]
fn a_deleted_one_ends_with_its_last_task() {
    let (holder, mut world) = (external(2), World::new(external(2)));
    let mut set = run(&mut world, &holder, &task_set(7, 100.0), 3).expect("it stays");
    set.status = TaskSetStatus::Draining;
    let set = step(&mut world, &holder, &set).expect("its tasks are still there");
    assert_eq!((world.live(), set.stability), (0, StabilityStatus::Stabilizing));
    world.agents();
    assert_eq!(step(&mut world, &holder, &set), None);
}

#[test]
fn a_deleted_service_ends_all_of_them() {
    let (mut holder, mut world) = (external(2), World::new(external(2)));
    let set = run(&mut world, &holder, &task_set(7, 100.0), 3).expect("it stays");
    holder.status = ServiceStatus::Draining;
    assert!(step(&mut world, &holder, &set).is_some());
    world.agents();
    assert_eq!(step(&mut world, &holder, &set), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    /// Whatever the numbers, and however they change: a task set ends up with exactly its share.
    #[test]
    fn a_task_set_always_ends_up_with_its_share(desired in 0_u32..20, scales in prop::collection::vec(0_u32..=100, 1..5)) {
        let (holder, mut world) = (external(desired), World::new(external(desired)));
        let mut set = task_set(7, 0.0);
        for percent in scales {
            set.scale = Scale::from_percent(f64::from(percent)).unwrap();
            set = run(&mut world, &holder, &set, 4).expect("it stays");
            prop_assert_eq!(world.live(), (desired * percent).div_ceil(100));
            prop_assert_eq!(set.stability, StabilityStatus::SteadyState);
        }
    }
}
