//! A server in the simulation: the real store, control plane and actions, started, killed and started again over one disk, or as one
//! of several peers over one etcd. All that a life of it runs ends with it, wherever it waits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_acs::{AcsQuery, Refusal, RefusalKind, ServerConnection};
use berth_api::{Api, ApiConfig, ApiParts};
use berth_control::{Control, ControlConfig, Environment};
use berth_identity::StaticKeys;
use berth_model::arn::Scope;
use berth_registry::Registry;
use berth_shapes::ecs::Operation;
use berth_store::{CommitError, Revision, Store, Transaction};
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::checker::Checker;
use crate::clock::SimClock;
use crate::home::Home;
use crate::trace::Trace;
use crate::wire::Way;

/// Region and account of every simulation.
#[must_use]
pub fn scope() -> Scope {
    Scope { region: "us-east-1".into(), account: "000000000000".into() }
}

/// From one heartbeat to the next where there are none: a year.
const NEVER_MILLIS: i64 = 365 * 24 * 60 * 60 * 1_000;

/// Nobody answers at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection refused")]
pub struct Down;

/// What an agent's dial comes to: a connection to be carried to the agent, or a refusal.
pub type Accepted = Result<Box<dyn FnOnce(DuplexStream) + Send>, Refusal>;

/// How the server behaves.
#[derive(Debug, Clone, Copy)]
pub struct Temper {
    /// Longest wait before and after a commit, in milliseconds.
    pub slowest_commit: u64,
    /// When a task counts as healthy.
    pub healthy_after: Duration,
    /// When the service tasks of a silent agent are replaced.
    pub replace_after: Option<Duration>,
    /// How long a minute of bake times takes.
    pub deployment_minute: Duration,
    /// Agents are asked for their pulse as they are outside of simulations; otherwise when they connect and with [`Server::ask_pulse`].
    pub heartbeats: bool,
}

/// A server's machine.
pub struct Server {
    /// Its number.
    pub number: u64,
    /// Its clock.
    pub clock: SimClock,
    /// Where its state lives.
    pub home: Home,
    /// How everybody's way to it is.
    pub way: watch::Sender<Way>,
    /// How its way to etcd is.
    pub way_to_etcd: Arc<Mutex<Way>>,
    /// Held by who starts it.
    starting: tokio::sync::Mutex<()>,
    /// Sabotage: the next call fails without a reason.
    fails: AtomicBool,
    chance: Chance,
    temper: Temper,
    trace: Trace,
    checker: Arc<Checker>,
    registry: Registry,
    life: Mutex<Option<Life>>,
    lives: Mutex<u64>,
}

struct Life {
    api: Arc<Api>,
    store: Store,
    work: JoinSet<()>,
    over: Arc<AtomicBool>,
}

/// A call's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
    /// When the call came, the server did not yet know all that was committed.
    pub lags: bool,
}

impl Server {
    /// A machine on which no server runs yet.
    pub fn new(
        number: u64,
        home: Home,
        clock: SimClock,
        chance: Chance,
        temper: Temper,
        judge: (Trace, Arc<Checker>),
        registry: Registry,
    ) -> Self {
        let (trace, checker) = judge;
        Self {
            number,
            clock,
            home,
            way: watch::Sender::new(Way::Open),
            way_to_etcd: Arc::new(Mutex::new(Way::Open)),
            starting: Default::default(),
            fails: AtomicBool::new(false),
            chance,
            temper,
            trace,
            checker,
            registry,
            life: Mutex::default(),
            lives: Mutex::default(),
        }
    }

    /// Starts the server if it is down.
    pub async fn ensure(&self) {
        let _alone = self.starting.lock().await;
        while !self.is_up() && !self.start().await {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Starts the server from where its state lives. `false` if it could not write there.
    async fn start(&self) -> bool {
        let number = {
            let mut lives = self.lives.lock();
            *lives += 1;
            *lives
        };
        let chance = self.chance.part("life", number);
        let over = Arc::new(AtomicBool::new(false));
        let mut work = JoinSet::new();
        let store = match self.home.open(&self.way_to_etcd, &chance).await {
            Ok((store, itself)) => {
                itself.map(|itself| work.spawn(itself));
                store.with_pauses(self.pauses(chance.part("commits", 0), &over))
            }
            Err(error) if self.home.disk().is_none() => {
                self.trace.line(format_args!("server {}: does not reach etcd: {error}", self.number));
                return false;
            }
            Err(error) => {
                self.checker.violated("restart", format!("the store cannot be read again: {error}"));
                return false;
            }
        };
        self.checker.compare(&store.state());
        let watcher = store.watch(store.state().revision);
        if self.home.disk().is_some() {
            work.spawn(Arc::clone(&self.checker).follow(watcher));
        } else {
            work.spawn(Arc::clone(&self.checker).follow_peer(self.number, store.clone(), watcher));
        }
        let environment = Environment { clock: Arc::new(self.clock.clone()), entropy: Arc::new(chance.part("ids", 0)), scope: scope() };
        let mut config = ControlConfig {
            healthy_after: self.temper.healthy_after,
            replace_after: self.temper.replace_after,
            deployment_minute: self.temper.deployment_minute,
            ..Default::default()
        };
        if !self.temper.heartbeats {
            config.sessions.brisk_heartbeat_every = NEVER_MILLIS;
        }
        let control = match Control::start(store.clone(), environment.clone(), config).await {
            Ok(control) => control,
            Err(error) => {
                self.trace.line(format_args!("server {}: does not start: {error}", self.number));
                self.unmount(&store);
                return false;
            }
        };
        let api = Arc::new(Api::new(ApiParts {
            store: store.clone(),
            control,
            environment,
            keys: StaticKeys::new([]),
            registry: self.registry.clone(),
            config: ApiConfig { endpoint: "http://server".to_owned(), max_connections: 1, throttles: Vec::new() },
            metrics: Default::default(),
        }));
        *self.life.lock() = Some(Life { api, store, work, over });
        self.trace.line(format_args!("server {} up, life {number}", self.number));
        true
    }

    /// Kills the server.
    pub fn crash(&self) {
        let Some(mut life) = self.life.lock().take() else { return };
        life.over.store(true, Ordering::Relaxed);
        life.api.control.stop();
        life.work.abort_all();
        self.unmount(&life.store);
        self.trace.line(format_args!("server {} killed at revision {}", self.number, life.store.state().revision));
    }

    /// Ends the server as an operator does: it gives its place among the peers back first.
    pub async fn retire(&self) {
        let store = self.store();
        if let Some(store) = store {
            // Its way to etcd may be such that nothing comes back.
            let _ = tokio::time::timeout(Duration::from_secs(5), store.leave()).await;
        }
        self.crash();
    }

    /// Nothing is written on the disk any more. What was committed before is told to the checker, who is no part of the server.
    fn unmount(&self, store: &Store) {
        if let Some(disk) = self.home.disk() {
            disk.unmount();
            self.checker.catch_up(store);
        }
    }

    /// Its store, while it runs.
    pub fn store(&self) -> Option<Store> {
        self.life.lock().as_ref().map(|life| life.store.clone())
    }

    /// Sabotage, to see whether somebody notices: the next call fails without a reason.
    pub fn fail_once(&self) {
        self.fails.store(true, Ordering::Relaxed);
    }

    /// A commit waits before it is written and before it is known, at times long enough for many others.
    fn pauses(&self, chance: Chance, over: &Arc<AtomicBool>) -> berth_store::Pause {
        let (slowest, checker, over) = (self.temper.slowest_commit, Arc::clone(&self.checker), Arc::clone(over));
        Arc::new(move || {
            let millis = if chance.per_mille(30) { slowest * 10 } else { slowest };
            let wait = chance.below(millis + 1);
            let (checker, over) = (Arc::clone(&checker), Arc::clone(&over));
            Box::pin(async move {
                if wait > 0 {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
                if over.load(Ordering::Relaxed) {
                    checker.violated("stop", "a loop of a server that was killed still writes");
                }
            }) as Pin<Box<dyn Future<Output = ()> + Send>>
        })
    }

    /// It runs.
    pub fn is_up(&self) -> bool {
        self.life.lock().is_some()
    }

    /// Commits something that no part of the product wrote, as another peer might.
    ///
    /// # Errors
    /// [`Down`], also if the server died meanwhile.
    pub async fn commit(&self, transaction: Transaction) -> Result<Result<Revision, CommitError>, Down> {
        let (reply, outcome) = oneshot::channel();
        let store = self.store().ok_or(Down)?;
        self.work(|_| async move {
            let _ = reply.send(store.commit(transaction).await);
        })?;
        outcome.await.map_err(|_| Down)
    }

    /// A call of the API, run by the server to its end whether anybody waits or not: status and body.
    ///
    /// # Errors
    /// [`Down`], also if it died meanwhile.
    pub async fn call(&self, operation: Operation, body: Vec<u8>) -> Result<Told, Down> {
        self.begin(operation, body)?.await.map_err(|_| Down)
    }

    /// [`Server::call`] that is begun at once.
    pub fn begin(&self, operation: Operation, body: Vec<u8>) -> Result<oneshot::Receiver<Told>, Down> {
        let (reply, answer) = oneshot::channel();
        let lags = self.store().is_none_or(|store| store.state().revision.0 < self.checker.revision());
        if self.fails.swap(false, Ordering::Relaxed) {
            let _ = reply.send(Told { status: 500, body: b"sabotage".to_vec(), lags });
            return Ok(answer);
        }
        self.work(|api| async move {
            let outcome = match api.call(operation, &body).await {
                Ok(body) => Told { status: 200, body: body.to_vec(), lags },
                Err(failure) => Told { status: failure.status, body: failure.body(), lags },
            };
            // Nobody may wait for it any more.
            let _ = reply.send(outcome);
        })?;
        Ok(answer)
    }

    /// Asks the agent of a container instance for its pulse, if it is connected.
    pub fn ask_pulse(&self, arn: &str) {
        let id = arn.rsplit('/').next().and_then(|id| id.parse().ok());
        if let Some((life, id)) = self.life.lock().as_ref().zip(id) {
            life.api.control.ask_pulse(id);
        }
    }

    /// An agent's handshake.
    pub async fn accept(self: &Arc<Self>, query: &str) -> Result<Accepted, Down> {
        let (reply, answer) = oneshot::channel();
        let query = AcsQuery::parse(query);
        let server = Arc::clone(self);
        self.work(|api| async move {
            let opened = match query {
                Ok(query) => api.control.open_session(query).await,
                Err(error) => Err(Refusal::new(RefusalKind::BadRequestException, error.to_string())),
            };
            let accepted: Accepted = opened.map(|session| {
                let serve = move |wire: DuplexStream| {
                    let run = |_| async move {
                        session.run(ServerConnection::new(wire).await).await;
                    };
                    // If it died meanwhile, the wire is dropped with this.
                    let _ = server.work(run);
                };
                Box::new(serve) as Box<dyn FnOnce(DuplexStream) + Send>
            });
            let _ = reply.send(accepted);
        })?;
        answer.await.map_err(|_| Down)
    }

    fn work<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Arc<Api>) -> F) -> Result<(), Down> {
        let mut life = self.life.lock();
        let life = life.as_mut().ok_or(Down)?;
        while life.work.try_join_next().is_some() {}
        life.work.spawn(work(Arc::clone(&life.api)));
        Ok(())
    }
}
