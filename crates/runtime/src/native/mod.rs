//! The embedded runtime: no daemon, no tools; each container is looked after by a process of its own that outlives the agent.
//!
//! Holds nothing in memory that a restart would lose: a container's folder says all about it.

mod apart;
pub mod bundle;
pub mod capabilities;
pub mod cgroups;
mod container;
mod data_dir;
mod devices;
mod ground;
mod holders;
pub mod ids;
mod launching;
mod locate;
pub mod monitor;
mod mounts;
pub mod seccomp;
mod security;
mod shim;
mod starter;
mod traffic;
pub(crate) mod ulimits;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

pub use self::locate::locate;
pub use self::shim::try_remapping;
use crate::images::{BerthRegistry, Images};
use crate::native::apart::Apart;
use crate::native::bundle::Machine;
use crate::native::cgroups::Layout;
use crate::native::container::Container;
use crate::native::holders::Holders;
use crate::native::launching::Ready;
use crate::native::monitor::Sighting;
use crate::native::seccomp::{Compiling, Filters};
use crate::native::security::Modules;
use crate::native::shim::Program;
use crate::port::{
    ContainerId, ContainerNetwork, ContainerObservation, ContainerSpec, ContainerState, ExecOutcome, ExecSpec, Exit, Image,
    ImageObservation, PullError, PullRequest, RemoveImageError, RunError, Runtime, Space, Started, Stats, Traffic,
};
use crate::quota;

/// What the runtime is told at start.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// Where images and containers are kept; one runtime at a time.
    pub data_dir: PathBuf,
    /// Name of the cgroup below which all of this runtime's are; unique to the data directory.
    pub cgroup_root: String,
    /// The program `berth-shim`; beside it is `berth-seccomp`.
    pub shim: PathBuf,
    /// The program `berth-monitor`.
    pub monitor: PathBuf,
    /// Berth's own registry, asked first for names without a host.
    pub berth_registry: Option<BerthRegistry>,
    /// How long a registry may send nothing before it counts as gone; [`crate::images::PULL_INACTIVITY`] unless somebody says otherwise.
    pub pull_inactivity: Duration,
}

/// Why the runtime could not be opened; the text names the step.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct OpenError {
    step: String,
    source: io::Error,
}

/// The embedded runtime.
pub struct NativeRuntime {
    config: NativeConfig,
    images: Arc<Images>,
    /// The name of the layer below all images.
    base: &'static str,
    filters: Arc<Filters>,
    shim: Arc<Program>,
    machine: Machine,
    containers: Arc<Mutex<HashMap<ContainerId, Arc<Container>>>>,
    holders: Holders,
    apart: Apart,
    ready: Arc<Mutex<Ready>>,
    /// The usual filter in the making.
    _compiling: Compiling,
    /// Held for as long as this runtime lives.
    _only: std::fs::File,
}

impl NativeRuntime {
    /// Opens the data directory and finds the containers in it. Needs root and cgroups; starts nothing.
    ///
    /// # Errors
    /// [`OpenError`], also when another process has the data directory open.
    pub fn open(config: NativeConfig) -> Result<NativeRuntime, OpenError> {
        let step = |step: &str| {
            let step = step.to_owned();
            move |source| OpenError { step, source }
        };
        if config.cgroup_root.is_empty() || config.cgroup_root.contains(['/', '.', ' ']) {
            return Err(step("cgroup_root")(io::Error::other(format!("{:?} is not a plain name", config.cgroup_root))));
        }
        // Others' accounts on this machine must not reach in: images hold set-user-id programs, old ones with known holes among them,
        // and device files; requests hold what a task definition keeps in its environment (CVE-2021-41091).
        for name in ["containers", "images", "root", "seccomp", "shared"] {
            let folder = config.data_dir.join(name);
            data_dir::make_private(&folder).map_err(step(&format!("make {}", folder.display())))?;
        }
        // Full paths go into mounts and to the shim, which has another working directory.
        let data_dir = config.data_dir.canonicalize().map_err(step("resolve the data directory"))?;
        let config = NativeConfig { data_dir, ..config };
        let only = data_dir::lock(&config.data_dir).map_err(step(&format!("lock {}", config.data_dir.display())))?;
        let machine = Machine {
            root: config.data_dir.join("root"),
            cgroups: Layout::detect().map_err(step("look at this machine's cgroups"))?,
            capabilities: capabilities::available(),
            modules: Modules::detect(),
        };
        let images = Images::open(&config.data_dir.join("images"), config.berth_registry.clone(), config.pull_inactivity)
            .map_err(step("open images"))?;
        let base = ground::base(&images.links()).map_err(step("make the layer below all images"))?;
        ground::spread(&config.data_dir.join("containers"));
        let filters = Filters::open(config.data_dir.join("seccomp"), config.shim.with_file_name("berth-seccomp"))
            .map_err(step("open the seccomp filters"))?;
        let filters = Arc::new(filters);
        // The one that nearly all containers need; made now rather than when the first task waits for it.
        let usual = capabilities::resolve(&[], &[], false, &apart::default_capabilities(&machine, false), &machine.capabilities)
            .unwrap_or_default();
        let compiling = filters.compile_aside(usual);
        let shim = Program::load(&config.shim).map_err(step(&format!("load {}", config.shim.display())))?;
        if !config.monitor.is_file() {
            return Err(step(&format!("find {}", config.monitor.display()))(io::ErrorKind::NotFound.into()));
        }
        let containers = container::load_all(&config.data_dir.join("containers")).map_err(step("read containers"))?;
        let wanted = |task: &str| containers.values().any(|one| wants_holder(one, task));
        let holders = Holders::open(config.data_dir.join("shared"), wanted).map_err(step("look after what tasks share"))?;
        let apart = Apart::of(containers.values().filter_map(|one| Some((one.record.spec.cgroup_parent.clone(), one.record.ids?))));
        Ok(NativeRuntime {
            config,
            images: Arc::new(images),
            base,
            filters,
            shim: Arc::new(shim),
            machine,
            containers: Arc::new(Mutex::new(containers)),
            holders,
            apart,
            ready: Arc::default(),
            _compiling: compiling,
            _only: only,
        })
    }

    /// Whether containers that are kept apart get users of their own here; tried once.
    ///
    /// # Errors
    /// Why not, in words for people. Such containers then run as users of the machine, with fewer capabilities.
    pub async fn remapping(&self) -> Result<(), String> {
        self.apart.remapping(&self.config.shim, &self.config.data_dir).await
    }

    async fn may_map(&self, spec: &ContainerSpec) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if let Some(place) = apart::unmappable(spec, &mounts) {
            tracing::warn!(container = %spec.id, place = %place.display(), "its users are the machine's: a network file system knows no others");
            return false;
        }
        self.remapping().await.is_ok()
    }

    fn folder(&self, id: &ContainerId) -> PathBuf {
        self.config.data_dir.join("containers").join(&id.0)
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<Container>, RunError> {
        self.containers.lock().get(id).cloned().ok_or_else(|| RunError::NoContainer(id.clone()))
    }

    fn cgroup(&self, parent: &str, id: &ContainerId) -> String {
        format!("/{}/{parent}/{id}", self.config.cgroup_root)
    }

    /// Digests of the images that containers have.
    fn used_images(&self) -> HashSet<String> {
        self.containers.lock().values().map(|container| container.record.spec.image_digest.clone()).collect()
    }

    /// Gives back what an ended container needs no more: its cgroups, and the task's if it was the last. Its mounts went with its
    /// namespace; its folder stays for its output and its exit code, until `remove`.
    fn release(&self, container: &Arc<Container>) {
        let (cgroups, container) = (self.machine.cgroups.clone(), Arc::clone(container));
        let parent = format!("/{}/{}", self.config.cgroup_root, container.record.spec.cgroup_parent);
        tokio::spawn(async move {
            let _turn = container.turn.lock().await;
            // Started again meanwhile.
            if matches!(monitor::sight(&container.folder).await, Sighting::Running(_)) {
                return;
            }
            let _ = container::remove_cgroup(&cgroups, &container.record.cgroup).await;
            // Refused while another container of the task has a cgroup in it, as it should be.
            let _ = cgroups.remove(&parent);
        });
    }

    /// What the containers of a task have together. ECS's CPU units count between tasks too: the kernel shares CPU between the cgroups
    /// of tasks first. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html> (`cpu`)
    fn task_cpu_shares(&self, parent: &str) -> u64 {
        let containers = self.containers.lock();
        let shares = containers.values().map(|container| &container.record.spec).filter(|spec| spec.cgroup_parent == parent);
        shares.map(|spec| spec.cpu_shares.max(bundle::MIN_CPU_SHARES)).sum()
    }

    /// The state, where "lost" is certain: between the mark that a start leaves and its monitor's socket a container looks lost.
    /// `None` if it has been removed meanwhile.
    async fn settled_state(&self, container: &Container) -> Option<ContainerState> {
        let state = state_of(container, monitor::sight(&container.folder).await);
        let may_change = match state {
            ContainerState::Lost => true,
            ContainerState::Exited(_) => container.may_be_reviving(),
            ContainerState::Created | ContainerState::Running(_) => false,
        };
        if !may_change {
            return Some(state);
        }
        let _turn = container.turn.lock().await;
        if !container.folder.exists() {
            return None;
        }
        let state = self.state(container).await;
        if state == ContainerState::Lost {
            // Whatever it still runs, nobody watches it any more.
            self.machine.cgroups.kill(&container.record.cgroup);
        }
        Some(state)
    }

    /// The state once no start is under way. Whoever calls has the container's turn.
    async fn state(&self, container: &Container) -> ContainerState {
        let state = state_of(container, container.settled_sighting().await);
        if state == ContainerState::Lost && container.was_never_begun() {
            // Nothing of it ever ran: it is as good as new.
            container.reset();
            return ContainerState::Created;
        }
        state
    }
}

/// What a sighting says of a container's state.
fn state_of(container: &Container, sighting: Sighting) -> ContainerState {
    match sighting {
        Sighting::Running(started) => ContainerState::Running(started),
        Sighting::Exited(exit) => ContainerState::Exited(exit),
        Sighting::Nothing if container.was_started() => ContainerState::Lost,
        Sighting::Nothing => ContainerState::Created,
    }
}

/// Whether a container shares namespaces with others of that task.
fn wants_holder(container: &Container, task: &str) -> bool {
    container.record.spec.cgroup_parent == task && holders::is_wanted_by(&container.record.spec)
}

#[async_trait]
impl Runtime for NativeRuntime {
    fn capabilities(&self) -> Vec<&'static str> {
        let mut names = vec![
            "com.amazonaws.ecs.capability.privileged-container",
            "com.amazonaws.ecs.capability.docker-remote-api.1.23",
            "com.amazonaws.ecs.capability.docker-remote-api.1.24",
            "com.amazonaws.ecs.capability.docker-remote-api.1.25",
            "ecs.capability.pid-ipc-namespace-sharing",
        ];
        if self.machine.modules.apparmor {
            names.push("com.amazonaws.ecs.capability.apparmor");
        }
        if quota::available(&self.config.data_dir).is_ok() {
            names.push("ecs.capability.berth.ephemeral-storage");
        }
        names
    }

    async fn pull(&self, request: PullRequest) -> Result<Image, PullError> {
        self.images.pull(request).await
    }

    async fn images(&self) -> Result<Vec<ImageObservation>, RunError> {
        let used = self.used_images();
        let (images, is_used) = (Arc::clone(&self.images), move |digest: &str| used.contains(digest));
        let looked = tokio::task::spawn_blocking(move || images.observe(is_used)).await.map_err(io::Error::other);
        looked.flatten().map_err(|error| RunError::System(format!("look at the images: {error}")))
    }

    async fn remove_image(&self, digest: &str) -> Result<(), RemoveImageError> {
        let (images, containers, digest) = (Arc::clone(&self.images), Arc::clone(&self.containers), digest.to_owned());
        let remove = move || {
            let is_used = || containers.lock().values().any(|container| container.record.spec.image_digest == digest);
            images.remove(&digest, is_used)
        };
        // Many files go with an image.
        tokio::task::spawn_blocking(remove).await.map_err(|error| RemoveImageError::System(error.to_string()))?
    }

    fn image_space(&self) -> Option<Space> {
        self.images.space()
    }

    async fn create(&self, spec: ContainerSpec) -> Result<(), RunError> {
        apart::check(&spec).map_err(RunError::InvalidSpec)?;
        let mapped = spec.kept_apart && self.may_map(&spec).await;
        // Held until the container is known, which from then on keeps the image.
        let image = self.images.hold(&spec.image_digest).ok_or_else(|| RunError::NoImage(spec.image_digest.clone()))?;
        let (layers, mut lower) = self.images.layers(&image).map_err(|e| RunError::System(format!("name the image's layers: {e}")))?;
        lower.push(self.base.to_owned());
        let default = apart::default_capabilities(&self.machine, spec.kept_apart && !mapped);
        let available = &self.machine.capabilities;
        let kept = capabilities::resolve(&spec.capabilities_add, &spec.capabilities_drop, spec.privileged, &default, available)
            .map_err(RunError::InvalidSpec)?;
        let security = security::parse(&spec.security_options, self.machine.modules).map_err(RunError::InvalidSpec)?;
        let filter = match spec.privileged || security.seccomp_unconfined {
            true => None,
            false => Some(self.filters.compiled(&kept).map_err(|e| RunError::System(e.to_string()))?),
        };
        let task = spec.cgroup_parent.clone();
        let ids = if mapped { Some(self.apart.take(&task)?) } else { None };
        let made = container::Plan {
            cgroup: self.cgroup(&spec.cgroup_parent, &spec.id),
            folder: self.folder(&spec.id),
            monitor: self.config.monitor.clone(),
            capabilities: kept.iter().map(|name| (*name).to_owned()).collect(),
            filter,
            security,
            holder: self.holders.file(&spec.cgroup_parent),
            ids,
            layers,
            lower,
            machine: &self.machine,
            defaults: &image.defaults,
            spec,
        };
        let container = made.write().inspect_err(|_| self.apart.give_back(&task, ids))?;
        self.containers.lock().insert(container.record.spec.id.clone(), Arc::new(container));
        self.prepare_next();
        Ok(())
    }

    async fn start(&self, id: &ContainerId) -> Result<Started, RunError> {
        let container = self.container(id)?;
        let _turn = container.turn.lock().await;
        let again = match container.was_started() {
            false => false,
            true => match self.state(&container).await {
                ContainerState::Running(started) => return Ok(started),
                ContainerState::Created => false,
                ContainerState::Exited(_) => true,
                ContainerState::Lost => return Err(RunError::System(format!("container {id} is lost: nobody saw how it ended"))),
            },
        };
        if again {
            let prepared = container.prepare_again(&self.machine.cgroups).await;
            prepared.map_err(|e| RunError::System(format!("make container {id} ready to start again: {e}")))?;
        }
        let result = self.launch(&container, again).await;
        if result.is_err() {
            self.machine.cgroups.kill(&container.record.cgroup);
            // What ended before has still ended so, and keeps its files.
            if again {
                container.forget_start()
            } else {
                container.reset()
            }
            let _ = container::remove_cgroup(&self.machine.cgroups, &container.record.cgroup).await;
        }
        self.prepare_next();
        result
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RunError> {
        let container = self.container(id)?;
        let sent = monitor::signal(&container.folder, signal).await;
        sent.map(drop).map_err(|e| RunError::System(format!("send signal {signal} to container {id}: {e}")))
    }

    async fn stop_signal(&self, id: &ContainerId) -> Result<i32, RunError> {
        Ok(self.container(id)?.record.stop_signal)
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RunError> {
        let container = self.container(id)?;
        match monitor::wait(&container.folder).await {
            Some(exit) => {
                self.release(&container);
                Ok(exit)
            }
            None if container.was_started() => Err(RunError::System(format!("container {id} is lost: nobody saw how it ended"))),
            None => Err(RunError::System(format!("container {id} has not been started"))),
        }
    }

    async fn exec(&self, id: &ContainerId, spec: ExecSpec) -> Result<ExecOutcome, RunError> {
        let container = self.container(id)?;
        let ContainerState::Running(started) = self.state(&container).await else {
            return Err(RunError::System(format!("container {id} is not running")));
        };
        let (timeout, limit) = (spec.timeout, spec.output_limit);
        let request = container.exec_request(started.pid, spec, &self.machine)?;
        shim::exec(&self.shim, &request, timeout, limit).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RunError> {
        let container = self.container(id)?;
        if monitor::exit(&container.folder).is_some() {
            return Err(RunError::NoContainer(id.clone()));
        }
        self.machine.cgroups.stats(&container.record.cgroup).ok_or_else(|| RunError::NoContainer(id.clone()))
    }

    async fn traffic(&self, id: &ContainerId) -> Option<Traffic> {
        let container = self.container(id).ok()?;
        if container.record.spec.network == ContainerNetwork::Host {
            return None;
        }
        traffic::of(*self.machine.cgroups.processes(&container.record.cgroup).first()?)
    }

    async fn list(&self) -> Result<Vec<ContainerObservation>, RunError> {
        let mut all: Vec<Arc<Container>> = self.containers.lock().values().cloned().collect();
        all.sort_by(|a, b| a.record.spec.id.cmp(&b.record.spec.id));
        let observe = |container: Arc<Container>| async move {
            let state = self.settled_state(&container).await?;
            if matches!(state, ContainerState::Exited(_) | ContainerState::Lost) {
                self.release(&container);
            }
            Some(ContainerObservation { id: container.record.spec.id.clone(), labels: container.record.spec.labels.clone(), state })
        };
        Ok(futures_util::future::join_all(all.into_iter().map(observe)).await.into_iter().flatten().collect())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RunError> {
        let known = self.containers.lock().get(id).cloned();
        let Some(container) = known else { return Ok(()) };
        let _turn = container.turn.lock().await;
        container.remove(&self.machine.cgroups).await.map_err(|e| RunError::System(format!("remove container {id}: {e}")))?;
        let parent = container.record.spec.cgroup_parent.clone();
        if self.containers.lock().remove(id).is_some() {
            self.apart.give_back(&parent, container.record.ids);
        }
        if holders::is_wanted_by(&container.record.spec) {
            let is_wanted = || self.containers.lock().values().any(|other| wants_holder(other, &parent));
            let released = self.holders.release(&parent, is_wanted).await;
            released.map_err(|e| RunError::System(format!("end what task {parent} shared: {e}")))?;
        }
        let containers = self.containers.lock();
        if !containers.values().any(|other| other.record.spec.cgroup_parent == parent) {
            let _ = self.machine.cgroups.remove(&format!("/{}/{parent}", self.config.cgroup_root));
        }
        if containers.is_empty() {
            let _ = self.machine.cgroups.remove(&format!("/{}", self.config.cgroup_root));
        }
        Ok(())
    }

    fn log_files(&self, id: &ContainerId) -> Vec<PathBuf> {
        let folder = self.folder(id);
        ["output.log.1", "output.log"].map(|name| folder.join(name)).into_iter().filter(|path| path.exists()).collect()
    }
}
