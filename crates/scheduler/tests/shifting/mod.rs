//! A service that goes through deployments with stages, under a virtual clock; after every plan an auditor looks whether the promises hold.

use std::cell::Cell;

use berth_model::ids::DeploymentId;
use berth_model::rollout::{ALL_TRAFFIC, Course, HookKind, HookStatus, LifecycleStage as Stage};
use berth_model::service::{DeploymentStatus, RolloutState};
use berth_model::service_deployment::{
    RevisionTally, ServiceDeployment, ServiceDeploymentId, ServiceDeploymentStatus as Status, ServiceRevision, ServiceRevisionId,
};
use berth_model::task::{DesiredStatus, StopCode, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::placement::Strategy;
use berth_scheduler::service::history::{advance, deployment, roll_back};
use berth_scheduler::service::shift::{ShiftPlan, ShiftView, begin, plan_shift};
use berth_scheduler::service::{Machine, ServiceView, TaskView};

use crate::world::{self, HEALTHY_AFTER, World, service};

/// Bake times are short against how long a task takes to count as healthy.
pub const MINUTE: i64 = 2_000;

pub fn revision(number: u64) -> ServiceRevision {
    let of = world::deployment(number, DeploymentStatus::Primary);
    let service = service(1, 100, 200);
    ServiceRevision {
        id: ServiceRevisionId(number),
        cluster: service.cluster,
        service: service.name,
        definition: of.definition,
        launch_type: service.launch_type,
        capacity_provider_strategy: Vec::new(),
        settings: service.settings,
        images: Vec::new(),
        created_at: UnixMillis(0),
    }
}

/// A service whose revision 1 has come out, and one deployment after the other with stages.
pub struct Shifting {
    pub world: World,
    pub records: Vec<ServiceDeployment>,
    next: u64,
    bits: Cell<u128>,
    /// Stages in which the current deployment was, its traffic there, each change once.
    pub seen: Vec<(Stage, u32, u32)>,
    /// New tasks of these deployments never run.
    pub broken: Vec<DeploymentId>,
}

impl Shifting {
    pub fn new(desired: u32) -> Self {
        let mut world = World::new(service(desired, 100, 200));
        world.service.deployments = vec![deployment(DeploymentId(1), &revision(1), ServiceDeploymentId::from_random(4), world.now)];
        world.run(60);
        world.service.completed_revision = Some(ServiceRevisionId(1));
        Self { world, records: Vec::new(), next: 2, bits: Cell::new(1), seen: Vec::new(), broken: Vec::new() }
    }

    pub fn deploy(&mut self, configure: impl FnOnce(&mut ServiceDeployment)) {
        let number = self.next;
        self.next += 1;
        let service = &mut self.world.service;
        let mut record = ServiceDeployment {
            id: ServiceDeploymentId::from_random(u128::from(number) << 2),
            cluster: service.cluster.clone(),
            service: service.name.clone(),
            status: Status::Pending,
            status_reason: None,
            sources: Vec::new(),
            target: RevisionTally::none(ServiceRevisionId(number)),
            candidate: service.completed_revision,
            configuration: Default::default(),
            rollback: None,
            rollout: None,
            breaker: None,
            triggered_alarms: Vec::new(),
            created_at: self.world.now,
            started_at: None,
            finished_at: None,
            stopped_at: None,
            updated_at: self.world.now,
        };
        record.configuration.strategy = Some("BLUE_GREEN".into());
        configure(&mut record);
        record.rollout = begin(service, DeploymentId(number), &Course::read(&record.configuration), self.world.now);
        service.deployments.iter_mut().for_each(|old| old.status = DeploymentStatus::Active);
        service.deployments.insert(0, deployment(DeploymentId(number), &revision(number), record.id, self.world.now));
        service.announced_steady = false;
        self.records.push(record);
        self.seen.clear();
    }

    pub fn record(&self) -> &ServiceDeployment {
        self.records.last().expect("one was deployed")
    }

    pub fn stage(&self) -> Stage {
        self.record().rollout.as_ref().expect("it has stages").stage
    }

    /// What the loop sees of the current deployment, if it still goes on.
    pub fn plan(&self) -> Option<ShiftPlan> {
        let record = self.record();
        if record.status.is_finished() {
            return None;
        }
        let service = ServiceView {
            service: &self.world.service,
            tasks: &self.world.tasks,
            healthy_after_millis: HEALTHY_AFTER,
            minute_millis: MINUTE,
            blocked: false,
            zones: Default::default(),
            strategies: &Strategy::service_default(),
            alarms: &self.world.alarms,
            machine: &|_| Machine::default(),
        };
        let bits = || {
            self.bits.set(self.bits.get() + 1);
            self.bits.get()
        };
        let view = ShiftView { service, record, target_healthy: None, bits: &bits };
        Some(plan_shift(&view, self.world.now))
    }

    pub fn of(&self, id: DeploymentId) -> impl Iterator<Item = &TaskView> {
        let own = self.world.service.deployments.iter().find(|own| own.id == id);
        self.world.tasks.iter().filter(move |task| own.map_or(task.deployment == id, |own| own.owns(task.deployment)))
    }

    pub fn healthy(&self, id: DeploymentId) -> u32 {
        let counts = |task: &&TaskView| {
            task.desired == DesiredStatus::Running
                && task.last == TaskStatus::Running
                && task.started_at.is_some_and(|at| self.world.now.since(at) >= HEALTHY_AFTER)
        };
        u32::try_from(self.of(id).filter(counts).count()).unwrap()
    }

    /// What the loop does once: a rollback that was asked for begins, or the plan is carried out. The auditor looks at each.
    pub fn step(&mut self) -> Vec<String> {
        let to = self.record().candidate.map(|candidate| revision(candidate.0));
        let fresh = DeploymentId(1_000 + self.next);
        if let Some(back) = roll_back(&self.world.service, self.record(), to.as_ref(), fresh, self.world.now) {
            self.world.service = back.service;
            *self.records.last_mut().unwrap() = back.record;
            self.note();
            return Vec::new();
        }
        let Some(plan) = self.plan() else {
            self.world.step();
            return Vec::new();
        };
        self.audit(&plan);
        self.world.commits += 1;
        for (deployment, count) in plan.steps.starts(&self.world.service) {
            for _ in 0..count {
                let id = berth_model::ids::TaskId(self.world.next);
                let (machine, commit) = (self.world.machine(), self.world.commits);
                self.world.tasks.push(TaskView::placed(id, deployment, machine, commit, self.world.now));
                self.world.next += 1;
            }
        }
        for stop in &plan.steps.stop {
            let task = self.world.tasks.iter_mut().find(|task| task.id == stop.task).expect("it is there");
            assert_eq!(task.desired, DesiredStatus::Running, "a task is stopped once");
            task.desired = DesiredStatus::Stopped;
            task.stop_code = Some(stop.code);
        }
        self.world.service.deployments.clone_from(&plan.steps.deployments);
        self.world.service.announced_steady = plan.steps.steady;
        self.world.events.extend(plan.steps.announcements.iter().cloned());
        let now = self.world.now;
        let service = &mut self.world.service;
        if let Some(primary) = service.primary().filter(|primary| primary.rollout_state == RolloutState::Completed) {
            service.completed_revision = primary.revision.or(service.completed_revision);
        }
        let next = advance(&plan.record, service, plan.steps.rollback, RevisionTally::none, now).unwrap_or(plan.record);
        *self.records.last_mut().unwrap() = next;
        self.note();
        plan.steps.why
    }

    pub fn note(&mut self) {
        let rollout = self.record().rollout.clone().expect("it has stages");
        let now = (rollout.stage, rollout.test_weight, rollout.production_weight);
        if self.seen.last() != Some(&now) {
            self.seen.push(now);
        }
    }

    pub fn audit(&self, plan: &ShiftPlan) {
        let (before, after) = (self.record(), &plan.record);
        let (from, to) = (before.rollout.as_ref().unwrap(), after.rollout.as_ref().unwrap());
        let goes_back = before.status == Status::RollbackInProgress;
        if !goes_back {
            let repeats = from.stage == Stage::ProductionTrafficShift && to.stage == Stage::PreProductionTrafficShift;
            assert!(to.stage >= from.stage || repeats || to.step > from.step, "{} after {}", to.stage, from.stage);
            assert!(to.test_weight >= from.test_weight && to.production_weight >= from.production_weight, "traffic goes to green");
        } else {
            assert!(to.test_weight <= from.test_weight && to.production_weight <= from.production_weight, "traffic goes back");
        }
        let Some((blue, green)) = from.blue.zip(from.green) else { return };
        let desired = self.world.service.desired_count;
        let stopped = |id: DeploymentId| {
            let is_healthy = |task: &&TaskView| {
                task.last == TaskStatus::Running && task.started_at.is_some_and(|at| self.world.now.since(at) >= HEALTHY_AFTER)
            };
            let stops = |task: &&TaskView| plan.steps.stop.iter().any(|stop| stop.task == task.id);
            u32::try_from(self.of(id).filter(is_healthy).filter(stops).count()).unwrap()
        };
        let serves = |id: DeploymentId| self.healthy(id).saturating_sub(stopped(id)) >= desired.min(self.healthy(id));
        if goes_back || to.stage < Stage::CleanUp {
            assert!(
                serves(blue),
                "blue's healthy tasks are {} and {} of them stop, {desired} are wanted",
                self.healthy(blue),
                stopped(blue)
            );
        } else {
            assert!(serves(green));
            assert_eq!(to.production_weight, ALL_TRAFFIC, "blue stops when no traffic is its");
        }
        if goes_back && stopped(green) > 0 {
            assert_eq!((to.test_weight, to.production_weight), (0, 0), "green stops when the traffic is back");
        }
        let starts = plan.steps.starts(&self.world.service);
        assert!(starts.iter().all(|(deployment, _)| *deployment == blue || *deployment == green), "{starts:?}");
    }

    pub fn agents(&mut self) {
        for at in 0..self.world.tasks.len() {
            let task = &self.world.tasks[at];
            let never_runs = self.broken.contains(&task.deployment) && task.last == TaskStatus::Pending;
            if never_runs && task.desired == DesiredStatus::Running {
                self.world.stop(at, StopCode::TaskFailedToStart);
            }
        }
        self.world.agents();
    }

    pub fn run(&mut self, seconds: i64) -> Vec<String> {
        let mut why = Vec::new();
        for _ in 0..seconds {
            why = self.step();
            self.agents();
            self.world.now = self.world.now.plus_millis(1_000);
        }
        why
    }

    pub fn run_until(&mut self, stage: Stage) {
        for _ in 0..2_000 {
            if self.stage() == stage {
                return;
            }
            self.run(1);
        }
        panic!("it is in {} and not in {stage}: {:?}", self.stage(), self.step());
    }

    pub fn ask_back(&mut self) {
        let record = self.records.last_mut().unwrap();
        if matches!(record.status, Status::Pending | Status::InProgress) {
            record.status = Status::RollbackRequested;
            record.status_reason = Some("why".to_owned());
        }
    }

    /// Ends open hooks of a kind, as their callers would.
    pub fn settle(&mut self, kind: HookKind, status: HookStatus) -> usize {
        let hooks = self.records.last_mut().unwrap().rollout.iter_mut().flat_map(|rollout| &mut rollout.hooks);
        hooks.filter(|run| run.kind == kind && run.is_open()).map(|run| run.close(status, Some("said so".to_owned()))).count()
    }

    pub fn is_back_on(&self, id: u64) -> bool {
        let service = &self.world.service;
        service.deployments.len() == 1
            && service.primary().is_some_and(|primary| primary.id == DeploymentId(id) && primary.rollout_state == RolloutState::Completed)
            && self.world.live() == service.desired_count
    }
}

pub fn hook(record: &mut ServiceDeployment, kind: HookKind, stages: &[Stage]) {
    let hooks = record.configuration.lifecycle_hooks.get_or_insert_default();
    hooks.push(Default::default());
    let hook = hooks.last_mut().unwrap();
    hook.target_type = Some(kind.as_str().into());
    hook.lifecycle_stages = Some(stages.iter().map(|stage| stage.as_str().into()).collect());
}

pub fn bake(record: &mut ServiceDeployment, minutes: i32) {
    record.configuration.bake_time_in_minutes = Some(minutes);
}
