//! The rules of security groups: authorized, revoked, changed, described.

use berth_model::tags::Tags;
use berth_model::vpc::security_group::{AddRuleError, Direction, Peer, Permission, Traffic};
use berth_model::vpc::{SecurityGroup, SecurityGroupRule, SecurityGroupRuleId};
use berth_shapes::ec2;
use berth_shapes::ec2::{
    AuthorizeSecurityGroupEgressRequest, AuthorizeSecurityGroupEgressResponse, AuthorizeSecurityGroupIngressRequest,
    AuthorizeSecurityGroupIngressResponse, DescribeSecurityGroupRulesRequest, DescribeSecurityGroupRulesResponse, IpPermission,
    ModifySecurityGroupRulesRequest, ModifySecurityGroupRulesResponse, RevokeSecurityGroupEgressRequest, RevokeSecurityGroupEgressResponse,
    RevokeSecurityGroupIngressRequest, RevokeSecurityGroupIngressResponse, RevokedSecurityGroupRule, SecurityGroupRuleRequest,
};
use berth_store::State;

use super::choice::Choice;
use super::failures::{combination, invalid, missing, not_found, refuse, unsupported};
use super::filters::Filters;
use super::pages::{MOST, Page};
use super::permissions::{Said, described, ipv4, ipv6, referred, render, render_revoked, render_rule};
use super::security_groups::{find, key};
use super::tags::specified;
use super::turn::in_turn;
use crate::context::Api;
use crate::failure::Failure;

const FILTERS: [&str; 3] = ["group-id", "security-group-rule-id", "tag-key"];

/// `DescribeSecurityGroupRules`.
pub(super) async fn describe(api: &Api, request: DescribeSecurityGroupRulesRequest) -> Result<DescribeSecurityGroupRulesResponse, Failure> {
    let page = Page::parse("DescribeSecurityGroupRules", request.next_token.as_deref(), request.max_results, MOST)?;
    let filters = Filters::parse(request.filters.as_deref(), &FILTERS)?;
    let state = api.store.state();
    let mut rules: Vec<(&SecurityGroup, &SecurityGroupRule)> = Vec::new();
    for group in state.vpc_resources().groups() {
        rules.extend(group.rules.iter().map(|rule| (&*group.value, rule)));
    }
    rules.sort_by_key(|(_, rule)| rule.id);
    let is_there = |id: &SecurityGroupRuleId| rules.binary_search_by_key(id, |(_, rule)| rule.id).is_ok();
    let ids = request.security_group_rule_ids.as_deref();
    let chosen = Choice::parse(ids, "InvalidSecurityGroupRuleId.NotFound", "security group rule", is_there)?;
    let passes = |(group, rule): &&(&SecurityGroup, &SecurityGroupRule)| {
        let id_of = |name: &str| if name == "group-id" { group.id.to_string() } else { rule.id.to_string() };
        chosen.has(&rule.id) && filters.pass(&rule.tags, |name| vec![id_of(name)])
    };
    let (shown, next_token) = page.take(rules.iter().filter(passes), |(_, rule)| rule.id.to_string());
    let security_group_rules = shown.into_iter().map(|(group, rule)| render_rule(api, group, rule)).collect();
    Ok(DescribeSecurityGroupRulesResponse { security_group_rules: Some(security_group_rules), next_token })
}

/// `AuthorizeSecurityGroupIngress`.
pub(super) async fn authorize_ingress(
    api: &Api,
    request: AuthorizeSecurityGroupIngressRequest,
) -> Result<AuthorizeSecurityGroupIngressResponse, Failure> {
    let said = Said {
        permissions: request.ip_permissions.as_deref(),
        protocol: request.ip_protocol.as_deref(),
        ports: (request.from_port, request.to_port),
        cidr: request.cidr_ip.as_deref(),
        source_group: (request.source_security_group_name.as_deref(), request.source_security_group_owner_id.as_deref()),
    };
    let tags = specified(request.tag_specifications.as_deref(), "security-group-rule")?;
    let group = (request.group_id.as_deref(), request.group_name.as_deref());
    let rules = authorize(api, group, &said, Direction::Ingress, &tags).await?;
    Ok(AuthorizeSecurityGroupIngressResponse { r#return: Some(true), security_group_rules: Some(rules) })
}

/// `AuthorizeSecurityGroupEgress`.
pub(super) async fn authorize_egress(
    api: &Api,
    request: AuthorizeSecurityGroupEgressRequest,
) -> Result<AuthorizeSecurityGroupEgressResponse, Failure> {
    let said = only(request.ip_permissions.as_deref());
    let tags = specified(request.tag_specifications.as_deref(), "security-group-rule")?;
    let rules = authorize(api, (request.group_id.as_deref(), None), &said, Direction::Egress, &tags).await?;
    Ok(AuthorizeSecurityGroupEgressResponse { r#return: Some(true), security_group_rules: Some(rules) })
}

/// `IpPermissions` and nothing else.
fn only(permissions: Option<&[IpPermission]>) -> Said<'_> {
    Said { permissions, protocol: None, ports: (None, None), cidr: None, source_group: (None, None) }
}

/// Adds rules to a group, all or none.
async fn authorize(
    api: &Api,
    (id, name): (Option<&str>, Option<&str>),
    said: &Said<'_>,
    direction: Direction,
    tags: &Tags,
) -> Result<Vec<ec2::SecurityGroupRule>, Failure> {
    api.change(|state, transaction| {
        // A rule may refer to a group, which then cannot go.
        in_turn(state, transaction)?;
        let group = find(state, id, name)?;
        let fresh = said.read(api, state, group, direction)?.into_iter().map(|(permission, description)| SecurityGroupRule {
            id: SecurityGroupRuleId::from_random(api.environment.entropy.bits()),
            permission,
            description,
            tags: tags.clone(),
        });
        let fresh: Vec<_> = fresh.collect();
        let mut changed = (*group.value).clone();
        changed.add(fresh.clone())?;
        transaction.expect(key(group.id), group.modified);
        transaction.put(changed);
        Ok(fresh.iter().map(|rule| render_rule(api, group, rule)).collect())
    })
    .await
}

/// What became of a request to revoke.
struct Revoked {
    rules: Vec<RevokedSecurityGroupRule>,
    unknown: Vec<IpPermission>,
}

/// `RevokeSecurityGroupIngress`.
pub(super) async fn revoke_ingress(
    api: &Api,
    request: RevokeSecurityGroupIngressRequest,
) -> Result<RevokeSecurityGroupIngressResponse, Failure> {
    let said = Said {
        permissions: request.ip_permissions.as_deref(),
        protocol: request.ip_protocol.as_deref(),
        ports: (request.from_port, request.to_port),
        cidr: request.cidr_ip.as_deref(),
        source_group: (request.source_security_group_name.as_deref(), request.source_security_group_owner_id.as_deref()),
    };
    let group = (request.group_id.as_deref(), request.group_name.as_deref());
    let ids = request.security_group_rule_ids.unwrap_or_default();
    let Revoked { rules, unknown } = revoke(api, group, &said, &ids, Direction::Ingress).await?;
    Ok(RevokeSecurityGroupIngressResponse {
        r#return: Some(true),
        unknown_ip_permissions: Some(unknown),
        revoked_security_group_rules: Some(rules),
    })
}

/// `RevokeSecurityGroupEgress`.
pub(super) async fn revoke_egress(
    api: &Api,
    request: RevokeSecurityGroupEgressRequest,
) -> Result<RevokeSecurityGroupEgressResponse, Failure> {
    let said = only(request.ip_permissions.as_deref());
    let ids = request.security_group_rule_ids.unwrap_or_default();
    let Revoked { rules, unknown } = revoke(api, (request.group_id.as_deref(), None), &said, &ids, Direction::Egress).await?;
    Ok(RevokeSecurityGroupEgressResponse {
        r#return: Some(true),
        unknown_ip_permissions: Some(unknown),
        revoked_security_group_rules: Some(rules),
    })
}

/// Takes rules out of a group, by their ids or by what they allow. Of a group of the default VPC those that are not there are told in the
/// answer; of any other they are an error, and nothing is taken out. AWS does so too.
async fn revoke(
    api: &Api,
    (id, name): (Option<&str>, Option<&str>),
    said: &Said<'_>,
    ids: &[String],
    direction: Direction,
) -> Result<Revoked, Failure> {
    if !ids.is_empty() && !said.is_nothing() {
        return Err(combination("The parameter securityGroupRuleIds may not be used with ipPermissions"));
    }
    api.change(|state, transaction| {
        let group = find(state, id, name)?;
        let (gone, unknown) =
            if ids.is_empty() { by_permissions(api, state, group, said, direction)? } else { (by_ids(group, ids, direction)?, Vec::new()) };
        if !gone.is_empty() {
            let mut changed = (*group.value).clone();
            changed.rules.retain(|rule| !gone.contains(&rule.id));
            transaction.expect(key(group.id), group.modified);
            transaction.put(changed);
        }
        let rules = group.rules.iter().filter(|rule| gone.contains(&rule.id)).map(|rule| render_revoked(group, rule)).collect();
        Ok(Revoked { rules, unknown })
    })
    .await
}

fn by_ids(group: &SecurityGroup, ids: &[String], direction: Direction) -> Result<Vec<SecurityGroupRuleId>, Failure> {
    let find = |text: &String| {
        let id: Option<SecurityGroupRuleId> = text.parse().ok();
        let found = id.filter(|id| group.rules_of(direction).any(|rule| rule.id == *id));
        found.ok_or_else(|| not_found("InvalidSecurityGroupRuleId.NotFound", "security group rule", &[text]))
    };
    ids.iter().map(find).collect()
}

/// The rules that allow this, and of a group of the default VPC what there is no rule for.
fn by_permissions(
    api: &Api,
    state: &State,
    group: &SecurityGroup,
    said: &Said<'_>,
    direction: Direction,
) -> Result<(Vec<SecurityGroupRuleId>, Vec<IpPermission>), Failure> {
    let (mut gone, mut unknown) = (Vec::new(), Vec::new());
    for (permission, description) in said.read(api, state, group, direction)? {
        match group.rules.iter().find(|rule| rule.permission == permission) {
            Some(rule) => gone.push(rule.id),
            None => unknown.push((permission, description)),
        }
    }
    let is_default = state.vpc_resources().vpc(group.vpc).is_some_and(|vpc| vpc.is_default);
    if !unknown.is_empty() && !is_default {
        return Err(refuse("InvalidPermission.NotFound", "The specified rule does not exist in this security group."));
    }
    Ok((gone, render(api, unknown.into_iter())))
}

/// `ModifySecurityGroupRules`: each rule named is another one afterwards, under the same id; all or none.
pub(super) async fn modify(api: &Api, request: ModifySecurityGroupRulesRequest) -> Result<ModifySecurityGroupRulesResponse, Failure> {
    let updates = request.security_group_rules.filter(|updates| !updates.is_empty()).ok_or_else(|| missing("SecurityGroupRule"))?;
    api.change(|state, transaction| {
        in_turn(state, transaction)?;
        let group = find(state, request.group_id.as_deref(), None)?;
        let mut changed = (*group.value).clone();
        for (nth, update) in updates.iter().enumerate() {
            let text = update.security_group_rule_id.as_deref().unwrap_or_default();
            if updates[..nth].iter().any(|other| other.security_group_rule_id == update.security_group_rule_id) {
                return Err(invalid(format!("The security group rule ID '{text}' appears twice.")));
            }
            let id: Option<SecurityGroupRuleId> = text.parse().ok();
            let rule = changed.rules.iter_mut().find(|rule| Some(rule.id) == id);
            let rule = rule.ok_or_else(|| not_found("InvalidSecurityGroupRuleId.NotFound", "security group rule", &[text]))?;
            let asked = update.security_group_rule.as_ref().ok_or_else(|| missing("SecurityGroupRule.SecurityGroupRule"))?;
            let (permission, description) = rewritten(state, group, rule, asked)?;
            (rule.permission, rule.description) = (permission, description);
        }
        for (nth, rule) in changed.rules.iter().enumerate() {
            if changed.rules[..nth].iter().any(|other| other.permission == rule.permission) {
                return Err(AddRuleError::Duplicate(rule.permission).into());
            }
        }
        transaction.expect(key(group.id), group.modified);
        transaction.put(changed);
        Ok(ModifySecurityGroupRulesResponse { r#return: Some(true) })
    })
    .await
}

/// A rule as a request wants it. It says the whole rule: what is left out is not what the rule had.
fn rewritten(
    state: &State,
    group: &SecurityGroup,
    rule: &SecurityGroupRule,
    asked: &SecurityGroupRuleRequest,
) -> Result<(Permission, Option<String>), Failure> {
    if asked.prefix_list_id.is_some() {
        return Err(unsupported("Berth has no managed prefix lists: prefixListId"));
    }
    let protocol = asked.ip_protocol.as_deref().ok_or_else(|| missing("ipProtocol"))?;
    let traffic = Traffic::parse(protocol, asked.from_port, asked.to_port)?;
    let peer = match (&asked.cidr_ipv4, &asked.cidr_ipv6, &asked.referenced_group_id) {
        (Some(cidr), None, None) => ipv4(Some(cidr))?,
        (None, Some(cidr), None) => ipv6(Some(cidr))?,
        (None, None, Some(id)) => Peer::Group(referred(state.vpc_resources(), group, id)?),
        (None, None, None) => return Err(missing("CidrIpv4, CidrIpv6 or ReferencedGroupId")),
        _ => return Err(combination("Only one of cidrIpv4, cidrIpv6 and referencedGroupId may be given")),
    };
    Ok((Permission { direction: rule.permission.direction, traffic, peer }, described(asked.description.as_deref())?))
}
