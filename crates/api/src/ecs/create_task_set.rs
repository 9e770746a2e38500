//! `CreateTaskSet`: an ACTIVE task set of a service with an EXTERNAL deployment controller; the services loop starts its tasks.

use berth_model::ids::DeploymentId;
use berth_model::record::Key;
use berth_model::tags::parse_tags;
use berth_model::task::ClientToken;
use berth_model::task_set::{MAX_TASK_SETS, StabilityStatus, TaskSet, TaskSetStatus};
use berth_shapes::ecs::{CreateTaskSetRequest, CreateTaskSetResponse};

use super::placement::check_together;
use super::run_task::fingerprint;
use super::service_settings::filled;
use super::{capacity, definitions, fargate, network_configuration, service_registries, task_sets};
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

/// Longest `clientToken`, of printable ASCII.
const MAX_TOKEN: usize = 36;
/// Longest `externalId`; AWS names no limit.
const MAX_EXTERNAL_ID: usize = 255;

pub(crate) async fn run(api: &Api, request: CreateTaskSetRequest) -> Result<CreateTaskSetResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    task_sets::holder(api, &api.store.state(), &cluster, request.service.as_deref())?;
    refuse_unserved(&request)?;
    let tags = parse_tags(request.tags.as_deref())?;
    let scale = task_sets::scale(request.scale.as_ref())?;
    if request.external_id.as_ref().is_some_and(|id| id.chars().count() > MAX_EXTERNAL_ID) {
        return Err(Failure::invalid(format!("externalId can have at most {MAX_EXTERNAL_ID} characters.")));
    }
    let token = client_token(&request)?;
    let id = DeploymentId::from_random(api.environment.bits64());
    api.change(|state, transaction| {
        let entry = task_sets::holder(api, state, &cluster, request.service.as_deref())?;
        let with = |set: &TaskSet, service: &berth_model::service::Service| CreateTaskSetResponse {
            task_set: Some(task_sets::render(state, api.scope(), service, set, true)),
        };
        transaction.expect(Key::Service(cluster.clone(), entry.name.clone()), entry.modified);
        let known = token.as_ref().and_then(|token| {
            let is_same = |set: &&TaskSet| set.client_token.as_ref().is_some_and(|known| known.token == token.token);
            entry.task_sets.iter().find(is_same)
        });
        if let Some(known) = known {
            if known.client_token != token {
                return Err(Failure::invalid("Creation of task set was not idempotent: clientToken"));
            }
            return Ok(with(known, entry));
        }
        let holder = active(state, &cluster)?;
        let (launch_type, strategy) =
            capacity::chosen(api, state, &holder.value, request.launch_type.as_ref(), request.capacity_provider_strategy.as_deref())?;
        fargate::platform_version(launch_type, request.platform_version.as_deref())?;
        let definition = definitions::usable(api, state, request.task_definition.as_deref())?;
        check_together(&entry.settings.placement_constraints, &definition)?;
        fargate::check_placement(launch_type, Some(&entry.settings.placement_constraints), Some(&entry.settings.placement_strategy))?;
        fargate::check_launch(&definition, launch_type, None)?;
        let registries = request.service_registries.clone().unwrap_or_default();
        service_registries::check(api, state, &registries, &definition)?;
        let count = entry.task_sets.len();
        if count >= MAX_TASK_SETS {
            let text =
                format!("{count} deployments exist on the service. Unable to create new TaskSet since this exceeds the maximum limit.");
            return Err(Failure::invalid(text));
        }
        expect_cluster(transaction, holder);
        if !strategy.is_empty() {
            // A change of the cluster's providers at this moment sees the task set, or this sees the change.
            transaction.touch(Key::Cluster(cluster.clone()));
        }
        let now = api.now();
        let set = TaskSet {
            id,
            status: TaskSetStatus::Active,
            definition: definition.id.clone(),
            launch_type,
            network_configuration: network_configuration::read(state, &definition, launch_type, request.network_configuration.as_ref())?,
            capacity_provider_strategy: strategy,
            service_registries: registries,
            scale,
            external_id: request.external_id.clone(),
            client_token: token.clone(),
            tags: tags.clone(),
            created_at: now,
            updated_at: now,
            stability: StabilityStatus::Stabilizing,
            stability_at: now,
        };
        let mut service = (*entry.value).clone();
        let answer = with(&set, &service);
        service.task_sets.push(set);
        transaction.put(service);
        Ok(answer)
    })
    .await
}

/// What Berth cannot honour is refused, never ignored.
fn refuse_unserved(request: &CreateTaskSetRequest) -> Result<(), Failure> {
    if filled(request.load_balancers.as_ref()) {
        return Err(Failure::unsupported("Berth does not serve loadBalancers of a task set yet."));
    }
    Ok(())
}

fn client_token(request: &CreateTaskSetRequest) -> Result<Option<ClientToken>, Failure> {
    let Some(token) = request.client_token.clone().filter(|token| !token.is_empty()) else { return Ok(None) };
    if token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::invalid(format!("clientToken can have at most {MAX_TOKEN} ASCII characters in the range of 33-126.")));
    }
    let fingerprint = fingerprint(&CreateTaskSetRequest { client_token: None, ..request.clone() });
    Ok(Some(ClientToken { token, request: fingerprint }))
}
