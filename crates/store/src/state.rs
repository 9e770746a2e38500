//! The whole state in memory, with the indexes that readers need.

mod capacity;
mod discovery;
mod fargate;
mod history;
mod id_hasher;
mod ingress;
mod interfaces;
mod loading;
mod records;
mod settings;
mod starter;
mod tally;
mod vpc_resources;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash};
use std::ops::Deref;
use std::sync::Arc;

use berth_model::account_setting::AccountSetting;
use berth_model::alarm::Alarm;
use berth_model::capacity_provider::CapacityProvider;
use berth_model::cluster::Cluster;
use berth_model::container_instance::ContainerInstance;
use berth_model::daemon::{Daemon, DaemonTaskDefinition};
use berth_model::express_service::ExpressService;
use berth_model::gateway::Gateway;
use berth_model::ids::{
    CapacityProviderName, ClusterName, ContainerInstanceId, DaemonName, DefinitionId, Family, GatewayName, ServiceName, TaskId,
};
use berth_model::record::{Key, Record};
use berth_model::service::{Service, ServiceEvent};
use berth_model::service_deployment::{ServiceDeployment, ServiceDeploymentId, ServiceRevision, ServiceRevisionId};
use berth_model::task::{DesiredStatus, Task};
use berth_model::task_definition::{FamilyCounter, TaskDefinition, TaskDefinitionStatus};
use berth_model::time::UnixMillis;

use self::discovery::Registering;
use self::id_hasher::ById;
pub use self::interfaces::AddInterfaceError;
pub(crate) use self::loading::Loading;
pub use self::starter::Starter;
pub use self::tally::Tally;
pub use self::vpc_resources::VpcResources;
use crate::backend::{Stored, Write};
use crate::transaction::Revision;

/// A value with its counters.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    /// The value.
    pub value: Arc<T>,
    /// The commit that created it.
    pub created: Revision,
    /// The commit that changed it last; conditions of commits name it.
    pub modified: Revision,
    /// How often it was written since it was created: ECS's `version`.
    pub version: u64,
}

impl<T> Deref for Entry<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What is known of one cluster's content, by what readers ask for.
#[derive(Debug, Default)]
pub struct ClusterIndex {
    /// Tasks by what they should be, in order of their ids.
    pub desired_running: BTreeSet<TaskId>,
    /// Tasks that should be, or are, stopped.
    pub desired_stopped: BTreeSet<TaskId>,
    /// Tasks by container instance; those of Fargate belong to none.
    pub by_instance: HashMap<ContainerInstanceId, BTreeSet<TaskId>, ById>,
    /// Tasks by service.
    pub by_service: HashMap<ServiceName, BTreeSet<TaskId>>,
    /// Tasks by family.
    pub by_family: HashMap<Family, BTreeSet<TaskId>>,
    /// Tasks by RunTask's `clientToken`.
    pub by_client_token: HashMap<String, BTreeSet<TaskId>>,
    /// Tasks by what started them.
    pub by_starter: HashMap<Starter, BTreeSet<TaskId>>,
    /// Container instances, INACTIVE ones too.
    pub instances: BTreeSet<ContainerInstanceId>,
    /// Tasks whose last status is RUNNING.
    pub running_tasks: usize,
    /// Tasks whose last status comes before RUNNING.
    pub pending_tasks: usize,
    /// Tasks whose last status comes after RUNNING.
    pub other_tasks: usize,
    /// Tasks that have stopped, by when they did.
    pub stopped: BTreeSet<(UnixMillis, TaskId)>,
    tallies: tally::Tallies,
}

/// Everything, as of one revision.
#[derive(Debug, Default)]
pub struct State {
    /// The last durable commit.
    pub revision: Revision,
    clusters: BTreeMap<ClusterName, Entry<Cluster>>,
    families: BTreeMap<Family, Entry<FamilyCounter>>,
    definitions: BTreeMap<DefinitionId, Entry<TaskDefinition>>,
    tasks: HashMap<TaskId, Entry<Task>, ById>,
    services: BTreeMap<(ClusterName, ServiceName), Entry<Service>>,
    events: BTreeMap<(ClusterName, ServiceName, u64), Entry<ServiceEvent>>,
    service_revisions: BTreeMap<(ClusterName, ServiceName, ServiceRevisionId), Entry<ServiceRevision>>,
    service_deployments: BTreeMap<(ClusterName, ServiceName, ServiceDeploymentId), Entry<ServiceDeployment>>,
    instances: HashMap<ContainerInstanceId, Entry<ContainerInstance>, ById>,
    providers: BTreeMap<CapacityProviderName, Entry<CapacityProvider>>,
    daemons: BTreeMap<(ClusterName, DaemonName), Entry<Daemon>>,
    daemon_families: BTreeMap<Family, Entry<FamilyCounter>>,
    daemon_definitions: BTreeMap<DefinitionId, Entry<DaemonTaskDefinition>>,
    account_settings: BTreeMap<(String, String), Entry<AccountSetting>>,
    gateways: BTreeMap<GatewayName, Entry<Gateway>>,
    express_services: BTreeMap<(ClusterName, ServiceName), Entry<ExpressService>>,
    alarms: BTreeMap<String, Entry<Alarm>>,
    discovery: discovery::Discovery,
    vpc_resources: VpcResources,
    by_cluster: HashMap<ClusterName, ClusterIndex>,
    fargate_tasks: fargate::FargateTasks,
}

impl State {
    /// A cluster, INACTIVE ones too.
    #[must_use]
    pub fn cluster(&self, name: &ClusterName) -> Option<&Entry<Cluster>> {
        self.clusters.get(name)
    }

    /// All clusters by name.
    pub fn clusters(&self) -> impl Iterator<Item = &Entry<Cluster>> {
        self.clusters.values()
    }

    /// A family's counter.
    #[must_use]
    pub fn family(&self, family: &Family) -> Option<&Entry<FamilyCounter>> {
        self.families.get(family)
    }

    /// All families by name.
    pub fn families(&self) -> impl Iterator<Item = &Entry<FamilyCounter>> {
        self.families.values()
    }

    /// A task definition's revision.
    #[must_use]
    pub fn definition(&self, id: &DefinitionId) -> Option<&Entry<TaskDefinition>> {
        self.definitions.get(id)
    }

    /// All revisions, by family and revision.
    pub fn definitions(&self) -> impl DoubleEndedIterator<Item = &Entry<TaskDefinition>> {
        self.definitions.values()
    }

    /// All revisions of a family, oldest first.
    pub fn revisions(&self, family: &Family) -> impl DoubleEndedIterator<Item = &Entry<TaskDefinition>> {
        let first = DefinitionId { family: family.clone(), revision: 0 };
        let last = DefinitionId { family: family.clone(), revision: u32::MAX };
        self.definitions.range(first..=last).map(|(_, entry)| entry)
    }

    /// A family's newest ACTIVE revision.
    #[must_use]
    pub fn latest_active(&self, family: &Family) -> Option<&Entry<TaskDefinition>> {
        self.revisions(family).rev().find(|entry| entry.status == TaskDefinitionStatus::Active)
    }

    /// A task.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Entry<Task>> {
        self.tasks.get(&id)
    }

    /// All tasks, in no order.
    pub fn tasks(&self) -> impl Iterator<Item = &Entry<Task>> {
        self.tasks.values()
    }

    /// The tasks of a service, in order of their ids.
    pub fn tasks_of_service(&self, cluster: &ClusterName, service: &ServiceName) -> impl Iterator<Item = &Entry<Task>> {
        let ids = self.by_cluster.get(cluster).and_then(|index| index.by_service.get(service));
        ids.into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// The tasks of a container instance, in order of their ids. Fargate tasks on its machine are none of its:
    /// [`State::tasks_of_machine`] has these too.
    pub fn tasks_of_instance(&self, cluster: &ClusterName, instance: ContainerInstanceId) -> impl Iterator<Item = &Entry<Task>> {
        let ids = self.by_cluster.get(cluster).and_then(|index| index.by_instance.get(&instance));
        ids.into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// A service.
    #[must_use]
    pub fn service(&self, cluster: &ClusterName, name: &ServiceName) -> Option<&Entry<Service>> {
        self.services.get(&(cluster.clone(), name.clone()))
    }

    /// The services of a cluster by name.
    pub fn services_of(&self, cluster: &ClusterName) -> impl Iterator<Item = &Entry<Service>> {
        self.services
            .range((cluster.clone(), ServiceName("".into()))..)
            .take_while({
                let cluster = cluster.clone();
                move |((of, _), _)| *of == cluster
            })
            .map(|(_, entry)| entry)
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = &Entry<Service>> {
        self.services.values()
    }

    /// A service's events, oldest first.
    pub fn events_of(&self, cluster: &ClusterName, service: &ServiceName) -> impl DoubleEndedIterator<Item = &Entry<ServiceEvent>> {
        let at = |number| (cluster.clone(), service.clone(), number);
        self.events.range(at(0)..=at(u64::MAX)).map(|(_, entry)| entry)
    }

    /// A container instance.
    #[must_use]
    pub fn instance(&self, id: ContainerInstanceId) -> Option<&Entry<ContainerInstance>> {
        self.instances.get(&id)
    }

    /// All container instances, in no order.
    pub fn instances(&self) -> impl Iterator<Item = &Entry<ContainerInstance>> {
        self.instances.values()
    }

    /// The container instances of a cluster, in order of their ids.
    pub fn instances_of(&self, cluster: &ClusterName) -> impl Iterator<Item = &Entry<ContainerInstance>> {
        let ids = self.by_cluster.get(cluster).map(|index| &index.instances);
        ids.into_iter().flatten().filter_map(|id| self.instances.get(id))
    }

    /// A cluster's indexes; `None` if nothing was ever in it.
    #[must_use]
    pub fn index(&self, cluster: &ClusterName) -> Option<&ClusterIndex> {
        self.by_cluster.get(cluster)
    }

    pub(crate) fn restore(&mut self, stored: Stored) {
        let Stored { record, created, modified, version } = stored;
        match record {
            Record::Cluster(value) => {
                self.clusters.insert(value.name.clone(), Entry { value, created, modified, version });
            }
            Record::Family(value) => {
                self.families.insert(value.family.clone(), Entry { value, created, modified, version });
            }
            Record::TaskDefinition(value) => {
                self.definitions.insert(value.id.clone(), Entry { value, created, modified, version });
            }
            Record::Task(value) => {
                if let Some(known) = self.tasks.get_mut(&value.id)
                    && indexed_alike(&known.value, &value)
                {
                    // By far the most frequent write: a status.
                    if let Some(index) = self.by_cluster.get_mut(&value.cluster) {
                        index.uncount(&known.value);
                        index.count(&value);
                    }
                    *known = Entry { value, created, modified, version };
                    return;
                }
                self.remove_task(value.id);
                self.index_task(&value);
                self.tasks.insert(value.id, Entry { value, created, modified, version });
            }
            Record::Service(value) => {
                self.discovery.note_registry((&value.cluster, &value.name), Registering::Service, value.names_registries());
                self.services.insert((value.cluster.clone(), value.name.clone()), Entry { value, created, modified, version });
            }
            Record::ServiceEvent(value) => {
                let key = (value.cluster.clone(), value.service.clone(), value.number);
                self.events.insert(key, Entry { value, created, modified, version });
            }
            Record::ServiceRevision(value) => {
                let key = (value.cluster.clone(), value.service.clone(), value.id);
                self.discovery.note_registry((&key.0, &key.1), Registering::Revision(key.2), !value.settings.service_registries.is_empty());
                self.service_revisions.insert(key, Entry { value, created, modified, version });
            }
            Record::ServiceDeployment(value) => {
                let key = (value.cluster.clone(), value.service.clone(), value.id);
                self.service_deployments.insert(key, Entry { value, created, modified, version });
            }
            Record::ContainerInstance(value) => {
                self.by_cluster.entry(value.cluster.clone()).or_default().instances.insert(value.id);
                self.instances.insert(value.id, Entry { value, created, modified, version });
            }
            Record::CapacityProvider(value) => {
                self.providers.insert(value.name.clone(), Entry { value, created, modified, version });
            }
            Record::Daemon(value) => {
                self.daemons.insert((value.cluster.clone(), value.name.clone()), Entry { value, created, modified, version });
            }
            Record::DaemonFamily(value) => {
                self.daemon_families.insert(value.family.clone(), Entry { value, created, modified, version });
            }
            Record::DaemonTaskDefinition(value) => {
                self.daemon_definitions.insert(value.id.clone(), Entry { value, created, modified, version });
            }
            Record::AccountSetting(value) => {
                self.account_settings.insert((value.name.clone(), value.principal.clone()), Entry { value, created, modified, version });
            }
            Record::Gateway(value) => {
                self.gateways.insert(value.name.clone(), Entry { value, created, modified, version });
            }
            Record::ExpressService(value) => {
                self.express_services.insert((value.cluster.clone(), value.name.clone()), Entry { value, created, modified, version });
            }
            Record::Alarm(value) => {
                self.alarms.insert(value.name.clone(), Entry { value, created, modified, version });
            }
            record
            @ (Record::Namespace(_) | Record::DiscoveryService(_) | Record::DiscoveryInstance(_) | Record::DiscoveryOperation(_)) => {
                self.discovery.restore(record, created, modified, version);
            }
            Record::VpcResource(resource) => self.vpc_resources.restore(resource, created, modified, version),
        }
    }

    pub(crate) fn apply(&mut self, write: Write) {
        match write {
            Write::Put(stored) => self.restore(stored),
            Write::Touch { key, modified, version } => self.touch(&key, modified, version),
            Write::Delete(key) => self.delete(&key),
        }
    }

    fn touch(&mut self, key: &Key, modified: Revision, version: u64) {
        fn set<T>(entry: Option<&mut Entry<T>>, modified: Revision, version: u64) {
            if let Some(entry) = entry {
                entry.modified = modified;
                entry.version = version;
            }
        }
        match key {
            Key::Cluster(name) => set(self.clusters.get_mut(name), modified, version),
            Key::Family(family) => set(self.families.get_mut(family), modified, version),
            Key::TaskDefinition(id) => set(self.definitions.get_mut(id), modified, version),
            Key::Task(id) => set(self.tasks.get_mut(id), modified, version),
            Key::Service(cluster, name) => set(self.services.get_mut(&(cluster.clone(), name.clone())), modified, version),
            Key::ServiceEvent(cluster, name, number) => {
                set(self.events.get_mut(&(cluster.clone(), name.clone(), *number)), modified, version);
            }
            Key::ServiceRevision(cluster, name, id) => {
                set(self.service_revisions.get_mut(&(cluster.clone(), name.clone(), *id)), modified, version);
            }
            Key::ServiceDeployment(cluster, name, id) => {
                set(self.service_deployments.get_mut(&(cluster.clone(), name.clone(), *id)), modified, version);
            }
            Key::ContainerInstance(id) => set(self.instances.get_mut(id), modified, version),
            Key::CapacityProvider(name) => set(self.providers.get_mut(name), modified, version),
            Key::Daemon(cluster, name) => set(self.daemons.get_mut(&(cluster.clone(), name.clone())), modified, version),
            Key::DaemonFamily(family) => set(self.daemon_families.get_mut(family), modified, version),
            Key::DaemonTaskDefinition(id) => set(self.daemon_definitions.get_mut(id), modified, version),
            Key::AccountSetting(name, principal) => {
                set(self.account_settings.get_mut(&(name.clone(), principal.clone())), modified, version);
            }
            Key::Gateway(name) => set(self.gateways.get_mut(name), modified, version),
            Key::ExpressService(cluster, name) => {
                set(self.express_services.get_mut(&(cluster.clone(), name.clone())), modified, version);
            }
            Key::Alarm(name) => set(self.alarms.get_mut(name), modified, version),
            Key::Namespace(_) | Key::DiscoveryService(_) | Key::DiscoveryInstance(..) | Key::DiscoveryOperation(_) => {
                self.discovery.touch(key, modified, version);
            }
            Key::VpcResource(id) => self.vpc_resources.touch(*id, modified, version),
        }
    }

    fn delete(&mut self, key: &Key) {
        match key {
            Key::Cluster(name) => {
                self.clusters.remove(name);
            }
            Key::Family(family) => {
                self.families.remove(family);
            }
            Key::TaskDefinition(id) => {
                self.definitions.remove(id);
            }
            Key::Task(id) => self.remove_task(*id),
            Key::Service(cluster, name) => {
                self.discovery.note_registry((cluster, name), Registering::Service, false);
                self.services.remove(&(cluster.clone(), name.clone()));
            }
            Key::ServiceEvent(cluster, name, number) => {
                self.events.remove(&(cluster.clone(), name.clone(), *number));
            }
            Key::ServiceRevision(cluster, name, id) => {
                self.discovery.note_registry((cluster, name), Registering::Revision(*id), false);
                self.service_revisions.remove(&(cluster.clone(), name.clone(), *id));
            }
            Key::ServiceDeployment(cluster, name, id) => {
                self.service_deployments.remove(&(cluster.clone(), name.clone(), *id));
            }
            Key::ContainerInstance(id) => {
                if let Some(instance) = self.instances.remove(id)
                    && let Some(index) = self.by_cluster.get_mut(&instance.cluster)
                {
                    index.instances.remove(id);
                }
            }
            Key::CapacityProvider(_) | Key::Daemon(..) | Key::DaemonFamily(_) | Key::DaemonTaskDefinition(_) => self.delete_capacity(key),
            Key::AccountSetting(name, principal) => {
                self.account_settings.remove(&(name.clone(), principal.clone()));
            }
            Key::Gateway(name) => drop(self.gateways.remove(name)),
            Key::ExpressService(cluster, name) => drop(self.express_services.remove(&(cluster.clone(), name.clone()))),
            Key::Alarm(name) => drop(self.alarms.remove(name)),
            Key::Namespace(_) | Key::DiscoveryService(_) | Key::DiscoveryInstance(..) | Key::DiscoveryOperation(_) => {
                self.discovery.delete(key);
            }
            Key::VpcResource(id) => self.vpc_resources.delete(*id),
        }
    }

    fn index_task(&mut self, task: &Task) {
        let index = self.by_cluster.entry(task.cluster.clone()).or_default();
        match task.desired_status {
            DesiredStatus::Running => index.desired_running.insert(task.id),
            DesiredStatus::Stopped => index.desired_stopped.insert(task.id),
        };
        if !self.fargate_tasks.take(task) {
            index.by_instance.entry(task.container_instance).or_default().insert(task.id);
        }
        index.by_family.entry(task.definition.family.clone()).or_default().insert(task.id);
        if let Some(membership) = &task.service {
            index.by_service.entry(membership.service.clone()).or_default().insert(task.id);
        }
        if let Some(token) = &task.client_token {
            index.by_client_token.entry(token.token.clone()).or_default().insert(task.id);
        }
        if let Some(starter) = Starter::of(task) {
            index.by_starter.entry(starter).or_default().insert(task.id);
        }
        index.count(task);
    }

    fn remove_task(&mut self, id: TaskId) {
        fn remove<K: Hash + Eq, S: BuildHasher>(map: &mut HashMap<K, BTreeSet<TaskId>, S>, key: &K, id: TaskId) {
            if let Some(set) = map.get_mut(key) {
                set.remove(&id);
                if set.is_empty() {
                    map.remove(key);
                }
            }
        }
        let Some(task) = self.tasks.remove(&id) else { return };
        let Some(index) = self.by_cluster.get_mut(&task.cluster) else { return };
        index.desired_running.remove(&id);
        index.desired_stopped.remove(&id);
        self.fargate_tasks.remove(&task);
        remove(&mut index.by_instance, &task.container_instance, id);
        remove(&mut index.by_family, &task.definition.family, id);
        if let Some(membership) = &task.service {
            remove(&mut index.by_service, &membership.service, id);
        }
        if let Some(token) = &task.client_token {
            remove(&mut index.by_client_token, &token.token, id);
        }
        if let Some(starter) = Starter::of(&task) {
            remove(&mut index.by_starter, &starter, id);
        }
        index.uncount(&task);
    }
}

/// Whether two versions of a task stand at the same places of every index, but for the counts by status.
fn indexed_alike(one: &Task, other: &Task) -> bool {
    one.cluster == other.cluster
        && one.desired_status == other.desired_status
        && one.container_instance == other.container_instance
        && one.definition.family == other.definition.family
        && one.service == other.service
        && one.started_by == other.started_by
        && one.client_token.as_ref().map(|t| &t.token) == other.client_token.as_ref().map(|t| &t.token)
}
