//! Rules of security groups on the wire: `IpPermissions` and the older way of saying one, read and rendered.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::vpc::security_group::{Direction, IpProtocol, Peer, Permission, Traffic, is_legal_text};
use berth_model::vpc::{SecurityGroup, SecurityGroupId, SecurityGroupRule};
use berth_shapes::ec2::{self, IpPermission};
use berth_store::{State, VpcResources};

use super::failures::{bad_value, combination, invalid, missing, no_group, refuse, unsupported};
use super::tags::render_tags;
use super::turn::arn;
use crate::context::Api;
use crate::failure::Failure;

/// What a request wants allowed, or not any more: with what its author says of it.
pub(super) type Wanted = (Permission, Option<String>);

/// A request's rules in the old form, with one source in members of their own, and in the new one.
pub(super) struct Said<'a> {
    pub(super) permissions: Option<&'a [IpPermission]>,
    pub(super) protocol: Option<&'a str>,
    pub(super) ports: (Option<i32>, Option<i32>),
    pub(super) cidr: Option<&'a str>,
    pub(super) source_group: (Option<&'a str>, Option<&'a str>),
}

impl Said<'_> {
    /// Does it say nothing at all?
    pub(super) fn is_nothing(&self) -> bool {
        self.permissions.is_none_or(<[_]>::is_empty) && !self.is_old()
    }

    fn is_old(&self) -> bool {
        self.protocol.is_some() || self.cidr.is_some() || self.source_group.0.is_some() || self.ports != (None, None)
    }

    /// The rules that it means for a group. No two are the same.
    ///
    /// # Errors
    /// EC2's, for whatever is no rule; `UnsupportedOperation` for prefix lists and groups of other accounts.
    pub(super) fn read(&self, api: &Api, state: &State, group: &SecurityGroup, direction: Direction) -> Result<Vec<Wanted>, Failure> {
        let old = self.old_form();
        let permissions = match (self.permissions.filter(|list| !list.is_empty()), &old) {
            (Some(_), Some(_)) => {
                return Err(combination("The parameter ipPermissions may not be used with ipProtocol, cidrIp, or sourceSecurityGroupName"));
            }
            (Some(list), None) => list,
            (None, Some(one)) => std::slice::from_ref(one),
            (None, None) => return Err(missing("IpPermissions")),
        };
        let reader = Reader { api, resources: state.vpc_resources(), group, direction };
        let (mut wanted, mut known): (Vec<Wanted>, BTreeSet<Permission>) = Default::default();
        for permission in permissions {
            for one in reader.read(permission)? {
                if !known.insert(one.0) {
                    return Err(invalid(format!("The same permission must not appear multiple times: {}", one.0)));
                }
                wanted.push(one);
            }
        }
        Ok(wanted)
    }

    fn old_form(&self) -> Option<IpPermission> {
        let (name, owner) = self.source_group;
        let pair = name.map(|name| ec2::UserIdGroupPair {
            group_name: Some(name.to_owned()),
            user_id: owner.map(str::to_owned),
            ..Default::default()
        });
        let range = self.cidr.map(|cidr| ec2::IpRange { cidr_ip: Some(cidr.to_owned()), description: None });
        // A group alone once meant everything that it sends.
        let protocol = self.protocol.or_else(|| pair.as_ref().map(|_| "-1"));
        self.is_old().then(|| IpPermission {
            ip_protocol: protocol.map(str::to_owned),
            from_port: self.ports.0,
            to_port: self.ports.1,
            user_id_group_pairs: pair.map(|pair| vec![pair]),
            ip_ranges: range.map(|range| vec![range]),
            ..Default::default()
        })
    }
}

struct Reader<'a> {
    api: &'a Api,
    resources: &'a VpcResources,
    group: &'a SecurityGroup,
    direction: Direction,
}

impl Reader<'_> {
    fn read(&self, permission: &IpPermission) -> Result<Vec<Wanted>, Failure> {
        let protocol = permission.ip_protocol.as_deref().ok_or_else(|| missing("ipProtocol"))?;
        let traffic = Traffic::parse(protocol, permission.from_port, permission.to_port)?;
        if permission.prefix_list_ids.as_ref().is_some_and(|lists| !lists.is_empty()) {
            return Err(unsupported("Berth has no managed prefix lists: name their CIDR blocks in ipRanges instead of prefixListIds"));
        }
        let mut peers = Vec::new();
        for range in permission.ip_ranges.iter().flatten() {
            peers.push((ipv4(range.cidr_ip.as_deref())?, described(range.description.as_deref())?));
        }
        for range in permission.ipv6_ranges.iter().flatten() {
            peers.push((ipv6(range.cidr_ipv6.as_deref())?, described(range.description.as_deref())?));
        }
        for pair in permission.user_id_group_pairs.iter().flatten() {
            peers.push((Peer::Group(self.source(pair)?), described(pair.description.as_deref())?));
        }
        if peers.is_empty() {
            return Err(refuse("MissingParameter", "One of ipRanges, ipv6Ranges or groups must be given in each of ipPermissions."));
        }
        let direction = self.direction;
        Ok(peers.into_iter().map(|(peer, description)| (Permission { direction, traffic, peer }, description)).collect())
    }

    /// The group that a pair names: of the same VPC, there are no others that could be reached.
    fn source(&self, pair: &ec2::UserIdGroupPair) -> Result<SecurityGroupId, Failure> {
        if pair.user_id.as_deref().is_some_and(|account| !account.is_empty() && *account != *self.api.scope().account) {
            return Err(unsupported("Berth has one account: userId"));
        }
        if pair.vpc_peering_connection_id.is_some() {
            return Err(unsupported("Berth has no VPC peering: vpcPeeringConnectionId"));
        }
        match (pair.group_id.as_deref(), pair.group_name.as_deref()) {
            (Some(id), _) => referred(self.resources, self.group, id),
            (None, Some(name)) => {
                let found = self.resources.groups_of(self.group.vpc).find(|group| group.name == name);
                found.map(|group| group.id).ok_or_else(|| no_group(name))
            }
            (None, None) => Err(missing("groupId")),
        }
    }
}

/// A group that a rule of another refers to by its id: of the same VPC.
pub(super) fn referred(resources: &VpcResources, group: &SecurityGroup, id: &str) -> Result<SecurityGroupId, Failure> {
    let other = parse_group_id(id)?;
    let other = resources.group(other).ok_or_else(|| no_group(id))?;
    if other.vpc != group.vpc {
        return Err(refuse("InvalidGroup.NotFound", "You have specified two resources that belong to different networks."));
    }
    Ok(other.id)
}

/// `sg-…`.
pub(super) fn parse_group_id(text: &str) -> Result<SecurityGroupId, Failure> {
    if !text.starts_with(SecurityGroupId::PREFIX) {
        let shown: String = text.chars().take(64).collect();
        return Err(refuse("InvalidGroupId.Malformed", format!("Invalid id: \"{shown}\" (expecting \"sg-...\")")));
    }
    text.parse().map_err(|_| no_group(text))
}

/// A block of IPv4 addresses.
pub(super) fn ipv4(text: Option<&str>) -> Result<Peer, Failure> {
    let text = text.ok_or_else(|| missing("cidrIp"))?;
    text.parse().map(Peer::Ipv4).map_err(|_| malformed(text))
}

/// A block of IPv6 addresses.
pub(super) fn ipv6(text: Option<&str>) -> Result<Peer, Failure> {
    let text = text.ok_or_else(|| missing("cidrIpv6"))?;
    text.parse().map(Peer::Ipv6).map_err(|_| malformed(text))
}

fn malformed(text: &str) -> Failure {
    invalid(format!("CIDR block {} is malformed", text.chars().take(64).collect::<String>()))
}

/// What a rule's author says of it.
pub(super) fn described(text: Option<&str>) -> Result<Option<String>, Failure> {
    const RULE: &str = "Valid descriptions are strings less than 256 characters from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*";
    match text.filter(|text| !text.is_empty()) {
        Some(text) if !is_legal_text(text) => Err(bad_value(text, "description", &format!("Invalid rule description. {RULE}"))),
        text => Ok(text.map(str::to_owned)),
    }
}

/// A group's rules of one direction, those of the same traffic together.
pub(super) fn render_permissions(api: &Api, group: &SecurityGroup, direction: Direction) -> Vec<IpPermission> {
    render(api, group.rules_of(direction).map(|rule| (rule.permission, rule.description.clone())))
}

/// Permissions as answers carry them, those of the same traffic together.
pub(super) fn render(api: &Api, permissions: impl Iterator<Item = Wanted>) -> Vec<IpPermission> {
    let mut by_traffic: BTreeMap<Traffic, IpPermission> = BTreeMap::new();
    for (permission, description) in permissions {
        let shown = by_traffic.entry(permission.traffic).or_insert_with(|| IpPermission {
            ip_protocol: Some(permission.traffic.protocol.to_string()),
            from_port: permission.traffic.ports.map(|(from, _)| from),
            to_port: permission.traffic.ports.map(|(_, to)| to),
            user_id_group_pairs: Some(Vec::new()),
            ip_ranges: Some(Vec::new()),
            ipv6_ranges: Some(Vec::new()),
            prefix_list_ids: Some(Vec::new()),
        });
        match permission.peer {
            Peer::Ipv4(cidr) => {
                shown.ip_ranges.get_or_insert_default().push(ec2::IpRange { description, cidr_ip: Some(cidr.to_string()) });
            }
            Peer::Ipv6(cidr) => {
                shown.ipv6_ranges.get_or_insert_default().push(ec2::Ipv6Range { description, cidr_ipv6: Some(cidr.to_string()) });
            }
            Peer::Group(id) => shown.user_id_group_pairs.get_or_insert_default().push(ec2::UserIdGroupPair {
                description,
                user_id: Some(api.scope().account.to_string()),
                group_id: Some(id.to_string()),
                ..Default::default()
            }),
        }
    }
    by_traffic.into_values().collect()
}

/// The ports of a rule that is shown by itself: -1 where it is about all of them.
fn ports(traffic: Traffic) -> (Option<i32>, Option<i32>) {
    match (traffic.ports, traffic.protocol) {
        (Some((from, to)), _) => (Some(from), Some(to)),
        (None, IpProtocol::All | IpProtocol::Other(_)) => (Some(-1), Some(-1)),
        (None, _) => (None, None),
    }
}

/// A rule by itself.
pub(super) fn render_rule(api: &Api, group: &SecurityGroup, rule: &SecurityGroupRule) -> ec2::SecurityGroupRule {
    let Permission { direction, traffic, peer } = rule.permission;
    let (from_port, to_port) = ports(traffic);
    let referenced = |id: SecurityGroupId| ec2::ReferencedSecurityGroup {
        group_id: Some(id.to_string()),
        user_id: Some(api.scope().account.to_string()),
        vpc_id: Some(group.vpc.to_string()),
        ..Default::default()
    };
    ec2::SecurityGroupRule {
        security_group_rule_id: Some(rule.id.to_string()),
        group_id: Some(group.id.to_string()),
        group_owner_id: Some(api.scope().account.to_string()),
        is_egress: Some(direction == Direction::Egress),
        ip_protocol: Some(traffic.protocol.to_string()),
        from_port,
        to_port,
        cidr_ipv4: if let Peer::Ipv4(cidr) = peer { Some(cidr.to_string()) } else { None },
        cidr_ipv6: if let Peer::Ipv6(cidr) = peer { Some(cidr.to_string()) } else { None },
        prefix_list_id: None,
        referenced_group_info: if let Peer::Group(id) = peer { Some(referenced(id)) } else { None },
        description: rule.description.clone(),
        tags: render_tags(&rule.tags),
        security_group_rule_arn: Some(arn(api.scope(), "security-group-rule", rule.id)),
    }
}

/// A rule that is there no more.
pub(super) fn render_revoked(group: &SecurityGroup, rule: &SecurityGroupRule) -> ec2::RevokedSecurityGroupRule {
    let Permission { direction, traffic, peer } = rule.permission;
    let (from_port, to_port) = ports(traffic);
    ec2::RevokedSecurityGroupRule {
        security_group_rule_id: Some(rule.id.to_string()),
        group_id: Some(group.id.to_string()),
        is_egress: Some(direction == Direction::Egress),
        ip_protocol: Some(traffic.protocol.to_string()),
        from_port,
        to_port,
        cidr_ipv4: if let Peer::Ipv4(cidr) = peer { Some(cidr.to_string()) } else { None },
        cidr_ipv6: if let Peer::Ipv6(cidr) = peer { Some(cidr.to_string()) } else { None },
        prefix_list_id: None,
        referenced_group_id: if let Peer::Group(id) = peer { Some(id.to_string()) } else { None },
        description: rule.description.clone(),
    }
}
