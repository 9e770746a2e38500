//! `ContinueServiceDeployment`: ends a pause hook, one way or the other; the services loop goes on from there.

use berth_model::arn::parse_service_deployment;
use berth_model::record::Key;
use berth_model::rollout::{HookKind, HookStatus};
use berth_model::service::ServiceStatus;
use berth_shapes::ecs::{ContinueServiceDeploymentRequest, ContinueServiceDeploymentResponse};

use super::stop_service_deployment::not_found;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: ContinueServiceDeploymentRequest) -> Result<ContinueServiceDeploymentResponse, Failure> {
    let hook = request.hook_id.unwrap_or_default();
    if hook.is_empty() {
        return Err(Failure::invalid("hookId cannot be empty."));
    }
    let goes_back = request.action.as_ref().is_some_and(|action| action.as_str() == "ROLLBACK");
    let arn = request.service_deployment_arn.unwrap_or_default();
    let (cluster, name, id) = parse_service_deployment(api.scope(), &arn)?;
    api.change(|state, transaction| {
        let service = state.service(&cluster, &name).filter(|service| service.status != ServiceStatus::Inactive);
        let (service, entry) = service.zip(state.service_deployment(&cluster, &name, id)).ok_or_else(not_found)?;
        let mut next = (*entry.value).clone();
        let is_current = service.primary().is_some_and(|primary| primary.service_deployment == Some(id));
        let awaits = |kind, status| kind == HookKind::Pause && status == HookStatus::AwaitingAction;
        let run = next.rollout.iter_mut().flat_map(|rollout| &mut rollout.hooks).find(|run| run.id == hook && awaits(run.kind, run.status));
        let Some(run) = run.filter(|_| is_current) else {
            let hook: String = hook.chars().take(256).collect();
            return Err(Failure::invalid(format!("The lifecycle hook {hook} is not in the AWAITING_ACTION status: hookId")));
        };
        if goes_back {
            run.close(HookStatus::Failed, Some(format!("A rollback was asked for at lifecycle hook {hook}.")));
        } else {
            run.close(HookStatus::Succeeded, None);
        }
        next.updated_at = api.now();
        transaction.expect(Key::ServiceDeployment(cluster.clone(), name.clone(), id), entry.modified);
        transaction.expect(Key::Service(cluster.clone(), name.clone()), service.modified);
        transaction.put(next);
        Ok(ContinueServiceDeploymentResponse { service_deployment_arn: Some(arn.clone()) })
    })
    .await
}
