//! What containers use, as agents sum it up every twenty seconds.

use super::MetricsMetadata;
use super::wire::is_zero;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One page of metrics. Pages of one publication share a message id; the last says so.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishMetricsRequest {
    /// Who sends it, and which page.
    pub metadata: MetricsMetadata,
    /// The instance's own figures: kept as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_metrics: Option<Value>,
    /// At most ten tasks a page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub task_metrics: Vec<TaskMetric>,
    /// When, in Unix seconds.
    pub timestamp: f64,
}

/// One task's figures.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskMetric {
    /// The task's ARN.
    pub task_arn: String,
    /// The task definition's family.
    pub task_definition_family: String,
    /// The task definition's revision, as text.
    pub task_definition_version: String,
    /// The cluster's ARN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_arn: String,
    /// Its containers' figures.
    pub container_metrics: Vec<ContainerMetric>,
    /// Its volumes' figures: kept as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_metrics: Option<Value>,
    /// Its own disk's figures: kept as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage_metrics: Option<Value>,
    /// Service Connect's figures: kept as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_connect_metrics_wrapper: Option<Value>,
}

/// One container's figures since the last publication.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerMetric {
    /// Its name within the task.
    pub container_name: String,
    /// Percent of the whole machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_stats_set: Option<StatsSet>,
    /// MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_stats_set: Option<StatsSet>,
    /// Disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_stats_set: Option<StorageStats>,
    /// Network; with a network of its own only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_stats_set: Option<NetworkStats>,
    /// Restarts in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_stats_set: Option<RestartStats>,
}

/// A summary of real numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatsSet {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// All together.
    pub sum: f64,
    /// How many.
    pub sample_count: i64,
}

/// A summary of counts. What does not fit a signed 64-bit number is in the overflow fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CountSet {
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
    /// All together.
    pub sum: i64,
    /// How many.
    pub sample_count: i64,
    /// Beyond `min`.
    #[serde(skip_serializing_if = "is_zero")]
    pub overflow_min: i64,
    /// Beyond `max`.
    #[serde(skip_serializing_if = "is_zero")]
    pub overflow_max: i64,
    /// Beyond `sum`.
    #[serde(skip_serializing_if = "is_zero")]
    pub overflow_sum: i64,
}

/// Disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageStats {
    /// Bytes read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_size_bytes: Option<CountSet>,
    /// Bytes written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_size_bytes: Option<CountSet>,
}

/// Network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkStats {
    /// Bytes in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<CountSet>,
    /// Bytes out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<CountSet>,
    /// Packets in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_packets: Option<CountSet>,
    /// Packets out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_packets: Option<CountSet>,
    /// Packets dropped on the way in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_dropped: Option<CountSet>,
    /// Packets dropped on the way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_dropped: Option<CountSet>,
    /// Errors in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_errors: Option<CountSet>,
    /// Errors out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_errors: Option<CountSet>,
    /// Bytes in a second, in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes_per_second: Option<StatsSet>,
    /// Bytes in a second, out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes_per_second: Option<StatsSet>,
}

/// Restarts in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartStats {
    /// Since the last publication.
    pub restart_count: i64,
}
