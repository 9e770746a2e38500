//! `DescribeDaemonTaskDefinition`: by family (its newest ACTIVE revision), `family:revision` or ARN.

use berth_model::daemon;
use berth_model::time::UnixMillis;
use berth_shapes::ecs::{DaemonTaskDefinition, DescribeDaemonTaskDefinitionRequest, DescribeDaemonTaskDefinitionResponse};

use super::daemons::find_definition;
use crate::context::Api;
use crate::failure::Failure;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: DescribeDaemonTaskDefinitionRequest) -> Result<DescribeDaemonTaskDefinitionResponse, Failure> {
    let state = api.store.state();
    let found = find_definition(api, &state, request.daemon_task_definition.as_deref().unwrap_or_default())?;
    let entry = found.ok_or_else(|| Failure::client("Unable to describe daemon task definition."))?;
    let shown = DaemonTaskDefinition {
        daemon_task_definition_arn: Some(daemon::definition_arn(api.scope(), &entry.id)),
        revision: Some(i32::try_from(entry.id.revision).unwrap_or(i32::MAX)),
        status: Some(entry.status(state.is_run_by_daemon(&entry.id)).as_str().into()),
        registered_at: Some(entry.registered_at.to_wire()),
        registered_by: Some(entry.registered_by.clone()),
        delete_requested_at: entry.delete_requested_at.map(UnixMillis::to_wire),
        ..entry.document.clone()
    };
    Ok(DescribeDaemonTaskDefinitionResponse { daemon_task_definition: Some(shown) })
}
