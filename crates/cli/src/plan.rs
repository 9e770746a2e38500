//! `berth plan`: what would come of a RunTask or an UpdateService, as the server's own placement and planner answer it. It must never do it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::command::Output;
use crate::connection::DataDirArgument;
use crate::console::Console;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::reason::Reason;

mod request;
mod show;

use request::{constraint, strategy, values, whole};

/// Say what would come of a request.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth plan run-task --task-definition web --count 20\n  berth plan update-service --service web --desired-count 12 --add-instances 2\n  berth plan update-service --service web --remove 8a2e --output json"
)]
pub struct Plan {
    /// What is planned
    #[command(subcommand)]
    action: PlanAction,
}

/// The actions that can be planned; their options are those of the AWS CLI.
#[derive(Debug, clap::Subcommand)]
pub enum PlanAction {
    /// Where tasks would go, and which would find no place
    RunTask(PlanRunTask),
    /// How a service would come to what it is changed to, step by step and stage by stage; without a change, how it goes on
    UpdateService(PlanUpdateService),
}

#[derive(Debug, clap::Args)]
struct Assumptions {
    /// As if so many container instances more were there, each like the given one (an id, its beginning, an ARN), or like the one that
    /// registered last; again for others
    #[arg(long, value_name = "N[=INSTANCE]", value_parser = added)]
    add_instances: Vec<Added>,
    /// As if this container instance (an id, its beginning, an ARN) were gone with its tasks; again for others
    #[arg(long, value_name = "INSTANCE")]
    remove: Vec<String>,
    /// The request as JSON, or file://PATH of one; the options beside it come before what it says
    #[arg(long, value_name = "JSON")]
    cli_input_json: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// Where tasks would go.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth plan run-task --task-definition web --count 20\n  berth plan run-task --task-definition web:3 --placement-constraints type=memberOf,expression='attribute:stack == prod'\n  berth plan run-task --task-definition web --count 40 --add-instances 2=8a2e --output json | jq .summary"
)]
pub struct PlanRunTask {
    /// The cluster (name or ARN); `default` otherwise
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Family, family:revision, or ARN
    #[arg(long, value_name = "DEFINITION")]
    task_definition: Option<String>,
    /// How many tasks
    #[arg(long, value_name = "N")]
    count: Option<i32>,
    /// Their group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Binding conditions, as JSON or as type=TYPE[,expression=EXPRESSION]
    #[arg(long, value_name = "CONSTRAINT", num_args = 1.., value_parser = constraint)]
    placement_constraints: Vec<Value>,
    /// Preferences in order, as JSON or as type=TYPE[,field=FIELD]
    #[arg(long, value_name = "STRATEGY", num_args = 1.., value_parser = strategy)]
    placement_strategy: Vec<Value>,
    #[command(flatten)]
    assumptions: Assumptions,
}

/// How a service would change.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth plan update-service --service web --task-definition web:4\n  berth plan update-service --service web --desired-count 12 --add-instances 2\n  berth plan update-service --service web --remove 8a2e --output json | jq .fits"
)]
pub struct PlanUpdateService {
    /// The cluster (name or ARN); `default` otherwise
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// The service (name or ARN)
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Family, family:revision, or ARN
    #[arg(long, value_name = "DEFINITION")]
    task_definition: Option<String>,
    /// How many tasks it should have
    #[arg(long, value_name = "N")]
    desired_count: Option<i32>,
    /// A new deployment of what it is set to already
    #[arg(long)]
    force_new_deployment: bool,
    /// Percentage of the desired count that stays healthy during a deployment
    #[arg(long, value_name = "PERCENT")]
    minimum_healthy_percent: Option<i32>,
    /// Percentage of the desired count that there may be during a deployment
    #[arg(long, value_name = "PERCENT")]
    maximum_percent: Option<i32>,
    /// Binding conditions, as JSON or as type=TYPE[,expression=EXPRESSION]
    #[arg(long, value_name = "CONSTRAINT", num_args = 1.., value_parser = constraint)]
    placement_constraints: Vec<Value>,
    /// Preferences in order, as JSON or as type=TYPE[,field=FIELD]
    #[arg(long, value_name = "STRATEGY", num_args = 1.., value_parser = strategy)]
    placement_strategy: Vec<Value>,
    #[command(flatten)]
    assumptions: Assumptions,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Added {
    count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    like: Option<String>,
}

/// Reads `3` or `3=8a2e`.
fn added(text: &str) -> Result<Added, String> {
    let (count, like) = text.split_once('=').map_or((text, None), |(count, like)| (count, Some(like)));
    let count = count.parse().map_err(|_| format!("{count:?} is no number of container instances"))?;
    let like = like.map(|like| like.strip_prefix("like ").unwrap_or(like).trim().to_owned());
    if like.as_deref() == Some("") {
        return Err("no container instance is named behind '='".to_owned());
    }
    Ok(Added { count, like })
}

/// What the server answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    action: String,
    summary: String,
    fits: bool,
    steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stages: Vec<Stage>,
    instances: Vec<Instance>,
    other_instances: usize,
    reasons: Vec<Reason>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    after_seconds: i64,
    start: u32,
    stop: u32,
    tasks: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stage {
    stage: String,
    after_seconds: i64,
    seconds: i64,
    test_traffic_percent: f64,
    production_traffic_percent: f64,
    waits_for: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    availability_zone: Option<String>,
    added: bool,
    removed: bool,
    start: u32,
    stop: u32,
    before: Use,
    after: Use,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Use {
    tasks: u32,
    free_cpu: u32,
    free_memory: u32,
}

impl Plan {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let (assumptions, action, given) = match &self.action {
            PlanAction::RunTask(plan) => (&plan.assumptions, "RunTask", plan.request()),
            PlanAction::UpdateService(plan) => (&plan.assumptions, "UpdateService", plan.request()),
        };
        let mut request = assumptions.cli_input_json.as_deref().map(whole).transpose()?.unwrap_or_default();
        request.extend(given);
        let question = json!({
            "action": action,
            "request": request,
            "addInstances": assumptions.add_instances,
            "removeInstances": assumptions.remove,
        });
        let answer: Answer = Client::find(&assumptions.data_dir, environment)?.ask("/plan", &question).await?;
        if assumptions.output == Output::Json {
            return Ok(console.json(&answer)?);
        }
        console.out.write_all(show::render(&answer, console.colours).as_bytes())?;
        Ok(())
    }
}

impl PlanRunTask {
    fn request(&self) -> Map<String, Value> {
        values([
            ("cluster", json!(self.cluster)),
            ("taskDefinition", json!(self.task_definition)),
            ("count", json!(self.count)),
            ("group", json!(self.group)),
            ("placementConstraints", request::list(&self.placement_constraints)),
            ("placementStrategy", request::list(&self.placement_strategy)),
        ])
    }
}

impl PlanUpdateService {
    fn request(&self) -> Map<String, Value> {
        let percentages =
            values([("minimumHealthyPercent", json!(self.minimum_healthy_percent)), ("maximumPercent", json!(self.maximum_percent))]);
        values([
            ("cluster", json!(self.cluster)),
            ("service", json!(self.service)),
            ("taskDefinition", json!(self.task_definition)),
            ("desiredCount", json!(self.desired_count)),
            ("forceNewDeployment", if self.force_new_deployment { json!(true) } else { Value::Null }),
            ("deploymentConfiguration", if percentages.is_empty() { Value::Null } else { Value::Object(percentages) }),
            ("placementConstraints", request::list(&self.placement_constraints)),
            ("placementStrategy", request::list(&self.placement_strategy)),
        ])
    }
}
