//! The server in the simulation: the real store, control plane and actions, started, killed and started again over one disk. All
//! that a life of it runs ends with it, wherever it waits.

use std::pin::Pin;
use std::sync::Arc;
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
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::checker::Checker;
use crate::clock::SimClock;
use crate::disk::Disk;
use crate::trace::Trace;

/// Region and account of every simulation.
#[must_use]
pub fn scope() -> Scope {
    Scope { region: "us-east-1".into(), account: "000000000000".into() }
}

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
}

/// The server's machine.
pub struct Server {
    /// Its clock.
    pub clock: SimClock,
    /// Its disk.
    pub disk: Disk,
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
}

impl Server {
    /// A machine on which no server runs yet.
    pub fn new(clock: SimClock, chance: Chance, temper: Temper, trace: Trace, checker: Arc<Checker>, registry: Registry) -> Self {
        Self { clock, disk: Disk::default(), chance, temper, trace, checker, registry, life: Mutex::default(), lives: Mutex::default() }
    }

    /// Starts the server from its disk. `false` if it could not write there.
    pub async fn start(&self) -> bool {
        let number = {
            let mut lives = self.lives.lock();
            *lives += 1;
            *lives
        };
        let chance = self.chance.part("life", number);
        let store = match Store::open_inline(self.disk.mount()) {
            Ok(store) => store.with_pauses(pauses(chance.part("commits", 0), self.temper.slowest_commit)),
            Err(error) => {
                self.checker.violated("restart", format!("the store cannot be read again: {error}"));
                return false;
            }
        };
        self.checker.compare(&store.state());
        let mut work = JoinSet::new();
        work.spawn(Arc::clone(&self.checker).follow(store.watch(store.state().revision)));
        let environment = Environment { clock: Arc::new(self.clock.clone()), entropy: Arc::new(chance.part("ids", 0)), scope: scope() };
        let config = ControlConfig { healthy_after: self.temper.healthy_after, ..ControlConfig::default() };
        let control = match Control::start(store.clone(), environment.clone(), config).await {
            Ok(control) => control,
            Err(error) => {
                self.trace.line(format_args!("the server does not start: {error}"));
                self.disk.unmount();
                self.checker.catch_up(&store);
                return false;
            }
        };
        let api = Arc::new(Api::new(ApiParts {
            store: store.clone(),
            control,
            environment,
            keys: StaticKeys::new([]),
            registry: self.registry.clone(),
            config: ApiConfig { endpoint: "http://server".to_owned(), max_connections: 1 },
            metrics: Default::default(),
        }));
        *self.life.lock() = Some(Life { api, store, work });
        self.trace.line(format_args!("server up, life {number}"));
        true
    }

    /// Kills the server.
    pub fn crash(&self) {
        let Some(mut life) = self.life.lock().take() else { return };
        self.disk.unmount();
        life.api.control.stop();
        life.work.abort_all();
        // What was committed before the end is told to the checker, who is no part of the server.
        self.checker.catch_up(&life.store);
        self.trace.line(format_args!("server killed at revision {}", life.store.state().revision));
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
        let store = self.life.lock().as_ref().map(|life| life.store.clone()).ok_or(Down)?;
        self.work(|_| async move {
            let _ = reply.send(store.commit(transaction).await);
        })?;
        outcome.await.map_err(|_| Down)
    }

    /// A call of the API, run by the server to its end whether anybody waits or not: status and body.
    ///
    /// # Errors
    /// [`Down`], also if it died meanwhile.
    pub async fn call(&self, operation: Operation, body: Vec<u8>) -> Result<(u16, Vec<u8>), Down> {
        self.begin(operation, body)?.await.map_err(|_| Down)
    }

    /// [`Server::call`] that is begun at once.
    pub fn begin(&self, operation: Operation, body: Vec<u8>) -> Result<oneshot::Receiver<(u16, Vec<u8>)>, Down> {
        let (reply, answer) = oneshot::channel();
        self.work(|api| async move {
            let outcome = match api.call(operation, &body).await {
                Ok(body) => (200, body.to_vec()),
                Err(failure) => (failure.status, failure.body()),
            };
            // Nobody may wait for it any more.
            let _ = reply.send(outcome);
        })?;
        Ok(answer)
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

/// A commit waits before it is written and before it is known, at times long enough for many others.
fn pauses(chance: Chance, slowest: u64) -> berth_store::Pause {
    Arc::new(move || {
        let millis = if chance.per_mille(30) { slowest * 10 } else { slowest };
        let wait = chance.below(millis + 1);
        Box::pin(async move {
            if wait > 0 {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
        }) as Pin<Box<dyn Future<Output = ()> + Send>>
    })
}
