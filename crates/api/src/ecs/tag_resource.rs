//! `TagResource`: adds tags; equal keys take the new value.

use berth_model::tags::{merge_tags, parse_tags};
use berth_shapes::ecs::{ErrorCode, TagResourceRequest, TagResourceResponse};

use super::tagged;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: TagResourceRequest) -> Result<TagResourceResponse, Failure> {
    let added = parse_tags(request.tags.as_deref())?;
    api.change(|state, transaction| {
        let resource = tagged::find(api, state, request.resource_arn.as_deref(), tagged::not_found)?;
        let mut tags = resource.tags().clone();
        // Tags that are too many in themselves are a wrong parameter; here it is what the resource has already.
        merge_tags(&mut tags, added.clone()).map_err(|error| {
            Failure::modelled(ErrorCode::LimitExceeded, error.to_string().trim_end_matches('.').to_owned() + ": resourceArn")
        })?;
        if tags != *resource.tags() {
            transaction.expect(resource.key.clone(), resource.modified);
            transaction.put(resource.with(tags));
        }
        Ok(TagResourceResponse::default())
    })
    .await
}
