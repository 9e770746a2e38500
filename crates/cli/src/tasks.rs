//! Reading clusters and tasks from the API, page by page. It must never decide what of them is shown.

use berth_shapes::ecs;

use crate::client::{Client, ClientError};

/// ECS's largest page of ListTasks, and the most tasks that DescribeTasks takes.
const PAGE: usize = 100;
/// Ten million tasks: a server that has still more pages then is going round in circles.
const MAX_PAGES: usize = 100_000;

/// The clusters to look at: the one that was named, or all.
pub(crate) async fn clusters(client: &Client, named: Option<&str>) -> Result<Vec<String>, ClientError> {
    if let Some(cluster) = named {
        return Ok(vec![cluster.to_owned()]);
    }
    let mut arns = Vec::new();
    let mut request = ecs::ListClustersRequest { max_results: Some(PAGE as i32), ..Default::default() };
    for _ in 0..MAX_PAGES {
        let page: ecs::ListClustersResponse = client.call("ListClusters", &request).await?;
        arns.extend(page.cluster_arns.unwrap_or_default());
        request.next_token = page.next_token;
        if request.next_token.is_none() {
            break;
        }
    }
    Ok(arns)
}

/// The ARNs of a cluster's tasks with a desired status, of one service or of all.
pub(crate) async fn list(
    client: &Client,
    cluster: &str,
    desired: ecs::DesiredStatus,
    service: Option<&str>,
) -> Result<Vec<String>, ClientError> {
    let mut arns = Vec::new();
    let mut request = ecs::ListTasksRequest {
        cluster: Some(cluster.to_owned()),
        desired_status: Some(desired),
        service_name: service.map(str::to_owned),
        max_results: Some(PAGE as i32),
        ..Default::default()
    };
    for _ in 0..MAX_PAGES {
        let page: ecs::ListTasksResponse = client.call("ListTasks", &request).await?;
        arns.extend(page.task_arns.unwrap_or_default());
        request.next_token = page.next_token;
        if request.next_token.is_none() {
            break;
        }
    }
    Ok(arns)
}

/// The tasks of these ids or ARNs in a cluster; those that are gone are left out.
pub(crate) async fn describe(client: &Client, cluster: &str, tasks: &[String]) -> Result<Vec<ecs::Task>, ClientError> {
    let mut described = Vec::with_capacity(tasks.len());
    for page in tasks.chunks(PAGE) {
        let request = ecs::DescribeTasksRequest { cluster: Some(cluster.to_owned()), tasks: Some(page.to_vec()), ..Default::default() };
        let answer: ecs::DescribeTasksResponse = client.call("DescribeTasks", &request).await?;
        described.extend(answer.tasks.unwrap_or_default());
    }
    Ok(described)
}

/// The name in an ARN of a task or service, and its cluster where the ARN has one (those from before 2018 have none).
pub(crate) fn without_arn(text: &str) -> (&str, Option<&str>) {
    let Some(resource) = text.strip_prefix("arn:").and_then(|rest| rest.splitn(5, ':').nth(4)) else { return (text, None) };
    let mut parts = resource.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some(cluster), Some(name)) => (name, Some(cluster)),
        (Some(name), None) => (name, None),
        _ => (text, None),
    }
}

/// The last part of an ARN.
pub(crate) fn name_of(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

/// How much of a task's id people get to see: enough to tell tasks apart, and to name one by.
pub(crate) fn short_id(arn: &str) -> &str {
    let id = name_of(arn);
    id.get(..12).unwrap_or(id)
}

/// The service a task belongs to.
pub(crate) fn service_of(task: &ecs::Task) -> Option<&str> {
    task.group.as_deref()?.strip_prefix("service:")
}

/// Whether a task has come to its end.
pub(crate) fn is_stopped(task: &ecs::Task) -> bool {
    matches!(task.last_status.as_deref(), Some("STOPPED" | "DELETED"))
}
