//! Namespaces, Cloud Map services, their instances and operations in the state: kept here, and what readers ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::discovery::{DiscoveryInstance, DiscoveryService, DiscoveryServiceId};
use berth_model::namespace::{Namespace, NamespaceId, Operation, OperationId};
use berth_model::record::{Key, Record};

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
                self.instances.insert((value.service.clone(), value.id.clone()), Entry { value, created, modified, version });
            }
            Record::DiscoveryOperation(value) => {
                self.operations.insert(value.id.clone(), Entry { value, created, modified, version });
            }
            _ => {}
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
            Key::DiscoveryInstance(service, id) => drop(self.instances.remove(&(service.clone(), id.clone()))),
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
    use berth_model::time::UnixMillis;

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
}
