//! This machine as a container instance: runtime, network, agent.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_agent::capabilities::FARGATE_CLUSTER;
use berth_agent::{Agent, AgentConfig};
use berth_network::linux::{BridgeConfig, BridgeNetwork, InterfaceConfig, InterfaceNetwork, KeptPorts, MachineNetwork, dynamic_ports};
use berth_network::port::Network;
use berth_runtime::docker::engine::{DEFAULT_HOST, connect};
use berth_runtime::docker::{DockerConfig, DockerRuntime};
use berth_runtime::images::BerthRegistry;
use berth_runtime::native::{NativeConfig, NativeRuntime, locate};
use berth_runtime::port::{RegistryCredentials, Runtime};

use crate::failure::Failure;
use crate::fargate;
use crate::runtime_choice::{self, Chosen, RuntimeChoice};

/// Where namespaces are mounted; gone with the machine's next start, like the namespaces themselves.
const RUN: &str = "/run/berth";

/// A running agent with what it works on.
pub(crate) struct Node {
    agent: Agent,
    network: Arc<dyn Network>,
    name: String,
    dir: PathBuf,
}

impl Node {
    /// Opens runtime and network and starts the agent. `name` tells this agent's bridge, table, cgroups and labels from others'.
    pub(crate) async fn start(
        name: &str,
        dir: &Path,
        mut config: AgentConfig,
        account: &str,
        choice: RuntimeChoice,
    ) -> Result<Self, Failure> {
        let host = config.docker_host.clone().unwrap_or_else(|| DEFAULT_HOST.to_owned());
        let ports = config.dynamic_host_ports.get_or_insert_with(dynamic_ports).clone();
        // SAFETY: geteuid only returns a number.
        let is_root = unsafe { libc::geteuid() } == 0;
        let used = runtime_choice::used(dir);
        // A daemon that is slow to answer must not hold up a start that does not need it.
        let docker = match runtime_choice::may_be_docker(choice, is_root, used) {
            true => connect(&host).await.map(drop).map_err(|error| error.to_string()),
            false => Ok(()),
        };
        let chosen = runtime_choice::choose(choice, is_root, used, &docker);
        let chosen = chosen.map_err(|(what, problem)| Failure::part(what, problem))?;
        runtime_choice::remember(dir, chosen)?;
        let registry = BerthRegistry {
            endpoints: config.backend.split(',').map(str::to_owned).collect(),
            credentials: RegistryCredentials {
                username: config.access_key.id.clone(),
                password: config.access_key.secret.expose().to_owned(),
            },
            account: account.to_owned(),
            region: config.region.clone(),
        };
        let inactivity = config.pull_inactivity;
        let (runtime, network, bridge) = match chosen {
            Chosen::Native => native(name, dir, (registry, inactivity), ports, &config).await?,
            Chosen::Docker => in_docker(name, dir, host, (registry, inactivity), ports).await?,
        };
        config.dns.bridge = bridge;
        if config.fargate == Some(true) {
            let why_not = match (chosen, network.has_interfaces()) {
                (Chosen::Docker, _) => Some("tasks of Fargate need Berth's own runtime (--runtime native), which needs root"),
                (Chosen::Native, false) => Some("tasks of Fargate need network interfaces of their own, which this machine cannot make"),
                (Chosen::Native, true) => None,
            };
            match why_not {
                Some(problem) if config.cluster == FARGATE_CLUSTER => return Err(Failure::part("--fargate", problem)),
                Some(problem) => tracing::info!(problem, "this machine takes no tasks of Fargate"),
                None => {}
            }
            config.fargate = Some(why_not.is_none());
        }
        let agent = Agent::start(config, runtime, Arc::clone(&network)).await.map_err(|error| Failure::part("agent", error))?;
        Ok(Self { agent, network, name: name.to_owned(), dir: dir.to_owned() })
    }

    /// Waits until the agent is connected: tasks can be placed here.
    pub(crate) async fn connected(&self) {
        self.agent.connected().await;
    }

    /// The container instance's ARN.
    pub(crate) fn container_instance_arn(&self) -> String {
        self.agent.container_instance_arn().to_string()
    }

    /// Lets go and leaves containers running.
    pub(crate) async fn leave(self) {
        self.agent.shutdown().await;
    }

    /// Lets go after every task has ended, and removes what is common to them.
    pub(crate) async fn remove(self) -> Result<(), Failure> {
        self.agent.purge().await.map_err(|error| Failure::part("agent", error))?;
        self.network.shutdown().await.map_err(|error| Failure::part("network", error))?;
        let run = PathBuf::from(RUN).join(&self.name);
        let _ = std::fs::remove_dir(run.join("netns"));
        let _ = std::fs::remove_dir(run);
        runtime_choice::forget(&self.dir);
        Ok(())
    }
}

/// Runtime and network, and this machine's address on the bridge of its containers where that is Berth's own.
type Parts = (Arc<dyn Runtime>, Arc<dyn Network>, Option<Ipv4Addr>);
/// Berth's own registry, and how long any may send nothing.
type Pulls = (BerthRegistry, Duration);

/// Berth's own runtime, with a bridge of its own.
async fn native(
    name: &str,
    dir: &Path,
    (registry, pull_inactivity): Pulls,
    ports: RangeInclusive<u16>,
    config: &AgentConfig,
) -> Result<Parts, Failure> {
    let program = |name: &str| {
        locate(name).ok_or_else(|| {
            Failure::part(
                "runtime",
                format!("the program {name} is not installed beside this one; run `make install`, or set BERTH_LIBEXEC"),
            )
        })
    };
    let native = NativeConfig {
        data_dir: dir.to_owned(),
        cgroup_root: format!("berth-{name}"),
        shim: program("berth-shim")?,
        monitor: program("berth-monitor")?,
        berth_registry: Some(registry),
        pull_inactivity,
    };
    let mut bridge = BridgeConfig::new(name, dir.join("network"), PathBuf::from(RUN).join(name).join("netns"));
    bridge.dynamic_ports = ports;
    let mut interfaces = InterfaceConfig::new(name, dir.join("interfaces"), PathBuf::from(RUN).join(name).join("interfaces"));
    interfaces.shortcuts = config.task_shortcuts;
    let opened = tokio::task::spawn_blocking(move || {
        let runtime = NativeRuntime::open(native).map_err(|error| Failure::part("runtime", error))?;
        let network = BridgeNetwork::open(bridge).map_err(|error| Failure::part("network", error))?;
        let gateway = network.gateway();
        interfaces.metadata = network.metadata();
        // What needs none runs all the same, on a kernel that is too old for them.
        let interfaces = InterfaceNetwork::open(interfaces)
            .inspect_err(|error| tracing::warn!(%error, "tasks of network mode awsvpc cannot run here"))
            .ok();
        let network = MachineNetwork::new(network, interfaces);
        Ok::<_, Failure>((runtime, Arc::new(network) as Arc<dyn Network>, Some(gateway)))
    });
    let (runtime, network, gateway) = opened.await.map_err(|error| Failure::part("agent", error))??;
    if config.fargate == Some(true) && network.has_interfaces() {
        for line in fargate::shortcomings(runtime.remapping().await, dir) {
            tracing::warn!("{line}");
        }
    }
    Ok((Arc::new(runtime), network, gateway))
}

/// Docker, with its own bridge; Berth chooses the ports.
async fn in_docker(
    name: &str,
    dir: &Path,
    host: String,
    (registry, pull_inactivity): Pulls,
    ports: RangeInclusive<u16>,
) -> Result<Parts, Failure> {
    // First the ports: their lock keeps a second agent out of this directory.
    let network = KeptPorts::open(&dir.join("ports"), ports).map_err(|error| Failure::part("network", error))?;
    let config = DockerConfig { host, data_dir: dir.to_owned(), name: name.to_owned(), berth_registry: Some(registry), pull_inactivity };
    let runtime = DockerRuntime::open(config).await.map_err(|error| Failure::part("runtime", error))?;
    Ok((Arc::new(runtime), Arc::new(network), None))
}
