//! `UpdateGateway`: answers UPDATE_IN_PROGRESS; the loop that would bring the change to the load balancers ends it.

use berth_model::gateway::{Gateway, GatewayStatus};
use berth_model::record::Key;
use berth_shapes::ecs::{UpdateGatewayRequest, UpdateGatewayResponse};

use super::{aws_references, gateways};
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateGatewayRequest) -> Result<UpdateGatewayResponse, Failure> {
    let name = gateways::name(api, request.gateway.as_deref())?;
    let role = request.infrastructure_role_arn.as_deref().map(|role| aws_references::role("infrastructureRoleArn", role)).transpose()?;
    let propagate_tags = request.propagate_tags.as_ref().map(|from| from.as_str() != "NONE");
    api.change(|state, transaction| {
        let entry = gateways::find(state, &name)?;
        let mut gateway = Gateway { status: GatewayStatus::UpdateInProgress, updated_at: api.now(), ..(*entry.value).clone() };
        if let Some(configuration) = request.configuration.clone() {
            gateway.host_shared_alb = gateways::changed(&gateway.host_shared_alb, configuration)?;
        }
        if let Some(role) = role.clone() {
            gateway.infrastructure_role_arn = role;
        }
        gateway.deletion_protection = request.deletion_protection.unwrap_or(gateway.deletion_protection);
        gateway.propagate_tags = propagate_tags.unwrap_or(gateway.propagate_tags);
        transaction.expect(Key::Gateway(name.clone()), entry.modified);
        transaction.put(gateway);
        Ok(UpdateGatewayResponse {
            gateway_arn: Some(api.scope().gateway(&name)),
            name: Some(name.to_string()),
            status: Some(GatewayStatus::UpdateInProgress.as_str().into()),
        })
    })
    .await
}
