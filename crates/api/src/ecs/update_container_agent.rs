//! `UpdateContainerAgent`: ECS updates the agent on its own machine images. Berth's agent is the same program as its server and comes with
//! it, so there is never another one to update to.

use berth_model::arn::parse_container_instance;
use berth_model::container_instance::ContainerInstanceStatus;
use berth_shapes::ecs::{ErrorCode, UpdateContainerAgentRequest, UpdateContainerAgentResponse};

use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateContainerAgentRequest) -> Result<UpdateContainerAgentResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let id = parse_container_instance(api.scope(), &cluster, request.container_instance.as_deref().unwrap_or_default())?;
    let state = api.store.state();
    let known = state.instance(id).filter(|i| i.cluster == cluster && i.status != ContainerInstanceStatus::Inactive);
    let entry = known.ok_or_else(|| Failure::invalid("The referenced container instance was not found: containerInstance"))?;
    if entry.agent.agent_version.is_none() {
        let text = "The container agent's version cannot be determined: it has not connected yet.";
        return Err(Failure::modelled(ErrorCode::MissingVersion, text));
    }
    Err(Failure::modelled(ErrorCode::NoUpdateAvailable, "There is no update available for your container agent."))
}
