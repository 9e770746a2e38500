//! `ListAttributes`: one item for each attribute of each container instance, ECS's own ones too.

use berth_model::container_instance::{ContainerInstanceStatus, FARGATE};
use berth_shapes::ecs::{ListAttributesRequest, ListAttributesResponse};

use super::attributes::shown;
use crate::context::{Api, active};
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListAttributesRequest) -> Result<ListAttributesResponse, Failure> {
    let cluster = api.cluster_name(request.cluster.as_deref())?;
    let page = Page::parse("ListAttributes", request.next_token.as_deref(), request.max_results, 100)?;
    let (name, value) = (request.attribute_name.as_deref(), request.attribute_value.as_deref());
    if value.is_some() && name.is_none() {
        return Err(Failure::invalid("attributeValue needs an attributeName beside it: attributeValue"));
    }
    let state = api.store.state();
    active(&state, &cluster)?;
    let instances = state.instances_of(&cluster).filter(|instance| instance.status != ContainerInstanceStatus::Inactive);
    let all = instances.flat_map(|instance| {
        let id = instance.id;
        instance.attributes.iter().map(move |(name, value)| (id, name.as_str(), value.as_deref()))
    });
    let meant = all
        .filter(|(_, own, _)| *own != FARGATE)
        .filter(|(_, own, set)| name.is_none_or(|name| name == *own) && value.is_none_or(|value| *set == Some(value)));
    // Ids have a fixed length, so this orders as the list does.
    let (taken, next_token) = page.take("ListAttributes", meant, |(id, name, _)| format!("{id} {name}"), false);
    let attributes = taken.into_iter().map(|(id, name, value)| shown(api, &cluster, id, name, value)).collect();
    Ok(ListAttributesResponse { attributes: Some(attributes), next_token })
}
