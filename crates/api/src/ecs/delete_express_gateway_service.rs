//! `DeleteExpressGatewayService`: DRAINING; a loop makes it INACTIVE once no task is left. The name is free again then.

use berth_model::express_service::ExpressService;
use berth_model::record::Key;
use berth_model::service::ServiceStatus;
use berth_shapes::ecs::{DeleteExpressGatewayServiceRequest, DeleteExpressGatewayServiceResponse};

use super::express_services;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteExpressGatewayServiceRequest) -> Result<DeleteExpressGatewayServiceResponse, Failure> {
    api.change(|state, transaction| {
        let entry = express_services::find_active(api, state, request.service_arn.as_deref())?;
        transaction.expect(Key::ExpressService(entry.cluster.clone(), entry.name.clone()), entry.modified);
        let service = ExpressService { status: ServiceStatus::Draining, updated_at: api.now(), ..(*entry.value).clone() };
        let shown = express_services::render(api.scope(), &service, true);
        transaction.put(service);
        Ok(DeleteExpressGatewayServiceResponse { service: Some(shown) })
    })
    .await
}
