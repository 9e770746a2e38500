//! The `Runtime` port: what the agent's engine asks of whatever runs containers.
//!
//! Two implementations (native, Docker Engine); both must pass the suite in [`crate::conformance`].
//! Nothing here may know of tasks' desired states, clusters or the control plane.

mod images;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;

pub use self::images::{
    Image, ImageLayer, ImageObservation, PullBehavior, PullError, PullRequest, RegistryCredentials, RegistryLogin, RegistryLogins,
    RemoveImageError, Space,
};

/// The agent's name of a container, unique on this machine; it is part of paths, so it holds only `[a-z0-9-]` (at most 64).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bind mount of a host path.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BindMount {
    /// Host path; it must exist.
    pub source: PathBuf,
    /// Absolute path inside the container.
    pub destination: PathBuf,
    /// Mount read-only.
    pub read_only: bool,
    /// Who the container's user is on the disk; as the container's user if nobody else is meant. A runtime that cannot do this refuses it.
    #[serde(default)]
    pub owner: Option<FileOwner>,
    /// The source is of a file system that may not answer: nobody waits for it but the container itself, so it is not looked at before.
    #[serde(default)]
    pub remote: bool,
}

/// Who a container's user is on the disk, below one mount (the POSIX user of an EFS access point).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileOwner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A limit on what a task keeps on disk, and the project by which its file system counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StorageLimit {
    /// The project that the files are given to; the task's alone, on whatever file system.
    pub project: u32,
    /// Most bytes.
    pub bytes: u64,
}

/// A tmpfs mount (`linuxParameters.tmpfs`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TmpfsMount {
    /// Absolute path inside the container.
    pub destination: PathBuf,
    /// Size in MiB.
    pub size_mib: u32,
    /// Mount options as in the task definition (`noexec`, `mode=1777`, ...).
    pub options: Vec<String>,
}

/// A resource limit (`ulimits`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ulimit {
    /// ECS's name (`nofile`, `nproc`, `core`, ...).
    pub name: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// A port that the runtime itself publishes ([`ContainerNetwork::Bridge`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishedPort {
    /// Port inside the container.
    pub container_port: u16,
    /// Port on the machine; whoever asks has made sure that it is free.
    pub host_port: u16,
    /// UDP; otherwise TCP.
    pub udp: bool,
}

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ContainerNetwork {
    /// The machine's own network namespace.
    Host,
    /// A prepared network namespace, by path. A runtime that has its own networks refuses it.
    Namespace(PathBuf),
    /// The runtime's own bridge (Docker's), with the ports that it publishes. A runtime without networks refuses it.
    Bridge(Vec<PublishedPort>),
    /// The runtime's own: loopback only. A runtime without networks refuses it.
    Isolated,
}

/// Whose pid or ipc namespace a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Sharing {
    /// Its own.
    #[default]
    Own,
    /// The machine's (`pidMode` or `ipcMode` of `host`).
    Host,
    /// That of all containers with the same [`ContainerSpec::cgroup_parent`] that say so (`task`). It lives until the last of them is
    /// removed, whichever of them ends first.
    Task,
    /// Its own, and for ipc without `/dev/shm` (`ipcMode` of `none`); for pid the same as [`Sharing::Own`].
    Closed,
}

/// A device of the machine in the container (`linuxParameters.devices`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceMapping {
    /// Path on the machine.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: PathBuf,
    /// Of `r`, `w` and `m` (make nodes), those that are allowed.
    pub permissions: String,
}

/// A name server for containers of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InstanceDns {
    /// Where it listens.
    pub address: std::net::IpAddr,
    /// Whether it is to be the only one. If not, the machine's own follow it.
    pub alone: bool,
}

/// Everything a container is made of. Optional values of `None` mean "what the image says".
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ContainerSpec {
    /// Its name on this machine.
    pub id: ContainerId,
    /// Manifest digest of an image that [`Runtime::pull`] returned.
    pub image_digest: String,
    /// Replaces the image's entry point.
    pub entry_point: Option<Vec<String>>,
    /// Replaces the image's command. (An own entry point also drops the image's command, as in Docker.)
    pub command: Option<Vec<String>>,
    /// Added to, and stronger than, the image's environment.
    pub environment: BTreeMap<String, String>,
    /// `user[:group]`, names or numbers; resolved in the container's own /etc/passwd and /etc/group.
    pub user: Option<String>,
    /// Absolute path; made if missing.
    pub working_directory: Option<String>,
    /// Host name inside the container's UTS namespace; `None`: the first 12 characters of the id, in host network the machine's.
    pub hostname: Option<String>,
    /// Further lines of /etc/hosts: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// Name servers; empty: the machine's /etc/resolv.conf.
    pub dns_servers: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// The name server of this machine for its containers, in place of the machine's own; nothing where `dns_servers` names some.
    #[serde(default)]
    pub instance_dns: Option<InstanceDns>,
    /// Its network.
    pub network: ContainerNetwork,
    /// Its own address, for /etc/hosts.
    pub address: Option<std::net::IpAddr>,
    /// cgroup parent below the runtime's own root, e.g. the task's id.
    pub cgroup_parent: String,
    /// CPU shares (ECS: CPU units, 1024 = one core); the kernel's minimum of 2 is applied.
    pub cpu_shares: u64,
    /// Hard CPU limit in units of 1/1000 core; `None`: unlimited.
    pub cpu_limit_millis: Option<u64>,
    /// Hard memory limit in bytes; over it the container is killed with [`Exit::oom_killed`].
    pub memory_limit: Option<u64>,
    /// Soft memory limit in bytes.
    pub memory_reservation: Option<u64>,
    /// Most processes of all containers with the same [`ContainerSpec::cgroup_parent`] together; `None`: unlimited. A runtime that has no
    /// such group gives each of them as many.
    pub task_pids_limit: Option<u32>,
    /// Hard CPU limit of all containers with the same [`ContainerSpec::cgroup_parent`] together, in units of 1/1000 core. A runtime that has no
    /// such group refuses it.
    #[serde(default)]
    pub task_cpu_limit_millis: Option<u64>,
    /// Hard memory limit of all those containers together, in bytes, none of which is swapped out. A runtime that has no such group refuses it.
    #[serde(default)]
    pub task_memory_limit: Option<u64>,
    /// Kept apart from the machine and from all other tasks, as far as this machine can: its users are users of the machine that are the task's
    /// alone, and nothing of the machine can be asked for. A runtime that cannot keep anybody apart refuses it.
    #[serde(default)]
    pub kept_apart: bool,
    /// Capabilities to add to Docker's default set (`ALL` is allowed).
    pub capabilities_add: Vec<String>,
    /// Capabilities to drop (`ALL` is allowed).
    pub capabilities_drop: Vec<String>,
    /// All capabilities, all devices, no seccomp, no masked paths.
    pub privileged: bool,
    /// The root file system is read-only.
    pub read_only_root: bool,
    /// Bind mounts.
    pub mounts: Vec<BindMount>,
    /// A limit on what it writes to its own file system and its output together with its task's other containers (`ephemeralStorage`). A
    /// runtime that cannot keep to it refuses it.
    #[serde(default)]
    pub storage: Option<StorageLimit>,
    /// tmpfs mounts.
    pub tmpfs: Vec<TmpfsMount>,
    /// /dev/shm in MiB; `None`: 64.
    pub shared_memory_mib: Option<u32>,
    /// Limits.
    pub ulimits: Vec<Ulimit>,
    /// Kernel settings of the container's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// A terminal is its standard input, output and error (`pseudoTerminal`).
    pub terminal: bool,
    /// Standard input stays open though nobody writes to it (`interactive`); otherwise it is at its end at once.
    pub stdin_open: bool,
    /// A small init is its first process: it passes signals on and collects orphans (`initProcessEnabled`).
    pub init: bool,
    /// Devices besides the usual ones.
    pub devices: Vec<DeviceMapping>,
    /// Most memory and swap together, in bytes; -1: as much swap as the machine has; `None`: the runtime's default (Docker's: as much
    /// swap as memory).
    pub memory_swap: Option<i64>,
    /// How readily its memory is swapped out, 0 to 100; `None`: the machine's setting.
    pub swappiness: Option<u8>,
    /// `dockerSecurityOptions` as they stand: `no-new-privileges`, `seccomp=unconfined`, `apparmor:PROFILE`, `label:..`.
    pub security_options: Vec<String>,
    /// Whose processes it sees.
    pub pid: Sharing,
    /// Whose System V and POSIX objects it sees.
    pub ipc: Sharing,
    /// Identifiers of the GPUs that it may use.
    pub gpus: Vec<String>,
    /// Kept with the container and given back by [`Runtime::list`].
    pub labels: BTreeMap<String, String>,
    /// Most bytes of output kept on disk per container, both streams together.
    pub log_limit: u64,
}

/// Why a container could not be made or started.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A member of the specification cannot be honoured; the text names it.
    #[error("{0}")]
    InvalidSpec(String),
    /// The image is not here.
    #[error("No such image: {0}")]
    NoImage(String),
    /// The program cannot be executed (not found, no permission).
    #[error("{0}")]
    Exec(String),
    /// There is no such container.
    #[error("No such container: {0}")]
    NoContainer(ContainerId),
    /// Anything else; the text says which step failed.
    #[error("{0}")]
    System(String),
}

/// A container that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Process id of its first process, in the machine's pid namespace.
    pub pid: i32,
    /// When it was started.
    pub at: SystemTime,
    /// Its address on a bridge of the runtime's own ([`ContainerNetwork::Bridge`]); `None` where whoever asked for it brought the network.
    pub address: Option<Ipv4Addr>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal number if a signal ended it.
    pub code: i32,
    /// The kernel killed it (or a process in it) for memory.
    pub oom_killed: bool,
    /// When it ended.
    pub at: SystemTime,
}

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not yet started.
    Created,
    /// Running.
    Running(Started),
    /// Ended.
    Exited(Exit),
    /// It ran and nobody can say how it ended (its monitor was killed, the machine was restarted).
    Lost,
}

/// A container found by [`Runtime::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerObservation {
    /// Its name.
    pub id: ContainerId,
    /// As given at creation.
    pub labels: BTreeMap<String, String>,
    /// Its state.
    pub state: ContainerState,
}

/// A process to run inside a running container.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Added to the container's environment.
    pub environment: BTreeMap<String, String>,
    /// `None`: the container's user.
    pub user: Option<String>,
    /// Killed when it takes longer.
    pub timeout: std::time::Duration,
    /// Most bytes of output kept.
    pub output_limit: usize,
}

/// What came of an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Exit code; `None` if it was killed for its timeout.
    pub code: Option<i32>,
    /// stdout and stderr as they came.
    pub output: Vec<u8>,
}

/// One reading of a container's use of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// CPU time used since start, nanoseconds.
    pub cpu_nanos: u64,
    /// Of it, what its programs used themselves.
    pub user_nanos: u64,
    /// Of it, what the kernel used for them.
    pub kernel_nanos: u64,
    /// Memory in use without page cache that nobody uses, bytes.
    pub memory_bytes: u64,
    /// Page cache that nobody uses (the kernel's `inactive_file`), bytes; not part of `memory_bytes`.
    pub cache_bytes: u64,
    /// Bytes read from block devices.
    pub read_bytes: u64,
    /// Bytes written to block devices.
    pub write_bytes: u64,
    /// Processes.
    pub pids: u64,
}

/// What went over the network interfaces of a container's namespace since they were made, all but loopback together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// What came in.
    pub received: Direction,
    /// What went out.
    pub sent: Direction,
}

/// What went over interfaces in one direction, as the kernel counts it (`/proc/net/dev`, proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Direction {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were broken.
    pub errors: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// Runs containers on this machine. All methods may be called concurrently and are idempotent where that has a meaning.
/// A cancelled call leaves nothing half-made that a later `remove` does not clear.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// ECS's names (`com.amazonaws.ecs.capability.privileged-container`, `ecs.capability.pid-ipc-namespace-sharing`, ..) of what this
    /// runtime honours on this machine, beyond what each must. The agent announces them, and tasks that need others are not placed here.
    fn capabilities(&self) -> Vec<&'static str>;

    /// Makes an image present. Several calls for one image share the work. A registry that does not answer is asked again, with pauses,
    /// for some seconds; whoever calls need not.
    ///
    /// # Errors
    /// [`PullError`]; then nothing of the image is left that was not there before.
    async fn pull(&self, request: PullRequest) -> Result<Image, PullError>;

    /// All images that are here, in order of their digests.
    ///
    /// # Errors
    /// [`RunError::System`].
    async fn images(&self) -> Result<Vec<ImageObservation>, RunError>;

    /// Removes an image, and the layers that no other has. One that a container has, or is just being made of, stays; what a pull is
    /// bringing stays too, but an image that a pull has brought is only safe once a container is made of it. Unknown ones are no error.
    ///
    /// # Errors
    /// [`RemoveImageError`]; after [`RemoveImageError::InUse`] nothing has changed.
    async fn remove_image(&self, digest: &str) -> Result<(), RemoveImageError>;

    /// The file system that images are on; `None` if that cannot be known.
    fn image_space(&self) -> Option<Space>;

    /// Makes a container, not started.
    ///
    /// # Errors
    /// [`RunError`]; then nothing is left.
    async fn create(&self, spec: ContainerSpec) -> Result<(), RunError>;

    /// Starts a created container, or one that has ended once more (restart policies): its file system and its output go on where they
    /// were. Returns when its program is executing; a container that runs is left as it is.
    ///
    /// # Errors
    /// [`RunError`]; the container then is as it was before and can be removed.
    async fn start(&self, id: &ContainerId) -> Result<Started, RunError>;

    /// Sends a signal to the container's first process. A container that has ended is no error.
    ///
    /// # Errors
    /// [`RunError::NoContainer`], [`RunError::System`].
    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RunError>;

    /// The image's `StopSignal` of this container, or SIGTERM.
    ///
    /// # Errors
    /// [`RunError::NoContainer`].
    async fn stop_signal(&self, id: &ContainerId) -> Result<i32, RunError>;

    /// Waits for the end. Also works for containers started by an earlier life of the agent, and after the end.
    ///
    /// # Errors
    /// [`RunError::NoContainer`], or [`RunError::System`] if it is [`ContainerState::Lost`].
    async fn wait(&self, id: &ContainerId) -> Result<Exit, RunError>;

    /// Runs a process inside a running container.
    ///
    /// # Errors
    /// [`RunError`].
    async fn exec(&self, id: &ContainerId, spec: ExecSpec) -> Result<ExecOutcome, RunError>;

    /// One reading.
    ///
    /// # Errors
    /// [`RunError::NoContainer`] also when it does not run.
    async fn stats(&self, id: &ContainerId) -> Result<Stats, RunError>;

    /// What went over its network; `None` of a container in the machine's own network, one that does not run, and where the runtime does
    /// not know.
    async fn traffic(&self, id: &ContainerId) -> Option<Traffic> {
        let _ = id;
        None
    }

    /// All containers of this runtime's data directory, in order of their ids.
    ///
    /// # Errors
    /// [`RunError::System`].
    async fn list(&self) -> Result<Vec<ContainerObservation>, RunError>;

    /// Removes a container with all it had (file system, cgroups, logs); kills it first if it runs. Unknown ids are no error.
    ///
    /// # Errors
    /// [`RunError::System`] with what could not be removed; calling again goes on.
    async fn remove(&self, id: &ContainerId) -> Result<(), RunError>;

    /// Files that hold the container's output in CRI log format (`<RFC 3339 nanos> <stdout|stderr> <P|F> <text>`), oldest first.
    fn log_files(&self, id: &ContainerId) -> Vec<PathBuf>;
}
