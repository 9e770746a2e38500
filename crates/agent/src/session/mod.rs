//! The connections to the control plane and what they share: who this agent is and where the endpoints are.

pub mod acs;
#[cfg(test)]
mod backend;
mod conversation;
pub mod tcs;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use berth_shapes::ecs::{DiscoverPollEndpointRequest, DiscoverPollEndpointResponse};
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::ecs_client::{CallError, EcsClient};
use crate::ledger::{Identity, Ledger, LedgerError};
use crate::registration::{RegisterError, register};

/// How long endpoints are believed, as with the official agent; then they are asked for again, and kept if nobody answers.
const ENDPOINTS_TTL: i64 = 12 * 3600 * 1000;

/// Sent as the agent's version.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");
/// Sent where the official agent sends its commit.
pub const AGENT_HASH: &str = "berth";
/// Sent where the official agent sends Docker's version.
pub const RUNTIME_VERSION: &str = concat!("berth-", env!("CARGO_PKG_VERSION"));

/// Why the agent's identity cannot be renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The server.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The disk.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Where the websockets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// ACS.
    pub acs: String,
    /// TCS; without one there is no telemetry.
    pub telemetry: Option<String>,
}

/// What both connections need.
pub struct Link {
    /// Settings.
    pub config: AgentConfig,
    /// What the runtime honours, as announced.
    pub capabilities: Vec<&'static str>,
    /// The ECS API.
    pub client: EcsClient,
    /// Keeps the identity.
    pub ledger: Ledger,
    /// Tells the time.
    pub clock: Clock,
    identity: watch::Sender<Identity>,
    endpoints: Mutex<Option<(Endpoints, i64)>>,
}

impl Link {
    /// A link of an agent that is registered.
    #[must_use]
    pub fn new(
        config: AgentConfig,
        capabilities: Vec<&'static str>,
        client: EcsClient,
        ledger: Ledger,
        clock: Clock,
        identity: Identity,
    ) -> Arc<Self> {
        Arc::new(Self { config, capabilities, client, ledger, clock, identity: watch::Sender::new(identity), endpoints: Mutex::default() })
    }

    /// Who this agent is now.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    /// Who this agent is, and will be.
    #[must_use]
    pub fn identities(&self) -> watch::Receiver<Identity> {
        self.identity.subscribe()
    }

    /// Takes note of a manifest's number. `false` if one as new was seen before.
    ///
    /// # Errors
    /// [`LedgerError`]; then the number counts as unseen.
    pub fn advance_timeline(&self, timeline: i64) -> Result<bool, LedgerError> {
        let mut identity = self.identity();
        if timeline <= identity.timeline {
            return Ok(false);
        }
        identity.timeline = timeline;
        self.ledger.keep_identity(&identity)?;
        self.identity.send_if_modified(|current| {
            current.timeline = timeline;
            false
        });
        Ok(true)
    }

    /// The server knows this container instance no more: becomes a new one.
    ///
    /// # Errors
    /// [`RenewError`].
    pub async fn renew(&self) -> Result<(), RenewError> {
        let arn = register(&self.client, &self.config, &self.capabilities, None).await?;
        tracing::info!(container_instance = arn, "registered anew");
        let boot_id = self.identity().boot_id;
        let identity = Identity { cluster: self.config.cluster.clone(), container_instance_arn: arn, timeline: 0, boot_id };
        self.ledger.keep_identity(&identity)?;
        self.identity.send_replace(identity);
        Ok(())
    }

    /// Where to connect.
    ///
    /// # Errors
    /// [`CallError`] if nobody says and nobody ever said.
    pub async fn endpoints(&self) -> Result<Endpoints, CallError> {
        let now = self.clock.now();
        let cached = self.endpoints.lock().clone();
        if let Some((endpoints, until)) = &cached
            && now < *until
        {
            return Ok(endpoints.clone());
        }
        let request = DiscoverPollEndpointRequest {
            cluster: Some(self.config.cluster.clone()),
            container_instance: Some(self.identity().container_instance_arn),
        };
        let operation = "DiscoverPollEndpoint";
        match self.client.call::<DiscoverPollEndpointResponse>(operation, &request).await {
            Ok(answer) => {
                let missing = || CallError::BadAnswer { operation, problem: "there is no endpoint in it".to_owned() };
                let endpoints = Endpoints { acs: answer.endpoint.ok_or_else(missing)?, telemetry: answer.telemetry_endpoint };
                *self.endpoints.lock() = Some((endpoints.clone(), now + ENDPOINTS_TTL));
                Ok(endpoints)
            }
            Err(error) => cached.map(|(endpoints, _)| endpoints).ok_or(error),
        }
    }

    /// Endpoints that led nowhere: ask anew before the next dial.
    pub fn doubt_endpoints(&self) {
        if let Some((_, until)) = &mut *self.endpoints.lock() {
            *until = 0;
        }
    }

    /// Signs a websocket's handshake.
    pub fn sign_handshake(&self, host: &str, path_and_query: &str) -> Vec<(HeaderName, HeaderValue)> {
        let signed = self.client.sign("GET", path_and_query, &[("host", host)], b"");
        // A header that is none would be refused by the server as a missing signature.
        let headers =
            signed.into_iter().filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?)));
        headers.collect()
    }

    /// Signs a telemetry frame: the header lines that go before it.
    pub fn sign_telemetry(&self, host: &str, path_and_query: &str, json: &str) -> Vec<(String, String)> {
        let signed = self.client.sign("GET", path_and_query, &[("host", host)], json.as_bytes());
        let named = |name: &str| match name {
            "authorization" => "Authorization".to_owned(),
            "x-amz-date" => "X-Amz-Date".to_owned(),
            "x-amz-security-token" => "X-Amz-Security-Token".to_owned(),
            other => other.to_owned(),
        };
        let mut headers: Vec<_> = signed.into_iter().map(|(name, value)| (named(name), value)).collect();
        headers.push(("Host".to_owned(), host.to_owned()));
        headers
    }
}
