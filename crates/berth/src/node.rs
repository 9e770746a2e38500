//! This machine as a container instance: runtime, network, agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_agent::{Agent, AgentConfig};
use berth_network::linux::{BridgeConfig, BridgeNetwork};
use berth_network::port::Network;
use berth_runtime::images::BerthRegistry;
use berth_runtime::native::{NativeConfig, NativeRuntime, locate};
use berth_runtime::port::RegistryCredentials;

use crate::failure::Failure;

/// Where namespaces are mounted; gone with the machine's next start, like the namespaces themselves.
const RUN: &str = "/run/berth";

/// A running agent with what it works on.
pub(crate) struct Node {
    agent: Agent,
    network: Arc<BridgeNetwork>,
    name: String,
}

impl Node {
    /// Opens runtime and network and starts the agent. `name` tells this agent's bridge, table and cgroups from others'.
    pub(crate) async fn start(name: &str, dir: &Path, config: AgentConfig, account: &str) -> Result<Self, Failure> {
        // SAFETY: geteuid only returns a number.
        if unsafe { libc::geteuid() } != 0 {
            let text = "running containers needs root for namespaces, mounts and cgroups; start it with sudo, or use `berth server` alone";
            return Err(Failure::part("agent", text));
        }
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
            berth_registry: Some(BerthRegistry {
                endpoints: config.backend.split(',').map(str::to_owned).collect(),
                credentials: RegistryCredentials {
                    username: config.access_key.id.clone(),
                    password: config.access_key.secret.expose().to_owned(),
                },
                account: account.to_owned(),
                region: config.region.clone(),
            }),
        };
        let bridge = BridgeConfig::new(name, dir.join("network"), PathBuf::from(RUN).join(name).join("netns"));
        let (runtime, network) = tokio::task::spawn_blocking(move || {
            let runtime = NativeRuntime::open(native).map_err(|error| Failure::part("runtime", error))?;
            let network = BridgeNetwork::open(bridge).map_err(|error| Failure::part("network", error))?;
            Ok((runtime, network))
        })
        .await
        .map_err(|error| Failure::part("agent", error))??;
        let network = Arc::new(network);
        let agent = Agent::start(config, Arc::new(runtime), network.clone()).await.map_err(|error| Failure::part("agent", error))?;
        Ok(Self { agent, network, name: name.to_owned() })
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
        Ok(())
    }
}
