//! Tasks and their containers.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;

use berth_shapes::ecs;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::{CapacityProviderName, ClusterName, ContainerId, ContainerInstanceId, DefinitionId, DeploymentId, ServiceName, TaskId};
use crate::needs::Demand;
use crate::shared_text;
use crate::tags::Tags;
use crate::task_interface::TaskInterface;
use crate::time::UnixMillis;

wire_enum!(
    /// What a task should be. ECS knows only these two.
    DesiredStatus {
        /// It should run.
        Running = "RUNNING",
        /// It should stop.
        Stopped = "STOPPED",
    }
);

wire_enum!(
    /// What was last seen of a task, in the order of a task's life; it never goes back.
    ///
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>
    TaskStatus {
        /// Waits for a resource (a network interface).
        Provisioning = "PROVISIONING",
        /// Placed; its agent pulls and makes containers.
        Pending = "PENDING",
        /// Started; registers with load balancers or service discovery.
        Activating = "ACTIVATING",
        /// Runs.
        Running = "RUNNING",
        /// Deregisters from load balancers or service discovery.
        Deactivating = "DEACTIVATING",
        /// Its containers are being stopped.
        Stopping = "STOPPING",
        /// Gives resources back.
        Deprovisioning = "DEPROVISIONING",
        /// Ended.
        Stopped = "STOPPED",
    }
);

wire_enum!(
    /// What was last seen of a container, as ECS shows it; it never goes back.
    ContainerStatus {
        /// Not yet started.
        Pending = "PENDING",
        /// Runs.
        Running = "RUNNING",
        /// Ended, or never ran.
        Stopped = "STOPPED",
    }
);

wire_enum!(
    /// Why a task stopped: `stopCode`.
    StopCode {
        /// It never reached RUNNING.
        TaskFailedToStart = "TaskFailedToStart",
        /// An essential container ended.
        EssentialContainerExited = "EssentialContainerExited",
        /// StopTask.
        UserInitiated = "UserInitiated",
        /// A service stopped it.
        ServiceSchedulerInitiated = "ServiceSchedulerInitiated",
        /// Its spot capacity was taken away.
        SpotInterruption = "SpotInterruption",
        /// Its machine went away.
        TerminationNotice = "TerminationNotice",
    }
);

wire_enum!(
    /// Health of a container or a task.
    HealthStatus {
        /// Checks succeed.
        Healthy = "HEALTHY",
        /// Checks fail.
        Unhealthy = "UNHEALTHY",
        /// No check, or none has ended yet.
        Unknown = "UNKNOWN",
    }
);

wire_enum!(
    /// Where tasks run: `launchType`.
    LaunchType {
        /// Container instances.
        Ec2 = "EC2",
        /// Capacity that is not listed as container instances.
        Fargate = "FARGATE",
        /// Container instances outside AWS.
        External = "EXTERNAL",
    }
);

/// A port of a container as it is bound on its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkBinding {
    /// Address on the machine, `0.0.0.0` for all.
    pub bind_ip: String,
    /// Port inside the container; of a range the first.
    pub container_port: u16,
    /// Port on the machine; of a range the first.
    pub host_port: u16,
    /// How many more ports follow on both sides (`containerPortRange`); 0 of a port mapping of its own.
    #[serde(default, skip_serializing_if = "is_none")]
    pub following: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// Most bindings are of one port, and say nothing of more.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_none(following: &u16) -> bool {
    *following == 0
}

impl NetworkBinding {
    /// The ports on the machine.
    #[must_use]
    pub fn host_ports(&self) -> RangeInclusive<u16> {
        self.host_port..=self.host_port.saturating_add(self.following)
    }

    /// `containerPortRange` and `hostPortRange`, like `80-90`; `None` of a port mapping of its own, which has numbers instead.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_NetworkBinding.html>
    #[must_use]
    pub fn ranges(&self) -> Option<(String, String)> {
        let text = |first: u16| format!("{first}-{}", first.saturating_add(self.following));
        (self.following > 0).then(|| (text(self.container_port), text(self.host_port)))
    }
}

/// A container of a task: what is its own; the rest stands in the task's definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Its id, which ends its ARN.
    pub id: ContainerId,
    /// Its name in the definition.
    #[serde(deserialize_with = "shared_text::deserialize")]
    pub name: Arc<str>,
    /// Its image as the definition has it.
    #[serde(deserialize_with = "shared_text::deserialize")]
    pub image: Arc<str>,
    /// What was last seen.
    pub last_status: ContainerStatus,
    /// Exit code, once it ended after having run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it ended or never ran (`CannotPullContainerError: ...`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The runtime's name of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    /// Digest of the image that runs.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shared_text::deserialize_optional")]
    pub image_digest: Option<Arc<str>>,
    /// Its bound ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "few")]
    pub network_bindings: Vec<NetworkBinding>,
    /// The GPUs that are its alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_ids: Vec<String>,
    /// Its health.
    pub health_status: HealthStatus,
}

impl Container {
    /// A container of a task that was just placed: PENDING, and nothing seen of it yet.
    #[must_use]
    pub const fn pending(id: ContainerId, name: Arc<str>, image: Arc<str>) -> Self {
        Self {
            id,
            name,
            image,
            last_status: ContainerStatus::Pending,
            exit_code: None,
            reason: None,
            runtime_id: None,
            image_digest: None,
            network_bindings: Vec::new(),
            gpu_ids: Vec::new(),
            health_status: HealthStatus::Unknown,
        }
    }
}

/// The service and deployment that a task belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceMembership {
    /// The service.
    pub service: ServiceName,
    /// The deployment that started it; ECS shows it as `startedBy`.
    pub deployment: DeploymentId,
}

/// A RunTask's `clientToken` with a fingerprint of what was asked under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken {
    /// The token.
    pub token: String,
    /// Fingerprint of the request.
    pub request: u64,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its definition.
    pub definition: DefinitionId,
    /// Where it is placed.
    pub container_instance: ContainerInstanceId,
    /// Its task group: `service:NAME`, `family:NAME` or the user's.
    #[serde(deserialize_with = "shared_text::deserialize")]
    pub group: Arc<str>,
    /// The user's `startedBy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<Arc<str>>,
    /// The service it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceMembership>,
    /// Its launch type.
    pub launch_type: LaunchType,
    /// The capacity provider that a strategy gave it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_provider: Option<CapacityProviderName>,
    /// Its machine's availability zone.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "shared_text::deserialize_optional")]
    pub availability_zone: Option<Arc<str>>,
    /// What it takes on its machine.
    pub demand: Demand,
    /// The network interface that is its own (`networkMode: awsvpc`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Box<TaskInterface>>,
    /// What it should be. Written by users' calls and by services.
    pub desired_status: DesiredStatus,
    /// What was last seen. Written from agents' reports.
    pub last_status: TaskStatus,
    /// Its containers, in the definition's order.
    #[serde(deserialize_with = "few")]
    pub containers: Vec<Container>,
    /// `overrides` of its RunTask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Box<ecs::TaskOverride>>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// `enableExecuteCommand`.
    #[serde(default)]
    pub enable_execute_command: bool,
    /// The idempotency token it was started under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<ClientToken>,
    /// The agent lost its connection while the task ran (`connectivity`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<UnixMillis>,
    /// When it was created.
    pub created_at: UnixMillis,
    /// When its first pull began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<UnixMillis>,
    /// When its last pull ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<UnixMillis>,
    /// When it reached RUNNING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When its stop was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_at: Option<UnixMillis>,
    /// When its first essential container ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<UnixMillis>,
    /// When it reached STOPPED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<UnixMillis>,
    /// Scale-in and deployments leave it alone until then (`UpdateTaskProtection`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_until: Option<UnixMillis>,
    /// Why it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_code: Option<StopCode>,
    /// Why it stopped, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_reason: Option<String>,
}

impl Task {
    /// A task that was just placed: PENDING and to be RUNNING, of no service, on EC2, without containers, demand, overrides or tags.
    #[must_use]
    pub fn placed(
        id: TaskId,
        cluster: ClusterName,
        definition: DefinitionId,
        group: Arc<str>,
        container_instance: ContainerInstanceId,
        created_at: UnixMillis,
    ) -> Self {
        Self {
            id,
            cluster,
            definition,
            container_instance,
            group,
            started_by: None,
            service: None,
            launch_type: LaunchType::Ec2,
            capacity_provider: None,
            availability_zone: None,
            demand: Demand::default(),
            interface: None,
            desired_status: DesiredStatus::Running,
            last_status: TaskStatus::Pending,
            containers: Vec::new(),
            overrides: None,
            tags: Tags::new(),
            enable_execute_command: false,
            client_token: None,
            connected_at: None,
            created_at,
            pull_started_at: None,
            pull_stopped_at: None,
            started_at: None,
            stopping_at: None,
            execution_stopped_at: None,
            stopped_at: None,
            protected_until: None,
            stop_code: None,
            stopped_reason: None,
        }
    }
}

/// A list without room for more: most tasks have one container, and a list that grows by itself makes room for four at once.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Few<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.reserve_exact(1);
                list.push(item);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Few(PhantomData))
}

impl Task {
    /// Its protection holds.
    #[must_use]
    pub fn is_protected(&self, now: UnixMillis) -> bool {
        self.protected_until.is_some_and(|until| until > now)
    }

    /// It has ended; its resources are free.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.last_status == TaskStatus::Stopped
    }

    /// It ran at some time.
    #[must_use]
    pub const fn has_run(&self) -> bool {
        self.started_at.is_some()
    }
}
