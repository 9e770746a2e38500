//! `InterfaceNetwork`: tasks with interfaces of their own, routed by this machine and judged by security groups.
//!
//! Chooses nothing: addresses, hardware addresses and groups come from the control plane. All work happens on threads that may block.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use super::config::OpenError;
use super::enforcement::Enforcement;
use super::forgetting::Forgetting;
use super::namespace;
use super::netlink::{NetlinkError, Socket};
use super::peers::{Peers, remote};
use super::public_addresses::PublicAddresses;
use super::record::{Record, Records};
use super::ruleset::{fingerprint, interface_rules, referenced, rules};
use super::shortcut::{self, End, Shortcuts};
use super::slots::{self, Slots};
use super::{forwarding, link, task_link};
use crate::interface::TaskInterface;
use crate::port::{Attachment, AttachmentId, AttachmentKind, NetworkError};
use crate::security_group::NetworkTable;

/// Settings of an [`InterfaceNetwork`].
#[derive(Debug, Clone)]
pub struct InterfaceConfig {
    /// Tells the networks of one machine apart: 1 to 12 of `[a-z0-9]`. The nft table is called `berth_<name>_tasks`.
    pub name: String,
    /// Where records of attachments and the table are kept; one process at a time.
    pub state_dir: PathBuf,
    /// Where namespaces are held; a directory of its own that does not outlive the machine. What lies in it without a record is removed at
    /// opening.
    pub netns_dir: PathBuf,
    /// Where this machine answers what tasks ask of the task metadata endpoint; nowhere if none.
    pub metadata: Option<SocketAddrV4>,
    /// Whether connections that move much between two tasks take a shorter way, where the kernel has one.
    pub shortcuts: bool,
    /// How often these take the long way for a moment, so that connection tracking sees that they live.
    pub sweep_every: Duration,
}

impl InterfaceConfig {
    /// Without a metadata endpoint, and with the shorter way, which is left for a moment once a minute.
    #[must_use]
    pub fn new(name: &str, state_dir: PathBuf, netns_dir: PathBuf) -> Self {
        Self { name: name.to_owned(), state_dir, netns_dir, metadata: None, shortcuts: true, sweep_every: shortcut::SWEEP }
    }
}

/// A network of tasks' interfaces. Dropping it changes nothing on the machine; opening it again takes everything over.
#[derive(Debug, Clone)]
pub struct InterfaceNetwork {
    inner: Arc<Inner>,
    attaching: Arc<Semaphore>,
}

/// Attaches that run at once, each on a thread; the kernel takes them one by one for most of their way.
const ATTACHES_AT_ONCE: usize = 32;

#[derive(Debug)]
struct Inner {
    netns_dir: PathBuf,
    prefix: String,
    records: Records,
    route: Mutex<Socket>,
    judged: Arc<Mutex<Judged>>,
    mark: u16,
    forgetting: Forgetting,
    slots: Slots<Record>,
    /// Locked before what is judged.
    shortcuts: Arc<Mutex<Shortcuts>>,
    /// Tells the thread that looks at links of another task; with this end it ends.
    another: SyncSender<()>,
    closed: AtomicBool,
}

/// What is enforced, and what it follows from.
#[derive(Debug)]
struct Judged {
    enforcement: Enforcement,
    table: NetworkTable,
    /// By link.
    interfaces: BTreeMap<String, (AttachmentId, TaskInterface)>,
}

impl InterfaceNetwork {
    /// Makes the ruleset, or takes it over with all attachments of an earlier life. Blocks for some milliseconds. Needs `CAP_NET_ADMIN` and
    /// `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// [`OpenError`]; what is already there stays as it is.
    pub fn open(config: InterfaceConfig) -> Result<Self, OpenError> {
        let fits = (1..=12).contains(&config.name.len());
        if !fits || !config.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err(OpenError::Name(config.name.chars().take(64).collect()));
        }
        let records = Records::open(&config.state_dir)?;
        let prefix = prefix(&config.name);
        let kept = take_over(&config.netns_dir, &records)?;
        let mut route = Socket::route()?;
        forwarding::ensure_v4()?;
        let table = records.table();
        let interfaces: BTreeMap<_, _> = kept.iter().filter_map(judged).collect();
        let ruleset = rules(&table, interfaces.iter().map(|(link, (_, interface))| (link.as_str(), interface)));
        let enforcement = Enforcement::open(&format!("berth_{}_tasks", config.name), &prefix, config.metadata, ruleset)?;
        for (link, (id, interface)) in &interfaces {
            // What an earlier life of the agent left there goes by what only that one knew.
            let raised = shortcut::clear(&mut route, link).and_then(|()| task_link::raise_outer(&mut route, link, interface));
            if let Err(error) = raised {
                tracing::warn!(attachment = %id, link, %error, "a task's link is broken; it has no network");
            }
        }
        let mark = mark(&config.name);
        let judged = Judged { enforcement, table, interfaces };
        let public = interfaces_of(&judged).filter_map(|interface| interface.public_address).collect();
        PublicAddresses::new(mark).replace(&mut route, &public)?;
        let peers = Peers::new(judged.table.machine.as_ref(), mark);
        if let Err(error) = peers.clean(&mut route).and_then(|()| peers.apply(&mut route, &judged.remote())) {
            tracing::warn!(%error, "tasks of other machines are not all reached");
        }
        let living = interfaces_of(&judged).flat_map(occupied).collect();
        let forgetting = Forgetting::open(living);
        let (another, news) = sync_channel(1);
        let inner = Inner {
            netns_dir: config.netns_dir,
            prefix,
            records,
            route: Mutex::new(route),
            judged: Arc::new(Mutex::new(judged)),
            mark,
            forgetting,
            slots: Slots::new(kept.into_iter().map(|record| (record.attachment.id.clone(), record))),
            shortcuts: Arc::new(Mutex::new(Shortcuts::new(config.sweep_every))),
            another,
            closed: AtomicBool::new(false),
        };
        if config.shortcuts {
            watch(Arc::downgrade(&inner.shortcuts), Arc::downgrade(&inner.judged), news)?;
        }
        Ok(Self { inner: Arc::new(inner), attaching: Arc::new(Semaphore::new(ATTACHES_AT_ONCE)) })
    }

    /// See [`crate::port::Network::attach_interface`].
    ///
    /// # Errors
    /// [`NetworkError`]; then nothing is left.
    pub async fn attach(&self, id: &AttachmentId, interface: &TaskInterface) -> Result<Attachment, NetworkError> {
        slots::check(id)?;
        interface.check()?;
        let permit = Arc::clone(&self.attaching).acquire_owned().await.expect("it is never closed");
        let (sender, receiver) = oneshot::channel();
        let (inner, id, interface) = (Arc::clone(&self.inner), id.clone(), interface.clone());
        // A thread of its own, that ends afterwards: it moves into the new namespace and can never come back.
        thread::Builder::new()
            .name("berth-attach".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let outcome = inner.slots.at(&id, |place| inner.attach(place, &id, interface));
                drop((inner, permit));
                // The caller may have gone; the attachment then waits for its next attach or detach.
                drop(sender.send(outcome));
            })
            .map_err(|error| NetworkError::System(format!("start the attach thread: {error}")))?;
        receiver.await.map_err(|_| NetworkError::System("attach thread: ended early".into()))?
    }

    /// See [`crate::port::Network::apply_table`].
    ///
    /// # Errors
    /// [`NetworkError`]; then the table before holds.
    pub async fn apply(&self, table: &NetworkTable) -> Result<(), NetworkError> {
        table.check()?;
        let table = table.clone();
        self.blocking(move |inner| inner.apply(table)).await
    }

    /// Takes an interface away; unknown ids are no error.
    ///
    /// # Errors
    /// [`NetworkError::System`]; calling again goes on.
    pub async fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let id = id.clone();
        self.blocking(move |inner| inner.detach(&id)).await
    }

    /// All attachments, in order of their ids.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    pub async fn list(&self) -> Result<Vec<Attachment>, NetworkError> {
        self.blocking(|inner| {
            let attachments = inner.slots.map(|record| record.attachment.clone());
            Ok(attachments.into_iter().filter(|attachment| namespace::is_held(held(attachment))).collect())
        })
        .await
    }

    /// Removes what is common to all attachments if none is left.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    pub async fn shutdown(&self) -> Result<(), NetworkError> {
        self.blocking(Inner::shutdown).await
    }

    /// How many connections between tasks take the shorter way now, each direction counted; `None` if the kernel has no such way.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    pub async fn shortcuts(&self) -> Result<Option<usize>, NetworkError> {
        self.blocking(|inner| Ok(inner.shortcuts.lock().count())).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let inner = Arc::clone(&self.inner);
        spawn_blocking(move || work(&inner)).await.map_err(|error| NetworkError::System(format!("network thread: {error}")))?
    }
}

/// Has a thread let what moves much between two tasks take a shorter way, as long as the network is there, of which it keeps nothing else: as
/// soon as that is dropped it may be opened again.
fn watch(shortcuts: Weak<Mutex<Shortcuts>>, judged: Weak<Mutex<Judged>>, another: Receiver<()>) -> Result<(), NetworkError> {
    let end = |interface: &TaskInterface| End { address: interface.address, hardware: interface.mac.0 };
    let look = move || {
        let (shortcuts, judged) = shortcuts.upgrade().zip(judged.upgrade())?;
        let mut shortcuts = shortcuts.lock();
        let ends: BTreeMap<_, _> = judged.lock().interfaces.iter().map(|(link, (_, interface))| (link.clone(), end(interface))).collect();
        // One alone has nobody here to send to.
        let are_several = ends.len() > 1;
        if are_several {
            shortcuts.look(&ends, Instant::now());
        }
        Some(are_several)
    };
    let work = move || {
        while let Some(are_several) = look() {
            let news = if are_several { another.recv_timeout(shortcut::EVERY) } else { another.recv().map_err(RecvTimeoutError::from) };
            if news == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("berth-shortcut".into()).stack_size(256 << 10).spawn(work);
    thread.map(drop).map_err(|error| NetworkError::System(format!("start the thread that looks at tasks' links: {error}")))
}

/// How the names of a network's links begin: five characters, so that those of several networks on one machine differ.
fn prefix(name: &str) -> String {
    format!("t{:04x}", mark(name))
}

/// Tells the networks of one machine apart where a name has no room.
fn mark(name: &str) -> u16 {
    (fingerprint(name.as_bytes()) & 0xffff) as u16
}

/// Keeps records whose namespace is still held; removes other records, and namespaces without one.
fn take_over(netns_dir: &Path, records: &Records) -> Result<Vec<Record>, OpenError> {
    let system = |step: &str, error: std::io::Error| NetworkError::System(format!("{step} {}: {error}", netns_dir.display()));
    fs::create_dir_all(netns_dir).map_err(|error| system("make the namespace directory", error))?;
    let mut kept = Vec::new();
    for record in records.read()? {
        let held = |path: &Path| path.parent() == Some(netns_dir) && namespace::is_held(path);
        if record.attachment.namespace.as_deref().is_some_and(held) && judged(&record).is_some() {
            kept.push(record);
        } else {
            records.remove(&record.attachment.id)?;
        }
    }
    for entry in fs::read_dir(netns_dir).map_err(|error| system("read the namespace directory", error))? {
        let path = entry.map_err(|error| system("read the namespace directory", error))?.path();
        if !kept.iter().any(|record| record.attachment.namespace.as_ref() == Some(&path)) {
            tracing::info!(path = %path.display(), "removing a task's network namespace without record");
            namespace::remove(&path)?;
        }
    }
    Ok(kept)
}

fn judged(record: &Record) -> Option<(String, (AttachmentId, TaskInterface))> {
    let interface = record.attachment.interface.as_deref()?.clone();
    Some((record.link.clone()?, (record.attachment.id.clone(), interface)))
}

fn held(attachment: &Attachment) -> &Path {
    attachment.namespace.as_deref().expect("a namespace is held for each attachment")
}

impl Inner {
    fn attach(&self, place: &mut Option<Record>, id: &AttachmentId, interface: TaskInterface) -> Result<Attachment, NetworkError> {
        // With the place locked: `shutdown` first closes, then waits for each place.
        if self.closed.load(Ordering::SeqCst) {
            return Err(NetworkError::System(format!("attach {id}: the network is shut down")));
        }
        if let Some(record) = place.as_ref() {
            return Ok(record.attachment.clone());
        }
        let attachment = Attachment {
            id: id.clone(),
            kind: AttachmentKind::Interface,
            namespace: Some(self.netns_dir.join(&id.0)),
            address: Some(interface.address),
            bindings: Vec::new(),
            interface: Some(Box::new(interface.clone())),
        };
        let mut link = None;
        match self.connect(&attachment, &interface, &mut link) {
            Ok(record) => {
                *place = Some(record);
                Ok(attachment)
            }
            Err(error) => {
                if let (Some(_), Some(address)) = (&link, interface.public_address)
                    && let Err(also) = PublicAddresses::new(self.mark).remove(&mut self.route.lock(), address)
                {
                    tracing::warn!(attachment = %id, error = %also, "the public address of a failed attach is answered for until the next start");
                }
                if let Some(also) = link.and_then(|link| self.acquit(&link).err()) {
                    tracing::warn!(attachment = %id, error = %also, "rules of a failed attach are left until the next change");
                }
                if let Err(also) = namespace::remove(held(&attachment)) {
                    tracing::warn!(attachment = %id, error = %also, "a namespace of a failed attach is left until the next start");
                }
                Err(error)
            }
        }
    }

    /// Runs on a thread of its own. `link` is told as soon as there are rules for it.
    fn connect(&self, attachment: &Attachment, interface: &TaskInterface, link: &mut Option<String>) -> Result<Record, NetworkError> {
        if interface.ipv6.is_some() {
            forwarding::ensure_v6()?;
        }
        self.forgetting.settle(&occupied(interface).collect())?;
        let namespace = namespace::create(held(attachment))?;
        let mut inside = Socket::route()?;
        link::raise_loopback(&mut inside)?;
        forwarding::open_to_unprivileged();
        let name = self.add_pair(&attachment.id, &namespace, interface)?;
        // Before the link is up: what has no rules passes nothing, but an address must not lead to two tasks.
        self.judge(&attachment.id, &name, interface)?;
        *link = Some(name.clone());
        task_link::raise_outer(&mut self.route.lock(), &name, interface)?;
        task_link::raise_inner(&mut inside, interface)?;
        if let Some(address) = interface.public_address {
            PublicAddresses::new(self.mark).add(&mut self.route.lock(), address)?;
        }
        // That the pair is whole now the machine's end learns in its own time, and drops what it is to send until then: a caller would try again
        // after a second. To ask for a link settles its state (Linux 6.8).
        link::index(&mut self.route.lock(), &name)?;
        let record = Record { attachment: attachment.clone(), link: Some(name) };
        self.records.write(&record)?;
        // Full is as good: it has not looked since.
        let _ = self.another.try_send(());
        Ok(record)
    }

    /// The host end of a namespace just detached may not be gone yet: the kernel removes it in its own time. So a name that is taken leads
    /// to the next.
    fn add_pair(&self, id: &AttachmentId, namespace: &OwnedFd, interface: &TaskInterface) -> Result<String, NetworkError> {
        const ATTEMPTS: u32 = 64;
        for attempt in 0..ATTEMPTS {
            let hash = fingerprint(format!("{id}/{attempt}").as_bytes());
            let name = format!("{}{:08x}", self.prefix, hash >> 32);
            match task_link::add_pair(&mut self.route.lock(), &name, namespace.as_fd(), interface) {
                Ok(()) => return Ok(name),
                Err(error) if error.errno == Errno::EEXIST => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NetworkError::System(format!("make the veth pair of {id}: {ATTEMPTS} names are taken")))
    }

    /// Puts an interface's rules into the kernel.
    fn judge(&self, id: &AttachmentId, link: &str, interface: &TaskInterface) -> Result<(), NetworkError> {
        let mut judged = self.judged.lock();
        let Judged { enforcement, table, interfaces } = &mut *judged;
        let own: BTreeSet<IpAddr> = occupied(interface).collect();
        let shared = |theirs: &TaskInterface| occupied(theirs).find(|address| own.contains(address));
        if let Some((address, other)) = interfaces.values().find_map(|(other, theirs)| Some((shared(theirs)?, other.clone()))) {
            return Err(NetworkError::AddressInUse { address, interface: interface.id.clone(), other });
        }
        enforcement.add(interface_rules(table, &referenced(table), link, interface))?;
        interfaces.insert(link.to_owned(), (id.clone(), interface.clone()));
        Ok(())
    }

    /// Takes an interface's rules back; a link without rules passes nothing.
    fn acquit(&self, link: &str) -> Result<(), NetlinkError> {
        let mut judged = self.judged.lock();
        let Some(gone) = judged.interfaces.remove(link) else { return Ok(()) };
        let outcome = judged.enforce();
        if outcome.is_err() {
            judged.interfaces.insert(link.to_owned(), gone);
        }
        outcome
    }

    fn apply(&self, table: NetworkTable) -> Result<(), NetworkError> {
        let mut judged = self.judged.lock();
        let before = std::mem::replace(&mut judged.table, table);
        if let Err(error) = judged.enforce() {
            judged.table = before;
            return Err(error.into());
        }
        self.records.write_table(&judged.table)?;
        let peers = Peers::new(judged.table.machine.as_ref(), self.mark);
        let mut route = self.route.lock();
        if before.machine != judged.table.machine {
            peers.clean(&mut route)?;
        }
        Ok(peers.apply(&mut route, &judged.remote())?)
    }

    fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        self.slots.at(id, |place| {
            if let Some(record) = place.as_ref() {
                self.disconnect(record)?;
                *place = None;
            }
            Ok(())
        })
    }

    /// First the rules, so that nothing passes; then the namespace, with which the kernel removes the link and its routes in its own time.
    fn disconnect(&self, record: &Record) -> Result<(), NetworkError> {
        if let Some(link) = &record.link {
            self.acquit(link)?;
        }
        let interface = record.attachment.interface.as_deref();
        if let Some(address) = interface.and_then(|interface| interface.public_address) {
            PublicAddresses::new(self.mark).remove(&mut self.route.lock(), address)?;
        }
        namespace::remove(held(&record.attachment))?;
        if let Some(interface) = interface {
            self.shortcuts.lock().forget(&occupied(interface).collect());
            self.forgetting.spend(occupied(interface))?;
        }
        self.records.remove(&record.attachment.id)
    }

    fn shutdown(&self) -> Result<(), NetworkError> {
        if !self.slots.close(&self.closed) {
            return Ok(());
        }
        self.judged.lock().enforcement.remove()?;
        let (peers, mut route) = (Peers::new(None, self.mark), self.route.lock());
        PublicAddresses::new(self.mark).replace(&mut route, &BTreeSet::new())?;
        peers.apply(&mut route, &BTreeMap::new())?;
        peers.clean(&mut route)?;
        drop(route);
        self.records.remove_table()?;
        // Somebody else's file in it is a reason to leave it, not to fail.
        drop(fs::remove_dir(&self.netns_dir));
        Ok(())
    }
}

impl Judged {
    fn enforce(&mut self) -> Result<(), NetlinkError> {
        let interfaces = self.interfaces.iter().map(|(link, (_, interface))| (link.as_str(), interface));
        self.enforcement.replace(rules(&self.table, interfaces))
    }

    fn remote(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let local = self.interfaces.values().flat_map(|(_, interface)| interface.addresses()).collect();
        remote(&self.table, &local)
    }
}

fn interfaces_of(judged: &Judged) -> impl Iterator<Item = &TaskInterface> {
    judged.interfaces.values().map(|(_, interface)| interface)
}

/// All addresses of this machine that lead to an interface.
fn occupied(interface: &TaskInterface) -> impl Iterator<Item = IpAddr> {
    interface.addresses().chain(interface.public_address.map(IpAddr::V4))
}
