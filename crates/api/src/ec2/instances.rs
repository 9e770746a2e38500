//! `DescribeInstances`: the machines behind container instances, under the ids that DescribeContainerInstances gives as
//! `ec2InstanceId`. A machine is there as long as one of its registrations is.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::task_interface::private_dns_name;
use berth_model::vpc::zones;
use berth_shapes::ec2::{
    self, DescribeInstancesRequest, DescribeInstancesResponse, InstanceState, InstanceStateName, Placement, Reservation, Tenancy,
};
use berth_store::{Entry, State};

use super::failures::{combination, not_found, refuse};
use super::filters::Filters;
use super::network_interfaces::render_of_instance;
use super::pages::{MOST, Page};
use super::tags::render_tags;
use crate::context::Api;
use crate::failure::Failure;

const FILTERS: [&str; 12] = [
    "architecture",
    "availability-zone",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "network-interface.network-interface-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "reservation-id",
    "tag-key",
];
/// `running`.
const RUNNING: i32 = 16;

/// Answers.
pub(super) async fn describe(api: &Api, request: DescribeInstancesRequest) -> Result<DescribeInstancesResponse, Failure> {
    let ids = request.instance_ids.unwrap_or_default();
    if !ids.is_empty() && request.max_results.is_some() {
        return Err(combination("The parameter instancesSet cannot be used with the parameter maxResults"));
    }
    let page = Page::parse("DescribeInstances", request.next_token.as_deref(), request.max_results, MOST)?;
    let filters = Filters::parse(request.filters.as_deref(), &FILTERS)?;
    let state = api.store.state();
    let machines = machines(&state);
    if let Some(bad) = ids.iter().find(|id| !id.starts_with("i-")) {
        let shown: String = bad.chars().take(64).collect();
        return Err(refuse("InvalidInstanceID.Malformed", format!("Invalid id: \"{shown}\"")));
    }
    let absent: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !machines.contains_key(id)).take(10).collect();
    if !absent.is_empty() {
        return Err(not_found("InvalidInstanceID.NotFound", "instance", &absent));
    }
    let chosen: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let is_chosen = |id: &str| chosen.is_empty() || chosen.contains(id);
    let passes = |(id, one): &(&&str, &&Entry<ContainerInstance>)| {
        is_chosen(id) && filters.pass(&one.tags, |name| property(api, &state, id, one, name))
    };
    let (shown, next_token) = page.take(machines.iter().filter(passes), |(id, _)| (**id).to_owned());
    let reservations = shown.into_iter().map(|(id, one)| render(api, &state, id, one)).collect();
    Ok(DescribeInstancesResponse { next_token, reservations: Some(reservations) })
}

/// Machines by id, each with its oldest registration.
fn machines(state: &State) -> BTreeMap<&str, &Entry<ContainerInstance>> {
    let mut machines: BTreeMap<&str, &Entry<ContainerInstance>> = BTreeMap::new();
    for one in state.instances().filter(|one| one.status != ContainerInstanceStatus::Inactive) {
        let Some(id) = one.ec2_instance_id.as_deref() else { continue };
        let known = machines.entry(id).or_insert(one);
        if (one.registered_at, one.id) < (known.registered_at, known.id) {
            *known = one;
        }
    }
    machines
}

fn attribute(one: &ContainerInstance, name: &str) -> Option<String> {
    one.attributes.get(name).cloned().flatten()
}

/// A machine's reservation is its own.
fn reservation_id(id: &str) -> String {
    format!("r-{}", id.trim_start_matches("i-"))
}

fn property(api: &Api, state: &State, id: &str, one: &ContainerInstance, name: &str) -> Vec<String> {
    let value = match name {
        "architecture" => attribute(one, "ecs.cpu-architecture"),
        "availability-zone" => one.availability_zone().map(str::to_owned),
        "instance-id" => Some(id.to_owned()),
        "instance-state-code" => Some(RUNNING.to_string()),
        "instance-state-name" => Some(InstanceStateName::Running.as_str().to_owned()),
        "instance-type" => attribute(one, "ecs.instance-type"),
        "network-interface.network-interface-id" => {
            let resources = state.vpc_resources();
            let own = resources.interfaces().filter(|interface| is_at(interface, id));
            return own.map(|interface| interface.id.to_string()).collect();
        }
        "owner-id" => Some(api.scope().account.to_string()),
        "private-dns-name" => one.private_address.map(|address| private_dns_name(&api.scope().region, address)),
        "private-ip-address" => one.private_address.map(|address| address.to_string()),
        "reservation-id" => Some(reservation_id(id)),
        _ => None,
    };
    value.into_iter().collect()
}

fn is_at(interface: &berth_model::vpc::NetworkInterface, id: &str) -> bool {
    interface.attachment.as_ref().is_some_and(|attachment| attachment.instance.as_deref() == Some(id))
}

fn render(api: &Api, state: &State, id: &str, one: &ContainerInstance) -> Reservation {
    let resources = state.vpc_resources();
    let region = &api.scope().region;
    let zone = one.availability_zone();
    let placement = Placement {
        availability_zone: zone.map(str::to_owned),
        availability_zone_id: zone.map(|zone| zones::id(region, zone)),
        tenancy: Some(Tenancy::Default),
        ..Default::default()
    };
    let interfaces = resources.interfaces().filter(|interface| is_at(interface, id));
    let instance = ec2::Instance {
        instance_id: Some(id.to_owned()),
        ami_launch_index: Some(0),
        architecture: attribute(one, "ecs.cpu-architecture").map(Into::into),
        instance_type: attribute(one, "ecs.instance-type").map(Into::into),
        launch_time: Some(one.registered_at.to_wire()),
        network_interfaces: Some(interfaces.map(|interface| render_of_instance(api, resources, interface)).collect()),
        placement: Some(placement),
        private_dns_name: one.private_address.map(|address| private_dns_name(region, address)),
        private_ip_address: one.private_address.map(|address| address.to_string()),
        state: Some(InstanceState { code: Some(RUNNING), name: Some(InstanceStateName::Running) }),
        tags: render_tags(&one.tags),
        ..Default::default()
    };
    Reservation {
        reservation_id: Some(reservation_id(id)),
        owner_id: Some(api.scope().account.to_string()),
        groups: Some(Vec::new()),
        instances: Some(vec![instance]),
        ..Default::default()
    }
}
