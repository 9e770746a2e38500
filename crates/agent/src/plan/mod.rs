//! A task as it was sent, parsed once into what the engine and the runtime work with. Whatever this agent cannot honour is
//! found here, before anything is pulled. Pure; never touches the machine.

mod docker;
mod efs;
mod fargate;
pub mod interface;
pub mod links;
mod logging;
mod order;
pub mod ports;
pub(crate) mod spec;
mod volumes;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use berth_acs::messages as acs;
use berth_network::interface::TaskInterface;
use berth_network::port::{AttachmentId, PortRequest};
use berth_runtime::port::{ContainerId, ContainerSpec};

pub use self::efs::{EFS, EfsMount};
pub use self::logging::LogDriver;
pub use self::ports::PortRange;
pub use self::volumes::{MountPlan, SHARED, VolumePlan};
use crate::config::EfsSettings;
use crate::engine::Millis;
use crate::sources::Wanted;

/// ECS allows ten containers; an agent takes a few more before it calls a task nonsense.
pub const MOST_CONTAINERS: usize = 32;

/// The launch type of tasks on Fargate.
pub const FARGATE: &str = "FARGATE";

/// The type of the association by which a container gets a GPU.
const GPU: &str = "gpu";

/// What a plan needs to know besides the task.
#[derive(Debug, Clone)]
pub struct PlanContext {
    /// The region that containers are told of.
    pub region: String,
    /// Where volumes are made.
    pub volumes_dir: PathBuf,
    /// Where EFS file systems are.
    pub efs: EfsSettings,
    /// Milliseconds from stop signal to kill where the container does not say.
    pub stop_timeout: Millis,
    /// Most bytes of output kept per container.
    pub log_limit: u64,
    /// Whether images are pulled before what a container depends on has come about.
    pub pull_upfront: bool,
    /// Most processes of a task.
    pub task_pids_limit: Option<u32>,
}

/// A task's plan.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskPlan {
    /// The task's ARN.
    pub arn: String,
    /// The last part of the ARN; safe in paths.
    pub id: String,
    /// The task definition's family.
    pub family: String,
    /// The task definition's revision, as text.
    pub version: String,
    /// Its containers, in the task definition's order.
    pub containers: Vec<ContainerPlan>,
    /// Whether images are pulled before what a container depends on has come about.
    pub pull_upfront: bool,
}

/// One container's plan.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerPlan {
    /// Its task's ARN.
    pub task: String,
    /// Its name within the task.
    pub name: String,
    /// Its image, as the task definition has it.
    pub image: String,
    /// The task ends with it.
    pub essential: bool,
    /// What it waits for.
    pub depends_on: Vec<Dependency>,
    /// How long those that wait for its end do so.
    pub start_timeout: Option<Millis>,
    /// From stop signal to kill.
    pub stop_timeout: Millis,
    /// How its health is found out.
    pub health_check: Option<HealthCheck>,
    /// When it is started again.
    pub restart: Option<RestartPolicy>,
    /// Whose addresses it is told of.
    pub links: Vec<Link>,
    /// What must be fetched before its image is pulled.
    pub wanted: Wanted,
    /// Its name on this machine.
    pub runtime_id: ContainerId,
    /// Its name towards the task metadata endpoint, which nobody else knows; empty if it has none.
    pub endpoint_id: String,
    /// By what name it asks the same endpoint for its task role's credentials; empty if its task has no role.
    pub credentials_id: String,
    /// Its network's name on this machine.
    pub attachment_id: AttachmentId,
    /// Its network's kind.
    pub wiring: Wiring,
    /// Its task's interface, with [`Wiring::Interface`].
    pub interface: Option<Box<TaskInterface>>,
    /// What to make, or what of it this agent cannot honour.
    pub blueprint: Result<Box<Blueprint>, String>,
}

/// What a container waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    /// The other container's place in the task.
    pub on: usize,
    /// What it must have come to.
    pub condition: Condition,
}

/// `dependsOn`'s conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It was started.
    Start,
    /// It ended.
    Complete,
    /// It ended with exit code 0.
    Success,
    /// Its health check says so.
    Healthy,
}

/// A command that says whether a container is well. All times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Program and arguments; exit code 0 is well.
    pub command: Vec<String>,
    /// From the end of one probe to the beginning of the next.
    pub interval: Millis,
    /// How long a probe may take; one that takes longer has failed.
    pub timeout: Millis,
    /// How many failures in a row make it unhealthy.
    pub retries: u32,
    /// How long after the start failures do not count.
    pub start_period: Millis,
}

/// An enabled `restartPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// After these it is not started again.
    pub ignored_exit_codes: Vec<i32>,
    /// How long it must have run to be started again.
    pub attempt_period: Millis,
}

/// One of a container's `links`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The other container's place in the task.
    pub to: usize,
    /// What it is called in here.
    pub alias: String,
}

/// How a container is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// In the machine's own network.
    Host,
    /// On the bridge.
    Bridge,
    /// Loopback only.
    Isolated,
    /// In its task's namespace, with an interface from the control plane; all containers of the task share it.
    Interface,
}

/// What to make of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// Its specification; image and network are filled in at launch.
    pub spec: ContainerSpec,
    /// The ports to publish, one by one.
    pub ports: Vec<PortRequest>,
    /// The ports to publish in ranges.
    pub port_ranges: Vec<PortRange>,
    /// The volumes that must be there before it is made.
    pub volumes: Vec<VolumePlan>,
    /// Its log driver, where the specification's limit of output is only known with options that are secret.
    pub log_driver: Option<LogDriver>,
}

/// A task that cannot be planned at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It cannot be taken on; the control plane gets no acknowledgement. The official agent's spelling is kept.
    #[error("UnrecogniedTaskError: Error loading task - {0}")]
    Unreadable(String),
    /// `dependsOn` names nobody or goes in a circle.
    #[error("Task dependencies cannot be resolved, taskArn: {0}")]
    Dependencies(String),
}

/// The last part of a task's ARN, if it can be part of a path.
#[must_use]
pub fn task_id(arn: &str) -> Option<String> {
    let id = arn.rsplit('/').next()?;
    let legal = (1..=48).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (legal && arn.starts_with("arn:")).then(|| id.to_owned())
}

/// Plans a task.
///
/// # Errors
/// [`PlanError`]. What only concerns one container is in its [`ContainerPlan::blueprint`].
pub fn plan(task: &acs::Task, context: &PlanContext) -> Result<TaskPlan, PlanError> {
    let unreadable = |text: &str| PlanError::Unreadable(text.to_owned());
    let id = task_id(&task.arn).ok_or_else(|| unreadable("the task has no usable ARN"))?;
    if task.containers.is_empty() || task.containers.len() > MOST_CONTAINERS {
        return Err(PlanError::Unreadable(format!("a task has 1 to {MOST_CONTAINERS} containers, not {}", task.containers.len())));
    }
    let dependencies = order::dependencies(task).ok_or_else(|| PlanError::Dependencies(task.arn.clone()))?;
    let interface = interface::is_wanted(task).then(|| interface::of_task(task)).transpose();
    let mut containers = Vec::with_capacity(task.containers.len());
    for (index, (container, depends_on)) in task.containers.iter().zip(dependencies).enumerate() {
        if container.name.is_empty() || task.containers[..index].iter().any(|other| other.name == container.name) {
            return Err(PlanError::Unreadable(format!("container {index} has no name of its own")));
        }
        let command = docker::overridden_command(container).map_err(PlanError::Unreadable)?;
        let wiring = spec::wiring(task, container);
        let health_check = docker::health_check(container);
        let links = links::links(task, container);
        let wanted = Wanted::of(container, &context.region).map_err(|error| error.to_string());
        let runtime_id = ContainerId(format!("{id}-{index}"));
        let refusal = unsupported_task(task)
            .or_else(|| wiring.as_ref().err().cloned())
            .or_else(|| interface.as_ref().err().cloned())
            .or_else(|| health_check.as_ref().err().cloned())
            .or_else(|| links.as_ref().err().cloned())
            .or_else(|| wanted.as_ref().err().cloned());
        let mut blueprint = match (&wiring, refusal) {
            (Ok(wiring), None) => spec::blueprint(task, container, &id, &runtime_id, *wiring, command, context).map(Box::new),
            (_, refusal) => Err(refusal.unwrap_or_default()),
        };
        let interface = interface.as_ref().ok().and_then(Option::as_ref);
        if let (Ok(blueprint), Some(interface)) = (&mut blueprint, interface) {
            interface::introduce(&mut blueprint.spec, interface);
        }
        let short = &id[..id.len().min(16)];
        let attachment_id = if interface.is_some() { format!("{short}-eni") } else { format!("{short}-{index}") };
        containers.push(ContainerPlan {
            task: task.arn.clone(),
            name: container.name.clone(),
            image: container.image.clone(),
            essential: container.essential,
            depends_on,
            start_timeout: (container.start_timeout > 0).then(|| container.start_timeout.saturating_mul(1000)),
            stop_timeout: if container.stop_timeout > 0 { container.stop_timeout.saturating_mul(1000) } else { context.stop_timeout },
            health_check: health_check.unwrap_or_default(),
            restart: docker::restart_policy(container),
            links: links.unwrap_or_default(),
            wanted: wanted.unwrap_or_default(),
            runtime_id,
            endpoint_id: String::new(),
            credentials_id: task.role_credentials.as_ref().map(|role| role.credentials_id.clone()).unwrap_or_default(),
            attachment_id: AttachmentId(attachment_id),
            wiring: wiring.unwrap_or(Wiring::Isolated),
            interface: interface.cloned().map(Box::new),
            blueprint,
        });
    }
    // Nobody can wait for the health of what has no check.
    let waits_in_vain = |on: &Dependency| on.condition == Condition::Healthy && containers[on.on].health_check.is_none();
    if order::has_circle(&containers) || containers.iter().any(|container| container.depends_on.iter().any(waits_in_vain)) {
        return Err(PlanError::Dependencies(task.arn.clone()));
    }
    let (family, version) = (task.family.clone(), task.version.clone());
    Ok(TaskPlan { arn: task.arn.clone(), id, family, version, containers, pull_upfront: context.pull_upfront })
}

/// What of the task as a whole cannot be honoured.
fn unsupported_task(task: &acs::Task) -> Option<String> {
    let refusal = if task.proxy_configuration.is_some() {
        "proxyConfiguration is not supported by this agent".to_owned()
    } else if let Some(association) = task.associations.iter().find(|association| association.kind != GPU) {
        format!("associations of type {} are not supported by this agent", association.kind)
    } else if let Some(attachment) = task.attachments.first() {
        format!("attachments of type {} are not supported by this agent", attachment.attachment_type)
    } else {
        return None;
    };
    Some(refusal)
}
