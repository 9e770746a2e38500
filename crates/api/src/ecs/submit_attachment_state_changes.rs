//! `SubmitAttachmentStateChanges`: no task has attachments yet, so any report is a late one of something unknown.

use berth_shapes::ecs::{SubmitAttachmentStateChangesRequest, SubmitAttachmentStateChangesResponse};

use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: SubmitAttachmentStateChangesRequest) -> Result<SubmitAttachmentStateChangesResponse, Failure> {
    api.active_cluster(request.cluster.as_deref())?;
    Ok(SubmitAttachmentStateChangesResponse { acknowledgment: Some("ACK".to_owned()) })
}
