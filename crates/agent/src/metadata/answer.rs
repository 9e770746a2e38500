//! Finds whom somebody asks about, gathers what is told, and has it rendered.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use berth_runtime::port::ContainerId;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::access::may_ask;
use super::clock_drift::ClockDrift;
use super::container::container;
use super::credentials;
use super::protection::{self, Wish};
use super::request::{Subject, Version, unknown};
use super::stats::{Measured, Sample, render};
use super::task::{Surroundings, task};
use super::{storage, tags};
use crate::ecs_client::EcsClient;
use crate::engine::Phase;
use crate::machine;
use crate::plan::FARGATE;
use crate::tasks::{Means, TaskRecord, Tasks};

/// A container's program may ask before its start has been taken note of. That takes milliseconds; so long is waited, in such steps.
const START_PATIENCE: (u32, Duration) = (200, Duration::from_millis(10));
/// From one reading to the next there is so much, as with Docker's, for figures that mean something.
const APART: Duration = Duration::from_secs(1);
/// A reading is the earlier one of two until another is so much younger: who asks often is not made to wait.
const KEPT: Duration = Duration::from_secs(5);
/// Figures are over no longer than this.
const OLDEST: Duration = Duration::from_secs(60);
/// The attribute in which a container instance is told its VPC.
const VPC: &str = "ecs.vpc-id";

/// Answers what containers of this machine ask about themselves.
pub struct Metadata {
    tasks: Arc<Tasks>,
    means: Arc<Means>,
    client: EcsClient,
    /// The earlier readings.
    samples: Mutex<HashMap<ContainerId, Sample>>,
}

/// Where a request comes from, and where it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// The sender.
    pub asker: Ipv4Addr,
    /// This machine's address at which the endpoint is answered.
    pub machine: Ipv4Addr,
}

impl Metadata {
    /// Of the tasks of an agent, which asks the control plane with `client`.
    #[must_use]
    pub fn new(tasks: Arc<Tasks>, means: Arc<Means>, client: EcsClient) -> Arc<Self> {
        Arc::new(Self { tasks, means, client, samples: Mutex::default() })
    }

    /// The settings.
    #[must_use]
    pub fn means(&self) -> &Means {
        &self.means
    }

    /// Answers what is asked of a container's name.
    pub async fn metadata(&self, version: Version, id: &str, subject: Subject, way: Way) -> (StatusCode, Value) {
        let Some((record, index)) = self.find(id, way).await else {
            return (StatusCode::NOT_FOUND, unknown(version, id, subject).into());
        };
        match subject {
            Subject::Container => (StatusCode::OK, container(version, &record, &record.state.lock(), index)),
            Subject::Task => (StatusCode::OK, self.task(version, &record).await.into()),
            Subject::TaskWithTags => {
                let mut shown = self.task(version, &record).await;
                self.add_tags(version, &record, &mut shown).await;
                (StatusCode::OK, shown.into())
            }
            Subject::Stats => match self.stats(version, &record, &[index]).await.pop() {
                Some((_, figures)) if !figures.is_null() => (StatusCode::OK, figures),
                _ => {
                    let id = &record.plan.containers[index].runtime_id;
                    (StatusCode::INTERNAL_SERVER_ERROR, format!("Unable to get container stats for: {id}").into())
                }
            },
            Subject::TaskStats => {
                let all: Vec<usize> = (0..record.plan.containers.len()).collect();
                let figures = self.stats(version, &record, &all).await;
                (StatusCode::OK, figures.into_iter().map(|(id, figures)| (id.0, figures)).collect::<Map<_, _>>().into())
            }
        }
    }

    /// Whether the task is protected.
    pub async fn protection(&self, id: &str, way: Way) -> protection::Answer {
        match self.find(id, way).await {
            Some((record, _)) => protection::get(&self.client, &record).await,
            None => protection::unknown(),
        }
    }

    /// Protects the task as its container wishes; `None`: the wish cannot be read.
    pub async fn protect(&self, id: &str, wish: Option<Wish>, way: Way) -> protection::Answer {
        let Some(wish) = wish else { return protection::unreadable() };
        match self.find(id, way).await {
            Some((record, _)) => protection::update(&self.client, &record, &wish).await,
            None => protection::unknown(),
        }
    }

    /// The credentials of a task's role, for a container of it. Who had which when is in the agent's log.
    pub async fn credentials(&self, id: &str, way: Way) -> protection::Answer {
        if id.is_empty() {
            return credentials::nobody();
        }
        let Some(record) = self.tasks.of_credentials(id) else { return credentials::unknown() };
        if !self.is_of_task(&record, way).await {
            tracing::warn!(task = record.plan.arn, asker = %way.asker, "the credentials of a role are asked for by somebody else");
            return credentials::unknown();
        }
        let answer = match &record.credentials.lock().application {
            Some(held) => credentials::render(held),
            None => credentials::awaited(),
        };
        let role = record.task.role_credentials.as_ref().map(|role| role.role_arn.as_str());
        tracing::info!(task = record.plan.arn, asker = %way.asker, role, status = answer.0.as_u16(), "the credentials of a role are asked for");
        answer
    }

    /// Whether somebody is of a task, by his address.
    async fn is_of_task(&self, record: &TaskRecord, way: Way) -> bool {
        let is_known = || {
            let own = record.addresses();
            record.plan.containers.iter().any(|container| may_ask(way.asker, container.wiring, &own, way.machine))
        };
        let is_starting = || record.state.lock().containers.iter().any(|phase| matches!(phase, Phase::Launching { .. }));
        let (mut steps, step) = START_PATIENCE;
        while steps > 0 && !is_known() && is_starting() {
            steps -= 1;
            tokio::time::sleep(step).await;
        }
        is_known()
    }

    /// Who is known by a name, if whoever asks may know.
    async fn find(&self, id: &str, way: Way) -> Option<(Arc<TaskRecord>, usize)> {
        let (record, index) = self.tasks.of_endpoint(id)?;
        let is_starting = || matches!(record.state.lock().containers[index], Phase::Launching { .. });
        let (mut steps, step) = START_PATIENCE;
        while steps > 0 && is_starting() {
            steps -= 1;
            tokio::time::sleep(step).await;
        }
        let wiring = record.plan.containers[index].wiring;
        if may_ask(way.asker, wiring, &record.addresses(), way.machine) {
            return Some((record, index));
        }
        tracing::warn!(task = record.plan.arn, asker = %way.asker, "task metadata is asked for by somebody else");
        None
    }

    async fn task(&self, version: Version, record: &TaskRecord) -> Map<String, Value> {
        let config = &self.means.config;
        let zone = || match (record.task.zone.as_str(), &config.availability_zone) {
            ("", Some(zone)) => zone.clone(),
            ("", None) => format!("{}a", config.region),
            (zone, _) => zone.to_owned(),
        };
        let mut around = Surroundings { zone: config.metadata.shows_zone.then(zone).unwrap_or_default(), ..Default::default() };
        if record.task.launch_type == FARGATE {
            let now = self.means.clock.now();
            around.clock = ClockDrift::read().map(|drift| drift.render(now)).unwrap_or_default();
            let folder = self.means.volumes_dir().join(&record.plan.id);
            if record.task.ephemeral_storage_gib > 0 {
                around.storage = storage::metrics(folder, record.task.ephemeral_storage_gib).await;
            }
        } else {
            around.vpc = config.attributes.get(VPC).cloned().flatten().unwrap_or_default();
        }
        task(version, record, &record.state.lock(), around)
    }

    async fn add_tags(&self, version: Version, record: &TaskRecord, shown: &mut Map<String, Value>) {
        let mut wanted = Vec::new();
        let identity = self.means.ledger.identity().unwrap_or_default();
        // A machine of Fargate's is no container instance to its tasks.
        if record.task.launch_type != FARGATE && !identity.container_instance_arn.is_empty() {
            wanted.push(("ContainerInstanceTags", identity.container_instance_arn.as_str()));
        }
        wanted.push(("TaskTags", record.task.arn.as_str()));
        tags::add(shown, &self.client, &wanted, version == Version::V4).await;
    }

    /// What containers of a task use; nothing of those that do not run.
    async fn stats(&self, version: Version, record: &TaskRecord, indices: &[usize]) -> Vec<(ContainerId, Value)> {
        let plans: Vec<_> = indices.iter().map(|index| &record.plan.containers[*index]).collect();
        let mut before = Vec::with_capacity(plans.len());
        let mut wait = Duration::ZERO;
        for plan in &plans {
            let earlier = self.earlier(&plan.runtime_id).await;
            if let Some(sample) = &earlier {
                let age = Duration::from_nanos(machine::uptime_nanos().saturating_sub(sample.uptime_nanos));
                wait = wait.max(APART.saturating_sub(age));
            }
            before.push(earlier);
        }
        tokio::time::sleep(wait).await;
        let machines_memory = machine::memory_mib().unwrap_or(0).saturating_mul(1024 * 1024);
        let mut figures = Vec::with_capacity(plans.len());
        for (plan, before) in plans.into_iter().zip(before) {
            let last = self.sample(&plan.runtime_id).await;
            let memory_limit = plan.blueprint.as_ref().ok().and_then(|blueprint| blueprint.spec.memory_limit);
            let of = Measured {
                id: &plan.runtime_id.0,
                name: &plan.name,
                memory_limit: memory_limit.unwrap_or(machines_memory),
                cores: machine::cores(),
                has_rates: version == Version::V4,
            };
            let shown = before.zip(last).map(|(before, last)| {
                if last.uptime_nanos.saturating_sub(before.uptime_nanos) >= KEPT.as_nanos() as u64 {
                    self.samples.lock().insert(plan.runtime_id.clone(), last);
                }
                render(of, &before, &last)
            });
            figures.push((plan.runtime_id.clone(), shown.unwrap_or_default()));
        }
        figures
    }

    /// The reading that the next one is held against: one of before, if it is young enough, else one of now.
    async fn earlier(&self, id: &ContainerId) -> Option<Sample> {
        let now = machine::uptime_nanos();
        let is_young = |sample: &Sample| now.saturating_sub(sample.uptime_nanos) < OLDEST.as_nanos() as u64;
        let known = self.samples.lock().get(id).copied().filter(is_young);
        if known.is_some() {
            return known;
        }
        let sample = self.sample(id).await?;
        let mut samples = self.samples.lock();
        // Of containers that are gone, or ask no more, nothing is kept.
        samples.retain(|_, sample| is_young(sample));
        samples.insert(id.clone(), sample);
        Some(sample)
    }

    async fn sample(&self, id: &ContainerId) -> Option<Sample> {
        let runtime = &self.means.runtime;
        let stats = runtime.stats(id).await.ok()?;
        let traffic = runtime.traffic(id).await;
        Some(Sample { stats, traffic, at: self.means.clock.now(), uptime_nanos: machine::uptime_nanos() })
    }
}
