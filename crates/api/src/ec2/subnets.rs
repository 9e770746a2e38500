//! Subnets: made, described, deleted, and whether their interfaces get public addresses.

use std::collections::BTreeSet;

use berth_model::record::Key;
use berth_model::vpc::{MAX_SUBNETS, ResourceId, Subnet, SubnetId, VpcId, addresses, is_legal_size, zones};
use berth_shapes::ec2::{
    self, CreateSubnetRequest, CreateSubnetResponse, DeleteSubnetRequest, DeleteSubnetResponse, DescribeSubnetsRequest,
    DescribeSubnetsResponse, ModifySubnetAttributeRequest, ModifySubnetAttributeResponse, SubnetState,
};
use berth_store::{Entry, State, VpcResources};

use super::choice::Choice;
use super::failures::{bad_value, combination, dependency, missing, no_subnet, refuse};
use super::filters::Filters;
use super::pages::{MOST, Page};
use super::places::zone_names;
use super::tags::{render_tags, specified};
use super::turn::{arn, in_turn};
use super::vpcs::{self, parse_cidr};
use crate::context::Api;
use crate::failure::Failure;

/// Tools of old leave out the dashes of some names.
const FILTERS: [&str; 17] = [
    "availability-zone",
    "availability-zone-id",
    "availabilityZone",
    "availabilityZoneId",
    "available-ip-address-count",
    "cidr",
    "cidr-block",
    "cidrBlock",
    "default-for-az",
    "defaultForAz",
    "map-public-ip-on-launch",
    "owner-id",
    "state",
    "subnet-arn",
    "subnet-id",
    "tag-key",
    "vpc-id",
];

/// `DescribeSubnets`.
pub(super) async fn describe(api: &Api, request: DescribeSubnetsRequest) -> Result<DescribeSubnetsResponse, Failure> {
    let page = Page::parse("DescribeSubnets", request.next_token.as_deref(), request.max_results, MOST)?;
    let filters = Filters::parse(request.filters.as_deref(), &FILTERS)?;
    let state = api.store.state();
    let resources = state.vpc_resources();
    let is_there = |id: &SubnetId| resources.subnet(*id).is_some();
    let chosen = Choice::parse(request.subnet_ids.as_deref(), "InvalidSubnetID.NotFound", "subnet", is_there)?;
    let passes = |one: &&Entry<Subnet>| chosen.has(&one.id) && filters.pass(&one.tags, |name| property(api, resources, one, name));
    let (shown, next_token) = page.take(resources.subnets().filter(passes), |one| one.id.to_string());
    Ok(DescribeSubnetsResponse { next_token, subnets: Some(shown.into_iter().map(|one| render(api, resources, one)).collect()) })
}

fn property(api: &Api, resources: &VpcResources, subnet: &Subnet, name: &str) -> Vec<String> {
    vec![match name {
        "availability-zone" | "availabilityZone" => subnet.zone.to_string(),
        "availability-zone-id" | "availabilityZoneId" => zones::id(&api.scope().region, &subnet.zone),
        "available-ip-address-count" => available(resources, subnet).to_string(),
        "cidr" | "cidr-block" | "cidrBlock" => subnet.cidr.to_string(),
        "default-for-az" | "defaultForAz" => subnet.is_default.to_string(),
        "map-public-ip-on-launch" => subnet.map_public_ip_on_launch.to_string(),
        "owner-id" => api.scope().account.to_string(),
        "state" => "available".to_owned(),
        "subnet-arn" => arn(api.scope(), "subnet", subnet.id),
        "subnet-id" => subnet.id.to_string(),
        "vpc-id" => subnet.vpc.to_string(),
        _ => return Vec::new(),
    }]
}

/// How many addresses are free.
fn available(resources: &VpcResources, subnet: &Subnet) -> i32 {
    let taken = resources.taken(subnet.id).count();
    i32::try_from(addresses::capacity(subnet.cidr)).unwrap_or(i32::MAX).saturating_sub(i32::try_from(taken).unwrap_or(i32::MAX)).max(0)
}

fn render(api: &Api, resources: &VpcResources, subnet: &Subnet) -> ec2::Subnet {
    ec2::Subnet {
        availability_zone_id: Some(zones::id(&api.scope().region, &subnet.zone)),
        map_customer_owned_ip_on_launch: Some(false),
        owner_id: Some(api.scope().account.to_string()),
        assign_ipv6_address_on_creation: Some(false),
        ipv6_cidr_block_association_set: Some(Vec::new()),
        tags: render_tags(&subnet.tags),
        subnet_arn: Some(arn(api.scope(), "subnet", subnet.id)),
        enable_dns64: Some(false),
        ipv6_native: Some(false),
        subnet_id: Some(subnet.id.to_string()),
        state: Some(SubnetState::Available),
        vpc_id: Some(subnet.vpc.to_string()),
        cidr_block: Some(subnet.cidr.to_string()),
        available_ip_address_count: Some(available(resources, subnet)),
        availability_zone: Some(subnet.zone.to_string()),
        default_for_az: Some(subnet.is_default),
        map_public_ip_on_launch: Some(subnet.map_public_ip_on_launch),
        ..Default::default()
    }
}

fn find<'a>(state: &'a State, text: &str) -> Result<&'a Entry<Subnet>, Failure> {
    let found = text.parse().ok().and_then(|id| state.vpc_resources().subnet(id));
    found.ok_or_else(|| no_subnet(text))
}

fn key(id: SubnetId) -> Key {
    Key::VpcResource(ResourceId::Subnet(id))
}

/// The zone that a request names, by name or id; without one the zone in which the VPC has fewest subnets, the first of several.
fn zone_for(api: &Api, state: &State, vpc: VpcId, request: &CreateSubnetRequest) -> Result<String, Failure> {
    let names = zone_names(api, state);
    let region = &api.scope().region;
    let hint = || format!("Subnets can currently only be created in the following availability zones: {}.", join(&names));
    match (&request.availability_zone, &request.availability_zone_id) {
        (Some(_), Some(_)) => Err(combination("The parameters AvailabilityZone and AvailabilityZoneId cannot be used together")),
        (Some(name), None) => names.get(name).cloned().ok_or_else(|| bad_value(name, "availabilityZone", &hint())),
        (None, Some(id)) => {
            let found = names.iter().find(|name| zones::id(region, name) == *id);
            found.cloned().ok_or_else(|| bad_value(id, "availabilityZoneId", &hint()))
        }
        (None, None) => {
            let count = |name: &String| state.vpc_resources().subnets_of(vpc).filter(|subnet| *subnet.zone == **name).count();
            names.iter().min_by_key(|name| count(name)).cloned().ok_or_else(|| missing("AvailabilityZone"))
        }
    }
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// `CreateSubnet`.
pub(super) async fn create(api: &Api, request: CreateSubnetRequest) -> Result<CreateSubnetResponse, Failure> {
    let cidr = parse_cidr(request.cidr_block.as_deref())?;
    let out_of_range = || refuse("InvalidSubnet.Range", format!("The CIDR '{cidr}' is invalid."));
    if !is_legal_size(cidr) {
        return Err(out_of_range());
    }
    let tags = specified(request.tag_specifications.as_deref(), "subnet")?;
    let id = SubnetId::from_random(api.environment.entropy.bits());
    api.change(|state, transaction| {
        let resources = in_turn(state, transaction)?;
        let vpc = vpcs::find(state, request.vpc_id.as_deref().unwrap_or_default())?;
        if !vpc.cidr.covers(cidr) {
            return Err(out_of_range());
        }
        if resources.subnets_of(vpc.id).any(|subnet| subnet.cidr.overlaps(cidr)) {
            return Err(refuse("InvalidSubnet.Conflict", format!("The CIDR '{cidr}' conflicts with another subnet")));
        }
        if resources.subnets_of(vpc.id).count() >= MAX_SUBNETS {
            return Err(refuse("SubnetLimitExceeded", "The maximum number of subnets has been reached."));
        }
        let subnet = Subnet {
            id,
            vpc: vpc.id,
            zone: zone_for(api, state, vpc.id, &request)?.into(),
            cidr,
            is_default: false,
            map_public_ip_on_launch: false,
            last_address: None,
            tags: tags.clone(),
        };
        transaction.expect_absent(key(id));
        transaction.put(subnet.clone());
        Ok(CreateSubnetResponse { subnet: Some(render(api, resources, &subnet)) })
    })
    .await
}

/// `DeleteSubnet`: no interface may have an address of it.
pub(super) async fn delete(api: &Api, request: DeleteSubnetRequest) -> Result<DeleteSubnetResponse, Failure> {
    let text = request.subnet_id.unwrap_or_default();
    api.change(|state, transaction| {
        let resources = in_turn(state, transaction)?;
        let subnet = find(state, &text)?;
        if resources.interfaces().any(|interface| interface.subnet == subnet.id) {
            return Err(dependency(format!("The subnet '{}' has dependencies and cannot be deleted.", subnet.id)));
        }
        // Whoever gives an address changes the subnet's record.
        transaction.expect(key(subnet.id), subnet.modified);
        transaction.delete(key(subnet.id));
        Ok(DeleteSubnetResponse::default())
    })
    .await
}

/// `ModifySubnetAttribute`: whether new interfaces get public addresses.
pub(super) async fn modify_attribute(api: &Api, request: ModifySubnetAttributeRequest) -> Result<ModifySubnetAttributeResponse, Failure> {
    let text = request.subnet_id.unwrap_or_default();
    let map = request.map_public_ip_on_launch.and_then(|attribute| attribute.value);
    let map = map.ok_or_else(|| combination("No attributes specified."))?;
    api.change(|state, transaction| {
        let subnet = find(state, &text)?;
        transaction.expect(key(subnet.id), subnet.modified);
        transaction.put(Subnet { map_public_ip_on_launch: map, ..(*subnet.value).clone() });
        Ok(ModifySubnetAttributeResponse::default())
    })
    .await
}
