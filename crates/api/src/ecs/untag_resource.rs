//! `UntagResource`: removes tags; keys that are not there are no error.

use berth_shapes::ecs::{UntagResourceRequest, UntagResourceResponse};

use super::tagged;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UntagResourceRequest) -> Result<UntagResourceResponse, Failure> {
    let keys = request.tag_keys.unwrap_or_default();
    api.change(|state, transaction| {
        let resource = tagged::find(api, state, request.resource_arn.as_deref(), tagged::not_found)?;
        let mut tags = resource.tags().clone();
        tags.retain(|key, _| !keys.contains(key));
        if tags != *resource.tags() {
            transaction.expect(resource.key.clone(), resource.modified);
            transaction.put(resource.with(tags));
        }
        Ok(UntagResourceResponse::default())
    })
    .await
}
