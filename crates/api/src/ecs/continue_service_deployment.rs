//! `ContinueServiceDeployment`: there are no lifecycle hooks that pause yet, so no hook ever waits for it.

use berth_model::arn::parse_service_deployment;
use berth_model::service::ServiceStatus;
use berth_shapes::ecs::{ContinueServiceDeploymentRequest, ContinueServiceDeploymentResponse};

use super::stop_service_deployment::not_found;
use crate::context::Api;
use crate::failure::Failure;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: ContinueServiceDeploymentRequest) -> Result<ContinueServiceDeploymentResponse, Failure> {
    let hook = request.hook_id.unwrap_or_default();
    if hook.is_empty() {
        return Err(Failure::invalid("hookId cannot be empty."));
    }
    let (cluster, name, id) = parse_service_deployment(api.scope(), &request.service_deployment_arn.unwrap_or_default())?;
    let state = api.store.state();
    let is_there = state.service(&cluster, &name).is_some_and(|service| service.status != ServiceStatus::Inactive);
    state.service_deployment(&cluster, &name, id).filter(|_| is_there).ok_or_else(not_found)?;
    let hook: String = hook.chars().take(256).collect();
    Err(Failure::invalid(format!("The lifecycle hook {hook} is not in the AWAITING_ACTION status: hookId")))
}
