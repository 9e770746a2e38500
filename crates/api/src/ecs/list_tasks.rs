//! `ListTasks`: ARNs by filters, in the order of task ids.

use std::collections::BTreeSet;
use std::ops::Bound;

use berth_model::arn::{parse_container_instance, parse_service};
use berth_model::ids::{DaemonName, Family, TaskId};
use berth_model::task::DesiredStatus;
use berth_shapes::ecs::{ListTasksRequest, ListTasksResponse};
use berth_store::Starter;

use super::render::started_by;
use crate::context::{Api, active};
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListTasksRequest) -> Result<ListTasksResponse, Failure> {
    let cluster = api.cluster_name(request.cluster.as_deref())?;
    let page = Page::parse("ListTasks", request.next_token.as_deref(), request.max_results, 100)?;
    let desired = request.desired_status.as_ref().map_or("RUNNING", |status| status.as_str());
    let desired = match desired {
        // ECS accepts PENDING and never finds any: no task has it as its desired status.
        "PENDING" => None,
        word => Some(DesiredStatus::parse(word).ok_or_else(|| Failure::invalid(format!("Invalid desiredStatus: {word}")))?),
    };
    let filters =
        [request.container_instance.is_some(), request.family.is_some(), request.service_name.is_some(), request.daemon_name.is_some()];
    if request.started_by.is_some() && filters.contains(&true) {
        return Err(Failure::invalid("startedBy cannot be combined with other filters."));
    }
    if request.daemon_name.as_deref().is_some_and(|name| DaemonName::parse(name).is_none()) {
        return Err(Failure::invalid("Invalid identifier: daemonName"));
    }
    let state = api.store.state();
    active(&state, &cluster)?;
    let instance = match &request.container_instance {
        None => None,
        Some(text) => Some(parse_container_instance(api.scope(), &cluster, text)?),
    };
    let service = match &request.service_name {
        None => None,
        Some(text) => {
            let name = parse_service(api.scope(), &cluster, text)?;
            if state.service(&cluster, &name).is_none() && state.express_service(&cluster, &name).is_none() {
                return Err(Failure::service_not_found());
            }
            Some(name)
        }
    };
    // Daemons have no tasks: there are no Managed Instances for them to run on.
    let Some(index) = state.index(&cluster).filter(|_| request.daemon_name.is_none()) else {
        return Ok(ListTasksResponse { task_arns: Some(Vec::new()), next_token: None });
    };
    let nothing = BTreeSet::new();
    let by_desired = match desired {
        Some(DesiredStatus::Running) => &index.desired_running,
        Some(DesiredStatus::Stopped) => &index.desired_stopped,
        None => &nothing,
    };
    let filtered = [
        service.as_ref().map(|service| index.by_service.get(service)),
        instance.map(|instance| index.by_instance.get(&instance)),
        request.family.as_deref().map(|family| index.by_family.get(&Family(family.into()))),
        request.started_by.as_deref().map(|by| index.by_starter.get(&Starter::parse(by))),
    ];
    // The least of all sets that hold what is wanted; the rest filters.
    let sets = filtered.into_iter().flatten().map(|set| set.unwrap_or(&nothing)).chain([by_desired]);
    let ids = sets.min_by_key(|set| set.len()).unwrap_or(&nothing);
    let after = page.after().and_then(|id| id.parse::<TaskId>().ok()).map_or(Bound::Unbounded, Bound::Excluded);
    let ids = ids.range((after, Bound::Unbounded));
    let launch_type = request.launch_type.as_ref().map(|launch_type| launch_type.as_str());
    let matches = |id: &TaskId| {
        state.task(*id).is_some_and(|task| {
            Some(task.desired_status) == desired
                && instance.is_none_or(|instance| task.container_instance == instance)
                && request.family.as_deref().is_none_or(|family| task.definition.family.as_str() == family)
                && launch_type.is_none_or(|launch_type| task.launch_type.as_str() == launch_type)
                && service.as_ref().is_none_or(|service| task.service.as_ref().is_some_and(|membership| membership.service == *service))
                && request.started_by.as_ref().is_none_or(|by| started_by(&task.value).as_ref() == Some(by))
        })
    };
    let (ids, next_token) = page.take("ListTasks", ids.copied().filter(matches), ToString::to_string, false);
    Ok(ListTasksResponse { task_arns: Some(ids.iter().map(|id| api.scope().task(&cluster, *id)).collect()), next_token })
}
