//! Everything the store keeps: one record per noun, addressed by a key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::container_instance::ContainerInstance;
use crate::ids::{ClusterName, ContainerInstanceId, DefinitionId, Family, ServiceName, TaskId};
use crate::service::{Service, ServiceEvent};
use crate::service_deployment::{ServiceDeployment, ServiceDeploymentId, ServiceRevision, ServiceRevisionId};
use crate::task::Task;
use crate::task_definition::{FamilyCounter, TaskDefinition};

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
            ["task-definition", id] => id.rsplit_once(':').and_then(|(family, revision)| {
                Some(Self::TaskDefinition(DefinitionId { family: Family::parse(family)?, revision: revision.parse().ok()? }))
            }),
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
            _ => None,
        };
        key.ok_or_else(|| KeyError(text.to_owned()))
    }
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
            Key::TaskDefinition(DefinitionId { family, revision: 7 }),
            Key::Task("0123456789abcdef0123456789abcdef".parse().unwrap()),
            Key::Service(cluster.clone(), service.clone()),
            Key::ServiceEvent(cluster.clone(), service.clone(), u64::MAX),
            Key::ServiceRevision(cluster.clone(), service.clone(), ServiceRevisionId::from_random(7)),
            Key::ServiceDeployment(cluster, service, ServiceDeploymentId::from_random(u128::MAX / 3)),
            Key::ContainerInstance("fedcba9876543210fedcba9876543210".parse().unwrap()),
        ] {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "task", "task/", "task/xyz", "task/0123456789abcdef0123456789abcdef/x", "cluster/a b", "task-definition/app", "lamp/1"]
        {
            assert_eq!(text.parse::<Key>(), Err(KeyError(text.to_owned())));
        }
    }
}
