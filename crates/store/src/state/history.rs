//! Readers of services' histories. They change nothing.

use berth_model::ids::{ClusterName, ServiceName};
use berth_model::service_deployment::{ServiceDeployment, ServiceDeploymentId, ServiceRevision, ServiceRevisionId};

use super::{Entry, State};

impl State {
    /// A service revision.
    #[must_use]
    pub fn service_revision(&self, cluster: &ClusterName, service: &ServiceName, id: ServiceRevisionId) -> Option<&Entry<ServiceRevision>> {
        self.service_revisions.get(&(cluster.clone(), service.clone(), id))
    }

    /// A service's revisions, in order of their ids.
    pub fn revisions_of(&self, cluster: &ClusterName, service: &ServiceName) -> impl Iterator<Item = &Entry<ServiceRevision>> {
        let at = |id| (cluster.clone(), service.clone(), ServiceRevisionId(id));
        self.service_revisions.range(at(0)..=at(u64::MAX)).map(|(_, entry)| entry)
    }

    /// A service deployment.
    #[must_use]
    pub fn service_deployment(
        &self,
        cluster: &ClusterName,
        service: &ServiceName,
        id: ServiceDeploymentId,
    ) -> Option<&Entry<ServiceDeployment>> {
        self.service_deployments.get(&(cluster.clone(), service.clone(), id))
    }

    /// A service's deployments, in order of their ids.
    pub fn service_deployments_of(&self, cluster: &ClusterName, service: &ServiceName) -> impl Iterator<Item = &Entry<ServiceDeployment>> {
        let at = |bits| (cluster.clone(), service.clone(), ServiceDeploymentId::from_random(bits));
        self.service_deployments.range(at(0)..=at(u128::MAX)).map(|(_, entry)| entry)
    }
}
