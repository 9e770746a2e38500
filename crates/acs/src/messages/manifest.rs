//! The manifest: all tasks that ought to be on an instance, and the question back before anything is stopped for not being on it.

use super::DesiredStatus;
use serde::{Deserialize, Serialize};

/// A task and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskIdentifier {
    /// The task's ARN.
    pub task_arn: String,
    /// Its cluster's ARN.
    pub task_cluster_arn: String,
    /// Running or stopped.
    pub desired_status: DesiredStatus,
}

/// All tasks that ought to be on the instance; none means that all are to be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskManifestMessage {
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// The container instance's ARN.
    pub container_instance_arn: String,
    /// To be repeated in the answers.
    pub message_id: String,
    /// When it was made, Unix milliseconds; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_at: Option<i64>,
    /// Counts upwards together with payloads' `seqNum`; an agent drops a manifest that is not newer, without an answer.
    pub timeline: i64,
    /// The tasks.
    pub tasks: Vec<TaskIdentifier>,
}

/// Tasks that run on the instance although the manifest does not list them as running.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskStopVerificationMessage {
    /// The manifest's.
    pub message_id: String,
    /// The tasks.
    pub stop_candidates: Vec<TaskIdentifier>,
}

/// Which of the candidates are to be stopped: exactly these. Good once for each manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskStopVerificationAck {
    /// The manifest's.
    pub message_id: String,
    /// When it was made, Unix milliseconds; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_at: Option<i64>,
    /// The tasks.
    pub stop_tasks: Vec<TaskIdentifier>,
}
