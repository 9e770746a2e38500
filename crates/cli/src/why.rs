//! `berth why`: the reasons why a task, a service or a container instance is as it is, as the server's own plans give them, with the last
//! lines of a container that died where they are on this machine. It must never guess: what the server does not say is not said.

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::command::Output;
use crate::connection::DataDirArgument;
use crate::console::{Console, Style};
use crate::data_dir::containers_folder;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::logs::last_lines;
use crate::reason::Reason;

/// How many of a container's last lines are shown.
const LAST_LINES: usize = 10;

/// Say why something is as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth why web\n  berth why 3f1c\n  berth why arn:aws:ecs:us-east-1:000000000000:container-instance/default/8a2e...\n  berth why web --output json | jq -r '.reasons[].text'"
)]
pub struct Why {
    /// A service's name, the id of a task or container instance or its beginning (4 characters at least), or an ARN
    #[arg(value_name = "WHAT")]
    what: String,
    /// Only in this cluster (name or ARN); all of them are searched otherwise
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

#[derive(Debug, Serialize)]
struct Question<'a> {
    of: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
}

/// What the server answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    kind: String,
    arn: String,
    summary: String,
    reasons: Vec<Reason>,
    containers: Vec<LastWords>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LastWords {
    task_arn: String,
    name: String,
    runtime_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// Read here, where the container ran on this machine and is still there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    last_lines: Vec<String>,
}

impl Why {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let question = Question { of: &self.what, cluster: self.cluster.as_deref() };
        let mut answer: Answer = Client::find(&self.data_dir, environment)?.ask("/why", &question).await?;
        let containers = containers_folder(&self.data_dir.path(environment)?);
        for container in &mut answer.containers {
            // Output that is elsewhere, or gone, is no error: the reasons stand without it.
            container.last_lines = last_lines(&containers, &container.runtime_id, LAST_LINES).unwrap_or_default();
        }
        if self.output == Output::Json {
            return Ok(console.json(&answer)?);
        }
        console.out.write_all(render(&answer, console).as_bytes())?;
        Ok(())
    }
}

fn render(answer: &Answer, console: &Console<'_>) -> String {
    let colours = console.colours;
    let name = answer.arn.rsplit('/').next().unwrap_or(&answer.arn);
    let mut text = format!("{}: {}\n", colours.paint(Style::Bold, name), answer.summary);
    for reason in &answer.reasons {
        text.push_str(&reason.render(colours));
    }
    for container in answer.containers.iter().filter(|container| !container.last_lines.is_empty()) {
        let task = container.task_arn.rsplit('/').next().unwrap_or_default();
        let heading = format!("last lines of container {} of task {}:", container.name, task.get(..8).unwrap_or(task));
        text.push_str(&format!("{}\n", colours.paint(Style::Dim, &heading)));
        container.last_lines.iter().for_each(|line| text.push_str(&format!("  | {line}\n")));
    }
    text
}
