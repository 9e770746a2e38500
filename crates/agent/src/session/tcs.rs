//! The TCS connection's life: readings every few seconds, publications every twenty and of health at once, come back when it breaks. Telemetry must
//! never hold a task up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use berth_acs::messages::{
    InstanceStatus, InstanceStatusMetadata, MetricsMetadata, PublishInstanceStatusRequest, TaskHealth, TaskMetric, TelemetryFrame,
};
use berth_acs::reconnect::{Backoff, Ending, IdleTimer};
use berth_acs::{DialOptions, SocketError, TelemetryConnection, TelemetryQuery};
use berth_runtime::port::{ContainerId, Runtime};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

use super::{AGENT_HASH, AGENT_VERSION, Link, RUNTIME_VERSION};
use crate::engine::Phase;
use crate::tasks::Tasks;
use crate::telemetry::{Reading, ToldHealth, Window, health_of, health_pages, pages};
use crate::{entropy, machine};

const PUBLISH_EVERY: Duration = Duration::from_secs(20);
/// Four readings to a publication: a reading costs a few file reads per container, and there may be thousands.
const READ_EVERY: Duration = Duration::from_secs(5);
const RENEW_AFTER: Duration = Duration::from_secs(30 * 60);
const RENEW_SPREAD: Duration = Duration::from_secs(5 * 60);
/// A runtime that takes longer to say what it has is impaired.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(5);

/// Publishes telemetry until `stop`.
pub async fn run(link: Arc<Link>, tasks: Arc<Tasks>, runtime: Arc<dyn Runtime>, options: DialOptions, stop: CancellationToken) {
    let mut meter = Meter { link, tasks, runtime, windows: HashMap::new(), health: None };
    let mut backoff = Backoff::default();
    loop {
        let ending = tokio::select! {
            ending = meter.once(&options) => ending,
            () = stop.cancelled() => return,
        };
        let Some(ending) = ending else { return };
        // A deregistered instance renews itself over ACS; telemetry then follows under the new name.
        let delay = match ending {
            Ending::Refused(_) => backoff.after(&Ending::Unreachable, entropy::unit()),
            other => backoff.after(&other, entropy::unit()),
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => return,
        }
    }
}

struct Meter {
    link: Arc<Link>,
    tasks: Arc<Tasks>,
    runtime: Arc<dyn Runtime>,
    windows: HashMap<ContainerId, Window>,
    /// The runtime's last status and since when.
    health: Option<(&'static str, i64)>,
}

impl Meter {
    /// One connection; `None` if the control plane wants no telemetry.
    async fn once(&mut self, options: &DialOptions) -> Option<Ending> {
        let link = self.link.clone();
        let endpoint = match link.endpoints().await {
            Ok(endpoints) => endpoints.telemetry?,
            Err(_) => return Some(Ending::Unreachable),
        };
        let mut identities = link.identities();
        let query = TelemetryQuery {
            agent_hash: AGENT_HASH.to_owned(),
            agent_version: AGENT_VERSION.to_owned(),
            cluster: link.config.cluster.clone(),
            container_instance: link.identity().container_instance_arn,
            docker_version: RUNTIME_VERSION.to_owned(),
        };
        let sign = |host: &str, path: &str| link.sign_handshake(host, path);
        let connection = match TelemetryConnection::connect(&endpoint, &query.render(), sign, options).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, endpoint, "no telemetry connection");
                return Some(error.ending());
            }
        };
        let opened = Instant::now();
        let served = tokio::select! {
            served = self.serve(connection) => served,
            // Another container instance speaks over another connection.
            _ = identities.changed() => Ok(()),
        };
        Some(match served {
            Ok(()) => Ending::Closed { lived: opened.elapsed() },
            Err(error) => {
                tracing::debug!(%error, "the telemetry connection ended");
                Ending::Faulty { lived: opened.elapsed() }
            }
        })
    }

    async fn serve(&mut self, mut connection: TelemetryConnection) -> Result<(), SocketError> {
        let (clock, tasks) = (self.link.clock.clone(), self.tasks.clone());
        let renew_at = Instant::now() + RENEW_AFTER + RENEW_SPREAD.mul_f64(entropy::unit());
        let mut told = ToldHealth::default();
        let mut idle = IdleTimer::new(clock.now(), false, entropy::unit());
        let mut publish = interval(PUBLISH_EVERY);
        let mut read = interval_at(Instant::now() + READ_EVERY, READ_EVERY);
        publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        read.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = connection.next() => match answer {
                    None => return Ok(()),
                    Some(Ok(_)) => idle.on_frame(clock.now()),
                    Some(Err(error)) if error.is_fatal() => return Err(error),
                    Some(Err(error)) => tracing::debug!(%error, "an answer to telemetry"),
                },
                _ = publish.tick() => {
                    let mut frames = self.publication().await;
                    let health = self.health();
                    frames.extend(self.health_frames(&health));
                    told.news(health);
                    self.send(&mut connection, frames).await?;
                }
                // A deployment may wait for it, or a service has to replace a task: nobody should wait for the next round.
                () = tasks.health_changed() => {
                    let frames = self.health_frames(&told.news(self.health()));
                    self.send(&mut connection, frames).await?;
                }
                _ = read.tick(), if self.link.config.metrics => self.read().await,
                () = clock.sleep_until(Some(idle.wake_at())) => if idle.expired(clock.now()) {
                    return Ok(());
                },
                () = tokio::time::sleep_until(renew_at) => return connection.close(1000, "ConnectionExpired: Reconnect to continue").await,
            }
        }
    }

    async fn send(&self, connection: &mut TelemetryConnection, frames: Vec<TelemetryFrame>) -> Result<(), SocketError> {
        for frame in frames {
            let link = self.link.clone();
            connection.send(&frame, move |host, path, json| link.sign_telemetry(host, path, json)).await?;
        }
        Ok(())
    }

    /// The health of all containers that have a health check.
    fn health(&self) -> Vec<TaskHealth> {
        self.tasks.records().iter().filter_map(|record| health_of(&record.plan, &record.state.lock())).collect()
    }

    fn health_frames(&self, tasks: &[TaskHealth]) -> Vec<TelemetryFrame> {
        let timestamp = self.link.clock.now() as f64 / 1000.0;
        health_pages(&self.metadata(), tasks, timestamp).into_iter().map(TelemetryFrame::Health).collect()
    }

    fn metadata(&self) -> MetricsMetadata {
        MetricsMetadata {
            cluster: self.link.config.cluster.clone(),
            container_instance: self.link.identity().container_instance_arn,
            message_id: entropy::uuid(),
            ..Default::default()
        }
    }

    /// One reading of each container that runs.
    async fn read(&mut self) {
        let mut windows = HashMap::new();
        let cores = machine::cores();
        for record in self.tasks.records() {
            let running: Vec<ContainerId> = {
                let state = record.state.lock();
                let pairs = record.plan.containers.iter().zip(&state.containers);
                pairs.filter(|(_, phase)| matches!(phase, Phase::Running(_))).map(|(container, _)| container.runtime_id.clone()).collect()
            };
            for id in running {
                // It may have ended this moment.
                let Ok(stats) = self.runtime.stats(&id).await else { continue };
                let mut window = self.windows.remove(&id).unwrap_or_default();
                window.add(Reading { stats, at: self.link.clock.now() }, cores);
                windows.insert(id, window);
            }
        }
        self.windows = windows;
    }

    async fn publication(&mut self) -> Vec<TelemetryFrame> {
        let identity = self.link.identity();
        let (cluster, instance) = (self.link.config.cluster.clone(), identity.container_instance_arn);
        let now = self.link.clock.now();
        let timestamp = now as f64 / 1000.0;
        let mut frames: Vec<_> = pages(&self.metadata(), self.figures(), timestamp).into_iter().map(TelemetryFrame::Metrics).collect();
        frames.push(TelemetryFrame::InstanceStatus(PublishInstanceStatusRequest {
            metadata: InstanceStatusMetadata { cluster, container_instance: instance, request_id: entropy::uuid() },
            statuses: vec![self.runtime_status(now).await],
            timestamp,
        }));
        frames
    }

    fn figures(&mut self) -> Vec<TaskMetric> {
        let mut figures = Vec::new();
        for record in self.tasks.records() {
            let plan = &record.plan;
            let restarts: Vec<Option<u32>> = {
                let state = record.state.lock();
                let of = |(container, phase): (&crate::plan::ContainerPlan, &Phase)| {
                    container.restart.as_ref().and_then(|_| phase.run()).map(|run| run.restarts)
                };
                plan.containers.iter().zip(&state.containers).map(of).collect()
            };
            let of = |(container, restarts): (&crate::plan::ContainerPlan, Option<u32>)| {
                self.windows.get_mut(&container.runtime_id)?.take(&container.name, restarts)
            };
            let container_metrics: Vec<_> = plan.containers.iter().zip(restarts).filter_map(of).collect();
            if !container_metrics.is_empty() {
                figures.push(TaskMetric {
                    task_arn: plan.arn.clone(),
                    task_definition_family: plan.family.clone(),
                    task_definition_version: plan.version.clone(),
                    cluster_arn: record.task.task_cluster_arn.clone(),
                    container_metrics,
                    ..Default::default()
                });
            }
        }
        figures
    }

    async fn runtime_status(&mut self, now: i64) -> InstanceStatus {
        let listed = tokio::time::timeout(RUNTIME_PATIENCE, self.runtime.list()).await;
        let (status, reason) = match listed {
            Ok(Ok(_)) => ("OK", None),
            Ok(Err(error)) => ("IMPAIRED", Some(error.to_string())),
            Err(_) => ("IMPAIRED", Some(format!("the runtime did not answer within {RUNTIME_PATIENCE:?}"))),
        };
        let since = match self.health {
            Some((before, since)) if before == status => since,
            _ => now,
        };
        self.health = Some((status, since));
        InstanceStatus {
            kind: "ContainerRuntime".to_owned(),
            status: status.to_owned(),
            last_updated: Some(now as f64 / 1000.0),
            last_status_change: Some(since as f64 / 1000.0),
            status_reason: reason,
        }
    }
}
