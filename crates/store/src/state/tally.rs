//! How many tasks of each service are where: kept up with every write, so that DescribeServices need not look at each task.

use std::collections::{BTreeMap, HashMap};

use berth_model::ids::{ClusterName, DeploymentId, ServiceName};
use berth_model::task::{DesiredStatus, Task, TaskStatus};

use super::{ClusterIndex, State};

/// How many tasks of a service's deployment, or task set, are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// They should run and do.
    pub running: usize,
    /// They should run and do not yet.
    pub pending: usize,
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self { running: sum.running + one.running, pending: sum.pending + one.pending })
    }
}

impl Tally {
    /// Where a task counts, if anywhere.
    fn place(&mut self, task: &Task) -> Option<&mut usize> {
        let is_wanted = task.desired_status == DesiredStatus::Running;
        match task.last_status {
            TaskStatus::Running if is_wanted => Some(&mut self.running),
            status if is_wanted && status < TaskStatus::Running => Some(&mut self.pending),
            _ => None,
        }
    }
}

/// The tallies of a cluster's services. Those of nothing but zeros are not kept.
pub(super) type Tallies = HashMap<ServiceName, BTreeMap<DeploymentId, Tally>>;

impl State {
    /// Every cluster's indexes, in no order.
    pub fn indexes(&self) -> impl Iterator<Item = &ClusterIndex> {
        self.by_cluster.values()
    }

    /// The tallies of a service's deployments and task sets that have tasks to count.
    pub fn tallies(&self, cluster: &ClusterName, service: &ServiceName) -> impl Iterator<Item = (DeploymentId, Tally)> {
        let tallies = self.by_cluster.get(cluster).and_then(|index| index.tallies.get(service));
        tallies.into_iter().flatten().map(|(deployment, tally)| (*deployment, *tally))
    }

    /// The tally of one of a service's deployments or task sets.
    #[must_use]
    pub fn tally(&self, cluster: &ClusterName, service: &ServiceName, deployment: DeploymentId) -> Tally {
        let tallies = self.by_cluster.get(cluster).and_then(|index| index.tallies.get(service));
        tallies.and_then(|tallies| tallies.get(&deployment)).copied().unwrap_or_default()
    }
}

impl ClusterIndex {
    fn counter(&mut self, status: TaskStatus) -> &mut usize {
        match status {
            TaskStatus::Running => &mut self.running_tasks,
            TaskStatus::Provisioning | TaskStatus::Pending | TaskStatus::Activating => &mut self.pending_tasks,
            _ => &mut self.other_tasks,
        }
    }

    /// Counts a task in.
    pub(super) fn count(&mut self, task: &Task) {
        *self.counter(task.last_status) += 1;
        self.stopped.extend(task.stopped_at.map(|at| (at, task.id)));
        let Some(membership) = &task.service else { return };
        // Tasks that have ended count nowhere.
        if Tally::default().place(task).is_none() {
            return;
        }
        if !self.tallies.contains_key(&membership.service) {
            self.tallies.insert(membership.service.clone(), BTreeMap::new());
        }
        let Some(tallies) = self.tallies.get_mut(&membership.service) else { return };
        let known = tallies.entry(membership.deployment).or_default();
        if let Some(place) = known.place(task) {
            *place += 1;
        }
    }

    /// Takes over what another index, which is of the same cluster and was given no other tasks, has counted in; nothing was counted
    /// here before.
    pub(super) fn take_counts(&mut self, counted: Self) {
        let Self { running_tasks, pending_tasks, other_tasks, stopped, tallies, .. } = counted;
        (self.running_tasks, self.pending_tasks, self.other_tasks) = (running_tasks, pending_tasks, other_tasks);
        (self.stopped, self.tallies) = (stopped, tallies);
    }

    /// Counts a task out that was counted in as it is here.
    pub(super) fn uncount(&mut self, task: &Task) {
        *self.counter(task.last_status) -= 1;
        if let Some(at) = task.stopped_at {
            self.stopped.remove(&(at, task.id));
        }
        let Some(membership) = &task.service else { return };
        let Some(tallies) = self.tallies.get_mut(&membership.service) else { return };
        let Some(tally) = tallies.get_mut(&membership.deployment) else { return };
        if let Some(place) = tally.place(task) {
            *place -= 1;
        }
        if *tally == Tally::default() {
            tallies.remove(&membership.deployment);
            if tallies.is_empty() {
                self.tallies.remove(&membership.service);
            }
        }
    }
}
