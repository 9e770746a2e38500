//! The server's end of both websockets: the handshake's answer, and typed frames over a connection that an HTTP server has
//! upgraded. It must never decide what is sent.

use crate::messages::{AgentFrame, FrameError, ServerFrame, TelemetryAnswer, TelemetryFrame};
use crate::socket::{SocketError, TextSocket, WireClose};
use crate::telemetry_framing;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A request that asks for no websocket, or not in the one way there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// `Connection` and `Upgrade` do not ask for a websocket.
    #[error("the request asks for no websocket: '{0}' is missing or says something else")]
    NotAsked(HeaderName),
    /// A websocket version other than 13.
    #[error("websocket version 13 is the only one spoken")]
    Version,
    /// No `Sec-WebSocket-Key`, or one that is not 16 bytes of base 64.
    #[error("'sec-websocket-key' is missing or not 16 bytes of base 64")]
    Key,
}

/// What `Sec-WebSocket-Accept` must be for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

/// Whether a request asks for a websocket at all; [`upgrade_response`] looks closer.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// The 101 that answers a websocket handshake, ready to have any body put in.
///
/// # Errors
/// When the request is no proper handshake; answer 400.
pub fn upgrade_response(headers: &HeaderMap) -> Result<Response<()>, UpgradeError> {
    for (name, token) in [(&CONNECTION, "upgrade"), (&UPGRADE, "websocket")] {
        if !has_token(headers, name, token) {
            return Err(UpgradeError::NotAsked(name.clone()));
        }
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(UpgradeError::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).ok_or(UpgradeError::Key)?;
    if key.len() != 24 || !key.ends_with("==") {
        return Err(UpgradeError::Key);
    }
    let accept = HeaderValue::try_from(accept_key(key)).expect("base 64 is a header value");
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// An agent's ACS connection, at the server's end.
pub struct ServerConnection<S> {
    socket: TextSocket<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerConnection<S> {
    /// Takes over a connection after its 101.
    pub async fn new(upgraded: S) -> Self {
        Self { socket: TextSocket::new(upgraded, Role::Server).await }
    }

    /// The next frame; `None` once the connection is over. An error that is not fatal concerns one frame only. Safe to be
    /// dropped half-way, as in `select!`.
    pub async fn next(&mut self) -> Option<Result<AgentFrame, SocketError>> {
        let text = self.socket.next().await?;
        Some(text.and_then(|text| Ok(AgentFrame::decode(&text)?)))
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// When the frame is too large or the connection is lost.
    pub async fn send(&mut self, frame: &ServerFrame) -> Result<(), SocketError> {
        self.send_all([frame]).await
    }

    /// Sends several frames in order, with one write where they fit.
    ///
    /// # Errors
    /// When a frame is too large (none is sent then) or the connection is lost.
    pub async fn send_all<'f>(&mut self, frames: impl IntoIterator<Item = &'f ServerFrame>) -> Result<(), SocketError> {
        let texts: Result<Vec<String>, FrameError> = frames.into_iter().map(ServerFrame::encode).collect();
        self.socket.send(texts?).await
    }

    /// Says goodbye. To evict an agent for good, refuse its next handshake.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), SocketError> {
        self.socket.close(code, reason).await
    }

    /// How the agent closed, once it has and said so.
    pub fn wire_close(&self) -> Option<&WireClose> {
        self.socket.wire_close()
    }
}

/// A telemetry frame with the headers that sign it. The caller checks them, over exactly [`SignedTelemetry::json`], as those of
/// a GET to the connection's URL.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedTelemetry {
    /// The headers, names as sent, and `content-length`, which a signature may cover although it is not sent.
    pub headers: Vec<(String, String)>,
    /// The signed text.
    pub json: String,
    /// What it says.
    pub frame: TelemetryFrame,
}

/// An agent's TCS connection, at the server's end.
pub struct TelemetryServerConnection<S> {
    socket: TextSocket<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TelemetryServerConnection<S> {
    /// Takes over a connection after its 101.
    pub async fn new(upgraded: S) -> Self {
        Self { socket: TextSocket::new(upgraded, Role::Server).await }
    }

    /// The next frame; `None` once the connection is over. An error that is not fatal concerns one frame only. Safe to be
    /// dropped half-way, as in `select!`.
    pub async fn next(&mut self) -> Option<Result<SignedTelemetry, SocketError>> {
        let text = self.socket.next().await?;
        Some(text.and_then(|text| {
            let (headers, json) = telemetry_framing::parse(&text)?;
            let frame = TelemetryFrame::decode(json)?;
            let mut headers: Vec<(String, String)> = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            // AWS's signer for Go counts the body's length among the signed headers, but the agent leaves it out of the frame.
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
                headers.push(("content-length".to_owned(), json.len().to_string()));
            }
            Ok(SignedTelemetry { headers, json: json.to_owned(), frame })
        }))
    }

    /// Sends one answer.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn send(&mut self, answer: &TelemetryAnswer) -> Result<(), SocketError> {
        let text = answer.encode()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(changes: &[(&'static str, Option<&'static str>)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in changes {
            headers.remove(*name);
            if let Some(value) = value {
                headers.insert(*name, HeaderValue::from_static(value));
            }
        }
        headers
    }

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn the_rfcs_example() {
        let response = upgrade_response(&handshake(&[])).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_handshake() {
        assert_eq!(upgrade_response(&handshake(&[("upgrade", None)])).unwrap_err(), UpgradeError::NotAsked(UPGRADE));
        assert_eq!(upgrade_response(&handshake(&[("connection", Some("close"))])).unwrap_err(), UpgradeError::NotAsked(CONNECTION));
        assert_eq!(upgrade_response(&handshake(&[("sec-websocket-version", Some("8"))])).unwrap_err(), UpgradeError::Version);
        assert_eq!(upgrade_response(&handshake(&[("sec-websocket-key", Some("short"))])).unwrap_err(), UpgradeError::Key);
        assert!(is_upgrade(&handshake(&[])) && !is_upgrade(&handshake(&[("upgrade", None)])));
    }
}
