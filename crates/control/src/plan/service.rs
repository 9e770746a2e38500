//! How a service would go on from its state, or from what an UpdateService would make of it: plan after plan, each carried out on a scratch
//! copy, until it is steady or nothing more can happen. Tasks are assumed to come up and to be healthy as soon as they may count as such, and
//! lifecycle hooks to succeed at once.

use std::collections::HashMap;

use berth_model::ids::{ContainerInstanceId, DeploymentId, TaskId};
use berth_model::needs::Demand;
use berth_model::service::Service;
use berth_model::service_deployment::ServiceDeployment;
use berth_model::task::{DesiredStatus, HealthStatus, LaunchType, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::capacity::{self, CapacityPlacement};
use berth_scheduler::placement::Index;
use berth_scheduler::service::{DaemonInstance, DaemonPlan, ServicePlan, TaskView, plan};

use super::fleet::Fleet;
use super::stages::Stages;
use super::{FleetChange, Forecast, Step};
use crate::fargate;
use crate::launch::TaskTemplate;
use crate::owner::Rules;
use crate::services::{by_provider, daemon, is_checked_essential, machine, strategies, template, views};
use crate::shifts;
use crate::why::{Reason, Sight, count, no_capacity, refused};

/// Most plans that are made for one answer. A deployment that takes more is told of as far as that.
const MOST_PLANS: usize = 300;

/// What is thought to have happened so far. Nothing in it is the state's: commits wait for whoever holds that.
pub(crate) struct Rehearsal {
    fleet: Fleet,
    service: Service,
    tasks: Vec<TaskView>,
    demands: HashMap<TaskId, Demand>,
    /// What the tasks of each deployment are made of.
    templates: Vec<Template>,
    now: UnixMillis,
    rules: Rules,
    next_id: u128,
    /// Tasks started, and stopped, at once.
    most: usize,
    others: Option<Reason>,
    /// What the container instances are to it, if it is a DAEMON service. Tasks of others are thought to stay.
    instances: Vec<DaemonInstance>,
    /// The stages that its current deployment goes through, if it has some.
    stages: Option<Stages>,
}

struct Template {
    deployment: DeploymentId,
    made: TaskTemplate,
    /// Tasks that each item of the capacity provider strategy has.
    by_provider: Vec<u32>,
}

/// Plays a service through.
pub(crate) fn service(mut rehearsal: Rehearsal) -> Forecast {
    let begin = rehearsal.now;
    let mut steps = Vec::new();
    let mut last = None;
    let mut is_over = false;
    for _ in 0..MOST_PLANS {
        let (plan, placement, started) = rehearsal.act();
        let (start, stop) = (u32::try_from(started).unwrap_or(u32::MAX), u32::try_from(plan.stop.len()).unwrap_or(u32::MAX));
        if start + stop > 0 {
            let after_seconds = rehearsal.now.since(begin) / 1_000;
            steps.push(Step { after_seconds, start, stop, tasks: rehearsal.live() });
        }
        let wake_at = plan.wake_at.filter(|at| *at > rehearsal.now);
        let is_steady = plan.steady;
        last = Some((plan, placement));
        let moved = rehearsal.come_true() | rehearsal.stages.as_mut().is_some_and(Stages::answer_hooks);
        let fails = rehearsal.stages.as_ref().is_some_and(|stages| stages.failure().is_some());
        if is_steady || fails || (start + stop == 0 && !moved && wake_at.is_none()) {
            is_over = true;
            break;
        }
        if start + stop == 0 && !moved {
            rehearsal.now = wake_at.unwrap_or(rehearsal.now);
        }
    }
    rehearsal.tell(steps, last, is_over)
}

impl Rehearsal {
    /// Takes from the state what it takes. `begun`: the service's current deployment, if that is not in the state. `most`: tasks started, and
    /// stopped, at once.
    pub(crate) fn new(
        sight: &Sight<'_>,
        (service, begun): (&Service, Option<&ServiceDeployment>),
        change: &FleetChange,
        most: usize,
    ) -> Self {
        let record = begun.or_else(|| shifts::ongoing(sight.state, service).map(|record| &*record.value));
        let is_gone = |id: &ContainerInstanceId| change.remove.contains(id);
        let tasks: Vec<_> = views(sight.state, service, &sight.rules.absence).into_iter().filter(|task| !is_gone(&task.instance)).collect();
        let demand = |task: &TaskView| Some((task.id, sight.state.task(task.id)?.demand.clone()));
        let template = |id: DeploymentId| {
            let made = template(sight.state, service, id, sight.constraints)?;
            let by_provider = by_provider(sight.state, service, id, &made.capacity_provider_strategy);
            Some(Template { deployment: id, made, by_provider })
        };
        let templates: Vec<_> = service.deployments.iter().filter_map(|own| template(own.id)).collect();
        let fleet = Fleet::new(sight.state, sight.scope, (&service.cluster, service.launch_type), change, sight.now);
        let primary = service.primary().filter(|_| service.is_daemon()).map(|primary| primary.id);
        let instances = templates.iter().find(|own| Some(own.deployment) == primary).map(|own| {
            let records = fleet.records.iter().map(|record| &**record);
            daemon::instances(sight.state, service, &own.made, &sight.rules.absence, records)
        });
        Self {
            fleet,
            instances: instances.unwrap_or_default(),
            demands: tasks.iter().filter_map(demand).collect(),
            service: service.clone(),
            tasks,
            now: sight.now,
            rules: sight.rules,
            next_id: u128::MAX,
            templates,
            most,
            others: others(sight, service, change),
            stages: record.and_then(|record| Stages::of(record.clone(), sight.now)),
        }
    }

    /// Makes the next plan as the services loop does, places what it starts, and notes what it stops.
    fn act(&mut self) -> (ServicePlan, CapacityPlacement, usize) {
        let most = self.most;
        if self.service.is_daemon() {
            return self.act_as_daemon();
        }
        let strategies = strategies(&self.service);
        let (service, tasks, now, rules) = (&self.service, self.tasks.as_slice(), self.now, self.rules);
        let record = self.stages.as_ref().map(|stages| &stages.record);
        let plan_now = |index: &Index, blocked| {
            let machine = |id| machine(index, service.launch_type, id);
            let view = rules.view(service, tasks, blocked, &strategies, &machine);
            match record {
                // Nobody is told of the hooks that begin here: their ids do not matter.
                Some(record) => shifts::planned(view, record, &|| 0, now),
                None => (plan(&view, now), None),
            }
        };
        let (mut steps, staged) = plan_now(&self.fleet.index, false);
        steps.limit(most);
        let mut placement = CapacityPlacement::default();
        let mut placed = Vec::new();
        let mut tried = 0;
        for (deployment, count) in steps.starts(&self.service) {
            let Some(at) = self.templates.iter().position(|own| own.deployment == deployment) else { continue };
            let Template { made, by_provider, .. } = &mut self.templates[at];
            // From the end of all ids, where no task is.
            let ids: Vec<_> = (0..u128::from(count)).map(|number| TaskId(self.next_id - number)).collect();
            self.next_id -= u128::from(count);
            tried += ids.len();
            let strategy = &made.capacity_provider_strategy;
            let seed = u64::try_from(self.tasks.len()).unwrap_or(u64::MAX);
            let found = capacity::place(&mut self.fleet.index, &made.place_request(&ids, seed), strategy, by_provider);
            for (item, has) in strategy.iter().zip(by_provider) {
                let more = found.placed.iter().filter(|(_, _, provider)| provider.as_ref() == Some(&item.provider)).count();
                *has += u32::try_from(more).unwrap_or(u32::MAX);
            }
            placed.extend(found.placed.iter().map(|(id, instance, _)| (at, *id, *instance)));
            placement.absorb(found);
        }
        if tried > 0 && placed.is_empty() {
            steps = steps.without_room(most, || plan_now(&self.fleet.index, true).0);
        }
        if let (Some(stages), Some(record)) = (&mut self.stages, staged) {
            stages.follow(record, &steps.why, self.now);
        }
        self.carry_out(&steps, &placed);
        (steps, placement, placed.len())
    }

    /// The same for a DAEMON service.
    fn act_as_daemon(&mut self) -> (ServicePlan, CapacityPlacement, usize) {
        let DaemonPlan { mut steps, mut on, desired } =
            daemon::plan(&self.service, &self.tasks, &self.instances, &[], &self.rules, self.now);
        steps.stop.truncate(self.most);
        on.truncate(self.most);
        self.service.desired_count = desired;
        let mut placement = CapacityPlacement::default();
        let mut placed = Vec::new();
        let primary = self.service.primary().map(|primary| primary.id);
        if let Some(at) = self.templates.iter().position(|own| Some(own.deployment) == primary) {
            let ids: Vec<_> = (0..on.len() as u128).map(|number| TaskId(self.next_id - number)).collect();
            self.next_id -= on.len() as u128;
            placement = daemon::place(&mut self.fleet.index, &self.templates[at].made, &on, &ids);
            placed.extend(placement.placed.iter().map(|(id, instance, _)| (at, *id, *instance)));
        }
        self.carry_out(&steps, &placed);
        steps.start = u32::try_from(placed.len()).unwrap_or(u32::MAX);
        (steps, placement, placed.len())
    }

    fn carry_out(&mut self, steps: &ServicePlan, placed: &[(usize, TaskId, ContainerInstanceId)]) {
        for stop in &steps.stop {
            if let Some(task) = self.tasks.iter_mut().find(|task| task.id == stop.task) {
                task.desired = DesiredStatus::Stopped;
                task.stop_code = Some(stop.code);
            }
        }
        for (at, id, instance) in placed {
            self.start(*at, *id, *instance);
        }
        self.service.deployments.clone_from(&steps.deployments);
        self.service.status = steps.status;
        self.service.announced_steady = steps.steady;
    }

    fn start(&mut self, template: usize, id: TaskId, instance: ContainerInstanceId) {
        let Template { deployment, made, .. } = &self.templates[template];
        let names = made.definition.document.container_definitions.iter().flatten().filter_map(|c| c.name.as_deref());
        self.demands.insert(id, made.demand.clone());
        self.fleet.started(instance, &made.demand);
        self.tasks.push(TaskView {
            has_check: names.into_iter().any(|name| is_checked_essential(&made.definition, name)),
            cpu: made.demand.cpu,
            memory: made.demand.memory,
            zone: self.fleet.zone(instance).map(Into::into),
            ..TaskView::placed(id, *deployment, instance, u64::MAX, self.now)
        });
    }

    /// What starts comes up, what stops ends; where the agent is away neither. `false`: nothing was on its way.
    fn come_true(&mut self) -> bool {
        let mut moved = false;
        for task in self.tasks.iter_mut().filter(|task| task.last != TaskStatus::Stopped && task.lost_at.is_none()) {
            match task.desired {
                DesiredStatus::Stopped => {
                    task.last = TaskStatus::Stopped;
                    task.stopped_at = Some(self.now);
                    self.fleet.index.release(task.id);
                    if let Some(demand) = self.demands.get(&task.id) {
                        self.fleet.stopped(task.instance, demand);
                    }
                }
                DesiredStatus::Running if task.last == TaskStatus::Running && (!task.has_check || task.health == HealthStatus::Healthy) => {
                    continue;
                }
                DesiredStatus::Running => {
                    task.last = TaskStatus::Running;
                    task.started_at.get_or_insert(self.now);
                    if task.has_check {
                        task.health = HealthStatus::Healthy;
                    }
                }
            }
            moved = true;
        }
        moved
    }

    /// Tasks that run or are on their way.
    fn live(&self) -> u32 {
        let is_live = |task: &&TaskView| task.desired == DesiredStatus::Running && task.last != TaskStatus::Stopped;
        u32::try_from(self.tasks.iter().filter(is_live).count()).unwrap_or(u32::MAX)
    }

    fn tell(mut self, steps: Vec<Step>, last: Option<(ServicePlan, CapacityPlacement)>, is_over: bool) -> Forecast {
        let mut reasons = Vec::new();
        let mut fits = false;
        if let Some((plan, placement)) = &last {
            fits = is_over && plan.steady;
            let is_fargate = self.service.launch_type == LaunchType::Fargate;
            let is_nowhere = plan.start > 0 && placement == &CapacityPlacement::default();
            if !is_fargate {
                reasons.extend(refused(&placement.refusals, &placement.empty, &|id| self.fleet.name(id), &|id| self.fleet.arn(id)));
            } else if is_nowhere || !placement.refusals.is_empty() || !placement.empty.is_empty() {
                reasons.push(no_capacity(fargate::obstacle(&placement.refusals).as_ref()));
            }
            if is_nowhere && !is_fargate {
                reasons.push(Reason::new("PLACEMENT", "no container instance is in the cluster"));
            }
            if !fits {
                let unable = plan.announcements.iter().filter(|text| text.starts_with("is unable"));
                reasons.extend(plan.why.iter().chain(unable).map(|text| Reason::new("WAITS", text.clone())));
            }
        }
        if !is_over {
            reasons.push(Reason::new("MORE", format!("it goes on after this: no more than {MOST_PLANS} plans are made for an answer")));
        }
        let (now, failure) = (self.now, self.stages.as_ref().and_then(Stages::failure));
        reasons.extend(failure.map(|text| Reason::new("ROLLBACK", format!("it would go back: {text}"))));
        let (stages, hooks) = self.stages.take().map(|stages| stages.report(now)).unwrap_or_default();
        if hooks > 0 {
            reasons.push(Reason::new(
                "HOOKS",
                format!(
                    "{} thought to succeed at once",
                    if hooks == 1 { "1 lifecycle hook is".to_owned() } else { format!("{hooks} lifecycle hooks are") }
                ),
            ));
        }
        reasons.extend(self.others.clone());
        let (desired, live) = (self.service.desired_count, self.live());
        let definition = self.service.definition().map(|definition| format!(" of {definition}")).unwrap_or_default();
        let summary = match (fits, steps.len()) {
            (true, 0) => format!("nothing would change: {} run{definition}", count(live as usize, "task")),
            (true, number) => {
                let seconds = steps.last().map_or(0, |step| step.after_seconds);
                format!("{} in {seconds} s at least, then {}{definition} run", count(number, "step"), count(live as usize, "task"))
            }
            (false, _) => format!("it would not come to rest: {live} of {}{definition}", count(desired as usize, "task")),
        };
        let (instances, other_instances) = self.fleet.report();
        Forecast { action: "UpdateService", summary, fits, steps, stages, instances, other_instances, reasons }
    }
}

/// Tasks that go with the machines and are not this service's: nobody has asked what becomes of them.
fn others(sight: &Sight<'_>, service: &Service, change: &FleetChange) -> Option<Reason> {
    let gone = change.remove.iter().flat_map(|id| sight.state.tasks_of_instance(&service.cluster, *id));
    let of_others =
        |task: &berth_model::task::Task| !task.is_stopped() && task.service.as_ref().is_none_or(|own| own.service != service.name);
    let number = gone.filter(|task| of_others(task)).count();
    let text =
        || format!("{} of others would go with the removed container instances; where theirs would go is left out", count(number, "task"));
    (number > 0).then(|| Reason::new("OTHERS", text()))
}
