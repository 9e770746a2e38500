//! Every frame of the agent protocol, both directions, with the exact names that the official agent sends and understands.
//! Types that are not known decode to `Unknown`, fields that are not known are skipped: either side may be newer than the other.

mod attachment;
mod container;
mod control;
mod credentials;
mod docker_config;
mod frames;
mod manifest;
mod metrics;
mod name_table;
mod names;
mod task;
mod telemetry;
mod volume;
mod wire;

pub use attachment::{
    AttachInstanceNetworkInterfacesMessage, AttachTaskNetworkInterfacesMessage, Attachment, AttachmentProperty, ConfirmAttachmentMessage,
    ElasticNetworkInterface, Ipv4Address, Ipv6Address, NetworkTableMessage, TableKind, TableRequest, VlanProperties,
};
pub use container::{
    Container, ContainerDependency, EcrAuth, EnvironmentFile, FirelensConfiguration, ManagedAgent, MountPoint, PortMapping,
    RegistryAuthentication, RestartPolicy, Secret, SecretsManagerAuth, VolumeFrom,
};
pub use control::{AckRequest, ExceptionMessage, HeartbeatAckRequest, HeartbeatMessage, NackRequest, UpdateInfo, UpdateMessage};
pub use credentials::{IamRoleCredentialsAckRequest, IamRoleCredentialsMessage, RoleCredentials, RoleType};
pub use docker_config::{ContainerConfig, Device, DockerConfig, DockerConfigError, HealthCheck, HostConfig, LogConfig, Ulimit};
pub use frames::{AgentFrame, FrameError, MAX_FRAME, ServerFrame, TelemetryAnswer, TelemetryFrame};
pub use manifest::{TaskIdentifier, TaskManifestMessage, TaskStopVerificationAck, TaskStopVerificationMessage};
pub use metrics::{ContainerMetric, CountSet, NetworkStats, PublishMetricsRequest, RestartStats, StatsSet, StorageStats, TaskMetric};
pub use name_table::{GoneNames, NameChanges, NameTable};
pub use names::{DnsAnswer, DnsRecord, DnsRouting, DnsTableMessage, DnsZone, MOST_DNS_PARTS, NameNews, ReceivedNames, TableTooLarge};
pub use task::{Association, AssociationContent, DesiredStatus, EphemeralStorage, PayloadMessage, ProxyConfiguration, Task};
pub use telemetry::{
    AckPublish, ContainerHealth, HealthStatus, InstanceStatus, InstanceStatusMetadata, MetricsMetadata, PublishHealthRequest,
    PublishInstanceStatusRequest, TaskHealth,
};
pub use volume::{DockerVolumeConfiguration, EfsAuthorizationConfig, EfsVolumeConfiguration, HostVolume, Volume};
pub use wire::JsonText;
