//! The listening socket and what comes in by it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_identity::{AuthError, Identity, RequestParts};
use berth_model::ids::uuid;
use berth_shapes::protocol::cbor;
use berth_shapes::servicediscovery as cloud_map;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::attention::Attentive;
use crate::aws_json::AwsJson;
use crate::context::{Api, Shared};
use crate::ec2::Ec2Query;
use crate::failure::Failure;
use crate::limits::{Share, throttled};
use crate::poll_again::PollAgain;
use crate::protocol::Protocol;
use crate::{alarms, backup, fargate, meter, plan, roles, servicediscovery, sockets, trace, why};

/// Largest body of an AWS request; a task definition may have 64 KiB, a RunTask's overrides 8 KiB.
const MAX_BODY: usize = 1024 * 1024;
/// How long a client may take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a body that is too large is read and thrown away, in how long.
const DISCARDED: usize = 8 * MAX_BODY;
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// How long a client may leave unread what was sent to it, or its machine unanswered what the system asks.
const DEAF: Duration = Duration::from_secs(60);
/// How long requests under way may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(3);

pub(crate) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

/// A bound socket, not yet serving.
pub struct Listening {
    listener: TcpListener,
    /// Its address; the port is chosen if 0 was asked for.
    pub address: SocketAddr,
}

impl Listening {
    /// Binds.
    ///
    /// # Errors
    /// The system's, e.g. address in use.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
}

/// Serves until `stop` is set, then lets requests under way end for a moment.
pub async fn serve(listening: Listening, api: Shared, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(api.config.max_connections));
    let mut connections = JoinSet::new();
    loop {
        // Without a free slot nothing is accepted: further connections wait in the kernel's queue.
        let free = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listening.listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            accepted = free => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to close rather than spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = prepare(&socket) {
            tracing::debug!(%error, %peer, "a connection ended before it began");
            continue;
        }
        let api = Arc::clone(&api);
        let mut stop = stop.clone();
        let attention = Arc::clone(&api.attention);
        let socket = Attentive::new(socket, Arc::clone(&attention));
        let number = socket.number;
        let connection = async move {
            let _slot = slot;
            let counted = api.clone();
            counted.meter.connections.inc();
            let service = service_fn(move |request| {
                let api = Arc::clone(&api);
                async move {
                    let started = std::time::Instant::now();
                    let answer = route(&api, request, peer).await;
                    api.attention.answered(number, started.elapsed());
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(64 * 1024)
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let stopped = async {
                // The guard that this gives must not live across an await.
                let _ = stop.wait_for(|stop| *stop).await;
            };
            let outcome = tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = stopped => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            counted.meter.connections.dec();
            if let Err(error) = outcome {
                tracing::debug!(%error, %peer, "a connection broke off");
            }
        };
        connections.spawn(PollAgain::new(connection, move || !attention.is_for(number)));
    }
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
        tracing::debug!("some connections did not end in time");
    }
}

/// Answers go out at once; a client that vanished, or never reads, does not keep its connection.
fn prepare(socket: &tokio::net::TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(DEAF).with_interval(DEAF / 6))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(DEAF))?;
    Ok(())
}

async fn route(api: &Shared, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
    let path = request.uri().path();
    if path == "/healthz" {
        return health(api);
    }
    if path == "/metrics" && request.method() == Method::GET {
        return meter::answer(api, sockets::basic_authorized(api, request.headers()), peer);
    }
    if path == "/backup" && request.method() == Method::GET {
        return backup::answer(api, request);
    }
    if path == "/v2" || path.starts_with("/v2/") {
        return registry(api, request).await;
    }
    if path == "/ws" {
        return sockets::accept(api, request).await;
    }
    if path == "/" && request.method() == Method::POST {
        return aws(api, request, peer).await;
    }
    if path == "/why" && request.method() == Method::POST {
        return question(api, request, async |api, body| why::answer(api, body)).await;
    }
    if path == "/plan" && request.method() == Method::POST {
        return question(api, request, async |api, body| plan::answer(api, body)).await;
    }
    if path == "/alarms" && request.method() == Method::POST {
        return question(api, request, alarms::answer).await;
    }
    if path == "/fargate" && request.method() == Method::POST {
        return question(api, request, fargate::answer).await;
    }
    if let Some(cloud_map::TARGET_PREFIX) = cbor::route(path).map(|(service, _)| service) {
        return no_cbor(api);
    }
    let failure = Failure::common("UnknownOperationException", 404, format!("There is nothing at {} {}", request.method(), clip(path)));
    render_failure(&failure, &request_id(api))
}

/// Cloud Map by the protocol that its model lists first, and that no SDK we know picks.
fn no_cbor(api: &Api) -> Response<Body> {
    let (code, body) = servicediscovery::no_cbor();
    let mut response = render(StatusCode::NOT_FOUND, "application/cbor", body.into(), &request_id(api));
    let headers = response.headers_mut();
    headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    headers.insert("x-amzn-errortype", HeaderValue::from_static(code));
    response
}

fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

fn health(api: &Api) -> Response<Body> {
    let (status, text) =
        if api.ready.load(Ordering::Acquire) { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "starting\n") };
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

async fn registry(api: &Api, request: Request<Incoming>) -> Response<Body> {
    if !sockets::basic_authorized(api, request.headers()) {
        return berth_registry::unauthorized();
    }
    api.registry.handle(request).await
}

/// Answers a request in one of AWS's protocols, whichever it is in.
async fn aws(api: &Api, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
    let (head, body) = request.into_parts();
    if Ec2Query::speaks(&head) {
        return spoken::<Ec2Query>(api, &head, body, peer).await;
    }
    spoken::<AwsJson>(api, &head, body, peer).await
}

async fn spoken<P: Protocol>(api: &Api, head: &http::request::Parts, body: Incoming, peer: SocketAddr) -> Response<Body> {
    let id = request_id(api);
    let started = std::time::Instant::now();
    let said = P::head(head);
    let mut action = said.as_ref().map_or("", |(_, name)| *name);
    let span = trace::request(action, &id, &head.headers);
    let named = &mut action;
    let outcome = async {
        let mut memory = api.limits.body_bytes.share();
        let body = read(body, &mut memory).await.map_err(P::refusal)?;
        let (said, _) = said?;
        let identity = verify(api, head, &body).map_err(P::unauthenticated)?;
        let (asked, name) = P::read(said, body)?;
        if *named != name {
            trace::named(name);
            *named = name;
        }
        P::authorize(api, &identity, &asked)?;
        P::admit(api, &asked).map_err(P::refusal)?;
        let _place = api.limits.start_request().map_err(P::refusal)?;
        P::answer(api, asked, &id).await.map_err(P::refusal)
    }
    .instrument(span.clone())
    .await;
    note(api, &span, Noted { id: &id, action, peer, took: started.elapsed() }, outcome.as_ref().err());
    match &outcome {
        Ok(answer) => render(StatusCode::OK, P::CONTENT_TYPE, answer.clone(), &id),
        Err(failure) => refuse::<P>(failure, &id),
    }
}

/// What is said of a request in log and metrics.
struct Noted<'a> {
    id: &'a str,
    action: &'static str,
    peer: SocketAddr,
    took: Duration,
}

fn note(api: &Api, span: &tracing::Span, noted: Noted<'_>, failure: Option<&Failure>) {
    let Noted { id, action, peer, took } = noted;
    let Some(failure) = failure else {
        api.meter.answered(action, "", took);
        tracing::debug!(target: "berth::request", request_id = id, action, %peer, status = 200, micros = took.as_micros(), "answered");
        return;
    };
    api.meter.answered(action, failure.code, took);
    trace::failed(span, failure);
    let (code, status, error) = (failure.code, failure.status, &failure.message);
    // Whoever sees one of these in an answer looks for it here.
    if status >= 500 {
        tracing::error!(target: "berth::request", request_id = id, action, %peer, status, code, error, "failed");
    } else {
        tracing::info!(target: "berth::request", request_id = id, action, %peer, status, code, error, "refused");
    }
}

/// One of Berth's own questions, which change nothing.
async fn question(
    api: &Api,
    request: Request<Incoming>,
    answer: impl AsyncFnOnce(&Api, &[u8]) -> Result<Bytes, Failure>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let outcome = async {
        let mut memory = api.limits.body_bytes.share();
        let body = read(body, &mut memory).await?;
        // Not one of AWS's services: no policy of a role will ever name what is asked.
        authenticate(api, &head, &body, "berth:Ask")?;
        let _place = api.limits.start_request()?;
        answer(api, &body).await
    }
    .await;
    let id = request_id(api);
    outcome.map_or_else(|failure| render_failure(&failure, &id), |answer| render(StatusCode::OK, AwsJson::CONTENT_TYPE, answer, &id))
}

/// Reads a body; `memory` is what it takes of the memory for bodies.
async fn read(mut body: Incoming, memory: &mut Share) -> Result<Bytes, Failure> {
    let too_slow = |_| Failure::common("RequestTimeoutException", 408, "The request's body did not arrive in time.");
    let too_large =
        || Failure::common("RequestEntityTooLargeException", 413, format!("The request's body has more than {MAX_BODY} bytes."));
    let broken_off = |_| Failure::common("SerializationException", 400, "The request's body broke off.");
    if body.size_hint().lower() > MAX_BODY as u64 {
        discard(&mut body).await;
        return Err(too_large());
    }
    let collect = async {
        // Nearly always the body is one piece, which need not be copied.
        let (mut first, mut all) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken_off)?.into_data() else { continue };
            if !memory.grow(data.len()) {
                return Err(throttled());
            }
            if first.is_empty() {
                first = data;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
            if all.len() > MAX_BODY {
                drop((first, all));
                discard(&mut body).await;
                return Err(too_large());
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    tokio::time::timeout(BODY_TIMEOUT, collect).await.map_err(too_slow)?
}

/// Reads on for a little, so that a client that is still sending comes to read its answer; most look for it at the end only.
async fn discard(body: &mut Incoming) {
    let all = async {
        let mut left = DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    // Whoever takes longer is not waited for.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

/// Checks a request's signature, and that no role signed it, which may not take `action`.
pub(crate) fn authenticate(api: &Api, head: &http::request::Parts, body: &[u8], action: &str) -> Result<(), Failure> {
    roles::authorize(&verify(api, head, body)?, action)
}

fn verify(api: &Api, head: &http::request::Parts, body: &[u8]) -> Result<Identity, AuthError> {
    let path_and_query = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let parts = RequestParts { method: head.method.as_str(), path_and_query, headers: &head.headers, body };
    api.verifier.verify(&parts, api.now().0.div_euclid(1000), &api.keys)
}

pub(crate) fn request_id(api: &Api) -> String {
    uuid(api.environment.entropy.bits())
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

fn render(status: StatusCode, content_type: &'static str, body: Bytes, id: &str) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// An error as a protocol writes it.
fn refuse<P: Protocol>(failure: &Failure, id: &str) -> Response<Body> {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::BAD_REQUEST);
    let (body, kind) = P::render_failure(failure, id);
    let mut response = render(status, P::CONTENT_TYPE, body, id);
    if let Some(kind) = kind {
        response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(kind));
    }
    response
}

/// An error where no service is asked, as most of AWS's services write it.
pub(crate) fn render_failure(failure: &Failure, id: &str) -> Response<Body> {
    refuse::<AwsJson>(failure, id)
}
