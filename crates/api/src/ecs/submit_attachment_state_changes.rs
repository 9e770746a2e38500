//! `SubmitAttachmentStateChanges`: an agent's report on attachments, apart from their tasks. Late reports and those of something unknown
//! are acknowledged, as those of tasks are.

use berth_model::lifecycle::TaskObservation;
use berth_shapes::ecs::{SubmitAttachmentStateChangesRequest, SubmitAttachmentStateChangesResponse};

use super::submit_task_state_change::attached;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: SubmitAttachmentStateChangesRequest) -> Result<SubmitAttachmentStateChangesResponse, Failure> {
    api.agents_cluster(request.cluster.as_deref())?;
    let told = request.attachments.unwrap_or_default();
    let found: Vec<_> = {
        let state = api.store.state();
        let task_of = |arn: String| {
            let mut interfaces = state.vpc_resources().interfaces();
            let id = interfaces.find(|one| one.description == arn).and_then(|one| one.attachment.as_ref()?.task)?;
            // A Fargate task's cluster is another one than its agent's.
            Some((state.task(id)?.cluster.clone(), id))
        };
        let ids = told.iter().filter_map(|change| attached(api, change));
        ids.filter_map(|id| Some((task_of(api.scope().attachment(id))?, id))).collect()
    };
    for ((cluster, task), id) in found {
        api.control.observe_task(&cluster, task, &TaskObservation { attached: vec![id], ..Default::default() }).await?;
    }
    Ok(SubmitAttachmentStateChangesResponse { acknowledgment: Some("ACK".to_owned()) })
}
