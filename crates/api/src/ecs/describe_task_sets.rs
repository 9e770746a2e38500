//! `DescribeTaskSets`: a service's task sets, all or the named ones; unknown ones become `failures[]`.

use berth_model::arn::parse_task_set;
use berth_shapes::ecs::{DescribeTaskSetsRequest, DescribeTaskSetsResponse};

use super::{render, task_sets};
use crate::context::Api;
use crate::failure::Failure;

/// Most that can be named at once; a service has five at most.
const MOST: usize = 100;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: DescribeTaskSetsRequest) -> Result<DescribeTaskSetsResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let named = request.task_sets.unwrap_or_default();
    if named.len() > MOST {
        return Err(Failure::invalid(format!("taskSets can have at most {MOST} items.")));
    }
    let state = api.store.state();
    let service = task_sets::holder(api, &state, &cluster, request.service.as_deref())?;
    let with_tags = request.include.iter().flatten().any(|part| part.as_str() == "TAGS");
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    if named.is_empty() {
        found.extend(&service.task_sets);
    }
    for text in &named {
        let id = parse_task_set(api.scope(), &cluster, &service.name, text)?;
        match service.task_sets.iter().find(|set| set.id == id) {
            Some(set) => found.push(set),
            None => failures.push(render::missing(api.scope().task_set(&cluster, &service.name, id))),
        }
    }
    let found = found.into_iter().map(|set| task_sets::render(&state, api.scope(), service, set, with_tags)).collect();
    Ok(DescribeTaskSetsResponse { task_sets: Some(found), failures: Some(failures) })
}
