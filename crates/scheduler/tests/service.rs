//! The service planner, by a small simulation under a virtual clock: plans are carried out, tasks come up and die, and after every
//! step an auditor looks whether the promises hold.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::ids::{ClusterName, ContainerInstanceId, DefinitionId, DeploymentId, Family, ServiceName, TaskId};
use berth_model::service::{Deployment, DeploymentStatus, Percentages, RolloutState, Service, ServiceStatus};
use berth_model::task::{DesiredStatus, HealthStatus, LaunchType, StopCode, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::service::{ServicePlan, ServiceView, TaskView, plan};
use proptest::prelude::*;

const HEALTHY_AFTER: i64 = 40_000;

fn deployment(id: u64, status: DeploymentStatus) -> Deployment {
    Deployment {
        id: DeploymentId(id),
        status,
        definition: DefinitionId { family: Family::parse("web").unwrap(), revision: u32::try_from(id).unwrap() },
        created_at: UnixMillis(0),
        updated_at: UnixMillis(0),
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: String::new(),
    }
}

fn service(desired_count: u32, minimum_healthy: u32, maximum: u32) -> Service {
    Service {
        name: ServiceName::parse("web").unwrap(),
        cluster: ClusterName::parse("c").unwrap(),
        status: ServiceStatus::Active,
        desired_count,
        launch_type: LaunchType::Ec2,
        percentages: Percentages { minimum_healthy, maximum },
        deployments: vec![deployment(1, DeploymentStatus::Primary)],
        settings: Default::default(),
        tags: Default::default(),
        created_at: UnixMillis(0),
        created_by: String::new(),
        next_event: 0,
        announced_steady: false,
        announced_failure: None,
        client_token: None,
    }
}

/// A service with its tasks and a machine that can hold `room` of them.
struct World {
    service: Service,
    tasks: Vec<TaskView>,
    now: UnixMillis,
    room: usize,
    next: u128,
    events: Vec<String>,
    /// Machines that are not heard of, with when they count as lost.
    silent: BTreeMap<ContainerInstanceId, UnixMillis>,
    /// Machines that are DRAINING.
    drained: BTreeSet<ContainerInstanceId>,
}

impl World {
    fn new(service: Service) -> Self {
        Self {
            service,
            tasks: Vec::new(),
            now: UnixMillis(0),
            room: 1_000,
            next: 1,
            events: Vec::new(),
            silent: BTreeMap::new(),
            drained: BTreeSet::new(),
        }
    }

    fn holding(&self) -> usize {
        self.tasks.iter().filter(|task| task.last != TaskStatus::Stopped && !self.silent.contains_key(&task.instance)).count()
    }

    fn healthy(&self) -> u32 {
        let counts = |task: &&TaskView| {
            task.desired == DesiredStatus::Running
                && task.last == TaskStatus::Running
                && !self.is_lost(task)
                && task.started_at.is_some_and(|at| self.now.since(at) >= HEALTHY_AFTER)
        };
        u32::try_from(self.tasks.iter().filter(counts).count()).unwrap()
    }

    fn is_lost(&self, task: &TaskView) -> bool {
        task.lost_at.is_some_and(|at| at <= self.now)
    }

    fn live(&self) -> u32 {
        let counts = |task: &&TaskView| task.desired == DesiredStatus::Running && task.last != TaskStatus::Stopped && !self.is_lost(task);
        u32::try_from(self.tasks.iter().filter(counts).count()).unwrap()
    }

    fn plan(&self, blocked: bool) -> ServicePlan {
        let view = ServiceView { service: &self.service, tasks: &self.tasks, healthy_after_millis: HEALTHY_AFTER, blocked };
        plan(&view, self.now)
    }

    /// What the services loop does with a plan.
    fn step(&mut self) -> ServicePlan {
        let mut steps = self.plan(false);
        let start = usize::try_from(steps.start).unwrap().min(self.room.saturating_sub(self.holding()));
        if steps.start > 0 && start == 0 {
            steps = self.plan(true);
        }
        let primary = self.service.primary().id;
        for _ in 0..start {
            let task = TaskView {
                id: TaskId(self.next),
                deployment: primary,
                desired: DesiredStatus::Running,
                last: TaskStatus::Pending,
                health: HealthStatus::Unknown,
                has_check: false,
                instance: self.machine(),
                zone: None,
                created_at: self.now,
                started_at: None,
                stopped_at: None,
                stop_code: None,
                lost_at: None,
                draining: false,
                protected_until: None,
            };
            self.next += 1;
            self.tasks.push(task);
        }
        for stop in &steps.stop {
            let task = self.tasks.iter_mut().find(|task| task.id == stop.task).expect("a plan stops tasks that are there");
            assert_eq!(task.desired, DesiredStatus::Running, "a task is stopped once");
            task.desired = DesiredStatus::Stopped;
            task.stop_code = Some(stop.code);
        }
        self.service.deployments.clone_from(&steps.deployments);
        self.service.status = steps.status;
        self.service.announced_steady = steps.steady;
        self.events.extend(steps.announcements.iter().cloned());
        steps
    }

    /// One of three machines that takes tasks.
    fn machine(&self) -> ContainerInstanceId {
        let from = self.next % 3;
        let mut all = (0..3).map(|more| ContainerInstanceId((from + more) % 3));
        all.find(|id| !self.silent.contains_key(id) && !self.drained.contains(id)).expect("one takes tasks")
    }

    /// A machine is drained: nothing new comes to it.
    fn drain(&mut self, machine: u128) {
        self.drained.insert(ContainerInstanceId(machine));
        for task in self.tasks.iter_mut().filter(|task| task.instance == ContainerInstanceId(machine)) {
            task.draining = true;
        }
    }

    /// A machine is not heard of any more; after `grace` seconds it counts as lost.
    fn silence(&mut self, machine: u128, grace: i64) {
        let lost_at = self.now.plus_millis(grace * 1_000);
        self.silent.insert(ContainerInstanceId(machine), lost_at);
        for task in self.tasks.iter_mut().filter(|task| task.instance == ContainerInstanceId(machine)) {
            task.lost_at = Some(lost_at);
        }
    }

    fn comes_back(&mut self, machine: u128) {
        self.silent.remove(&ContainerInstanceId(machine));
        for task in self.tasks.iter_mut().filter(|task| task.instance == ContainerInstanceId(machine)) {
            task.lost_at = None;
        }
    }

    fn on(&self, machine: u128) -> impl Iterator<Item = &TaskView> {
        self.tasks.iter().filter(move |task| task.instance == ContainerInstanceId(machine))
    }

    fn stop(&mut self, at: usize, code: StopCode) {
        let task = &mut self.tasks[at];
        task.desired = DesiredStatus::Stopped;
        task.last = TaskStatus::Stopped;
        task.stopped_at = Some(self.now);
        task.stop_code.get_or_insert(code);
    }

    /// Agents do what is asked: pending tasks run, tasks that should stop end.
    fn agents(&mut self) {
        for at in 0..self.tasks.len() {
            let task = &mut self.tasks[at];
            if self.silent.contains_key(&task.instance) {
                continue;
            }
            match (task.desired, task.last) {
                (DesiredStatus::Running, TaskStatus::Pending) => {
                    task.last = TaskStatus::Running;
                    task.started_at = Some(self.now);
                }
                (DesiredStatus::Stopped, last) if last != TaskStatus::Stopped => self.stop(at, StopCode::UserInitiated),
                _ => {}
            }
        }
    }

    fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.step();
            self.agents();
            self.now = self.now.plus_millis(1_000);
        }
        self.step();
    }

    fn deploy(&mut self, id: u64) {
        for deployment in &mut self.service.deployments {
            deployment.status = DeploymentStatus::Active;
        }
        self.service.deployments.insert(0, deployment(id, DeploymentStatus::Primary));
        self.service.announced_steady = false;
    }

    fn is_steady_on(&self, id: u64) -> bool {
        self.service.announced_steady
            && self.service.deployments.len() == 1
            && self.service.primary().id == DeploymentId(id)
            && self.service.primary().rollout_state == RolloutState::Completed
            && self.live() == self.service.desired_count
    }
}

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
