//! `DeleteDaemonTaskDefinition`: no new daemon can use the revision; those that do go on, and it is DELETED when none does. Revision
//! numbers are never given again.

use berth_model::arn::DefinitionReference;
use berth_model::daemon::{self, DaemonTaskDefinition};
use berth_model::record::Key;
use berth_shapes::ecs::{DeleteDaemonTaskDefinitionRequest, DeleteDaemonTaskDefinitionResponse};

use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteDaemonTaskDefinitionRequest) -> Result<DeleteDaemonTaskDefinitionResponse, Failure> {
    let text = request.daemon_task_definition.unwrap_or_default();
    let DefinitionReference::Exact(id) = daemon::parse_definition(api.scope(), &text)? else {
        return Err(Failure::invalid(format!("You must specify a revision number: daemonTaskDefinition {text}")));
    };
    api.change(|state, transaction| {
        let entry = state.daemon_definition(&id).ok_or_else(|| Failure::client("The specified daemon task definition was not found."))?;
        if entry.delete_requested_at.is_some() {
            return Err(Failure::client("The specified daemon task definition is not ACTIVE."));
        }
        transaction.expect(Key::DaemonTaskDefinition(id.clone()), entry.modified);
        transaction.put(DaemonTaskDefinition { delete_requested_at: Some(api.now()), ..(*entry.value).clone() });
        Ok(DeleteDaemonTaskDefinitionResponse { daemon_task_definition_arn: Some(daemon::definition_arn(api.scope(), &id)) })
    })
    .await
}
