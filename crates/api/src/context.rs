//! What every action works with.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use berth_control::{Control, Environment};
use berth_identity::{StaticKeys, Verifier, VerifierOptions};
use berth_model::arn::{self, Scope};
use berth_model::cluster::{Cluster, ClusterStatus};
use berth_model::fargate;
use berth_model::ids::ClusterName;
use berth_model::time::UnixMillis;
use berth_registry::Registry;
use berth_shapes::ecs::Operation;
use berth_store::{CommitError, Entry, State, Store, Transaction};
use bytes::Bytes;

use crate::attention::Attention;
use crate::aws_json::{self, Called};
use crate::failure::Failure;
use crate::limits::Limits;
use crate::meter::Meter;
use crate::throttle::{Buckets, Throttle};

/// Settings of the edge.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// URL that agents are given to connect to (`DiscoverPollEndpoint`), e.g. `http://127.0.0.1:4566`.
    pub endpoint: String,
    /// Most HTTP connections at once.
    pub max_connections: usize,
    /// Which actions are held back, and how much.
    pub throttles: Vec<Throttle>,
}

/// What an [`Api`] is made of.
pub struct ApiParts {
    /// The store.
    pub store: Store,
    /// The loops.
    pub control: Control,
    /// Clock, randomness, region and account.
    pub environment: Environment,
    /// Access keys.
    pub keys: StaticKeys,
    /// The image registry.
    pub registry: Registry,
    /// Settings.
    pub config: ApiConfig,
    /// What other parts of the server count, to be shown at `/metrics` beside what the edge counts.
    pub metrics: prometheus_client::registry::Registry,
}

/// Everything that an action needs. One for the whole server.
pub struct Api {
    pub(crate) store: Store,
    /// The loops.
    pub control: Control,
    pub(crate) environment: Environment,
    pub(crate) keys: StaticKeys,
    pub(crate) registry: Registry,
    pub(crate) config: ApiConfig,
    /// `GET /healthz` answers 200.
    pub ready: AtomicBool,
    pub(crate) verifier: Verifier,
    pub(crate) limits: Limits,
    pub(crate) buckets: Buckets,
    pub(crate) meter: Meter,
    pub(crate) attention: Arc<Attention>,
    /// Whose changes others came between: they go on one at a time.
    turn: tokio::sync::Mutex<()>,
}

/// How often a change is tried again when another one came between.
const TRIES: usize = 16;
/// How often it is tried beside others. Where many change the same record at once (revisions of one family) one of them gets through each
/// time; who waits for its turn meets newcomers only.
const TRIES_BESIDE_OTHERS: usize = 3;

impl Api {
    /// Puts the parts together. Not ready yet.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        let ApiParts { store, control, environment, keys, registry, config, metrics } = parts;
        let (limits, buckets, meter) = (Limits::default(), Buckets::new(&config.throttles), Meter::new(metrics));
        let (ready, verifier) = (AtomicBool::new(false), Verifier::new(VerifierOptions::default()));
        let (attention, turn) = (Arc::default(), tokio::sync::Mutex::default());
        Self { store, control, environment, keys, registry, config, ready, verifier, limits, buckets, meter, attention, turn }
    }

    /// Runs an action for a caller who was let in already: the request's JSON in, the answer's out. What the edge does after it
    /// has verified a signature.
    ///
    /// # Errors
    /// [`Failure`], as the caller is to see it.
    pub async fn call(&self, operation: Operation, body: &[u8]) -> Result<Bytes, Failure> {
        aws_json::answer(self, Called::Ecs(operation), body).await
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.environment.scope
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.environment.now()
    }

    /// Reads the state, lets `decide` add changes, commits; again from the start if another commit came between.
    /// Without changes nothing is written, but conditions are checked.
    pub(crate) async fn change<T>(&self, mut decide: impl FnMut(&State, &mut Transaction) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut turn = None;
        for tried in 0..TRIES {
            if tried == TRIES_BESIDE_OTHERS {
                turn = Some(self.turn.lock().await);
            }
            let mut transaction = Transaction::new();
            let answer = decide(&self.store.state(), &mut transaction)?;
            // Conditions alone are put to the store as well: what a peer sees may be behind, and "nothing to change" wrong by then.
            if transaction.is_empty() && transaction.expects.is_empty() {
                return Ok(answer);
            }
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(answer),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        drop(turn);
        Err(CommitError::Overloaded.into())
    }

    /// The name of the cluster that a request means.
    pub(crate) fn cluster_name(&self, text: Option<&str>) -> Result<ClusterName, Failure> {
        Ok(arn::parse_cluster(self.scope(), text)?)
    }

    /// The cluster that an agent says it belongs to: an ACTIVE one, or the reserved name of machines that offer Fargate capacity alone.
    pub(crate) fn agents_cluster(&self, text: Option<&str>) -> Result<ClusterName, Failure> {
        let name = arn::parse_agents_cluster(self.scope(), text)?;
        if !fargate::is_reserved(&name) {
            active(&self.store.state(), &name)?;
        }
        Ok(name)
    }

    /// Refuses unless the named cluster is there and ACTIVE.
    pub(crate) fn active_cluster(&self, text: Option<&str>) -> Result<ClusterName, Failure> {
        let name = self.cluster_name(text)?;
        active(&self.store.state(), &name)?;
        Ok(name)
    }
}

/// An ACTIVE cluster.
pub(crate) fn active<'a>(state: &'a State, name: &ClusterName) -> Result<&'a Entry<Cluster>, Failure> {
    state.cluster(name).filter(|cluster| cluster.status == ClusterStatus::Active).ok_or_else(Failure::cluster_not_found)
}

/// Adds the condition that the cluster stays as it is.
pub(crate) fn expect_cluster(transaction: &mut Transaction, cluster: &Entry<Cluster>) {
    transaction.expect(berth_model::record::Key::Cluster(cluster.name.clone()), cluster.modified);
}

/// A handle as the server passes it around.
pub(crate) type Shared = Arc<Api>;
