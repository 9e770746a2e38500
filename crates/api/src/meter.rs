//! What the edge counts of itself, and `GET /metrics` in Prometheus' text form.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderValue, Response, header};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::context::Api;
use crate::edge::{Body, full};

/// Which requests: `code` is the exception, empty for answers with status 200. Both come out of closed lists, so that nobody
/// can make more series by sending odd names.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    action: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Action {
    action: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InCluster {
    cluster: String,
    status: &'static str,
}

/// The edge's metrics.
pub(crate) struct Meter {
    registry: Mutex<Registry>,
    answers: Family<Answered, Counter>,
    seconds: Family<Action, Histogram>,
    requests: Gauge,
    body_bytes: Gauge,
    queue: Gauge,
    pub(crate) connections: Gauge,
    tasks: Family<InCluster, Gauge>,
    instances: Family<InCluster, Gauge>,
}

impl Meter {
    /// Everything at zero, registered beside what other crates count.
    pub(crate) fn new(mut registry: Registry) -> Self {
        // From 50 µs to 1.6 s.
        let seconds: Family<Action, Histogram> = Family::new_with_constructor(|| Histogram::new(exponential_buckets(50e-6, 2.0, 16)));
        let meter = Self {
            answers: Family::default(),
            seconds,
            requests: Gauge::default(),
            body_bytes: Gauge::default(),
            queue: Gauge::default(),
            connections: Gauge::default(),
            tasks: Family::default(),
            instances: Family::default(),
            registry: Mutex::default(),
        };
        registry.register("berth_api_requests", "Requests answered, by action and exception", meter.answers.clone());
        registry.register("berth_api_request_seconds", "Time from a request's head to its answer", meter.seconds.clone());
        registry.register("berth_api_requests_at_work", "Requests worked on now", meter.requests.clone());
        registry.register("berth_api_body_bytes", "Bytes of requests' bodies in memory", meter.body_bytes.clone());
        registry.register(
            "berth_api_connections",
            "Open HTTP connections; those of agents are with the container instances",
            meter.connections.clone(),
        );
        registry.register("berth_control_queue", "Requests that wait to be placed", meter.queue.clone());
        registry.register("berth_tasks", "Tasks by cluster and where their last status stands to RUNNING", meter.tasks.clone());
        registry.register("berth_container_instances", "Container instances by cluster and agent connection", meter.instances.clone());
        *meter.registry.lock() = registry;
        meter
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, action: &'static str, code: &'static str, took: Duration) {
        self.answers.get_or_create(&Answered { action, code }).inc();
        self.seconds.get_or_create(&Action { action }).observe(took.as_secs_f64());
    }

    fn render(&self, api: &Api) -> String {
        self.requests.set(gauge(api.limits.requests.used()));
        self.body_bytes.set(gauge(api.limits.body_bytes.used()));
        self.queue.set(gauge(api.control.queue()));
        {
            let state = api.store.state();
            self.tasks.clear();
            self.instances.clear();
            for cluster in state.clusters() {
                let Some(index) = state.index(&cluster.name) else { continue };
                let of = |status| InCluster { cluster: cluster.name.to_string(), status };
                for (status, count) in [("pending", index.pending_tasks), ("running", index.running_tasks), ("other", index.other_tasks)] {
                    self.tasks.get_or_create(&of(status)).set(gauge(count));
                }
                let connected = state.instances_of(&cluster.name).filter(|instance| instance.agent_connected).count();
                self.instances.get_or_create(&of("connected")).set(gauge(connected));
                self.instances.get_or_create(&of("away")).set(gauge(index.instances.len() - connected));
            }
        }
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry.lock());
        text
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// `GET /metrics`. Whoever asks from this machine needs no key; others send one as HTTP Basic authentication, which every
/// scraper can.
pub(crate) fn answer(api: &Api, authorized: bool, peer: SocketAddr) -> Response<Body> {
    if !authorized && !peer.ip().is_loopback() {
        let mut response = Response::new(full("the metrics need an access key and its secret as HTTP Basic authentication\n"));
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"berth\""));
        return response;
    }
    let mut response = Response::new(full(api.meter.render(api)));
    let text = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
