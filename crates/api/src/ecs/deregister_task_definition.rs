//! `DeregisterTaskDefinition`: what runs goes on; new tasks and services are refused at once (AWS may lag, Berth does not).

use berth_model::arn::{DefinitionReference, parse_task_definition};
use berth_model::record::Key;
use berth_model::task_definition::{TaskDefinition, TaskDefinitionStatus};
use berth_shapes::ecs::{DeregisterTaskDefinitionRequest, DeregisterTaskDefinitionResponse};

use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeregisterTaskDefinitionRequest) -> Result<DeregisterTaskDefinitionResponse, Failure> {
    let text = request.task_definition.unwrap_or_default();
    let DefinitionReference::Exact(id) = parse_task_definition(api.scope(), &text)? else {
        return Err(Failure::invalid("You must specify a revision number: taskDefinition"));
    };
    api.change(|state, transaction| {
        let entry = state.definition(&id).ok_or_else(|| Failure::client("The specified task definition does not exist."))?;
        if entry.status != TaskDefinitionStatus::Active {
            return Err(Failure::client("The specified task definition is inactive. Specify an active task definition and try again."));
        }
        let inactive =
            TaskDefinition { status: TaskDefinitionStatus::Inactive, deregistered_at: Some(api.now()), ..(*entry.value).clone() };
        transaction.expect(Key::TaskDefinition(id.clone()), entry.modified);
        let shown = inactive.render(api.scope());
        transaction.put(inactive);
        Ok(DeregisterTaskDefinitionResponse { task_definition: Some(shown) })
    })
    .await
}
