//! From what a user typed to tasks: an id, the beginning of one, an ARN, or the name of a service.

use berth_shapes::ecs;

use crate::client::{Client, ClientError};
use crate::tasks::{self, name_of, short_id, without_arn};

/// How many of the tasks that fit are named in an error.
const NAMED: usize = 5;

/// Why no task can be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("there is no task or service '{wanted}' in {place}")]
    Unknown { wanted: String, place: String },
    #[error("'{wanted}' is the beginning of more than one task's id: {ids}")]
    Ambiguous { wanted: String, ids: String },
    #[error("'{wanted}' is a service in more than one cluster: {clusters}")]
    ManyClusters { wanted: String, clusters: String },
    #[error("tasks of more than one cluster write to the log group '{group}': {clusters}")]
    ManyGroups { group: String, clusters: String },
    #[error("no task of the last hour has a container with the log driver awslogs, the group {0}")]
    NoWriter(String),
    #[error("the service '{0}' has had no tasks within the last hour")]
    NoTasks(String),
}

/// Tasks of one cluster.
#[derive(Debug)]
pub(super) struct Found {
    pub cluster: String,
    pub tasks: Vec<ecs::Task>,
}

/// Finds the tasks that `wanted` means, in one cluster or in all. A service's name is stronger than the beginning of an id.
pub(super) async fn find(client: &Client, wanted: &str, cluster: Option<&str>) -> Result<Found, FindError> {
    let (wanted, of_arn) = without_arn(wanted);
    let cluster = cluster.or(of_arn);
    let clusters = tasks::clusters(client, cluster).await?;
    if is_whole_id(wanted) {
        for cluster in &clusters {
            let found = tasks::describe(client, cluster, &[wanted.to_owned()]).await?;
            if !found.is_empty() {
                return Ok(Found { cluster: cluster.clone(), tasks: found });
            }
        }
    } else if let Some(found) = by_service(client, wanted, &clusters).await? {
        return Ok(found);
    } else if let Some(found) = by_prefix(client, wanted, &clusters).await? {
        return Ok(found);
    }
    let place = cluster.map_or_else(|| "any cluster".to_owned(), |cluster| format!("cluster {}", name_of(cluster)));
    Err(FindError::Unknown { wanted: wanted.to_owned(), place })
}

fn is_whole_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

async fn by_service(client: &Client, service: &str, clusters: &[String]) -> Result<Option<Found>, FindError> {
    let mut found: Vec<(&String, Vec<String>)> = Vec::new();
    for cluster in clusters {
        match tasks::list(client, cluster, ecs::DesiredStatus::Running, Some(service)).await {
            Ok(running) => found.push((cluster, running)),
            Err(error) if matches!(error.code(), Some("ServiceNotFoundException" | "InvalidParameterException")) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if found.len() > 1 {
        let clusters = found.iter().map(|(cluster, _)| name_of(cluster)).collect::<Vec<_>>().join(", ");
        return Err(FindError::ManyClusters { wanted: service.to_owned(), clusters });
    }
    let Some((cluster, running)) = found.pop() else { return Ok(None) };
    let running = tasks::describe(client, cluster, &running).await?;
    let mut chosen = of_newest_deployment(running);
    // Where none has got as far as running a container, the last one that ended has the story.
    if !chosen.iter().any(has_run) {
        let stopped = tasks::list(client, cluster, ecs::DesiredStatus::Stopped, Some(service)).await?;
        let stopped = tasks::describe(client, cluster, &stopped).await?;
        let newest = |tasks: Vec<ecs::Task>| tasks.into_iter().max_by_key(created);
        let (with_output, without): (Vec<_>, Vec<_>) = stopped.into_iter().partition(has_run);
        chosen.extend(newest(with_output).or_else(|| newest(without)));
    }
    if chosen.is_empty() {
        return Err(FindError::NoTasks(service.to_owned()));
    }
    Ok(Some(Found { cluster: cluster.clone(), tasks: chosen }))
}

/// A task of a service carries its deployment's id in `startedBy`.
fn of_newest_deployment(mut tasks: Vec<ecs::Task>) -> Vec<ecs::Task> {
    let newest = tasks.iter().max_by_key(|task| created(task)).and_then(|task| task.started_by.clone());
    tasks.retain(|task| task.started_by == newest);
    tasks
}

fn created(task: &ecs::Task) -> i64 {
    task.created_at.map_or(0, |at| at.as_millis())
}

fn has_run(task: &ecs::Task) -> bool {
    task.containers.iter().flatten().any(|container| container.runtime_id.is_some())
}

async fn by_prefix(client: &Client, prefix: &str, clusters: &[String]) -> Result<Option<Found>, FindError> {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut fits: Vec<(&String, String)> = Vec::new();
    for cluster in clusters {
        for desired in [ecs::DesiredStatus::Running, ecs::DesiredStatus::Stopped] {
            let arns = tasks::list(client, cluster, desired, None).await?;
            fits.extend(arns.into_iter().filter(|arn| name_of(arn).starts_with(&prefix)).map(|arn| (cluster, arn)));
        }
    }
    // A task that stops between the two lists is on both.
    fits.sort_unstable();
    fits.dedup();
    match fits.as_slice() {
        [] => Ok(None),
        [(cluster, arn)] => {
            let tasks = tasks::describe(client, cluster, std::slice::from_ref(arn)).await?;
            Ok((!tasks.is_empty()).then(|| Found { cluster: (*cluster).clone(), tasks }))
        }
        many => {
            let mut ids: Vec<&str> = many.iter().take(NAMED).map(|(_, arn)| short_id(arn)).collect();
            if many.len() > NAMED {
                ids.push("...");
            }
            Err(FindError::Ambiguous { wanted: prefix, ids: ids.join(", ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_of_both_ages() {
        let cases = [
            ("arn:aws:ecs:us-east-1:000000000000:task/blue/0123", ("0123", Some("blue"))),
            ("arn:aws:ecs:us-east-1:000000000000:service/blue/web", ("web", Some("blue"))),
            ("arn:aws:ecs:us-east-1:000000000000:task/0123", ("0123", None)),
            ("arn:aws:ecs", ("arn:aws:ecs", None)),
            ("web", ("web", None)),
        ];
        for (text, expected) in cases {
            assert_eq!(without_arn(text), expected, "{text}");
        }
    }

    #[test]
    fn only_the_newest_deployments_tasks() {
        let task = |by: &str, at: i64| ecs::Task {
            started_by: Some(by.into()),
            created_at: Some(berth_shapes::Timestamp::from_millis(at)),
            ..Default::default()
        };
        let left = of_newest_deployment(vec![task("ecs-svc/1", 5), task("ecs-svc/2", 9), task("ecs-svc/1", 6), task("ecs-svc/2", 7)]);
        assert_eq!(left.iter().map(created).collect::<Vec<_>>(), [9, 7]);
        assert!(of_newest_deployment(Vec::new()).is_empty());
    }
}
