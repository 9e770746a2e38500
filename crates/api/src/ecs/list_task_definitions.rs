//! `ListTaskDefinitions`: by family, then by revision number; `familyPrefix` is the full family name.

use berth_model::task_definition::TaskDefinitionStatus;
use berth_shapes::ecs::{ListTaskDefinitionsRequest, ListTaskDefinitionsResponse};

use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListTaskDefinitionsRequest) -> Result<ListTaskDefinitionsResponse, Failure> {
    let page = Page::parse("ListTaskDefinitions", request.next_token.as_deref(), request.max_results, 100)?;
    let wanted = request.status.as_ref().map_or("ACTIVE", |status| status.as_str());
    let wanted = TaskDefinitionStatus::parse(wanted).ok_or_else(|| Failure::invalid(format!("Invalid status: {wanted}")))?;
    let descending = request.sort.as_ref().is_some_and(|sort| sort.as_str() == "DESC");
    let state = api.store.state();
    let family = request.family_prefix.as_deref();
    let matching = |id: &berth_model::ids::DefinitionId| family.is_none_or(|family| id.family.as_str() == family);
    let all = state.definitions().filter(|entry| entry.status == wanted && matching(&entry.id)).map(|entry| entry.id.clone());
    let ids: Box<dyn Iterator<Item = _>> = if descending { Box::new(all.rev()) } else { Box::new(all) };
    // Revisions compare as numbers: the token's key pads them. `\0` sorts a family before its longer namesakes, as names do.
    let key = |id: &berth_model::ids::DefinitionId| format!("{}\0{:010}", id.family, id.revision);
    let (ids, next_token) = page.take("ListTaskDefinitions", ids, key, descending);
    Ok(ListTaskDefinitionsResponse {
        task_definition_arns: Some(ids.iter().map(|id| api.scope().task_definition(id)).collect()),
        next_token,
    })
}
