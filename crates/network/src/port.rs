//! The `Network` port: what the agent asks of whatever gives containers their network.
//!
//! An attachment is one network namespace with what leads to it. Nothing here may know of containers, images or tasks.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use async_trait::async_trait;

use crate::interface::{InterfaceError, TaskInterface};
use crate::security_group::{NetworkTable, TableError};

/// The agent's name of an attachment, unique on this machine; part of paths: only `[a-z0-9-]`, at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct AttachmentId(pub String);

impl std::fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// What an attachment is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum AttachmentKind {
    /// A namespace on this machine's bridge, with an address, a default route and masquerading (ECS `bridge`).
    Bridge,
    /// A namespace with loopback only (ECS `none`).
    Isolated,
    /// A namespace with an interface of its own that the control plane has chosen (ECS `awsvpc`).
    Interface,
}

/// A port to publish on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortRequest {
    /// Port inside the namespace.
    pub container_port: u16,
    /// Port on the machine; `None`: one from the dynamic range.
    pub host_port: Option<u16>,
    /// Protocol.
    pub protocol: Protocol,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortBinding {
    /// Port inside the namespace.
    pub container_port: u16,
    /// Port on the machine.
    pub host_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A connected namespace.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// Its name.
    pub id: AttachmentId,
    /// What it is connected to.
    pub kind: AttachmentKind,
    /// The namespace, by a path that stays valid until `detach`. `None`: whatever runs the container connects it, and publishes the ports
    /// that are kept free here.
    pub namespace: Option<PathBuf>,
    /// Its address ([`AttachmentKind::Bridge`], [`AttachmentKind::Interface`]).
    pub address: Option<Ipv4Addr>,
    /// Its published ports.
    pub bindings: Vec<PortBinding>,
    /// What it was made of ([`AttachmentKind::Interface`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Box<TaskInterface>>,
}

/// Why a network operation failed. `Display` names the step and the port or address at fault.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Somebody else uses the wished port. The text is Docker's, which ECS users know from stopped reasons.
    #[error("driver failed programming external connectivity: Bind for 0.0.0.0:{port} failed: port is already allocated")]
    PortInUse {
        /// The port on the machine.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// No port of the dynamic range is free.
    #[error("no free port in the dynamic host port range {first}-{last}")]
    NoFreePort {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
    },
    /// All addresses of the bridge's subnet are in use.
    #[error("no free address in {subnet}")]
    NoFreeAddress {
        /// The subnet in CIDR form.
        subnet: String,
    },
    /// The interface cannot be made as it is described.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The table cannot be used.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Another task of this machine has the address.
    #[error("address {address} of network interface {interface}: attachment {other} has it")]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// The interface that was to have it.
        interface: String,
        /// Who has it.
        other: AttachmentId,
    },
    /// This network gives tasks no interfaces of their own.
    #[error("network mode awsvpc: this container instance's network has no interfaces for tasks")]
    NoInterfaces,
    /// There is no such attachment.
    #[error("no such network attachment: {0}")]
    NoAttachment(AttachmentId),
    /// The kernel refuses; the text says at which step.
    #[error("{0}")]
    System(String),
}

/// Gives namespaces their network. All methods may be called concurrently. Published ports and namespaces outlive the
/// agent's process; a new agent finds them by `list`.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Makes a namespace and connects it, to the bridge or to nothing. With an id that is already attached: returns that attachment.
    ///
    /// # Errors
    /// [`NetworkError`]; then nothing is left.
    async fn attach(&self, id: &AttachmentId, kind: AttachmentKind) -> Result<Attachment, NetworkError>;

    /// Where whoever answers the task metadata endpoint must listen: what containers send to [`crate::metadata::ASKED`] arrives there, with
    /// their own addresses as senders, and containers in the machine's own network can ask there as well. The same place after a restart
    /// while there are attachments. `None`: containers do not reach it.
    fn metadata(&self) -> Option<SocketAddrV4> {
        None
    }

    /// Whether tasks can have interfaces of their own.
    fn has_interfaces(&self) -> bool {
        false
    }

    /// Makes a namespace with an interface, which passes what its security groups allow from its first moment. With an id that is already
    /// attached: returns that attachment.
    ///
    /// # Errors
    /// [`NetworkError`]; then nothing is left. [`NetworkError::NoInterfaces`] where there is no such thing.
    async fn attach_interface(&self, id: &AttachmentId, interface: &TaskInterface) -> Result<Attachment, NetworkError> {
        let _ = (id, interface);
        Err(NetworkError::NoInterfaces)
    }

    /// Enforces a table of security groups in the place of the one before, in one step, and knows the ways to interfaces of other
    /// machines. Connections that were let in go on. The table outlives the agent's process.
    ///
    /// # Errors
    /// [`NetworkError`]; then the groups of the table before hold, unless the text tells of what comes after them: keeping the table, and ways to
    /// other machines. Applying it again goes on. [`NetworkError::NoInterfaces`] where there is no such thing.
    async fn apply_table(&self, table: &NetworkTable) -> Result<(), NetworkError> {
        let _ = table;
        Err(NetworkError::NoInterfaces)
    }

    /// Publishes ports, all or none. What is already published with the same numbers is left as it is.
    ///
    /// # Errors
    /// [`NetworkError`]; then none of the wished ports is published.
    async fn publish(&self, id: &AttachmentId, ports: &[PortRequest]) -> Result<Vec<PortBinding>, NetworkError>;

    /// Lets whatever runs the container bind the published ports, from now on until `unpublish`; to be called just before each start.
    /// Nothing to do for a network that publishes by itself.
    ///
    /// # Errors
    /// [`NetworkError`].
    async fn hand_over(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let _ = id;
        Ok(())
    }

    /// Takes all published ports back.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    async fn unpublish(&self, id: &AttachmentId) -> Result<(), NetworkError>;

    /// Takes ports back and lets the namespace go. Unknown ids are no error.
    ///
    /// # Errors
    /// [`NetworkError::System`]; calling again goes on.
    async fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError>;

    /// All attachments, in order of their ids; also those of an earlier life of the agent.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    async fn list(&self) -> Result<Vec<Attachment>, NetworkError>;

    /// Removes what is common to all attachments (bridge, nft table) if none is left. For `berth up --ephemeral` and `berth down`.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    async fn shutdown(&self) -> Result<(), NetworkError>;
}
