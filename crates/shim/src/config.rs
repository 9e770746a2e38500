//! The part of an OCI runtime configuration that the shim honours. What is not listed here `berth-runtime` never writes.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md>

use std::collections::BTreeMap;

/// `config.json`.
#[derive(serde::Deserialize)]
pub struct Config {
    /// Where the root file system goes.
    pub root: Root,
    /// Host name in the container's UTS namespace.
    pub hostname: String,
    /// Mounts in order.
    pub mounts: Vec<Mount>,
    /// What runs.
    pub process: Process,
    /// Namespaces, cgroups and the like.
    pub linux: Linux,
}

/// The root file system.
#[derive(serde::Deserialize)]
pub struct Root {
    /// Absolute path of the mount point.
    pub path: String,
    /// Whether it is read-only in the end.
    pub readonly: bool,
}

/// One mount.
#[derive(serde::Deserialize)]
pub struct Mount {
    /// File system type, or `bind`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For binds: what is mounted.
    pub source: String,
    /// Absolute path inside.
    pub destination: String,
    /// mount(8) options.
    #[serde(default)]
    pub options: Vec<String>,
    /// For binds: who the container's user is on the disk.
    #[serde(default)]
    pub owner: Option<FileOwner>,
}

/// Who the container's user is on the disk, in one mount; an addition to the runtime configuration.
#[derive(serde::Deserialize)]
pub struct FileOwner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What runs.
#[derive(serde::Deserialize, Default)]
pub struct Process {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Resource limits.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
}

/// One resource limit.
#[derive(serde::Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_...`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Namespaces, cgroups and the like.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    /// Those that are new; one with a path is joined.
    pub namespaces: Vec<Namespace>,
    /// Path below each hierarchy's root.
    pub cgroups_path: String,
    /// Limits.
    pub resources: Resources,
    /// Paths that are hidden.
    #[serde(default)]
    pub masked_paths: Vec<String>,
    /// Paths that are read-only.
    #[serde(default)]
    pub readonly_paths: Vec<String>,
    /// Device files besides the usual ones.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Kernel settings.
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
}

/// One namespace.
#[derive(serde::Deserialize)]
pub struct Namespace {
    /// `pid`, `mount`, `ipc`, `uts`, `network`, `cgroup`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One to join.
    pub path: Option<String>,
}

/// Limits.
#[derive(serde::Deserialize)]
pub struct Resources {
    /// Device rules; one rule for all devices, refined by the usual exceptions.
    pub devices: Vec<DeviceRule>,
    /// CPU.
    #[serde(default)]
    pub cpu: Cpu,
    /// Memory.
    #[serde(default)]
    pub memory: Memory,
    /// Processes.
    #[serde(default)]
    pub pids: Pids,
}

/// Without numbers: whether all devices are allowed, or only the usual ones. With numbers: one device that is allowed besides.
#[derive(serde::Deserialize)]
pub struct DeviceRule {
    /// All, or only the usual ones.
    pub allow: bool,
    /// `c` or `b`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m`, those that are allowed.
    #[serde(default)]
    pub access: String,
}

/// CPU limits.
#[derive(serde::Deserialize, Default)]
pub struct Cpu {
    /// cgroup v1 shares.
    pub shares: Option<u64>,
    /// Microseconds per period.
    pub quota: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Microseconds per period of the cgroup above, the task's: all its containers together.
    pub of_task: Option<u64>,
}

/// Memory limits in bytes.
#[derive(serde::Deserialize, Default)]
pub struct Memory {
    /// Hard.
    pub limit: Option<u64>,
    /// Soft.
    pub reservation: Option<u64>,
    /// Memory and swap together; -1: no limit. Missing: as much swap as memory.
    pub swap: Option<i64>,
    /// 0 to 100.
    pub swappiness: Option<u64>,
    /// Hard, of the cgroup above, the task's: all its containers together, and nothing of it swapped out.
    pub of_task: Option<u64>,
}

/// Process limits.
#[derive(serde::Deserialize, Default)]
pub struct Pids {
    /// Most processes in the cgroup above, the task's: all its containers together.
    pub of_task: Option<u32>,
}

/// A device file.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Absolute path.
    pub path: String,
    /// `c` or `b`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Rights.
    pub file_mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}
