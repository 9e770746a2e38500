//! What the agent is told at start.

mod environment;
pub mod images;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use berth_identity::AccessKey;
use berth_runtime::port::PullBehavior;

use self::images::ImageConfig;
use crate::sources::ServiceEndpoints;

/// Ports that the official agent keeps for the machine: SSH, Docker, its own two.
pub const DEFAULT_RESERVED_PORTS: [u16; 5] = [22, 2375, 2376, 51678, 51679];

/// A setting that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct ConfigError {
    /// The variable or setting.
    pub name: &'static str,
    /// What is wrong with its value.
    pub problem: String,
}

/// What the agent is told at start. Meanings and defaults are those of amazon-ecs-agent's variables
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-agent-config.html>).
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The cluster, by name or ARN; sent as it is.
    pub cluster: String,
    /// Whether the cluster is made if it does not exist: only when nobody named one.
    pub create_cluster: bool,
    /// URL of the ECS API; several, with commas between, of servers that share one store.
    pub backend: String,
    /// The region that signatures name and containers are told of.
    pub region: String,
    /// What requests are signed with.
    pub access_key: AccessKey,
    /// Where parameters, secrets and environment files are asked for.
    pub service_endpoints: ServiceEndpoints,
    /// What those calls are signed with where a task has no execution role's credentials; the agent's own key if none.
    pub sources_key: Option<AccessKey>,
    /// Where the agent keeps what must survive it.
    pub data_dir: PathBuf,
    /// The machine's own attributes.
    pub attributes: BTreeMap<String, Option<String>>,
    /// The availability zone; the region with an `a` if nobody knows.
    pub availability_zone: Option<String>,
    /// Tags of the container instance, set when it is first registered.
    pub tags: BTreeMap<String, String>,
    /// MiB of memory that tasks do not get.
    pub reserved_memory_mib: u64,
    /// TCP ports that tasks do not get.
    pub reserved_ports: Vec<u16>,
    /// UDP ports that tasks do not get.
    pub reserved_ports_udp: Vec<u16>,
    /// CPU units to announce; the machine's cores times 1024 if none.
    pub total_cpu: Option<u32>,
    /// MiB of memory to announce, before reservations; the machine's if none.
    pub total_memory_mib: Option<u64>,
    /// How images that are already here are treated.
    pub pull_behavior: PullBehavior,
    /// How long images stay, and which are to be here.
    pub images: ImageConfig,
    /// How many images are pulled at a time.
    pub concurrent_pulls: usize,
    /// From stop signal to kill, for containers that do not say.
    pub container_stop_timeout: Duration,
    /// How long a container may take to be made.
    pub container_create_timeout: Duration,
    /// How long a container may take to start.
    pub container_start_timeout: Duration,
    /// How long ended containers and their output are kept.
    pub cleanup_wait: Duration,
    /// How many ended tasks are kept at most; beyond it the oldest go before their time.
    pub most_kept_tasks: usize,
    /// How many tasks there may be at a time that have not ended.
    pub most_tasks: usize,
    /// Most bytes of output kept per container.
    pub container_log_limit: u64,
    /// Whether containers' use of resources is published.
    pub metrics: bool,
    /// How long registration is tried while the server is busy or not there.
    pub registration_patience: Duration,
    /// Where introspection is served.
    pub introspection: Option<SocketAddr>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            cluster: "default".to_owned(),
            create_cluster: true,
            backend: String::new(),
            region: String::new(),
            access_key: AccessKey::long_term("", "", ""),
            service_endpoints: ServiceEndpoints::default(),
            sources_key: None,
            data_dir: PathBuf::from("/data"),
            attributes: BTreeMap::new(),
            availability_zone: None,
            tags: BTreeMap::new(),
            reserved_memory_mib: 0,
            reserved_ports: DEFAULT_RESERVED_PORTS.to_vec(),
            reserved_ports_udp: Vec::new(),
            total_cpu: None,
            total_memory_mib: None,
            pull_behavior: PullBehavior::Default,
            images: ImageConfig::default(),
            // Four streams fill a usual line; more only make each slower.
            concurrent_pulls: 4,
            container_stop_timeout: Duration::from_secs(30),
            container_create_timeout: Duration::from_secs(240),
            container_start_timeout: Duration::from_secs(180),
            cleanup_wait: Duration::from_secs(3 * 3600),
            most_kept_tasks: 500,
            most_tasks: 10_000,
            container_log_limit: 16 * 1024 * 1024,
            metrics: true,
            registration_patience: Duration::from_secs(3600),
            introspection: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 51678))),
        }
    }
}

impl AgentConfig {
    /// Reads amazon-ecs-agent's environment variables. Backend, region and key may be missing here: whoever starts the agent can
    /// set them, and [`crate::Agent::start`] refuses to go without.
    ///
    /// # Errors
    /// [`ConfigError`], which names the variable.
    pub fn from_env(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        environment::read(get)
    }

    /// Whether all is there that nothing can be done without.
    ///
    /// # Errors
    /// [`ConfigError`], which names the variable that would set it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let missing = |name: &'static str| ConfigError { name, problem: "is not set, and nothing can be done without it".to_owned() };
        if self.backend.is_empty() {
            return Err(missing("ECS_BACKEND_HOST"));
        }
        if self.region.is_empty() {
            return Err(missing("AWS_DEFAULT_REGION"));
        }
        if self.access_key.id.is_empty() {
            return Err(missing("AWS_ACCESS_KEY_ID"));
        }
        if !self.data_dir.is_absolute() {
            return Err(ConfigError { name: "ECS_DATADIR", problem: "is not an absolute path".to_owned() });
        }
        Ok(())
    }
}
