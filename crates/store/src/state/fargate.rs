//! Fargate tasks by machine: they belong to one cluster, and the machine that runs them to another one or to none.

use std::collections::{BTreeSet, HashMap};

use berth_model::container_instance::ContainerInstance;
use berth_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use berth_model::task::{LaunchType, Task};

use super::id_hasher::ById;
use super::{Entry, State};

/// The Fargate tasks of every machine that has some.
#[derive(Debug, Default)]
pub(super) struct FargateTasks(pub(super) HashMap<ContainerInstanceId, BTreeSet<TaskId>, ById>);

impl FargateTasks {
    /// Takes a task in if it is Fargate's.
    pub(super) fn take(&mut self, task: &Task) -> bool {
        let is_fargate = task.launch_type == LaunchType::Fargate;
        if is_fargate {
            self.0.entry(task.container_instance).or_default().insert(task.id);
        }
        is_fargate
    }

    pub(super) fn remove(&mut self, task: &Task) {
        if task.launch_type != LaunchType::Fargate {
            return;
        }
        if let Some(tasks) = self.0.get_mut(&task.container_instance) {
            tasks.remove(&task.id);
            if tasks.is_empty() {
                self.0.remove(&task.container_instance);
            }
        }
    }
}

impl State {
    /// The Fargate tasks of all clusters on a machine, in order of their ids.
    pub fn fargate_tasks_of(&self, machine: ContainerInstanceId) -> impl Iterator<Item = &Entry<Task>> {
        self.fargate_tasks.0.get(&machine).into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// All tasks on a machine: those of it as a container instance of its cluster, then those of Fargate, whatever cluster they belong to.
    pub fn tasks_of_machine(&self, cluster: &ClusterName, machine: ContainerInstanceId) -> impl Iterator<Item = &Entry<Task>> {
        self.tasks_of_instance(cluster, machine).chain(self.fargate_tasks_of(machine))
    }

    /// The machines that offer Fargate capacity, in no order.
    pub fn fargate_machines(&self) -> impl Iterator<Item = &Entry<ContainerInstance>> {
        self.instances.values().filter(|instance| instance.offers_fargate())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_model::record::{Key, Record};

    use super::*;
    use crate::backend::{Stored, Write};
    use crate::state::Loading;
    use crate::transaction::Revision;

    fn put(id: u128, cluster: &str, launch_type: &str, last: &str) -> Write {
        let task: Task = serde_json::from_value(serde_json::json!({
            "id": TaskId(id), "cluster": cluster, "definition": {"family": "f", "revision": 1},
            "container_instance": ContainerInstanceId(7), "group": "g", "launch_type": launch_type,
            "demand": {"cpu": 1, "memory": 6}, "containers": [], "created_at": 1,
            "desired_status": "RUNNING", "last_status": last,
        }))
        .unwrap();
        let revision = Revision(1);
        Write::Put(Stored { record: Record::Task(Arc::new(task)), created: revision, modified: revision, version: 1 })
    }

    #[test]
    fn they_are_found_by_their_machine_and_by_their_own_cluster_alone() {
        let mut loading = Loading::new();
        loading.take(put(1, "default", "EC2", "RUNNING"));
        loading.take(put(2, "shop", "FARGATE", "RUNNING"));
        let mut state = loading.finish();
        state.apply(put(3, "default", "FARGATE", "PENDING"));
        let machine: ContainerInstance = serde_json::from_value(serde_json::json!({
            "id": ContainerInstanceId(7), "cluster": "default", "ec2_instance_id": null, "status": "ACTIVE", "status_reason": null,
            "agent_connected": true, "connection": 0, "registered": {"cpu": 1, "memory": 1, "ports_tcp": [], "ports_udp": []},
            "attributes": {}, "registered_at": 0,
            "agent": {"agent_version": null, "agent_hash": null, "docker_version": null}, "tags": {},
        }))
        .unwrap();
        let ids = |tasks: Vec<&Entry<Task>>| tasks.iter().map(|task| task.id.0).collect::<Vec<_>>();
        assert_eq!(ids(state.tasks_of_machine(&machine.cluster, machine.id).collect()), [1, 2, 3]);
        assert_eq!(ids(state.tasks_of_instance(&machine.cluster, machine.id).collect()), [1]);
        let index = state.index(&machine.cluster).unwrap();
        assert_eq!((index.running_tasks, index.pending_tasks), (1, 1), "a cluster counts its own, wherever they run");
        state.apply(put(2, "shop", "FARGATE", "STOPPED"));
        state.apply(Write::Delete(Key::Task(TaskId(3))));
        assert_eq!(ids(state.fargate_tasks_of(machine.id).collect()), [2]);
        state.apply(Write::Delete(Key::Task(TaskId(2))));
        assert_eq!(state.fargate_tasks_of(machine.id).count(), 0);
        assert!(state.fargate_tasks.0.is_empty(), "nothing is kept of machines without such tasks");
    }
}
