//! What is done to one container: prepare, launch, watch, probe, start again, stop, take back. Each effect ends with a fact or an error text that
//! carries ECS's class of reason; none decides what comes next.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use berth_network::port::{Attachment, AttachmentKind, NetworkError, PortBinding, Protocol};
use berth_runtime::port::{
    ContainerNetwork, ContainerSpec, ExecSpec, Image, PublishedPort, PullRequest, RegistryCredentials, RegistryLogins, RunError,
};
use tokio_util::sync::CancellationToken;

use super::metadata_file::MetadataFile;
use super::port_ranges::PublishError;
use super::{Means, volumes};
use crate::clock::unix_millis;
use crate::engine::{ExitRecord, Health, LaunchFailure, NextLife, Prepared, Run};
use crate::plan::spec::give_region;
use crate::plan::{Blueprint, ContainerPlan, HealthCheck, Link, Wiring, links};
use crate::sources::{Fetched, ecr_logins};
use crate::trace;

/// How much longer than a probe may take its end is waited for: the runtime has to kill it.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);
/// Docker keeps as much of a probe's output; here it goes to the log.
const PROBE_OUTPUT: usize = 4096;
/// How often the release of a network is tried before it is left to the sweep.
const DETACH_TRIES: u32 = 3;

/// Has the image here, what the container wants fetched, and the network made, side by side. After a failure or a cancellation no
/// network is left.
pub async fn prepare(means: &Means, container: &ContainerPlan, cancel: &CancellationToken) -> Result<Prepared, String> {
    let pulling = async {
        tokio::select! {
            biased;
            // A pull can take minutes; nobody who stops the task waits for it.
            () = cancel.cancelled() => Err("the task was stopped".to_owned()),
            pulled = fetch_and_pull(means, container) => pulled,
        }
    };
    let (image, attachment) = tokio::join!(pulling, attach(means, container));
    let attachment = attachment.map_err(|error| format!("CannotCreateContainerError: {error}"));
    match (image, attachment) {
        (Ok((image, fetched)), Ok(attachment)) => Ok(Prepared { image_digest: image.digest, attachment, fetched }),
        (Err(reason), _) | (_, Err(reason)) => {
            release(means, container).await;
            Err(reason)
        }
    }
}

/// First what is wanted of elsewhere: the registry's password is among it, and a task without its secrets needs no image.
async fn fetch_and_pull(means: &Means, container: &ContainerPlan) -> Result<(Image, Fetched), String> {
    let fetched = match container.wanted.is_empty() {
        true => Fetched::default(),
        false => {
            let fetched = trace::within(trace::step("fetch", container), container.wanted.fetch(&*means.sources)).await;
            // Fargate's words; on EC2 instances the class alone is the same.
            fetched.map_err(|error| format!("ResourceInitializationError: unable to pull secrets or registry auth: {error}"))?
        }
    };
    let login = ecr_logins(&means.sources, &container.image);
    let pulled = trace::within(trace::step("pull", container), pull(means, container, fetched.registry.clone(), login)).await;
    Ok((pulled?, fetched))
}

/// `credentials` are the task definition's own; without any the machine's owner may have given some for the registry.
async fn pull(
    means: &Means,
    container: &ContainerPlan,
    credentials: Option<RegistryCredentials>,
    login: Option<Arc<dyn RegistryLogins>>,
) -> Result<Image, String> {
    let image = container.image.as_str();
    let _turn = means.pulls.enter(image).await;
    let credentials = credentials.or_else(|| means.config.registry_logins.of(image).cloned());
    let request = PullRequest { reference: image.to_owned(), behavior: means.config.pull_behavior, credentials, login };
    let limit = means.config.pull_timeout;
    match tokio::time::timeout(limit, means.images.pull(request, Some(&container.runtime_id))).await {
        Ok(pulled) => pulled.map_err(|error| format!("CannotPullContainerError: {error}")),
        Err(_) => Err(timed_out("pulled", limit)),
    }
}

async fn attach(means: &Means, container: &ContainerPlan) -> Result<Option<Attachment>, NetworkError> {
    let (network, id) = (&means.network, &container.attachment_id);
    let attaching = async {
        match (container.wiring, container.interface.as_deref()) {
            (Wiring::Bridge, _) => network.attach(id, AttachmentKind::Bridge).await,
            (Wiring::Interface, Some(interface)) => {
                let mut interface = interface.clone();
                if interface.name_servers.is_empty() {
                    // Security groups never keep a task from asking its name servers, of which this machine's is one then.
                    interface.name_servers.extend(means.names.of_container().map(|server| server.address));
                }
                means.shared.join(id, &container.runtime_id, network.attach_interface(id, &interface)).await
            }
            _ => network.attach(id, AttachmentKind::Isolated).await,
        }
    };
    match container.wiring {
        Wiring::Host => Ok(None),
        _ => trace::within(trace::step("attach", container), attaching).await.map(Some),
    }
}

/// Makes the container and publishes its ports, side by side, then starts it. After a failure neither container nor network
/// is left.
pub async fn launch(
    means: &Means,
    container: &ContainerPlan,
    blueprint: &Blueprint,
    prepared: &Prepared,
    linked: &[Linked<'_>],
) -> Result<Run, LaunchFailure> {
    let outcome = attempt(means, container, blueprint, prepared, linked).await;
    // From here on the runtime knows that the image is in use, or it is not.
    means.images.let_go(&container.runtime_id);
    if outcome.is_err() {
        if let Err(error) = means.runtime.remove(&container.runtime_id).await {
            tracing::warn!(task = container.task, container = %container.runtime_id, %error, "a container that did not start cannot be removed");
        }
        release(means, container).await;
    }
    outcome
}

async fn attempt(
    means: &Means,
    container: &ContainerPlan,
    blueprint: &Blueprint,
    prepared: &Prepared,
    linked: &[Linked<'_>],
) -> Result<Run, LaunchFailure> {
    let failure = |created: bool| move |reason: String| LaunchFailure { reason, created };
    let mut spec = blueprint.spec.clone();
    if !blueprint.volumes.is_empty() {
        let (turns, wanted, match_full) = (means.volumes.clone(), blueprint.volumes.clone(), means.config.match_shared_volumes);
        // Aside, since a mount over the network may take its time.
        let ensured = tokio::task::spawn_blocking(move || volumes::ensure_all(&wanted, &turns, match_full));
        let ensured = ensured.await.unwrap_or_else(|error| Err(format!("CannotCreateVolumeError: {error}")));
        spec.storage = ensured.map_err(failure(false))?;
    }
    if !container.wanted.is_empty() {
        spec.environment = prepared.fetched.laid_around(&spec.environment);
        give_region(&mut spec.environment, &means.config.region);
    }
    if let Some(driver) = &blueprint.log_driver {
        let limit = driver.limit(&prepared.fetched.log_options).map_err(|problem| format!("CannotCreateContainerError: {problem}"));
        spec.log_limit = limit.map_err(failure(false))?;
    }
    linked.iter().try_for_each(|linked| introduce(&mut spec, container, linked)).map_err(failure(false))?;
    spec.image_digest.clone_from(&prepared.image_digest);
    let connected = prepared.attachment.as_ref();
    // A runtime that publishes ports itself is told them when the container is made; else the two go side by side.
    let own = connected.is_some_and(|attachment| attachment.namespace.is_none());
    let early = match own {
        true => Some(publish(means, container, blueprint).await),
        false => None,
    };
    if let Some(Err(error)) = early {
        return Err(failure(false)(error.to_string()));
    }
    if let Some(attachment) = connected {
        let ports = early.as_ref().and_then(|published| published.as_deref().ok()).unwrap_or_default();
        spec.network = container_network(attachment, ports);
        spec.address = attachment.address.map(std::net::IpAddr::V4);
        spec.instance_dns = means.names.of_container().filter(|_| attachment.kind != AttachmentKind::Isolated);
    }
    spec.environment.extend(means.endpoint.variables(container));
    let network = spec.network.clone();
    let metadata = means.config.container_metadata.then(|| MetadataFile::begin(means, container, &mut spec)).flatten();
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
    let created_at = means.clock.now();
    let bindings = published.map_err(|error| error.to_string()).map_err(failure(true))?;
    if own {
        let handed = means.network.hand_over(&container.attachment_id).await;
        handed.map_err(|error| failure(true)(format!("CannotStartContainerError: {error}")))?;
    }
    let start = within("started", means.config.container_start_timeout, means.runtime.start(&container.runtime_id));
    let started = trace::within(trace::step("start", container), start).await;
    let started = started.map_err(|error| error.reason("CannotStartContainerError")).map_err(failure(true))?;
    let run = Run {
        image_digest: Some(prepared.image_digest.clone()),
        bindings,
        address: prepared.attachment.as_ref().and_then(|attachment| attachment.address).or(started.address),
        created_at,
        started_at: unix_millis(started.at),
        restarts: 0,
        health: Health::default(),
    };
    if let Some(metadata) = metadata {
        metadata.ready(container, &run, &network);
    }
    Ok(run)
}

/// A container that another one links to.
#[derive(Debug, Clone)]
pub struct Linked<'a> {
    /// The link.
    pub link: &'a Link,
    /// Whom it names.
    pub to: &'a ContainerPlan,
    /// What that one is, if it runs.
    pub run: Option<Run>,
}

/// Tells a container of one that it links to. What it says itself of a variable is stronger.
fn introduce(spec: &mut ContainerSpec, container: &ContainerPlan, linked: &Linked<'_>) -> Result<(), String> {
    let Linked { link, to, run } = linked;
    let Some(run) = run else {
        let (name, alias) = (&to.name, &link.alias);
        return Err(format!("CannotCreateContainerError: Cannot link to a non running container: /{name} AS /{}/{alias}", container.name));
    };
    let Some(address) = run.address else {
        return Err(format!("CannotCreateContainerError: links: container {} has no address that this agent knows", to.name));
    };
    spec.extra_hosts.extend(links::hosts(link, to, address));
    for (name, value) in links::variables(link, container, to, address) {
        spec.environment.entry(name).or_insert(value);
    }
    Ok(())
}

/// Starts a container again whose program has ended. `Err` is a reason with its class.
pub async fn restart(means: &Means, container: &ContainerPlan) -> Result<NextLife, String> {
    let start = within("started", means.config.container_start_timeout, means.runtime.start(&container.runtime_id));
    match trace::within(trace::step("restart", container), start).await {
        Ok(started) => Ok(NextLife { started_at: unix_millis(started.at), address: started.address }),
        Err(error) => {
            // A start that timed out may still come about; nobody would watch it.
            if let Err(error) = means.runtime.signal(&container.runtime_id, libc::SIGKILL).await {
                tracing::debug!(task = container.task, container = %container.runtime_id, %error, "nothing to kill after a failed restart");
            }
            Err(error.reason("CannotStartContainerError"))
        }
    }
}

/// Whether the container is well. A command that cannot be run, or takes too long, says that it is not.
pub async fn probe(means: &Means, container: &ContainerPlan, check: &HealthCheck) -> bool {
    let timeout = Duration::from_millis(u64::try_from(check.timeout).unwrap_or(0));
    let spec = ExecSpec {
        command: check.command.clone(),
        environment: std::collections::BTreeMap::new(),
        user: None,
        timeout,
        output_limit: PROBE_OUTPUT,
    };
    let exec = tokio::time::timeout(timeout + PROBE_PATIENCE, means.runtime.exec(&container.runtime_id, spec)).await;
    let problem = match exec {
        Ok(Ok(outcome)) if outcome.code == Some(0) => return true,
        Ok(Ok(outcome)) => format!("exit code {:?}: {}", outcome.code, String::from_utf8_lossy(&outcome.output).trim_end()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it did not come to an end".to_owned(),
    };
    tracing::info!(task = container.task, container = container.name, problem, "a health check failed");
    false
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
        // Only what has a namespace has an interface.
        (None, AttachmentKind::Isolated | AttachmentKind::Interface) => ContainerNetwork::Isolated,
    }
}

async fn publish(means: &Means, container: &ContainerPlan, blueprint: &Blueprint) -> Result<Vec<PortBinding>, PublishError> {
    if blueprint.ports.is_empty() && blueprint.port_ranges.is_empty() {
        return Ok(Vec::new());
    }
    let publishing = means.port_ranges.publish(&*means.network, &container.attachment_id, blueprint);
    trace::within(trace::step("publish", container), publishing).await
}

/// The official agent's words for what took too long.
fn timed_out(state: &str, after: Duration) -> String {
    format!("DockerTimeoutError: Could not transition to {state}; timed out after waiting {}s", after.as_secs())
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
            Self::TimedOut(state, after) => timed_out(state, *after),
        }
    }
}

async fn within<T>(state: &'static str, limit: Duration, work: impl Future<Output = Result<T, RunError>>) -> Result<T, Attempt> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(Attempt::Failed),
        Err(_) => Err(Attempt::TimedOut(state, limit)),
    }
}

/// Waits for the container's end. Its network stays: it may be started again.
pub async fn watch(means: &Means, container: &ContainerPlan) -> Result<ExitRecord, String> {
    match means.runtime.wait(&container.runtime_id).await {
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

/// Takes back what was prepared: a network, and the hold on an image. A network that resists is left to the sweep.
pub async fn release(means: &Means, container: &ContainerPlan) {
    means.images.let_go(&container.runtime_id);
    if container.wiring == Wiring::Host {
        return;
    }
    for left in (0..DETACH_TRIES).rev() {
        match detach(means, container).await {
            Ok(()) => return,
            Err(error) if left == 0 => {
                tracing::warn!(task = container.task, attachment = %container.attachment_id, %error, "a network cannot be taken back")
            }
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn detach(means: &Means, container: &ContainerPlan) -> Result<(), NetworkError> {
    let detaching = means.network.detach(&container.attachment_id);
    match container.wiring {
        Wiring::Interface => means.shared.leave(&container.attachment_id, &container.runtime_id, detaching).await,
        Wiring::Host | Wiring::Bridge | Wiring::Isolated => detaching.await,
    }
}

/// Removes all that is left of a task that is over. `Err` says what resists.
pub async fn remove(means: &Arc<Means>, containers: &[ContainerPlan], task_id: &str) -> Result<(), String> {
    for container in containers {
        means.runtime.remove(&container.runtime_id).await.map_err(|error| format!("container {}: {error}", container.runtime_id))?;
        if container.wiring != Wiring::Host {
            detach(means, container).await.map_err(|error| format!("network {}: {error}", container.attachment_id))?;
        }
        means.images.touch(&container.image);
    }
    let (folder, id, turns) = (means.volumes_dir(), task_id.to_owned(), means.volumes.clone());
    let removed = tokio::task::spawn_blocking(move || {
        volumes::remove_of_task(&folder, &id, &turns).map_err(|error| format!("volumes {}/{id}: {error}", folder.display()))
    });
    removed.await.map_err(|error| error.to_string())?
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
            interface: None,
        };
        let port = PortBinding { container_port: 53, host_port: 5353, protocol: Protocol::Udp };
        let held = container_network(&attachment(AttachmentKind::Bridge, Some("/run/a")), &[port]);
        assert_eq!(held, ContainerNetwork::Namespace("/run/a".into()));
        let own = container_network(&attachment(AttachmentKind::Bridge, None), &[port]);
        assert_eq!(own, ContainerNetwork::Bridge(vec![PublishedPort { container_port: 53, host_port: 5353, udp: true }]));
        assert_eq!(container_network(&attachment(AttachmentKind::Isolated, None), &[]), ContainerNetwork::Isolated);
    }
}
