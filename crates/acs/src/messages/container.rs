//! The container as an agent is told of it. What has no field here goes into [`DockerConfig`]'s strings.

use super::wire::is_zero;
use super::{DockerConfig, JsonText};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A container of a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name within the task.
    pub name: String,
    /// The image reference.
    pub image: String,
    /// Whether the task ends with it.
    pub essential: bool,
    /// CPU shares, 1024 to a core.
    pub cpu: i64,
    /// The hard limit in MiB; none if 0.
    pub memory: i64,
    /// The command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The entry point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entry_point: Vec<String>,
    /// Environment variables, overrides merged.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Files of environment variables, which the agent fetches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment_files: Vec<EnvironmentFile>,
    /// Docker links, `name` or `name:alias`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// Published ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Volumes in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<MountPoint>,
    /// Other containers' volumes in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<VolumeFrom>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<ContainerDependency>,
    /// For how many seconds those that depend on it wait; no limit if 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_timeout: i64,
    /// Seconds from SIGTERM to SIGKILL; the agent's default if 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub stop_timeout: i64,
    /// `docker` if health is to be reported, which needs a health check in the Docker config.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub health_check_type: String,
    /// How to log in to the image's registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_authentication: Option<RegistryAuthentication>,
    /// `ExecutionRole` if the log driver is to use that role's credentials.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub logs_auth_strategy: String,
    /// Secrets, which the agent fetches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// For a container that is a log router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firelens_configuration: Option<FirelensConfiguration>,
    /// Agents within the container, such as for exec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub managed_agents: Vec<ManagedAgent>,
    /// When it is restarted in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Its ARN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_arn: String,
    /// Which of the task's interfaces it uses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_interface_names: Vec<String>,
    /// Windows' credential specs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credential_specs: Vec<String>,
    /// All that Docker knows and ECS does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_config: Option<DockerConfig>,
    /// Only the key `command` is allowed in it; any other makes the whole task invalid to the official agent.
    pub overrides: JsonText,
}

/// A file of environment variables.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvironmentFile {
    /// The S3 object's ARN.
    pub value: String,
    /// `s3`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A published port, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    /// The container's port; 0 with a range.
    #[serde(skip_serializing_if = "is_zero")]
    pub container_port: i64,
    /// The machine's port; a free one if 0.
    pub host_port: i64,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `8000-8010`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_port_range: String,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MountPoint {
    /// The volume's name.
    pub source_volume: String,
    /// Where in the container.
    pub container_path: String,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// All volumes of another container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeFrom {
    /// The other container's name.
    pub source_container: String,
    /// Whether they cannot be written.
    pub read_only: bool,
}

/// What a container waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerDependency {
    /// The other container's name.
    pub container_name: String,
    /// `START`, `COMPLETE`, `SUCCESS` or `HEALTHY`.
    pub condition: String,
}

/// How to log in to a registry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryAuthentication {
    /// `ecr` or `asm`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For `ecr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecr_auth_data: Option<EcrAuth>,
    /// For `asm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asm_auth_data: Option<SecretsManagerAuth>,
}

/// How to log in to ECR.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EcrAuth {
    /// The registry's account.
    pub registry_id: String,
    /// Its region.
    pub region: String,
    /// Where ECR's API is, if not at AWS.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint_override: String,
    /// With the execution role's credentials, else the instance's.
    pub use_execution_role: bool,
}

/// A registry login kept in Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretsManagerAuth {
    /// The secret's ARN.
    pub credentials_parameter: String,
    /// Its region.
    pub region: String,
}

/// A secret that the agent fetches. It holds where the secret is, not what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// The variable's name, or the log driver's option.
    pub name: String,
    /// The ARN or parameter name.
    pub value_from: String,
    /// Its region.
    pub region: String,
    /// `ssm` or `asm`.
    pub provider: String,
    /// `ENVIRONMENT_VARIABLE`, `MOUNT_POINT` or `BOOTSTRAP`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `CONTAINER` or `LOG_DRIVER`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Where in the container, for a mount point.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_path: String,
}

/// Makes a container the task's log router.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FirelensConfiguration {
    /// `fluentd` or `fluentbit`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// An agent within a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagedAgent {
    /// `ExecuteCommandAgent`.
    pub name: String,
    /// Its settings.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// When a container is restarted in place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartPolicy {
    /// Whether at all.
    pub enabled: bool,
    /// Exit codes that do not lead to a restart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored_exit_codes: Vec<i32>,
    /// For how many seconds it must have run to be restarted.
    pub restart_attempt_period: i64,
}
