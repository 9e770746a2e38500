//! The agent's end of both websockets: dialling, with refusals told apart, and typed frames. It holds no keys (a closure signs)
//! and no policy (see [`crate::reconnect`]).

use crate::messages::{AgentFrame, FrameError, ServerFrame, TelemetryAnswer, TelemetryFrame};
use crate::refusal::Refusal;
use crate::server_socket::accept_key;
use crate::socket::{SocketError, TextSocket, WireClose};
use crate::telemetry_framing;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The longest body of a refusal that is read.
const LONGEST_REFUSAL: usize = 64 * 1024;

/// A websocket's bytes, whatever carries them.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

/// A connection after its handshake, or why there is none.
pub type Dialled = Result<Box<dyn Wire>, ConnectError>;

/// Reaches an ACS server some other way than over HTTP: the endpoint and the query go in, a connection after its handshake comes
/// out. For simulations, where both ends live in one process.
pub trait Dialer: Send + Sync {
    /// One dial.
    fn dial(&self, endpoint: &str, query: &str) -> Pin<Box<dyn Future<Output = Dialled> + Send + '_>>;
}

/// How to dial.
#[derive(Clone)]
pub struct DialOptions {
    /// Whom to trust, for `https` and `wss` endpoints; without it those are refused.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// How long the dial as a whole may take.
    pub timeout: Duration,
    /// Takes the place of TCP, TLS and HTTP, for ACS.
    pub dialer: Option<Arc<dyn Dialer>>,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self { tls: None, timeout: Duration::from_secs(30), dialer: None }
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not an `http`, `https`, `ws` or `wss` URL with a host.
    #[error("the endpoint '{url}' is no http, https, ws or wss URL")]
    Url {
        /// As given.
        url: String,
    },
    /// An `https` or `wss` endpoint, but nobody said which certificates to trust.
    #[error("the endpoint '{url}' needs TLS, for which no trusted certificates are configured")]
    TlsNotConfigured {
        /// As given.
        url: String,
    },
    /// A header of the signer's that is none.
    #[error("the signed request cannot be built: {0}")]
    Request(#[from] http::Error),
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}")]
    Tcp {
        /// Host and port.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// No TLS session.
    #[error("no TLS with {address}: {source}")]
    Tls {
        /// Host and port.
        address: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The HTTP exchange broke off.
    #[error("the handshake broke off: {0}")]
    Http(#[from] hyper::Error),
    /// A 101 that is none.
    #[error("the server agreed to something else than a websocket")]
    NotAWebsocket,
    /// The server refused.
    #[error("the server refused with HTTP {status}, {}: {}", .refusal.kind.name(), .refusal.message)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        refusal: Refusal,
    },
    /// It took too long.
    #[error("the dial took longer than {0:?}")]
    Timeout(Duration),
}

impl ConnectError {
    /// How it looks to [`crate::reconnect::Backoff`].
    pub fn ending(&self) -> crate::reconnect::Ending {
        match self {
            Self::Refused { refusal, .. } => crate::reconnect::Ending::Refused(refusal.kind.clone()),
            _ => crate::reconnect::Ending::Unreachable,
        }
    }
}

/// The ACS connection, at the agent's end.
pub struct AgentConnection {
    socket: TextSocket<Box<dyn Wire>>,
}

impl AgentConnection {
    /// Dials `{endpoint}/ws?{query}`. `sign` is given host (with a port where the URL has one), and path and query, and returns
    /// the headers that sign a GET with an empty body.
    ///
    /// # Errors
    /// When no connection comes about, or the server refuses.
    pub async fn connect(
        endpoint: &str,
        query: &str,
        sign: impl Fn(&str, &str) -> Vec<(HeaderName, HeaderValue)>,
        options: &DialOptions,
    ) -> Result<Self, ConnectError> {
        let wire = match &options.dialer {
            None => Box::new(dial(&Target::parse(endpoint, query)?, sign, options).await?),
            Some(dialer) => {
                let dialled = tokio::time::timeout(options.timeout, dialer.dial(endpoint, query)).await;
                dialled.map_err(|_| ConnectError::Timeout(options.timeout))??
            }
        };
        Ok(Self { socket: TextSocket::new(wire, Role::Client).await })
    }

    /// The next frame; `None` once the connection is over. An error that is not fatal concerns one frame only. Safe to be
    /// dropped half-way, as in `select!`.
    pub async fn next(&mut self) -> Option<Result<ServerFrame, SocketError>> {
        let text = self.socket.next().await?;
        Some(text.and_then(|text| Ok(ServerFrame::decode(&text)?)))
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// When the frame is too large or the connection is lost.
    pub async fn send(&mut self, frame: &AgentFrame) -> Result<(), SocketError> {
        self.send_all([frame]).await
    }

    /// Sends several frames in order, with one write where they fit.
    ///
    /// # Errors
    /// When a frame is too large (none is sent then) or the connection is lost.
    pub async fn send_all<'f>(&mut self, frames: impl IntoIterator<Item = &'f AgentFrame>) -> Result<(), SocketError> {
        let texts: Result<Vec<String>, FrameError> = frames.into_iter().map(AgentFrame::encode).collect();
        self.socket.send(texts?).await
    }

    /// Says goodbye.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), SocketError> {
        self.socket.close(code, reason).await
    }

    /// How the server closed, once it has and said so.
    pub fn wire_close(&self) -> Option<&WireClose> {
        self.socket.wire_close()
    }
}

/// The TCS connection, at the agent's end.
pub struct TelemetryConnection {
    socket: TextSocket<TokioIo<Upgraded>>,
    target: Target,
}

impl TelemetryConnection {
    /// Dials `{endpoint}/ws?{query}`, as [`AgentConnection::connect`] does.
    ///
    /// # Errors
    /// When no connection comes about, or the server refuses.
    pub async fn connect(
        endpoint: &str,
        query: &str,
        sign: impl Fn(&str, &str) -> Vec<(HeaderName, HeaderValue)>,
        options: &DialOptions,
    ) -> Result<Self, ConnectError> {
        let target = Target::parse(endpoint, query)?;
        let upgraded = dial(&target, sign, options).await?;
        Ok(Self { socket: TextSocket::new(upgraded, Role::Client).await, target })
    }

    /// The next answer; `None` once the connection is over. Safe to be dropped half-way, as in `select!`.
    pub async fn next(&mut self) -> Option<Result<TelemetryAnswer, SocketError>> {
        let text = self.socket.next().await?;
        Some(text.and_then(|text| Ok(TelemetryAnswer::decode(&text)?)))
    }

    /// Signs and sends one frame. `sign` is given host, path and query, and the JSON, and returns the headers (host among them)
    /// that sign a GET with the JSON as its body.
    ///
    /// # Errors
    /// When the frame is too large or the connection is lost.
    pub async fn send(
        &mut self,
        frame: &TelemetryFrame,
        sign: impl FnOnce(&str, &str, &str) -> Vec<(String, String)>,
    ) -> Result<(), SocketError> {
        let json = frame.encode()?;
        let headers = sign(&self.target.authority, &self.target.path_and_query, &json);
        let text = telemetry_framing::render(&headers, &json)?;
        self.socket.send([text]).await
    }

    /// Says goodbye.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), SocketError> {
        self.socket.close(code, reason).await
    }
}

struct Target {
    url: String,
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path_and_query: String,
}

impl Target {
    fn parse(endpoint: &str, query: &str) -> Result<Self, ConnectError> {
        let bad = || ConnectError::Url { url: endpoint.to_owned() };
        let uri: Uri = endpoint.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(bad()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let port = uri.port_u16();
        Ok(Self {
            url: endpoint.to_owned(),
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            authority: port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            path_and_query: format!("{}/ws?{query}", uri.path().trim_end_matches('/')),
        })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

async fn dial(
    target: &Target,
    sign: impl Fn(&str, &str) -> Vec<(HeaderName, HeaderValue)>,
    options: &DialOptions,
) -> Result<TokioIo<Upgraded>, ConnectError> {
    // Settled before anything is sent: an endpoint that cannot be spoken to need not hear of it.
    let tls = match (target.tls, &options.tls) {
        (false, _) => None,
        (true, Some(config)) => {
            let name = ServerName::try_from(target.host.clone()).map_err(|_| ConnectError::Url { url: target.url.clone() })?;
            Some((TlsConnector::from(Arc::clone(config)), name))
        }
        (true, None) => return Err(ConnectError::TlsNotConfigured { url: target.url.clone() }),
    };
    let dialled = async {
        let tcp = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(|source| ConnectError::Tcp { address: target.address(), source })?;
        // Frames are small and each is an answer somebody waits for.
        tcp.set_nodelay(true).map_err(|source| ConnectError::Tcp { address: target.address(), source })?;
        let Some((connector, name)) = tls else { return handshake(target, sign, tcp).await };
        let stream = connector.connect(name, tcp).await.map_err(|source| ConnectError::Tls { address: target.address(), source })?;
        handshake(target, sign, stream).await
    };
    tokio::time::timeout(options.timeout, dialled).await.map_err(|_| ConnectError::Timeout(options.timeout))?
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    target: &Target,
    sign: impl Fn(&str, &str) -> Vec<(HeaderName, HeaderValue)>,
    stream: S,
) -> Result<TokioIo<Upgraded>, ConnectError> {
    let key = generate_key();
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(&target.path_and_query)
        .header(HOST, &target.authority)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .body(Empty::<Bytes>::new())?;
    for (name, value) in sign(&target.authority, &target.path_and_query) {
        // The signer may hand its host back; there must be one only.
        if name != HOST {
            request.headers_mut().append(name, value);
        }
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself when the response is read or the connection is handed over.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(response).await);
    }
    let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == accept_key(&key).as_bytes());
    if !accepted {
        return Err(ConnectError::NotAWebsocket);
    }
    let upgraded = hyper::upgrade::on(response).await?;
    Ok(TokioIo::new(upgraded))
}

async fn refused(response: Response<Incoming>) -> ConnectError {
    let status = response.status().as_u16();
    // A body that cannot be read to its end still is a refusal.
    let body = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    ConnectError::Refused { status, refusal: Refusal::parse(&String::from_utf8_lossy(&body)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let target = Target::parse("http://127.0.0.1:4566", "a=b").unwrap();
        assert_eq!((target.authority.as_str(), target.path_and_query.as_str()), ("127.0.0.1:4566", "/ws?a=b"));
        let target = Target::parse("https://acs.example/base/", "a=b").unwrap();
        assert_eq!((target.authority.as_str(), target.path_and_query.as_str()), ("acs.example", "/base/ws?a=b"));
        assert_eq!((target.tls, target.port), (true, 443));
        let target = Target::parse("ws://[::1]:80/", "").unwrap();
        assert_eq!((target.host.as_str(), target.authority.as_str()), ("::1", "[::1]:80"));
        for url in ["", "ftp://h", "/ws", "127.0.0.1:4566"] {
            assert!(matches!(Target::parse(url, ""), Err(ConnectError::Url { .. })), "{url}");
        }
    }
}
