//! Security groups: made, described, deleted. Their rules have a file of their own.

use std::collections::BTreeSet;

use berth_model::record::Key;
use berth_model::vpc::default_vpc::egress_to_everybody;
use berth_model::vpc::security_group::{DEFAULT_GROUP, Direction, MAX_GROUPS, Peer, is_legal_text};
use berth_model::vpc::{ResourceId, SecurityGroup, SecurityGroupId};
use berth_shapes::ec2::{
    self, CreateSecurityGroupRequest, CreateSecurityGroupResponse, DeleteSecurityGroupRequest, DeleteSecurityGroupResponse,
    DescribeSecurityGroupsRequest, DescribeSecurityGroupsResponse,
};
use berth_store::{Entry, State, VpcResources};

use super::failures::{bad_value, dependency, missing, no_default_vpc, no_group, refuse};
use super::filters::Filters;
use super::pages::{MOST, Page};
use super::permissions::{parse_group_id, render_permissions};
use super::tags::{render_tags, specified};
use super::turn::{arn, in_turn};
use super::vpcs;
use crate::context::Api;
use crate::failure::Failure;

const FILTERS: [&str; 20] = [
    "description",
    "egress.ip-permission.cidr",
    "egress.ip-permission.from-port",
    "egress.ip-permission.group-id",
    "egress.ip-permission.group-name",
    "egress.ip-permission.ipv6-cidr",
    "egress.ip-permission.protocol",
    "egress.ip-permission.to-port",
    "group-id",
    "group-name",
    "ip-permission.cidr",
    "ip-permission.from-port",
    "ip-permission.group-id",
    "ip-permission.group-name",
    "ip-permission.ipv6-cidr",
    "ip-permission.protocol",
    "ip-permission.to-port",
    "owner-id",
    "tag-key",
    "vpc-id",
];

/// `DescribeSecurityGroups`: by ids, by names of groups of the default VPC, or all.
pub(super) async fn describe(api: &Api, request: DescribeSecurityGroupsRequest) -> Result<DescribeSecurityGroupsResponse, Failure> {
    let page = Page::parse("DescribeSecurityGroups", request.next_token.as_deref(), request.max_results, MOST)?;
    let filters = Filters::parse(request.filters.as_deref(), &FILTERS)?;
    let state = api.store.state();
    let resources = state.vpc_resources();
    let (ids, names) = (request.group_ids.unwrap_or_default(), request.group_names.unwrap_or_default());
    let mut chosen = BTreeSet::new();
    for id in &ids {
        chosen.insert(resources.group(parse_group_id(id)?).ok_or_else(|| no_group(id))?.id);
    }
    for name in &names {
        chosen.insert(by_name(resources, name)?.id);
    }
    let is_chosen = |group: &SecurityGroup| chosen.is_empty() || chosen.contains(&group.id);
    let passes =
        |group: &&Entry<SecurityGroup>| is_chosen(group) && filters.pass(&group.tags, |name| property(api, resources, group, name));
    let (shown, next_token) = page.take(resources.groups().filter(passes), |group| group.id.to_string());
    let security_groups = shown.into_iter().map(|group| render(api, group)).collect();
    Ok(DescribeSecurityGroupsResponse { next_token, security_groups: Some(security_groups) })
}

fn property(api: &Api, resources: &VpcResources, group: &SecurityGroup, name: &str) -> Vec<String> {
    if let Some(of_rules) = name.strip_prefix("egress.ip-permission.") {
        return of_rule(resources, group, Direction::Egress, of_rules);
    }
    if let Some(of_rules) = name.strip_prefix("ip-permission.") {
        return of_rule(resources, group, Direction::Ingress, of_rules);
    }
    vec![match name {
        "description" => group.description.clone(),
        "group-id" => group.id.to_string(),
        "group-name" => group.name.clone(),
        "owner-id" => api.scope().account.to_string(),
        "vpc-id" => group.vpc.to_string(),
        _ => return Vec::new(),
    }]
}

fn of_rule(resources: &VpcResources, group: &SecurityGroup, direction: Direction, name: &str) -> Vec<String> {
    let values = group.rules_of(direction).map(|rule| {
        let (traffic, peer) = (rule.permission.traffic, rule.permission.peer);
        match (name, peer) {
            ("protocol", _) => Some(traffic.protocol.to_string()),
            ("from-port", _) => traffic.ports.map(|(from, _)| from.to_string()),
            ("to-port", _) => traffic.ports.map(|(_, to)| to.to_string()),
            ("cidr", Peer::Ipv4(cidr)) => Some(cidr.to_string()),
            ("ipv6-cidr", Peer::Ipv6(cidr)) => Some(cidr.to_string()),
            ("group-id", Peer::Group(id)) => Some(id.to_string()),
            ("group-name", Peer::Group(id)) => resources.group(id).map(|group| group.name.clone()),
            _ => None,
        }
    });
    values.flatten().collect()
}

fn render(api: &Api, group: &SecurityGroup) -> ec2::SecurityGroup {
    ec2::SecurityGroup {
        group_id: Some(group.id.to_string()),
        ip_permissions_egress: Some(render_permissions(api, group, Direction::Egress)),
        tags: render_tags(&group.tags),
        vpc_id: Some(group.vpc.to_string()),
        security_group_arn: Some(arn(api.scope(), "security-group", group.id)),
        owner_id: Some(api.scope().account.to_string()),
        group_name: Some(group.name.clone()),
        description: Some(group.description.clone()),
        ip_permissions: Some(render_permissions(api, group, Direction::Ingress)),
    }
}

/// A group of the default VPC by its name: elsewhere names say nothing.
fn by_name<'a>(resources: &'a VpcResources, name: &str) -> Result<&'a Entry<SecurityGroup>, Failure> {
    let vpc = resources.default_vpc().ok_or_else(no_default_vpc)?;
    resources.groups_of(vpc.id).find(|group| group.name == name).ok_or_else(|| {
        let name: String = name.chars().take(255).collect();
        refuse("InvalidGroup.NotFound", format!("The security group '{name}' does not exist in default VPC '{}'", vpc.id))
    })
}

/// The group of a request, by its id or, in the default VPC, its name.
pub(super) fn find<'a>(state: &'a State, id: Option<&str>, name: Option<&str>) -> Result<&'a Entry<SecurityGroup>, Failure> {
    let resources = state.vpc_resources();
    match (id.filter(|id| !id.is_empty()), name.filter(|name| !name.is_empty())) {
        (Some(id), _) => resources.group(parse_group_id(id)?).ok_or_else(|| no_group(id)),
        (None, Some(name)) => by_name(resources, name),
        (None, None) => Err(missing("groupName or groupId")),
    }
}

/// The key of a group's record.
pub(super) fn key(id: SecurityGroupId) -> Key {
    Key::VpcResource(ResourceId::SecurityGroup(id))
}

fn check_name(name: &str) -> Result<(), Failure> {
    if name == DEFAULT_GROUP {
        return Err(refuse("InvalidParameterValue", "Cannot use reserved security group name: default"));
    }
    if name.starts_with(SecurityGroupId::PREFIX) {
        return Err(bad_value(name, "GroupName", "Group names may not be in the format sg-*."));
    }
    if name.is_empty() || !is_legal_text(name) {
        let why = "Group names are up to 255 characters from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*";
        return Err(bad_value(name, "GroupName", why));
    }
    Ok(())
}

/// `CreateSecurityGroup`: what has it may talk to everybody, and nobody to it.
pub(super) async fn create(api: &Api, request: CreateSecurityGroupRequest) -> Result<CreateSecurityGroupResponse, Failure> {
    let (name, description) = (request.group_name.unwrap_or_default(), request.description.unwrap_or_default());
    check_name(&name)?;
    if description.is_empty() || !is_legal_text(&description) {
        let why = "Valid descriptions are strings less than 256 characters from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*";
        return Err(bad_value(description, "GroupDescription", why));
    }
    let tags = specified(request.tag_specifications.as_deref(), "security-group")?;
    let id = SecurityGroupId::from_random(api.environment.entropy.bits());
    let egress = egress_to_everybody(api.environment.entropy.bits());
    api.change(|state, transaction| {
        let resources = in_turn(state, transaction)?;
        let vpc = match request.vpc_id.as_deref() {
            Some(text) => vpcs::find(state, text)?,
            None => resources.default_vpc().ok_or_else(no_default_vpc)?,
        };
        if resources.groups_of(vpc.id).any(|group| group.name == name) {
            return Err(refuse("InvalidGroup.Duplicate", format!("The security group '{name}' already exists for VPC '{}'", vpc.id)));
        }
        if resources.groups().count() >= MAX_GROUPS {
            return Err(refuse("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached."));
        }
        transaction.expect_absent(key(id));
        transaction.put(SecurityGroup {
            id,
            vpc: vpc.id,
            name: name.clone(),
            description: description.clone(),
            rules: vec![egress.clone()],
            tags: tags.clone(),
        });
        Ok(CreateSecurityGroupResponse {
            group_id: Some(id.to_string()),
            tags: render_tags(&tags),
            security_group_arn: Some(arn(api.scope(), "security-group", id)),
        })
    })
    .await
}

/// `DeleteSecurityGroup`: no interface may have it, and no rule of another group refer to it.
pub(super) async fn delete(api: &Api, request: DeleteSecurityGroupRequest) -> Result<DeleteSecurityGroupResponse, Failure> {
    api.change(|state, transaction| {
        let resources = in_turn(state, transaction)?;
        let group = find(state, request.group_id.as_deref(), request.group_name.as_deref())?;
        let id = group.id;
        if group.is_default() {
            let text = format!("the specified group: \"{id}\" name: \"{}\" cannot be deleted by a user", group.name);
            return Err(refuse("CannotDelete", text));
        }
        let is_in_use = resources.interfaces().any(|interface| interface.groups.contains(&id))
            || resources.groups().any(|other| other.id != id && other.refers_to(id));
        if is_in_use {
            return Err(dependency(format!("resource {id} has a dependent object")));
        }
        // Whoever gives the group to an interface changes the group's version.
        transaction.expect(key(id), group.modified);
        transaction.delete(key(id));
        Ok(DeleteSecurityGroupResponse { r#return: Some(true), group_id: Some(id.to_string()) })
    })
    .await
}
