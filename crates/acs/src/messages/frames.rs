//! The envelope, `{"type": .., "message": {..}}`, and the closed set of what may be in one, for each of the four directions:
//! ACS down and up, TCS up and down. It must never accept or make a frame beyond [`MAX_FRAME`].

use super::wire::parse;
use super::{
    AckPublish, AckRequest, AttachInstanceNetworkInterfacesMessage, AttachTaskNetworkInterfacesMessage, ConfirmAttachmentMessage,
    DnsTableMessage, ExceptionMessage, HeartbeatAckRequest, HeartbeatMessage, IamRoleCredentialsAckRequest, IamRoleCredentialsMessage,
    NackRequest, NetworkTableMessage, PayloadMessage, PublishHealthRequest, PublishInstanceStatusRequest, PublishMetricsRequest,
    TableRequest, TaskManifestMessage, TaskStopVerificationAck, TaskStopVerificationMessage, UpdateMessage,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// The largest frame in bytes, both ways: what the official agent keeps to for telemetry, and far beyond any payload that is
/// not a mistake.
pub const MAX_FRAME: usize = 1024 * 1024;

/// A text that is no frame, or a frame that cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Beyond [`MAX_FRAME`].
    #[error("a frame of {size} bytes is beyond the limit of {MAX_FRAME}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// Not an envelope.
    #[error("the frame is not {{\"type\", \"message\"}}: {source}")]
    Envelope {
        /// What JSON says.
        source: serde_json::Error,
    },
    /// The message of a known type does not have that type's form.
    #[error("the message of a {kind} cannot be read: {source}")]
    Message {
        /// The frame's type.
        kind: &'static str,
        /// What JSON says, with the field.
        source: serde_json::Error,
    },
    /// A telemetry frame without the empty line that ends its headers, or with a line that is no header.
    #[error("the telemetry frame's headers cannot be read: {0}")]
    Headers(&'static str),
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    message: T,
}

macro_rules! frames {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($message:ty) = $wire:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant($message),)*
            /// A type that is not known here; its message is dropped.
            Unknown {
                /// The type's name.
                kind: String,
            },
        }

        impl $name {
            /// The type's name on the wire.
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $wire,)*
                    Self::Unknown { kind } => kind,
                }
            }

            /// Reads one frame.
            ///
            /// # Errors
            /// When the text is too large, no envelope, or the message does not have its type's form.
            pub fn decode(text: &str) -> Result<Self, FrameError> {
                if text.len() > MAX_FRAME {
                    return Err(FrameError::TooLarge { size: text.len() });
                }
                let envelope: Incoming<'_> = serde_json::from_str(text).map_err(|source| FrameError::Envelope { source })?;
                let message = envelope.message.map_or("{}", RawValue::get);
                let message = if message == "null" { "{}" } else { message };
                match &*envelope.kind {
                    $($wire => parse(message).map(Self::$variant).map_err(|source| FrameError::Message { kind: $wire, source }),)*
                    kind => Ok(Self::Unknown { kind: kind.to_owned() }),
                }
            }

            /// Writes one frame.
            ///
            /// # Errors
            /// When it would be larger than the other side accepts.
            pub fn encode(&self) -> Result<String, FrameError> {
                let text = match self {
                    $(Self::$variant(message) => serde_json::to_string(&Outgoing { kind: $wire, message }),)*
                    Self::Unknown { kind } => serde_json::to_string(&Outgoing { kind, message: serde_json::Map::new() }),
                };
                let text = text.map_err(|source| FrameError::Envelope { source })?;
                if text.len() > MAX_FRAME { Err(FrameError::TooLarge { size: text.len() }) } else { Ok(text) }
            }
        }
    };
}

frames! {
    /// What the control plane sends over ACS.
    ServerFrame {
        /// Keeps the connection alive and asks for a [`HeartbeatAckRequest`].
        Heartbeat(HeartbeatMessage) = "HeartbeatMessage",
        /// Tasks to start or stop. Shared, since whoever sends one keeps it until it is acknowledged.
        Payload(Arc<PayloadMessage>) = "PayloadMessage",
        /// All tasks that ought to be on this instance.
        TaskManifest(TaskManifestMessage) = "TaskManifestMessage",
        /// Which of the stop candidates really are to be stopped.
        TaskStopVerificationAck(TaskStopVerificationAck) = "TaskStopVerificationAck",
        /// New credentials for a running task.
        IamRoleCredentials(IamRoleCredentialsMessage) = "IAMRoleCredentialsMessage",
        /// A network interface that a task will be given.
        AttachTaskNetworkInterfaces(AttachTaskNetworkInterfacesMessage) = "AttachTaskNetworkInterfacesMessage",
        /// Security groups and interfaces of all machines, or what changed of them; Berth's own.
        NetworkTable(NetworkTableMessage) = "BerthNetworkTableMessage",
        /// A trunk interface for the instance.
        AttachInstanceNetworkInterfaces(AttachInstanceNetworkInterfacesMessage) = "AttachInstanceNetworkInterfacesMessage",
        /// Another attachment, such as a volume, whose arrival is to be reported.
        ConfirmAttachment(ConfirmAttachmentMessage) = "ConfirmAttachmentMessage",
        /// What names answer, or what changed of that; only to agents that asked for it.
        BerthDnsTable(DnsTableMessage) = "BerthDnsTableMessage",
        /// An agent version to download.
        StageUpdate(UpdateMessage) = "StageUpdateMessage",
        /// An agent version to change over to.
        PerformUpdate(UpdateMessage) = "PerformUpdateMessage",
        /// The server is about to close the connection.
        Close(ExceptionMessage) = "CloseMessage",
        /// Something went wrong that has no exception of its own.
        Error(ExceptionMessage) = "ErrorMessage",
        /// The server's own fault.
        ServerException(ExceptionMessage) = "ServerException",
        /// A frame or query that cannot be read.
        BadRequestException(ExceptionMessage) = "BadRequestException",
        /// No such cluster.
        InvalidClusterException(ExceptionMessage) = "InvalidClusterException",
        /// No such container instance.
        InvalidInstanceException(ExceptionMessage) = "InvalidInstanceException",
        /// These credentials may not poll for this instance.
        AccessDeniedException(ExceptionMessage) = "AccessDeniedException",
        /// The container instance is deregistered. In a live session agents ignore it: refuse the next handshake instead.
        InactiveInstanceException(ExceptionMessage) = "InactiveInstanceException",
    }
}

frames! {
    /// What an agent sends over ACS.
    AgentFrame {
        /// Answers a heartbeat.
        HeartbeatAck(HeartbeatAckRequest) = "HeartbeatAckRequest",
        /// The message is taken on.
        Ack(AckRequest) = "AckRequest",
        /// The message is refused.
        Nack(NackRequest) = "NackRequest",
        /// One role's credentials are in place.
        CredentialsAck(IamRoleCredentialsAckRequest) = "IAMRoleCredentialsAckRequest",
        /// Tasks that run here although the manifest does not list them.
        TaskStopVerification(TaskStopVerificationMessage) = "TaskStopVerificationMessage",
        /// A table is wanted whole; Berth's own.
        TableRequest(TableRequest) = "BerthTableRequest",
    }
}

frames! {
    /// What an agent sends over TCS, behind signed headers (see [`crate::telemetry_framing`]).
    TelemetryFrame {
        /// CPU, memory, storage, network and restart figures.
        Metrics(PublishMetricsRequest) = "PublishMetricsRequest",
        /// Container health.
        Health(PublishHealthRequest) = "PublishHealthRequest",
        /// The instance's own state.
        InstanceStatus(PublishInstanceStatusRequest) = "PublishInstanceStatusRequest",
    }
}

frames! {
    /// What the control plane answers over TCS.
    TelemetryAnswer {
        /// Metrics have arrived.
        AckMetrics(AckPublish) = "AckPublishMetric",
        /// Health has arrived.
        AckHealth(AckPublish) = "AckPublishHealth",
        /// Instance status has arrived.
        AckInstanceStatus(AckPublish) = "AckPublishInstanceStatus",
        /// Keeps the connection alive; not answered.
        Heartbeat(HeartbeatMessage) = "HeartbeatMessage",
        /// The server wants no more telemetry.
        StopTelemetrySession(ExceptionMessage) = "StopTelemetrySessionMessage",
        /// The server's own fault.
        ServerException(ExceptionMessage) = "ServerException",
        /// A frame that cannot be read.
        BadRequestException(ExceptionMessage) = "BadRequestException",
        /// A figure that cannot be.
        InvalidParameterException(ExceptionMessage) = "InvalidParameterException",
        /// These credentials may not publish for this instance.
        AccessDeniedException(ExceptionMessage) = "AccessDeniedException",
    }
}

impl TelemetryFrame {
    /// The acknowledgement that an agent waits for; `None` for a type that is not known.
    pub fn answer(&self) -> Option<TelemetryAnswer> {
        let ack = AckPublish::default();
        match self {
            Self::Metrics(_) => Some(TelemetryAnswer::AckMetrics(ack)),
            Self::Health(_) => Some(TelemetryAnswer::AckHealth(ack)),
            Self::InstanceStatus(_) => Some(TelemetryAnswer::AckInstanceStatus(ack)),
            Self::Unknown { .. } => None,
        }
    }
}
