//! The agent's calls to the ECS API: awsJson1_1 over kept-alive connections, signed. It never retries; callers know what can
//! be tried again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_identity::AccessKey;
use berth_identity::sigv4::sign_headers;
use reqwest::Url;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::config::ConfigError;
use crate::entropy::Chance;

/// The official agent's round-trip timeout.
const CALL_TIMEOUT: Duration = Duration::from_secs(42);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers to an agent are small; a larger one is a mistake.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const TARGET: &str = "AmazonEC2ContainerServiceV20141113";

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answered, or broke off.
    #[error("{operation}: no answer from {endpoint}: {problem}")]
    Unreachable {
        /// The operation.
        operation: &'static str,
        /// The API's URL.
        endpoint: String,
        /// What happened.
        problem: String,
    },
    /// The server said no.
    #[error("{operation}: {message} ({kind}, HTTP {status})")]
    Refused {
        /// The operation.
        operation: &'static str,
        /// The exception's name.
        kind: String,
        /// Its text.
        message: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that is none.
    #[error("{operation}: the answer cannot be read: {problem}")]
    BadAnswer {
        /// The operation.
        operation: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl CallError {
    /// The exception's name; empty if there was none.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Refused { kind, .. } => kind,
            _ => "",
        }
    }

    /// The server is overloaded or at fault itself: the same call may succeed later.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Refused { kind, status, .. } => {
                *status >= 500 || ["ThrottlingException", "ServerException", "LimitExceededException"].contains(&kind.as_str())
            }
            _ => false,
        }
    }
}

/// The answer's HTTP status and body, or what kept it from coming.
pub type Answer = Result<(u16, Vec<u8>), String>;

/// Carries calls to the API some other way than HTTP: the operation's name and the request's JSON go in. For simulations, where
/// both ends live in one process.
pub trait Carrier: Send + Sync {
    /// One call.
    fn carry(&self, operation: &'static str, body: Vec<u8>) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
}

#[derive(Clone)]
enum Transport {
    Http { client: reqwest::Client, servers: Arc<Servers> },
    Carried(Arc<dyn Carrier>),
}

/// The servers that serve the same API. One is asked until it does not answer, then the next.
struct Servers {
    all: Vec<Server>,
    asked: AtomicUsize,
}

struct Server {
    url: Url,
    host: String,
}

impl Servers {
    /// Reads `URL[,URL...]`.
    fn parse(text: &str) -> Result<Self, String> {
        let all = text.split(',').map(Server::parse).collect::<Result<_, _>>()?;
        Ok(Self { all, asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> (usize, &Server) {
        let number = self.asked.load(Ordering::Relaxed) % self.all.len();
        (number, &self.all[number])
    }

    /// The server did not answer. Calls under way at once move on once only.
    fn next_after(&self, number: usize) {
        let _ = self.asked.compare_exchange(number, (number + 1) % self.all.len(), Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Server {
    fn parse(text: &str) -> Result<Self, String> {
        let url: Url = text.trim().parse().map_err(|error| format!("'{text}' is no URL: {error}"))?;
        let name = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
        let name = name.ok_or_else(|| format!("'{text}' is no http or https URL"))?;
        let host = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        Ok(Self { url, host })
    }

    fn is_loopback(&self) -> bool {
        let name = self.url.host_str().unwrap_or_default();
        name == "localhost" || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// A client of the ECS API.
#[derive(Clone)]
pub struct EcsClient {
    transport: Transport,
    region: String,
    key: AccessKey,
    clock: Clock,
    chance: Chance,
}

impl std::fmt::Debug for EcsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EcsClient").field("endpoint", &self.endpoint()).field("region", &self.region).finish_non_exhaustive()
    }
}

impl EcsClient {
    /// A client of the API at an endpoint, or at several (`URL,URL`) of servers that share one store.
    ///
    /// # Errors
    /// [`ConfigError`] if an endpoint is no HTTP URL, or TLS cannot be set up.
    pub fn new(endpoints: &str, region: &str, key: AccessKey, clock: Clock) -> Result<Self, ConfigError> {
        let fail = |problem: String| ConfigError { name: "ECS_BACKEND_HOST", problem };
        let servers = Servers::parse(endpoints).map_err(fail)?;
        // Fails only where somebody installed one before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(10);
        if servers.all.iter().all(|server| server.url.scheme() == "http") {
            // Without TLS there is nobody to trust, and machines without certificates need none.
            builder = builder.tls_certs_only([]);
        }
        if servers.all.iter().all(Server::is_loopback) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| fail(format!("no HTTP client: {error}")))?;
        let transport = Transport::Http { client, servers: Arc::new(servers) };
        Ok(Self { transport, region: region.to_owned(), key, clock, chance: Chance::Machine })
    }

    /// A client whose calls are carried by something else than HTTP, and whose jitter and tokens come from `chance`.
    #[must_use]
    pub fn carried(carrier: Arc<dyn Carrier>, region: &str, key: AccessKey, clock: Clock, chance: Chance) -> Self {
        Self { transport: Transport::Carried(carrier), region: region.to_owned(), key, clock, chance }
    }

    /// Where this agent's chance comes from.
    #[must_use]
    pub const fn chance(&self) -> &Chance {
        &self.chance
    }

    fn endpoint(&self) -> String {
        match &self.transport {
            Transport::Http { servers, .. } => servers.asked().1.url.to_string(),
            Transport::Carried(_) => String::new(),
        }
    }

    /// Headers that sign a request of the service `ecs`: lower-case names and values.
    #[must_use]
    pub fn sign(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<(&'static str, String)> {
        let params = self.key.signing_params(&self.region, "ecs", self.clock.now().div_euclid(1000));
        sign_headers(&params, method, uri, headers, body).pairs().collect()
    }

    /// Calls an operation.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<T: DeserializeOwned>(&self, operation: &'static str, request: &impl Serialize) -> Result<T, CallError> {
        let bad = |problem: String| CallError::BadAnswer { operation, problem };
        let body = serde_json::to_vec(request).map_err(|error| bad(format!("the request has no JSON form: {error}")))?;
        let endpoint = self.endpoint();
        let sent = match &self.transport {
            Transport::Http { client, servers } => {
                let (number, server) = servers.asked();
                let sent = self.post(operation, body, client, server).await;
                if sent.is_err() {
                    servers.next_after(number);
                }
                sent
            }
            Transport::Carried(carrier) => carrier.carry(operation, body).await,
        };
        let (status, answer) = sent.map_err(|problem| CallError::Unreachable { operation, endpoint, problem })?;
        if answer.len() > MAX_ANSWER {
            return Err(bad(format!("it is larger than {MAX_ANSWER} bytes")));
        }
        if status == 200 {
            return serde_json::from_slice(&answer).map_err(|error| bad(error.to_string()));
        }
        Err(refusal(operation, status, &answer))
    }

    /// What is beyond the limit is cut off right after it.
    async fn post(&self, operation: &str, body: Vec<u8>, http: &reqwest::Client, server: &Server) -> Answer {
        let target = format!("{TARGET}.{operation}");
        let headers = [("host", server.host.as_str()), ("content-type", CONTENT_TYPE), ("x-amz-target", &target)];
        let mut call = http.post(server.url.clone()).header("content-type", CONTENT_TYPE).header("x-amz-target", &target);
        for (name, value) in self.sign("POST", server.url.path(), &headers, &body) {
            call = call.header(name, value);
        }
        let mut response = call.body(body).send().await.map_err(|error| innermost(&error))?;
        let status = response.status().as_u16();
        let mut answer = Vec::new();
        while answer.len() <= MAX_ANSWER
            && let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))?
        {
            answer.extend_from_slice(&chunk);
        }
        Ok((status, answer))
    }
}

fn refusal(operation: &'static str, status: u16, body: &[u8]) -> CallError {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let kind = json["__type"].as_str().unwrap_or_default();
    let kind = kind.rsplit('#').next().unwrap_or(kind).to_owned();
    let message = json["message"].as_str().or_else(|| json["Message"].as_str()).map(str::to_owned);
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(body).chars().take(200).collect());
    CallError::Refused { operation, kind, message, status }
}

/// reqwest's own text says only that sending failed; the reason is at the chain's end.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_as_the_service_spells_them() {
        let error = refusal("RegisterContainerInstance", 400, br#"{"__type":"com.amazonaws.ecs#ClusterNotFoundException","message":"no"}"#);
        assert_eq!((error.kind(), error.is_busy()), ("ClusterNotFoundException", false));
        assert!(refusal("X", 400, br#"{"__type":"ThrottlingException","message":"slow"}"#).is_busy());
        assert!(refusal("X", 503, b"<html>").is_busy());
    }

    #[test]
    fn the_next_server_is_asked_once_one_is_silent() {
        let servers = Servers::parse("http://a:1, https://b/,http://c").unwrap();
        let asked = || servers.asked().1.host.clone();
        assert_eq!(asked(), "a:1");
        servers.next_after(0);
        // Another call that was under way at the same time.
        servers.next_after(0);
        assert_eq!(asked(), "b");
        servers.next_after(1);
        servers.next_after(2);
        assert_eq!(asked(), "a:1");
    }

    #[test]
    fn endpoints_that_are_none() {
        let key = AccessKey::long_term("a", "b", "");
        for endpoint in ["", "127.0.0.1:80", "ftp://x", "http://a,", "http://a,b"] {
            assert_eq!(EcsClient::new(endpoint, "r", key.clone(), Clock::Machine).unwrap_err().name, "ECS_BACKEND_HOST", "{endpoint}");
        }
    }
}
