//! The introspection endpoint, `/v1/metadata`, `/v1/tasks` and `/license`, for people and tools on this machine. Read-only; never in
//! anybody's way. Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-agent-introspection.html>.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use berth_runtime::port::BindMount;
use berth_shapes::timestamp::Timestamp;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::engine::{Desired, Phase, TaskState, Told};
use crate::plan::{ContainerPlan, TaskPlan};
use crate::session::{AGENT_HASH, AGENT_VERSION, Link};
use crate::tasks::{TaskRecord, Tasks};

/// More readers at a time wait.
const MOST_CONNECTIONS: usize = 32;
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// How long one connection may last: a reader that does not read keeps its place from others no longer.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(60);
/// Docker's short ids have so many characters.
const SHORT_ID: usize = 12;
/// Berth's license; the official agent answers with its own.
const LICENSE: &str = include_str!("../../../LICENSE");

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, link: Arc<Link>, tasks: Arc<Tasks>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (link, tasks, stop) = (link.clone(), tasks.clone(), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &link, &tasks);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // A reader that goes away is none of our business.
                _ = connection => {}
                () = stop.cancelled() => {}
                () = tokio::time::sleep(CONNECTION_PATIENCE) => {}
            }
            drop(place);
        });
    }
}

fn answer<B>(request: &Request<B>, link: &Link, tasks: &Tasks) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return render(StatusCode::METHOD_NOT_ALLOWED, &json!({"message": "only GET is served here"}));
    }
    let query = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        "/v1/metadata" => {
            let metadata = json!({
                "Cluster": link.config.cluster,
                "ContainerInstanceArn": link.identity().container_instance_arn,
                "Version": format!("Amazon ECS Agent - v{AGENT_VERSION} ({AGENT_HASH})"),
            });
            render(StatusCode::OK, &metadata)
        }
        "/v1/tasks" => {
            let (status, body) = tasks_answer(query, &tasks.records());
            render(status, &body)
        }
        "/license" => plain(LICENSE),
        _ => render(StatusCode::OK, &json!({"AvailableCommands": ["/v1/metadata", "/v1/tasks", "/license"]})),
    }
}

/// One task that is asked for, or all.
fn tasks_answer(query: &str, records: &[Arc<TaskRecord>]) -> (StatusCode, Value) {
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| decoded(value))
    };
    let found: Vec<&Arc<TaskRecord>> = match (parameter("taskarn"), parameter("dockerid")) {
        (Some(_), Some(_)) => return (StatusCode::BAD_REQUEST, no_task()),
        (Some(arn), None) => records.iter().filter(|record| record.plan.arn == arn).collect(),
        (None, Some(id)) => records.iter().filter(|record| has_container(&record.plan, &id)).collect(),
        (None, None) => {
            let tasks: Vec<Value> = records.iter().map(|record| task(&record.plan, &record.state.lock())).collect();
            return (StatusCode::OK, json!({"Tasks": tasks}));
        }
    };
    match found[..] {
        [record] => (StatusCode::OK, task(&record.plan, &record.state.lock())),
        [] => (StatusCode::NOT_FOUND, no_task()),
        // Of a short id the beginning of several.
        _ => (StatusCode::BAD_REQUEST, no_task()),
    }
}

/// By a whole id, or by a short one's characters.
fn has_container(plan: &TaskPlan, id: &str) -> bool {
    let is_short = !id.is_empty() && id.len() <= SHORT_ID;
    plan.containers.iter().any(|container| container.runtime_id.0 == id || is_short && container.runtime_id.0.starts_with(id))
}

/// What the official agent answers with an error.
fn no_task() -> Value {
    json!({"Arn": "", "KnownStatus": "", "Family": "", "Version": "", "Containers": null})
}

fn task(plan: &TaskPlan, state: &TaskState) -> Value {
    let known = match &state.told {
        _ if state.is_over() => "STOPPED",
        Told::Running { .. } => "RUNNING",
        _ if state.containers.iter().all(Phase::is_past_start) => "RUNNING",
        _ => "PENDING",
    };
    let containers: Vec<Value> = plan.containers.iter().zip(&state.containers).map(|(plan, phase)| container(plan, phase)).collect();
    json!({
        "Arn": plan.arn,
        "DesiredStatus": if state.desired == Desired::Running { "RUNNING" } else { "STOPPED" },
        "KnownStatus": known,
        "Family": plan.family,
        "Version": plan.version,
        "Containers": containers,
    })
}

fn container(plan: &ContainerPlan, phase: &Phase) -> Value {
    let run = phase.run();
    let mut value = json!({
        "DockerId": plan.runtime_id.0,
        "DockerName": plan.runtime_id.0,
        "Name": plan.name,
        "Image": plan.image,
        "ImageID": run.and_then(|run| run.image_digest.clone()).unwrap_or_default(),
    });
    if let Some(run) = run {
        let ports: Vec<Value> = run
            .bindings
            .iter()
            .map(|binding| json!({"ContainerPort": binding.container_port, "Protocol": binding.protocol, "HostPort": binding.host_port}))
            .collect();
        if !ports.is_empty() {
            value["Ports"] = ports.into();
        }
        // Of a container that was found without its record the start is not known.
        if run.started_at > 0 {
            value["StartedAt"] = Timestamp::from_millis(run.started_at).render_iso8601().into();
        }
        if plan.restart.is_some() {
            value["RestartCount"] = run.restarts.into();
        }
    }
    let mounts = plan.blueprint.as_ref().map(|blueprint| blueprint.spec.mounts.as_slice()).unwrap_or_default();
    if !mounts.is_empty() {
        let volume = |mount: &BindMount| json!({"Source": mount.source, "Destination": mount.destination});
        value["Volumes"] = mounts.iter().map(volume).collect();
    }
    value
}

fn plain(text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}

fn render(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// Percent-decoding; ARNs in queries come with and without it.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let byte = after.get(..2).filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::plan::{PlanContext, plan};

    #[test]
    fn queries_with_and_without_percent_signs() {
        assert_eq!(decoded("arn%3Aaws:ecs"), "arn:aws:ecs");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz"), "%zz");
    }

    fn record(id: &str) -> Arc<TaskRecord> {
        let context = PlanContext {
            efs: Default::default(),
            region: "r".into(),
            volumes_dir: "/v".into(),
            stop_timeout: 1,
            log_limit: 1,
            pull_upfront: true,
            task_pids_limit: None,
        };
        let task = crate::fakes::task(id, &[("main", "app"), ("side", "app")]);
        let plan = plan(&task, &context).unwrap();
        let state = Mutex::new(TaskState::new(plan.containers.len()));
        Arc::new(TaskRecord { task, plan, state, credentials: Mutex::default() })
    }

    #[test]
    fn one_task_or_all() {
        let records = [record("0123456789abcdef"), record("0123456789abzzzz"), record("77")];
        let asked = |query: &str| tasks_answer(query, &records);
        assert_eq!(asked("").1["Tasks"].as_array().unwrap().len(), 3);
        let (status, one) = asked(&format!("taskarn={}", records[2].plan.arn));
        assert_eq!(
            (status, one["Arn"].as_str(), one["KnownStatus"].as_str()),
            (StatusCode::OK, Some(records[2].plan.arn.as_str()), Some("PENDING"))
        );
        assert_eq!(one["Containers"][1]["Name"], "side");
        assert_eq!(one["Containers"][1]["ImageID"], "");
        for (query, status) in [
            ("dockerid=77-1", StatusCode::OK),
            ("dockerid=0123456789abcdef-0", StatusCode::OK),
            ("dockerid=7", StatusCode::OK),
            ("dockerid=0123456789ab", StatusCode::BAD_REQUEST),
            ("dockerid=0123456789abc", StatusCode::NOT_FOUND),
            ("dockerid=", StatusCode::NOT_FOUND),
            ("taskarn=arn:none", StatusCode::NOT_FOUND),
            ("taskarn=a&dockerid=b", StatusCode::BAD_REQUEST),
        ] {
            let (found, body) = asked(query);
            assert_eq!(found, status, "{query}");
            assert_eq!(body["Containers"].is_null(), status != StatusCode::OK, "{query}");
        }
    }
}
