//! What the daemon actions share: finding a daemon, what a request wants deployed, and rendering.
//!
//! Everything is a record: daemons run on Managed Instances, which Berth does not launch, so no task is ever placed and every count of
//! running tasks is zero.

use berth_model::arn::DefinitionReference;
use berth_model::capacity_provider::{self, CapacityKind, MOST_IN_CLUSTER};
use berth_model::cluster::Cluster;
use berth_model::daemon::{self, ContainerImage, Daemon, DaemonDeployment, DaemonDeploymentStatus, DaemonRevision, DaemonTaskDefinition};
use berth_model::ids::{CapacityProviderName, ClusterName, DaemonDeploymentId, DaemonRevisionId};
use berth_model::record::Key;
use berth_model::time::UnixMillis;
use berth_shapes::ecs::{self, ErrorCode};
use berth_store::{Entry, State, Transaction};

use super::capacity_providers::clusters_of;
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

/// Longest bake time: a day, as with services.
const MAX_BAKE_MINUTES: i32 = 1_440;
const MINUTE_MILLIS: i64 = 60_000;

/// The daemon that an ARN names, deleted ones too; `None` if its cluster never had it.
pub(crate) fn find<'a>(api: &Api, state: &'a State, arn: &str) -> Result<Option<&'a Entry<Daemon>>, Failure> {
    let (cluster, name) = daemon::parse(api.scope(), arn)?;
    active(state, &cluster)?;
    Ok(state.daemon(&cluster, &name))
}

/// The daemon that an ARN names, to change it.
pub(crate) fn find_active<'a>(api: &Api, state: &'a State, arn: &str) -> Result<&'a Entry<Daemon>, Failure> {
    let daemon = find(api, state, arn)?.ok_or_else(not_found)?;
    if !daemon.is_active() {
        return Err(Failure::modelled(ErrorCode::DaemonNotActive, "The specified daemon is not active."));
    }
    Ok(daemon)
}

pub(crate) fn not_found() -> Failure {
    Failure::modelled(ErrorCode::DaemonNotFound, "The specified daemon was not found.")
}

/// A revision of a daemon task definition, by family (its newest ACTIVE one), `family:revision` or ARN.
pub(crate) fn find_definition<'a>(api: &Api, state: &'a State, text: &str) -> Result<Option<&'a Entry<DaemonTaskDefinition>>, Failure> {
    Ok(match daemon::parse_definition(api.scope(), text)? {
        DefinitionReference::Latest(family) => state.daemon_revisions(&family).rev().find(|entry| entry.delete_requested_at.is_none()),
        DefinitionReference::Exact(id) => state.daemon_definition(&id),
    })
}

/// What CreateDaemon and UpdateDaemon want deployed. An update is whole: what it leaves out takes its default again.
pub(crate) struct Wish {
    definition: String,
    providers: Vec<CapacityProviderName>,
    configuration: ecs::DaemonDeploymentConfiguration,
    propagates_tags: bool,
    enable_ecs_managed_tags: bool,
    enable_execute_command: bool,
    critical: bool,
    ids: (DaemonRevisionId, DaemonDeploymentId),
}

impl Wish {
    /// Reads an update; a creation is read as one.
    pub(crate) fn parse(api: &Api, request: ecs::UpdateDaemonRequest) -> Result<Self, Failure> {
        let named = request.capacity_provider_arns.unwrap_or_default();
        if !(1..=MOST_IN_CLUSTER).contains(&named.len()) {
            return Err(Failure::invalid(format!("A daemon has 1 to {MOST_IN_CLUSTER} capacity providers: capacityProviderArns")));
        }
        let mut providers = Vec::new();
        for text in &named {
            let name = capacity_provider::parse(api.scope(), text)?;
            if providers.contains(&name) {
                return Err(Failure::invalid(format!("capacityProviderArns cannot contain a capacity provider more than once: {name}")));
            }
            providers.push(name);
        }
        Ok(Self {
            definition: request.daemon_task_definition_arn.unwrap_or_default(),
            providers,
            configuration: configuration(request.deployment_configuration.unwrap_or_default())?,
            propagates_tags: request.propagate_tags.is_some_and(|from| from.as_str() == "DAEMON"),
            enable_ecs_managed_tags: request.enable_ecs_managed_tags == Some(true),
            enable_execute_command: request.enable_execute_command == Some(true),
            critical: request.critical != Some(false),
            ids: (DaemonRevisionId(api.environment.entropy.bits()), DaemonDeploymentId(api.environment.entropy.bits())),
        })
    }

    /// The deployment, with conditions on all that it names.
    pub(crate) fn deployment(
        &self,
        api: &Api,
        state: &State,
        transaction: &mut Transaction,
        cluster: &Entry<Cluster>,
    ) -> Result<DaemonDeployment, Failure> {
        let definition = find_definition(api, state, &self.definition)?;
        let definition = definition.ok_or_else(|| Failure::client("The specified daemon task definition was not found."))?;
        if definition.delete_requested_at.is_some() {
            return Err(Failure::client("The specified daemon task definition is not ACTIVE."));
        }
        self.providers.iter().try_for_each(|name| check_provider(state, &cluster.name, name))?;
        transaction.expect(Key::DaemonTaskDefinition(definition.id.clone()), definition.modified);
        // Whatever takes a provider out of the cluster at this moment changes the cluster, and so does this.
        expect_cluster(transaction, cluster);
        transaction.touch(Key::Cluster(cluster.name.clone()));
        let now = api.now();
        let containers = definition.document.container_definitions.iter().flatten();
        let target = DaemonRevision {
            id: self.ids.0,
            created_at: now,
            definition: definition.id.clone(),
            images: containers
                .map(|container| ContainerImage {
                    container: container.name.clone().unwrap_or_default(),
                    image: container.image.clone().unwrap_or_default(),
                })
                .collect(),
            capacity_providers: self.providers.clone(),
            propagates_tags: self.propagates_tags,
            enable_ecs_managed_tags: self.enable_ecs_managed_tags,
            enable_execute_command: self.enable_execute_command,
            critical: self.critical,
        };
        let minutes = self.configuration.bake_time_in_minutes.unwrap_or(0);
        Ok(DaemonDeployment {
            id: self.ids.1,
            number: 0,
            created_at: now,
            finished_at: now.plus_millis(i64::from(minutes) * MINUTE_MILLIS),
            stopped_at: None,
            target: Some(target),
            source: None,
            configuration: self.configuration.clone(),
        })
    }
}

fn configuration(mut given: ecs::DaemonDeploymentConfiguration) -> Result<ecs::DaemonDeploymentConfiguration, Failure> {
    let minutes = *given.bake_time_in_minutes.get_or_insert(0);
    if !(0..=MAX_BAKE_MINUTES).contains(&minutes) {
        let text = format!("bakeTimeInMinutes must be between 0 and {MAX_BAKE_MINUTES}: deploymentConfiguration.bakeTimeInMinutes");
        return Err(Failure::invalid(text));
    }
    let alarms = given.alarms.get_or_insert_default();
    if *alarms.enable.get_or_insert(false) {
        return Err(Failure::unsupported("Berth does not serve deploymentConfiguration.alarms yet."));
    }
    alarms.alarm_names.get_or_insert_default();
    Ok(given)
}

fn check_provider(state: &State, cluster: &ClusterName, name: &CapacityProviderName) -> Result<(), Failure> {
    let known = state.capacity_provider(name).filter(|provider| provider.is_active());
    let is_there = known.is_some() || capacity_provider::is_built_in(name);
    if !is_there {
        return Err(Failure::invalid(format!("The specified capacity provider was not found: capacityProviderArns {name}")));
    }
    if known.is_none_or(|provider| provider.kind() != CapacityKind::ManagedInstances) {
        return Err(Failure::invalid(format!(
            "Daemons are supported for Amazon ECS Managed Instances capacity providers only: capacityProviderArns {name}"
        )));
    }
    if !clusters_of(state, name).any(|own| own.name == *cluster) {
        return Err(Failure::invalid(format!("The capacity provider belongs to another cluster: capacityProviderArns {name}")));
    }
    Ok(())
}

/// ARN of a daemon's newest deployment.
pub(crate) fn last_deployment(api: &Api, daemon: &Daemon) -> Option<String> {
    let deployment = daemon.deployments.first()?;
    Some(daemon::deployment_arn(api.scope(), &daemon.cluster, &daemon.name, deployment.id))
}

/// Instances that say they belong to a provider, all of them without the daemon.
fn instances_of(state: &State, cluster: &ClusterName, provider: &CapacityProviderName) -> Option<i32> {
    super::render::count(state.instances_of(cluster).filter(|instance| instance.capacity_provider() == Some(provider.as_str())).count())
}

/// A revision inside DescribeDaemon.
pub(crate) fn revision_detail(api: &Api, state: &State, daemon: &Daemon, revision: &DaemonRevision) -> ecs::DaemonRevisionDetail {
    let providers: Vec<_> = revision
        .capacity_providers
        .iter()
        .map(|name| ecs::DaemonCapacityProvider {
            arn: Some(capacity_provider::arn(api.scope(), name)),
            running_count: Some(0),
            without_daemon_count: instances_of(state, &daemon.cluster, name),
        })
        .collect();
    ecs::DaemonRevisionDetail {
        arn: Some(daemon::revision_arn(api.scope(), &daemon.cluster, &daemon.name, revision.id)),
        total_running_count: Some(0),
        total_without_daemon_count: Some(providers.iter().filter_map(|provider| provider.without_daemon_count).sum()),
        capacity_providers: Some(providers),
    }
}

/// A revision inside DescribeDaemonDeployments.
fn deployed_detail(
    api: &Api,
    state: &State,
    daemon: &Daemon,
    id: DaemonRevisionId,
    names: &[CapacityProviderName],
) -> ecs::DaemonDeploymentRevisionDetail {
    let providers: Vec<_> = names
        .iter()
        .map(|name| ecs::DaemonDeploymentCapacityProvider {
            arn: Some(capacity_provider::arn(api.scope(), name)),
            running_instance_count: Some(0),
            without_daemon_instance_count: instances_of(state, &daemon.cluster, name),
            draining_instance_count: Some(0),
        })
        .collect();
    ecs::DaemonDeploymentRevisionDetail {
        arn: Some(daemon::revision_arn(api.scope(), &daemon.cluster, &daemon.name, id)),
        total_running_instance_count: Some(0),
        total_without_daemon_instance_count: Some(providers.iter().filter_map(|provider| provider.without_daemon_instance_count).sum()),
        total_draining_instance_count: Some(0),
        capacity_providers: Some(providers),
    }
}

/// A deployment.
pub(crate) fn deployment(
    api: &Api,
    state: &State,
    daemon: &Daemon,
    deployment: &DaemonDeployment,
    now: UnixMillis,
) -> ecs::DaemonDeployment {
    let status = deployment.status(now);
    let source = deployment.source.as_ref();
    let alarms = deployment.configuration.alarms.clone().unwrap_or_default();
    ecs::DaemonDeployment {
        daemon_deployment_arn: Some(daemon::deployment_arn(api.scope(), &daemon.cluster, &daemon.name, deployment.id)),
        cluster_arn: Some(api.scope().cluster(&daemon.cluster)),
        status: Some(status.as_str().into()),
        status_reason: Some(reason(status).to_owned()),
        target_daemon_revision: deployment
            .target
            .as_ref()
            .map(|target| deployed_detail(api, state, daemon, target.id, &target.capacity_providers)),
        source_daemon_revisions: Some(source.map(|(id, names)| deployed_detail(api, state, daemon, *id, names)).into_iter().collect()),
        // Nothing is started, so nothing can fail: neither is used.
        circuit_breaker: Some(ecs::DaemonCircuitBreaker { failure_count: Some(0), status: Some("DISABLED".into()), threshold: Some(0) }),
        alarms: Some(ecs::DaemonDeploymentAlarms {
            status: Some("DISABLED".into()),
            alarm_names: alarms.alarm_names,
            triggered_alarm_names: Some(Vec::new()),
        }),
        rollback: None,
        deployment_configuration: Some(deployment.configuration.clone()),
        created_at: Some(deployment.created_at.to_wire()),
        started_at: Some(deployment.created_at.to_wire()),
        stopped_at: deployment.stopped_at.map(UnixMillis::to_wire),
        finished_at: finished_at(deployment, status),
    }
}

/// When a deployment was done, if it is.
pub(crate) fn finished_at(deployment: &DaemonDeployment, status: DaemonDeploymentStatus) -> Option<berth_shapes::Timestamp> {
    (status == DaemonDeploymentStatus::Successful).then(|| deployment.finished_at.to_wire())
}

/// `statusReason`.
pub(crate) const fn reason(status: DaemonDeploymentStatus) -> &'static str {
    match status {
        DaemonDeploymentStatus::InProgress => "There are no Managed Instances to deploy to; the bake time is running.",
        DaemonDeploymentStatus::Successful => "There are no Managed Instances to deploy to.",
        DaemonDeploymentStatus::Stopped => "A newer deployment took its place.",
    }
}
