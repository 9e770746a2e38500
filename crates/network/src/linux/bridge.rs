//! `BridgeNetwork`: attachments on one bridge, behind the `Network` port.
//!
//! Calls for one id follow one another, calls for different ids run at once and meet only in the short sections around the
//! shared sockets. All work happens on threads that may block.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use async_trait::async_trait;
use nix::errno::Errno;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use super::config::{BridgeConfig, OpenError};
use super::conntrack;
use super::firewall::{Firewall, HostPort, Target};
use super::forwarding;
use super::link;
use super::namespace;
use super::netlink::{NetlinkError, Socket};
use super::opening;
use super::record::{Record, Records};
use super::reservation::{DynamicPorts, Reservation};
use super::slots::{self, Slots};
use crate::metadata;
use crate::port::{Attachment, AttachmentId, AttachmentKind, Network, NetworkError, PortBinding, PortRequest, Protocol};
use crate::subnet::{AddressPool, Subnet};

/// A network of namespaces on one bridge of this machine. Dropping it changes nothing on the machine but gives back the
/// reservations of ports; opening it again with the same settings takes everything over.
#[derive(Debug, Clone)]
pub struct BridgeNetwork {
    inner: Arc<Inner>,
    attaching: Arc<Semaphore>,
}

/// Attaches that run at once, each on a thread. The kernel takes them one by one for most of their way, so more would only
/// wait there.
const ATTACHES_AT_ONCE: usize = 32;

/// What opening yields.
#[derive(Debug)]
pub(super) struct Parts {
    pub records: Records,
    pub route: Socket,
    pub bridge: String,
    pub bridge_index: u32,
    pub subnet: Subnet,
    pub firewall: Firewall,
    pub addresses: AddressPool,
    pub dynamic_ports: DynamicPorts,
    pub entries: Vec<Entry>,
}

/// A living attachment.
#[derive(Debug)]
pub(super) struct Entry {
    pub record: Record,
    pub reservations: Vec<Reservation>,
}

#[derive(Debug)]
struct Inner {
    netns_dir: PathBuf,
    bridge: String,
    bridge_index: u32,
    subnet: Subnet,
    records: Records,
    route: Mutex<Socket>,
    firewall: Mutex<Firewall>,
    addresses: Mutex<AddressPool>,
    dynamic_ports: Mutex<DynamicPorts>,
    slots: Slots<Entry>,
    closed: AtomicBool,
}

impl From<NetlinkError> for NetworkError {
    fn from(error: NetlinkError) -> Self {
        Self::System(error.to_string())
    }
}

impl BridgeNetwork {
    /// Makes the bridge and the ruleset, or takes them over with all attachments of an earlier life. Blocks for some
    /// milliseconds. Needs `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// [`OpenError`]; what is already there stays as it is.
    pub fn open(config: BridgeConfig) -> Result<Self, OpenError> {
        let parts = opening::open(&config)?;
        let inner = Inner {
            netns_dir: config.netns_dir,
            bridge: parts.bridge,
            bridge_index: parts.bridge_index,
            subnet: parts.subnet,
            records: parts.records,
            route: Mutex::new(parts.route),
            firewall: Mutex::new(parts.firewall),
            addresses: Mutex::new(parts.addresses),
            dynamic_ports: Mutex::new(parts.dynamic_ports),
            slots: Slots::new(parts.entries.into_iter().map(|entry| (entry.record.attachment.id.clone(), entry))),
            closed: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner), attaching: Arc::new(Semaphore::new(ATTACHES_AT_ONCE)) })
    }

    /// The bridge's subnet.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.inner.subnet
    }

    /// The bridge's own address, by which containers reach this machine.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.subnet.gateway()
    }

    /// The bridge's name.
    #[must_use]
    pub fn bridge(&self) -> &str {
        &self.inner.bridge
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let inner = Arc::clone(&self.inner);
        spawn_blocking(move || work(&inner)).await.map_err(|error| NetworkError::System(format!("network thread: {error}")))?
    }
}

#[async_trait]
impl Network for BridgeNetwork {
    async fn attach(&self, id: &AttachmentId, kind: AttachmentKind) -> Result<Attachment, NetworkError> {
        slots::check(id)?;
        let permit = Arc::clone(&self.attaching).acquire_owned().await.expect("it is never closed");
        let (sender, receiver) = oneshot::channel();
        let (inner, id) = (Arc::clone(&self.inner), id.clone());
        // A thread of its own, that ends afterwards: it moves into the new namespace and can never come back to be
        // somebody else's.
        thread::Builder::new()
            .name("berth-attach".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let outcome = inner.attach(&id, kind);
                drop((inner, permit));
                // The caller may have gone; the attachment then waits for its next attach or detach.
                drop(sender.send(outcome));
            })
            .map_err(|error| NetworkError::System(format!("start the attach thread: {error}")))?;
        receiver.await.map_err(|_| NetworkError::System("attach thread: ended early".into()))?
    }

    fn metadata(&self) -> Option<SocketAddrV4> {
        Some(metadata::answered_at(self.gateway()))
    }

    async fn publish(&self, id: &AttachmentId, ports: &[PortRequest]) -> Result<Vec<PortBinding>, NetworkError> {
        let (id, ports) = (id.clone(), ports.to_vec());
        self.blocking(move |inner| inner.with_entry(&id, |inner, entry| inner.publish(entry, &ports))).await
    }

    async fn unpublish(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let id = id.clone();
        self.blocking(move |inner| match inner.with_entry(&id, Inner::unpublish) {
            Err(NetworkError::NoAttachment(_)) => Ok(()),
            other => other,
        })
        .await
    }

    async fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let id = id.clone();
        self.blocking(move |inner| inner.detach(&id)).await
    }

    async fn list(&self) -> Result<Vec<Attachment>, NetworkError> {
        self.blocking(|inner| {
            let attachments = inner.slots.map(|entry| entry.record.attachment.clone());
            Ok(attachments.into_iter().filter(|attachment| namespace::is_held(held(attachment))).collect())
        })
        .await
    }

    async fn shutdown(&self) -> Result<(), NetworkError> {
        self.blocking(Inner::shutdown).await
    }
}

/// The namespace of an attachment of this network: it never makes one without.
fn held(attachment: &Attachment) -> &Path {
    attachment.namespace.as_deref().expect("a bridge network holds a namespace for each attachment")
}

impl Inner {
    fn with_entry<T>(&self, id: &AttachmentId, work: impl FnOnce(&Self, &mut Entry) -> Result<T, NetworkError>) -> Result<T, NetworkError> {
        self.slots.at(id, |place| match place.as_mut() {
            Some(entry) => work(self, entry),
            None => Err(NetworkError::NoAttachment(id.clone())),
        })
    }

    /// Runs on a thread of its own.
    fn attach(&self, id: &AttachmentId, kind: AttachmentKind) -> Result<Attachment, NetworkError> {
        self.slots.at(id, |place| self.attach_at(place, id, kind))
    }

    fn attach_at(&self, place: &mut Option<Entry>, id: &AttachmentId, kind: AttachmentKind) -> Result<Attachment, NetworkError> {
        // With the place locked: `shutdown` first closes, then waits for each place.
        if self.closed.load(Ordering::SeqCst) {
            return Err(NetworkError::System(format!("attach {id}: the network is shut down")));
        }
        if let Some(entry) = place.as_ref() {
            return Ok(entry.record.attachment.clone());
        }
        let address = match kind {
            AttachmentKind::Isolated => None,
            AttachmentKind::Interface => return Err(NetworkError::NoInterfaces),
            AttachmentKind::Bridge => {
                let lease = self.addresses.lock().lease();
                Some(lease.ok_or_else(|| NetworkError::NoFreeAddress { subnet: self.subnet.to_string() })?)
            }
        };
        let namespace = Some(self.netns_dir.join(&id.0));
        let attachment = Attachment { id: id.clone(), kind, namespace, address, bindings: Vec::new(), interface: None };
        match self.connect(&attachment) {
            Ok(record) => {
                *place = Some(Entry { record, reservations: Vec::new() });
                Ok(attachment)
            }
            Err(error) => {
                if let Err(also) = namespace::remove(held(&attachment)) {
                    tracing::warn!(attachment = %id, error = %also, "a namespace of a failed attach is left until the next start");
                }
                if let Some(address) = address {
                    self.addresses.lock().release(address);
                }
                Err(error)
            }
        }
    }

    fn connect(&self, attachment: &Attachment) -> Result<Record, NetworkError> {
        let namespace = namespace::create(held(attachment))?;
        let mut inside = Socket::route()?;
        link::raise_loopback(&mut inside)?;
        forwarding::open_to_unprivileged();
        let mut link = None;
        if let Some(address) = attachment.address {
            link = Some(self.add_pair(&attachment.id, &namespace, address)?);
            link::raise_inner(&mut inside, address, self.subnet)?;
        }
        let record = Record { attachment: attachment.clone(), link };
        self.records.write(&record)?;
        Ok(record)
    }

    /// The host end of a namespace just detached may not be gone yet: the kernel removes it in its own time. So a name that
    /// is taken leads to the next.
    fn add_pair(&self, id: &AttachmentId, namespace: &OwnedFd, address: Ipv4Addr) -> Result<String, NetworkError> {
        const ATTEMPTS: u32 = 64;
        for attempt in 0..ATTEMPTS {
            let name = link_name(&self.bridge, id, attempt);
            match link::add_pair(&mut self.route.lock(), &name, self.bridge_index, namespace.as_fd(), address) {
                Ok(()) => return Ok(name),
                Err(error) if error.errno == Errno::EEXIST => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NetworkError::System(format!("make the veth pair of {id}: {ATTEMPTS} names are taken")))
    }

    fn publish(&self, entry: &mut Entry, ports: &[PortRequest]) -> Result<Vec<PortBinding>, NetworkError> {
        let attachment = &entry.record.attachment;
        let address = attachment
            .address
            .ok_or_else(|| NetworkError::System(format!("publish ports of {}: an isolated namespace has no address", attachment.id)))?;
        if let Some(request) = ports.iter().find(|request| request.container_port == 0 || request.host_port == Some(0)) {
            return Err(NetworkError::System(format!("publish ports of {}: port 0 in {request:?}", attachment.id)));
        }
        // Each binding that is there answers one request at most: two requests for a dynamic port mean two ports.
        let mut unclaimed = attachment.bindings.clone();
        let mut answers = vec![None; ports.len()];
        for exact in [true, false] {
            for (answer, request) in answers.iter_mut().zip(ports).filter(|(_, request)| request.host_port.is_some() == exact) {
                let position = unclaimed.iter().position(|binding| answers_request(binding, request));
                *answer = position.map(|position| unclaimed.swap_remove(position));
            }
        }
        let mut reservations = Vec::new();
        let mut added = Vec::new();
        let mut bindings = Vec::with_capacity(ports.len());
        for (answer, request) in answers.into_iter().zip(ports) {
            let PortRequest { container_port, protocol, .. } = *request;
            let binding = match answer {
                Some(binding) => binding,
                None => {
                    let reservation = match request.host_port {
                        Some(port) => Reservation::take(protocol, port)?,
                        None => self.dynamic_ports.lock().take(protocol)?,
                    };
                    let binding = PortBinding { container_port, host_port: reservation.port(), protocol };
                    reservations.push(reservation);
                    added.push(binding);
                    binding
                }
            };
            bindings.push(binding);
        }
        self.open_ports(entry, address, &added)?;
        entry.reservations.extend(reservations);
        Ok(bindings)
    }

    /// Puts bindings into the kernel and on record, all or none.
    fn open_ports(&self, entry: &mut Entry, address: Ipv4Addr, added: &[PortBinding]) -> Result<(), NetworkError> {
        if added.is_empty() {
            return Ok(());
        }
        let elements: Vec<(HostPort, Target)> = added.iter().map(|b| ((b.protocol, b.host_port), (address, b.container_port))).collect();
        self.firewall.lock().publish(&elements)?;
        let before = entry.record.attachment.bindings.len();
        entry.record.attachment.bindings.extend_from_slice(added);
        if let Err(error) = self.records.write(&entry.record) {
            entry.record.attachment.bindings.truncate(before);
            let ports: Vec<HostPort> = elements.iter().map(|(port, _)| *port).collect();
            self.firewall.lock().unpublish(&ports)?;
            return Err(error);
        }
        forget_udp(added);
        Ok(())
    }

    fn unpublish(&self, entry: &mut Entry) -> Result<(), NetworkError> {
        let bindings = std::mem::take(&mut entry.record.attachment.bindings);
        if bindings.is_empty() {
            return Ok(());
        }
        let ports: Vec<HostPort> = bindings.iter().map(|binding| (binding.protocol, binding.host_port)).collect();
        if let Err(error) = self.firewall.lock().unpublish(&ports) {
            entry.record.attachment.bindings = bindings;
            return Err(error.into());
        }
        entry.reservations.clear();
        forget_udp(&bindings);
        self.records.write(&entry.record).inspect_err(|_| entry.record.attachment.bindings = bindings)
    }

    fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        self.slots.at(id, |place| {
            if let Some(entry) = place.as_mut() {
                self.disconnect(entry)?;
                *place = None;
            }
            Ok(())
        })
    }

    /// The namespace alone is dropped: the kernel then removes the veth pair by itself, while deleting a link waits for
    /// tens of milliseconds.
    fn disconnect(&self, entry: &mut Entry) -> Result<(), NetworkError> {
        let attachment = &mut entry.record.attachment;
        let bindings = std::mem::take(&mut attachment.bindings);
        let ports: Vec<HostPort> = bindings.iter().map(|binding| (binding.protocol, binding.host_port)).collect();
        if let Err(error) = self.firewall.lock().unpublish(&ports) {
            attachment.bindings = bindings;
            return Err(error.into());
        }
        entry.reservations.clear();
        forget_udp(&bindings);
        namespace::remove(held(attachment))?;
        self.records.remove(&attachment.id)?;
        if let Some(address) = attachment.address.take() {
            self.addresses.lock().release(address);
        }
        Ok(())
    }

    fn shutdown(&self) -> Result<(), NetworkError> {
        if !self.slots.close(&self.closed) {
            return Ok(());
        }
        self.firewall.lock().remove()?;
        link::delete(&mut self.route.lock(), &self.bridge)?;
        self.records.remove_subnet()?;
        // Somebody else's file in it is a reason to leave it, not to fail.
        drop(fs::remove_dir(&self.netns_dir));
        Ok(())
    }
}

fn answers_request(binding: &PortBinding, request: &PortRequest) -> bool {
    binding.container_port == request.container_port
        && binding.protocol == request.protocol
        && request.host_port.is_none_or(|port| port == binding.host_port)
}

fn forget_udp(bindings: &[PortBinding]) {
    let ports: BTreeSet<u16> = bindings.iter().filter(|b| b.protocol == Protocol::Udp).map(|b| b.host_port).collect();
    if let Err(error) = conntrack::forget_udp(&ports) {
        tracing::warn!(%error, ?ports, "UDP clients that keep sending may miss that a port changed hands");
    }
}

/// 13 characters; a link's name may have 15.
fn link_name(bridge: &str, id: &AttachmentId, attempt: u32) -> String {
    let mut hasher = DefaultHasher::new();
    (bridge, id, attempt).hash(&mut hasher);
    format!("v{:012x}", hasher.finish() >> 16)
}
