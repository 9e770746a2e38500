//! A control plane for tests: the JSON API and both websockets on a loopback port, every signature checked. What it answers is
//! scripted; what it was asked is handed to the test.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use berth_acs::server_socket::{SignedTelemetry, upgrade_response};
use berth_acs::{AcsQuery, AgentFrame, Refusal, ServerConnection, ServerFrame, TelemetryAnswer, TelemetryServerConnection};
use berth_identity::{AccessKey, RequestParts, StaticKeys, Verifier, VerifierOptions};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

pub type AcsSocket = ServerConnection<TokioIo<Upgraded>>;
pub type TcsSocket = TelemetryServerConnection<TokioIo<Upgraded>>;

pub const KEY: (&str, &str) = ("AKIATEST", "secret");
pub const CLUSTER: &str = "arn:aws:ecs:us-east-1:000000000000:cluster/default";

pub fn instance_arn(number: usize) -> String {
    format!("arn:aws:ecs:us-east-1:000000000000:container-instance/default/{number}")
}

/// A call of the JSON API.
#[derive(Debug, Clone)]
pub struct Call {
    pub operation: String,
    pub body: Value,
}

struct Script {
    verifier: Verifier,
    keys: StaticKeys,
    address: SocketAddr,
    registered: Mutex<usize>,
    /// Errors to answer with before anything else: operation, exception, HTTP status.
    errors: Mutex<VecDeque<(&'static str, &'static str, u16)>>,
    refusals: Mutex<VecDeque<Refusal>>,
    calls: mpsc::UnboundedSender<Call>,
    acs: mpsc::UnboundedSender<(AcsQuery, AcsSocket)>,
    tcs: mpsc::UnboundedSender<(String, TcsSocket)>,
}

pub struct Backend {
    script: Arc<Script>,
    pub calls: mpsc::UnboundedReceiver<Call>,
    pub acs: mpsc::UnboundedReceiver<(AcsQuery, AcsSocket)>,
    pub tcs: mpsc::UnboundedReceiver<(String, TcsSocket)>,
    _stop: DropGuard,
}

impl Backend {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (calls_in, calls) = mpsc::unbounded_channel();
        let (acs_in, acs) = mpsc::unbounded_channel();
        let (tcs_in, tcs) = mpsc::unbounded_channel();
        let script = Arc::new(Script {
            verifier: Verifier::new(VerifierOptions {
                expected_region: Some("us-east-1".into()),
                expected_services: vec!["ecs".into()],
                ..Default::default()
            }),
            keys: StaticKeys::new([AccessKey::long_term(KEY.0, KEY.1, "arn:aws:iam::000000000000:root")]),
            address: listener.local_addr().unwrap(),
            registered: Mutex::default(),
            errors: Mutex::default(),
            refusals: Mutex::default(),
            calls: calls_in,
            acs: acs_in,
            tcs: tcs_in,
        });
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, script.clone(), stop.clone()));
        Self { script, calls, acs, tcs, _stop: stop.drop_guard() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.script.address)
    }

    pub fn fail_next(&self, operation: &'static str, exception: &'static str, status: u16) {
        self.script.errors.lock().push_back((operation, exception, status));
    }

    pub fn refuse_next(&self, refusal: Refusal) {
        self.script.refusals.lock().push_back(refusal);
    }

    /// The next call of an operation; others are passed over.
    pub async fn call(&mut self, operation: &str) -> Value {
        loop {
            let call = self.calls.recv().await.unwrap();
            if call.operation == operation {
                return call.body;
            }
        }
    }

    /// The next report, `STATUS task`.
    pub async fn report(&mut self) -> String {
        let body = self.call("SubmitTaskStateChange").await;
        let task = body["task"].as_str().unwrap().rsplit('/').next().unwrap();
        format!("{} {task}", body["status"].as_str().unwrap())
    }
}

/// The next frame of the agent's.
pub async fn frame(socket: &mut AcsSocket) -> AgentFrame {
    socket.next().await.expect("the agent closed").unwrap()
}

/// Sends a frame.
pub async fn send(socket: &mut AcsSocket, frame: ServerFrame) {
    socket.send(&frame).await.unwrap();
}

async fn serve(listener: TcpListener, script: Arc<Script>, stop: CancellationToken) {
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            () = stop.cancelled() => return,
        };
        let script = script.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let script = script.clone();
                async move { Ok::<_, Infallible>(answer(request, script).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

async fn answer(request: Request<Incoming>, script: Arc<Script>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/ws" {
        return websocket(request, script);
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    if !script.is_genuine("POST", "/", &head.headers, &body) {
        return render(403, &json!({"__type": "InvalidSignatureException", "message": "the signature is wrong"}));
    }
    let target = head.headers["x-amz-target"].to_str().unwrap();
    let operation = target.strip_prefix("AmazonEC2ContainerServiceV20141113.").unwrap().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let (status, answer) = script.operation(&operation, &body);
    script.calls.send(Call { operation, body }).unwrap_or_default();
    render(status, &answer)
}

impl Script {
    fn is_genuine(&self, method: &str, path_and_query: &str, headers: &HeaderMap, body: &[u8]) -> bool {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        self.verifier.verify(&RequestParts { method, path_and_query, headers, body }, now, &self.keys).is_ok()
    }

    fn operation(&self, operation: &str, body: &Value) -> (u16, Value) {
        let mut errors = self.errors.lock();
        if errors.front().is_some_and(|(failing, ..)| *failing == operation) {
            let (_, exception, status) = errors.pop_front().unwrap();
            return (status, json!({"__type": exception, "message": "as scripted"}));
        }
        let answer = match operation {
            "RegisterContainerInstance" => {
                let known = body["containerInstanceArn"].as_str().map(str::to_owned);
                let arn = known.unwrap_or_else(|| {
                    let mut registered = self.registered.lock();
                    *registered += 1;
                    instance_arn(*registered)
                });
                json!({"containerInstance": {"containerInstanceArn": arn, "attributes": body["attributes"]}})
            }
            "DiscoverPollEndpoint" => {
                let url = format!("http://{}", self.address);
                json!({"endpoint": url, "telemetryEndpoint": url})
            }
            "SubmitTaskStateChange" => json!({"acknowledgment": "ACK"}),
            _ => json!({}),
        };
        (200, answer)
    }
}

fn websocket(request: Request<Incoming>, script: Arc<Script>) -> Response<Full<Bytes>> {
    let path_and_query = request.uri().path_and_query().unwrap().to_string();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if !script.is_genuine("GET", &path_and_query, request.headers(), b"") {
        return render(403, &json!({"AccessDeniedException": "the signature is wrong"}));
    }
    let is_acs = query.contains("containerInstanceArn=");
    if is_acs && let Some(refusal) = script.refusals.lock().pop_front() {
        return render(refusal.kind.status(), &serde_json::from_str(&refusal.render()).unwrap());
    }
    let response = upgrade_response(request.headers()).unwrap().map(|()| Full::default());
    tokio::spawn(async move {
        let upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        if is_acs {
            let socket = ServerConnection::new(upgraded).await;
            script.acs.send((AcsQuery::parse(&query).unwrap(), socket)).unwrap_or_default();
        } else {
            let socket = TelemetryServerConnection::new(upgraded).await;
            script.tcs.send((path_and_query, socket)).unwrap_or_default();
        }
    });
    response
}

impl Backend {
    /// The next telemetry frame, its signature checked, acknowledged.
    pub async fn telemetry(&self, path_and_query: &str, socket: &mut TcsSocket) -> SignedTelemetry {
        let signed = socket.next().await.expect("the agent closed").unwrap();
        let headers: HeaderMap = signed
            .headers
            .iter()
            .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap()))
            .collect();
        assert!(self.script.is_genuine("GET", path_and_query, &headers, signed.json.as_bytes()), "a frame's signature is wrong");
        let answer: TelemetryAnswer = signed.frame.answer().unwrap();
        socket.send(&answer).await.unwrap();
        signed
    }
}

fn render(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
