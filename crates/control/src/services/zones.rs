//! Availability zones in the services loop: which ones a service's tasks may be in, and placing tasks in one of them. It decides nothing.

use std::collections::BTreeSet;

use berth_model::ids::TaskId;
use berth_model::service::Service;
use berth_model::task::LaunchType;
use berth_scheduler::capacity::{self, CapacityPlacement};
use berth_scheduler::placement::{Constraint, Index, PlaceRequest, Strategy};
use berth_scheduler::query::Expression;
use berth_scheduler::service::rebalance::{ZONE, is_wanted};
use berth_store::State;

use super::{by_provider, template};
use crate::constraints::Constraints;
use crate::fargate;
use crate::launch::TaskTemplate;

/// The zones with instances that take the service's tasks; none if they need not be known.
pub(crate) fn open(state: &State, index: &mut Index, service: &Service, strategies: &[Strategy], known: &Constraints) -> Vec<String> {
    let Some(primary) = service.primary().filter(|_| is_wanted(service, strategies)) else { return Vec::new() };
    let Some(template) = template(state, service, primary.id, known) else { return Vec::new() };
    if template.launch_type == LaunchType::Fargate {
        return template.network.as_ref().map(|network| fargate::open_zones(state, network)).unwrap_or_default();
    }
    let request = template.place_request(&[], 0);
    let providers = &template.capacity_provider_strategy;
    if providers.is_empty() {
        return index.values(&request, ZONE).into_iter().collect();
    }
    let zones: BTreeSet<_> = providers
        .iter()
        .flat_map(|item| index.values(&PlaceRequest { capacity_provider: Some(item.provider.as_str()), ..request.clone() }, ZONE))
        .collect();
    zones.into_iter().collect()
}

/// Places tasks in one zone.
pub(crate) fn place(
    state: &State,
    index: &mut Index,
    (service, template): (&Service, &TaskTemplate),
    zone: &str,
    (tasks, seed): (&[TaskId], u64),
) -> CapacityPlacement {
    let mut constraints = template.constraints.clone();
    if template.launch_type != LaunchType::Fargate {
        // Of a Fargate task the subnet is in the zone, and the machine any.
        constraints.push(Constraint::MemberOf(Expression::attribute_is(ZONE, zone).into()));
    }
    let request = PlaceRequest { constraints: &constraints, ..template.place_request(tasks, seed) };
    let strategy = &template.capacity_provider_strategy;
    let current = service.primary().map(|primary| by_provider(state, service, primary.id, strategy)).unwrap_or_default();
    capacity::place(index, &request, strategy, &current)
}
