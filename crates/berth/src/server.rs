//! The control plane: store, loops, API, registry, on one port.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_api::{Api, ApiConfig, ApiParts, Listening};
use berth_control::{Control, ControlConfig, Environment, Hooks};
use berth_identity::{AccessKey, RoleKeys, StaticKeys};
use berth_model::arn::Scope;
use berth_model::cluster::{Cluster, ClusterStatus};
use berth_model::ids::ClusterName;
use berth_model::record::Key;
use berth_registry::Registry;
use berth_store::{CommitError, Store, Transaction};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::machine::{SystemClock, SystemEntropy};
use crate::settings::ServerSettings;
use crate::store::{self, Opened};

/// The runtime of the control plane's loops and agents' sessions. Every commit wakes some of them; on the runtime that serves the API each
/// wake would be another thread's, which takes the processor from the call that waits for its answer.
struct LoopRuntime(Option<Runtime>);

impl LoopRuntime {
    fn start() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut builder = Builder::new_multi_thread();
        builder.thread_name("loops").worker_threads((processors / 2).max(1)).enable_all();
        Ok(Self(Some(builder.build()?)))
    }

    fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }

    /// Ends the loops where they wait, and lets go what they hold, the store among it.
    async fn end(mut self) {
        const PATIENCE: Duration = Duration::from_millis(200);
        if let Some(runtime) = self.0.take() {
            let _ = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await;
        }
    }
}

impl Drop for LoopRuntime {
    /// For a server that did not come up: the threads are not waited for, since this may be one of another runtime's.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A server that runs.
pub(crate) struct Server {
    pub(crate) data_dir: DataDir,
    /// URL it is reached by.
    pub(crate) endpoint: String,
    pub(crate) root: AccessKey,
    api: Arc<Api>,
    store: Store,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    /// Runs while there was no room to say where this server is.
    announcing: Option<JoinHandle<()>>,
    loops: LoopRuntime,
    _lock: Option<std::fs::File>,
}

impl Server {
    /// Opens everything and serves. Not ready yet: call [`Server::ready`] when all that belongs to the role is up.
    pub(crate) async fn start(settings: &ServerSettings) -> Result<Self, Failure> {
        let data_dir = DataDir::open(settings.data_dir.clone())?;
        let scope = Scope { region: settings.region.as_str().into(), account: settings.account.as_str().into() };
        let listening = Listening::bind(settings.listen)
            .await
            .map_err(|error| Failure::setting("--listen", format!("cannot listen on {}: {error}", settings.listen)))?;
        let Opened { store, lock } = store::open(&settings.store, &data_dir).await?;
        let root = store::root_credentials(&store, &data_dir, &scope.root_principal()).await?;
        // The same on all servers of a store, and after every restart, since the root's key is.
        let roles = RoleKeys::new(&root.secret);
        let registry = Registry::open(data_dir.join("registry")).map_err(|error| Failure::part("registry", error))?;
        let environment = Environment { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy), scope };
        let loops = LoopRuntime::start().map_err(|error| Failure::part("control", error))?;
        let config = ControlConfig {
            healthy_after: settings.healthy_after,
            replace_after: settings.replace_after.0,
            deployment_minute: settings.deployment_minute,
            hooks: Hooks::new(settings.hook.clone()).map_err(|problem| Failure::setting("--hook", problem))?,
            roles: Some(roles.clone()),
            role_credentials_life: Duration::from_secs(settings.role_credentials_seconds),
            runtime: loops.handle(),
            ..Default::default()
        };
        make_default_cluster(&store, &environment).await.map_err(|error| Failure::part("store", error))?;
        berth_api::make_default_vpc(&store, &environment.scope).await.map_err(|error| Failure::part("store", error))?;
        let control = Control::start(store.clone(), environment.clone(), config).await.map_err(|error| Failure::part("store", error))?;
        let endpoint = settings.endpoint.clone().unwrap_or_else(|| reachable(listening.address));
        let mut metrics = prometheus_client::registry::Registry::default();
        store.meter().register(&mut metrics);
        control.meter().register(&mut metrics);
        let api = Arc::new(Api::new(ApiParts {
            store: store.clone(),
            control,
            environment,
            keys: StaticKeys::new([root.clone()]).with_roles(roles),
            registry,
            config: ApiConfig { endpoint: endpoint.clone(), max_connections: max_connections(), throttles: settings.throttle.clone() },
            metrics,
        }));
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(berth_api::serve(listening, Arc::clone(&api), stopped));
        let announcing = announce(&data_dir, &endpoint, settings)?;
        Ok(Self { data_dir, endpoint, root, api, store, stop, serving, announcing, loops, _lock: lock })
    }

    /// `/healthz` answers 200 from now on.
    pub(crate) fn ready(&self) {
        self.api.ready.store(true, Ordering::Release);
    }

    /// Stops every task; how many would not stop in time.
    pub(crate) async fn stop_everything(&self, patience: Duration) -> Result<usize, Failure> {
        self.api.control.stop_everything(patience).await.map_err(|error| Failure::part("store", error))
    }

    /// Lets requests under way end, then closes the socket. What was accepted is durable.
    pub(crate) async fn shutdown(self) {
        if let Some(announcing) = self.announcing {
            announcing.abort();
            let _ = announcing.await;
        }
        self.data_dir.withdraw();
        self.stop.send_replace(true);
        let _ = self.serving.await;
        store::leave(&self.store).await;
        self.loops.end().await;
    }
}

/// Tells commands of this machine where the server is. A full disk is no reason not to serve: then it is tried again until there is room.
fn announce(data_dir: &DataDir, endpoint: &str, settings: &ServerSettings) -> Result<Option<JoinHandle<()>>, Failure> {
    const AGAIN: Duration = Duration::from_secs(1);
    match data_dir.announce(endpoint, &settings.region, &settings.account) {
        Ok(true) => return Ok(None),
        Ok(false) => tracing::warn!("the disk is full: commands of this machine are told where the server is when there is room"),
        Err(failure) => return Err(failure),
    }
    let (data_dir, endpoint) = (data_dir.clone(), endpoint.to_owned());
    let (region, account) = (settings.region.clone(), settings.account.clone());
    Ok(Some(tokio::spawn(async move {
        while !matches!(data_dir.announce(&endpoint, &region, &account), Ok(true)) {
            tokio::time::sleep(AGAIN).await;
        }
    })))
}

/// As many connections as there is memory to spare for; never so many that no file is left for anything else.
fn max_connections() -> usize {
    const MOST: u64 = 16_384;
    usize::try_from(MOST.min(crate::machine::raise_open_files() / 2)).unwrap_or(usize::MAX)
}

/// A URL by which clients of this machine reach an address.
fn reachable(address: std::net::SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}")
}

/// ECS has a cluster `default` only once somebody made it; here it is there from the start, and this machine joins it.
async fn make_default_cluster(store: &Store, environment: &Environment) -> Result<(), CommitError> {
    loop {
        match make_default_cluster_once(store, environment).await {
            // Another server makes it too; what it made is seen at the next look.
            Err(CommitError::Conflict(_)) => {}
            outcome => return outcome,
        }
    }
}

async fn make_default_cluster_once(store: &Store, environment: &Environment) -> Result<(), CommitError> {
    let name = ClusterName("default".into());
    let mut transaction = Transaction::new();
    {
        let state = store.state();
        let key = Key::Cluster(name.clone());
        match state.cluster(&name) {
            Some(cluster) if cluster.status == ClusterStatus::Active => return Ok(()),
            Some(cluster) => transaction.expect(key, cluster.modified),
            None => transaction.expect_absent(key),
        };
    }
    let setting = serde_json::json!([{"name": "containerInsights", "value": "disabled"}]);
    transaction.put(Cluster {
        name,
        status: ClusterStatus::Active,
        created_at: environment.now(),
        tags: Default::default(),
        settings: serde_json::from_value(setting).unwrap_or_default(),
        configuration: None,
        service_connect_defaults: None,
        capacity_providers: Vec::new(),
        default_capacity_provider_strategy: Vec::new(),
        gateways: Vec::new(),
    });
    store.commit(transaction).await.map(drop)
}
