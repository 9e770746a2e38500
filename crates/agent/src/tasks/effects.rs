//! What is done to one container: prepare, launch, watch, stop, take back. Each effect ends with a fact or an error text that
//! carries ECS's class of reason; none decides what comes next.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use berth_network::port::{Attachment, AttachmentKind, NetworkError, PortBinding, Protocol};
use berth_runtime::port::{ContainerNetwork, Image, PublishedPort, PullError, PullRequest, RunError};
use tokio_util::sync::CancellationToken;

use super::Means;
use crate::clock::unix_millis;
use crate::engine::{ExitRecord, LaunchFailure, Prepared, Run};
use crate::plan::{Blueprint, ContainerPlan, Wiring};
use crate::trace;

/// How often an unreachable registry is asked.
const PULL_TRIES: u32 = 3;
/// The wait before the second try; it doubles.
const PULL_DELAY: Duration = Duration::from_millis(1100);
/// How often the release of a network is tried before it is left to the sweep.
const DETACH_TRIES: u32 = 3;

/// Has the image here and the network made, side by side. After a failure or a cancellation no network is left.
pub async fn prepare(means: &Means, container: &ContainerPlan, cancel: &CancellationToken) -> Result<Prepared, String> {
    let pulling = async {
        tokio::select! {
            biased;
            // A pull can take minutes; nobody who stops the task waits for it.
            () = cancel.cancelled() => Err("the task was stopped".to_owned()),
            pulled = trace::within(trace::step("pull", container), pull(means, container)) => pulled.map_err(|error| format!("CannotPullContainerError: {error}")),
        }
    };
    let (image, attachment) = tokio::join!(pulling, attach(means, container));
    let attachment = attachment.map_err(|error| format!("CannotCreateContainerError: {error}"));
    match (image, attachment) {
        (Ok(image), Ok(attachment)) => Ok(Prepared { image_digest: image.digest, attachment }),
        (Err(reason), _) | (_, Err(reason)) => {
            release_network(means, container).await;
            Err(reason)
        }
    }
}

async fn pull(means: &Means, container: &ContainerPlan) -> Result<Image, PullError> {
    let image = container.image.as_str();
    let _turn = means.pulls.enter(image).await;
    let mut delay = PULL_DELAY;
    let mut tries = 1;
    loop {
        let request = PullRequest { reference: image.to_owned(), behavior: means.config.pull_behavior, credentials: None };
        match means.runtime.pull(request).await {
            Err(PullError::Unreachable(problem)) if tries < PULL_TRIES => {
                tracing::warn!(task = container.task, image, error = problem, "a pull is tried again");
                tokio::time::sleep(delay).await;
                delay *= 2;
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

async fn attach(means: &Means, container: &ContainerPlan) -> Result<Option<Attachment>, NetworkError> {
    let kind = match container.wiring {
        Wiring::Host => return Ok(None),
        Wiring::Bridge => AttachmentKind::Bridge,
        Wiring::Isolated => AttachmentKind::Isolated,
    };
    trace::within(trace::step("attach", container), means.network.attach(&container.attachment_id, kind)).await.map(Some)
}

/// Makes the container and publishes its ports, side by side, then starts it. After a failure neither container nor network
/// is left.
pub async fn launch(means: &Means, container: &ContainerPlan, blueprint: &Blueprint, prepared: &Prepared) -> Result<Run, LaunchFailure> {
    let outcome = attempt(means, container, blueprint, prepared).await;
    if outcome.is_err() {
        if let Err(error) = means.runtime.remove(&container.runtime_id).await {
            tracing::warn!(task = container.task, container = %container.runtime_id, %error, "a container that did not start cannot be removed");
        }
        release_network(means, container).await;
    }
    outcome
}

async fn attempt(means: &Means, container: &ContainerPlan, blueprint: &Blueprint, prepared: &Prepared) -> Result<Run, LaunchFailure> {
    let failure = |created: bool| move |reason: String| LaunchFailure { reason, created };
    for directory in &blueprint.directories {
        std::fs::create_dir_all(directory)
            .map_err(|error| format!("CannotCreateContainerError: volume directory {}: {error}", directory.display()))
            .map_err(failure(false))?;
    }
    let mut spec = blueprint.spec.clone();
    spec.image_digest.clone_from(&prepared.image_digest);
    let connected = prepared.attachment.as_ref();
    // A runtime that publishes ports itself is told them when the container is made; else the two go side by side.
    let own = connected.is_some_and(|attachment| attachment.namespace.is_none());
    let early = match own {
        true => Some(publish(means, container, blueprint).await),
        false => None,
    };
    if let Some(Err(error)) = early {
        return Err(failure(false)(format!("CannotStartContainerError: {error}")));
    }
    if let Some(attachment) = connected {
        let ports = early.as_ref().and_then(|published| published.as_deref().ok()).unwrap_or_default();
        spec.network = container_network(attachment, ports);
        spec.address = attachment.address.map(std::net::IpAddr::V4);
    }
    let publishing = async {
        match early {
            Some(published) => published,
            None => publish(means, container, blueprint).await,
        }
    };
    let create = within("created", means.config.container_create_timeout, means.runtime.create(spec));
    let create = trace::within(trace::step("create", container), create);
    let (created, published) = tokio::join!(create, publishing);
    created.map_err(|error| match error {
        // Docker finds out at the start what cannot be executed, and users know it from there.
        Attempt::Failed(RunError::Exec(problem)) => {
            LaunchFailure { reason: format!("CannotStartContainerError: {problem}"), created: true }
        }
        other => LaunchFailure { reason: other.reason("CannotCreateContainerError"), created: false },
    })?;
    let bindings = published.map_err(|error| format!("CannotStartContainerError: {error}")).map_err(failure(true))?;
    if own {
        let handed = means.network.hand_over(&container.attachment_id).await;
        handed.map_err(|error| failure(true)(format!("CannotStartContainerError: {error}")))?;
    }
    let start = within("started", means.config.container_start_timeout, means.runtime.start(&container.runtime_id));
    let started = trace::within(trace::step("start", container), start).await;
    let started = started.map_err(|error| error.reason("CannotStartContainerError")).map_err(failure(true))?;
    Ok(Run { image_digest: Some(prepared.image_digest.clone()), bindings, started_at: unix_millis(started.at) })
}

/// What the runtime is told of a network. One without a namespace is the runtime's own.
fn container_network(attachment: &Attachment, ports: &[PortBinding]) -> ContainerNetwork {
    let port = |binding: &PortBinding| PublishedPort {
        container_port: binding.container_port,
        host_port: binding.host_port,
        udp: binding.protocol == Protocol::Udp,
    };
    match (&attachment.namespace, attachment.kind) {
        (Some(namespace), _) => ContainerNetwork::Namespace(namespace.clone()),
        (None, AttachmentKind::Bridge) => ContainerNetwork::Bridge(ports.iter().map(port).collect()),
        (None, AttachmentKind::Isolated) => ContainerNetwork::Isolated,
    }
}

async fn publish(means: &Means, container: &ContainerPlan, blueprint: &Blueprint) -> Result<Vec<PortBinding>, NetworkError> {
    if blueprint.ports.is_empty() {
        return Ok(Vec::new());
    }
    trace::within(trace::step("publish", container), means.network.publish(&container.attachment_id, &blueprint.ports)).await
}

enum Attempt {
    Failed(RunError),
    TimedOut(&'static str, Duration),
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::TimedOut(state, after) => write!(f, "it was not {state} within {} s", after.as_secs()),
        }
    }
}

impl Attempt {
    fn reason(&self, class: &str) -> String {
        match self {
            Self::Failed(error) => format!("{class}: {error}"),
            Self::TimedOut(state, after) => {
                format!("DockerTimeoutError: Could not transition to {state}; timed out after waiting {}s", after.as_secs())
            }
        }
    }
}

async fn within<T>(state: &'static str, limit: Duration, work: impl Future<Output = Result<T, RunError>>) -> Result<T, Attempt> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(Attempt::Failed),
        Err(_) => Err(Attempt::TimedOut(state, limit)),
    }
}

/// Waits for the container's end and gives its ports back, so that whoever is told of the end can use them again.
pub async fn watch(means: &Means, container: &ContainerPlan) -> Result<ExitRecord, String> {
    let outcome = means.runtime.wait(&container.runtime_id).await;
    release_network(means, container).await;
    match outcome {
        Ok(exit) => Ok(exit.into()),
        Err(error) => {
            // What nobody watches may still run; it must not go on unseen.
            if let Err(error) = means.runtime.remove(&container.runtime_id).await {
                tracing::warn!(task = container.task, container = %container.runtime_id, %error, "a lost container cannot be removed");
            }
            Err(format!("ContainerVanishedError: {error}"))
        }
    }
}

/// Asks the container to end, by its image's stop signal.
pub async fn stop(means: &Means, container: &ContainerPlan) {
    let id = &container.runtime_id;
    let signal = means.runtime.stop_signal(id).await.unwrap_or(libc::SIGTERM);
    if let Err(error) = trace::within(trace::step("stop", container), means.runtime.signal(id, signal)).await {
        tracing::warn!(task = container.task, container = %id, signal, %error, "a container cannot be asked to stop");
    }
}

/// Ends the container.
pub async fn kill(means: &Means, container: &ContainerPlan) {
    if let Err(error) = trace::within(trace::step("kill", container), means.runtime.signal(&container.runtime_id, libc::SIGKILL)).await {
        tracing::warn!(task = container.task, container = %container.runtime_id, %error, "a container cannot be killed");
    }
}

/// Takes a network back. What resists is left to the sweep.
pub async fn release_network(means: &Means, container: &ContainerPlan) {
    if container.wiring == Wiring::Host {
        return;
    }
    for left in (0..DETACH_TRIES).rev() {
        match means.network.detach(&container.attachment_id).await {
            Ok(()) => return,
            Err(error) if left == 0 => {
                tracing::warn!(task = container.task, attachment = %container.attachment_id, %error, "a network cannot be taken back")
            }
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Removes all that is left of a task that is over. `Err` says what resists.
pub async fn remove(means: &Arc<Means>, containers: &[ContainerPlan], task_id: &str) -> Result<(), String> {
    for container in containers {
        means.runtime.remove(&container.runtime_id).await.map_err(|error| format!("container {}: {error}", container.runtime_id))?;
        if container.wiring != Wiring::Host {
            let detached = means.network.detach(&container.attachment_id).await;
            detached.map_err(|error| format!("network {}: {error}", container.attachment_id))?;
        }
    }
    let volumes = means.volumes_dir().join(task_id);
    match tokio::fs::remove_dir_all(&volumes).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("volumes {}: {error}", volumes.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use berth_network::port::AttachmentId;

    use super::*;

    #[test]
    fn a_network_without_a_namespace_is_the_runtimes_own() {
        let attachment = |kind, namespace: Option<&str>| Attachment {
            id: AttachmentId("a".to_owned()),
            kind,
            namespace: namespace.map(Into::into),
            address: None,
            bindings: Vec::new(),
        };
        let port = PortBinding { container_port: 53, host_port: 5353, protocol: Protocol::Udp };
        let held = container_network(&attachment(AttachmentKind::Bridge, Some("/run/a")), &[port]);
        assert_eq!(held, ContainerNetwork::Namespace("/run/a".into()));
        let own = container_network(&attachment(AttachmentKind::Bridge, None), &[port]);
        assert_eq!(own, ContainerNetwork::Bridge(vec![PublishedPort { container_port: 53, host_port: 5353, udp: true }]));
        assert_eq!(container_network(&attachment(AttachmentKind::Isolated, None), &[]), ContainerNetwork::Isolated);
    }
}
