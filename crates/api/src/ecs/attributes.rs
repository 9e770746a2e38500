//! What the attribute actions share: which container instance an attribute is for, and which attributes are users' own.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-constraints.html#attributes>

use berth_model::arn::parse_container_instance;
use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus, FARGATE, INTERFACES, parse_interfaces};
use berth_model::ids::{ClusterName, ContainerInstanceId};
use berth_model::public_addresses::{PUBLIC_ADDRESSES, PublicAddresses};
use berth_shapes::ecs::{self, ErrorCode};
use berth_store::{Entry, State};

use crate::context::Api;
use crate::failure::Failure;

/// Most attributes in one request, and most of users' own on one container instance.
pub(crate) const MOST: usize = 10;

/// The container instance that an attribute is for: `targetId` is its ARN, or its id with `targetType` `container-instance`.
pub(crate) fn target<'a>(
    api: &Api,
    state: &'a State,
    cluster: &ClusterName,
    attribute: &ecs::Attribute,
) -> Result<&'a Entry<ContainerInstance>, Failure> {
    let text = attribute.target_id.as_deref().unwrap_or_default();
    if text.is_empty() {
        return Err(Failure::invalid("targetId is required for each attribute: attributes.targetId"));
    }
    if !text.starts_with("arn:") && attribute.target_type.is_none() {
        return Err(Failure::invalid("targetType is required where targetId is not a full ARN: attributes.targetType"));
    }
    let not_found = || Failure::modelled(ErrorCode::TargetNotFound, format!("Could not find the specified target: {text}"));
    let id = parse_container_instance(api.scope(), cluster, text)?;
    let known = state.instance(id).filter(|known| known.cluster == *cluster);
    known.filter(|known| known.status != ContainerInstanceStatus::Inactive).ok_or_else(not_found)
}

/// ECS and its agent set these; users may not.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with("ecs.") || name.starts_with("com.amazonaws.ecs.") || name == FARGATE || name == PUBLIC_ADDRESSES
}

/// Checks an attribute's name and value by ECS's rules.
pub(crate) fn check(attribute: &ecs::Attribute) -> Result<(), Failure> {
    let name = attribute.name.as_deref().unwrap_or_default();
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/\\.".contains(&byte);
    if !(1..=128).contains(&name.len()) || !name.bytes().all(in_name) {
        return Err(Failure::invalid(format!(
            "An attribute's name has 1 to 128 letters (uppercase and lowercase), numbers, hyphens, underscores, slashes, backslashes and periods: \
             attributes.name {name:?}"
        )));
    }
    if is_reserved(name) {
        return Err(Failure::invalid(format!("The attribute is set by Amazon ECS and cannot be changed: attributes.name {name}")));
    }
    let Some(value) = attribute.value.as_deref() else { return Ok(()) };
    let in_value = |c: char| c.is_ascii_alphanumeric() || "-_./\\@: ".contains(c);
    if !(1..=128).contains(&value.len()) || !value.chars().all(in_value) || value.trim() != value {
        return Err(Failure::invalid(format!(
            "An attribute's value has 1 to 128 letters (uppercase and lowercase), numbers, hyphens, underscores, periods, at signs, slashes, \
             backslashes, colons and inner spaces: attributes.value of {name}"
        )));
    }
    Ok(())
}

/// Checks the value of an attribute that Berth acts on, as it is set: one that it could not honour is refused, not passed over.
pub(crate) fn check_meaning(name: &str, value: Option<&str>) -> Result<(), Failure> {
    if name == INTERFACES && parse_interfaces(value).is_none() {
        return Err(Failure::invalid(format!(
            "A container instance holds a whole number of network interfaces: attributes.value of {name}"
        )));
    }
    if name == PUBLIC_ADDRESSES && value.and_then(PublicAddresses::parse).is_none() {
        return Err(Failure::invalid(format!("Addresses are ADDRESS or FIRST-LAST, with spaces between: attributes.value of {name}")));
    }
    Ok(())
}

/// How the actions show an attribute.
pub(crate) fn shown(api: &Api, cluster: &ClusterName, id: ContainerInstanceId, name: &str, value: Option<&str>) -> ecs::Attribute {
    ecs::Attribute {
        name: Some(name.to_owned()),
        value: value.map(str::to_owned),
        target_type: None,
        target_id: Some(api.scope().container_instance(cluster, id)),
    }
}
