//! Which changes of the state reach Cloud Map: said once, for the loop that registers tasks and for the table of names. It reads no state.

use berth_model::record::{Key, Record};
use berth_store::Change;

/// What may be otherwise in Cloud Map after a change of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Which tasks are registered, and with what.
    pub(crate) registrations: bool,
    /// What names answer.
    pub(crate) names: bool,
    /// Which namespaces there are.
    pub(crate) namespaces: bool,
}

/// How far a change reaches. One too many costs a look, one too few leaves things as they were.
pub(crate) fn reach(change: &Change) -> Reach {
    let (registrations, names, namespaces) = match change {
        // A task is registered while it runs, and answered until it is to stop.
        Change::Put(Record::Task(task)) => (task.service.is_some(), task.service.is_some(), false),
        Change::Put(Record::DiscoveryService(_) | Record::DiscoveryInstance(_))
        | Change::Touch(Key::Task(_) | Key::DiscoveryService(_) | Key::DiscoveryInstance(..))
        | Change::Delete(Key::Task(_) | Key::DiscoveryService(_) | Key::DiscoveryInstance(..)) => (true, true, false),
        // Names are made of what is registered: of these alone they do not change.
        Change::Put(Record::Service(_) | Record::ContainerInstance(_)) | Change::Delete(Key::ContainerInstance(_)) => (true, false, false),
        Change::Put(Record::Namespace(_)) | Change::Touch(Key::Namespace(_)) | Change::Delete(Key::Namespace(_)) => (false, true, true),
        _ => (false, false, false),
    };
    Reach { registrations, names, namespaces }
}
