//! Heartbeats, acknowledgements, agent updates and the server's complaints.

use serde::{Deserialize, Serialize};

/// Sent by the server at least once a minute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatMessage {
    /// Always true; agents do not look at it.
    pub healthy: bool,
    /// To be repeated in the answer. TCS's heartbeats have none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message_id: String,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatAckRequest {
    /// The heartbeat's.
    pub message_id: String,
}

/// The agent has taken on a message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AckRequest {
    /// The cluster as the message named it.
    pub cluster: String,
    /// The container instance's ARN.
    pub container_instance: String,
    /// The message's.
    pub message_id: String,
}

/// The agent refuses a message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NackRequest {
    /// The cluster as the message named it.
    pub cluster: String,
    /// The container instance's ARN.
    pub container_instance: String,
    /// The message's.
    pub message_id: String,
    /// Why, such as `Updates are disabled`.
    pub reason: String,
}

/// A new agent version, to be staged or changed over to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateMessage {
    /// To be repeated in the answer.
    pub message_id: String,
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// The container instance's ARN.
    pub container_instance_arn: String,
    /// What to fetch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_info: Option<UpdateInfo>,
}

/// Where a new agent version is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateInfo {
    /// An HTTP(S) URL.
    pub location: String,
    /// The file's SHA-256 in hexadecimal.
    pub signature: String,
}

/// A complaint or a farewell: one sentence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExceptionMessage {
    /// The sentence.
    pub message: String,
}
