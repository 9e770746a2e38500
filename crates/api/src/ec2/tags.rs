//! Tags of EC2's resources.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html>

use std::collections::HashMap;

use berth_model::record::{Key, Record};
use berth_model::tags::{Tags, merge_tags, parse_tags};
use berth_model::vpc::{Resource, ResourceId, SecurityGroupId, SecurityGroupRuleId};
use berth_shapes::ec2::{
    self, CreateTagsRequest, CreateTagsResponse, DeleteTagsRequest, DeleteTagsResponse, DescribeTagsRequest, DescribeTagsResponse,
    TagDescription,
};
use berth_shapes::ecs;
use berth_store::{State, Transaction, VpcResources};

use super::failures::{self, invalid, missing, not_found, refuse, unsupported};
use super::filters::Filters;
use super::pages::{MOST, Page};
use super::turn::in_turn;
use crate::context::Api;
use crate::failure::Failure;

/// Most tags that a request may take away: more than any resource has.
const MAX_DELETED: usize = 1_000;
/// Most resources of a request; AWS's limit.
const MAX_RESOURCES: usize = 1_000;
const FILTERS: [&str; 5] = ["key", "resource-id", "resource-type", "tag-key", "value"];

/// Tags as answers carry them; none where there is none.
pub(super) fn render_tags(tags: &Tags) -> Option<Vec<ec2::Tag>> {
    let list: Vec<_> = tags.iter().map(|(key, value)| ec2::Tag { key: Some(key.clone()), value: Some(value.clone()) }).collect();
    (!list.is_empty()).then_some(list)
}

/// The tags of a request's `TagSpecification`s, all of which must be for the kind of resource that it makes.
pub(super) fn specified(specifications: Option<&[ec2::TagSpecification]>, kind: &str) -> Result<Tags, Failure> {
    let mut list = Vec::new();
    for specification in specifications.unwrap_or_default() {
        let named = specification.resource_type.as_ref().ok_or_else(|| missing("TagSpecification.ResourceType"))?;
        if named.as_str() != kind {
            let named: String = named.as_str().chars().take(64).collect();
            return Err(invalid(format!("'{named}' is not a valid taggable resource type for this operation.")));
        }
        list.extend(specification.tags.iter().flatten().cloned());
    }
    parse(&list)
}

fn parse(list: &[ec2::Tag]) -> Result<Tags, Failure> {
    let list: Vec<_> = list.iter().map(|tag| ecs::Tag { key: tag.key.clone(), value: tag.value.clone() }).collect();
    parse_tags(Some(&list)).map_err(|error| failures::tags(&error))
}

/// What has tags: a resource of its own, or a rule inside its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tagged {
    Resource(ResourceId),
    Rule(ResourceId, SecurityGroupRuleId),
}

/// The resources that a request names, each with its record as it is.
fn find(resources: &VpcResources, texts: &[String], most: usize) -> Result<Vec<Tagged>, Failure> {
    if texts.len() > most {
        return Err(invalid(format!("At most {most} resources can be tagged at once.")));
    }
    // Groups' rules are many: they are gone through once for all.
    let has_rules = texts.iter().any(|text| text.starts_with(SecurityGroupRuleId::PREFIX));
    let groups = resources.groups().filter(|_| has_rules);
    let rules: Rules = groups.flat_map(|group| group.rules.iter().map(|rule| (rule.id, group.id))).collect();
    let mut found: Vec<Tagged> = texts.iter().map(|text| find_one(resources, &rules, text)).collect::<Result<_, _>>()?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whose a rule is.
type Rules = HashMap<SecurityGroupRuleId, SecurityGroupId>;

fn find_one(resources: &VpcResources, rules: &Rules, text: &str) -> Result<Tagged, Failure> {
    let absent = |code, noun| not_found(code, noun, &[text]);
    if text.starts_with(SecurityGroupRuleId::PREFIX) {
        let id: Option<SecurityGroupRuleId> = text.parse().ok();
        let found = id.and_then(|id| Some((*rules.get(&id)?, id)));
        let (group, id) = found.ok_or_else(|| absent("InvalidSecurityGroupRuleId.NotFound", "security group rule"))?;
        return Ok(Tagged::Rule(ResourceId::SecurityGroup(group), id));
    }
    if text.starts_with("i-") {
        return Err(unsupported("A container instance's tags are ECS's: use its TagResource and UntagResource"));
    }
    let id: Option<ResourceId> = text.parse().ok().filter(|id| is_shown(resources, *id));
    id.map(Tagged::Resource).ok_or_else(|| match text.split_once('-').map_or("", |(prefix, _)| prefix) {
        "vpc" => absent("InvalidVpcID.NotFound", "vpc"),
        "subnet" => absent("InvalidSubnetID.NotFound", "subnet"),
        "sg" => failures::no_group(text),
        "eni" => absent("InvalidNetworkInterfaceID.NotFound", "networkInterface"),
        "rtb" => absent("InvalidRouteTableID.NotFound", "routeTable"),
        "igw" => absent("InvalidInternetGatewayID.NotFound", "internetGateway"),
        _ => refuse("InvalidID", format!("The ID '{}' is not valid", text.chars().take(64).collect::<String>())),
    })
}

fn is_shown(resources: &VpcResources, id: ResourceId) -> bool {
    match id {
        ResourceId::Vpc(id) => resources.vpc(id).is_some(),
        id => resources.resource(id).is_some(),
    }
}

/// How many resources can be tagged at once: as many as one commit can write beside its guard.
fn most(api: &Api) -> usize {
    MAX_RESOURCES.min(api.store.max_changes().saturating_sub(1))
}

/// Changes the tags of each of some resources, all or none.
fn retag(
    state: &State,
    transaction: &mut Transaction,
    texts: &[String],
    most: usize,
    change: impl Fn(&mut Tags) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // A rule's record is its group's: two rules of one group, or a rule and its group, are one change.
    let resources = in_turn(state, transaction)?;
    let mut changed: Vec<Resource> = Vec::new();
    for tagged in find(resources, texts, most)? {
        let id = match tagged {
            Tagged::Resource(id) | Tagged::Rule(id, _) => id,
        };
        let at = match changed.iter().position(|resource| resource.id() == id) {
            Some(at) => at,
            None => {
                let Some((resource, modified)) = resources.resource(id) else { continue };
                transaction.expect(Key::VpcResource(id), modified);
                changed.push(resource);
                changed.len() - 1
            }
        };
        match (tagged, &mut changed[at]) {
            (Tagged::Rule(_, rule), Resource::SecurityGroup(group)) => {
                let group = std::sync::Arc::make_mut(group);
                for one in group.rules.iter_mut().filter(|one| one.id == rule) {
                    change(&mut one.tags)?;
                }
            }
            (_, resource) => change(resource.tags_mut())?,
        }
    }
    for resource in changed {
        transaction.put(Record::VpcResource(resource));
    }
    Ok(())
}

/// `CreateTags`: equal keys take the new value.
pub(super) async fn create(api: &Api, request: CreateTagsRequest) -> Result<CreateTagsResponse, Failure> {
    let texts = request.resources.filter(|texts| !texts.is_empty()).ok_or_else(|| missing("ResourceId"))?;
    let list = request.tags.filter(|tags| !tags.is_empty()).ok_or_else(|| missing("Tag"))?;
    let added = parse(&list)?;
    let merge = |tags: &mut Tags| merge_tags(tags, added.clone()).map_err(|error| failures::tags(&error));
    api.change(|state, transaction| retag(state, transaction, &texts, most(api), merge)).await?;
    Ok(CreateTagsResponse::default())
}

/// `DeleteTags`: a tag without a value goes whatever its value, one with a value only if that is its value, and without any tag all go.
pub(super) async fn delete(api: &Api, request: DeleteTagsRequest) -> Result<DeleteTagsResponse, Failure> {
    let texts = request.resources.filter(|texts| !texts.is_empty()).ok_or_else(|| missing("ResourceId"))?;
    let wanted = request.tags.unwrap_or_default();
    if wanted.len() > MAX_DELETED {
        return Err(invalid(format!("At most {MAX_DELETED} tags can be deleted at once.")));
    }
    if let Some(tag) = wanted.iter().find(|tag| tag.key.as_deref().is_none_or(str::is_empty)) {
        return Err(invalid(format!("Tag key cannot be null or empty: value '{}'", tag.value.as_deref().unwrap_or_default())));
    }
    let goes = |key: &String, value: &String| {
        wanted.is_empty() || wanted.iter().any(|tag| tag.key.as_ref() == Some(key) && tag.value.as_ref().is_none_or(|only| only == value))
    };
    let remove = |tags: &mut Tags| {
        tags.retain(|key, value| !goes(key, value));
        Ok(())
    };
    api.change(|state, transaction| retag(state, transaction, &texts, most(api), remove)).await?;
    Ok(DeleteTagsResponse::default())
}

/// A tag of a resource.
struct Row<'a> {
    id: String,
    kind: &'static str,
    key: &'a str,
    value: &'a str,
}

/// `DescribeTags`.
pub(super) async fn describe(api: &Api, request: DescribeTagsRequest) -> Result<DescribeTagsResponse, Failure> {
    let page = Page::parse("DescribeTags", request.next_token.as_deref(), request.max_results, MOST)?;
    let filters = Filters::parse(request.filters.as_deref(), &FILTERS)?;
    let state = api.store.state();
    let resources: Vec<Resource> = state.vpc_resources().resources().collect();
    let mut rows = Vec::new();
    for resource in &resources {
        let id = resource.id();
        rows.extend(resource.tags().iter().map(|(key, value)| Row { id: id.to_string(), kind: kind(id), key, value }));
        if let Resource::SecurityGroup(group) = resource {
            let rules = group.rules.iter().flat_map(|rule| rule.tags.iter().map(|tag| (rule.id.to_string(), tag)));
            rows.extend(rules.map(|(id, (key, value))| Row { id, kind: "security-group-rule", key, value }));
        }
    }
    rows.retain(|row| {
        let own = Tags::from([(row.key.to_owned(), row.value.to_owned())]);
        filters.pass(&own, |name| vec![row.property(name).to_owned()])
    });
    rows.sort_by_cached_key(Row::place);
    let (shown, next_token) = page.take(rows.iter(), |row| row.place());
    Ok(DescribeTagsResponse { next_token, tags: Some(shown.into_iter().map(Row::render).collect()) })
}

impl Row<'_> {
    /// Where it stands in the list: no id holds a line feed.
    fn place(&self) -> String {
        format!("{}\n{}", self.id, self.key)
    }

    fn property(&self, name: &str) -> &str {
        match name {
            "key" => self.key,
            "value" => self.value,
            "resource-id" => &self.id,
            _ => self.kind,
        }
    }

    fn render(&self) -> TagDescription {
        TagDescription {
            key: Some(self.key.to_owned()),
            resource_id: Some(self.id.clone()),
            resource_type: Some(self.kind.into()),
            value: Some(self.value.to_owned()),
        }
    }
}

/// The kind of a resource, as tags name it.
fn kind(id: ResourceId) -> &'static str {
    match id {
        ResourceId::Vpc(_) => "vpc",
        ResourceId::Subnet(_) => "subnet",
        ResourceId::SecurityGroup(_) => "security-group",
        ResourceId::NetworkInterface(_) => "network-interface",
        ResourceId::RouteTable(_) => "route-table",
        ResourceId::InternetGateway(_) => "internet-gateway",
    }
}
