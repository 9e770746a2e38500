//! A scratch copy of a cluster's container instances, with those added and taken away that are only thought of.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::arn::Scope;
use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::ids::{ClusterName, ContainerInstanceId};
use berth_model::needs::Demand;
use berth_model::task::LaunchType;
use berth_model::time::UnixMillis;
use berth_scheduler::placement::Index;
use berth_store::State;

use crate::fargate;

use super::{FleetChange, InstanceForecast, MOST_INSTANCES, Use};

/// What placement is asked with, and what it then finds taken.
pub(super) struct Fleet {
    /// The copy of the owner's index.
    pub(super) index: Index,
    machines: BTreeMap<ContainerInstanceId, InstanceForecast>,
    /// The instances that are there, or thought to be.
    pub(super) records: Vec<Arc<ContainerInstance>>,
}

/// The index of a cluster's instances and tasks as the state has them.
pub(crate) fn index_of(state: &State, cluster: &ClusterName) -> Index {
    let mut index = Index::default();
    state.instances_of(cluster).for_each(|instance| index.apply_instance(instance));
    state.instances_of(cluster).for_each(|instance| fargate::take_guests(state, &mut index, instance.id));
    let tasks = state.instances_of(cluster).flat_map(|instance| state.tasks_of_instance(cluster, instance.id));
    let expected = state.index(cluster).map_or(0, |index| index.desired_running.len() + index.desired_stopped.len());
    index.apply_tasks(expected, tasks.map(|task| &*task.value));
    index
}

impl Fleet {
    /// The cluster as it is, changed.
    pub(super) fn new(
        state: &State,
        scope: &Scope,
        (cluster, launch_type): (&ClusterName, LaunchType),
        change: &FleetChange,
        now: UnixMillis,
    ) -> Self {
        let is_fargate = launch_type == LaunchType::Fargate;
        let mut index = fargate::index_for(state, cluster, launch_type);
        let mut machines = BTreeMap::new();
        let mut records = Vec::new();
        let all: Vec<_> = if is_fargate { state.fargate_machines().collect() } else { state.instances_of(cluster).collect() };
        for instance in all.into_iter().filter(|instance| instance.status != ContainerInstanceStatus::Inactive) {
            // Machines that offer Fargate capacity have no ARN for anybody.
            let arn = (!is_fargate).then(|| scope.container_instance(cluster, instance.id));
            let mut one = of(instance, instance.id.to_string(), arn);
            for task in state.tasks_of_machine(&instance.cluster, instance.id).filter(|task| !task.is_stopped()) {
                take(&mut one.before, &task.demand);
            }
            one.after = one.before;
            if change.remove.contains(&instance.id) {
                one.removed = true;
                one.stop = one.before.tasks;
                one.after = Use::default();
                index.remove_instance(instance.id);
            } else {
                records.push(Arc::clone(&instance.value));
            }
            machines.insert(instance.id, one);
        }
        let mut number = 0;
        for (count, like) in &change.add {
            let Some(like) = state.instance(*like) else { continue };
            for _ in 0..*count {
                number += 1;
                // From the end of all ids: of equals the first takes a task, and that is one that is there.
                let mut added = (*like.value).clone();
                added.id = ContainerInstanceId(u128::MAX - number);
                added.ec2_instance_id = None;
                added.status = ContainerInstanceStatus::Active;
                added.agent_connected = true;
                added.away = None;
                added.registered_at = now;
                index.apply_instance(&added);
                let one = InstanceForecast { added: true, ..of(&added, format!("added {number}"), None) };
                machines.insert(added.id, InstanceForecast { after: one.before, ..one });
                records.push(Arc::new(added));
            }
        }
        Self { index, machines, records }
    }

    /// What an instance is called.
    pub(super) fn name(&self, id: ContainerInstanceId) -> String {
        self.machines.get(&id).map_or_else(|| id.to_string(), |one| one.name.clone())
    }

    /// Its ARN, or its name if it is only thought of.
    pub(super) fn arn(&self, id: ContainerInstanceId) -> String {
        self.machines.get(&id).and_then(|one| one.arn.clone()).unwrap_or_else(|| self.name(id))
    }

    /// Its availability zone.
    pub(super) fn zone(&self, id: ContainerInstanceId) -> Option<String> {
        self.machines.get(&id)?.availability_zone.clone()
    }

    /// Notes a task that placement has put there.
    pub(super) fn started(&mut self, id: ContainerInstanceId, demand: &Demand) {
        if let Some(one) = self.machines.get_mut(&id) {
            one.start += 1;
            take(&mut one.after, demand);
        }
    }

    /// Notes a task that ended there.
    pub(super) fn stopped(&mut self, id: ContainerInstanceId, demand: &Demand) {
        if let Some(one) = self.machines.get_mut(&id) {
            one.stop += 1;
            one.after.tasks = one.after.tasks.saturating_sub(1);
            one.after.free_cpu = one.after.free_cpu.saturating_add(demand.cpu);
            one.after.free_memory = one.after.free_memory.saturating_add(demand.memory);
        }
    }

    /// The instances that something happens to, and how many others there are.
    pub(super) fn report(self) -> (Vec<InstanceForecast>, usize) {
        let all = self.machines.len();
        let touched = |one: &InstanceForecast| one.added || one.removed || one.start > 0 || one.stop > 0;
        let touched: Vec<_> = self.machines.into_values().filter(touched).take(MOST_INSTANCES).collect();
        let others = all - touched.len();
        (touched, others)
    }
}

/// Empty.
fn of(instance: &ContainerInstance, name: String, arn: Option<String>) -> InstanceForecast {
    InstanceForecast {
        name,
        arn,
        availability_zone: instance.availability_zone().map(str::to_owned),
        added: false,
        removed: false,
        start: 0,
        stop: 0,
        before: Use { tasks: 0, free_cpu: instance.registered.cpu, free_memory: instance.registered.memory },
        after: Use::default(),
    }
}

const fn take(of: &mut Use, demand: &Demand) {
    of.tasks += 1;
    of.free_cpu = of.free_cpu.saturating_sub(demand.cpu);
    of.free_memory = of.free_memory.saturating_sub(demand.memory);
}
