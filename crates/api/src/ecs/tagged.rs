//! The resource that a tag request names, read and written back as a record.

use berth_model::arn::{Resource, parse_resource};
use berth_model::ids::DeploymentId;
use berth_model::record::{Key, Record};
use berth_model::tags::Tags;
use berth_shapes::ecs::ErrorCode;
use berth_store::{Revision, State};

use crate::context::Api;
use crate::failure::Failure;

/// A resource with its tags.
pub(crate) struct Tagged {
    pub(crate) key: Key,
    pub(crate) modified: Revision,
    record: Record,
    /// The task set of the record, a service, that is meant.
    task_set: Option<DeploymentId>,
}

/// What TagResource and UntagResource answer of a resource that is not there.
pub(crate) fn not_found() -> Failure {
    Failure::modelled(ErrorCode::ResourceNotFound, "The specified resource was not found: resourceArn")
}

/// Finds the resource of an ARN; `not_found` is the operation's own error, for everything but clusters.
pub(crate) fn find(api: &Api, state: &State, arn: Option<&str>, not_found: impl Fn() -> Failure) -> Result<Tagged, Failure> {
    let arn = arn.unwrap_or_default();
    let resource = parse_resource(api.scope(), arn)
        .map_err(|error| Failure::invalid(format!("{error} resourceArn: '{}'", arn.chars().take(256).collect::<String>())))?;
    let record = match &resource {
        Resource::Cluster(name) => state.cluster(name).map(|e| Record::Cluster(e.value.clone())),
        Resource::TaskDefinition(id) => state.definition(id).map(|e| Record::TaskDefinition(e.value.clone())),
        Resource::Task(cluster, id) => state.task(*id).filter(|e| e.cluster == *cluster).map(|e| Record::Task(e.value.clone())),
        Resource::Service(cluster, name) => {
            let express = || state.express_service(cluster, name).map(|e| Record::ExpressService(e.value.clone()));
            state.service(cluster, name).map(|e| Record::Service(e.value.clone())).or_else(express)
        }
        Resource::Gateway(name) => state.gateway(name).map(|e| Record::Gateway(e.value.clone())),
        Resource::TaskSet(cluster, name, id) => {
            state.service(cluster, name).filter(|e| e.task_sets.iter().any(|set| set.id == *id)).map(|e| Record::Service(e.value.clone()))
        }
        Resource::ContainerInstance(cluster, id) => {
            state.instance(*id).filter(|e| e.cluster == *cluster).map(|e| Record::ContainerInstance(e.value.clone()))
        }
        Resource::CapacityProvider(name) => {
            state.capacity_provider(name).filter(|e| e.is_active()).map(|e| Record::CapacityProvider(e.value.clone()))
        }
        Resource::Daemon(cluster, name) => state.daemon(cluster, name).filter(|e| e.is_active()).map(|e| Record::Daemon(e.value.clone())),
        Resource::DaemonTaskDefinition(id) => state.daemon_definition(id).map(|e| Record::DaemonTaskDefinition(e.value.clone())),
    };
    let not_found = || match &resource {
        Resource::Cluster(_) => Failure::cluster_not_found(),
        _ => not_found(),
    };
    let record = record.ok_or_else(not_found)?;
    let key = record.key();
    let modified = state.modified(&key).ok_or_else(not_found)?;
    let task_set = if let Resource::TaskSet(_, _, id) = resource { Some(id) } else { None };
    Ok(Tagged { key, modified, record, task_set })
}

impl Tagged {
    /// Its tags.
    pub(crate) fn tags(&self) -> &Tags {
        match &self.record {
            Record::Cluster(noun) => &noun.tags,
            Record::TaskDefinition(noun) => &noun.tags,
            Record::Task(noun) => &noun.tags,
            Record::Service(noun) => {
                let set = self.task_set.and_then(|id| noun.task_sets.iter().find(|set| set.id == id));
                set.map_or(&noun.tags, |set| &set.tags)
            }
            Record::ContainerInstance(noun) => &noun.tags,
            Record::Gateway(noun) => &noun.tags,
            Record::ExpressService(noun) => &noun.tags,
            Record::CapacityProvider(noun) => &noun.tags,
            Record::Daemon(noun) => &noun.tags,
            Record::DaemonTaskDefinition(noun) => &noun.tags,
            Record::Family(_)
            | Record::DaemonFamily(_)
            | Record::ServiceEvent(_)
            | Record::AccountSetting(_)
            | Record::ServiceRevision(_)
            | Record::Alarm(_)
            | Record::Namespace(_)
            | Record::DiscoveryService(_)
            | Record::DiscoveryInstance(_)
            | Record::DiscoveryOperation(_)
            | Record::VpcResource(_)
            | Record::ServiceDeployment(_) => {
                unreachable!("no ARN names these")
            }
        }
    }

    /// The record with other tags.
    pub(crate) fn with(self, tags: Tags) -> Record {
        fn own<T: Clone>(noun: std::sync::Arc<T>) -> T {
            std::sync::Arc::unwrap_or_clone(noun)
        }
        match self.record {
            Record::Cluster(noun) => berth_model::cluster::Cluster { tags, ..own(noun) }.into(),
            Record::TaskDefinition(noun) => berth_model::task_definition::TaskDefinition { tags, ..own(noun) }.into(),
            Record::Task(noun) => berth_model::task::Task { tags, ..own(noun) }.into(),
            Record::Service(noun) => {
                let mut service = own(noun);
                match service.task_sets.iter_mut().find(|set| Some(set.id) == self.task_set) {
                    Some(set) => set.tags = tags,
                    None => service.tags = tags,
                }
                service.into()
            }
            Record::ContainerInstance(noun) => berth_model::container_instance::ContainerInstance { tags, ..own(noun) }.into(),
            Record::Gateway(noun) => berth_model::gateway::Gateway { tags, ..own(noun) }.into(),
            Record::ExpressService(noun) => berth_model::express_service::ExpressService { tags, ..own(noun) }.into(),
            Record::CapacityProvider(noun) => berth_model::capacity_provider::CapacityProvider { tags, ..own(noun) }.into(),
            Record::Daemon(noun) => berth_model::daemon::Daemon { tags, ..own(noun) }.into(),
            Record::DaemonTaskDefinition(noun) => berth_model::daemon::DaemonTaskDefinition { tags, ..own(noun) }.into(),
            other @ (Record::Family(_)
            | Record::DaemonFamily(_)
            | Record::ServiceEvent(_)
            | Record::AccountSetting(_)
            | Record::ServiceRevision(_)
            | Record::Alarm(_)
            | Record::Namespace(_)
            | Record::DiscoveryService(_)
            | Record::DiscoveryInstance(_)
            | Record::DiscoveryOperation(_)
            | Record::VpcResource(_)
            | Record::ServiceDeployment(_)) => other,
        }
    }
}
