//! `DescribeTasks`: up to a hundred; unknown ones become `failures[]`.

use berth_model::arn::parse_task;
use berth_shapes::ecs::DescribeTasksRequest;

use super::render;
use super::task_list::TaskList;
use crate::answer::{Written, unwritable};
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DescribeTasksRequest) -> Result<Written, Failure> {
    let cluster = api.cluster_name(request.cluster.as_deref())?;
    let named = request.tasks.unwrap_or_default();
    let state = api.store.state();
    active(&state, &cluster)?;
    if named.is_empty() {
        return Err(Failure::invalid("Tasks cannot be empty."));
    }
    if named.len() > 100 {
        return Err(Failure::invalid("tasks can have at most 100 items."));
    }
    let with_tags = request.include.iter().flatten().any(|part| part.as_str() == "TAGS");
    let mut tasks = TaskList::begin(&state, api.scope(), &cluster, with_tags, named.len());
    let mut failures = Vec::new();
    for text in &named {
        let id = parse_task(api.scope(), &cluster, text)?;
        match state.task(id).filter(|task| task.cluster == cluster) {
            Some(entry) => tasks.push(entry).map_err(|error| unwritable(&error))?,
            None => failures.push(render::missing(api.scope().task(&cluster, id))),
        }
    }
    tasks.end(&failures).map(Written).map_err(|error| unwritable(&error))
}
