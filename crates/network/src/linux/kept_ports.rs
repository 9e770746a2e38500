//! The `Network` port for a runtime that has networks of its own and publishes ports itself (Docker): host ports are chosen and kept free
//! here, and that is all. Needs no root.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::record::{Record, Records, RecordsError};
use super::reservation::{DynamicPorts, Reservation};
use crate::port::{Attachment, AttachmentId, AttachmentKind, Network, NetworkError, PortBinding, PortRequest, Protocol};

/// Why the ports cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct KeptPortsError(#[from] RecordsError);

/// Host ports, kept for a runtime.
#[derive(Debug, Clone)]
pub struct KeptPorts {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    records: Records,
    dynamic: DynamicPorts,
    entries: BTreeMap<AttachmentId, Entry>,
}

#[derive(Debug)]
struct Entry {
    attachment: Attachment,
    /// Of an earlier life there are none: the runtime has those ports, or their container is gone.
    reservations: Vec<Reservation>,
}

impl KeptPorts {
    /// Opens the state directory, one process at a time, and finds the ports of an earlier life again. Ports that a task leaves open come
    /// from `dynamic_ports`.
    ///
    /// # Errors
    /// [`KeptPortsError`].
    pub fn open(state_dir: &Path, dynamic_ports: RangeInclusive<u16>) -> Result<KeptPorts, KeptPortsError> {
        let records = Records::open(state_dir)?;
        let entry = |record: Record| (record.attachment.id.clone(), Entry { attachment: record.attachment, reservations: Vec::new() });
        let entries: BTreeMap<_, _> = records.read()?.into_iter().map(entry).collect();
        let used: Vec<u16> = entries.values().flat_map(|entry| entry.attachment.bindings.iter().map(|binding| binding.host_port)).collect();
        let dynamic = DynamicPorts::new(dynamic_ports, used);
        Ok(KeptPorts { inner: Arc::new(Mutex::new(Inner { records, dynamic, entries })) })
    }

    /// Files and sockets are waited for on a thread where that may be.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&mut inner.lock())).await;
        done.map_err(|error| NetworkError::System(format!("keep ports: {error}")))?
    }
}

#[async_trait]
impl Network for KeptPorts {
    async fn attach(&self, id: &AttachmentId, kind: AttachmentKind) -> Result<Attachment, NetworkError> {
        let id = id.clone();
        self.blocking(move |inner| inner.attach(id, kind)).await
    }

    async fn publish(&self, id: &AttachmentId, ports: &[PortRequest]) -> Result<Vec<PortBinding>, NetworkError> {
        let (id, ports) = (id.clone(), ports.to_vec());
        self.blocking(move |inner| inner.publish(&id, &ports)).await
    }

    async fn hand_over(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let id = id.clone();
        self.blocking(move |inner| {
            let entry = inner.entries.get_mut(&id).ok_or_else(|| NetworkError::NoAttachment(id.clone()))?;
            // What cannot be shared is free for a moment, until the runtime has bound it.
            entry.reservations.retain(Reservation::share);
            Ok(())
        })
        .await
    }

    async fn unpublish(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let id = id.clone();
        self.blocking(move |inner| {
            let Some(entry) = inner.entries.get_mut(&id) else { return Ok(()) };
            let attachment = Attachment { bindings: Vec::new(), ..entry.attachment.clone() };
            inner.records.write(&Record { attachment: attachment.clone(), link: None })?;
            *entry = Entry { attachment, reservations: Vec::new() };
            Ok(())
        })
        .await
    }

    async fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let id = id.clone();
        self.blocking(move |inner| {
            inner.records.remove(&id)?;
            inner.entries.remove(&id);
            Ok(())
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Attachment>, NetworkError> {
        self.blocking(|inner| Ok(inner.entries.values().map(|entry| entry.attachment.clone()).collect())).await
    }

    async fn shutdown(&self) -> Result<(), NetworkError> {
        // Nothing is common to attachments.
        Ok(())
    }
}

impl Inner {
    fn attach(&mut self, id: AttachmentId, kind: AttachmentKind) -> Result<Attachment, NetworkError> {
        if let Some(entry) = self.entries.get(&id) {
            return Ok(entry.attachment.clone());
        }
        let attachment = Attachment { id: id.clone(), kind, namespace: None, address: None, bindings: Vec::new(), interface: None };
        self.records.write(&Record { attachment: attachment.clone(), link: None })?;
        self.entries.insert(id, Entry { attachment: attachment.clone(), reservations: Vec::new() });
        Ok(attachment)
    }

    fn publish(&mut self, id: &AttachmentId, ports: &[PortRequest]) -> Result<Vec<PortBinding>, NetworkError> {
        let entry = self.entries.get(id).ok_or_else(|| NetworkError::NoAttachment(id.clone()))?;
        if entry.attachment.kind == AttachmentKind::Isolated {
            return Err(NetworkError::System(format!("publish ports of {id}: it is isolated")));
        }
        if let Some(request) = ports.iter().find(|request| request.container_port == 0 || request.host_port == Some(0)) {
            return Err(NetworkError::System(format!("publish ports of {id}: port 0 in {request:?}")));
        }
        let mut unclaimed = entry.attachment.bindings.clone();
        let (mut bindings, mut added, mut reservations) = (Vec::new(), Vec::new(), Vec::new());
        for request in ports {
            let PortRequest { container_port, protocol, host_port } = *request;
            let same = |b: &PortBinding| {
                (b.container_port, b.protocol) == (container_port, protocol) && host_port.is_none_or(|port| port == b.host_port)
            };
            if let Some(position) = unclaimed.iter().position(same) {
                bindings.push(unclaimed.swap_remove(position));
                continue;
            }
            let reservation = match host_port {
                Some(port) if self.is_given(protocol, port) => return Err(NetworkError::PortInUse { port, protocol }),
                Some(port) => Reservation::take(protocol, port)?,
                None => self.take_dynamic(protocol)?,
            };
            let binding = PortBinding { container_port, host_port: reservation.port(), protocol };
            reservations.push(reservation);
            added.push(binding);
            bindings.push(binding);
        }
        let entry = self.entries.get_mut(id).ok_or_else(|| NetworkError::NoAttachment(id.clone()))?;
        let mut attachment = entry.attachment.clone();
        attachment.bindings.extend(added);
        self.records.write(&Record { attachment: attachment.clone(), link: None })?;
        entry.attachment = attachment;
        entry.reservations.extend(reservations);
        Ok(bindings)
    }

    /// A container between two starts has nobody who binds its ports, and they are its own all the same.
    fn is_given(&self, protocol: Protocol, port: u16) -> bool {
        self.entries.values().flat_map(|entry| &entry.attachment.bindings).any(|b| (b.protocol, b.host_port) == (protocol, port))
    }

    fn take_dynamic(&mut self, protocol: Protocol) -> Result<Reservation, NetworkError> {
        // Held until one is found, so that each try brings another port.
        let mut refused = Vec::new();
        loop {
            let reservation = self.dynamic.take(protocol)?;
            if !self.is_given(protocol, reservation.port()) {
                return Ok(reservation);
            }
            refused.push(reservation);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    use super::*;

    fn id(name: &str) -> AttachmentId {
        AttachmentId(name.to_owned())
    }

    fn request(host_port: Option<u16>, protocol: Protocol) -> PortRequest {
        PortRequest { container_port: 80, host_port, protocol }
    }

    fn open(folder: &Path) -> KeptPorts {
        KeptPorts::open(folder, super::super::dynamic_ports()).expect("it opens")
    }

    fn bind(port: u16) -> std::io::Result<TcpListener> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
    }

    #[tokio::test]
    async fn a_port_is_kept_from_all_until_it_is_handed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let network = open(folder.path());
        let attachment = network.attach(&id("a"), AttachmentKind::Bridge).await.expect("attach");
        assert_eq!((attachment.namespace, attachment.address), (None, None));
        let wished = [request(None, Protocol::Tcp), request(None, Protocol::Udp)];
        let bindings = network.publish(&id("a"), &wished).await.expect("publish");
        assert_eq!(network.publish(&id("a"), &wished).await.expect("again"), bindings, "what is published stays");
        let (tcp, udp) = (bindings[0].host_port, bindings[1].host_port);
        assert!(bind(tcp).is_err() && UdpSocket::bind((Ipv4Addr::UNSPECIFIED, udp)).is_err());
        network.hand_over(&id("a")).await.expect("hand over");
        let server = bind(tcp).expect("the runtime binds it");
        let _datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, udp)).expect("the runtime binds it");
        assert!(bind(tcp).is_err(), "and nobody else");
        drop(server);
        assert!(bind(tcp).is_ok(), "a second start binds it again");
        network.attach(&id("b"), AttachmentKind::Bridge).await.expect("attach");
        let taken = network.publish(&id("b"), &[request(Some(tcp), Protocol::Tcp)]).await;
        assert!(matches!(taken, Err(NetworkError::PortInUse { port, .. }) if port == tcp), "{taken:?}");
        network.detach(&id("a")).await.expect("detach");
        network.publish(&id("b"), &[request(Some(tcp), Protocol::Tcp)]).await.expect("it is free again");
    }

    #[tokio::test]
    async fn a_port_of_a_process_is_refused_with_dockers_words_and_nothing_is_published() {
        let folder = tempfile::tempdir().expect("a folder");
        let network = open(folder.path());
        let process = bind(0).expect("a free port");
        let port = process.local_addr().expect("an address").port();
        network.attach(&id("a"), AttachmentKind::Bridge).await.expect("attach");
        let refused = network.publish(&id("a"), &[request(None, Protocol::Tcp), request(Some(port), Protocol::Tcp)]).await;
        let text = refused.expect_err("the port is in use").to_string();
        assert!(text.ends_with(&format!("Bind for 0.0.0.0:{port} failed: port is already allocated")), "{text}");
        assert_eq!(network.list().await.expect("list")[0].bindings, []);
        network.attach(&id("alone"), AttachmentKind::Isolated).await.expect("attach");
        assert!(network.publish(&id("alone"), &[request(None, Protocol::Tcp)]).await.is_err());
        assert!(matches!(network.publish(&id("nobody"), &[]).await, Err(NetworkError::NoAttachment(_))));
    }

    #[tokio::test]
    async fn an_earlier_life_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let network = open(folder.path());
        network.attach(&id("a"), AttachmentKind::Bridge).await.expect("attach");
        let binding = network.publish(&id("a"), &[request(None, Protocol::Tcp)]).await.expect("publish")[0];
        assert!(KeptPorts::open(folder.path(), 1..=2).is_err(), "one process at a time");
        drop(network);
        let network = open(folder.path());
        assert_eq!(network.list().await.expect("list")[0].bindings, [binding]);
        network.attach(&id("b"), AttachmentKind::Bridge).await.expect("attach");
        let taken = network.publish(&id("b"), &[request(Some(binding.host_port), Protocol::Tcp)]).await;
        assert!(matches!(taken, Err(NetworkError::PortInUse { .. })), "its container may be between two starts");
        network.unpublish(&id("a")).await.expect("unpublish");
        network.publish(&id("b"), &[request(Some(binding.host_port), Protocol::Tcp)]).await.expect("it is free");
    }
}
