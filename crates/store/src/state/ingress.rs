//! What readers ask of gateways and Express services.

use berth_model::express_service::ExpressService;
use berth_model::gateway::Gateway;
use berth_model::ids::{ClusterName, GatewayName, ServiceName};

use super::{Entry, State};

impl State {
    /// A gateway.
    #[must_use]
    pub fn gateway(&self, name: &GatewayName) -> Option<&Entry<Gateway>> {
        self.gateways.get(name)
    }

    /// All gateways by name.
    pub fn gateways(&self) -> impl ExactSizeIterator<Item = &Entry<Gateway>> {
        self.gateways.values()
    }

    /// An Express service, INACTIVE ones too.
    #[must_use]
    pub fn express_service(&self, cluster: &ClusterName, name: &ServiceName) -> Option<&Entry<ExpressService>> {
        self.express_services.get(&(cluster.clone(), name.clone()))
    }

    /// The Express services of a cluster by name.
    pub fn express_services_of(&self, cluster: &ClusterName) -> impl Iterator<Item = &Entry<ExpressService>> {
        self.express_services
            .range((cluster.clone(), ServiceName("".into()))..)
            .take_while({
                let cluster = cluster.clone();
                move |((of, _), _)| *of == cluster
            })
            .map(|(_, entry)| entry)
    }

    /// All Express services.
    pub fn express_services(&self) -> impl Iterator<Item = &Entry<ExpressService>> {
        self.express_services.values()
    }
}
