//! Payloads, and the task as an agent is told of it.

use super::wire::{is_false, is_zero};
use super::{Attachment, Container, ElasticNetworkInterface, JsonText, RoleCredentials, Volume};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Tasks to start or stop.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PayloadMessage {
    /// The cluster's ARN; required.
    pub cluster_arn: String,
    /// The container instance's ARN; required.
    pub container_instance_arn: String,
    /// To be repeated in the answer; an agent drops a payload without one, silently.
    pub message_id: String,
    /// When it was made, Unix milliseconds; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_at: Option<i64>,
    /// Counts upwards together with manifests' `timeline`.
    pub seq_num: i64,
    /// The tasks.
    pub tasks: Vec<Task>,
}

/// How much a task may keep on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EphemeralStorage {
    /// In GiB.
    #[serde(rename = "sizeInGiB")]
    pub size_in_gib: i64,
}

/// What is wanted of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub enum DesiredStatus {
    /// To run.
    Running,
    /// To be stopped.
    Stopped,
    /// Nothing, or something not known here; nobody acts on it.
    #[default]
    Unspecified,
}

impl From<String> for DesiredStatus {
    fn from(text: String) -> Self {
        match text.as_str() {
            "RUNNING" => Self::Running,
            "STOPPED" => Self::Stopped,
            _ => Self::Unspecified,
        }
    }
}

impl From<DesiredStatus> for &'static str {
    fn from(status: DesiredStatus) -> Self {
        match status {
            DesiredStatus::Running => "RUNNING",
            DesiredStatus::Stopped => "STOPPED",
            DesiredStatus::Unspecified => "",
        }
    }
}

/// A task. For a stop, `arn` and `desired_status` are what matters.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Task {
    /// Its ARN.
    pub arn: String,
    /// Its cluster's ARN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_cluster_arn: String,
    /// Running or stopped.
    pub desired_status: DesiredStatus,
    /// The task definition's family.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub family: String,
    /// The task definition's revision, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Ignored by agents: overrides are merged before a task is sent.
    pub overrides: JsonText,
    /// The account that owns the task definition.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_definition_account_id: String,
    /// Such as `service:web`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The service it belongs to, if any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// `EC2`, `EXTERNAL` or `FARGATE`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub launch_type: String,
    /// `1.4.0` of a Fargate task, else empty; an addition of Berth's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform_version: String,
    /// The name of its cluster, of a Fargate task: that of its machine is another one, or none. Empty elsewhere; an addition of Berth's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// `bridge`, `host`, `awsvpc`, `none`, or empty for the default. Bookkeeping to the official agent, save for `awsvpc`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_mode: String,
    /// The task's own CPU limit in vCPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// The task's own memory limit in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// `host` or `task`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pid_mode: String,
    /// `host`, `task` or `none`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipc_mode: String,
    /// How much it may keep on disk; an addition of Berth's, which other agents do not know and are not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<EphemeralStorage>,
    /// How many GiB of disk a Fargate task has, 20 where its definition names none; 0 elsewhere. Where the definition names a size,
    /// `ephemeral_storage` says so as well. An addition of Berth's.
    #[serde(skip_serializing_if = "is_zero")]
    pub ephemeral_storage_gib: u32,
    /// Its volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// The task role's credentials, for the containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_credentials: Option<RoleCredentials>,
    /// The execution role's credentials, for the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_credentials: Option<RoleCredentials>,
    /// Its network interfaces, with `awsvpc`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elastic_network_interfaces: Vec<ElasticNetworkInterface>,
    /// Devices given to containers, such as GPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub associations: Vec<Association>,
    /// App Mesh's proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_configuration: Option<ProxyConfiguration>,
    /// Other attachments, such as volumes and Service Connect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Its containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// The availability zone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Kept as it came: nothing here acts on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_configuration: Option<Value>,
    /// Whether its containers may ask for faults to be injected.
    #[serde(skip_serializing_if = "is_false")]
    pub enable_fault_injection: bool,
    /// Kept as it came: nothing here acts on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_execution_configuration: Option<Value>,
}

/// A device that is given to containers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Association {
    /// The device's id.
    pub name: String,
    /// `gpu` or `elastic-inference`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The names of the containers.
    pub containers: Vec<String>,
    /// What the containers are told of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<AssociationContent>,
}

/// What containers are told of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AssociationContent {
    /// The text.
    pub value: String,
    /// `base64` or `none`.
    pub encoding: String,
}

/// App Mesh's proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfiguration {
    /// `APPMESH`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The container that is the proxy.
    pub container_name: String,
    /// Its settings.
    pub properties: BTreeMap<String, String>,
}
