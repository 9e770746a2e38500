//! Regions, availability zones and what the account may have: Berth is one region, whose zones are the three that it has from the start
//! and those that container instances say they are in.

use std::collections::BTreeSet;

use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::tags::Tags;
use berth_model::vpc::security_group::MAX_GROUPS_OF_INTERFACE;
use berth_model::vpc::zones;
use berth_shapes::ec2::{
    AccountAttribute, AccountAttributeValue, AvailabilityZone, AvailabilityZoneOptInStatus, AvailabilityZoneState,
    DescribeAccountAttributesRequest, DescribeAccountAttributesResponse, DescribeAvailabilityZonesRequest,
    DescribeAvailabilityZonesResponse, DescribeRegionsRequest, DescribeRegionsResponse, Region,
};
use berth_store::State;

use super::failures::invalid;
use super::filters::Filters;
use crate::context::Api;
use crate::failure::Failure;

const ZONE_FILTERS: [&str; 10] = [
    "group-name",
    "message",
    "opt-in-status",
    "parent-zone-id",
    "parent-zone-name",
    "region-name",
    "state",
    "zone-id",
    "zone-name",
    "zone-type",
];
const REGION_FILTERS: [&str; 3] = ["endpoint", "opt-in-status", "region-name"];
const NO_OPT_IN: &str = "opt-in-not-required";
const ZONE_TYPE: &str = "availability-zone";

/// The names of all zones.
pub(super) fn zone_names(api: &Api, state: &State) -> BTreeSet<String> {
    let alive = state.instances().filter(|instance| instance.status != ContainerInstanceStatus::Inactive);
    let said = alive.filter_map(|instance| instance.availability_zone().map(str::to_owned));
    zones::of_region(&api.scope().region).into_iter().chain(said).collect()
}

/// `DescribeAvailabilityZones`.
pub(super) async fn availability_zones(
    api: &Api,
    request: DescribeAvailabilityZonesRequest,
) -> Result<DescribeAvailabilityZonesResponse, Failure> {
    let filters = Filters::parse(request.filters.as_deref(), &ZONE_FILTERS)?;
    let region = &*api.scope().region;
    let names = zone_names(api, &api.store.state());
    let ids: BTreeSet<String> = names.iter().map(|name| zones::id(region, name)).collect();
    let (wanted, wanted_ids) = (request.zone_names.unwrap_or_default(), request.zone_ids.unwrap_or_default());
    if let Some(bad) = wanted.iter().find(|name| !names.contains(*name)) {
        return Err(invalid(format!("Invalid availability zone: [{}]", bad.chars().take(64).collect::<String>())));
    }
    if let Some(bad) = wanted_ids.iter().find(|id| !ids.contains(*id)) {
        return Err(invalid(format!("Invalid availability zone-id: [{}]", bad.chars().take(64).collect::<String>())));
    }
    let is_wanted = |name: &String| {
        (wanted.is_empty() && wanted_ids.is_empty()) || wanted.contains(name) || wanted_ids.contains(&zones::id(region, name))
    };
    let property = |zone: &str, name: &str| match name {
        "group-name" | "region-name" => vec![region.to_owned()],
        "opt-in-status" => vec![NO_OPT_IN.to_owned()],
        "state" => vec!["available".to_owned()],
        "zone-id" => vec![zones::id(region, zone)],
        "zone-name" => vec![zone.to_owned()],
        "zone-type" => vec![ZONE_TYPE.to_owned()],
        _ => Vec::new(),
    };
    let shown = names.iter().filter(|zone| is_wanted(zone) && filters.pass(&Tags::new(), |name| property(zone, name)));
    let render = |zone: &String| AvailabilityZone {
        opt_in_status: Some(AvailabilityZoneOptInStatus::OptInNotRequired),
        messages: Some(Vec::new()),
        region_name: Some(region.to_owned()),
        zone_name: Some(zone.clone()),
        zone_id: Some(zones::id(region, zone)),
        group_name: Some(region.to_owned()),
        network_border_group: Some(region.to_owned()),
        zone_type: Some(ZONE_TYPE.to_owned()),
        state: Some(AvailabilityZoneState::Available),
        ..Default::default()
    };
    Ok(DescribeAvailabilityZonesResponse { availability_zones: Some(shown.map(render).collect()) })
}

/// `DescribeRegions`: its endpoint is this server's.
pub(super) async fn regions(api: &Api, request: DescribeRegionsRequest) -> Result<DescribeRegionsResponse, Failure> {
    let filters = Filters::parse(request.filters.as_deref(), &REGION_FILTERS)?;
    let region = &*api.scope().region;
    let endpoint = api.config.endpoint.split_once("://").map_or(&*api.config.endpoint, |(_, host)| host);
    if let Some(bad) = request.region_names.iter().flatten().find(|name| *name != region) {
        return Err(invalid(format!("Invalid region provided: [{}]", bad.chars().take(64).collect::<String>())));
    }
    let property = |name: &str| match name {
        "endpoint" => vec![endpoint.to_owned()],
        "opt-in-status" => vec![NO_OPT_IN.to_owned()],
        _ => vec![region.to_owned()],
    };
    let own = Region {
        opt_in_status: Some(NO_OPT_IN.to_owned()),
        region_name: Some(region.to_owned()),
        endpoint: Some(endpoint.to_owned()),
        ..Default::default()
    };
    let regions = filters.pass(&Tags::new(), property).then_some(own).into_iter().collect();
    Ok(DescribeRegionsResponse { regions: Some(regions) })
}

/// `DescribeAccountAttributes`.
pub(super) async fn account_attributes(
    api: &Api,
    request: DescribeAccountAttributesRequest,
) -> Result<DescribeAccountAttributesResponse, Failure> {
    let vpc = api.store.state().vpc_resources().default_vpc().map_or_else(|| "none".to_owned(), |vpc| vpc.id.to_string());
    let all = [
        ("default-vpc", vpc),
        ("max-elastic-ips", "0".to_owned()),
        ("supported-platforms", "VPC".to_owned()),
        ("vpc-max-elastic-ips", "0".to_owned()),
        ("vpc-max-security-groups-per-interface", MAX_GROUPS_OF_INTERFACE.to_string()),
    ];
    let wanted: Vec<String> = request.attribute_names.iter().flatten().map(ToString::to_string).collect();
    if let Some(bad) = wanted.iter().find(|name| all.iter().all(|(known, _)| *known != **name)) {
        return Err(invalid(format!("Invalid attribute name: {}", bad.chars().take(64).collect::<String>())));
    }
    let shown = all.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name));
    let render = |(name, value): (&str, String)| AccountAttribute {
        attribute_name: Some(name.to_owned()),
        attribute_values: Some(vec![AccountAttributeValue { attribute_value: Some(value) }]),
    };
    Ok(DescribeAccountAttributesResponse { account_attributes: Some(shown.map(render).collect()) })
}
