//! What the actions on Express services share: finding one, names, showing it, also as a service among the others.

use berth_model::arn::{Resource, Scope, parse_resource, parse_service};
use berth_model::express_service::{ExpressRevision, ExpressService};
use berth_model::ids::{ClusterName, DefinitionId, DeploymentId, ServiceName};
use berth_model::record::Key;
use berth_model::service::ServiceStatus;
use berth_model::service_deployment::ServiceRevisionId;
use berth_model::tags::render_tags;
use berth_shapes::ecs::{self, ErrorCode};
use berth_store::{Entry, State, Transaction};

use super::express_configuration::Source;
use crate::context::{Api, active};
use crate::failure::Failure;

/// Cluster and name out of `serviceArn`; also in the form of before 2018, whose cluster is the default one.
pub(crate) fn parse(api: &Api, state: &State, arn: Option<&str>) -> Result<(ClusterName, ServiceName), Failure> {
    let arn = arn.unwrap_or_default();
    let malformed = || Failure::invalid("Invalid arn syntax: serviceArn must be the Amazon Resource Name (ARN) of a service.");
    let rest = api.scope().strip(arn).ok_or_else(malformed)?;
    let (cluster, name) = if rest.matches('/').count() == 1 {
        let cluster = api.cluster_name(None)?;
        let name = parse_service(api.scope(), &cluster, arn).map_err(|_| malformed())?;
        (cluster, name)
    } else {
        match parse_resource(api.scope(), arn) {
            Ok(Resource::Service(cluster, name)) => (cluster, name),
            _ => return Err(malformed()),
        }
    };
    active(state, &cluster)?;
    Ok((cluster, name))
}

/// The Express service to change: it must be there and ACTIVE.
pub(crate) fn find_active<'a>(api: &Api, state: &'a State, arn: Option<&str>) -> Result<&'a Entry<ExpressService>, Failure> {
    let (cluster, name) = parse(api, state, arn)?;
    let service = state.express_service(&cluster, &name).ok_or_else(Failure::service_not_found)?;
    if service.status != ServiceStatus::Active {
        return Err(Failure::modelled(ErrorCode::ServiceNotActive, "Service was not ACTIVE."));
    }
    Ok(service)
}

/// What a name that another service has is answered with.
pub(crate) fn name_taken(status: ServiceStatus) -> Failure {
    Failure::invalid(match status {
        ServiceStatus::Draining => "Unable to Start a service that is still Draining.",
        _ => "Creation of service was not idempotent.",
    })
}

/// Makes sure that no Express service has a name that a service is to have. One that is INACTIVE goes.
pub(crate) fn clear_name(state: &State, transaction: &mut Transaction, cluster: &ClusterName, name: &ServiceName) -> Result<(), Failure> {
    let key = Key::ExpressService(cluster.clone(), name.clone());
    match state.express_service(cluster, name) {
        Some(known) if known.status != ServiceStatus::Inactive => return Err(name_taken(known.status)),
        Some(inactive) => transaction.expect(key.clone(), inactive.modified).delete(key),
        None => transaction.expect_absent(key),
    };
    Ok(())
}

/// The definition of a configuration's source; one that ECS makes is registered in the same transaction.
pub(crate) fn definition(api: &Api, state: &State, transaction: &mut Transaction, source: Source) -> DefinitionId {
    match source {
        Source::Kept(definition) => definition,
        Source::Given(definition) => {
            // Deregistered meanwhile, it must not be used any more.
            if let Some(known) = state.definition(&definition) {
                transaction.expect(Key::TaskDefinition(definition.clone()), known.modified);
            }
            definition
        }
        Source::Made(draft) => draft.register(api, state, transaction).id,
    }
}

/// A name that no service of the cluster has: like the image's or the family's, with random digits.
pub(crate) fn fresh_name(state: &State, cluster: &ClusterName, like: &str, bits: u64) -> ServiceName {
    let last = like.rsplit('/').next().unwrap_or_default();
    let base: String =
        last.split([':', '@']).next().unwrap_or_default().chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    let base = if base.is_empty() { "express" } else { &base[..base.len().min(200)] };
    let is_free = |name: &ServiceName| state.service(cluster, name).is_none() && state.express_service(cluster, name).is_none();
    let candidates = (0..=u64::MAX).filter_map(|step| ServiceName::parse(&format!("{base}-{:08x}", bits.wrapping_add(step) & 0xffff_ffff)));
    // A cluster has fewer services than this has candidates.
    candidates.into_iter().find(is_free).expect("a free name is among four thousand million")
}

fn status(service: &ExpressService) -> ecs::ExpressGatewayServiceStatus {
    ecs::ExpressGatewayServiceStatus { status_code: Some(service.status.as_str().into()), status_reason: None }
}

/// A revision as `activeConfigurations` and `targetConfiguration` show it. No load balancer serves it, so it has no ingress path.
fn configuration(scope: &Scope, service: &ExpressService, revision: &ExpressRevision) -> ecs::ExpressGatewayServiceConfiguration {
    ecs::ExpressGatewayServiceConfiguration {
        service_revision_arn: Some(scope.service_revision(&service.cluster, &service.name, ServiceRevisionId(revision.number))),
        task_definition_arn: Some(scope.task_definition(&revision.definition)),
        ingress_paths: Some(Vec::new()),
        created_at: Some(revision.created_at.to_wire()),
        ..revision.configuration.clone()
    }
}

/// As the actions on Express services show it.
pub(crate) fn render(scope: &Scope, service: &ExpressService, with_tags: bool) -> ecs::ECSExpressGatewayService {
    let active = service.revisions.iter().filter(|_| service.status != ServiceStatus::Inactive);
    ecs::ECSExpressGatewayService {
        cluster: Some(service.cluster.to_string()),
        service_name: Some(service.name.to_string()),
        service_arn: Some(scope.service(&service.cluster, &service.name)),
        infrastructure_role_arn: Some(service.infrastructure_role_arn.clone()),
        status: Some(status(service)),
        // No deployment is ever under way.
        current_deployment: None,
        active_configurations: Some(active.map(|revision| configuration(scope, service, revision)).collect()),
        tags: with_tags.then(|| render_tags(&service.tags)),
        created_at: Some(service.created_at.to_wire()),
        updated_at: Some(service.updated_at.to_wire()),
    }
}

/// As UpdateExpressGatewayService shows it.
pub(crate) fn render_updated(scope: &Scope, service: &ExpressService) -> ecs::UpdatedExpressGatewayService {
    ecs::UpdatedExpressGatewayService {
        service_arn: Some(scope.service(&service.cluster, &service.name)),
        cluster: Some(service.cluster.to_string()),
        service_name: Some(service.name.to_string()),
        status: Some(status(service)),
        target_configuration: Some(configuration(scope, service, service.newest())),
        created_at: Some(service.created_at.to_wire()),
        updated_at: Some(service.updated_at.to_wire()),
    }
}

/// As DescribeServices shows it beside the others: with the tasks that it should have, and none running.
pub(crate) fn render_as_service(scope: &Scope, service: &ExpressService, with_tags: bool) -> ecs::Service {
    let revision = service.newest();
    let scaling = revision.configuration.scaling_target.as_ref();
    let is_active = service.status == ServiceStatus::Active;
    let desired = scaling.and_then(|target| target.min_task_count).filter(|_| is_active).unwrap_or(0);
    let definition = scope.task_definition(&revision.definition);
    let deployment = ecs::Deployment {
        id: Some(DeploymentId(revision.number).to_string()),
        status: Some("PRIMARY".to_owned()),
        task_definition: Some(definition.clone()),
        desired_count: Some(desired),
        pending_count: Some(0),
        running_count: Some(0),
        failed_tasks: Some(0),
        created_at: Some(revision.created_at.to_wire()),
        updated_at: Some(revision.created_at.to_wire()),
        launch_type: Some("FARGATE".into()),
        rollout_state: Some("IN_PROGRESS".into()),
        rollout_state_reason: Some("Berth keeps Express services as records; it starts no tasks of them.".to_owned()),
        ..Default::default()
    };
    ecs::Service {
        service_arn: Some(scope.service(&service.cluster, &service.name)),
        service_name: Some(service.name.to_string()),
        cluster_arn: Some(scope.cluster(&service.cluster)),
        load_balancers: Some(Vec::new()),
        service_registries: Some(Vec::new()),
        status: Some(service.status.to_string()),
        desired_count: Some(desired),
        running_count: Some(0),
        pending_count: Some(0),
        launch_type: Some("FARGATE".into()),
        task_definition: Some(definition),
        deployments: Some(vec![deployment]),
        events: Some(Vec::new()),
        created_at: Some(service.created_at.to_wire()),
        placement_constraints: Some(Vec::new()),
        placement_strategy: Some(Vec::new()),
        scheduling_strategy: Some("REPLICA".into()),
        deployment_controller: Some(ecs::DeploymentController { r#type: Some("ECS".into()) }),
        tags: with_tags.then(|| render_tags(&service.tags)),
        created_by: Some(scope.root_principal()),
        enable_ecs_managed_tags: Some(false),
        propagate_tags: Some("NONE".into()),
        enable_execute_command: Some(false),
        resource_management_type: Some("ECS".into()),
        ..Default::default()
    }
}
