//! What the agent is told at start.

mod dns;
mod efs;
mod environment;
pub mod images;
mod json_file;
pub mod layers;
pub mod log;
mod metadata;
mod public_addresses;
pub mod variables;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use berth_identity::AccessKey;
use berth_runtime::images::PULL_INACTIVITY;
use berth_runtime::port::PullBehavior;

pub use self::dns::{DNS, DNS_PORT, DNS_UPSTREAM, DnsSettings};
pub use self::efs::{ACCESS_POINTS, AccessPoint, Creation, EfsBackend, EfsSettings, FILE_SYSTEMS};
use self::images::ImageConfig;
use self::layers::Settings;
use self::log::AgentLog;
pub use self::metadata::MetadataSettings;
pub use self::public_addresses::PUBLIC_ADDRESSES;
use crate::capabilities::Announced;
use crate::registry_logins::RegistryLogins;
use crate::sources::ServiceEndpoints;

/// The official agent's port for introspection.
pub const INTROSPECTION_PORT: u16 = 51678;

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
    /// What those calls are signed with; the agent's own key if none.
    pub sources_key: Option<AccessKey>,
    /// Where the agent keeps what must survive it.
    pub data_dir: PathBuf,
    /// Whether the agent remembers across its restarts who it is and what it runs. If not, it begins anew each time, and removes what an
    /// earlier life left.
    pub checkpoint: bool,
    /// Where Docker is, where it runs the containers; its usual socket if none.
    pub docker_host: Option<String>,
    /// The machine's own attributes.
    pub attributes: BTreeMap<String, Option<String>>,
    /// The operating system and its version, like `debian_12`; what /etc/os-release says if none.
    pub os_family_detailed: Option<String>,
    /// Which capabilities are announced or kept back, whatever agent and runtime could do.
    pub announced: Announced,
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
    /// Where the ports come from that a task leaves open; the machine's ephemeral range if none.
    pub dynamic_host_ports: Option<RangeInclusive<u16>>,
    /// CPU units to announce; the machine's cores times 1024 if none.
    pub total_cpu: Option<u32>,
    /// MiB of memory to announce, before reservations; the machine's if none.
    pub total_memory_mib: Option<u64>,
    /// How images that are already here are treated.
    pub pull_behavior: PullBehavior,
    /// How long a pull may take.
    pub pull_timeout: Duration,
    /// How long a registry may send nothing before it counts as gone.
    pub pull_inactivity: Duration,
    /// Whether images are pulled before what a container depends on has come about.
    pub pull_dependent_upfront: bool,
    /// Logins of registries, for images whose task definition has none of its own.
    pub registry_logins: RegistryLogins,
    /// Whether a shared volume that is there already must have the options and labels that a task asks for.
    pub match_shared_volumes: bool,
    /// Whether a file that describes it is put into each container.
    pub container_metadata: bool,
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
    /// Most processes of a task, all its containers together; no limit if none.
    pub task_pids_limit: Option<u32>,
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
    /// The DNS server that containers ask.
    pub dns: DnsSettings,
    /// Where EFS file systems are.
    pub efs: EfsSettings,
    /// The task metadata endpoint.
    pub metadata: MetadataSettings,
    /// Whether this machine takes tasks of Fargate; where nobody said, whoever starts the agent does. Only a runtime that keeps tasks apart
    /// as docs/fargate-isolation.md says, and a network with interfaces, may be offered so.
    pub fargate: Option<bool>,
    /// Whether connections that move much between two tasks of this machine take a shorter way past its routes and rules.
    pub task_shortcuts: bool,
    /// Addresses that tasks of Fargate here may be given that ask for a public one, as ranges with spaces between; none: they get
    /// none.
    pub public_addresses: Option<String>,
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
            checkpoint: true,
            docker_host: None,
            attributes: BTreeMap::new(),
            os_family_detailed: None,
            announced: Announced::default(),
            availability_zone: None,
            tags: BTreeMap::new(),
            reserved_memory_mib: 0,
            reserved_ports: DEFAULT_RESERVED_PORTS.to_vec(),
            reserved_ports_udp: Vec::new(),
            dynamic_host_ports: None,
            total_cpu: None,
            total_memory_mib: None,
            pull_behavior: PullBehavior::Default,
            pull_timeout: Duration::from_secs(2 * 3600),
            pull_inactivity: PULL_INACTIVITY,
            pull_dependent_upfront: true,
            registry_logins: RegistryLogins::default(),
            match_shared_volumes: true,
            container_metadata: false,
            images: ImageConfig::default(),
            // Four streams fill a usual line; more only make each slower.
            concurrent_pulls: 4,
            container_stop_timeout: Duration::from_secs(30),
            container_create_timeout: Duration::from_secs(240),
            container_start_timeout: Duration::from_secs(180),
            task_pids_limit: None,
            cleanup_wait: Duration::from_secs(3 * 3600),
            most_kept_tasks: 500,
            most_tasks: 10_000,
            container_log_limit: 16 * 1024 * 1024,
            metrics: true,
            registration_patience: Duration::from_secs(3600),
            dns: DnsSettings::default(),
            efs: EfsSettings::default(),
            metadata: MetadataSettings::default(),
            fargate: None,
            task_shortcuts: true,
            public_addresses: None,
            introspection: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, INTROSPECTION_PORT))),
        }
    }
}

/// What was read of all places.
#[derive(Debug, Clone)]
pub struct Told {
    /// The settings.
    pub config: AgentConfig,
    /// How the log is written.
    pub log: AgentLog,
    /// What is set and has no effect, or another one than was asked for: a line each, for the log.
    pub notices: Vec<String>,
}

/// Reads all settings. Backend, region and key may be missing here: whoever starts the agent can set them, and [`AgentConfig::check`]
/// says what nothing can be done without.
///
/// # Errors
/// [`ConfigError`], which names the variable, and the file and line it stands in.
pub fn read(settings: &Settings) -> Result<Told, ConfigError> {
    let read = environment::read(&|name| settings.get(name).map(|given| given.text.clone()));
    let (config, log, notes) = read.map_err(|error| match settings.get(error.name) {
        Some(given) => ConfigError { problem: format!("{} (set by {})", error.problem, given.place), ..error },
        None => error,
    })?;
    let notices = variables::notices(settings).into_iter().chain(notes).collect();
    Ok(Told { config, log, notices })
}

impl AgentConfig {
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

#[cfg(test)]
mod tests {
    use super::layers::Layer;
    use super::*;

    #[test]
    fn an_error_names_the_variable_the_file_and_the_line() {
        let own = Layer::environment([("ECS_CLUSTER".to_owned(), "own".to_owned())]);
        let file = |text: &str| Layer::lines("/etc/ecs/ecs.config", text).unwrap();
        let error = read(&Settings::default().then(own.clone()).then(file("ECS_CLUSTER=c\nECS_RESERVED_MEMORY=much"))).unwrap_err();
        assert_eq!(error.to_string(), "ECS_RESERVED_MEMORY: 'much' is not a number of MiB (set by /etc/ecs/ecs.config, line 2)");
        let json = Layer::json("/c.json", "{\n\"ReservedMemory\": \"x\",\n\"Cluster\": \"json\", \"DataDir\": \"/json\"}").unwrap();
        let error = read(&Settings::default().then(own.clone()).then(json.clone())).unwrap_err();
        assert!(error.to_string().ends_with("(set by /c.json, line 2, member ReservedMemory)"), "{error}");
        let told = read(&Settings::default().then(own).then(file("ECS_RESERVED_MEMORY=5\nECS_WHAT=1")).then(json)).unwrap();
        assert_eq!((told.config.cluster.as_str(), told.config.reserved_memory_mib), ("own", 5));
        assert_eq!(told.config.data_dir, PathBuf::from("/json"));
        assert_eq!(told.notices, ["ECS_WHAT is ignored: this agent knows no such variable (/etc/ecs/ecs.config, line 2)"]);
    }
}
