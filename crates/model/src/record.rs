//! Everything the store keeps: one record per noun, addressed by a key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account_setting::AccountSetting;
use crate::alarm::Alarm;
use crate::capacity_provider::CapacityProvider;
use crate::cluster::Cluster;
use crate::container_instance::ContainerInstance;
use crate::daemon::{Daemon, DaemonTaskDefinition};
use crate::discovery::{DiscoveryInstance, DiscoveryService, DiscoveryServiceId};
use crate::express_service::ExpressService;
use crate::gateway::Gateway;
use crate::ids::{
    CapacityProviderName, ClusterName, ContainerInstanceId, DaemonName, DefinitionId, Family, GatewayName, ServiceName, TaskId,
};
use crate::namespace::{Namespace, NamespaceId, Operation, OperationId};
use crate::service::{Service, ServiceEvent};
use crate::service_deployment::{ServiceDeployment, ServiceDeploymentId, ServiceRevision, ServiceRevisionId};
use crate::task::Task;
use crate::task_definition::{FamilyCounter, TaskDefinition};
use crate::vpc::{Resource, ResourceId};

/// The address of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A cluster.
    Cluster(ClusterName),
    /// A family's counter.
    Family(Family),
    /// A task definition's revision.
    TaskDefinition(DefinitionId),
    /// A task.
    Task(TaskId),
    /// A service.
    Service(ClusterName, ServiceName),
    /// A service's event.
    ServiceEvent(ClusterName, ServiceName, u64),
    /// A service revision.
    ServiceRevision(ClusterName, ServiceName, ServiceRevisionId),
    /// A service deployment.
    ServiceDeployment(ClusterName, ServiceName, ServiceDeploymentId),
    /// A container instance.
    ContainerInstance(ContainerInstanceId),
    /// A capacity provider.
    CapacityProvider(CapacityProviderName),
    /// A daemon.
    Daemon(ClusterName, DaemonName),
    /// The counter of a family of daemon task definitions.
    DaemonFamily(Family),
    /// A daemon task definition's revision.
    DaemonTaskDefinition(DefinitionId),
    /// An account setting: its name and its principal's ARN.
    AccountSetting(String, String),
    /// A gateway.
    Gateway(GatewayName),
    /// An Express service.
    ExpressService(ClusterName, ServiceName),
    /// An alarm.
    Alarm(String),
    /// A namespace.
    Namespace(NamespaceId),
    /// A Cloud Map service.
    DiscoveryService(DiscoveryServiceId),
    /// An instance of a Cloud Map service.
    DiscoveryInstance(DiscoveryServiceId, String),
    /// An operation of Cloud Map's.
    DiscoveryOperation(OperationId),
    /// A resource of the VPC model.
    VpcResource(ResourceId),
}

impl fmt::Display for Key {
    /// The key's text in the backends: a path whose first part is the kind. Names cannot hold `/`, so it is unambiguous.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "cluster/{name}"),
            Self::Family(family) => write!(f, "family/{family}"),
            Self::TaskDefinition(id) => write!(f, "task-definition/{id}"),
            Self::Task(id) => write!(f, "task/{id}"),
            Self::Service(cluster, name) => write!(f, "service/{cluster}/{name}"),
            Self::ServiceEvent(cluster, name, number) => write!(f, "service-event/{cluster}/{name}/{number:020}"),
            Self::ServiceRevision(cluster, name, id) => write!(f, "service-revision/{cluster}/{name}/{id}"),
            Self::ServiceDeployment(cluster, name, id) => write!(f, "service-deployment/{cluster}/{name}/{id}"),
            Self::ContainerInstance(id) => write!(f, "container-instance/{id}"),
            Self::CapacityProvider(name) => write!(f, "capacity-provider/{name}"),
            Self::Daemon(cluster, name) => write!(f, "daemon/{cluster}/{name}"),
            Self::DaemonFamily(family) => write!(f, "daemon-family/{family}"),
            Self::DaemonTaskDefinition(id) => write!(f, "daemon-task-definition/{id}"),
            Self::AccountSetting(name, principal) => write!(f, "account-setting/{name}/{principal}"),
            Self::Gateway(name) => write!(f, "gateway/{name}"),
            Self::ExpressService(cluster, name) => write!(f, "express-service/{cluster}/{name}"),
            Self::Alarm(name) => write!(f, "alarm/{name}"),
            Self::Namespace(id) => write!(f, "namespace/{id}"),
            Self::DiscoveryService(id) => write!(f, "discovery-service/{id}"),
            Self::DiscoveryInstance(service, id) => write!(f, "discovery-instance/{service}/{id}"),
            Self::DiscoveryOperation(id) => write!(f, "discovery-operation/{id}"),
            Self::VpcResource(id) => write!(f, "vpc-resource/{id}"),
        }
    }
}

/// The text is not a key's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the key of a record")]
pub struct KeyError(pub String);

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let parts: Vec<&str> = text.split('/').collect();
        let key = match parts[..] {
            ["cluster", name] => ClusterName::parse(name).map(Self::Cluster),
            ["family", family] => Family::parse(family).map(Self::Family),
            ["task-definition", id] => definition(id).map(Self::TaskDefinition),
            ["task", id] => id.parse().ok().map(Self::Task),
            ["service", cluster, name] => {
                ClusterName::parse(cluster).and_then(|cluster| Some(Self::Service(cluster, ServiceName::parse(name)?)))
            }
            ["service-event", cluster, name, number] => ClusterName::parse(cluster)
                .and_then(|cluster| Some(Self::ServiceEvent(cluster, ServiceName::parse(name)?, number.parse().ok()?))),
            ["service-revision", cluster, name, id] => ClusterName::parse(cluster)
                .and_then(|cluster| Some(Self::ServiceRevision(cluster, ServiceName::parse(name)?, id.parse().ok()?))),
            ["service-deployment", cluster, name, id] => ClusterName::parse(cluster)
                .and_then(|cluster| Some(Self::ServiceDeployment(cluster, ServiceName::parse(name)?, id.parse().ok()?))),
            ["container-instance", id] => id.parse().ok().map(Self::ContainerInstance),
            ["capacity-provider", name] => CapacityProviderName::parse(name).map(Self::CapacityProvider),
            ["daemon", cluster, name] => {
                ClusterName::parse(cluster).and_then(|cluster| Some(Self::Daemon(cluster, DaemonName::parse(name)?)))
            }
            ["daemon-family", family] => Family::parse(family).map(Self::DaemonFamily),
            ["daemon-task-definition", id] => definition(id).map(Self::DaemonTaskDefinition),
            // Principals' ARNs hold `/` themselves.
            ["account-setting", name, ref principal @ ..] if !principal.is_empty() => {
                Some(Self::AccountSetting(name.to_owned(), principal.join("/")))
            }
            ["gateway", name] => GatewayName::parse(name).map(Self::Gateway),
            ["express-service", cluster, name] => {
                ClusterName::parse(cluster).and_then(|cluster| Some(Self::ExpressService(cluster, ServiceName::parse(name)?)))
            }
            // Alarms' names may hold any character.
            ["alarm", ref name @ ..] if !name.is_empty() => Some(Self::Alarm(name.join("/"))),
            ["namespace", id] => NamespaceId::parse(id).map(Self::Namespace),
            ["discovery-service", id] => DiscoveryServiceId::parse(id).map(Self::DiscoveryService),
            // So may instances' ids hold `/`.
            ["discovery-instance", service, ref id @ ..] if !id.is_empty() => {
                DiscoveryServiceId::parse(service).map(|service| Self::DiscoveryInstance(service, id.join("/")))
            }
            ["discovery-operation", id] => OperationId::parse(id).map(Self::DiscoveryOperation),
            ["vpc-resource", id] => id.parse().ok().map(Self::VpcResource),
            _ => None,
        };
        key.ok_or_else(|| KeyError(text.to_owned()))
    }
}

fn definition(id: &str) -> Option<DefinitionId> {
    let (family, revision) = id.rsplit_once(':')?;
    Some(DefinitionId { family: Family::parse(family)?, revision: revision.parse().ok()? })
}

/// A record. Values are shared: readers hold them without copying.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
pub enum Record {
    /// A cluster.
    Cluster(Arc<Cluster>),
    /// A family's counter.
    Family(Arc<FamilyCounter>),
    /// A task definition's revision.
    TaskDefinition(Arc<TaskDefinition>),
    /// A task.
    Task(Arc<Task>),
    /// A service.
    Service(Arc<Service>),
    /// A service's event.
    ServiceEvent(Arc<ServiceEvent>),
    /// A service revision.
    ServiceRevision(Arc<ServiceRevision>),
    /// A service deployment.
    ServiceDeployment(Arc<ServiceDeployment>),
    /// A container instance.
    ContainerInstance(Arc<ContainerInstance>),
    /// A capacity provider.
    CapacityProvider(Arc<CapacityProvider>),
    /// A daemon.
    Daemon(Arc<Daemon>),
    /// The counter of a family of daemon task definitions.
    DaemonFamily(Arc<FamilyCounter>),
    /// A daemon task definition's revision.
    DaemonTaskDefinition(Arc<DaemonTaskDefinition>),
    /// An account setting.
    AccountSetting(Arc<AccountSetting>),
    /// A gateway.
    Gateway(Arc<Gateway>),
    /// An Express service.
    ExpressService(Arc<ExpressService>),
    /// An alarm.
    Alarm(Arc<Alarm>),
    /// A namespace.
    Namespace(Arc<Namespace>),
    /// A Cloud Map service.
    DiscoveryService(Arc<DiscoveryService>),
    /// An instance of a Cloud Map service.
    DiscoveryInstance(Arc<DiscoveryInstance>),
    /// An operation of Cloud Map's.
    DiscoveryOperation(Arc<Operation>),
    /// A resource of the VPC model.
    VpcResource(Resource),
}

impl Record {
    /// Where it belongs.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Cluster(cluster) => Key::Cluster(cluster.name.clone()),
            Self::Family(family) => Key::Family(family.family.clone()),
            Self::TaskDefinition(definition) => Key::TaskDefinition(definition.id.clone()),
            Self::Task(task) => Key::Task(task.id),
            Self::Service(service) => Key::Service(service.cluster.clone(), service.name.clone()),
            Self::ServiceEvent(event) => Key::ServiceEvent(event.cluster.clone(), event.service.clone(), event.number),
            Self::ServiceRevision(revision) => Key::ServiceRevision(revision.cluster.clone(), revision.service.clone(), revision.id),
            Self::ServiceDeployment(one) => Key::ServiceDeployment(one.cluster.clone(), one.service.clone(), one.id),
            Self::ContainerInstance(instance) => Key::ContainerInstance(instance.id),
            Self::CapacityProvider(provider) => Key::CapacityProvider(provider.name.clone()),
            Self::Daemon(daemon) => Key::Daemon(daemon.cluster.clone(), daemon.name.clone()),
            Self::DaemonFamily(family) => Key::DaemonFamily(family.family.clone()),
            Self::DaemonTaskDefinition(definition) => Key::DaemonTaskDefinition(definition.id.clone()),
            Self::AccountSetting(setting) => Key::AccountSetting(setting.name.clone(), setting.principal.clone()),
            Self::Gateway(gateway) => Key::Gateway(gateway.name.clone()),
            Self::ExpressService(service) => Key::ExpressService(service.cluster.clone(), service.name.clone()),
            Self::Alarm(alarm) => Key::Alarm(alarm.name.clone()),
            Self::Namespace(namespace) => Key::Namespace(namespace.id.clone()),
            Self::DiscoveryService(service) => Key::DiscoveryService(service.id.clone()),
            Self::DiscoveryInstance(instance) => Key::DiscoveryInstance(instance.service.clone(), instance.id.clone()),
            Self::DiscoveryOperation(operation) => Key::DiscoveryOperation(operation.id.clone()),
            Self::VpcResource(resource) => Key::VpcResource(resource.id()),
        }
    }
}

macro_rules! from_noun {
    ($($noun:ident => $variant:ident),+ $(,)?) => {
        $(impl From<$noun> for Record {
            fn from(noun: $noun) -> Self {
                Self::$variant(Arc::new(noun))
            }
        })+
    };
}

from_noun!(
    Cluster => Cluster,
    FamilyCounter => Family,
    TaskDefinition => TaskDefinition,
    Task => Task,
    Service => Service,
    ServiceEvent => ServiceEvent,
    ServiceRevision => ServiceRevision,
    ServiceDeployment => ServiceDeployment,
    ContainerInstance => ContainerInstance,
    CapacityProvider => CapacityProvider,
    Daemon => Daemon,
    DaemonTaskDefinition => DaemonTaskDefinition,
    AccountSetting => AccountSetting,
    Gateway => Gateway,
    ExpressService => ExpressService,
    Alarm => Alarm,
    Namespace => Namespace,
    DiscoveryService => DiscoveryService,
    DiscoveryInstance => DiscoveryInstance,
    Operation => DiscoveryOperation,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_text_is_read_back() {
        let cluster = ClusterName::parse("default").unwrap();
        let service = ServiceName::parse("web").unwrap();
        let family = Family::parse("app").unwrap();
        for key in [
            Key::Cluster(cluster.clone()),
            Key::Family(family.clone()),
            Key::DaemonFamily(family.clone()),
            Key::DaemonTaskDefinition(DefinitionId { family: family.clone(), revision: 2 }),
            Key::TaskDefinition(DefinitionId { family, revision: 7 }),
            Key::CapacityProvider(CapacityProviderName::parse("spare").unwrap()),
            Key::Daemon(cluster.clone(), DaemonName::parse("logs").unwrap()),
            Key::Task("0123456789abcdef0123456789abcdef".parse().unwrap()),
            Key::Service(cluster.clone(), service.clone()),
            Key::ServiceEvent(cluster.clone(), service.clone(), u64::MAX),
            Key::ExpressService(cluster.clone(), service.clone()),
            Key::Gateway(GatewayName::parse("edge").unwrap()),
            Key::ServiceRevision(cluster.clone(), service.clone(), ServiceRevisionId::from_random(7)),
            Key::ServiceDeployment(cluster, service, ServiceDeploymentId::from_random(u128::MAX / 3)),
            Key::ContainerInstance("fedcba9876543210fedcba9876543210".parse().unwrap()),
            Key::Alarm("web/p99 too high".into()),
            Key::Namespace(NamespaceId::from_bits(7)),
            Key::DiscoveryService(DiscoveryServiceId::from_bits(8)),
            Key::DiscoveryInstance(DiscoveryServiceId::from_bits(9), "i-1/2:3".into()),
            Key::DiscoveryOperation(OperationId::from_random(10, 11)),
            Key::VpcResource(ResourceId::Subnet(crate::vpc::SubnetId::from_random(7))),
            Key::VpcResource(ResourceId::InternetGateway(crate::vpc::InternetGatewayId::from_random(u128::MAX))),
            Key::AccountSetting("containerInsights".into(), "arn:aws:iam::000000000000:user/a/b".into()),
        ] {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "task",
            "task/",
            "task/xyz",
            "task/0123456789abcdef0123456789abcdef/x",
            "cluster/a b",
            "task-definition/app",
            "vpc-resource/vpc-1",
            "lamp/1",
        ] {
            assert_eq!(text.parse::<Key>(), Err(KeyError(text.to_owned())));
        }
    }
}
