//! `StopServiceDeployment`: asks for the way back to the last revision that had come out; the services loop goes it.

use berth_model::arn::parse_service_deployment;
use berth_model::record::Key;
use berth_model::service::ServiceStatus;
use berth_model::service_deployment::{ServiceDeployment, ServiceDeploymentStatus};
use berth_shapes::ecs::{ErrorCode, StopServiceDeploymentRequest, StopServiceDeploymentResponse};

use crate::context::Api;
use crate::failure::Failure;

/// `statusReason` and `rollback.reason` of what a user stopped.
const REASON: &str = "Service deployment was stopped by the user, who asked for a rollback.";

pub(crate) async fn run(api: &Api, request: StopServiceDeploymentRequest) -> Result<StopServiceDeploymentResponse, Failure> {
    let arn = request.service_deployment_arn.unwrap_or_default();
    // ABORT is in the model's enum and in no document: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopServiceDeployment.html
    if let Some(kind) = request.stop_type.as_ref().filter(|kind| kind.as_str() != "ROLLBACK") {
        return Err(Failure::invalid(format!("Invalid stopType: {}. The valid value is ROLLBACK.", kind.as_str())));
    }
    let (cluster, name, id) = parse_service_deployment(api.scope(), &arn)?;
    api.change(|state, transaction| {
        let service = state.service(&cluster, &name).filter(|service| service.status != ServiceStatus::Inactive);
        let found = service.zip(state.service_deployment(&cluster, &name, id));
        let (service, entry) = found.ok_or_else(not_found)?;
        if entry.status.is_finished() {
            let text = format!("The service deployment is {} and can no longer be stopped: serviceDeploymentArn", entry.status);
            return Err(Failure::modelled(ErrorCode::Conflict, text));
        }
        let key = Key::ServiceDeployment(cluster.clone(), name.clone(), id);
        transaction.expect(key, entry.modified);
        let answer = StopServiceDeploymentResponse { service_deployment_arn: Some(arn.clone()) };
        transaction.expect(Key::Service(cluster.clone(), name.clone()), service.modified);
        // One that already stops, for a newer one too, or goes back, continues so.
        let is_current = service.primary().is_some_and(|primary| primary.service_deployment == Some(id));
        if !is_current || !matches!(entry.status, ServiceDeploymentStatus::Pending | ServiceDeploymentStatus::InProgress) {
            return Ok(answer);
        }
        transaction.put(ServiceDeployment {
            status: ServiceDeploymentStatus::RollbackRequested,
            status_reason: Some(REASON.to_owned()),
            updated_at: api.now(),
            ..(*entry.value).clone()
        });
        Ok(answer)
    })
    .await
}

/// There is no such service deployment.
pub(crate) fn not_found() -> Failure {
    Failure::modelled(ErrorCode::ServiceDeploymentNotFound, "Service deployment not found.")
}
