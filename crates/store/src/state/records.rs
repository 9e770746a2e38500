//! The state as records: every one of them with its counters, and what is known of a key, whatever its kind.

use std::sync::Arc;

use berth_model::record::{Key, Record};

use super::{Entry, State};
use crate::backend::Stored;
use crate::transaction::Revision;

impl State {
    /// Every record with its counters, kind by kind. Cheap: values are shared, not copied.
    pub fn records(&self) -> impl Iterator<Item = Stored> {
        fn all<'a, T: 'a>(
            entries: impl Iterator<Item = &'a Entry<T>> + 'a,
            record: impl Fn(Arc<T>) -> Record + 'a,
        ) -> impl Iterator<Item = Stored> + 'a {
            entries.map(move |entry| Stored {
                record: record(Arc::clone(&entry.value)),
                created: entry.created,
                modified: entry.modified,
                version: entry.version,
            })
        }
        all(self.clusters.values(), Record::Cluster)
            .chain(all(self.families.values(), Record::Family))
            .chain(all(self.definitions.values(), Record::TaskDefinition))
            .chain(all(self.instances.values(), Record::ContainerInstance))
            .chain(all(self.account_settings.values(), Record::AccountSetting))
            .chain(all(self.services.values(), Record::Service))
            .chain(all(self.events.values(), Record::ServiceEvent))
            .chain(all(self.service_revisions.values(), Record::ServiceRevision))
            .chain(all(self.service_deployments.values(), Record::ServiceDeployment))
            .chain(all(self.tasks.values(), Record::Task))
            .chain(all(self.gateways.values(), Record::Gateway))
            .chain(all(self.express_services.values(), Record::ExpressService))
            .chain(all(self.alarms.values(), Record::Alarm))
            .chain(self.discovery.records())
            .chain(all(self.providers.values(), Record::CapacityProvider))
            .chain(all(self.daemons.values(), Record::Daemon))
            .chain(all(self.daemon_families.values(), Record::DaemonFamily))
            .chain(all(self.daemon_definitions.values(), Record::DaemonTaskDefinition))
            .chain(self.vpc_resources.records())
    }

    /// The commit that last changed a record; `None` if there is none.
    #[must_use]
    pub fn modified(&self, key: &Key) -> Option<Revision> {
        self.counters(key).map(|(_, modified, _)| modified)
    }

    pub(crate) fn counters(&self, key: &Key) -> Option<(Revision, Revision, u64)> {
        fn of<T>(entry: Option<&Entry<T>>) -> Option<(Revision, Revision, u64)> {
            entry.map(|e| (e.created, e.modified, e.version))
        }
        match key {
            Key::Cluster(name) => of(self.clusters.get(name)),
            Key::Family(family) => of(self.families.get(family)),
            Key::TaskDefinition(id) => of(self.definitions.get(id)),
            Key::Task(id) => of(self.tasks.get(id)),
            Key::Service(cluster, name) => of(self.services.get(&(cluster.clone(), name.clone()))),
            Key::ServiceEvent(cluster, name, number) => of(self.events.get(&(cluster.clone(), name.clone(), *number))),
            Key::ServiceRevision(cluster, name, id) => of(self.service_revisions.get(&(cluster.clone(), name.clone(), *id))),
            Key::ServiceDeployment(cluster, name, id) => of(self.service_deployments.get(&(cluster.clone(), name.clone(), *id))),
            Key::ContainerInstance(id) => of(self.instances.get(id)),
            Key::CapacityProvider(name) => of(self.providers.get(name)),
            Key::Daemon(cluster, name) => of(self.daemons.get(&(cluster.clone(), name.clone()))),
            Key::DaemonFamily(family) => of(self.daemon_families.get(family)),
            Key::DaemonTaskDefinition(id) => of(self.daemon_definitions.get(id)),
            Key::AccountSetting(name, principal) => of(self.account_setting(name, principal)),
            Key::Gateway(name) => of(self.gateways.get(name)),
            Key::ExpressService(cluster, name) => of(self.express_service(cluster, name)),
            Key::Alarm(name) => of(self.alarm(name)),
            Key::Namespace(id) => of(self.namespace(id)),
            Key::DiscoveryService(id) => of(self.discovery_service(id)),
            Key::DiscoveryInstance(service, id) => of(self.discovery_instance(service, id)),
            Key::DiscoveryOperation(id) => of(self.discovery_operation(id)),
            Key::VpcResource(id) => self.vpc_resources.counters(*id),
        }
    }

    /// Every record's key, in no order.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let clusters = self.clusters.keys().cloned().map(Key::Cluster);
        let families = self.families.keys().cloned().map(Key::Family);
        let definitions = self.definitions.keys().cloned().map(Key::TaskDefinition);
        let tasks = self.tasks.keys().copied().map(Key::Task);
        let services = self.services.keys().cloned().map(|(cluster, name)| Key::Service(cluster, name));
        let events = self.events.keys().cloned().map(|(cluster, name, number)| Key::ServiceEvent(cluster, name, number));
        let revisions = self.service_revisions.keys().cloned().map(|(cluster, name, id)| Key::ServiceRevision(cluster, name, id));
        let deployments = self.service_deployments.keys().cloned().map(|(cluster, name, id)| Key::ServiceDeployment(cluster, name, id));
        let instances = self.instances.keys().copied().map(Key::ContainerInstance);
        let settings = self.account_settings.keys().cloned().map(|(name, principal)| Key::AccountSetting(name, principal));
        let gateways = self.gateways.keys().cloned().map(Key::Gateway);
        let express = self.express_services.keys().cloned().map(|(cluster, name)| Key::ExpressService(cluster, name));
        let instances = instances
            .chain(settings)
            .chain(gateways)
            .chain(express)
            .chain(self.capacity_keys())
            .chain(self.discovery_keys())
            .chain(self.alarms.keys().cloned().map(Key::Alarm))
            .chain(self.vpc_resources.records().map(|stored| stored.record.key()));
        let services = services.chain(events).chain(revisions).chain(deployments);
        clusters.chain(families).chain(definitions).chain(tasks).chain(services).chain(instances).collect()
    }

    /// Is this exactly what is there?
    pub(crate) fn holds(&self, record: &Record) -> bool {
        fn same<T: PartialEq>(entry: Option<&Entry<T>>, value: &T) -> bool {
            entry.is_some_and(|entry| *entry.value == *value)
        }
        match record {
            Record::Cluster(value) => same(self.clusters.get(&value.name), value),
            Record::Family(value) => same(self.families.get(&value.family), value),
            Record::TaskDefinition(value) => same(self.definitions.get(&value.id), value),
            Record::Task(value) => same(self.tasks.get(&value.id), value),
            Record::Service(value) => same(self.services.get(&(value.cluster.clone(), value.name.clone())), value),
            Record::ServiceEvent(value) => same(self.events.get(&(value.cluster.clone(), value.service.clone(), value.number)), value),
            Record::ServiceRevision(value) => {
                same(self.service_revisions.get(&(value.cluster.clone(), value.service.clone(), value.id)), value)
            }
            Record::ServiceDeployment(value) => {
                same(self.service_deployments.get(&(value.cluster.clone(), value.service.clone(), value.id)), value)
            }
            Record::ContainerInstance(value) => same(self.instances.get(&value.id), value),
            Record::CapacityProvider(value) => same(self.providers.get(&value.name), value),
            Record::Daemon(value) => same(self.daemons.get(&(value.cluster.clone(), value.name.clone())), value),
            Record::DaemonFamily(value) => same(self.daemon_families.get(&value.family), value),
            Record::DaemonTaskDefinition(value) => same(self.daemon_definitions.get(&value.id), value),
            Record::AccountSetting(value) => same(self.account_setting(&value.name, &value.principal), value),
            Record::Gateway(value) => same(self.gateways.get(&value.name), value),
            Record::ExpressService(value) => same(self.express_service(&value.cluster, &value.name), value),
            Record::Alarm(value) => same(self.alarm(&value.name), value),
            Record::Namespace(value) => same(self.namespace(&value.id), value),
            Record::DiscoveryService(value) => same(self.discovery_service(&value.id), value),
            Record::DiscoveryInstance(value) => same(self.discovery_instance(&value.service, &value.id), value),
            Record::DiscoveryOperation(value) => same(self.discovery_operation(&value.id), value),
            Record::VpcResource(resource) => self.vpc_resources.holds(resource),
        }
    }
}
