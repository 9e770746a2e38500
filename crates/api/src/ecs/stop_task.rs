//! `StopTask`: writes the wish; the agent does it.

use berth_model::arn::parse_task;
use berth_model::lifecycle;
use berth_model::record::Key;
use berth_model::task::StopCode;
use berth_shapes::ecs::{StopTaskRequest, StopTaskResponse};
use berth_store::Entry;

use super::render;
use crate::context::Api;
use crate::failure::Failure;

/// Longest `reason`; ECS's reasons have 1,024 characters at most.
const MAX_REASON: usize = 1_024;

pub(crate) async fn run(api: &Api, request: StopTaskRequest) -> Result<StopTaskResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let text = request.task.unwrap_or_default();
    if text.is_empty() {
        return Err(Failure::invalid("taskId can not be blank: task"));
    }
    let id = parse_task(api.scope(), &cluster, &text)?;
    let reason = request.reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| "Task stopped by user".to_owned());
    if reason.chars().count() > MAX_REASON {
        return Err(Failure::invalid(format!("reason can have at most {MAX_REASON} characters.")));
    }
    api.change(|state, transaction| {
        let entry = state.task(id).filter(|task| task.cluster == cluster);
        let entry = entry.ok_or_else(|| Failure::invalid("The referenced task was not found."))?;
        let mut task = (*entry.value).clone();
        if !lifecycle::ask_to_stop(&mut task, StopCode::UserInitiated, &reason, api.now()) {
            return Ok(StopTaskResponse { task: Some(render::task(state, api.scope(), entry, true)) });
        }
        transaction.expect(Key::Task(id), entry.modified);
        let shown =
            Entry { value: std::sync::Arc::new(task), created: entry.created, modified: entry.modified, version: entry.version + 1 };
        transaction.put(berth_model::record::Record::Task(std::sync::Arc::clone(&shown.value)));
        Ok(StopTaskResponse { task: Some(render::task(state, api.scope(), &shown, true)) })
    })
    .await
}
