//! `POST /plan`: what would come of a RunTask or an UpdateService, perhaps with machines more or fewer, if it were asked for now. No AWS
//! service has such a call, so it is Berth's own: a JSON object with the `action`, its `request` in AWS's shape, `addInstances` and
//! `removeInstances`, signed like any other. It commits nothing.

use std::sync::Arc;

use berth_control::{FleetChange, Forecast};
use berth_model::arn::parse_container_instance;
use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::ids::{ClusterName, ContainerInstanceId};
use berth_model::record::Record;
use berth_model::service::{DeploymentController, Service};
use berth_model::service_deployment::ServiceDeployment;
use berth_shapes::ecs::{ErrorCode, Operation, Request, UpdateServiceRequest};
use berth_store::{Change, State, Transaction};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::context::Api;
use crate::ecs::service_settings::find_active;
use crate::ecs::{run_task, update_service};
use crate::failure::Failure;

/// Most tasks of a plan: more than one RunTask takes, because "would forty more fit?" is what is asked.
const MOST_TASKS: i32 = 1_000;
/// Most instances that may be thought of in addition.
const MOST_ADDED: u32 = 1_000;
/// Most instances that may be thought away.
const MOST_REMOVED: usize = 100;
/// Shortest beginning of an id that is looked for.
const SHORTEST: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Question {
    action: String,
    request: Box<RawValue>,
    #[serde(default)]
    add_instances: Vec<Added>,
    #[serde(default)]
    remove_instances: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    count: u32,
    /// An instance, or the one that registered last.
    like: Option<String>,
}

/// Answers a question.
pub(crate) fn answer(api: &Api, body: &[u8]) -> Result<Bytes, Failure> {
    let malformed = |error: &dyn std::fmt::Display| Failure::common("SerializationException", 400, error.to_string());
    let question: Question = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let operation = match question.action.as_str() {
        "RunTask" => Operation::RunTask,
        "UpdateService" => Operation::UpdateService,
        _ => return Err(Failure::invalid("Only RunTask and UpdateService can be planned: action")),
    };
    let request = Request::decode(operation, question.request.get().as_bytes()).map_err(|error| malformed(&error))?;
    request.validate().map_err(|violations| Failure::invalid(violations.to_string()))?;
    let forecast = match request {
        Request::RunTask(request) => {
            let (template, count) = run_task::wanted(api, *request, MOST_TASKS)?;
            let change = fleet_change(api, &template.cluster, &question)?;
            // A repeated request would be answered with the tasks of the first.
            let template = berth_control::TaskTemplate { client_token: None, ..template };
            api.control.plan_launch(&template, count, &change)?
        }
        Request::UpdateService(request) => service(api, *request, &question)?,
        _ => return Err(Failure::invalid("Only RunTask and UpdateService can be planned: action")),
    };
    serde_json::to_vec(&forecast).map(Bytes::from).map_err(|error| Failure::modelled(ErrorCode::Server, error.to_string()))
}

fn service(api: &Api, request: UpdateServiceRequest, question: &Question) -> Result<Forecast, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let change = fleet_change(api, &cluster, question)?;
    let name = request.service.clone().unwrap_or_default();
    let mut decide = update_service::decision(api, request)?;
    let (mut changed, mut begun): (Option<Service>, Vec<Arc<ServiceDeployment>>) = (None, Vec::new());
    {
        let state = api.store.state();
        let mut transaction = Transaction::new();
        decide(&state, &mut transaction)?;
        for one in transaction.changes {
            match one {
                Change::Put(Record::Service(service)) => changed = Some((*service).clone()),
                Change::Put(Record::ServiceDeployment(record)) => begun.push(record),
                _ => {}
            }
        }
        if changed.is_none() {
            changed = Some((*find_active(api, &state, &cluster, &name)?.value).clone());
        }
    }
    let service = changed.ok_or_else(Failure::service_not_found)?;
    if service.controller != DeploymentController::Ecs {
        return Err(Failure::unsupported(
            "The deployments of a service with an EXTERNAL deployment controller are not Berth's to plan: service",
        ));
    }
    let current = service.primary().and_then(|primary| primary.service_deployment);
    let begun = begun.iter().find(|record| Some(record.id) == current);
    Ok(api.control.plan_service(&service, begun.map(|record| &**record), &change))
}

fn fleet_change(api: &Api, cluster: &ClusterName, question: &Question) -> Result<FleetChange, Failure> {
    let state = api.store.state();
    let added = question.add_instances.iter().fold(0_u32, |sum, added| sum.saturating_add(added.count));
    if added > MOST_ADDED {
        return Err(Failure::invalid(format!("At most {MOST_ADDED} container instances can be added: addInstances")));
    }
    if question.remove_instances.len() > MOST_REMOVED {
        return Err(Failure::invalid(format!("At most {MOST_REMOVED} container instances can be removed: removeInstances")));
    }
    let mut change = FleetChange::default();
    for one in &question.add_instances {
        let like = match &one.like {
            Some(text) => find(api, &state, cluster, text, "addInstances")?,
            None => newest(&state, cluster)
                .ok_or_else(|| Failure::invalid("The cluster has no container instance that those to add could be like: addInstances"))?,
        };
        change.add.push((one.count, like));
    }
    for text in &question.remove_instances {
        change.remove.push(find(api, &state, cluster, text, "removeInstances")?);
    }
    Ok(change)
}

fn newest(state: &State, cluster: &ClusterName) -> Option<ContainerInstanceId> {
    let active = state.instances_of(cluster).filter(|instance| instance.status == ContainerInstanceStatus::Active);
    active.max_by_key(|instance| (instance.registered_at, instance.id)).map(|instance| instance.id)
}

/// An instance of the cluster by its ARN, its id, or the beginning of that.
fn find(api: &Api, state: &State, cluster: &ClusterName, text: &str, member: &str) -> Result<ContainerInstanceId, Failure> {
    let shown: String = text.chars().take(256).collect();
    let there = |id: &ContainerInstanceId| {
        state.instance(*id).is_some_and(|instance| instance.cluster == *cluster && instance.status != ContainerInstanceStatus::Inactive)
    };
    if let Some(id) = parse_container_instance(api.scope(), cluster, text).ok().filter(|id| there(id)) {
        return Ok(id);
    }
    let start = text.to_ascii_lowercase();
    let is_start = start.len() >= SHORTEST && start.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ids = state.instances_of(cluster).map(|instance| instance.id).filter(there);
    let mut found = ids.filter(|id| is_start && id.to_string().starts_with(&start));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(Failure::invalid(format!("'{shown}' is the beginning of more than one container instance: {member}"))),
        (None, _) => Err(Failure::invalid(format!("There is no container instance '{shown}' in the cluster: {member}"))),
    }
}
