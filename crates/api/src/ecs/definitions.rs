//! Finding the task definition that a request means.

use std::sync::Arc;

use berth_model::arn::{DefinitionReference, parse_task_definition};
use berth_model::task_definition::{TaskDefinition, TaskDefinitionStatus};
use berth_store::{Entry, State};

use crate::context::Api;
use crate::failure::Failure;

/// The revision that `family`, `family:revision` or an ARN names; a family means its newest ACTIVE one.
pub(crate) fn find<'a>(api: &Api, state: &'a State, text: &str) -> Result<Option<&'a Entry<TaskDefinition>>, Failure> {
    Ok(match parse_task_definition(api.scope(), text)? {
        DefinitionReference::Latest(family) => state.latest_active(&family),
        DefinitionReference::Exact(id) => state.definition(&id),
    })
}

/// The ACTIVE revision to start tasks of.
pub(crate) fn usable(api: &Api, state: &State, text: Option<&str>) -> Result<Arc<TaskDefinition>, Failure> {
    let text = text.filter(|text| !text.is_empty()).ok_or_else(|| Failure::client("TaskDefinition can not be blank."))?;
    let entry = find(api, state, text)?.ok_or_else(|| Failure::client("TaskDefinition not found."))?;
    if entry.status != TaskDefinitionStatus::Active {
        return Err(Failure::client("TaskDefinition is inactive"));
    }
    Ok(Arc::clone(&entry.value))
}
