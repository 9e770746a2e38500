//! A container instance's kernel, in memory: containers that live by themselves whether an agent looks or not, and ports. What it was
//! asked to start it tells the checker. It knows no task and no server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use berth_network::port::{Attachment, AttachmentId, AttachmentKind, Network, NetworkError, PortBinding, PortRequest};
use berth_runtime::port::{
    ContainerId, ContainerObservation, ContainerSpec, ContainerState, ExecOutcome, ExecSpec, Exit, Image, ImageObservation, PullError,
    PullRequest, RemoveImageError, RunError, Runtime, Space, Started, Stats,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::checker::Checker;
use crate::clock::SimClock;
use crate::load::DUD;
use crate::trace::Trace;

/// A machine. Clones share it.
#[derive(Clone)]
pub struct Machine(Arc<Shared>);

struct Shared {
    number: usize,
    clock: SimClock,
    chance: Chance,
    trace: Trace,
    checker: Arc<Checker>,
    harm: Arc<AtomicBool>,
    starts_twice: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    boots: u64,
    containers: BTreeMap<ContainerId, Container>,
    attachments: BTreeMap<AttachmentId, Attachment>,
    stray: bool,
    /// Ports that something outside of ECS uses.
    taken: BTreeSet<u16>,
    /// Containers' own lives.
    lives: JoinSet<()>,
}

struct Container {
    spec: ContainerSpec,
    state: watch::Sender<ContainerState>,
}

impl Machine {
    /// A machine with nothing on it.
    pub fn new(number: usize, clock: SimClock, chance: Chance, trace: Trace, checker: Arc<Checker>, harm: Arc<AtomicBool>) -> Self {
        Self(Arc::new(Shared {
            number,
            clock,
            chance,
            trace,
            checker,
            harm,
            starts_twice: AtomicBool::new(false),
            inner: Mutex::default(),
        }))
    }

    /// Everything that ran is gone; at times the machine still knows that it was there.
    pub fn reboot(&self) {
        let mut inner = self.0.inner.lock();
        inner.boots += 1;
        inner.lives = JoinSet::new();
        inner.attachments.clear();
        inner.taken.clear();
        if self.0.chance.per_mille(500) {
            inner.containers.clear();
        }
        for container in inner.containers.values() {
            container.state.send_if_modified(|state| {
                let ran = matches!(state, ContainerState::Running(_));
                if ran {
                    *state = ContainerState::Lost;
                }
                ran
            });
        }
    }

    /// Something outside of ECS takes a port, or gives it back.
    pub fn set_taken(&self, port: u16, taken: bool) {
        let mut inner = self.0.inner.lock();
        if taken {
            inner.taken.insert(port)
        } else {
            inner.taken.remove(&port)
        };
    }

    /// Sabotage, to see whether somebody notices: the next container is started twice.
    pub fn start_twice(&self) {
        self.0.starts_twice.store(true, Ordering::Relaxed);
    }

    /// Sabotage, to see whether somebody notices: a container that no agent started, nor sees.
    pub fn run_stray(&self) {
        self.0.inner.lock().stray = true;
    }

    /// The containers that run now.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let inner = self.0.inner.lock();
        let runs = |container: &Container| matches!(*container.state.borrow(), ContainerState::Running(_));
        let known = inner.containers.iter().filter(|(_, container)| runs(container)).map(|(id, _)| id.0.clone());
        known.chain(inner.stray.then(|| "stray".to_owned())).collect()
    }

    fn system_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.clock.millis().unsigned_abs())
    }

    fn harmed(&self, per_mille: u64) -> bool {
        self.0.harm.load(Ordering::Relaxed) && self.0.chance.per_mille(per_mille)
    }

    async fn takes(&self, first: u64, last: u64) {
        tokio::time::sleep(self.0.chance.millis(first, last)).await;
    }

    fn state_of(&self, id: &ContainerId) -> Result<watch::Sender<ContainerState>, RunError> {
        let inner = self.0.inner.lock();
        inner.containers.get(id).map(|container| container.state.clone()).ok_or_else(|| RunError::NoContainer(id.clone()))
    }

    fn end(&self, id: &ContainerId, code: i32) {
        let Ok(state) = self.state_of(id) else { return };
        let exit = ContainerState::Exited(Exit { code, oom_killed: false, at: self.system_time() });
        let ended = state.send_if_modified(|state| {
            let runs = matches!(state, ContainerState::Running(_));
            if runs {
                *state = exit;
            }
            runs
        });
        if ended {
            self.0.trace.line(format_args!("host {}: container {id} exits with {code}", self.0.number));
        }
    }

    fn end_later(&self, id: &ContainerId, code: i32, after: Duration, only_in_bad_times: bool) {
        let (machine, id) = (self.clone(), id.clone());
        self.0.inner.lock().lives.spawn(async move {
            tokio::time::sleep(after).await;
            if !only_in_bad_times || machine.0.harm.load(Ordering::Relaxed) {
                machine.end(&id, code);
            }
        });
    }

    /// What its image makes a container do of itself.
    fn begin_life(&self, id: &ContainerId, image: &str) {
        let chance = &self.0.chance;
        if image.contains("job") {
            let code = if chance.per_mille(700) { 0 } else { 1 };
            self.end_later(id, code, chance.millis(0, 15_000), false);
        } else if image.contains("flaky") && chance.per_mille(500) {
            self.end_later(id, 1, chance.millis(0, 3_000), false);
        } else if image.contains("web") && chance.per_mille(200) {
            let code = i32::try_from(chance.below(3)).unwrap_or(0);
            self.end_later(id, code, chance.millis(0, 60_000), true);
        }
    }
}

#[async_trait]
impl Runtime for Machine {
    fn capabilities(&self) -> Vec<&'static str> {
        vec!["com.amazonaws.ecs.capability.privileged-container"]
    }

    async fn pull(&self, request: PullRequest) -> Result<Image, PullError> {
        self.takes(1, 400).await;
        if self.harmed(20) {
            self.takes(1_000, 20_000).await;
        }
        if self.0.harm.load(Ordering::Relaxed) && request.reference.contains("broken") {
            return Err(PullError::NotFound(request.reference));
        }
        if self.harmed(30) {
            return Err(PullError::Unreachable("the registry is away".to_owned()));
        }
        Ok(Image { digest: format!("sha256:{}", request.reference), config_digest: String::new() })
    }

    /// Images take no room here.
    async fn images(&self) -> Result<Vec<ImageObservation>, RunError> {
        Ok(Vec::new())
    }

    async fn remove_image(&self, _digest: &str) -> Result<(), RemoveImageError> {
        Ok(())
    }

    fn image_space(&self) -> Option<Space> {
        None
    }

    async fn create(&self, spec: ContainerSpec) -> Result<(), RunError> {
        self.takes(0, 15).await;
        if self.harmed(10) {
            return Err(RunError::System("no space left".to_owned()));
        }
        let id = spec.id.clone();
        let made = Container { spec, state: watch::Sender::new(ContainerState::Created) };
        self.0.inner.lock().containers.insert(id, made);
        self.takes(0, 15).await;
        Ok(())
    }

    async fn start(&self, id: &ContainerId) -> Result<Started, RunError> {
        self.takes(0, 15).await;
        let is_dud = || self.0.inner.lock().containers.get(id).is_some_and(|container| container.spec.image_digest.contains(DUD));
        if self.harmed(10) || is_dud() {
            return Err(RunError::Exec("exec: not found".to_owned()));
        }
        let state = self.state_of(id)?;
        let started = Started { pid: 1, at: self.system_time(), address: None };
        state.send_replace(ContainerState::Running(started));
        let (boots, image) = {
            let inner = self.0.inner.lock();
            (inner.boots, inner.containers.get(id).map(|container| container.spec.image_digest.clone()).unwrap_or_default())
        };
        self.0.trace.line(format_args!("host {}: container {id} runs", self.0.number));
        self.0.checker.started(self.0.number, boots, &id.0);
        if self.0.starts_twice.swap(false, Ordering::Relaxed) {
            self.0.checker.started(self.0.number, boots, &id.0);
        }
        self.begin_life(id, &image);
        self.takes(0, 15).await;
        Ok(started)
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RunError> {
        self.state_of(id)?;
        let (is_kill, is_deaf) = (signal == libc::SIGKILL, self.0.chance.per_mille(80));
        if is_kill {
            self.end_later(id, 137, Duration::from_millis(self.0.chance.below(20)), false);
        } else if !is_deaf {
            self.end_later(id, 143, Duration::from_millis(self.0.chance.below(2_000)), false);
        }
        Ok(())
    }

    async fn stop_signal(&self, id: &ContainerId) -> Result<i32, RunError> {
        self.state_of(id).map(|_| libc::SIGTERM)
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RunError> {
        let mut state = self.state_of(id)?.subscribe();
        let over = state.wait_for(|state| matches!(state, ContainerState::Exited(_) | ContainerState::Lost)).await;
        match over.map(|state| state.clone()) {
            Ok(ContainerState::Exited(exit)) => Ok(exit),
            _ => Err(RunError::System("its monitor is gone".to_owned())),
        }
    }

    async fn exec(&self, _id: &ContainerId, _spec: ExecSpec) -> Result<ExecOutcome, RunError> {
        Err(RunError::System("nothing is executed in a simulation".to_owned()))
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RunError> {
        self.state_of(id).map(|_| Stats::default())
    }

    async fn list(&self) -> Result<Vec<ContainerObservation>, RunError> {
        self.takes(0, 5).await;
        let inner = self.0.inner.lock();
        let seen = inner.containers.iter().map(|(id, container)| ContainerObservation {
            id: id.clone(),
            labels: container.spec.labels.clone(),
            state: container.state.borrow().clone(),
        });
        Ok(seen.collect())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RunError> {
        self.end(id, 137);
        self.0.inner.lock().containers.remove(id);
        Ok(())
    }

    fn log_files(&self, _id: &ContainerId) -> Vec<PathBuf> {
        Vec::new()
    }
}

#[async_trait]
impl Network for Machine {
    async fn attach(&self, id: &AttachmentId, kind: AttachmentKind) -> Result<Attachment, NetworkError> {
        self.takes(0, 5).await;
        if self.harmed(8) {
            return Err(NetworkError::System("netlink: no buffer space".to_owned()));
        }
        let mut inner = self.0.inner.lock();
        let attachment = inner.attachments.entry(id.clone()).or_insert_with(|| Attachment {
            id: id.clone(),
            kind,
            namespace: Some(PathBuf::from(format!("/run/netns/{id}"))),
            address: None,
            bindings: Vec::new(),
            interface: None,
        });
        Ok(attachment.clone())
    }

    async fn publish(&self, id: &AttachmentId, ports: &[PortRequest]) -> Result<Vec<PortBinding>, NetworkError> {
        self.takes(0, 5).await;
        let mut inner = self.0.inner.lock();
        let mut used: BTreeSet<u16> = inner.taken.clone();
        let others = inner.attachments.iter().filter(|(other, _)| *other != id);
        used.extend(others.flat_map(|(_, other)| other.bindings.iter().map(|binding| binding.host_port)));
        let mut bindings = Vec::new();
        for port in ports {
            let free = || (32_768..=u16::MAX).find(|port| !used.contains(port)).unwrap_or(u16::MAX);
            let host_port = port.host_port.unwrap_or_else(free);
            if !used.insert(host_port) {
                return Err(NetworkError::PortInUse { port: host_port, protocol: port.protocol });
            }
            bindings.push(PortBinding { container_port: port.container_port, host_port, protocol: port.protocol });
        }
        let attachment = inner.attachments.get_mut(id).ok_or_else(|| NetworkError::NoAttachment(id.clone()))?;
        attachment.bindings.clone_from(&bindings);
        Ok(bindings)
    }

    async fn unpublish(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        if let Some(attachment) = self.0.inner.lock().attachments.get_mut(id) {
            attachment.bindings.clear();
        }
        Ok(())
    }

    async fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        self.0.inner.lock().attachments.remove(id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Attachment>, NetworkError> {
        Ok(self.0.inner.lock().attachments.values().cloned().collect())
    }

    async fn shutdown(&self) -> Result<(), NetworkError> {
        Ok(())
    }
}
