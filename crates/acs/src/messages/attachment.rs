//! Network interfaces and other attachments that a task or the instance is given from outside.

use super::wire::is_zero;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A network interface for a task's own network name space.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ElasticNetworkInterface {
    /// The name within the task.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The attachment's ARN.
    pub attachment_arn: String,
    /// The interface's id, `eni-..`; required.
    pub ec2_id: String,
    /// The MAC address by which the instance recognises it; required.
    pub mac_address: String,
    /// Its place among the instance's interfaces.
    pub index: i64,
    /// `default` or `vlan`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface_association_protocol: String,
    /// For `vlan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_vlan_properties: Option<VlanProperties>,
    /// Its addresses; at least one.
    pub ipv4_addresses: Vec<Ipv4Address>,
    /// Its IPv6 addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipv6_addresses: Vec<Ipv6Address>,
    /// The gateway with the subnet's prefix length, `10.0.0.1/24`; required.
    pub subnet_gateway_ipv4_address: String,
    /// DNS search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domain_name: Vec<String>,
    /// DNS servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domain_name_servers: Vec<String>,
    /// Its host name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_dns_name: String,
    /// Its security groups; an addition of Berth's, which other agents do not know and are not sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    /// Largest packet in bytes; an addition of Berth's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The address of the instance's that stands for it outside; an addition of Berth's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub public_ipv4_address: String,
}

/// How an interface hangs off a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VlanProperties {
    /// The VLAN's number.
    pub vlan_id: String,
    /// The trunk's MAC address.
    pub trunk_interface_mac_address: String,
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ipv4Address {
    /// Whether it is the main one.
    pub primary: bool,
    /// The address.
    pub private_address: String,
}

/// An IPv6 address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ipv6Address {
    /// Whether it is the main one.
    pub primary: bool,
    /// The address.
    pub address: String,
}

/// Announces interfaces for a task, before the task itself comes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachTaskNetworkInterfacesMessage {
    /// To be repeated in the answer.
    pub message_id: String,
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// The container instance's ARN.
    pub container_instance_arn: String,
    /// The task's ARN.
    pub task_arn: String,
    /// The task's cluster's ARN.
    pub task_cluster_arn: String,
    /// When it was made, Unix milliseconds; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_at: Option<i64>,
    /// How long the interface may take to appear, in milliseconds; above 0.
    pub wait_timeout_ms: i64,
    /// The interfaces.
    pub elastic_network_interfaces: Vec<ElasticNetworkInterface>,
}

/// Announces a trunk interface for the instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachInstanceNetworkInterfacesMessage {
    /// To be repeated in the answer.
    pub message_id: String,
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// The container instance's ARN.
    pub container_instance_arn: String,
    /// When it was made, Unix milliseconds; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_at: Option<i64>,
    /// How long the interface may take to appear, in milliseconds; above 0.
    pub wait_timeout_ms: i64,
    /// The interfaces.
    pub elastic_network_interfaces: Vec<ElasticNetworkInterface>,
}

/// Security groups and interfaces of all machines, for an instance that gives tasks interfaces of its own making. An addition of Berth's, which
/// other agents do not know and are not sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkTableMessage {
    /// To be repeated in the answer.
    pub message_id: String,
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// The container instance's ARN.
    pub container_instance_arn: String,
    /// When it was made, Unix milliseconds; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_at: Option<i64>,
    /// The store's revision that it was made of.
    #[serde(skip_serializing_if = "is_none")]
    pub revision: u64,
    /// The revision of the table that this is the change of; `None`: this is the whole of it. Only for agents that say `berthDifferences=1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// The whole table, in the place of the one before; in the form that the network has it. Of a change: what is new or otherwise, and
    /// `null` for what is gone.
    pub table: Value,
}

const fn is_none(revision: &u64) -> bool {
    *revision == 0
}

/// Asks for the whole of a table, after changes of one that the agent does not have. An addition of Berth's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableRequest {
    /// Which.
    pub table: TableKind,
}

/// The tables that a control plane tells agents of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TableKind {
    /// What names answer: [`super::DnsTableMessage`].
    Names,
    /// Security groups and interfaces: [`NetworkTableMessage`].
    Network,
}

/// Announces another attachment, such as a volume, and asks for a report once it is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfirmAttachmentMessage {
    /// To be repeated in the answer.
    pub message_id: String,
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// The container instance's ARN.
    pub container_instance_arn: String,
    /// The task's ARN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_arn: String,
    /// The task's cluster's ARN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_cluster_arn: String,
    /// How long it may take, in milliseconds; five minutes if 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub wait_timeout_ms: i64,
    /// The attachment.
    pub attachment: Attachment,
}

/// Something attached to a task, described by properties.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attachment {
    /// Its ARN.
    pub attachment_arn: String,
    /// Such as `amazonebs` or `serviceconnectdetail`.
    pub attachment_type: String,
    /// What is to be known of it.
    pub attachment_properties: Vec<AttachmentProperty>,
}

/// One property of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachmentProperty {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}
