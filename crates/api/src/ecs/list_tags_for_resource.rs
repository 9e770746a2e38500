//! `ListTagsForResource`.

use berth_model::tags::render_tags;
use berth_shapes::ecs::{ListTagsForResourceRequest, ListTagsForResourceResponse};

use super::tagged;
use crate::context::Api;
use crate::failure::Failure;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: ListTagsForResourceRequest) -> Result<ListTagsForResourceResponse, Failure> {
    // ResourceNotFoundException is not among this operation's errors in the model.
    let not_found = || Failure::invalid("The specified resource was not found: resourceArn");
    let resource = tagged::find(api, &api.store.state(), request.resource_arn.as_deref(), not_found)?;
    Ok(ListTagsForResourceResponse { tags: Some(render_tags(resource.tags())) })
}
