//! Fargate capacity: machines that run tasks of every cluster and are shown to none. Each cluster's owner places on them by itself, so it
//! keeps an index of all of them with whatever runs there; that no two sell the same is what the condition on the machine in each commit
//! is for.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::fargate::NO_CAPACITY;
use berth_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use berth_model::public_addresses::PUBLIC_ADDRESSES;
use berth_model::service::Service;
use berth_model::task::{DesiredStatus, LaunchType, Task, TaskStatus};
use berth_model::task_interface::AwsvpcConfiguration;
use berth_model::vpc::{Subnet, addresses};
use berth_scheduler::placement::{Index, Refusal, Rule, Strategy};
use berth_store::State;

use crate::owner::Owner;
use crate::plan;

/// The group under which Fargate tasks count on their machine, whatever their own: that of another cluster may be called like one here.
/// No service and no family has it.
pub(crate) const GROUP: &str = "berth:fargate";

/// How Fargate tasks are placed; users have no say in it.
pub(crate) static STRATEGIES: LazyLock<Vec<Strategy>> = LazyLock::new(Strategy::roomiest);

/// All machines that offer Fargate capacity, with all tasks on them.
pub(crate) fn index_of(state: &State) -> Index {
    let machines: BTreeMap<_, _> = state.fargate_machines().map(|machine| (machine.id, machine)).collect();
    let mut index = Index::default();
    machines.values().for_each(|machine| take(state, &mut index, &machine.value));
    index
}

/// The index by which tasks of a launch type are placed, as the state has it.
pub(crate) fn index_for(state: &State, cluster: &ClusterName, launch_type: LaunchType) -> Index {
    if launch_type == LaunchType::Fargate { index_of(state) } else { plan::index_of(state, cluster) }
}

/// Takes a machine that was not known in, with what is on it.
fn take(state: &State, index: &mut Index, machine: &ContainerInstance) {
    index.apply_instance(machine);
    state.tasks_of_machine(&machine.cluster, machine.id).for_each(|task| index.apply_task_of(task, GROUP));
}

/// Takes into a cluster's own index what others run on its container instances.
pub(crate) fn take_guests(state: &State, index: &mut Index, machine: ContainerInstanceId) {
    state.fargate_tasks_of(machine).for_each(|task| index.apply_task_of(task, GROUP));
}

/// Which availability zones new tasks' interfaces may be in. Any machine can have any address (decision 41), so of a Fargate task the
/// subnet is chosen by zone, and the machine by room.
#[derive(Debug, Clone)]
pub(crate) enum ZoneChoice {
    /// That of the container instance.
    OfMachine,
    /// The one with the fewest of the tasks that were counted; the emptiest subnet of equals.
    Fewest(BTreeMap<Arc<str>, u32>),
    /// This one.
    Only(String),
}

impl ZoneChoice {
    /// That of tasks of a launch type which nothing else tells apart.
    pub(crate) fn of(launch_type: LaunchType) -> Self {
        if launch_type == LaunchType::Fargate { Self::Fewest(BTreeMap::new()) } else { Self::OfMachine }
    }

    /// That of a service's new tasks: those that it has count.
    pub(crate) fn of_service(state: &State, service: &Service, launch_type: LaunchType) -> Self {
        if launch_type != LaunchType::Fargate {
            return Self::OfMachine;
        }
        let mut counts = BTreeMap::new();
        for task in state.tasks_of_service(&service.cluster, &service.name) {
            if task.desired_status == DesiredStatus::Running
                && !task.is_stopped()
                && let Some(zone) = &task.availability_zone
            {
                *counts.entry(Arc::clone(zone)).or_default() += 1;
            }
        }
        Self::Fewest(counts)
    }

    /// The subnet will do for a task on this machine.
    pub(crate) fn admits(&self, subnet: &Subnet, machine: Option<&ContainerInstance>) -> bool {
        match self {
            Self::OfMachine => machine.and_then(ContainerInstance::availability_zone).is_none_or(|zone| *subnet.zone == *zone),
            Self::Fewest(_) => true,
            Self::Only(zone) => *subnet.zone == **zone,
        }
    }

    /// Less is better.
    pub(crate) fn rank(&self, subnet: &Subnet) -> u32 {
        match self {
            Self::Fewest(counts) => counts.get(&subnet.zone).copied().unwrap_or(0),
            Self::OfMachine | Self::Only(_) => 0,
        }
    }

    /// A task got an address there.
    pub(crate) fn given(&mut self, subnet: &Subnet) {
        if let Self::Fewest(counts) = self {
            *counts.entry(Arc::clone(&subnet.zone)).or_default() += 1;
        }
    }
}

/// The zones of the subnets that have an address left.
pub(crate) fn open_zones(state: &State, network: &AwsvpcConfiguration) -> Vec<String> {
    let resources = state.vpc_resources();
    let held = |subnet: &Subnet| resources.taken(subnet.id).count();
    let subnets = network.subnets.iter().filter_map(|id| resources.subnet(*id));
    let mut zones: Vec<_> =
        subnets.filter(|subnet| held(subnet) < addresses::capacity(subnet.cidr)).map(|subnet| subnet.zone.to_string()).collect();
    zones.sort_unstable();
    zones.dedup();
    zones
}

/// How many public addresses a task takes that is to have such an interface: one if it asks for it and any machine that offers Fargate
/// capacity has some to give. Where none has, it runs without.
#[must_use]
pub fn public_addresses(state: &State, network: Option<&AwsvpcConfiguration>) -> u32 {
    let asks = network.is_some_and(|network| network.assign_public_ip);
    u32::from(asks && state.fargate_machines().any(|machine| machine.attributes.contains_key(PUBLIC_ADDRESSES)))
}

/// What kept a Fargate task from its place; no machine is named. `None`: there is none.
pub(crate) fn obstacle(refusals: &[Refusal]) -> Option<Rule> {
    refusals.iter().max_by_key(|refusal| refusal.closeness()).map(|refusal| refusal.rule.clone())
}

/// The text of a service's event that a task found no place.
pub(crate) fn event(refusals: &[Refusal]) -> String {
    let reason = match obstacle(refusals) {
        Some(Rule::Interface) => "None of its subnets has an address left",
        Some(Rule::PublicAddresses { .. }) => "No machine that offers Fargate capacity has a public address left",
        _ => NO_CAPACITY,
    };
    format!(
        "was unable to place a task. Reason: {reason}. For more information, see the Troubleshooting section of the Amazon ECS Developer \
         Guide."
    )
}

impl Owner {
    /// The index of Fargate's machines, made when the cluster first needs it and followed from then on.
    pub(crate) fn fargate(&mut self) -> &mut Index {
        let store = &self.store;
        self.fargate.get_or_insert_with(|| index_of(&store.state()))
    }

    /// What a task held is free: it ended, or its placement was not committed.
    pub(crate) fn release(&mut self, task: TaskId) {
        self.index.release(task);
        if let Some(fargate) = &mut self.fargate {
            fargate.release(task);
        }
    }

    /// Folds in a task: of the cluster, or one that is on a machine which the cluster can place on.
    pub(crate) fn fold_task(&mut self, task: &Task) {
        let is_own = task.cluster == self.cluster;
        let is_fargate = task.launch_type == LaunchType::Fargate;
        if !is_own && !is_fargate && self.fargate.is_none() {
            return;
        }
        if is_own && !is_fargate {
            self.index.apply_task(task);
        } else if is_fargate && self.index.knows(task.container_instance) {
            self.index.apply_task_of(task, GROUP);
        }
        if let Some(fargate) = self.fargate.as_mut().filter(|fargate| fargate.knows(task.container_instance)) {
            fargate.apply_task_of(task, GROUP);
        }
        if task.last_status == TaskStatus::Stopped {
            // Of a machine that is no longer known too.
            self.release(task.id);
            self.dirty.append(&mut self.waiting_for_room);
            if is_own && !is_fargate {
                self.last_out(task.container_instance);
            }
        }
        if let Some(membership) = task.service.as_ref().filter(|_| is_own) {
            self.dirty.insert(membership.service.clone());
        }
    }

    /// Folds in a machine as far as it offers Fargate capacity, or no longer does.
    pub(crate) fn fold_machine(&mut self, machine: &ContainerInstance) {
        let Some(fargate) = &mut self.fargate else { return };
        match (machine.offers_fargate(), fargate.knows(machine.id)) {
            (false, false) => return,
            (false, true) => fargate.remove_instance(machine.id),
            (true, true) => fargate.apply_instance(machine),
            (true, false) => take(&self.store.state(), fargate, machine),
        }
        self.dirty.append(&mut self.waiting_for_room);
        if machine.away.is_some() || machine.status != ContainerInstanceStatus::Active {
            // Tasks of the cluster's services on it may have to be replaced.
            let state = self.store.state();
            let own = state.fargate_tasks_of(machine.id).filter(|task| task.cluster == self.cluster);
            self.dirty.extend(own.filter_map(|task| Some(task.service.as_ref()?.service.clone())));
        }
    }
}
