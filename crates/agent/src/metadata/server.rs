//! Serves the endpoint over HTTP. What containers send is bounded in size, time and number: it comes from programs that nobody here knows.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::answer::{Metadata, Way};
use super::limits::{Doors, Rates};
use super::protection::Wish;
use super::request::{Asked, parse};

/// Connections of one address, which is a task's (of the host network's programs all have the same one); more are closed at once.
const MOST_EACH: usize = 32;
/// Connections of all together.
const MOST: usize = 512;
/// How long a request's head may take, and its body; the official agent's.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one connection may last, whatever goes over it.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of a request's head. hyper takes no less than 8 KiB.
const LONGEST_HEAD: usize = 8 * 1024;
/// Most bytes of a body. The one that there is has two members.
const LONGEST_BODY: usize = 4 * 1024;
/// When the address is tried again that somebody else has.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// The text of the official agent's limiter.
const TOO_MANY: &str = "You have reached maximum request limit.";

struct Server {
    metadata: Arc<Metadata>,
    began: Instant,
    rates: Mutex<Rates>,
}

/// Serves at `place` until `stop`. While somebody else has the address it is tried again: containers know no other.
pub async fn serve(metadata: Arc<Metadata>, place: SocketAddrV4, stop: CancellationToken) {
    let settings = metadata.means().config.metadata;
    let rates = Mutex::new(Rates::new(settings.steady, settings.burst));
    let server = Arc::new(Server { metadata, began: Instant::now(), rates });
    let mut said = false;
    loop {
        match TcpListener::bind(place).await {
            Ok(listener) => {
                tracing::info!(address = %place, "task metadata is served");
                return server.accept(&listener, *place.ip(), &stop).await;
            }
            Err(error) if !said => {
                said = true;
                tracing::warn!(address = %place, %error, "task metadata is not served until the address is free");
            }
            Err(error) => tracing::debug!(address = %place, %error, "task metadata is still not served"),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
}

impl Server {
    async fn accept(self: Arc<Self>, listener: &TcpListener, machine: Ipv4Addr, stop: &CancellationToken) {
        let doors = Doors::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of file descriptors, most likely: give others time to close theirs.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let IpAddr::V4(asker) = peer.ip() else { continue };
            let Some(inside) = doors.enter(asker, MOST_EACH, MOST) else { continue };
            let (server, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = server.converse(stream, Way { asker, machine }) => {}
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(CONNECTION_PATIENCE) => {}
                }
                drop(inside);
            });
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, way: Way) {
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request, way).await) }
        });
        // A container that goes away is none of our business.
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>, way: Way) -> Response<Full<Bytes>> {
        if !self.rates.lock().admit(way.asker, self.began.elapsed()) {
            return plain(StatusCode::TOO_MANY_REQUESTS, TOO_MANY);
        }
        let path = request.uri().path().to_owned();
        let metadata = &self.metadata;
        match (parse(&path), request.method()) {
            (None, _) => plain(StatusCode::NOT_FOUND, "404 page not found"),
            (Some(Asked::Metadata { version, id, subject }), &Method::GET) => json(metadata.metadata(version, id, subject, way).await),
            (Some(Asked::Metadata { .. }), _) => not_allowed("GET"),
            (Some(Asked::Protection { id }), &Method::GET) => json(metadata.protection(id, way).await),
            (Some(Asked::Protection { id }), &Method::PUT) => {
                let body = tokio::time::timeout(PATIENCE, Limited::new(request.into_body(), LONGEST_BODY).collect()).await;
                let wish = body.ok().and_then(Result::ok).and_then(|body| Wish::read(&body.to_bytes()));
                json(metadata.protect(id, wish, way).await)
            }
            (Some(Asked::Protection { .. }), _) => not_allowed("GET, PUT"),
            (Some(Asked::Credentials { id }), &Method::GET) => json(metadata.credentials(id, way).await),
            (Some(Asked::Credentials { .. }), _) => not_allowed("GET"),
        }
    }
}

fn json((status, body): (StatusCode, Value)) -> Response<Full<Bytes>> {
    render(status, "application/json", body.to_string())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    render(status, "text/plain; charset=utf-8", text)
}

fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn render(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
