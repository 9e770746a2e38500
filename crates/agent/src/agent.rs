//! The agent as a whole: starting its parts in order, and letting go.

use std::sync::Arc;

use berth_acs::DialOptions;
use berth_network::port::Network;
use berth_runtime::port::Runtime;
use rustls_platform_verifier::ConfigVerifierExt;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::{AgentConfig, ConfigError};
use crate::ecs_client::EcsClient;
use crate::images::Images;
use crate::ledger::{Identity, Ledger, LedgerError};
use crate::metadata::{Endpoint, Metadata, on_loopback};
use crate::names::Names;
use crate::registration::{RegisterError, register};
use crate::session::{Link, acs, tcs};
use crate::sources::AwsSources;
use crate::tasks::{Means, PortRanges, PullGate, RecoveryError, Tasks};
use crate::{capabilities, introspection, machine, metadata, reports};

/// Reports that may wait for the sender; tasks wait beyond that.
const WAITING_REPORTS: usize = 1024;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The disk.
    #[error("the agent's data cannot be kept: {0}")]
    Ledger(#[from] LedgerError),
    /// The data directory belongs to an agent of another cluster, as the official agent would not accept either.
    #[error("ECS_CLUSTER: this data directory belongs to a container instance of cluster '{kept}', not '{configured}'")]
    OtherCluster {
        /// What was written.
        kept: String,
        /// What is wanted now.
        configured: String,
    },
    /// What runs here cannot be found out.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The control plane.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Why not everything could be removed.
#[derive(Debug, thiserror::Error)]
#[error("not everything could be removed: {0}")]
pub struct PurgeError(String);

/// A running agent. When it is dropped it lets go, as with [`Agent::shutdown`].
pub struct Agent {
    link: Arc<Link>,
    tasks: Arc<Tasks>,
    connected: watch::Receiver<bool>,
    loops: TaskTracker,
    stop: CancellationToken,
    _let_go: DropGuard,
}

impl Agent {
    /// Finds earlier tasks again, registers this machine and begins to serve. Returns once it is a container instance; wait for
    /// [`Agent::connected`] before placing tasks. If nobody answers at the backend this takes up to `registration_patience`;
    /// dropping the future lets go.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: AgentConfig, runtime: Arc<dyn Runtime>, network: Arc<dyn Network>) -> Result<Self, StartError> {
        config.check()?;
        let clock = Clock::Machine;
        let stop = CancellationToken::new();
        let let_go = stop.clone().drop_guard();
        let client = EcsClient::new(&config.backend, &config.region, config.access_key.clone(), clock.clone())?;
        // An agent that is not to remember has nothing to read either.
        let ledger = if config.checkpoint { Ledger::open(&config.data_dir)? } else { Ledger::in_memory() };
        let kept = ledger.identity()?;
        if !kept.container_instance_arn.is_empty() && kept.cluster != config.cluster {
            return Err(StartError::OtherCluster { kept: kept.cluster, configured: config.cluster });
        }
        let loops = TaskTracker::new();
        let nudge = Arc::new(Notify::new());
        let (submissions, inbox) = mpsc::channel(WAITING_REPORTS);
        loops.spawn(reports::run(client.clone(), inbox, nudge.clone(), stop.clone()));
        let pulls = PullGate::new(config.concurrent_pulls);
        let sources_key = config.sources_key.clone().unwrap_or_else(|| config.access_key.clone());
        let sources = AwsSources::new(config.service_endpoints.clone(), sources_key, clock.clone());
        let images = Arc::new(Images::open(&config, runtime.clone(), ledger.clone(), clock.clone())?);
        let names = Names::new(config.dns.clone(), ledger.clone());
        let gives_interfaces = network.has_interfaces();
        let answered_at = network.metadata();
        let means = Means {
            config: config.clone(),
            runtime: runtime.clone(),
            network: network.clone(),
            sources: Arc::new(sources),
            ledger: ledger.clone(),
            clock: clock.clone(),
            pulls,
            images: images.clone(),
            submissions,
            names: names.clone(),
            volumes: Default::default(),
            shared: Default::default(),
            port_ranges: PortRanges::new(config.dynamic_host_ports.clone()),
            endpoint: Endpoint::new(answered_at, client.chance().clone()),
        };
        let means = Arc::new(means);
        let tasks = Tasks::new(means.clone(), stop.clone());
        // Before anybody is asked: what ran goes on being watched, server or no server.
        let boot_id = machine::boot_id().unwrap_or_default();
        tasks.recover(&boot_id).await?;
        // Containers that ran before have asked all the while.
        if let Some(place) = answered_at {
            let metadata = Metadata::new(tasks.clone(), means.clone(), client.clone());
            loops.spawn(metadata::serve(metadata.clone(), place, stop.clone()));
            // For tasks in the machine's own network.
            loops.spawn(metadata::serve(metadata, on_loopback(place), stop.clone()));
        }
        // After strays were removed: it attaches something that is no task's.
        loops.spawn(names.clone().serve(network, stop.clone()));
        loops.spawn(names.keep(stop.clone()));
        loops.spawn(tasks.clone().sweep());
        loops.spawn(ledger.clone().settle(stop.clone()));
        loops.spawn(images.clean_up(stop.clone()));
        loops.spawn(Images::prepull(means, stop.clone()));

        let mut honoured = runtime.capabilities();
        honoured.extend(capabilities::efs(&config.efs));
        honoured.extend(gives_interfaces.then_some(capabilities::TASK_ENI));
        // Where containers can ask for them.
        honoured.extend(answered_at.iter().flat_map(|_| capabilities::TASK_ROLES));
        for line in config.announced.unmet(&honoured) {
            tracing::warn!("{line}");
        }
        let arn = register(&client, &config, &honoured, Some(kept.container_instance_arn.clone())).await?;
        let timeline = if arn == kept.container_instance_arn { kept.timeline } else { 0 };
        let identity = Identity { cluster: config.cluster.clone(), container_instance_arn: arn, timeline, boot_id };
        ledger.keep_identity(&identity)?;
        tracing::info!(container_instance = identity.container_instance_arn, cluster = config.cluster, "registered");

        let link = Link::new(config, honoured, client, ledger, clock, identity);
        let (is_connected, connected) = watch::channel(false);
        let options = DialOptions { tls: tls(&link.config.backend)?, ..Default::default() };
        loops.spawn(acs::run(link.clone(), tasks.clone(), options.clone(), is_connected, nudge, stop.clone()));
        loops.spawn(tcs::run(link.clone(), tasks.clone(), runtime, options, stop.clone()));
        introspect(&loops, &link, &tasks, &stop).await;
        loops.close();
        Ok(Self { link, tasks, connected, loops, stop, _let_go: let_go })
    }

    /// Waits until the connection over which tasks come is up.
    pub async fn connected(&self) {
        // An error means that the agent is ending; then nobody will ever be connected.
        if self.connected.clone().wait_for(|connected| *connected).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The container instance's ARN; a new one after the control plane has forgotten the old.
    #[must_use]
    pub fn container_instance_arn(&self) -> String {
        self.link.identity().container_instance_arn
    }

    /// Closes all sockets and leaves containers running.
    pub async fn shutdown(self) {
        self.let_go().await;
    }

    /// Lets go, then removes every container, network and volume of a task and the records of them. For `berth down` and
    /// `berth up --ephemeral`, when tasks have ended.
    ///
    /// # Errors
    /// [`PurgeError`] with what resists; the rest is removed all the same.
    pub async fn purge(self) -> Result<(), PurgeError> {
        self.let_go().await;
        self.tasks.purge().await.map_err(PurgeError)
    }

    async fn let_go(&self) {
        self.stop.cancel();
        self.loops.wait().await;
        self.tasks.ended().await;
    }
}

/// Whom to trust behind `https` endpoints: whom the machine trusts. A backend without TLS has endpoints without TLS.
fn tls(backend: &str) -> Result<Option<Arc<rustls::ClientConfig>>, ConfigError> {
    if !backend.contains("https:") {
        return Ok(None);
    }
    let fail = |error: rustls::Error| ConfigError { name: "ECS_BACKEND_HOST", problem: format!("no TLS: {error}") };
    rustls::ClientConfig::with_platform_verifier().map(|config| Some(Arc::new(config))).map_err(fail)
}

/// Serves introspection if its address is free; the agent is of use without.
async fn introspect(loops: &TaskTracker, link: &Arc<Link>, tasks: &Arc<Tasks>, stop: &CancellationToken) {
    let Some(address) = link.config.introspection else { return };
    match TcpListener::bind(address).await {
        Ok(listener) => drop(loops.spawn(introspection::serve(listener, link.clone(), tasks.clone(), stop.clone()))),
        Err(error) => tracing::warn!(%address, %error, "introspection is not served"),
    }
}
