//! `ListTaskDefinitionFamilies`: by prefix; ACTIVE families have an ACTIVE revision, INACTIVE ones have none.

use berth_model::task_definition::TaskDefinitionStatus;
use berth_shapes::ecs::{ListTaskDefinitionFamiliesRequest, ListTaskDefinitionFamiliesResponse};

use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListTaskDefinitionFamiliesRequest) -> Result<ListTaskDefinitionFamiliesResponse, Failure> {
    let page = Page::parse("ListTaskDefinitionFamilies", request.next_token.as_deref(), request.max_results, 100)?;
    let status = request.status.as_ref().map_or("ACTIVE", |status| status.as_str());
    if !["ACTIVE", "INACTIVE", "ALL"].contains(&status) {
        return Err(Failure::invalid(format!("Invalid status: {status}")));
    }
    let prefix = request.family_prefix.unwrap_or_default();
    let state = api.store.state();
    let families =
        state.families().map(|counter| counter.family.clone()).filter(|family| family.as_str().starts_with(&prefix)).filter(|family| {
            let has_active = state.revisions(family).any(|entry| entry.status == TaskDefinitionStatus::Active);
            match status {
                "ACTIVE" => has_active,
                "INACTIVE" => !has_active,
                _ => true,
            }
        });
    let (families, next_token) = page.take("ListTaskDefinitionFamilies", families, ToString::to_string, false);
    Ok(ListTaskDefinitionFamiliesResponse { families: Some(families.iter().map(ToString::to_string).collect()), next_token })
}
