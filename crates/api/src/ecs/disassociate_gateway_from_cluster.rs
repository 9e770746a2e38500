//! `DisassociateGatewayFromCluster`: DISASSOCIATING; a loop ends the association once the cluster has no route of the gateway.

use berth_model::cluster::Cluster;
use berth_model::gateway::AssociationStatus;
use berth_shapes::ecs::{DisassociateGatewayFromClusterRequest, DisassociateGatewayFromClusterResponse, ErrorCode};

use super::gateways;
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

pub(crate) async fn run(
    api: &Api,
    request: DisassociateGatewayFromClusterRequest,
) -> Result<DisassociateGatewayFromClusterResponse, Failure> {
    let gateway = gateways::name(api, request.gateway.as_deref())?;
    let cluster = gateways::cluster_name(api, request.cluster.as_deref())?;
    api.change(|state, transaction| {
        gateways::find(state, &gateway)?;
        let holder = active(state, &cluster)?;
        let mut associations = holder.gateways.clone();
        let known = associations.iter_mut().find(|association| association.gateway == gateway).ok_or_else(|| {
            Failure::modelled(ErrorCode::ResourceNotFound, "The specified gateway is not associated with the specified cluster.")
        })?;
        known.status = AssociationStatus::Disassociating;
        expect_cluster(transaction, holder);
        if associations != holder.gateways {
            transaction.put(Cluster { gateways: associations, ..(*holder.value).clone() });
        }
        Ok(DisassociateGatewayFromClusterResponse {
            gateway_arn: Some(api.scope().gateway(&gateway)),
            cluster_arn: Some(api.scope().cluster(&cluster)),
            status: Some(AssociationStatus::Disassociating.as_str().into()),
        })
    })
    .await
}
