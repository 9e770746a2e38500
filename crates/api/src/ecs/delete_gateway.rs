//! `DeleteGateway`: synchronous; refused while it is protected or associated with a cluster. Then it is gone.

use berth_model::record::Key;
use berth_shapes::ecs::{DeleteGatewayRequest, DeleteGatewayResponse};

use super::gateways;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteGatewayRequest) -> Result<DeleteGatewayResponse, Failure> {
    let name = gateways::name(api, request.gateway.as_deref())?;
    api.change(|state, transaction| {
        let entry = gateways::find(state, &name)?;
        if entry.deletion_protection {
            return Err(Failure::client(
                "The gateway cannot be deleted while deletion protection is enabled. Disable it with UpdateGateway: deletionProtection",
            ));
        }
        let associated = state.clusters().find(|cluster| cluster.gateways.iter().any(|association| association.gateway == name));
        if let Some(cluster) = associated {
            let text = "The gateway cannot be deleted because it is associated with cluster";
            return Err(Failure::client(format!(
                "{text}: {}. Disassociate all clusters and try again.",
                api.scope().cluster(&cluster.name)
            )));
        }
        // AssociateGatewayWithCluster touches the gateway, so none can come between.
        transaction.expect(Key::Gateway(name.clone()), entry.modified);
        transaction.delete(Key::Gateway(name.clone()));
        Ok(DeleteGatewayResponse {
            gateway_arn: Some(api.scope().gateway(&name)),
            name: Some(name.to_string()),
            status: Some("DELETED".into()),
        })
    })
    .await
}
