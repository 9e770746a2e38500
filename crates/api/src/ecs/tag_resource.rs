//! `TagResource`: adds tags; equal keys take the new value.

use berth_model::tags::{merge_tags, parse_tags};
use berth_shapes::ecs::{TagResourceRequest, TagResourceResponse};

use super::tagged;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: TagResourceRequest) -> Result<TagResourceResponse, Failure> {
    let added = parse_tags(request.tags.as_deref())?;
    api.change(|state, transaction| {
        let resource = tagged::find(api, state, request.resource_arn.as_deref(), tagged::not_found)?;
        let mut tags = resource.tags().clone();
        merge_tags(&mut tags, added.clone())?;
        if tags != *resource.tags() {
            transaction.expect(resource.key.clone(), resource.modified);
            transaction.put(resource.with(tags));
        }
        Ok(TagResourceResponse::default())
    })
    .await
}
