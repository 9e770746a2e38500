//! Network interfaces, described. Tasks' interfaces come and go with their tasks: nobody makes one by itself.

use berth_model::task_interface::private_dns_name;
use berth_model::vpc::network_interface::{InterfaceAttachment, InterfaceStatus};
use berth_model::vpc::{NetworkInterface, NetworkInterfaceId, SecurityGroupId};
use berth_shapes::ec2::{
    self, DescribeNetworkInterfacesRequest, DescribeNetworkInterfacesResponse, GroupIdentifier, NetworkInterfaceAssociation,
    NetworkInterfaceAttachment, NetworkInterfacePrivateIpAddress,
};
use berth_store::{Entry, VpcResources};

use super::choice::Choice;
use super::filters::Filters;
use super::pages::{MOST, Page};
use super::tags::render_tags;
use crate::context::Api;
use crate::failure::Failure;

/// Who has the pool that a public address is of which is nobody's for good, as EC2 says it.
const POOL_OWNER: &str = "amazon";

const FILTERS: [&str; 28] = [
    "addresses.association.public-ip",
    "addresses.primary",
    "addresses.private-ip-address",
    "association.ip-owner-id",
    "association.public-ip",
    "attachment.attachment-id",
    "attachment.delete-on-termination",
    "attachment.device-index",
    "attachment.instance-id",
    "attachment.instance-owner-id",
    "attachment.status",
    "availability-zone",
    "description",
    "group-id",
    "group-name",
    "interface-type",
    "mac-address",
    "network-interface-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "requester-id",
    "requester-managed",
    "source-dest-check",
    "status",
    "subnet-id",
    "tag-key",
    "vpc-id",
];

/// `DescribeNetworkInterfaces`.
pub(super) async fn describe(api: &Api, request: DescribeNetworkInterfacesRequest) -> Result<DescribeNetworkInterfacesResponse, Failure> {
    let page = Page::parse("DescribeNetworkInterfaces", request.next_token.as_deref(), request.max_results, MOST)?;
    let filters = Filters::parse(request.filters.as_deref(), &FILTERS)?;
    let state = api.store.state();
    let resources = state.vpc_resources();
    let is_there = |id: &NetworkInterfaceId| resources.interface(*id).is_some();
    let ids = request.network_interface_ids.as_deref();
    let chosen = Choice::parse(ids, "InvalidNetworkInterfaceID.NotFound", "networkInterface", is_there)?;
    let passes =
        |one: &&Entry<NetworkInterface>| chosen.has(&one.id) && filters.pass(&one.tags, |name| property(api, resources, one, name));
    let (shown, next_token) = page.take(resources.interfaces().filter(passes), |one| one.id.to_string());
    let network_interfaces = shown.into_iter().map(|one| render(api, resources, one)).collect();
    Ok(DescribeNetworkInterfacesResponse { network_interfaces: Some(network_interfaces), next_token })
}

fn property(api: &Api, resources: &VpcResources, one: &NetworkInterface, name: &str) -> Vec<String> {
    let of_attachment = |value: fn(&InterfaceAttachment) -> Option<String>| one.attachment.as_ref().and_then(value);
    let value = match name {
        "addresses.association.public-ip" | "association.public-ip" => one.public_address.map(|address| address.to_string()),
        "association.ip-owner-id" => one.public_address.map(|_| POOL_OWNER.to_owned()),
        "addresses.primary" => Some("true".to_owned()),
        "addresses.private-ip-address" | "private-ip-address" => Some(one.private_address.to_string()),
        "attachment.attachment-id" => of_attachment(|attachment| Some(attachment.id.clone())),
        "attachment.delete-on-termination" => of_attachment(|attachment| Some(attachment.delete_on_termination.to_string())),
        "attachment.device-index" => of_attachment(|attachment| Some(attachment.device_index.to_string())),
        "attachment.instance-id" => of_attachment(|attachment| attachment.instance.clone()),
        "attachment.instance-owner-id" => one.attachment.as_ref().map(|_| api.scope().account.to_string()),
        "attachment.status" => of_attachment(|attachment| Some(attachment.status.to_string())),
        "availability-zone" => zone(resources, one),
        "description" => Some(one.description.clone()),
        "group-id" => return one.groups.iter().map(SecurityGroupId::to_string).collect(),
        "group-name" => return one.groups.iter().filter_map(|id| Some(resources.group(*id)?.name.clone())).collect(),
        "interface-type" => Some(one.interface_type.clone()),
        "mac-address" => Some(one.mac_address.to_string()),
        "network-interface-id" => Some(one.id.to_string()),
        "owner-id" => Some(api.scope().account.to_string()),
        "private-dns-name" => name_of(api, resources, one),
        "requester-id" => one.requester.clone(),
        "requester-managed" => Some(one.requester_managed.to_string()),
        "source-dest-check" => Some("true".to_owned()),
        "status" => Some(one.status().to_string()),
        "subnet-id" => Some(one.subnet.to_string()),
        "vpc-id" => Some(one.vpc.to_string()),
        _ => None,
    };
    value.into_iter().collect()
}

fn zone(resources: &VpcResources, one: &NetworkInterface) -> Option<String> {
    resources.subnet(one.subnet).map(|subnet| subnet.zone.to_string())
}

/// The private DNS name of its address, where its VPC gives names.
fn name_of(api: &Api, resources: &VpcResources, one: &NetworkInterface) -> Option<String> {
    let vpc = resources.vpc(one.vpc)?;
    (vpc.enable_dns_support && vpc.enable_dns_hostnames).then(|| private_dns_name(&api.scope().region, one.private_address))
}

/// Security groups by id and name.
fn identifiers(resources: &VpcResources, groups: &[SecurityGroupId]) -> Vec<GroupIdentifier> {
    let name = |id: &SecurityGroupId| resources.group(*id).map(|group| group.name.clone());
    groups.iter().map(|id| GroupIdentifier { group_id: Some(id.to_string()), group_name: name(id) }).collect()
}

fn render(api: &Api, resources: &VpcResources, one: &NetworkInterface) -> ec2::NetworkInterface {
    let account = || Some(api.scope().account.to_string());
    let private_dns_name = name_of(api, resources, one);
    let attachment = one.attachment.as_ref().map(|attachment| NetworkInterfaceAttachment {
        attach_time: Some(attachment.attached_at.to_wire()),
        attachment_id: Some(attachment.id.clone()),
        delete_on_termination: Some(attachment.delete_on_termination),
        device_index: Some(attachment.device_index),
        network_card_index: Some(0),
        instance_id: attachment.instance.clone(),
        instance_owner_id: account(),
        status: Some(attachment.status.as_str().into()),
        ..Default::default()
    });
    // No name of Amazon's leads to it.
    let association = one.public_address.map(|public| NetworkInterfaceAssociation {
        public_ip: Some(public.to_string()),
        ip_owner_id: Some(POOL_OWNER.to_owned()),
        public_dns_name: Some(String::new()),
        ..Default::default()
    });
    let address = NetworkInterfacePrivateIpAddress {
        association: association.clone(),
        primary: Some(true),
        private_dns_name: private_dns_name.clone(),
        private_ip_address: Some(one.private_address.to_string()),
    };
    ec2::NetworkInterface {
        association,
        attachment,
        availability_zone: zone(resources, one),
        description: Some(one.description.clone()),
        groups: Some(identifiers(resources, &one.groups)),
        interface_type: Some(one.interface_type.as_str().into()),
        ipv6_addresses: Some(Vec::new()),
        mac_address: Some(one.mac_address.to_string()),
        network_interface_id: Some(one.id.to_string()),
        owner_id: account(),
        private_dns_name,
        private_ip_address: Some(one.private_address.to_string()),
        private_ip_addresses: Some(vec![address]),
        requester_id: one.requester.clone(),
        requester_managed: Some(one.requester_managed),
        source_dest_check: Some(true),
        status: Some(one.status().as_str().into()),
        subnet_id: Some(one.subnet.to_string()),
        tag_set: render_tags(&one.tags),
        vpc_id: Some(one.vpc.to_string()),
        ..Default::default()
    }
}

/// An interface as DescribeInstances shows those of a machine.
pub(super) fn render_of_instance(api: &Api, resources: &VpcResources, one: &NetworkInterface) -> ec2::InstanceNetworkInterface {
    let private_dns_name = name_of(api, resources, one);
    let attachment = one.attachment.as_ref().map(|attachment| ec2::InstanceNetworkInterfaceAttachment {
        attach_time: Some(attachment.attached_at.to_wire()),
        attachment_id: Some(attachment.id.clone()),
        delete_on_termination: Some(attachment.delete_on_termination),
        device_index: Some(attachment.device_index),
        status: Some(attachment.status.as_str().into()),
        ..Default::default()
    });
    ec2::InstanceNetworkInterface {
        attachment,
        description: Some(one.description.clone()),
        groups: Some(identifiers(resources, &one.groups)),
        mac_address: Some(one.mac_address.to_string()),
        network_interface_id: Some(one.id.to_string()),
        owner_id: Some(api.scope().account.to_string()),
        private_dns_name,
        private_ip_address: Some(one.private_address.to_string()),
        source_dest_check: Some(true),
        status: Some(InterfaceStatus::InUse.as_str().into()),
        subnet_id: Some(one.subnet.to_string()),
        vpc_id: Some(one.vpc.to_string()),
        interface_type: Some(one.interface_type.clone()),
        ..Default::default()
    }
}
