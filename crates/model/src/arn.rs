//! ARNs of ECS's resources: rendered at the edge, read back in long and short forms.
//!
//! Forms: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-account-settings.html#ecs-resource-ids>.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::fargate;
use crate::ids::{
    AttachmentId, CapacityProviderName, ClusterName, ContainerId, ContainerInstanceId, DaemonName, DefinitionId, DeploymentId, Family,
    GatewayName, ServiceName, TaskId, uuid,
};
use crate::service_deployment::{ServiceDeploymentId, ServiceRevisionId};

/// What all ARNs of one Berth begin with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The region, e.g. `us-east-1`.
    pub region: Arc<str>,
    /// The account, twelve digits.
    pub account: Arc<str>,
}

/// Bytes that hardly any ARN of ECS has. A string that grows while it is written is moved several times until it holds one, and each time all
/// threads that make or drop strings of the same part of memory wait for each other.
const ROOM: usize = 128;

impl Scope {
    pub(crate) fn ecs(&self, resource: impl fmt::Display) -> String {
        let mut arn = String::with_capacity(ROOM);
        write!(arn, "arn:aws:ecs:{}:{}:{resource}", self.region, self.account).expect("a string takes what it is given");
        arn
    }

    /// `arn:aws:ecs:REGION:ACCOUNT:cluster/NAME`
    #[must_use]
    pub fn cluster(&self, cluster: &ClusterName) -> String {
        self.ecs(format_args!("cluster/{cluster}"))
    }

    /// `...:container-instance/CLUSTER/ID`
    #[must_use]
    pub fn container_instance(&self, cluster: &ClusterName, id: ContainerInstanceId) -> String {
        self.ecs(format_args!("container-instance/{cluster}/{id}"))
    }

    /// `...:task-definition/FAMILY:REVISION`
    #[must_use]
    pub fn task_definition(&self, definition: &DefinitionId) -> String {
        self.ecs(format_args!("task-definition/{definition}"))
    }

    /// `...:task/CLUSTER/ID`
    #[must_use]
    pub fn task(&self, cluster: &ClusterName, id: TaskId) -> String {
        self.ecs(format_args!("task/{cluster}/{id}"))
    }

    /// `...:container/CLUSTER/TASKID/UUID`
    #[must_use]
    pub fn container(&self, cluster: &ClusterName, task: TaskId, id: ContainerId) -> String {
        self.ecs(format_args!("container/{cluster}/{task}/{}", uuid(id.0)))
    }

    /// `...:attachment/UUID`
    #[must_use]
    pub fn attachment(&self, id: AttachmentId) -> String {
        self.ecs(format_args!("attachment/{}", uuid(id.0)))
    }

    /// `...:service/CLUSTER/NAME`
    #[must_use]
    pub fn service(&self, cluster: &ClusterName, service: &ServiceName) -> String {
        self.ecs(format_args!("service/{cluster}/{service}"))
    }

    /// `...:gateway/NAME`
    #[must_use]
    pub fn gateway(&self, gateway: &GatewayName) -> String {
        self.ecs(format_args!("gateway/{gateway}"))
    }

    /// `...:service-revision/CLUSTER/SERVICE/NUMBER`
    #[must_use]
    pub fn service_revision(&self, cluster: &ClusterName, service: &ServiceName, id: ServiceRevisionId) -> String {
        self.ecs(format_args!("service-revision/{cluster}/{service}/{id}"))
    }

    /// `...:service-deployment/CLUSTER/SERVICE/ID`
    #[must_use]
    pub fn service_deployment(&self, cluster: &ClusterName, service: &ServiceName, id: ServiceDeploymentId) -> String {
        self.ecs(format_args!("service-deployment/{cluster}/{service}/{id}"))
    }

    /// `...:task-set/CLUSTER/SERVICE/ecs-svc/NUMBER`
    #[must_use]
    pub fn task_set(&self, cluster: &ClusterName, service: &ServiceName, id: DeploymentId) -> String {
        self.ecs(format_args!("task-set/{cluster}/{service}/{id}"))
    }

    /// The user that acts when the root credentials are used.
    #[must_use]
    pub fn root_principal(&self) -> String {
        format!("arn:aws:iam::{}:root", self.account)
    }

    /// Takes the prefix off an ARN of ECS in this account and region; `None` if it is another's or no ARN.
    #[must_use]
    pub fn strip<'a>(&self, arn: &'a str) -> Option<&'a str> {
        let mut parts = arn.splitn(6, ':');
        let prefix = [parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let ours = prefix == ["arn", "aws", "ecs", &*self.region, &*self.account];
        if ours { parts.next() } else { None }
    }
}

/// Where an ARN or a short form does not name a resource of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// An ARN of another service, account, region or kind of resource.
    #[error("Invalid arn syntax.")]
    ForeignArn,
    /// Neither a name nor an ARN.
    #[error("Invalid identifier: {0}")]
    Malformed(String),
    /// The ARN names another cluster than the request.
    #[error("Invalid identifier: Unexpected number of separators or cluster mismatch")]
    OtherCluster,
}

/// Reads a cluster's name or ARN; absent means `default`.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_cluster(scope: &Scope, text: Option<&str>) -> Result<ClusterName, ReferenceError> {
    let text = match text {
        None | Some("") => "default",
        Some(text) => text,
    };
    let name = if text.starts_with("arn:") {
        scope.strip(text).and_then(|rest| rest.strip_prefix("cluster/")).ok_or(ReferenceError::ForeignArn)?
    } else {
        text
    };
    ClusterName::parse(name).ok_or_else(|| ReferenceError::Malformed(clip(name)))
}

/// Reads the cluster that an agent says it belongs to: one, or the reserved name of machines that are nobody's.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_agents_cluster(scope: &Scope, text: Option<&str>) -> Result<ClusterName, ReferenceError> {
    let reserved = fargate::machines();
    match text {
        Some(text) if text == reserved.as_str() || text == scope.cluster(&reserved) => Ok(reserved),
        text => parse_cluster(scope, text),
    }
}

/// Reads a task's id or ARN as an agent names it: an agent that runs Fargate tasks names those of other clusters too. The cluster is the
/// agent's where the text names none.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_agents_task(scope: &Scope, agents: &ClusterName, text: &str) -> Result<(ClusterName, TaskId), ReferenceError> {
    let malformed = || ReferenceError::Malformed(clip(text));
    let (named, id) = parse_in_cluster(scope, "task", text)?;
    let cluster = match named {
        None => agents.clone(),
        Some(named) if named == agents.as_str() => agents.clone(),
        Some(named) => ClusterName::parse(named).ok_or_else(malformed)?,
    };
    Ok((cluster, id.parse().map_err(|_| malformed())?))
}

/// A reference to a resource inside a cluster: the last part, and the cluster if the reference names it.
fn parse_in_cluster<'a>(scope: &Scope, kind: &str, text: &'a str) -> Result<(Option<&'a str>, &'a str), ReferenceError> {
    let rest = if text.starts_with("arn:") {
        let rest = scope.strip(text).ok_or(ReferenceError::ForeignArn)?;
        rest.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')).ok_or(ReferenceError::ForeignArn)?
    } else {
        text
    };
    match rest.split_once('/') {
        None => Ok((None, rest)),
        Some((cluster, id)) if !id.contains('/') => Ok((Some(cluster), id)),
        Some(_) => Err(ReferenceError::OtherCluster),
    }
}

fn check_cluster(named: Option<&str>, cluster: &ClusterName) -> Result<(), ReferenceError> {
    match named {
        Some(named) if named != cluster.as_str() => Err(ReferenceError::OtherCluster),
        _ => Ok(()),
    }
}

/// Reads a task's id, or its ARN in the long or the old short form.
///
/// # Errors
/// [`ReferenceError`], also if the ARN names another cluster.
pub fn parse_task(scope: &Scope, cluster: &ClusterName, text: &str) -> Result<TaskId, ReferenceError> {
    let (named, id) = parse_in_cluster(scope, "task", text)?;
    check_cluster(named, cluster)?;
    id.parse().map_err(|_| ReferenceError::Malformed(clip(text)))
}

/// Reads a container instance's id or ARN.
///
/// # Errors
/// [`ReferenceError`], also if the ARN names another cluster.
pub fn parse_container_instance(scope: &Scope, cluster: &ClusterName, text: &str) -> Result<ContainerInstanceId, ReferenceError> {
    let (named, id) = parse_in_cluster(scope, "container-instance", text)?;
    check_cluster(named, cluster)?;
    id.parse().map_err(|_| ReferenceError::Malformed(clip(text)))
}

/// Reads a service's name or ARN.
///
/// # Errors
/// [`ReferenceError`], also if the ARN names another cluster.
pub fn parse_service(scope: &Scope, cluster: &ClusterName, text: &str) -> Result<ServiceName, ReferenceError> {
    let (named, name) = parse_in_cluster(scope, "service", text)?;
    check_cluster(named, cluster)?;
    ServiceName::parse(name).ok_or_else(|| ReferenceError::Malformed(clip(text)))
}

/// Reads a gateway's name or ARN.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_gateway(scope: &Scope, text: &str) -> Result<GatewayName, ReferenceError> {
    let name = if text.starts_with("arn:") {
        scope.strip(text).and_then(|rest| rest.strip_prefix("gateway/")).ok_or(ReferenceError::ForeignArn)?
    } else {
        text
    };
    GatewayName::parse(name).ok_or_else(|| ReferenceError::Malformed(clip(text)))
}

/// Reads `KIND/CLUSTER/SERVICE/ID` out of an ARN; `ID` may hold slashes.
fn parse_in_service<'a>(scope: &Scope, kind: &str, arn: &'a str) -> Result<(ClusterName, ServiceName, &'a str), ReferenceError> {
    let rest = scope.strip(arn).ok_or(ReferenceError::ForeignArn)?;
    let rest = rest.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')).ok_or(ReferenceError::ForeignArn)?;
    let malformed = || ReferenceError::Malformed(clip(arn));
    let mut parts = rest.splitn(3, '/');
    let cluster = parts.next().and_then(ClusterName::parse).ok_or_else(malformed)?;
    let service = parts.next().and_then(ServiceName::parse).ok_or_else(malformed)?;
    Ok((cluster, service, parts.next().ok_or_else(malformed)?))
}

/// Reads a service deployment's ARN.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_service_deployment(scope: &Scope, arn: &str) -> Result<(ClusterName, ServiceName, ServiceDeploymentId), ReferenceError> {
    let (cluster, service, id) = parse_in_service(scope, "service-deployment", arn)?;
    Ok((cluster, service, id.parse().map_err(|_| ReferenceError::Malformed(clip(arn)))?))
}

/// Reads a service revision's ARN.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_service_revision(scope: &Scope, arn: &str) -> Result<(ClusterName, ServiceName, ServiceRevisionId), ReferenceError> {
    let (cluster, service, id) = parse_in_service(scope, "service-revision", arn)?;
    Ok((cluster, service, id.parse().map_err(|_| ReferenceError::Malformed(clip(arn)))?))
}

/// Reads a task set's id (`ecs-svc/NUMBER`) or ARN.
///
/// # Errors
/// [`ReferenceError`], also if the ARN names another cluster or service.
pub fn parse_task_set(scope: &Scope, cluster: &ClusterName, service: &ServiceName, text: &str) -> Result<DeploymentId, ReferenceError> {
    let id = if text.starts_with("arn:") {
        let (named, of, id) = parse_in_service(scope, "task-set", text)?;
        if named != *cluster || of != *service {
            return Err(ReferenceError::OtherCluster);
        }
        id
    } else {
        text
    };
    parse_deployment_id(id).ok_or_else(|| ReferenceError::Malformed(clip(text)))
}

fn parse_deployment_id(text: &str) -> Option<DeploymentId> {
    let digits = text.strip_prefix("ecs-svc/").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().map(DeploymentId)
}

/// A task definition as a request names it: a family (its newest ACTIVE revision) or an exact revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefinitionReference {
    /// `family`
    Latest(Family),
    /// `family:revision` or an ARN
    Exact(DefinitionId),
}

/// Reads `family`, `family:revision` or an ARN.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_task_definition(scope: &Scope, text: &str) -> Result<DefinitionReference, ReferenceError> {
    parse_definition(scope, "task-definition/", text)
}

/// The same for any kind of definition; `prefix` is its ARNs' resource type with the slash.
pub(crate) fn parse_definition(scope: &Scope, prefix: &str, text: &str) -> Result<DefinitionReference, ReferenceError> {
    let is_arn = text.starts_with("arn:");
    let rest = if is_arn { scope.strip(text).and_then(|rest| rest.strip_prefix(prefix)).ok_or(ReferenceError::ForeignArn)? } else { text };
    let malformed = || ReferenceError::Malformed(clip(text));
    match rest.split_once(':') {
        None => Ok(DefinitionReference::Latest(Family::parse(rest).ok_or_else(malformed)?)),
        Some((family, revision)) => {
            let revision = revision.parse::<u32>().ok().filter(|r| *r > 0).ok_or_else(malformed)?;
            Ok(DefinitionReference::Exact(DefinitionId { family: Family::parse(family).ok_or_else(malformed)?, revision }))
        }
    }
}

/// What a tag request's `resourceArn` can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A cluster.
    Cluster(ClusterName),
    /// A container instance.
    ContainerInstance(ClusterName, ContainerInstanceId),
    /// A gateway.
    Gateway(GatewayName),
    /// A service.
    Service(ClusterName, ServiceName),
    /// A task.
    Task(ClusterName, TaskId),
    /// A task set of a service.
    TaskSet(ClusterName, ServiceName, DeploymentId),
    /// A task definition's revision.
    TaskDefinition(DefinitionId),
    /// A capacity provider.
    CapacityProvider(CapacityProviderName),
    /// A daemon.
    Daemon(ClusterName, DaemonName),
    /// A daemon task definition's revision.
    DaemonTaskDefinition(DefinitionId),
}

/// Reads any ARN of a resource that can carry tags.
///
/// # Errors
/// [`ReferenceError`].
pub fn parse_resource(scope: &Scope, arn: &str) -> Result<Resource, ReferenceError> {
    let rest = scope.strip(arn).ok_or(ReferenceError::ForeignArn)?;
    let (kind, id) = rest.split_once('/').ok_or(ReferenceError::ForeignArn)?;
    if kind == "cluster" {
        return ClusterName::parse(id).map(Resource::Cluster).ok_or_else(|| ReferenceError::Malformed(clip(arn)));
    }
    if kind == "gateway" {
        return parse_gateway(scope, arn).map(Resource::Gateway);
    }
    if kind == "task-definition" {
        return match parse_task_definition(scope, arn)? {
            DefinitionReference::Exact(definition) => Ok(Resource::TaskDefinition(definition)),
            DefinitionReference::Latest(_) => Err(ReferenceError::Malformed(clip(arn))),
        };
    }
    if kind == "capacity-provider" {
        return crate::capacity_provider::parse(scope, arn).map(Resource::CapacityProvider);
    }
    if kind == "daemon-task-definition" {
        return match crate::daemon::parse_definition(scope, arn)? {
            DefinitionReference::Exact(definition) => Ok(Resource::DaemonTaskDefinition(definition)),
            DefinitionReference::Latest(_) => Err(ReferenceError::Malformed(clip(arn))),
        };
    }
    if kind == "task-set" {
        let (cluster, service, id) = parse_in_service(scope, kind, arn)?;
        let id = parse_deployment_id(id).ok_or_else(|| ReferenceError::Malformed(clip(arn)))?;
        return Ok(Resource::TaskSet(cluster, service, id));
    }
    let (cluster, id) = id.split_once('/').ok_or_else(|| ReferenceError::Malformed(clip(arn)))?;
    let cluster = ClusterName::parse(cluster).ok_or_else(|| ReferenceError::Malformed(clip(arn)))?;
    match kind {
        "container-instance" => {
            id.parse().map(|id| Resource::ContainerInstance(cluster, id)).map_err(|_| ReferenceError::Malformed(clip(arn)))
        }
        "task" => id.parse().map(|id| Resource::Task(cluster, id)).map_err(|_| ReferenceError::Malformed(clip(arn))),
        "service" => {
            ServiceName::parse(id).map(|name| Resource::Service(cluster, name)).ok_or_else(|| ReferenceError::Malformed(clip(arn)))
        }
        "daemon" => DaemonName::parse(id).map(|name| Resource::Daemon(cluster, name)).ok_or_else(|| ReferenceError::Malformed(clip(arn))),
        _ => Err(ReferenceError::ForeignArn),
    }
}

pub(crate) fn clip(text: &str) -> String {
    text.chars().take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope { region: "us-east-1".into(), account: "000000000000".into() }
    }

    fn cluster(name: &str) -> ClusterName {
        ClusterName::parse(name).unwrap()
    }

    #[test]
    fn arns_render_and_read_back() {
        let scope = scope();
        let arn = scope.task(&cluster("deepdive"), TaskId(7));
        assert_eq!(arn, "arn:aws:ecs:us-east-1:000000000000:task/deepdive/00000000000000000000000000000007");
        assert_eq!(parse_task(&scope, &cluster("deepdive"), &arn), Ok(TaskId(7)));
        assert_eq!(parse_task(&scope, &cluster("other"), &arn), Err(ReferenceError::OtherCluster));
    }

    #[test]
    fn old_short_arns_are_accepted() {
        let arn = "arn:aws:ecs:us-east-1:000000000000:task/00000000-0000-0000-0000-000000000007";
        assert_eq!(parse_task(&scope(), &cluster("any"), arn), Ok(TaskId(7)));
    }

    #[test]
    fn foreign_arns_are_refused() {
        for arn in [
            "arn:aws:ecs:eu-west-1:000000000000:task/a/00000000000000000000000000000007",
            "arn:aws:ecs:us-east-1:111111111111:task/a/00000000000000000000000000000007",
            "arn:aws:ecs:us-east-1:000000000000:service/a/b",
            "arn:",
        ] {
            assert_eq!(parse_task(&scope(), &cluster("a"), arn), Err(ReferenceError::ForeignArn), "{arn}");
        }
    }

    #[test]
    fn what_belongs_to_a_service_is_read_back() {
        let (scope, home, web) = (scope(), cluster("home"), ServiceName::parse("web").unwrap());
        let deployment = ServiceDeploymentId::from_random(u128::MAX / 5);
        let arn = scope.service_deployment(&home, &web, deployment);
        assert_eq!(parse_service_deployment(&scope, &arn), Ok((home.clone(), web.clone(), deployment)));
        let revision = ServiceRevisionId(1_234_567_890_123_456_789);
        let arn = scope.service_revision(&home, &web, revision);
        assert_eq!(arn, "arn:aws:ecs:us-east-1:000000000000:service-revision/home/web/1234567890123456789");
        assert_eq!(parse_service_revision(&scope, &arn), Ok((home.clone(), web.clone(), revision)));
        assert_eq!(parse_service_deployment(&scope, &arn), Err(ReferenceError::ForeignArn));
        assert!(parse_service_revision(&scope, &arn[..arn.len() - 20]).is_err(), "no id");
        let set = DeploymentId(7);
        let arn = scope.task_set(&home, &web, set);
        assert_eq!(arn, "arn:aws:ecs:us-east-1:000000000000:task-set/home/web/ecs-svc/7");
        assert_eq!(parse_task_set(&scope, &home, &web, &arn), Ok(set));
        assert_eq!(parse_task_set(&scope, &home, &web, "ecs-svc/7"), Ok(set));
        assert_eq!(parse_task_set(&scope, &cluster("other"), &web, &arn), Err(ReferenceError::OtherCluster));
        assert!(parse_task_set(&scope, &home, &web, "7").is_err());
        assert_eq!(parse_resource(&scope, &arn), Ok(Resource::TaskSet(home, web, set)));
    }

    #[test]
    fn absent_cluster_is_default() {
        assert_eq!(parse_cluster(&scope(), None), Ok(cluster("default")));
        assert_eq!(parse_cluster(&scope(), Some("arn:aws:ecs:us-east-1:000000000000:cluster/x")), Ok(cluster("x")));
    }

    #[test]
    fn gateways_by_name_and_arn() {
        let edge = GatewayName::parse("edge").unwrap();
        let arn = scope().gateway(&edge);
        assert_eq!(arn, "arn:aws:ecs:us-east-1:000000000000:gateway/edge");
        assert_eq!(parse_gateway(&scope(), &arn), Ok(edge.clone()));
        assert_eq!(parse_gateway(&scope(), "edge"), Ok(edge.clone()));
        assert_eq!(parse_resource(&scope(), &arn), Ok(Resource::Gateway(edge)));
        assert_eq!(parse_gateway(&scope(), &arn.replace("gateway", "cluster")), Err(ReferenceError::ForeignArn));
        assert!(matches!(parse_gateway(&scope(), "a/b"), Err(ReferenceError::Malformed(_))));
    }

    #[test]
    fn definitions_by_family_revision_and_arn() {
        let scope = scope();
        let web = Family::parse("web").unwrap();
        assert_eq!(parse_task_definition(&scope, "web"), Ok(DefinitionReference::Latest(web.clone())));
        let exact = DefinitionReference::Exact(DefinitionId { family: web, revision: 3 });
        assert_eq!(parse_task_definition(&scope, "web:3"), Ok(exact.clone()));
        assert_eq!(parse_task_definition(&scope, "arn:aws:ecs:us-east-1:000000000000:task-definition/web:3"), Ok(exact));
        for text in ["web:0", "web:x", ":1", "a b"] {
            assert!(parse_task_definition(&scope, text).is_err(), "{text}");
        }
    }
}
