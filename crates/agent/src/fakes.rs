//! A runtime and a network in memory, for tests. What a container does is said by its image's name: words joined by dots.
//! `exit=3` ends it with that code, `after=500` so many milliseconds after its start, `deaf` lets it ignore SIGTERM, `immortal`
//! SIGKILL too, `oom` lets the kernel end it; `lives=2` lets `exit` hold for its first two lives alone; `probe=1-0` is what its health
//! checks end with, one after the other, the last for ever (`x` cannot be run, `slow` takes too long, `hung` never ends); `start=once`
//! starts but once; `pull=error`, `pull=slow`, `create=error`, `create=slow`, `start=error` go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use berth_acs::messages as acs;
use berth_network::interface::TaskInterface;
use berth_network::port::{Attachment, AttachmentId, AttachmentKind, Network, NetworkError, PortBinding, PortRequest};
use berth_network::security_group::NetworkTable;
use berth_runtime::port::{
    ContainerId, ContainerObservation, ContainerSpec, ContainerState, ExecOutcome, ExecSpec, Exit, Image, ImageLayer, ImageObservation,
    PullError, PullRequest, RemoveImageError, RunError, Runtime, Space, Started, Stats,
};
use parking_lot::Mutex;
use tokio::sync::watch;

struct FakeContainer {
    spec: ContainerSpec,
    lives: u32,
    probes: usize,
    state: watch::Sender<ContainerState>,
}

#[derive(Default)]
pub struct FakeRuntime {
    containers: Mutex<BTreeMap<ContainerId, FakeContainer>>,
    pub calls: Mutex<Vec<String>>,
    /// Images that are here, and their bytes.
    pub images: Mutex<BTreeMap<String, u64>>,
    /// Bytes for images; without end if none.
    pub room: Mutex<Option<u64>>,
}

fn word(image: &str, name: &str) -> Option<String> {
    image.split(['.', ':']).find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

fn has(image: &str, name: &str) -> bool {
    image.split(['.', ':']).any(|word| word == name)
}

fn exit(code: i32, oom_killed: bool) -> ContainerState {
    ContainerState::Exited(Exit { code, oom_killed, at: UNIX_EPOCH + Duration::from_secs(5000) })
}

impl FakeRuntime {
    fn call(&self, what: impl Into<String>) {
        self.calls.lock().push(what.into());
    }

    fn state_of(&self, id: &ContainerId) -> Result<watch::Sender<ContainerState>, RunError> {
        self.containers.lock().get(id).map(|container| container.state.clone()).ok_or_else(|| RunError::NoContainer(id.clone()))
    }

    pub fn ids(&self) -> Vec<String> {
        self.containers.lock().keys().map(|id| id.0.clone()).collect()
    }

    pub fn spec(&self, id: &str) -> ContainerSpec {
        self.containers.lock()[&ContainerId(id.to_owned())].spec.clone()
    }

    /// The container ends by itself.
    pub fn end(&self, id: &str, code: i32) {
        self.state_of(&ContainerId(id.to_owned())).unwrap().send_replace(exit(code, false));
    }

    /// Nobody watches the container any more, or there is none.
    pub fn lose(&self, id: &str) {
        self.state_of(&ContainerId(id.to_owned())).unwrap().send_replace(ContainerState::Lost);
    }

    pub fn forget(&self, id: &str) {
        self.containers.lock().remove(&ContainerId(id.to_owned()));
    }

    pub fn called(&self, what: &str) -> usize {
        self.calls.lock().iter().filter(|call| call.starts_with(what)).count()
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn capabilities(&self) -> Vec<&'static str> {
        vec!["com.amazonaws.ecs.capability.privileged-container"]
    }

    async fn pull(&self, request: PullRequest) -> Result<Image, PullError> {
        self.call(format!("pull {}", request.reference));
        match word(&request.reference, "pull").as_deref() {
            Some("error") => return Err(PullError::NotFound(request.reference)),
            Some("slow") => tokio::time::sleep(Duration::from_secs(600)).await,
            _ => {}
        }
        // Words of a name that say how large it is, and how much is free: `size=7`.
        let bytes = word(&request.reference, "size").map_or(1, |text| text.parse().unwrap());
        let digest = format!("sha256:{}", request.reference);
        let mut images = self.images.lock();
        let used: u64 = images.iter().filter(|(other, _)| **other != digest).map(|(_, bytes)| bytes).sum();
        let free = self.room.lock().unwrap_or(u64::MAX).saturating_sub(used);
        if bytes > free {
            return Err(PullError::NoSpace { needed: bytes, free });
        }
        images.insert(digest.clone(), bytes);
        Ok(Image { digest, config_digest: String::new() })
    }

    async fn images(&self) -> Result<Vec<ImageObservation>, RunError> {
        let containers = self.containers.lock();
        let one = |(digest, bytes): (&String, &u64)| ImageObservation {
            digest: digest.clone(),
            layers: vec![ImageLayer { id: digest.clone(), bytes: *bytes }],
            arrived_at: UNIX_EPOCH,
            is_used: containers.values().any(|container| container.spec.image_digest == *digest),
            foreign_names: None,
        };
        Ok(self.images.lock().iter().map(one).collect())
    }

    async fn remove_image(&self, digest: &str) -> Result<(), RemoveImageError> {
        self.call(format!("remove-image {digest}"));
        // As long as a real one takes.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.containers.lock().values().any(|container| container.spec.image_digest == digest) {
            return Err(RemoveImageError::InUse(digest.to_owned()));
        }
        self.images.lock().remove(digest);
        Ok(())
    }

    fn image_space(&self) -> Option<Space> {
        let total = (*self.room.lock())?;
        Some(Space { total, free: total.saturating_sub(self.images.lock().values().sum()) })
    }

    async fn create(&self, spec: ContainerSpec) -> Result<(), RunError> {
        self.call(format!("create {}", spec.id));
        match word(&spec.image_digest, "create").as_deref() {
            Some("error") => return Err(RunError::InvalidSpec("sysctl x is not known".into())),
            Some("slow") => tokio::time::sleep(Duration::from_secs(3600)).await,
            _ => {}
        }
        let id = spec.id.clone();
        self.containers.lock().insert(id, FakeContainer { spec, lives: 0, probes: 0, state: watch::Sender::new(ContainerState::Created) });
        Ok(())
    }

    async fn start(&self, id: &ContainerId) -> Result<Started, RunError> {
        self.call(format!("start {id}"));
        let state = self.state_of(id)?;
        let (image, lives) = {
            let mut containers = self.containers.lock();
            let container = containers.get_mut(id).ok_or_else(|| RunError::NoContainer(id.clone()))?;
            container.lives += 1;
            (container.spec.image_digest.clone(), container.lives)
        };
        let start = word(&image, "start");
        if start.as_deref() == Some("error") || (start.as_deref() == Some("once") && lives > 1) {
            return Err(RunError::Exec("exec: \"nope\": executable file not found in $PATH".into()));
        }
        let at = UNIX_EPOCH + Duration::from_secs(4000 + 2000 * u64::from(lives - 1));
        let started = Started { pid: 7, at, address: None };
        state.send_replace(ContainerState::Running(started));
        let ends = word(&image, "lives").is_none_or(|text| lives <= text.parse().unwrap());
        if let Some(code) = word(&image, "exit").filter(|_| ends) {
            let after = Duration::from_millis(word(&image, "after").map_or(0, |text| text.parse().unwrap()));
            let code = code.parse().unwrap();
            let ending = ContainerState::Exited(Exit { code, oom_killed: has(&image, "oom"), at: at + Duration::from_secs(1000) });
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                state.send_replace(ending);
            });
        }
        Ok(started)
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RunError> {
        self.call(format!("signal {id} {signal}"));
        let image = self.containers.lock().get(id).map(|container| container.spec.image_digest.clone()).unwrap_or_default();
        let ignored = has(&image, "immortal") || (has(&image, "deaf") && signal != libc::SIGKILL);
        if !ignored {
            self.state_of(id)?.send_if_modified(|state| {
                let runs = matches!(state, ContainerState::Running(_));
                if runs {
                    *state = exit(128 + signal, false);
                }
                runs
            });
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
            _ => Err(RunError::System("its monitor is gone".into())),
        }
    }

    async fn exec(&self, id: &ContainerId, spec: ExecSpec) -> Result<ExecOutcome, RunError> {
        self.call(format!("exec {id} {}", spec.command.join(" ")));
        let answer = {
            let mut containers = self.containers.lock();
            let container = containers.get_mut(id).ok_or_else(|| RunError::NoContainer(id.clone()))?;
            let script = word(&container.spec.image_digest, "probe").unwrap_or_else(|| "0".to_owned());
            let answers: Vec<&str> = script.split('-').collect();
            container.probes += 1;
            answers[(container.probes - 1).min(answers.len() - 1)].to_owned()
        };
        match answer.as_str() {
            "x" => Err(RunError::Exec("exec: \"check\": executable file not found in $PATH".into())),
            "slow" => {
                tokio::time::sleep(spec.timeout).await;
                Ok(ExecOutcome { code: None, output: Vec::new() })
            }
            "hung" => std::future::pending().await,
            code => Ok(ExecOutcome { code: Some(code.parse().unwrap()), output: b"what it says".to_vec() }),
        }
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RunError> {
        self.state_of(id).map(|_| Stats { cpu_nanos: 1, memory_bytes: 1 << 20, ..Default::default() })
    }

    async fn list(&self) -> Result<Vec<ContainerObservation>, RunError> {
        let containers = self.containers.lock();
        let seen = containers.iter().map(|(id, container)| ContainerObservation {
            id: id.clone(),
            labels: container.spec.labels.clone(),
            state: container.state.borrow().clone(),
        });
        Ok(seen.collect())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RunError> {
        self.call(format!("remove {id}"));
        self.containers.lock().remove(id);
        Ok(())
    }

    fn log_files(&self, _id: &ContainerId) -> Vec<PathBuf> {
        Vec::new()
    }
}

#[derive(Default)]
pub struct FakeNetwork {
    attachments: Mutex<BTreeMap<AttachmentId, Attachment>>,
    table: Mutex<NetworkTable>,
    /// Ports that processes of the machine have.
    pub of_processes: Mutex<BTreeSet<u16>>,
}

impl FakeNetwork {
    pub fn table(&self) -> NetworkTable {
        self.table.lock().clone()
    }

    pub fn ids(&self) -> Vec<String> {
        self.attachments.lock().keys().map(|id| id.0.clone()).collect()
    }
}

#[async_trait]
impl Network for FakeNetwork {
    async fn attach(&self, id: &AttachmentId, kind: AttachmentKind) -> Result<Attachment, NetworkError> {
        let mut attachments = self.attachments.lock();
        let attachment = attachments.entry(id.clone()).or_insert_with(|| Attachment {
            id: id.clone(),
            kind,
            namespace: Some(PathBuf::from(format!("/run/netns/{id}"))),
            address: (kind == AttachmentKind::Bridge).then_some(std::net::Ipv4Addr::new(172, 30, 0, 2)),
            bindings: Vec::new(),
            interface: None,
        });
        Ok(attachment.clone())
    }

    fn has_interfaces(&self) -> bool {
        true
    }

    async fn apply_table(&self, table: &NetworkTable) -> Result<(), NetworkError> {
        *self.table.lock() = table.clone();
        Ok(())
    }

    async fn attach_interface(&self, id: &AttachmentId, interface: &TaskInterface) -> Result<Attachment, NetworkError> {
        let mut attachments = self.attachments.lock();
        let attachment = attachments.entry(id.clone()).or_insert_with(|| Attachment {
            id: id.clone(),
            kind: AttachmentKind::Interface,
            namespace: Some(PathBuf::from(format!("/run/netns/{id}"))),
            address: Some(interface.address),
            bindings: Vec::new(),
            interface: Some(Box::new(interface.clone())),
        });
        Ok(attachment.clone())
    }

    async fn publish(&self, id: &AttachmentId, ports: &[PortRequest]) -> Result<Vec<PortBinding>, NetworkError> {
        let mut attachments = self.attachments.lock();
        let published = attachments.values().flat_map(|other| other.bindings.iter().map(|binding| binding.host_port));
        let used: BTreeSet<u16> = published.chain(self.of_processes.lock().iter().copied()).collect();
        let mut dynamic = 40000..;
        let mut bindings = Vec::new();
        for port in ports {
            let host_port = port.host_port.unwrap_or_else(|| dynamic.find(|port| !used.contains(port)).unwrap());
            if used.contains(&host_port) {
                return Err(NetworkError::PortInUse { port: host_port, protocol: port.protocol });
            }
            bindings.push(PortBinding { container_port: port.container_port, host_port, protocol: port.protocol });
        }
        let attachment = attachments.get_mut(id).ok_or_else(|| NetworkError::NoAttachment(id.clone()))?;
        attachment.bindings.clone_from(&bindings);
        Ok(bindings)
    }

    async fn unpublish(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        if let Some(attachment) = self.attachments.lock().get_mut(id) {
            attachment.bindings.clear();
        }
        Ok(())
    }

    async fn detach(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        self.attachments.lock().remove(id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Attachment>, NetworkError> {
        Ok(self.attachments.lock().values().cloned().collect())
    }

    async fn shutdown(&self) -> Result<(), NetworkError> {
        Ok(())
    }
}

/// The ARN of a task of that id.
pub fn arn(id: &str) -> String {
    format!("arn:aws:ecs:us-east-1:000000000000:task/default/{id}")
}

/// A task that is to run; each container is essential and its image says what it does.
pub fn task(id: &str, containers: &[(&str, &str)]) -> acs::Task {
    let container = |(name, image): &(&str, &str)| acs::Container {
        name: (*name).to_owned(),
        image: (*image).to_owned(),
        essential: true,
        ..Default::default()
    };
    acs::Task {
        arn: arn(id),
        task_cluster_arn: "arn:aws:ecs:us-east-1:000000000000:cluster/default".into(),
        desired_status: acs::DesiredStatus::Running,
        family: "web".into(),
        version: "3".into(),
        containers: containers.iter().map(container).collect(),
        ..Default::default()
    }
}

/// The same task, to be stopped.
pub fn stopped(task: &acs::Task) -> acs::Task {
    acs::Task { desired_status: acs::DesiredStatus::Stopped, ..task.clone() }
}

/// Fresh fakes.
pub fn machine() -> (Arc<FakeRuntime>, Arc<FakeNetwork>) {
    (Arc::default(), Arc::default())
}
