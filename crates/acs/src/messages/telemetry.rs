//! Container health and instance status, and how the server answers all telemetry.

use serde::{Deserialize, Serialize};

/// Who publishes metrics or health, and which page it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsMetadata {
    /// The cluster as the agent was configured: a name or an ARN.
    pub cluster: String,
    /// The container instance's ARN.
    pub container_instance: String,
    /// Shared by the pages of one publication.
    pub message_id: String,
    /// Whether there are no tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
    /// Whether it is the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fin: Option<bool>,
}

/// One page of container health: the only way by which it is reported.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishHealthRequest {
    /// Who sends it, and which page.
    pub metadata: MetricsMetadata,
    /// The tasks that have a health check.
    pub tasks: Vec<TaskHealth>,
    /// When, in Unix seconds.
    pub timestamp: f64,
}

/// One task's health.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskHealth {
    /// The task's ARN.
    pub task_arn: String,
    /// The task definition's family.
    pub task_definition_family: String,
    /// The task definition's revision, as text.
    pub task_definition_version: String,
    /// Its containers' health.
    pub containers: Vec<ContainerHealth>,
}

/// One container's health.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerHealth {
    /// Its name within the task.
    pub container_name: String,
    /// How it is.
    pub health_status: HealthStatus,
    /// Since when, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_since: Option<f64>,
}

/// How a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub enum HealthStatus {
    /// The check succeeds.
    Healthy,
    /// The check has failed as often as it may.
    Unhealthy,
    /// Not checked, or not often enough yet.
    #[default]
    Unknown,
}

impl From<String> for HealthStatus {
    fn from(text: String) -> Self {
        match text.as_str() {
            "HEALTHY" => Self::Healthy,
            "UNHEALTHY" => Self::Unhealthy,
            _ => Self::Unknown,
        }
    }
}

impl From<HealthStatus> for &'static str {
    fn from(status: HealthStatus) -> Self {
        match status {
            HealthStatus::Healthy => "HEALTHY",
            HealthStatus::Unhealthy => "UNHEALTHY",
            HealthStatus::Unknown => "UNKNOWN",
        }
    }
}

/// The instance's own state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishInstanceStatusRequest {
    /// Who sends it.
    pub metadata: InstanceStatusMetadata,
    /// Each thing that is watched.
    pub statuses: Vec<InstanceStatus>,
    /// When, in Unix seconds.
    pub timestamp: f64,
}

/// Who publishes instance status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceStatusMetadata {
    /// The cluster as the agent was configured: a name or an ARN.
    pub cluster: String,
    /// The container instance's ARN.
    pub container_instance: String,
    /// Names the request in logs.
    pub request_id: String,
}

/// The state of one thing that is watched.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceStatus {
    /// `CONTAINER_RUNTIME`, spelt `ContainerRuntime` by the official agent.
    #[serde(rename = "type")]
    pub kind: String,
    /// `OK`, `IMPAIRED`, `INSUFFICIENT_DATA` or `INITIALIZING`.
    pub status: String,
    /// When last looked at, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<f64>,
    /// When it last changed, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_status_change: Option<f64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
}

/// The server has a publication.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AckPublish {
    /// A remark; usually none.
    pub message: String,
}
