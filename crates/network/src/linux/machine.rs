//! `MachineNetwork`: what containers of one machine can be connected to, behind one `Network` port: its bridge, and interfaces of tasks.

use std::net::SocketAddrV4;

use async_trait::async_trait;

use super::bridge::BridgeNetwork;
use super::interfaces::InterfaceNetwork;
use crate::interface::TaskInterface;
use crate::port::{Attachment, AttachmentId, AttachmentKind, Network, NetworkError, PortBinding, PortRequest};
use crate::security_group::NetworkTable;

/// A bridge and interfaces of tasks, on one machine. An id is either's.
#[derive(Debug, Clone)]
pub struct MachineNetwork {
    bridge: BridgeNetwork,
    interfaces: Option<InterfaceNetwork>,
}

impl MachineNetwork {
    /// Of its two parts; without the second tasks have no interfaces here.
    #[must_use]
    pub fn new(bridge: BridgeNetwork, interfaces: Option<InterfaceNetwork>) -> Self {
        Self { bridge, interfaces }
    }
}

#[async_trait]
impl Network for MachineNetwork {
    async fn attach(&self, id: &AttachmentId, kind: AttachmentKind) -> Result<Attachment, NetworkError> {
        self.bridge.attach(id, kind).await
    }

    fn metadata(&self) -> Option<SocketAddrV4> {
        self.bridge.metadata()
    }

    fn has_interfaces(&self) -> bool {
        self.interfaces.is_some()
    }

    async fn attach_interface(&self, id: &AttachmentId, interface: &TaskInterface) -> Result<Attachment, NetworkError> {
        self.interfaces.as_ref().ok_or(NetworkError::NoInterfaces)?.attach(id, interface).await
    }

    async fn apply_table(&self, table: &NetworkTable) -> Result<(), NetworkError> {
        self.interfaces.as_ref().ok_or(NetworkError::NoInterfaces)?.apply(table).await
    }

    /// Ports of an interface are reached at its own address: there is nothing to publish.
    async fn publish(&self, id: &AttachmentId, ports: &[PortRequest]) -> Result<Vec<PortBinding>, NetworkError> {
        self.bridge.publish(id, ports).await
    }

    async fn unpublish(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        self.bridge.unpublish(id).await
    }

    async fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        self.bridge.detach(id).await?;
        match &self.interfaces {
            Some(interfaces) => interfaces.detach(id).await,
            None => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<Attachment>, NetworkError> {
        let mut all = self.bridge.list().await?;
        if let Some(interfaces) = &self.interfaces {
            all.extend(interfaces.list().await?);
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    async fn shutdown(&self) -> Result<(), NetworkError> {
        self.bridge.shutdown().await?;
        match &self.interfaces {
            Some(interfaces) => interfaces.shutdown().await,
            None => Ok(()),
        }
    }
}
