//! Reports on their way to the control plane: at most ten at a time, each tried until it is accepted or never will be. Whoever
//! hands one in waits for its end before the next of the same task, which keeps their order.

use std::sync::Arc;
use std::time::Duration;

use berth_network::port::{PortBinding, Protocol};
use berth_shapes::Timestamp;
use berth_shapes::ecs::{
    ContainerStateChange, NetworkBinding, SubmitTaskStateChangeRequest, SubmitTaskStateChangeResponse, TransportProtocol,
};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::ecs_client::EcsClient;
use crate::engine::{ContainerReport, ContainerWord, Report, TaskWord};
use crate::plan::ports::{Published, published};
use crate::plan::{ContainerPlan, TaskPlan};
use crate::trace;

/// As with the official agent.
const IN_FLIGHT: usize = 10;
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// ECS keeps no longer reasons.
const LONGEST_REASON: usize = 1024;

/// A report to be sent.
#[derive(Debug)]
pub struct Submission {
    /// The call.
    pub request: SubmitTaskStateChangeRequest,
    /// Told once it is accepted, or will never be.
    pub done: Option<oneshot::Sender<()>>,
}

/// Sends submissions until `stop`.
pub async fn run(client: EcsClient, mut inbox: mpsc::Receiver<Submission>, nudge: Arc<Notify>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut sending = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(_) = sending.join_next() => {}
            submission = inbox.recv() => match submission {
                None => return,
                Some(submission) => {
                    let span = trace::report(submission.request.task.as_deref().unwrap_or_default(), submission.request.status.as_deref());
                    sending.spawn(submit(client.clone(), submission, permits.clone(), nudge.clone()).instrument(span));
                }
            },
        }
    }
}

async fn submit(client: EcsClient, submission: Submission, permits: Arc<Semaphore>, nudge: Arc<Notify>) {
    let mut delay = FIRST_DELAY;
    loop {
        let outcome = {
            let _permit = permits.acquire().await.expect("the semaphore is never closed");
            client.call::<SubmitTaskStateChangeResponse>("SubmitTaskStateChange", &submission.request).await
        };
        let task = submission.request.task.as_deref().unwrap_or_default();
        match outcome {
            Ok(_) => break,
            Err(error) if error.kind() == "InvalidParameterException" => {
                tracing::Span::current().record("error", tracing::field::display(&error));
                tracing::warn!(task, %error, "a report was refused for good");
                break;
            }
            Err(error) => tracing::warn!(task, %error, "a report waits"),
        }
        // A control plane that is back says so by taking our connection: no need to wait any longer then.
        tokio::select! {
            biased;
            () = tokio::time::sleep(delay.mul_f64(1.0 + 0.2 * client.chance().unit())) => {}
            () = nudge.notified() => {}
        }
        delay = (delay * 2).min(LONGEST_DELAY);
    }
    if let Some(done) = submission.done {
        // Nobody waits any more: the agent is ending.
        let _ = done.send(());
    }
}

/// A report that a task was not taken on.
#[must_use]
pub fn render_refusal(cluster: &str, task_arn: &str, reason: &str) -> SubmitTaskStateChangeRequest {
    SubmitTaskStateChangeRequest {
        cluster: Some(cluster.to_owned()),
        task: Some(task_arn.to_owned()),
        status: Some("STOPPED".to_owned()),
        reason: Some(clip(reason)),
        ..Default::default()
    }
}

/// A report as it goes over the wire.
#[must_use]
pub fn render(cluster: &str, plan: &TaskPlan, report: &Report) -> SubmitTaskStateChangeRequest {
    SubmitTaskStateChangeRequest {
        cluster: Some(cluster.to_owned()),
        task: Some(plan.arn.clone()),
        status: Some(
            match report.status {
                TaskWord::Pending => "PENDING",
                TaskWord::Running => "RUNNING",
                TaskWord::Stopped => "STOPPED",
            }
            .to_owned(),
        ),
        reason: Some(report.reason.unwrap_or_default().to_owned()),
        containers: Some(report.containers.iter().map(|container| render_container(plan, container)).collect()),
        pull_started_at: report.pull_started_at.map(Timestamp::from_millis),
        pull_stopped_at: report.pull_stopped_at.map(Timestamp::from_millis),
        execution_stopped_at: report.execution_stopped_at.map(Timestamp::from_millis),
        ..Default::default()
    }
}

fn render_container(plan: &TaskPlan, container: &ContainerReport) -> ContainerStateChange {
    let planned = &plan.containers[container.index];
    ContainerStateChange {
        container_name: Some(planned.name.clone()),
        image_digest: container.image_digest.clone(),
        runtime_id: container.has_runtime_id.then(|| planned.runtime_id.0.clone()),
        exit_code: container.exit_code,
        network_bindings: Some(render_bindings(planned, &container.bindings)).filter(|list| !list.is_empty()),
        reason: container.reason.as_deref().map(clip),
        status: Some(
            match container.status {
                ContainerWord::Pending => "PENDING",
                ContainerWord::Running => "RUNNING",
                ContainerWord::Stopped => "STOPPED",
            }
            .to_owned(),
        ),
    }
}

fn render_bindings(planned: &ContainerPlan, bindings: &[PortBinding]) -> Vec<NetworkBinding> {
    // What has no blueprint was never started.
    let ranges = planned.blueprint.as_ref().map(|blueprint| blueprint.port_ranges.as_slice()).unwrap_or_default();
    published(bindings, ranges).iter().map(render_binding).collect()
}

fn render_binding(published: &Published) -> NetworkBinding {
    let protocol = match published {
        Published::Port(binding) => binding.protocol,
        Published::Range(range, _) => range.protocol,
    };
    let common = NetworkBinding {
        bind_ip: Some("0.0.0.0".to_owned()),
        protocol: Some(match protocol {
            Protocol::Tcp => TransportProtocol::Tcp,
            Protocol::Udp => TransportProtocol::Udp,
        }),
        ..Default::default()
    };
    match published {
        Published::Port(binding) => NetworkBinding {
            container_port: Some(i32::from(binding.container_port)),
            host_port: Some(i32::from(binding.host_port)),
            ..common
        },
        Published::Range(range, host) => NetworkBinding {
            container_port_range: Some(format!("{}-{}", range.first, range.last)),
            host_port_range: Some(format!("{host}-{}", host + range.following())),
            ..common
        },
    }
}

fn clip(reason: &str) -> String {
    reason.chars().take(LONGEST_REASON).collect()
}
