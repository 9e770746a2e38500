//! Capacity providers, daemons and daemon task definitions in the state: what readers ask for.

use berth_model::capacity_provider::CapacityProvider;
use berth_model::daemon::{Daemon, DaemonTaskDefinition};
use berth_model::ids::{CapacityProviderName, ClusterName, DaemonName, DefinitionId, Family};
use berth_model::record::Key;
use berth_model::task_definition::FamilyCounter;

use super::{Entry, State};

impl State {
    /// A capacity provider that somebody made, INACTIVE ones too.
    #[must_use]
    pub fn capacity_provider(&self, name: &CapacityProviderName) -> Option<&Entry<CapacityProvider>> {
        self.providers.get(name)
    }

    /// All capacity providers that somebody made, by name.
    pub fn capacity_providers(&self) -> impl Iterator<Item = &Entry<CapacityProvider>> {
        self.providers.values()
    }

    /// A daemon, deleted ones too.
    #[must_use]
    pub fn daemon(&self, cluster: &ClusterName, name: &DaemonName) -> Option<&Entry<Daemon>> {
        self.daemons.get(&(cluster.clone(), name.clone()))
    }

    /// All daemons by cluster and name, deleted ones too.
    pub fn daemons(&self) -> impl Iterator<Item = &Entry<Daemon>> {
        self.daemons.values()
    }

    /// The daemons of a cluster by name, deleted ones too.
    pub fn daemons_of(&self, cluster: &ClusterName) -> impl Iterator<Item = &Entry<Daemon>> {
        let first = (cluster.clone(), DaemonName("".into()));
        let cluster = cluster.clone();
        self.daemons.range(first..).take_while(move |((of, _), _)| *of == cluster).map(|(_, entry)| entry)
    }

    /// The counter of a family of daemon task definitions.
    #[must_use]
    pub fn daemon_family(&self, family: &Family) -> Option<&Entry<FamilyCounter>> {
        self.daemon_families.get(family)
    }

    /// A daemon task definition's revision.
    #[must_use]
    pub fn daemon_definition(&self, id: &DefinitionId) -> Option<&Entry<DaemonTaskDefinition>> {
        self.daemon_definitions.get(id)
    }

    /// All revisions of daemon task definitions, by family and revision.
    pub fn daemon_definitions(&self) -> impl DoubleEndedIterator<Item = &Entry<DaemonTaskDefinition>> {
        self.daemon_definitions.values()
    }

    /// All revisions of a family of daemon task definitions, oldest first.
    pub fn daemon_revisions(&self, family: &Family) -> impl DoubleEndedIterator<Item = &Entry<DaemonTaskDefinition>> {
        let first = DefinitionId { family: family.clone(), revision: 0 };
        let last = DefinitionId { family: family.clone(), revision: u32::MAX };
        self.daemon_definitions.range(first..=last).map(|(_, entry)| entry)
    }

    /// Does a daemon run this revision of a daemon task definition?
    #[must_use]
    pub fn is_run_by_daemon(&self, id: &DefinitionId) -> bool {
        self.daemons().any(|daemon| daemon.current().is_some_and(|revision| revision.definition == *id))
    }

    /// Keys of the records of this file's kinds.
    pub(super) fn capacity_keys(&self) -> impl Iterator<Item = Key> {
        let providers = self.providers.keys().cloned().map(Key::CapacityProvider);
        let daemons = self.daemons.keys().cloned().map(|(cluster, name)| Key::Daemon(cluster, name));
        let families = self.daemon_families.keys().cloned().map(Key::DaemonFamily);
        let definitions = self.daemon_definitions.keys().cloned().map(Key::DaemonTaskDefinition);
        providers.chain(daemons).chain(families).chain(definitions)
    }

    /// Forgets a record of one of this file's kinds; of others it knows nothing.
    pub(super) fn delete_capacity(&mut self, key: &Key) {
        match key {
            Key::CapacityProvider(name) => drop(self.providers.remove(name)),
            Key::Daemon(cluster, name) => drop(self.daemons.remove(&(cluster.clone(), name.clone()))),
            Key::DaemonFamily(family) => drop(self.daemon_families.remove(family)),
            Key::DaemonTaskDefinition(id) => drop(self.daemon_definitions.remove(id)),
            _ => {}
        }
    }
}
