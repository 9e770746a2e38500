//! VPCs: made, described, deleted, and their DNS attributes.

use berth_model::record::{Key, Record};
use berth_model::tags::Tags;
use berth_model::vpc::default_vpc::{default_group, default_vpc, main_route_table};
use berth_model::vpc::{Ipv4Cidr, MAX_VPCS, Resource, ResourceId, Vpc, VpcId, is_legal_size};
use berth_shapes::ec2::{
    self, CreateDefaultVpcRequest, CreateDefaultVpcResponse, CreateVpcRequest, CreateVpcResponse, DeleteVpcRequest, DeleteVpcResponse,
    DescribeVpcAttributeRequest, DescribeVpcAttributeResponse, DescribeVpcsRequest, DescribeVpcsResponse, ModifyVpcAttributeRequest,
    ModifyVpcAttributeResponse, Tenancy, VpcAttributeName, VpcCidrBlockState, VpcCidrBlockStateCode, VpcState,
};
use berth_store::{Entry, State, VpcResources};

use super::choice::Choice;
use super::failures::{bad_value, combination, dependency, no_vpc, refuse, unsupported};
use super::filters::Filters;
use super::pages::{MOST, Page};
use super::tags::{render_tags, specified};
use super::turn::in_turn;
use crate::context::Api;
use crate::failure::Failure;

/// Tools of old leave out the dashes of some names.
const FILTERS: [&str; 11] = [
    "cidr",
    "cidr-block-association.association-id",
    "cidr-block-association.cidr-block",
    "cidr-block-association.state",
    "dhcp-options-id",
    "is-default",
    "isDefault",
    "owner-id",
    "state",
    "tag-key",
    "vpc-id",
];
/// The options that a VPC has where nobody made others: Berth has no others.
const DHCP_OPTIONS: &str = "default";

/// `DescribeVpcs`.
pub(super) async fn describe(api: &Api, request: DescribeVpcsRequest) -> Result<DescribeVpcsResponse, Failure> {
    let page = Page::parse("DescribeVpcs", request.next_token.as_deref(), request.max_results, MOST)?;
    let filters = Filters::parse(request.filters.as_deref(), &FILTERS)?;
    let state = api.store.state();
    let resources = state.vpc_resources();
    let is_there = |id: &VpcId| resources.vpc(*id).is_some();
    let chosen = Choice::parse(request.vpc_ids.as_deref(), "InvalidVpcID.NotFound", "vpc", is_there)?;
    let passes = |vpc: &&Entry<Vpc>| chosen.has(&vpc.id) && filters.pass(&vpc.tags, |name| property(api, vpc, name));
    let (shown, next_token) = page.take(resources.vpcs().filter(passes), |vpc| vpc.id.to_string());
    Ok(DescribeVpcsResponse { next_token, vpcs: Some(shown.into_iter().map(|vpc| render(api, vpc)).collect()) })
}

fn property(api: &Api, vpc: &Vpc, name: &str) -> Vec<String> {
    vec![match name {
        "cidr" | "cidr-block-association.cidr-block" => vpc.cidr.to_string(),
        "cidr-block-association.association-id" => association(vpc.id),
        "cidr-block-association.state" => "associated".to_owned(),
        "dhcp-options-id" => DHCP_OPTIONS.to_owned(),
        "is-default" | "isDefault" => vpc.is_default.to_string(),
        "owner-id" => api.scope().account.to_string(),
        "state" => "available".to_owned(),
        "vpc-id" => vpc.id.to_string(),
        _ => return Vec::new(),
    }]
}

/// A VPC has one block, so the association's id is the VPC's own.
fn association(id: VpcId) -> String {
    format!("vpc-cidr-assoc-{:017x}", id.bits())
}

fn render(api: &Api, vpc: &Vpc) -> ec2::Vpc {
    let block = ec2::VpcCidrBlockAssociation {
        association_id: Some(association(vpc.id)),
        cidr_block: Some(vpc.cidr.to_string()),
        cidr_block_state: Some(VpcCidrBlockState { state: Some(VpcCidrBlockStateCode::Associated), status_message: None }),
    };
    ec2::Vpc {
        owner_id: Some(api.scope().account.to_string()),
        instance_tenancy: Some(Tenancy::Default),
        cidr_block_association_set: Some(vec![block]),
        is_default: Some(vpc.is_default),
        tags: render_tags(&vpc.tags),
        vpc_id: Some(vpc.id.to_string()),
        state: Some(VpcState::Available),
        cidr_block: Some(vpc.cidr.to_string()),
        dhcp_options_id: Some(DHCP_OPTIONS.to_owned()),
        ..Default::default()
    }
}

/// The VPC of a request.
pub(super) fn find<'a>(state: &'a State, text: &str) -> Result<&'a Entry<Vpc>, Failure> {
    let found = text.parse().ok().and_then(|id| state.vpc_resources().vpc(id));
    found.ok_or_else(|| no_vpc(text))
}

fn key(id: VpcId) -> Key {
    Key::VpcResource(ResourceId::Vpc(id))
}

/// A block of a VPC or a subnet.
pub(super) fn parse_cidr(text: Option<&str>) -> Result<Ipv4Cidr, Failure> {
    let text = text.ok_or_else(|| refuse("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided."))?;
    text.parse().map_err(|_| bad_value(text, "cidrBlock", "This is not a valid CIDR block."))
}

/// `CreateVpc`: with its default security group and its main route table.
pub(super) async fn create(api: &Api, request: CreateVpcRequest) -> Result<CreateVpcResponse, Failure> {
    if request.instance_tenancy.as_ref().is_some_and(|tenancy| *tenancy != Tenancy::Default) {
        return Err(unsupported("Berth has no dedicated machines: InstanceTenancy must be default"));
    }
    if request.amazon_provided_ipv6_cidr_block == Some(true) {
        return Err(unsupported("Berth's VPCs have no IPv6 addresses: AmazonProvidedIpv6CidrBlock"));
    }
    let cidr = parse_cidr(request.cidr_block.as_deref())?;
    if !is_legal_size(cidr) {
        return Err(refuse("InvalidVpc.Range", format!("The CIDR '{cidr}' is invalid.")));
    }
    let tags = specified(request.tag_specifications.as_deref(), "vpc")?;
    let fresh: [u128; 5] = std::array::from_fn(|_| api.environment.entropy.bits());
    let vpc = Vpc {
        id: VpcId::from_random(fresh[0]),
        cidr,
        is_default: false,
        enable_dns_support: true,
        enable_dns_hostnames: false,
        is_deleted: false,
        tags,
    };
    api.change(|state, transaction| {
        let resources = in_turn(state, transaction)?;
        check_room(resources)?;
        transaction.expect_absent(key(vpc.id));
        transaction.put(vpc.clone());
        transaction.put(default_group(vpc.id, fresh[1], [fresh[2], fresh[3]]));
        transaction.put(main_route_table(vpc.id, cidr, fresh[4]));
        Ok(CreateVpcResponse { vpc: Some(render(api, &vpc)) })
    })
    .await
}

/// `CreateDefaultVpc`: the one that there was from the start, where somebody deleted it; under the ids that it had.
pub(super) async fn create_default(api: &Api, _: CreateDefaultVpcRequest) -> Result<CreateDefaultVpcResponse, Failure> {
    api.change(|state, transaction| {
        let resources = in_turn(state, transaction)?;
        if let Some(vpc) = resources.default_vpc() {
            let text = format!("A Default VPC already exists for this account in this region: {}", vpc.id);
            return Err(refuse("DefaultVpcAlreadyExists", text));
        }
        check_room(resources)?;
        let mut vpc = None;
        for resource in default_vpc(api.scope()) {
            if let Resource::Vpc(one) = &resource {
                vpc = Some(render(api, one));
            }
            transaction.put(Record::VpcResource(resource));
        }
        Ok(CreateDefaultVpcResponse { vpc })
    })
    .await
}

fn check_room(resources: &VpcResources) -> Result<(), Failure> {
    let is_full = resources.vpcs().count() >= MAX_VPCS;
    if is_full { Err(refuse("VpcLimitExceeded", "The maximum number of VPCs has been reached.")) } else { Ok(()) }
}

/// `DeleteVpc`: nothing may be left in it but what it had from the start. Its internet gateway goes with it.
pub(super) async fn delete(api: &Api, request: DeleteVpcRequest) -> Result<DeleteVpcResponse, Failure> {
    let text = request.vpc_id.unwrap_or_default();
    api.change(|state, transaction| {
        let resources = in_turn(state, transaction)?;
        let vpc = find(state, &text)?;
        let id = vpc.id;
        let is_in_use = resources.subnets_of(id).next().is_some()
            || resources.groups_of(id).any(|group| !group.is_default())
            || resources.interfaces().any(|interface| interface.vpc == id);
        if is_in_use {
            return Err(dependency(format!("The vpc '{id}' has dependencies and cannot be deleted.")));
        }
        transaction.expect(key(id), vpc.modified);
        for group in resources.groups_of(id) {
            transaction.delete(Key::VpcResource(ResourceId::SecurityGroup(group.id)));
        }
        for table in resources.route_tables().filter(|table| table.vpc == id) {
            transaction.delete(Key::VpcResource(ResourceId::RouteTable(table.id)));
        }
        for gateway in resources.internet_gateways().filter(|gateway| gateway.vpc == id) {
            transaction.delete(Key::VpcResource(ResourceId::InternetGateway(gateway.id)));
        }
        if vpc.is_default {
            transaction.put(Vpc { is_deleted: true, tags: Tags::new(), ..(*vpc.value).clone() });
        } else {
            transaction.delete(key(id));
        }
        Ok(DeleteVpcResponse::default())
    })
    .await
}

/// `DescribeVpcAttribute`.
pub(super) async fn describe_attribute(api: &Api, request: DescribeVpcAttributeRequest) -> Result<DescribeVpcAttributeResponse, Failure> {
    let state = api.store.state();
    let vpc = find(&state, request.vpc_id.as_deref().unwrap_or_default())?;
    let value = |value| Some(ec2::AttributeBooleanValue { value: Some(value) });
    let mut answer = DescribeVpcAttributeResponse { vpc_id: Some(vpc.id.to_string()), ..Default::default() };
    match request.attribute {
        Some(VpcAttributeName::EnableDnsSupport) => answer.enable_dns_support = value(vpc.enable_dns_support),
        Some(VpcAttributeName::EnableDnsHostnames) => answer.enable_dns_hostnames = value(vpc.enable_dns_hostnames),
        _ => answer.enable_network_address_usage_metrics = value(false),
    }
    Ok(answer)
}

/// `ModifyVpcAttribute`: one attribute in a request.
pub(super) async fn modify_attribute(api: &Api, request: ModifyVpcAttributeRequest) -> Result<ModifyVpcAttributeResponse, Failure> {
    let text = request.vpc_id.unwrap_or_default();
    let support = request.enable_dns_support.and_then(|attribute| attribute.value);
    let hostnames = request.enable_dns_hostnames.and_then(|attribute| attribute.value);
    match (support, hostnames) {
        (None, None) => return Err(combination("No attributes specified.")),
        (Some(_), Some(_)) => return Err(combination("Fields for multiple attribute types specified.")),
        _ => {}
    }
    api.change(|state, transaction| {
        let vpc = find(state, &text)?;
        let mut changed = (*vpc.value).clone();
        changed.enable_dns_support = support.unwrap_or(changed.enable_dns_support);
        changed.enable_dns_hostnames = hostnames.unwrap_or(changed.enable_dns_hostnames);
        if hostnames == Some(true) && !changed.enable_dns_support {
            return Err(combination("Both the enableDnsSupport and enableDnsHostnames attributes must be true for DNS hostnames."));
        }
        transaction.expect(key(vpc.id), vpc.modified);
        transaction.put(changed);
        Ok(ModifyVpcAttributeResponse::default())
    })
    .await
}
