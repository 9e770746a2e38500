//! The introspection endpoint, `/v1/metadata` and `/v1/tasks`, for people and tools on this machine. Read-only; never in
//! anybody's way. Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-agent-introspection.html>.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

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

use crate::engine::{Desired, Phase, TaskState, Told, Verdict};
use crate::plan::{ContainerPlan, TaskPlan};
use crate::session::{AGENT_HASH, AGENT_VERSION, Link};
use crate::tasks::{TaskRecord, Tasks};

/// More readers at a time wait.
const MOST_CONNECTIONS: usize = 32;
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

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
        "/v1/tasks" => tasks_answer(query, &tasks.records()),
        _ => render(StatusCode::OK, &json!({"AvailableCommands": ["/v1/metadata", "/v1/tasks"]})),
    }
}

fn tasks_answer(query: &str, records: &[Arc<TaskRecord>]) -> Response<Full<Bytes>> {
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| decoded(value))
    };
    let found = if let Some(arn) = parameter("taskarn") {
        records.iter().find(|record| record.plan.arn == arn)
    } else if let Some(id) = parameter("dockerid") {
        records.iter().find(|record| record.plan.containers.iter().any(|container| container.runtime_id.0 == id))
    } else {
        let tasks: Vec<Value> = records.iter().map(|record| task(&record.plan, &record.state.lock())).collect();
        return render(StatusCode::OK, &json!({"Tasks": tasks}));
    };
    match found {
        Some(record) => render(StatusCode::OK, &task(&record.plan, &record.state.lock())),
        None => render(StatusCode::NOT_FOUND, &json!({})),
    }
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
    let mut value = json!({
        "DockerId": plan.runtime_id.0,
        "DockerName": plan.runtime_id.0,
        "Name": plan.name,
        "Image": plan.image,
    });
    if let Some(run) = phase.run() {
        let ports = run
            .bindings
            .iter()
            .map(|binding| json!({"ContainerPort": binding.container_port, "Protocol": binding.protocol, "HostPort": binding.host_port}));
        value["Ports"] = ports.collect();
        if plan.health_check.is_some() {
            let since = Timestamp::from_millis(run.health.stands_since(run.started_at)).render_iso8601();
            value["Health"] = json!({"status": render_verdict(run.health.verdict), "statusSince": since});
        }
        if plan.restart.is_some() {
            value["RestartCount"] = run.restarts.into();
        }
        value["ImageID"] = run.image_digest.clone().into();
    }
    value
}

const fn render_verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unknown => "UNKNOWN",
        Verdict::Healthy => "HEALTHY",
        Verdict::Unhealthy => "UNHEALTHY",
    }
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
    use super::*;

    #[test]
    fn queries_with_and_without_percent_signs() {
        assert_eq!(decoded("arn%3Aaws:ecs"), "arn:aws:ecs");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz"), "%zz");
    }
}
