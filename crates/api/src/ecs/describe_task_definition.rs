//! `DescribeTaskDefinition`: tags stand beside the definition, never inside.

use berth_model::tags::render_tags;
use berth_shapes::ecs::{DescribeTaskDefinitionRequest, DescribeTaskDefinitionResponse};

use super::definitions;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DescribeTaskDefinitionRequest) -> Result<DescribeTaskDefinitionResponse, Failure> {
    let state = api.store.state();
    let text = request.task_definition.as_deref().unwrap_or_default();
    let entry = definitions::find(api, &state, text)?.ok_or_else(|| Failure::client("Unable to describe task definition."))?;
    let with_tags = request.include.iter().flatten().any(|part| part.as_str() == "TAGS");
    Ok(DescribeTaskDefinitionResponse {
        task_definition: Some(entry.render(api.scope())),
        tags: with_tags.then(|| render_tags(&entry.tags)),
    })
}
