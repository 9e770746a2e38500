//! Which tasks stand in Cloud Map: a view of tasks and instances in, a plan of registrations out.
//!
//! A task of a service with a service registry is an instance of that registry from RUNNING until somebody wants it stopped: before its
//! containers are told to stop, so that nobody is sent to one that ends.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-discovery.html>

mod dns;

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet};

use berth_model::discovery::{
    CustomHealth, DiscoveryInstance, DiscoveryService, DiscoveryServiceId, INIT_HEALTH, IPV4, InstanceOwner, MAX_INSTANCES, PORT,
    RecordType,
};
use berth_model::ids::{ClusterName, ServiceName};
use berth_model::task::{DesiredStatus, HealthStatus, Task, TaskStatus};
use berth_model::time::UnixMillis;

pub use dns::{DiscoveryServiceView, NamespaceView, dns_table};

/// A service's registry: one item of `serviceRegistries`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// The Cloud Map service.
    pub service: DiscoveryServiceId,
    /// The port to register, said outright.
    pub port: Option<u16>,
    /// The container and its port whose port on the machine, or on the task's own address, is to be registered.
    pub container: Option<(String, u16)>,
}

/// A task of a service that has a registry.
#[derive(Debug, Clone)]
pub struct TaskView<'a> {
    /// The task.
    pub task: &'a Task,
    /// Its ECS service.
    pub service: &'a ServiceName,
    /// The registry of the revision that it is of.
    pub registry: Registry,
    /// Its machine's address, or that of its own interface; none where nobody knows it.
    pub address: Option<Ipv4Addr>,
    /// It has an interface of its own, on which its containers' ports are as they are inside.
    pub has_own_interface: bool,
    /// Its health by its containers' checks; none where it has no checks.
    pub health: Option<HealthStatus>,
    /// The EC2 instance that it runs on, or what stands for one.
    pub ec2_instance_id: Option<&'a str>,
    /// Its machine is there: it was not deregistered and did not fall silent.
    pub is_reachable: bool,
}

/// What the planner sees.
#[derive(Debug, Clone, Default)]
pub struct View<'a> {
    /// The tasks of services with registries, whatever their status.
    pub tasks: Vec<TaskView<'a>>,
    /// The Cloud Map services that they name, and those of `instances`.
    pub services: BTreeMap<DiscoveryServiceId, &'a DiscoveryService>,
    /// The instances of those services, also those that no task stands behind.
    pub instances: BTreeMap<(DiscoveryServiceId, String), &'a DiscoveryInstance>,
    /// The region.
    pub region: &'a str,
}

/// Why a task that runs is no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The Cloud Map service was deleted.
    NoService,
    /// Nobody knows the address.
    NoAddress,
    /// The container's port is bound to none of the machine's.
    NoPort,
    /// Cloud Map's service has as many instances as it can have.
    Full,
}

impl Refusal {
    /// The reason as an event tells it.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::NoService => "the service does not exist in AWS Cloud Map",
            Self::NoAddress => "the address of its container instance is not known (attribute berth.host-ipv4)",
            Self::NoPort => "the container port is not bound to a host port",
            Self::Full => "the service has as many instances in AWS Cloud Map as it can have",
        }
    }
}

/// A registration that is not made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// The task's cluster.
    pub cluster: ClusterName,
    /// Its ECS service.
    pub service: ServiceName,
    /// Where it was to be registered.
    pub registry: DiscoveryServiceId,
    /// Why not.
    pub refusal: Refusal,
}

/// What is to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Instances that are new or other than they were.
    pub put: Vec<DiscoveryInstance>,
    /// Instances whose tasks end, are gone, or belong elsewhere now.
    pub remove: Vec<(DiscoveryServiceId, String)>,
    /// What cannot be registered, each service and reason once.
    pub refused: BTreeSet<Refused>,
}

impl Plan {
    /// It changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

/// Is this instance's task on its end, or gone? Then nobody is to find the instance, though it may still be there for a moment. Instances
/// without a task never end by themselves.
#[must_use]
pub fn is_ending(instance: &DiscoveryInstance, task: Option<&Task>) -> bool {
    instance.owner.is_some() && !task.is_some_and(is_to_be_found)
}

/// It runs, and nobody wants it stopped.
fn is_to_be_found(task: &Task) -> bool {
    (task.desired_status, task.last_status) == (DesiredStatus::Running, TaskStatus::Running)
}

/// What is to change so that exactly the tasks that run are instances. With that done there is nothing more to change.
#[must_use]
pub fn plan(view: &View<'_>, now: UnixMillis) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = BTreeSet::new();
    let mut sizes: BTreeMap<&DiscoveryServiceId, usize> = BTreeMap::new();
    for (service, _) in view.instances.keys() {
        *sizes.entry(service).or_default() += 1;
    }
    for task in view.tasks.iter().filter(|task| is_to_be_found(task.task) && task.is_reachable) {
        let key = (task.registry.service.clone(), task.task.id.to_string());
        let known = view.instances.get(&key).copied();
        let made = instance(view, task, known, now).and_then(|made| {
            let size = sizes.entry(&task.registry.service).or_default();
            match known {
                None if *size >= MAX_INSTANCES => Err(Refusal::Full),
                None => {
                    *size += 1;
                    Ok(made)
                }
                Some(_) => Ok(made),
            }
        });
        match made {
            Ok(made) => {
                wanted.insert(key);
                plan.put.extend(Some(made).filter(|made| known != Some(made)));
            }
            Err(refusal) => {
                let (cluster, service) = (task.task.cluster.clone(), task.service.clone());
                plan.refused.insert(Refused { cluster, service, registry: task.registry.service.clone(), refusal });
            }
        }
    }
    let owned = view.instances.iter().filter(|(key, instance)| instance.owner.is_some() && !wanted.contains(*key));
    plan.remove = owned.map(|(key, _)| key.clone()).collect();
    plan
}

/// The instance that a task is to be; `known` is what it is.
fn instance(
    view: &View<'_>,
    view_of: &TaskView<'_>,
    known: Option<&DiscoveryInstance>,
    now: UnixMillis,
) -> Result<DiscoveryInstance, Refusal> {
    let (task, registry) = (view_of.task, &view_of.registry);
    let service = view.services.get(&registry.service).ok_or(Refusal::NoService)?;
    let address = view_of.address.ok_or(Refusal::NoAddress)?;
    let port = port(view_of);
    let needs_port = registry.container.is_some() || service.dns.as_ref().is_some_and(|dns| dns.has(RecordType::Srv));
    if needs_port && port.is_none() {
        return Err(Refusal::NoPort);
    }
    let mut attributes: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: Option<String>| attributes.extend(value.map(|value| (name.to_owned(), value)));
    set(IPV4, Some(address.to_string()));
    set(PORT, port.map(|port| port.to_string()));
    set("ECS_CLUSTER_NAME", Some(task.cluster.to_string()));
    set("ECS_SERVICE_NAME", Some(view_of.service.to_string()));
    set("ECS_TASK_DEFINITION_FAMILY", Some(task.definition.family.to_string()));
    set("AVAILABILITY_ZONE", task.availability_zone.as_deref().map(str::to_owned));
    set("REGION", Some(view.region.to_owned()));
    set("EC2_INSTANCE_ID", view_of.ec2_instance_id.map(str::to_owned));
    let known = known.filter(|known| known.owner.is_some());
    let health = service.has_custom_health.then(|| match view_of.health {
        Some(HealthStatus::Healthy) => CustomHealth::Healthy,
        Some(_) => CustomHealth::Unhealthy,
        // Without checks of its own it is as somebody else says.
        None => known.and_then(|known| known.health).unwrap_or(CustomHealth::Healthy),
    });
    // What it began with stays what it began with.
    let first = known.and_then(|known| known.attributes.get(INIT_HEALTH).cloned());
    set(INIT_HEALTH, health.map(|health| first.unwrap_or_else(|| health.to_string())));
    Ok(DiscoveryInstance {
        id: task.id.to_string(),
        service: registry.service.clone(),
        attributes,
        health,
        owner: Some(InstanceOwner { cluster: task.cluster.clone(), service: view_of.service.clone(), task: task.id }),
        creator_request_id: None,
        operation: None,
        created_at: known.map_or(now, |known| known.created_at),
    })
}

/// The port to register, if there is one.
fn port(view: &TaskView<'_>) -> Option<u16> {
    let Some((name, container_port)) = &view.registry.container else { return view.registry.port };
    if view.has_own_interface {
        return Some(*container_port);
    }
    let container = view.task.containers.iter().find(|container| *container.name == **name)?;
    let bound = || container.network_bindings.iter().filter(|binding| binding.container_port == *container_port);
    let found = bound().find(|binding| binding.protocol == "tcp").or_else(|| bound().next());
    found.map(|binding| binding.host_port)
}
