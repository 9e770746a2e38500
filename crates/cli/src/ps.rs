//! `berth ps`: the tasks of one cluster or all.

use std::time::SystemTime;

use berth_shapes::ecs;
use serde_json::json;

use crate::client::Client;
use crate::connection::DataDirArgument;
use crate::console::Console;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::tasks;

pub(crate) mod age;
mod row;
pub(crate) mod table;

/// List tasks.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  berth ps\n  berth ps --all --cluster default\n  berth ps --output json | jq '.tasks[].taskArn'")]
pub struct Ps {
    /// Only this cluster (name or ARN); all of them otherwise
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Stopped tasks too
    #[arg(long, short)]
    all: bool,
    /// How to print; JSON has the tasks as DescribeTasks gives them
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: PsOutput,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// How tasks are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PsOutput {
    /// A line a task.
    #[default]
    Table,
    /// `{"tasks": [...]}` with ECS's own members.
    Json,
}

impl Ps {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let mut tasks = self.tasks(&Client::find(&self.data_dir, environment)?).await?;
        tasks.sort_by_cached_key(order);
        if self.output == PsOutput::Json {
            return Ok(console.json(&json!({ "tasks": tasks }))?);
        }
        if tasks.is_empty() {
            let what = if self.all { "tasks" } else { "running tasks" };
            let hint = if self.all { "" } else { "; --all shows stopped ones" };
            writeln!(console.err, "no {what}{hint}")?;
            return Ok(());
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let rows: Vec<_> = tasks.iter().map(|task| row::of(task, i64::try_from(now).unwrap_or(i64::MAX))).collect();
        console.out.write_all(table::render(&row::HEADINGS, &rows, console.colours).as_bytes())?;
        Ok(())
    }

    async fn tasks(&self, client: &Client) -> Result<Vec<ecs::Task>, Failure> {
        let mut found = Vec::new();
        for cluster in tasks::clusters(client, self.cluster.as_deref()).await? {
            let mut arns = tasks::list(client, &cluster, ecs::DesiredStatus::Running, None).await?;
            if self.all {
                arns.extend(tasks::list(client, &cluster, ecs::DesiredStatus::Stopped, None).await?);
            }
            // A task that stops between the two lists is on both.
            arns.sort_unstable();
            arns.dedup();
            found.extend(tasks::describe(client, &cluster, &arns).await?);
        }
        Ok(found)
    }
}

/// Clusters and services together, the newest task of each first.
fn order(task: &ecs::Task) -> (Option<String>, Option<String>, i64, Option<String>) {
    let created = task.created_at.map_or(0, |at| at.as_millis());
    (task.cluster_arn.clone(), task.group.clone(), -created, task.task_arn.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answer, FakeServer, Written};
    use serde_json::Value;
    use std::sync::{Arc, Mutex};

    const PREFIX: &str = "arn:aws:ecs:us-east-1:000000000000";

    /// 150 running tasks in `blue` on two pages, one stopped task in `green`.
    fn answer(operation: &str, request: &Value) -> Answer {
        let running = |number: u32| format!("{PREFIX}:task/blue/{number:032x}");
        let cluster = request["cluster"].as_str().unwrap_or_default().to_owned();
        Ok(match operation {
            "ListClusters" if request.get("nextToken").is_none() => {
                json!({ "clusterArns": [format!("{PREFIX}:cluster/blue")], "nextToken": "c" })
            }
            "ListClusters" => json!({ "clusterArns": [format!("{PREFIX}:cluster/green")] }),
            "ListTasks" if cluster.ends_with("missing") => {
                return Err((400, json!({ "__type": "ClusterNotFoundException", "message": "Cluster not found." })));
            }
            "ListTasks" => match (cluster.ends_with("/blue"), request["desiredStatus"] == "RUNNING", request.get("nextToken").is_some()) {
                (true, true, false) => json!({ "taskArns": (0..100).map(running).collect::<Vec<_>>(), "nextToken": "t" }),
                (true, true, true) => json!({ "taskArns": (100..150).map(running).collect::<Vec<_>>() }),
                (false, false, _) => json!({ "taskArns": [format!("{PREFIX}:task/green/{:032x}", 7)] }),
                _ => json!({ "taskArns": [] }),
            },
            "DescribeTasks" => {
                let tasks = request["tasks"].as_array().unwrap();
                assert!((1..=100).contains(&tasks.len()));
                let task = |arn: &Value| json!({ "taskArn": arn, "clusterArn": cluster, "group": "service:web", "lastStatus": "RUNNING", "desiredStatus": "RUNNING" });
                json!({ "tasks": tasks.iter().map(task).collect::<Vec<_>>() })
            }
            other => panic!("{other}"),
        })
    }

    async fn ps(all: bool, cluster: Option<&str>, output: PsOutput) -> (Result<(), Failure>, Written, Vec<String>) {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        let server = FakeServer::start(move |operation, request| {
            seen.lock().unwrap().push(operation.to_owned());
            answer(operation, &request)
        })
        .await;
        let environment: Environment =
            [("AWS_ENDPOINT_URL", server.url.as_str()), ("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "secret")]
                .into_iter()
                .collect();
        let ps = Ps { cluster: cluster.map(str::to_owned), all, output, data_dir: DataDirArgument::default() };
        let mut written = Written::default();
        let outcome = ps.run(&environment, &mut written.console()).await;
        let calls = calls.lock().unwrap().clone();
        (outcome, written, calls)
    }

    #[tokio::test]
    async fn all_pages_of_all_clusters() {
        let (outcome, written, calls) = ps(true, None, PsOutput::Json).await;
        outcome.unwrap();
        let shown: Value = serde_json::from_str(written.out()).unwrap();
        assert_eq!(shown["tasks"].as_array().unwrap().len(), 151);
        let count = |name: &str| calls.iter().filter(|call| *call == name).count();
        assert_eq!((count("ListClusters"), count("ListTasks"), count("DescribeTasks")), (2, 5, 3));
    }

    #[tokio::test]
    async fn the_table_has_a_line_a_task() {
        let (outcome, written, _) = ps(false, None, PsOutput::Table).await;
        outcome.unwrap();
        assert_eq!(written.out().lines().count(), 151);
        assert!(written.out().starts_with("TASK          SERVICE  "), "{}", written.out());
    }

    #[tokio::test]
    async fn no_tasks() {
        let (outcome, written, _) = ps(false, Some("quiet"), PsOutput::Table).await;
        outcome.unwrap();
        assert_eq!((written.out(), written.err()), ("", "no running tasks; --all shows stopped ones\n"));
        let (outcome, written, _) = ps(false, Some("quiet"), PsOutput::Json).await;
        outcome.unwrap();
        assert_eq!(written.out(), "{\"tasks\":[]}\n");
    }

    #[tokio::test]
    async fn an_unknown_cluster_says_how_to_find_the_right_one() {
        let (outcome, _, _) = ps(false, Some("missing"), PsOutput::Table).await;
        let text = outcome.unwrap_err().render().unwrap();
        assert_eq!(
            text,
            "error: ListTasks failed: Cluster not found. (ClusterNotFoundException)\n  see which there are with `aws ecs list-clusters`\n"
        );
    }
}
