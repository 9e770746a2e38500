//! `DeleteService`: DRAINING while its tasks end, then INACTIVE; the name is free again then.

use berth_model::record::Key;
use berth_model::service::{Service, ServiceStatus};
use berth_shapes::ecs::{DeleteServiceRequest, DeleteServiceResponse};

use super::{render, service_settings};
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteServiceRequest) -> Result<DeleteServiceResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let text = request.service.unwrap_or_default();
    let force = request.force == Some(true);
    api.change(|state, transaction| {
        let entry = service_settings::find(api, state, &cluster, &text)?.filter(|service| service.status != ServiceStatus::Inactive);
        let entry = entry.ok_or_else(Failure::service_not_found)?;
        transaction.expect(Key::Service(cluster.clone(), entry.name.clone()), entry.modified);
        if entry.status == ServiceStatus::Draining {
            return Ok(DeleteServiceResponse { service: Some(render::service(state, api.scope(), entry, true)) });
        }
        // What a DAEMON service has nobody could have scaled down.
        if entry.desired_count > 0 && !entry.is_daemon() && !force {
            return Err(Failure::invalid("The service cannot be stopped while it is scaled above 0."));
        }
        if !entry.task_sets.is_empty() && !force {
            return Err(Failure::invalid("The service cannot be stopped while deployments are active."));
        }
        let service = Service { status: ServiceStatus::Draining, desired_count: 0, ..(*entry.value).clone() };
        let shown = render::service(state, api.scope(), &service, true);
        transaction.put(service);
        Ok(DeleteServiceResponse { service: Some(shown) })
    })
    .await
}
