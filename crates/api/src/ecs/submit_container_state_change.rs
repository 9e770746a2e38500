//! `SubmitContainerStateChange`: agents of today report containers inside `SubmitTaskStateChange`; older ones are acknowledged.

use berth_shapes::ecs::{SubmitContainerStateChangeRequest, SubmitContainerStateChangeResponse};

use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: SubmitContainerStateChangeRequest) -> Result<SubmitContainerStateChangeResponse, Failure> {
    api.agents_cluster(request.cluster.as_deref())?;
    Ok(SubmitContainerStateChangeResponse { acknowledgment: Some("ACK".to_owned()) })
}
