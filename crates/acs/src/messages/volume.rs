//! A task's volumes.

use super::wire::is_zero;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A volume, with the configuration of its type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// The name that mount points use.
    pub name: String,
    /// `host`, `docker`, `efs`, `s3files`, `fsxWindowsFileServer`, `ebs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostVolume>,
    /// For `docker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_volume_configuration: Option<DockerVolumeConfiguration>,
    /// For `efs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efs_volume_configuration: Option<EfsVolumeConfiguration>,
    /// For `fsxWindowsFileServer`: kept as it came, since nothing here acts on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsx_windows_file_server_volume_configuration: Option<Value>,
    /// For `s3files`: kept as it came.
    #[serde(rename = "s3filesVolumeConfiguration", skip_serializing_if = "Option::is_none")]
    pub s3files_volume_configuration: Option<Value>,
    /// For `ebs`: kept as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ebs_volume_configuration: Option<Value>,
    /// For log drivers that bring a volume of their own: kept as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver_volume_configuration: Option<Value>,
}

/// A directory of the machine, or with an empty path a volume that lives as long as the task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostVolume {
    /// The directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_path: String,
}

/// A Docker volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerVolumeConfiguration {
    /// `task` (made and removed with it) or `shared` (found by name).
    pub scope: String,
    /// Whether a shared one is made if it does not exist.
    pub autoprovision: bool,
    /// The volume driver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// The driver's options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// The volume's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// An EFS (or plain NFS) file system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EfsVolumeConfiguration {
    /// The file system's id.
    pub file_system_id: String,
    /// The directory in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub root_directory: String,
    /// `ENABLED` or `DISABLED`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transit_encryption: String,
    /// The local port of the encrypted tunnel; any if 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub transit_encryption_port: i64,
    /// Who mounts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_config: Option<EfsAuthorizationConfig>,
}

/// How an EFS mount is authorised.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EfsAuthorizationConfig {
    /// The access point's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub access_point_id: String,
    /// `ENABLED` or `DISABLED`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub iam: String,
}
