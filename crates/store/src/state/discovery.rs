//! Namespaces, Cloud Map services, their instances and operations in the state: kept here, and what readers ask for; and which services
//! register their tasks there, which is found without a look at all that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::discovery::{DiscoveryInstance, DiscoveryService, DiscoveryServiceId};
use berth_model::ids::{ClusterName, ServiceName};
use berth_model::namespace::{Namespace, NamespaceId, Operation, OperationId};
use berth_model::record::{Key, Record};
use berth_model::service::Service;
use berth_model::service_deployment::ServiceRevisionId;

use super::{Entry, State};
use crate::backend::Stored;
use crate::transaction::Revision;

/// Everything of Cloud Map's.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    namespaces: BTreeMap<NamespaceId, Entry<Namespace>>,
    services: BTreeMap<DiscoveryServiceId, Entry<DiscoveryService>>,
    instances: BTreeMap<(DiscoveryServiceId, String), Entry<DiscoveryInstance>>,
    operations: BTreeMap<OperationId, Entry<Operation>>,
    /// How many of a Cloud Map service's instances are tasks'; never 0.
    of_tasks: BTreeMap<DiscoveryServiceId, usize>,
    registering: BTreeMap<(ClusterName, ServiceName), BTreeSet<Registering>>,
}

/// What of a service names a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Registering {
    /// What it is set to.
    Service,
    /// What a revision was brought out with.
    Revision(ServiceRevisionId),
}

impl Discovery {
    /// Takes a record of one of its kinds; of others it knows nothing.
    pub(super) fn restore(&mut self, record: Record, created: Revision, modified: Revision, version: u64) {
        match record {
            Record::Namespace(value) => {
                self.namespaces.insert(value.id.clone(), Entry { value, created, modified, version });
            }
            Record::DiscoveryService(value) => {
                self.services.insert(value.id.clone(), Entry { value, created, modified, version });
            }
            Record::DiscoveryInstance(value) => {
                if value.owner.is_some() {
                    *self.of_tasks.entry(value.service.clone()).or_default() += 1;
                }
                let place = (value.service.clone(), value.id.clone());
                let before = self.instances.insert(place, Entry { value, created, modified, version });
                self.note_removed(before);
            }
            Record::DiscoveryOperation(value) => {
                self.operations.insert(value.id.clone(), Entry { value, created, modified, version });
            }
            _ => {}
        }
    }

    fn note_removed(&mut self, instance: Option<Entry<DiscoveryInstance>>) {
        let Some(instance) = instance.filter(|instance| instance.owner.is_some()) else { return };
        if let Some(count) = self.of_tasks.get_mut(&instance.service) {
            *count -= 1;
            if *count == 0 {
                self.of_tasks.remove(&instance.service);
            }
        }
    }

    /// A service, or a revision of it, was written, which names a registry or does not; nor does one that is gone.
    pub(super) fn note_registry(&mut self, place: (&ClusterName, &ServiceName), what: Registering, names_one: bool) {
        // Most have none, and then there is nothing to look up.
        if !names_one && self.registering.is_empty() {
            return;
        }
        let place = (place.0.clone(), place.1.clone());
        if names_one {
            self.registering.entry(place).or_default().insert(what);
        } else if let Some(known) = self.registering.get_mut(&place) {
            known.remove(&what);
            if known.is_empty() {
                self.registering.remove(&place);
            }
        }
    }

    /// Counts a record of one of its kinds up.
    pub(super) fn touch(&mut self, key: &Key, modified: Revision, version: u64) {
        fn set<T>(entry: Option<&mut Entry<T>>, modified: Revision, version: u64) {
            if let Some(entry) = entry {
                (entry.modified, entry.version) = (modified, version);
            }
        }
        match key {
            Key::Namespace(id) => set(self.namespaces.get_mut(id), modified, version),
            Key::DiscoveryService(id) => set(self.services.get_mut(id), modified, version),
            Key::DiscoveryInstance(service, id) => set(self.instances.get_mut(&(service.clone(), id.clone())), modified, version),
            Key::DiscoveryOperation(id) => set(self.operations.get_mut(id), modified, version),
            _ => {}
        }
    }

    /// Forgets a record of one of its kinds.
    pub(super) fn delete(&mut self, key: &Key) {
        match key {
            Key::Namespace(id) => drop(self.namespaces.remove(id)),
            Key::DiscoveryService(id) => drop(self.services.remove(id)),
            Key::DiscoveryInstance(service, id) => {
                let before = self.instances.remove(&(service.clone(), id.clone()));
                self.note_removed(before);
            }
            Key::DiscoveryOperation(id) => drop(self.operations.remove(id)),
            _ => {}
        }
    }

    /// Every record with its counters.
    pub(super) fn records(&self) -> impl Iterator<Item = Stored> {
        fn stored<T>(entry: &Entry<T>, record: impl Fn(Arc<T>) -> Record) -> Stored {
            let Entry { value, created, modified, version } = entry;
            Stored { record: record(Arc::clone(value)), created: *created, modified: *modified, version: *version }
        }
        let namespaces = self.namespaces.values().map(|entry| stored(entry, Record::Namespace));
        let services = self.services.values().map(|entry| stored(entry, Record::DiscoveryService));
        let instances = self.instances.values().map(|entry| stored(entry, Record::DiscoveryInstance));
        let operations = self.operations.values().map(|entry| stored(entry, Record::DiscoveryOperation));
        namespaces.chain(services).chain(instances).chain(operations)
    }
}

impl State {
    /// A namespace.
    #[must_use]
    pub fn namespace(&self, id: &NamespaceId) -> Option<&Entry<Namespace>> {
        self.discovery.namespaces.get(id)
    }

    /// All namespaces by id.
    pub fn namespaces(&self) -> impl ExactSizeIterator<Item = &Entry<Namespace>> {
        self.discovery.namespaces.values()
    }

    /// A Cloud Map service.
    #[must_use]
    pub fn discovery_service(&self, id: &DiscoveryServiceId) -> Option<&Entry<DiscoveryService>> {
        self.discovery.services.get(id)
    }

    /// All Cloud Map services by id.
    pub fn discovery_services(&self) -> impl ExactSizeIterator<Item = &Entry<DiscoveryService>> {
        self.discovery.services.values()
    }

    /// The Cloud Map services of a namespace by id.
    pub fn discovery_services_of(&self, namespace: &NamespaceId) -> impl Iterator<Item = &Entry<DiscoveryService>> {
        self.discovery.services.values().filter(move |service| service.namespace == *namespace)
    }

    /// An instance of a Cloud Map service.
    #[must_use]
    pub fn discovery_instance(&self, service: &DiscoveryServiceId, id: &str) -> Option<&Entry<DiscoveryInstance>> {
        self.discovery.instances.get(&(service.clone(), id.to_owned()))
    }

    /// All instances of all Cloud Map services, by service and id.
    pub fn discovery_instances(&self) -> impl ExactSizeIterator<Item = &Entry<DiscoveryInstance>> {
        self.discovery.instances.values()
    }

    /// The instances of a Cloud Map service by id.
    pub fn discovery_instances_of(&self, service: &DiscoveryServiceId) -> impl Iterator<Item = &Entry<DiscoveryInstance>> {
        let (first, service) = ((service.clone(), String::new()), service.clone());
        self.discovery.instances.range(first..).take_while(move |((of, _), _)| *of == service).map(|(_, entry)| entry)
    }

    /// Services that are set to register their tasks in Cloud Map, or have a revision that does; in order.
    pub fn registering_services(&self) -> impl Iterator<Item = &Entry<Service>> {
        self.discovery.registering.keys().filter_map(|place| self.services.get(place))
    }

    /// Cloud Map services with instances that are tasks, in order; not all of them need still be there.
    pub fn discovery_services_of_tasks(&self) -> impl ExactSizeIterator<Item = &DiscoveryServiceId> {
        self.discovery.of_tasks.keys()
    }

    /// No service registers its tasks in Cloud Map, and no task is registered there.
    #[must_use]
    pub fn registers_nothing(&self) -> bool {
        self.discovery.of_tasks.is_empty() && self.discovery.registering.is_empty()
    }

    /// An operation of Cloud Map's.
    #[must_use]
    pub fn discovery_operation(&self, id: &OperationId) -> Option<&Entry<Operation>> {
        self.discovery.operations.get(id)
    }

    /// All operations of Cloud Map's by id.
    pub fn discovery_operations(&self) -> impl ExactSizeIterator<Item = &Entry<Operation>> {
        self.discovery.operations.values()
    }

    /// Keys of the records of this file's kinds.
    pub(super) fn discovery_keys(&self) -> impl Iterator<Item = Key> {
        let namespaces = self.discovery.namespaces.keys().cloned().map(Key::Namespace);
        let services = self.discovery.services.keys().cloned().map(Key::DiscoveryService);
        let instances = self.discovery.instances.keys().cloned().map(|(service, id)| Key::DiscoveryInstance(service, id));
        let operations = self.discovery.operations.keys().cloned().map(Key::DiscoveryOperation);
        namespaces.chain(services).chain(instances).chain(operations)
    }
}

#[cfg(test)]
mod tests {
    use berth_model::discovery::InstanceOwner;
    use berth_model::ids::{DefinitionId, Family, TaskId};
    use berth_model::service::ServiceSettings;
    use berth_model::service_deployment::ServiceRevision;
    use berth_model::task::LaunchType;
    use berth_model::time::UnixMillis;
    use serde_json::{Value, json};

    use super::*;
    use crate::backend::Write;

    fn instance(service: u128, id: &str) -> DiscoveryInstance {
        DiscoveryInstance {
            id: id.to_owned(),
            service: DiscoveryServiceId::from_bits(service),
            attributes: Default::default(),
            health: None,
            owner: None,
            creator_request_id: None,
            operation: None,
            created_at: UnixMillis(1),
        }
    }

    #[test]
    fn a_services_instances_are_its_own_in_order_and_can_be_written_touched_and_forgotten() {
        let mut state = State::default();
        let records = [instance(1, "b"), instance(2, "a"), instance(1, "a/1")].map(Record::from);
        for (record, revision) in records.clone().into_iter().zip(1..) {
            let at = Revision(revision);
            state.apply(Write::Put(Stored { record, created: at, modified: at, version: 1 }));
        }
        let ids = |state: &State| -> Vec<String> {
            state.discovery_instances_of(&DiscoveryServiceId::from_bits(1)).map(|instance| instance.id.clone()).collect()
        };
        assert_eq!(ids(&state), ["a/1", "b"]);
        assert!(records.iter().all(|record| state.holds(record)));
        assert_eq!(state.records().count(), 3);
        let key = records[0].key();
        assert!(state.keys().contains(&key));
        state.apply(Write::Touch { key: key.clone(), modified: Revision(9), version: 2 });
        assert_eq!(state.counters(&key), Some((Revision(1), Revision(9), 2)));
        state.apply(Write::Delete(key.clone()));
        assert_eq!((ids(&state), state.counters(&key)), (vec!["a/1".to_owned()], None));
    }

    /// A service that registers its tasks, or not.
    fn service(name: &str, registers: bool) -> Service {
        let registries = if registers { json!([{"registryArn": "arn"}]) } else { json!([]) };
        let service = json!({
            "name": name, "cluster": "c", "status": "ACTIVE", "desired_count": 1, "launch_type": "EC2",
            "percentages": {"minimum_healthy": 100, "maximum": 200}, "deployments": [], "settings": settings(&registries),
            "tags": {}, "created_at": 1, "created_by": "", "next_event": 0, "announced_steady": false, "announced_failure": null,
            "client_token": null,
        });
        serde_json::from_value(service).expect("a service")
    }

    fn settings(registries: &Value) -> Value {
        let mut settings = serde_json::to_value(ServiceSettings::default()).expect("settings");
        settings["service_registries"] = registries.clone();
        settings
    }

    fn revision(name: &str, number: u64, registers: bool) -> ServiceRevision {
        let registries = if registers { json!([{"registryArn": "arn"}]) } else { json!([]) };
        ServiceRevision {
            id: ServiceRevisionId(number),
            cluster: ClusterName::parse("c").expect("a name"),
            service: ServiceName::parse(name).expect("a name"),
            definition: DefinitionId { family: Family::parse("web").expect("a family"), revision: 1 },
            launch_type: LaunchType::Ec2,
            capacity_provider_strategy: Vec::new(),
            settings: serde_json::from_value(settings(&registries)).expect("settings"),
            images: Vec::new(),
            created_at: UnixMillis(1),
        }
    }

    fn put(state: &mut State, record: impl Into<Record>) {
        state.apply(Write::Put(Stored { record: record.into(), created: Revision(1), modified: Revision(1), version: 1 }));
    }

    #[test]
    fn services_that_register_are_found_by_themselves_and_by_their_revisions() {
        let mut state = State::default();
        let named = |state: &State| state.registering_services().map(|service| service.name.to_string()).collect::<Vec<_>>();
        put(&mut state, service("a", false));
        put(&mut state, revision("a", 1, false));
        assert!(state.registers_nothing());
        put(&mut state, service("b", true));
        put(&mut state, revision("a", 2, true));
        assert_eq!(named(&state), ["a", "b"]);
        put(&mut state, service("b", false));
        put(&mut state, service("a", true));
        assert_eq!(named(&state), ["a"]);
        put(&mut state, service("a", false));
        assert_eq!(named(&state), ["a"], "its revision still does");
        state.apply(Write::Delete(Record::from(revision("a", 2, true)).key()));
        assert!(named(&state).is_empty() && state.registers_nothing());
    }

    #[test]
    fn instances_of_tasks_are_counted_in_and_out() {
        let owner = InstanceOwner {
            cluster: ClusterName::parse("c").expect("a name"),
            service: ServiceName::parse("web").expect("a name"),
            task: TaskId(1),
        };
        let owned = |id: &str| DiscoveryInstance { owner: Some(owner.clone()), ..instance(1, id) };
        let mut state = State::default();
        put(&mut state, instance(2, "a"));
        assert!(state.registers_nothing(), "it is a user's");
        for one in [owned("a"), owned("b"), owned("a")] {
            put(&mut state, one);
        }
        assert_eq!(state.discovery_services_of_tasks().collect::<Vec<_>>(), [&DiscoveryServiceId::from_bits(1)]);
        put(&mut state, instance(1, "a"));
        assert_eq!(state.discovery_services_of_tasks().len(), 1);
        state.apply(Write::Delete(Record::from(owned("b")).key()));
        assert!(state.registers_nothing());
    }
}
