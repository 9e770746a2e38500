//! The part of Docker's container API that travels inside a task as two strings of JSON, written out as types: the subset that
//! ECS can express. What is not named here is skipped when read.

use super::wire::{is_zero, parse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Docker's own configuration of a container, as strings holding Docker API JSON, which an agent lays over what it built itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerConfig {
    /// The Docker API version that the strings were written for, such as `1.17`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// JSON of [`ContainerConfig`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// JSON of [`HostConfig`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_config: Option<String>,
}

/// One of the strings is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("dockerConfig.{field} is not Docker API JSON: {source}")]
pub struct DockerConfigError {
    /// `config` or `hostConfig`.
    pub field: &'static str,
    /// What JSON says, with the field.
    pub source: serde_json::Error,
}

impl DockerConfig {
    /// Renders both strings, for Docker API 1.21, the oldest that agents still speak.
    pub fn render(config: &ContainerConfig, host_config: &HostConfig) -> Self {
        let json = |rendered: serde_json::Result<String>| Some(rendered.expect("strings and numbers have a JSON form"));
        Self {
            version: "1.21".to_owned(),
            config: json(serde_json::to_string(config)),
            host_config: json(serde_json::to_string(host_config)),
        }
    }

    /// Reads `config`; the default where it is absent or empty.
    ///
    /// # Errors
    /// When it is no JSON, or a field has another type than Docker's.
    pub fn container_config(&self) -> Result<ContainerConfig, DockerConfigError> {
        read(self.config.as_deref()).map_err(|source| DockerConfigError { field: "config", source })
    }

    /// Reads `hostConfig`; the default where it is absent or empty.
    ///
    /// # Errors
    /// When it is no JSON, or a field has another type than Docker's.
    pub fn host_config(&self) -> Result<HostConfig, DockerConfigError> {
        read(self.host_config.as_deref()).map_err(|source| DockerConfigError { field: "hostConfig", source })
    }
}

fn read<T: Default + serde::de::DeserializeOwned>(text: Option<&str>) -> Result<T, serde_json::Error> {
    match text.map(str::trim) {
        None | Some("" | "null") => Ok(T::default()),
        Some(text) => parse(text),
    }
}

/// Docker's `Config`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Where the command starts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// The host name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether it has a terminal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Whether its standard input stays open.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub open_stdin: bool,
    /// Whether it has no network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub network_disabled: bool,
    /// How its health is found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
}

/// Docker's `HealthConfig`. Times are in nanoseconds; 0 takes Docker's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthCheck {
    /// `["CMD", ..]`, `["CMD-SHELL", line]` or `["NONE"]`.
    pub test: Vec<String>,
    /// From one check to the next.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long failures do not count at first.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// How many failures in a row make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// Docker's `HostConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `bridge`, `host`, `none`, `container:ID`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_mode: String,
    /// Where its output goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_config: Option<LogConfig>,
    /// Whether it may do all that the machine's root may.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Whether its root file system cannot be written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly_rootfs: bool,
    /// Capabilities beyond Docker's set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Capabilities taken from Docker's set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Devices of the machine in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Whether a small init is its first process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// The size of `/dev/shm` in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub shm_size: i64,
    /// In-memory file systems: path to mount options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// Kernel parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// DNS servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// DNS search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Lines of the hosts file, `name:address`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    /// SELinux, AppArmor, seccomp, `no-new-privileges`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    /// The soft memory limit in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_reservation: i64,
    /// Memory and swap together in bytes; -1 for no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_swap: i64,
    /// 0 to 100, or -1 for the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
    /// `host` or `container:ID`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pid_mode: String,
    /// `host`, `none`, `shareable` or `container:ID`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipc_mode: String,
}

/// Docker's `LogConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// The driver's name.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The driver's options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
}

/// Docker's `DeviceMapping`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Device {
    /// On the machine.
    pub path_on_host: String,
    /// In the container.
    pub path_in_container: String,
    /// Of `r`, `w` and `m`.
    pub cgroup_permissions: String,
}

/// Docker's `Ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// Such as `nofile`.
    pub name: String,
    /// What it starts with.
    pub soft: i64,
    /// What it may raise it to.
    pub hard: i64,
}
