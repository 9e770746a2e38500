//! Services: what their events say has to be so, and what happens has to be said.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::service::{DeploymentStatus, RolloutState, Service, ServiceEvent, ServiceStatus};
use berth_model::task::{DesiredStatus, Task, TaskStatus};
use tokio::time::Instant;

use super::{Model, ServiceKey, Verdict, broken};

/// How long ago a plan may have seen what it says: it reads, then commits, and others commit between. Longer than any commit takes.
const STALE: Duration = Duration::from_secs(2);
/// The same where other servers commit too: a watch on etcd that went silent is given up after 5 s and made again.
const STALE_PEER: Duration = Duration::from_secs(15);

/// With which desired counts a service would have been steady, and until when; `None`: still.
pub(super) type Settled = (Option<Instant>, RangeInclusive<u32>);
type Before = BTreeMap<TaskId, Option<Arc<Task>>>;

impl Model {
    pub(crate) fn tasks_of(&self, service: &Service) -> impl Iterator<Item = &Arc<Task>> {
        let own = self.by_service.get(&(service.cluster.clone(), service.name.clone()));
        own.into_iter().flat_map(BTreeMap::values)
    }

    fn stale(&self) -> Duration {
        if self.is_shared { STALE_PEER } else { STALE }
    }

    /// The task may count as missing: its machine is not heard of, or was not when a plan was made. Whether for long enough is said by a
    /// clock that may be wrong.
    fn may_be_missing(&self, task: &Task) -> bool {
        let is_back = self.instances.get(&task.container_instance).is_some_and(|instance| instance.agent_connected)
            && self.back_at.get(&task.container_instance).is_none_or(|at| at.elapsed() > self.stale());
        self.replaces && !is_back
    }

    /// What a service calls steady: exactly the desired number of tasks of the PRIMARY deployment run, and none of older ones is left.
    /// Tasks that a smaller desired count ends do not count any more, as in `runningCount`. Those of machines that are not heard of may
    /// count or not.
    pub(crate) fn is_steady(&self, service: &Service) -> bool {
        self.settles_at(service).is_some_and(|counts| counts.contains(&service.desired_count))
    }

    /// The desired counts with which the service would be in the steady state; `None`: none.
    fn settles_at(&self, service: &Service) -> Option<RangeInclusive<u32>> {
        let primary = service.primary()?;
        let (mut running, mut perhaps) = (0, 0);
        for task in self.tasks_of(service) {
            let right = task.service.as_ref().is_some_and(|member| primary.owns(member.deployment));
            match (right, task.desired_status) {
                (true, DesiredStatus::Stopped) => {}
                (true, DesiredStatus::Running) if self.may_be_missing(task) => {
                    perhaps += u32::from(task.last_status == TaskStatus::Running)
                }
                (true, DesiredStatus::Running) if task.last_status == TaskStatus::Running => running += 1,
                (false, _) if self.may_be_missing(task) => {}
                _ => return None,
            }
        }
        Some(running..=running + perhaps)
    }

    /// An instance changed: the services of its tasks. If it `is_back`, they are looked at for a while: what its tasks count for changes
    /// when nobody can have thought it away any more.
    pub(super) fn note_instance(&mut self, instance: ContainerInstanceId, is_back: bool) -> Vec<ServiceKey> {
        let tasks = self.booked.get(&instance).into_iter().flat_map(BTreeMap::keys).filter_map(|id| self.tasks.get(id));
        let services: BTreeSet<_> = tasks.filter_map(|task| Some((task.cluster.clone(), task.service.as_ref()?.service.clone()))).collect();
        if is_back {
            let until = Instant::now() + self.stale();
            self.unsure.extend(services.iter().map(|key| (key.clone(), until)));
        }
        services.into_iter().collect()
    }

    /// Looks at the services that a commit touched, and at those whose time has come; no other's standing can have changed.
    pub(super) fn note_steady(&mut self, touched: &BTreeSet<ServiceKey>) {
        let now = Instant::now();
        let over: Vec<_> = self.unsure.iter().filter(|(_, until)| **until < now).map(|(key, until)| (key.clone(), *until)).collect();
        self.unsure.retain(|_, until| *until >= now);
        for (key, at) in over.into_iter().chain(touched.iter().map(|key| (key.clone(), now))) {
            let service = self.services.get(&key).cloned();
            let counts = service.as_ref().and_then(|service| self.settles_at(service));
            let is_steady = service.as_ref().zip(counts.as_ref()).is_some_and(|(own, counts)| counts.contains(&own.desired_count));
            if service.is_some_and(|service| service.is_daemon()) {
                self.note_counts(&key, counts, at);
            }
            if is_steady {
                self.steady_now.insert(key);
            } else if self.steady_now.remove(&key) {
                self.steady.insert(key, at);
            }
        }
    }

    /// Keeps with which desired counts a DAEMON service would lately have been steady: its plan writes the count that it saw, and a machine
    /// may have come or gone since.
    fn note_counts(&mut self, key: &ServiceKey, counts: Option<RangeInclusive<u32>>, at: Instant) {
        let stale = self.stale();
        let known = self.settled_at.entry(key.clone()).or_default();
        if let Some((until, _)) = known.last_mut().filter(|(until, _)| until.is_none()) {
            *until = Some(at);
        }
        known.retain(|(until, _)| until.is_none_or(|until| until.elapsed() <= stale));
        known.extend(counts.map(|counts| (None, counts)));
    }

    /// A DAEMON service was steady with its desired count of now, which it may not have had then.
    fn was_settled(&self, service: &Service) -> bool {
        let known = self.settled_at.get(&(service.cluster.clone(), service.name.clone())).into_iter().flatten();
        let mut lately = known.filter(|(until, _)| until.is_none_or(|until| until.elapsed() <= self.stale()));
        lately.any(|(_, counts)| counts.contains(&service.desired_count))
    }

    pub(super) fn check_services(&self, before: &Before, events: &[Arc<ServiceEvent>]) -> Verdict {
        let mut announced: BTreeSet<TaskId> = BTreeSet::new();
        for event in events {
            let Some(service) = self.services.get(&(event.cluster.clone(), event.service.clone())) else {
                return broken("true events", format!("an event of service {}, which does not exist: {}", event.service, event.message));
            };
            announced.extend(self.check_event(service, event, before)?);
        }
        for (id, _) in before.iter().filter(|(_, was)| was.is_none()) {
            let task = &self.tasks[id];
            let Some(member) = &task.service else { continue };
            if !announced.contains(id) {
                return broken("true events", format!("task {id} of service {} starts and no event says so", member.service));
            }
            let Some(service) = self.services.get(&(task.cluster.clone(), member.service.clone())) else {
                return broken("services", format!("task {id} belongs to service {}, which does not exist", member.service));
            };
            self.check_start(service, task)?;
        }
        Ok(())
    }

    /// The tasks that the event announces as started.
    fn check_event(&self, service: &Service, event: &ServiceEvent, before: &Before) -> Result<BTreeSet<TaskId>, (&'static str, String)> {
        let lie = |why: &str| ("true events", format!("{why}: {}", event.message));
        let text = event.message.strip_prefix(&format!("(service {}) ", service.name)).ok_or_else(|| lie("an event of another service"))?;
        if let Some(rest) = text.strip_prefix("has started ") {
            let tasks = listed(rest).ok_or_else(|| lie("the number is not that of the tasks"))?;
            let is_new = |id: &TaskId| before.get(id).is_some_and(Option::is_none);
            let is_its = |id: &TaskId| self.tasks[id].service.as_ref().is_some_and(|member| member.service == service.name);
            if !tasks.iter().all(|id| is_new(id) && is_its(id)) {
                return Err(lie("a task did not start"));
            }
            return Ok(tasks);
        }
        if let Some(rest) = text.strip_prefix("has stopped ") {
            let tasks = listed(rest).ok_or_else(|| lie("the number is not that of the tasks"))?;
            let ran = |id: &TaskId| before.get(id).and_then(Option::as_ref).is_some_and(|was| was.desired_status == DesiredStatus::Running);
            let stops = |id: &TaskId| self.tasks.get(id).is_some_and(|task| task.desired_status == DesiredStatus::Stopped);
            if !tasks.iter().all(|id| ran(id) && stops(id)) {
                return Err(lie("a task was not stopped by it"));
            }
        }
        if let Some((_, list)) = text.split_once("AZ balanced with ") {
            // Others may have ended a task since the plan looked, so it is its own words that have to fit.
            let told = zones(list).ok_or_else(|| lie("no list of zones"))?;
            let (least, most) = (told.iter().min().copied().unwrap_or(0), told.iter().max().copied().unwrap_or(0));
            if told.len() < 2 || told.iter().sum::<u32>() != service.desired_count || (most - least > 1) != text.starts_with("is not") {
                return Err(lie("the zones do not come to that"));
            }
        }
        if text == "has reached a steady state." || text.ends_with("deployment completed.") {
            let key = (service.cluster.clone(), service.name.clone());
            let was = self.steady_now.contains(&key) || self.steady.get(&key).is_some_and(|at| at.elapsed() <= self.stale());
            if !was && !self.is_steady(service) && !self.was_settled(service) {
                return Err(lie("it was not steady"));
            }
        }
        Ok(BTreeSet::new())
    }

    fn is_drained(&self, task: &Task) -> bool {
        self.instances.get(&task.container_instance).is_some_and(|instance| instance.status == ContainerInstanceStatus::Draining)
    }

    /// A service starts no more than its maximum allows: tasks of its PRIMARY deployment, or of an older one that lost some.
    fn check_start(&self, service: &Service, task: &Task) -> Verdict {
        if service.status != ServiceStatus::Active {
            return broken("services", format!("service {} is {} and starts task {}", service.name, service.status, task.id));
        }
        let started_in = task.service.as_ref().and_then(|member| service.deployments.iter().find(|own| own.id == member.deployment));
        let Some(deployment) = started_in.filter(|own| own.definition == task.definition && own.rollout_state != RolloutState::Failed)
        else {
            return broken("services", format!("task {} is of no deployment of service {} that may start it", task.id, service.name));
        };
        // An older deployment gets back what it lost, never more than it is to keep.
        if deployment.status == DeploymentStatus::Active {
            let own = |other: &&Arc<Task>| other.service.as_ref().is_some_and(|member| deployment.owns(member.deployment));
            let has = self.tasks_of(service).filter(own).filter(|t| t.desired_status == DesiredStatus::Running);
            let has = has.filter(|task| !self.may_be_missing(task) && !self.is_drained(task)).count();
            // Blue stays whole until green has all of the traffic.
            let staged = self.staged(service).map(|_| service.desired_count);
            let keeps = staged.unwrap_or_else(|| deployment.progress.keeps.unwrap_or(0));
            if has > keeps as usize {
                return broken(
                    "services",
                    format!("deployment {} of service {} has {has} tasks and keeps {keeps}", deployment.id, service.name),
                );
            }
        }
        let shares = |other: &Task| {
            other.id != task.id && other.container_instance == task.container_instance && other.last_status != TaskStatus::Stopped
        };
        if let Some(other) = self.tasks_of(service).find(|other| service.is_daemon() && shares(other)) {
            return broken("services", format!("DAEMON service {} has tasks {} and {} on one instance", service.name, task.id, other.id));
        }
        let live = self.tasks_of(service).filter(|t| t.desired_status == DesiredStatus::Running);
        let live = live.filter(|task| !self.may_be_missing(task));
        // With stages, blue and green have as many each, and what is older ends in its own time. Afterwards it is a service like any other.
        let (live, most) = if self.staged(service).is_some_and(|one| !one.status.is_finished()) {
            let own = |other: &&Arc<Task>| other.service.as_ref().is_some_and(|member| deployment.owns(member.deployment));
            (live.filter(own).filter(|task| !self.is_drained(task)).count(), service.desired_count)
        } else {
            (live.count(), service.desired_count.max(service.percentages.upper(service.desired_count)))
        };
        if live > most as usize {
            return broken("services", format!("service {} has {live} tasks, {most} at most", service.name));
        }
        Ok(())
    }
}

/// The numbers of "3 tasks in a, 0 in b, and 1 in c." and what follows.
fn zones(text: &str) -> Option<Vec<u32>> {
    let list = text.split('.').next()?.replace(", and ", ", ").replace(" and ", ", ");
    list.split(", ").map(|part| part.split(' ').next()?.parse().ok()).collect()
}

/// The tasks of "3 tasks: (task a) (task b) (task c)."; `None` if their number is another.
fn listed(text: &str) -> Option<BTreeSet<TaskId>> {
    let (number, _) = text.split_once(' ')?;
    let (_, list) = text.split_once(": ")?;
    let ids = list.split("(task ").skip(1).map(|part| part.split(')').next().unwrap_or_default().parse());
    let ids: BTreeSet<TaskId> = ids.collect::<Result<_, _>>().ok()?;
    (number.parse() == Ok(ids.len())).then_some(ids)
}
