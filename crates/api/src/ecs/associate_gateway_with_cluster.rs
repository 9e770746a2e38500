//! `AssociateGatewayWithCluster`: from then on the cluster's services may use the gateway.

use berth_model::cluster::Cluster;
use berth_model::gateway::{Association, AssociationStatus, MAX_GATEWAYS_OF_CLUSTER};
use berth_model::record::Key;
use berth_shapes::ecs::{AssociateGatewayWithClusterRequest, AssociateGatewayWithClusterResponse};

use super::gateways;
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: AssociateGatewayWithClusterRequest) -> Result<AssociateGatewayWithClusterResponse, Failure> {
    let gateway = gateways::name(api, request.gateway.as_deref())?;
    let cluster = gateways::cluster_name(api, request.cluster.as_deref())?;
    api.change(|state, transaction| {
        let entry = gateways::find(state, &gateway)?;
        let holder = active(state, &cluster)?;
        let mut associations = holder.gateways.clone();
        if let Some(known) = associations.iter_mut().find(|association| association.gateway == gateway) {
            // Also one that was about to end: nothing of it is gone yet.
            known.status = AssociationStatus::Active;
        } else if associations.len() < MAX_GATEWAYS_OF_CLUSTER {
            associations.push(Association { gateway: gateway.clone(), status: AssociationStatus::Active });
        } else {
            return Err(Failure::client(format!(
                "A cluster can be associated with at most {MAX_GATEWAYS_OF_CLUSTER} gateways: {}",
                api.scope().cluster(&cluster)
            )));
        }
        associations.sort_by(|one, other| one.gateway.cmp(&other.gateway));
        transaction.expect(Key::Gateway(gateway.clone()), entry.modified);
        expect_cluster(transaction, holder);
        if associations != holder.gateways {
            // A deletion of the gateway that is under way must notice, although the gateway's record stays as it is.
            transaction.touch(Key::Gateway(gateway.clone()));
            transaction.put(Cluster { gateways: associations, ..(*holder.value).clone() });
        }
        Ok(AssociateGatewayWithClusterResponse {
            gateway_arn: Some(api.scope().gateway(&gateway)),
            cluster_arn: Some(api.scope().cluster(&cluster)),
            status: Some(AssociationStatus::Active.as_str().into()),
        })
    })
    .await
}
