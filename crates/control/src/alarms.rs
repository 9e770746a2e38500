//! The alarms that services' deployments watch. It reads what was said of them, and must never say anything itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_model::alarm::Alarm;
use berth_model::ids::{ClusterName, ServiceName};
use berth_model::service::{RolloutState, Service};
use berth_scheduler::service::AlarmRules;
use berth_store::State;

/// What was said of the alarms that the service watches.
pub(crate) fn watched(state: &State, service: &Service) -> Vec<Arc<Alarm>> {
    let names = AlarmRules::of(&service.settings).names;
    names.iter().filter_map(|name| state.alarm(name)).map(|entry| Arc::clone(&entry.value)).collect()
}

/// The services of a cluster whose deployments an alarm may end now.
pub(crate) fn watchers(state: &State, cluster: &ClusterName, alarm: &str) -> BTreeSet<ServiceName> {
    let is_open = |service: &Service| service.deployments.iter().any(|deployment| deployment.rollout_state == RolloutState::InProgress);
    let watches = |service: &Service| AlarmRules::of(&service.settings).names.iter().any(|name| name == alarm);
    let services = state.services_of(cluster).filter(|service| is_open(service) && watches(service));
    services.map(|service| service.name.clone()).collect()
}
