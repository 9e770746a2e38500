//! A host: a machine, a network, and the real agent on it, which dies and comes back. The agent is put together here as
//! `Agent::start` does it, without telemetry and introspection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_acs::DialOptions;
use berth_agent::AgentConfig;
use berth_agent::ecs_client::EcsClient;
use berth_agent::entropy::Chance as AgentChance;
use berth_agent::images::Images;
use berth_agent::ledger::{Identity, Ledger};
use berth_agent::names::Names;
use berth_agent::registration::register;
use berth_agent::session::{Link, acs};
use berth_agent::sources::{AwsSources, ServiceEndpoints};
use berth_agent::tasks::{Means, PortRanges, PullGate, Tasks};
use berth_control::Entropy;
use berth_identity::AccessKey;
use berth_runtime::port::Runtime;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::clock::SimClock;
use crate::machine::Machine;
use crate::net::Net;
use crate::trace::Trace;
use crate::wire::Way;

/// What a host has.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// CPU units.
    pub cpu: u32,
    /// Memory in MiB.
    pub memory: u64,
}

/// A host.
pub struct Host {
    /// Its number.
    pub number: usize,
    /// Its machine.
    pub machine: Machine,
    /// Its network.
    pub net: Net,
    /// Its clock.
    pub clock: SimClock,
    size: Size,
    ledger: Ledger,
    chance: Chance,
    trace: Trace,
    lost: AtomicBool,
    agent: Mutex<Option<Life>>,
    arn: Mutex<String>,
}

struct Life {
    stop: CancellationToken,
    run: tokio::task::JoinHandle<()>,
}

impl Host {
    /// A host whose agent does not run yet.
    pub fn new(number: usize, machine: Machine, net: Net, clock: SimClock, size: Size, chance: Chance, trace: Trace) -> Arc<Self> {
        Arc::new(Self {
            number,
            machine,
            net,
            clock,
            size,
            ledger: Ledger::in_memory(),
            chance,
            trace,
            lost: AtomicBool::new(false),
            agent: Mutex::default(),
            arn: Mutex::default(),
        })
    }

    /// The container instance that its agent is.
    pub fn arn(&self) -> String {
        self.ledger.identity().map(|identity| identity.container_instance_arn).unwrap_or_default()
    }

    /// It is gone for good.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Starts the agent, unless it runs or the host is lost.
    pub fn start_agent(self: &Arc<Self>) {
        let mut agent = self.agent.lock();
        if self.is_lost() || agent.is_some() {
            return;
        }
        let stop = CancellationToken::new();
        let run = tokio::spawn(Arc::clone(self).live(stop.clone()));
        *agent = Some(Life { stop, run });
        self.trace.line(format_args!("host {}: agent starts", self.number));
    }

    /// Kills the agent; its containers go on.
    pub async fn kill_agent(&self) {
        let Some(life) = self.agent.lock().take() else { return };
        self.trace.line(format_args!("host {}: agent killed", self.number));
        life.stop.cancel();
        let _ = life.run.await;
    }

    /// Switches the machine off and on; the agent is not started.
    pub async fn reboot(&self) {
        self.kill_agent().await;
        self.net.cut();
        self.machine.reboot();
        self.trace.line(format_args!("host {}: rebooted", self.number));
    }

    /// The machine burns down.
    pub async fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
        self.net.set_way(if self.chance.per_mille(500) { Way::Swallows } else { Way::Stuck });
        self.kill_agent().await;
        self.machine.reboot();
        self.trace.line(format_args!("host {}: lost for good", self.number));
    }

    async fn live(self: Arc<Self>, stop: CancellationToken) {
        // Whatever starts an agent starts it again when it gives up.
        while !stop.is_cancelled() {
            if let Err(problem) = self.agent_until(&stop).await {
                self.trace.line(format_args!("host {}: the agent gives up: {problem}", self.number));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
            }
        }
    }

    fn config(&self) -> AgentConfig {
        AgentConfig {
            create_cluster: true,
            backend: "http://server".to_owned(),
            region: "us-east-1".to_owned(),
            data_dir: "/var/lib/simulated".into(),
            availability_zone: Some(if self.number.is_multiple_of(2) { "us-east-1a" } else { "us-east-1b" }.to_owned()),
            total_cpu: Some(self.size.cpu),
            total_memory_mib: Some(self.size.memory),
            container_stop_timeout: Duration::from_secs(10),
            metrics: false,
            introspection: None,
            ..Default::default()
        }
    }

    async fn agent_until(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let config = self.config();
        let bits = self.chance.clone();
        let chance = AgentChance::Given(Arc::new(move || Entropy::bits(&bits)));
        let clock = self.clock.for_agent();
        let key = AccessKey::long_term("AKIASIMULATED", "", "");
        let client = EcsClient::carried(Arc::new(self.net.clone()), &config.region, key, clock.clone(), chance);
        let ledger = self.ledger.clone();
        let kept = ledger.identity().map_err(|error| text(&error))?;
        let stop = stop.child_token();
        let let_go = stop.clone().drop_guard();
        let mut parts = JoinSet::new();
        let nudge = Arc::new(Notify::new());
        let (submissions, inbox) = mpsc::channel(1024);
        parts.spawn(berth_agent::reports::run(client.clone(), inbox, Arc::clone(&nudge), stop.clone()));
        let images = Images::open(&config, Arc::new(self.machine.clone()), ledger.clone(), clock.clone()).map_err(|error| text(&error))?;
        let means = Means {
            config: config.clone(),
            runtime: Arc::new(self.machine.clone()),
            network: Arc::new(self.machine.clone()),
            // No task of the load names a secret.
            sources: Arc::new(AwsSources::new(ServiceEndpoints::default(), config.access_key.clone(), clock.clone())),
            ledger: ledger.clone(),
            clock: clock.clone(),
            pulls: PullGate::new(config.concurrent_pulls),
            images: Arc::new(images),
            submissions,
            // A simulated machine has no sockets to answer on.
            names: Names::new(config.dns.clone(), ledger.clone()),
            volumes: Default::default(),
            shared: Default::default(),
            port_ranges: PortRanges::new(config.dynamic_host_ports.clone()),
            endpoint: Default::default(),
        };
        let tasks = Tasks::new(Arc::new(means), stop.clone());
        let served = async {
            tasks.recover("").await.map_err(|error| text(&error))?;
            parts.spawn(Arc::clone(&tasks).sweep());
            let arn = register(&client, &config, &self.machine.capabilities(), Some(kept.container_instance_arn.clone()))
                .await
                .map_err(|error| text(&error))?;
            let timeline = if arn == kept.container_instance_arn { kept.timeline } else { 0 };
            let identity = Identity { cluster: config.cluster.clone(), container_instance_arn: arn, timeline, boot_id: String::new() };
            ledger.keep_identity(&identity).map_err(|error| text(&error))?;
            *self.arn.lock() = identity.container_instance_arn.clone();
            self.trace.line(format_args!("host {}: agent is {}", self.number, identity.container_instance_arn));
            let link = Link::new(config.clone(), self.machine.capabilities(), client.clone(), ledger.clone(), clock, identity);
            let dialler = Arc::new(self.net.clone());
            let options = DialOptions { timeout: Duration::from_secs(20), dialer: Some(dialler), ..Default::default() };
            let (connected, _) = watch::channel(false);
            acs::run(link, Arc::clone(&tasks), options, connected, nudge, stop.clone()).await;
            Ok(())
        };
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            outcome = served => outcome,
        };
        drop(let_go);
        parts.shutdown().await;
        tasks.ended().await;
        outcome
    }
}
