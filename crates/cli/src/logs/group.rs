//! From a log group to the containers that write to it: what their task definitions name as `awslogs-group` and
//! `awslogs-stream-prefix`. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html>

use std::collections::HashMap;

use berth_shapes::ecs;

use super::find::{FindError, Found};
use crate::client::{Client, ClientError};
use crate::tasks::{self, name_of};

/// A container of a task, by the task's ARN and its own name.
pub(super) type Writer = (String, String);

/// The tasks of which containers write to a group, and these containers: of all streams, or of those whose names begin with `stream`.
pub(super) async fn find(
    client: &Client,
    group: &str,
    stream: Option<&str>,
    cluster: Option<&str>,
) -> Result<(Found, Vec<Writer>), FindError> {
    let mut definitions: HashMap<String, ecs::TaskDefinition> = HashMap::new();
    let mut all: Vec<(String, Vec<ecs::Task>, Vec<Writer>)> = Vec::new();
    for cluster in tasks::clusters(client, cluster).await? {
        let mut arns = Vec::new();
        for desired in [ecs::DesiredStatus::Running, ecs::DesiredStatus::Stopped] {
            arns.extend(tasks::list(client, &cluster, desired, None).await?);
        }
        // A task that stops between the two lists is on both.
        arns.sort_unstable();
        arns.dedup();
        let (mut found, mut writers) = (Vec::new(), Vec::new());
        for task in tasks::describe(client, &cluster, &arns).await? {
            let of_task = match definition(client, &mut definitions, &task).await? {
                Some(definition) => writers_of(definition, &task, group, stream),
                None => Vec::new(),
            };
            if !of_task.is_empty() {
                writers.extend(of_task);
                found.push(task);
            }
        }
        if !found.is_empty() {
            all.push((cluster, found, writers));
        }
    }
    if all.len() > 1 {
        let clusters = all.iter().map(|(cluster, ..)| name_of(cluster)).collect::<Vec<_>>().join(", ");
        return Err(FindError::ManyGroups { group: group.to_owned(), clusters });
    }
    let stream = || stream.map(|stream| format!(" and a stream that begins with '{stream}'")).unwrap_or_default();
    let (cluster, tasks, writers) = all.pop().ok_or_else(|| FindError::NoWriter(format!("'{group}'{}", stream())))?;
    Ok((Found { cluster, tasks }, writers))
}

async fn definition<'a>(
    client: &Client,
    known: &'a mut HashMap<String, ecs::TaskDefinition>,
    task: &ecs::Task,
) -> Result<Option<&'a ecs::TaskDefinition>, ClientError> {
    let Some(arn) = &task.task_definition_arn else { return Ok(None) };
    if !known.contains_key(arn) {
        let request = ecs::DescribeTaskDefinitionRequest { task_definition: Some(arn.clone()), ..Default::default() };
        let answer: ecs::DescribeTaskDefinitionResponse = client.call("DescribeTaskDefinition", &request).await?;
        known.insert(arn.clone(), answer.task_definition.unwrap_or_default());
    }
    Ok(known.get(arn))
}

fn writers_of(definition: &ecs::TaskDefinition, task: &ecs::Task, group: &str, stream: Option<&str>) -> Vec<Writer> {
    let arn = task.task_arn.as_deref().unwrap_or_default();
    let writes = |container: &&ecs::ContainerDefinition| {
        stream_of(container, task, arn, group).is_some_and(|name| stream.is_none_or(|wanted| name.starts_with(wanted)))
    };
    let containers = definition.container_definitions.iter().flatten().filter(writes);
    containers.map(|container| (arn.to_owned(), container.name.clone().unwrap_or_default())).collect()
}

/// The stream that a container writes to, if it writes to this group: `PREFIX/CONTAINER/TASK-ID`, or without a prefix the container's
/// runtime id.
fn stream_of(container: &ecs::ContainerDefinition, task: &ecs::Task, arn: &str, group: &str) -> Option<String> {
    let log =
        container.log_configuration.as_ref().filter(|log| log.log_driver.as_ref().is_some_and(|driver| driver.as_str() == "awslogs"))?;
    let option = |name: &str| log.options.as_ref().and_then(|options| options.get(name)).map(String::as_str);
    if option("awslogs-group") != Some(group) {
        return None;
    }
    let name = container.name.as_deref().unwrap_or_default();
    match option("awslogs-stream-prefix").filter(|prefix| !prefix.is_empty()) {
        Some(prefix) => Some(format!("{prefix}/{name}/{}", name_of(arn))),
        None => {
            let of_task = task.containers.iter().flatten().find(|container| container.name.as_deref() == Some(name));
            Some(of_task.and_then(|container| container.runtime_id.clone()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_where() {
        let definition: ecs::TaskDefinition = serde_json::from_value(serde_json::json!({"containerDefinitions": [
            {"name": "app", "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/ecs/web", "awslogs-stream-prefix": "p"}}},
            {"name": "bare", "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/ecs/web"}}},
            {"name": "other", "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/ecs/other"}}},
            {"name": "file", "logConfiguration": {"logDriver": "json-file", "options": {"awslogs-group": "/ecs/web"}}},
            {"name": "none"},
        ]}))
        .unwrap();
        let arn = "arn:aws:ecs:us-east-1:000000000000:task/default/0123";
        let task: ecs::Task =
            serde_json::from_value(serde_json::json!({"taskArn": arn, "containers": [{"name": "bare", "runtimeId": "0123-1"}]})).unwrap();
        let names =
            |stream: Option<&str>| writers_of(&definition, &task, "/ecs/web", stream).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names(None), ["app", "bare"]);
        assert_eq!(names(Some("p/app/0123")), ["app"]);
        assert_eq!(names(Some("0123-1")), ["bare"]);
        assert!(names(Some("q")).is_empty());
    }
}
