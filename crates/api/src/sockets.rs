//! Agents' websockets, and what they and the registry need of request headers.

use std::io::Cursor;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_acs::server_socket::{SignedTelemetry, upgrade_response};
use berth_acs::{AcsQuery, Refusal, RefusalKind, ServerConnection, TelemetryQuery, TelemetryServerConnection};
use berth_identity::{KeySource, RequestParts};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;

use crate::attention::Attentive;
use crate::context::{Api, Shared};
use crate::edge::{Body, authenticate, full};

/// HTTP Basic authentication with an access key, as `berth image load` and container runtimes send it.
pub(crate) fn basic_authorized(api: &Api, headers: &HeaderMap) -> bool {
    let decoded = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, text)| STANDARD.decode(text.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else { return false };
    api.keys.access_key(user).is_some_and(|key| bool::from(key.secret.expose().as_bytes().ct_eq(password.as_bytes())))
}

/// `GET /ws`: ACS if the query names `containerInstanceArn`, else TCS.
pub(crate) async fn accept(api: &Shared, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let upgrade = match upgrade_response(request.headers()) {
        Ok(response) => response,
        Err(error) => return refuse(&Refusal::new(RefusalKind::BadRequestException, error.to_string())),
    };
    let (head, body) = request.into_parts();
    if let Err(failure) = authenticate(api, &head, b"", "ecs:Poll") {
        return refuse(&Refusal::new(RefusalKind::AccessDeniedException, failure.message));
    }
    let request = Request::from_parts(head, body);
    let outcome = if query.contains("containerInstanceArn=") { acs(api, &query, request).await } else { tcs(api, &query, request) };
    match outcome {
        Ok(()) => upgrade.map(|()| full("")),
        Err(refusal) => refuse(&refusal),
    }
}

async fn acs(api: &Shared, query: &str, request: Request<Incoming>) -> Result<(), Refusal> {
    let query = AcsQuery::parse(query).map_err(|error| Refusal::new(RefusalKind::BadRequestException, error.to_string()))?;
    let session = api.control.open_session(query).await?;
    api.control.runtime().spawn(async move {
        let socket = match hyper::upgrade::on(request).await {
            Ok(upgraded) => taken_over(upgraded),
            Err(error) => Err(std::io::Error::other(error)),
        };
        match socket {
            Ok(socket) => drop(session.run(ServerConnection::new(socket).await).await),
            Err(error) => tracing::debug!(%error, "an agent's connection ended before it began"),
        }
    });
    Ok(())
}

/// An agent's socket, watched by the runtime that this is called on: the one that accepted it would otherwise be woken for each of its
/// frames, only to wake the other.
fn taken_over(upgraded: Upgraded) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin> {
    let accepted = upgraded.downcast::<TokioIo<Attentive>>().map_err(|_| std::io::Error::other("not a socket that was accepted here"))?;
    let socket = TcpStream::from_std(accepted.io.into_inner().into_socket().into_std()?)?;
    let (reads, writes) = socket.into_split();
    Ok(tokio::io::join(Cursor::new(accepted.read_buf).chain(reads), writes))
}

fn tcs(api: &Shared, query: &str, request: Request<Incoming>) -> Result<(), Refusal> {
    let bad = |text: String| Refusal::new(RefusalKind::BadRequestException, text);
    let query = TelemetryQuery::parse(query).map_err(|error| bad(error.to_string()))?;
    let session =
        api.control.open_telemetry(&query).ok_or_else(|| Refusal::new(RefusalKind::InvalidClusterException, "Cluster not found."))?;
    let uri = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let api = Arc::clone(api);
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => {
                let connection = TelemetryServerConnection::new(TokioIo::new(upgraded)).await;
                session.run(connection, |frame| is_genuine(&api, &uri, frame)).await;
            }
            Err(error) => tracing::debug!(%error, "an agent's telemetry connection ended before it began"),
        }
    });
    Ok(())
}

/// A telemetry frame is signed as a GET to the connection's URL with the frame as its body.
fn is_genuine(api: &Api, uri: &str, frame: &SignedTelemetry) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in &frame.headers {
        let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), HeaderValue::try_from(value)) else { return false };
        headers.append(name, value);
    }
    let parts = RequestParts { method: "GET", path_and_query: uri, headers: &headers, body: frame.json.as_bytes() };
    api.verifier.verify(&parts, api.now().0.div_euclid(1000), &api.keys).is_ok_and(|identity| identity.role_session().is_none())
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(full(refusal.render()));
    *response.status_mut() = StatusCode::from_u16(refusal.kind.status()).unwrap_or(StatusCode::BAD_REQUEST);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
