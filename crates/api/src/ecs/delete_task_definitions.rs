//! `DeleteTaskDefinitions`: INACTIVE revisions become DELETE_IN_PROGRESS, and are gone once no task and no deployment uses them. Revision
//! numbers are never given again.

use berth_model::arn::{DefinitionReference, parse_task_definition};
use berth_model::record::Key;
use berth_model::task_definition::{TaskDefinition, TaskDefinitionStatus};
use berth_shapes::ecs::{DeleteTaskDefinitionsRequest, DeleteTaskDefinitionsResponse, Failure as Failed};

use crate::context::Api;
use crate::failure::Failure;

/// Most revisions in one request.
const MOST: usize = 10;

pub(crate) async fn run(api: &Api, request: DeleteTaskDefinitionsRequest) -> Result<DeleteTaskDefinitionsResponse, Failure> {
    let named = request.task_definitions.unwrap_or_default();
    if !(1..=MOST).contains(&named.len()) {
        return Err(Failure::invalid(format!("A request has 1 to {MOST} task definitions: taskDefinitions")));
    }
    let mut ids = Vec::new();
    for text in &named {
        let DefinitionReference::Exact(id) = parse_task_definition(api.scope(), text)? else {
            return Err(Failure::invalid(format!("You must specify a revision number: taskDefinitions {text}")));
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    api.change(|state, transaction| {
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for id in &ids {
            let mut fail = |reason: &str, detail: &str| {
                failures.push(Failed {
                    arn: Some(api.scope().task_definition(id)),
                    reason: Some(reason.to_owned()),
                    detail: Some(detail.to_owned()),
                });
            };
            // The words for these are [K]: AWS documents that they are failures, not what they say.
            let Some(entry) = state.definition(id) else {
                fail("TASK_DEFINITION_NOT_FOUND", "The specified task definition does not exist.");
                continue;
            };
            match entry.status {
                TaskDefinitionStatus::Active => {
                    let text = "The specified task definition is still in ACTIVE status. Please deregister the target and try again.";
                    fail("TASK_DEFINITION_ACTIVE", text);
                }
                TaskDefinitionStatus::DeleteInProgress => deleted.push(entry.render(api.scope())),
                TaskDefinitionStatus::Inactive => {
                    let definition = TaskDefinition {
                        status: TaskDefinitionStatus::DeleteInProgress,
                        delete_requested_at: Some(api.now()),
                        ..(*entry.value).clone()
                    };
                    transaction.expect(Key::TaskDefinition(id.clone()), entry.modified);
                    deleted.push(definition.render(api.scope()));
                    transaction.put(definition);
                }
            }
        }
        Ok(DeleteTaskDefinitionsResponse { task_definitions: Some(deleted), failures: Some(failures) })
    })
    .await
}
