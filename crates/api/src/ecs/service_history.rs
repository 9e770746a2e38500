//! A service's history as records: the deployments that CreateService and UpdateService begin, and how deployments and revisions are shown.

use berth_control::{forgettable_history, tally_revision};
use berth_model::arn::Scope;
use berth_model::capacity_provider::StrategyItem;
use berth_model::ids::DeploymentId;
use berth_model::record::Key;
use berth_model::rollout::{ALL_TRAFFIC, Course, HookRun, Rollout, Strategy};
use berth_model::service::{Service, ServiceSettings};
use berth_model::service_deployment::{
    BreakerCount, RevisionImage, RevisionTally, ServiceDeployment, ServiceDeploymentId, ServiceDeploymentStatus, ServiceRevision,
    ServiceRevisionId,
};
use berth_model::task_definition::TaskDefinition;
use berth_model::task_interface::AwsvpcConfiguration;
use berth_model::time::UnixMillis;
use berth_scheduler::service::{BreakerRules, history, shift};
use berth_shapes::ecs;
use berth_store::{State, Transaction};

use super::{capacity, render};
use crate::context::Api;

/// Ids of a deployment that may begin: drawn once, so that a commit that is tried again has the same.
#[derive(Clone, Copy)]
pub(crate) struct Fresh {
    pub(crate) deployment: DeploymentId,
    revision: ServiceRevisionId,
    service_deployment: ServiceDeploymentId,
}

impl Fresh {
    pub(crate) fn draw(api: &Api) -> Self {
        Self {
            deployment: DeploymentId::from_random(api.environment.bits64()),
            revision: ServiceRevisionId::from_random(api.environment.bits64()),
            service_deployment: ServiceDeploymentId::from_random(api.environment.entropy.bits()),
        }
    }
}

/// Most records of the past that go when a deployment begins: a commit must stay small, and the next one, or the sweep, takes the rest.
const MOST_FORGOTTEN: usize = 16;

/// Begins a deployment of what the service is set to: its PRIMARY deployment, its revision, its record. What of its history is
/// too much by then goes.
pub(crate) fn begin(
    state: &State,
    transaction: &mut Transaction,
    service: &mut Service,
    definition: &TaskDefinition,
    capacity_provider_strategy: Vec<StrategyItem>,
    fresh: Fresh,
    now: UnixMillis,
) {
    let (cluster, name) = (service.cluster.clone(), service.name.clone());
    let containers = definition.document.container_definitions.iter().flatten();
    let revision = ServiceRevision {
        id: fresh.revision,
        cluster: cluster.clone(),
        service: name.clone(),
        definition: definition.id.clone(),
        launch_type: service.launch_type,
        capacity_provider_strategy,
        settings: service.settings.clone(),
        images: containers
            .map(|container| RevisionImage {
                container: container.name.clone().unwrap_or_default(),
                image: container.image.clone().unwrap_or_default(),
                digest: None,
            })
            .collect(),
        created_at: now,
    };
    let sources: Vec<_> = current_revisions(state, service);
    let course = Course::read(&service.settings.deployment_configuration);
    let rollout = shift::begin(service, fresh.deployment, &course, now);
    forgettable_history(state, service, now, 1).into_iter().take(MOST_FORGOTTEN).for_each(|key| {
        transaction.delete(key);
    });
    transaction.put(ServiceDeployment {
        id: fresh.service_deployment,
        cluster: cluster.clone(),
        service: name.clone(),
        status: ServiceDeploymentStatus::Pending,
        status_reason: None,
        sources,
        target: RevisionTally { requested: service.desired_count, ..RevisionTally::none(fresh.revision) },
        candidate: service.completed_revision,
        configuration: service.settings.deployment_configuration.clone(),
        rollback: None,
        breaker: None,
        triggered_alarms: Vec::new(),
        rollout,
        created_at: now,
        started_at: None,
        finished_at: None,
        stopped_at: None,
        updated_at: now,
    });
    service.demote_primary(now);
    service.deployments.insert(0, history::deployment(fresh.deployment, &revision, fresh.service_deployment, now));
    transaction.expect_absent(Key::ServiceRevision(cluster, name, fresh.revision));
    transaction.put(revision);
}

/// The revisions that the service's deployments bring out, the PRIMARY one's first.
pub(crate) fn current_revisions(state: &State, service: &Service) -> Vec<RevisionTally> {
    let mut seen: Vec<ServiceRevisionId> = Vec::new();
    for revision in service.deployments.iter().filter_map(|deployment| deployment.revision) {
        if !seen.contains(&revision) {
            seen.push(revision);
        }
    }
    seen.into_iter().map(|revision| tally_revision(state, service, revision)).collect()
}

fn number(value: u32) -> Option<i32> {
    Some(i32::try_from(value).unwrap_or(i32::MAX))
}

/// `currentServiceRevisions` of DescribeServices.
pub(crate) fn render_current(state: &State, scope: &Scope, service: &Service) -> Vec<ecs::ServiceCurrentRevisionSummary> {
    let summary = |tally: RevisionTally| ecs::ServiceCurrentRevisionSummary {
        arn: Some(scope.service_revision(&service.cluster, &service.name, tally.revision)),
        requested_task_count: number(tally.requested),
        running_task_count: number(tally.running),
        pending_task_count: number(tally.pending),
    };
    current_revisions(state, service).into_iter().map(summary).collect()
}

/// A service deployment as ListServiceDeployments shows it.
pub(crate) fn render_brief(scope: &Scope, one: &ServiceDeployment) -> ecs::ServiceDeploymentBrief {
    ecs::ServiceDeploymentBrief {
        service_deployment_arn: Some(scope.service_deployment(&one.cluster, &one.service, one.id)),
        service_arn: Some(scope.service(&one.cluster, &one.service)),
        cluster_arn: Some(scope.cluster(&one.cluster)),
        started_at: one.started_at.map(UnixMillis::to_wire),
        created_at: Some(one.created_at.to_wire()),
        finished_at: one.finished_at.map(UnixMillis::to_wire),
        target_service_revision_arn: Some(scope.service_revision(&one.cluster, &one.service, one.target.revision)),
        status: Some(one.status.as_str().into()),
        status_reason: one.status_reason.clone(),
    }
}

/// A service deployment; while it goes on its tasks are counted as they are now.
pub(crate) fn render_deployment(state: &State, scope: &Scope, service: &Service, one: &ServiceDeployment) -> ecs::ServiceDeployment {
    let weights = |tally: &RevisionTally| one.rollout.as_ref().and_then(|rollout| weights(one, rollout, tally));
    let summary = |kept: &RevisionTally| {
        let (test, production) = weights(kept).unzip();
        let tally = if one.status.is_finished() { *kept } else { tally_revision(state, service, kept.revision) };
        ecs::ServiceRevisionSummary {
            arn: Some(scope.service_revision(&one.cluster, &one.service, tally.revision)),
            requested_task_count: number(tally.requested),
            running_task_count: number(tally.running),
            pending_task_count: number(tally.pending),
            requested_test_traffic_weight: test,
            requested_production_traffic_weight: production,
        }
    };
    ecs::ServiceDeployment {
        service_deployment_arn: Some(scope.service_deployment(&one.cluster, &one.service, one.id)),
        service_arn: Some(scope.service(&one.cluster, &one.service)),
        cluster_arn: Some(scope.cluster(&one.cluster)),
        created_at: Some(one.created_at.to_wire()),
        started_at: one.started_at.map(UnixMillis::to_wire),
        finished_at: one.finished_at.map(UnixMillis::to_wire),
        stopped_at: one.stopped_at.map(UnixMillis::to_wire),
        updated_at: Some(one.updated_at.to_wire()),
        source_service_revisions: Some(one.sources.iter().map(summary).collect()),
        target_service_revision: Some(summary(&one.target)),
        status: Some(one.status.as_str().into()),
        status_reason: one.status_reason.clone(),
        lifecycle_stage: one.rollout.as_ref().map(|rollout| rollout.stage.as_str().into()),
        lifecycle_hook_details: one.rollout.as_ref().map(|rollout| rollout.hooks.iter().map(|run| hook_detail(one, run)).collect()),
        deployment_configuration: Some(one.configuration.clone()),
        rollback: one.rollback.as_ref().map(|rollback| ecs::Rollback {
            reason: Some(rollback.reason.clone()),
            started_at: Some(rollback.started_at.to_wire()),
            service_revision_arn: rollback.revision.map(|revision| scope.service_revision(&one.cluster, &one.service, revision)),
        }),
        deployment_circuit_breaker: Some(circuit_breaker(one)),
        alarms: Some(alarms(one)),
    }
}

/// What becomes of its alarms.
fn alarms(one: &ServiceDeployment) -> ecs::ServiceDeploymentAlarms {
    let names =
        one.configuration.alarms.as_ref().filter(|alarms| alarms.enable == Some(true)).and_then(|alarms| alarms.alarm_names.clone());
    let status = match &names {
        None => "DISABLED",
        Some(_) if !one.triggered_alarms.is_empty() => "TRIGGERED",
        Some(_) if one.status == ServiceDeploymentStatus::Pending || one.status == ServiceDeploymentStatus::InProgress => "MONITORING",
        Some(_) => "MONITORING_COMPLETE",
    };
    ecs::ServiceDeploymentAlarms {
        status: Some(status.into()),
        alarm_names: Some(names.unwrap_or_default()),
        triggered_alarm_names: Some(one.triggered_alarms.clone()),
    }
}

/// Percentages of the test and the production traffic that a revision is to have: what green has not is blue's. A rolling update shifts none.
fn weights(one: &ServiceDeployment, rollout: &Rollout, tally: &RevisionTally) -> Option<(f64, f64)> {
    if Course::read(&one.configuration).strategy == Strategy::Rolling {
        return None;
    }
    let (test, production) = (rollout.test_weight, rollout.production_weight);
    let (test, production) = match tally.revision {
        revision if revision == one.target.revision => (test, production),
        revision if rollout.blue.is_some() && Some(revision) == one.candidate => (ALL_TRAFFIC - test, ALL_TRAFFIC - production),
        _ => (0, 0),
    };
    Some((f64::from(test) / 10.0, f64::from(production) / 10.0))
}

fn hook_detail(one: &ServiceDeployment, run: &HookRun) -> ecs::DeploymentLifecycleHookDetail {
    let hook = one.configuration.lifecycle_hooks.as_ref().and_then(|hooks| hooks.get(run.hook));
    ecs::DeploymentLifecycleHookDetail {
        hook_id: Some(run.id.clone()),
        target_type: Some(run.kind.as_str().into()),
        target_arn: hook.and_then(|hook| hook.hook_target_arn.clone()),
        status: Some(run.status.as_str().into()),
        expires_at: Some(run.expires_at.to_wire()),
        timeout_action: hook.and_then(|hook| hook.timeout_configuration.as_ref()?.action.clone()),
    }
}

/// `deploymentCircuitBreaker` of a service deployment.
fn circuit_breaker(one: &ServiceDeployment) -> ecs::ServiceDeploymentCircuitBreaker {
    let rules = BreakerRules::of(&ServiceSettings { deployment_configuration: one.configuration.clone(), ..Default::default() });
    let count = one.breaker.unwrap_or(BreakerCount { failures: 0, threshold: rules.threshold(one.target.requested), triggered: false });
    let status = match () {
        () if !rules.is_on => "DISABLED",
        () if count.triggered => "TRIGGERED",
        () if one.status.is_finished() => "MONITORING_COMPLETE",
        () => "MONITORING",
    };
    let shown = |value: u32| if rules.is_on { number(value) } else { Some(0) };
    ecs::ServiceDeploymentCircuitBreaker {
        status: Some(status.into()),
        failure_count: shown(count.failures),
        threshold: shown(count.threshold),
    }
}

/// A service revision.
pub(crate) fn render_revision(scope: &Scope, one: &ServiceRevision) -> ecs::ServiceRevision {
    let image = |image: &RevisionImage| ecs::ContainerImage {
        container_name: Some(image.container.clone()),
        image: Some(image.image.clone()),
        image_digest: image.digest.clone(),
    };
    ecs::ServiceRevision {
        service_revision_arn: Some(scope.service_revision(&one.cluster, &one.service, one.id)),
        service_arn: Some(scope.service(&one.cluster, &one.service)),
        cluster_arn: Some(scope.cluster(&one.cluster)),
        task_definition: Some(scope.task_definition(&one.definition)),
        launch_type: one.capacity_provider_strategy.is_empty().then(|| one.launch_type.as_str().into()),
        capacity_provider_strategy: (!one.capacity_provider_strategy.is_empty()).then(|| capacity::render(&one.capacity_provider_strategy)),
        platform_version: render::platform_version(one.launch_type),
        platform_family: render::platform_family(one.launch_type),
        load_balancers: Some(Vec::new()),
        network_configuration: one.settings.network_configuration.as_ref().map(AwsvpcConfiguration::to_wire),
        service_registries: Some(one.settings.service_registries.clone()),
        container_images: Some(one.images.iter().map(image).collect()),
        guard_duty_enabled: Some(false),
        volume_configurations: Some(Vec::new()),
        vpc_lattice_configurations: Some(Vec::new()),
        created_at: Some(one.created_at.to_wire()),
        ..Default::default()
    }
}
