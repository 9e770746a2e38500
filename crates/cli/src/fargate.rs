//! `berth fargate`: the machines that offer Fargate capacity, for whoever runs them. It must use no call but `POST /fargate`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::command::Output;
use crate::connection::DataDirArgument;
use crate::console::{Console, Style, one_line};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::ps::table::{self, Cell};

const HEADINGS: [&str; 6] = ["MACHINE", "STATUS", "FREE CPU", "FREE MEMORY", "TASKS", "ALSO"];

/// Look after the machines behind Fargate.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  berth fargate list\n  berth fargate interrupt TASK\n  berth fargate drain MACHINE")]
pub struct Fargate {
    /// What to do
    #[command(subcommand)]
    action: FargateAction,
}

/// What can be done about them.
#[derive(Debug, clap::Subcommand)]
pub enum FargateAction {
    /// List the machines that offer Fargate capacity, with what is free on them
    List(FargateList),
    /// Take a FARGATE_SPOT task's capacity away, as AWS does with two minutes' warning
    ///
    /// Its containers get SIGTERM at once and are killed after their stopTimeout, which is at most two minutes. The task's stopCode is
    /// SpotInterruption; its service starts another one.
    Interrupt(FargateInterrupt),
    /// Place nothing on a machine any more, and have services move their tasks away
    ///
    /// Tasks of no service stay until they end. A machine that is a container instance as well drains as such, too.
    Drain(FargateMachine),
    /// Place tasks on a machine again that was drained
    Activate(FargateMachine),
}

/// List the machines that offer Fargate capacity.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth fargate list\n  berth fargate list --output json | jq '.machines[] | select(.freeMemory > 8192).machine'"
)]
pub struct FargateList {
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// Take a FARGATE_SPOT task's capacity away.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth fargate interrupt 0123456789abcdef0123456789abcdef\n  berth fargate interrupt arn:aws:ecs:us-east-1:000000000000:task/default/0123456789abcdef0123456789abcdef --output json"
)]
pub struct FargateInterrupt {
    /// Its ARN or id
    #[arg(value_name = "TASK")]
    task: String,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// Drain a machine, or take it into use again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth fargate drain 0123456789abcdef0123456789abcdef\n  berth fargate activate 0123456789abcdef0123456789abcdef --output json"
)]
pub struct FargateMachine {
    /// Its id, as `berth fargate list` shows it
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// A machine as the server has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    machine: String,
    container_instance_of: Option<String>,
    status: String,
    agent_connected: bool,
    cpu: u32,
    memory: u32,
    free_cpu: u32,
    free_memory: u32,
    fargate_tasks: u32,
    other_tasks: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct All {
    machines: Vec<Machine>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Interrupted {
    task: String,
    stopped_reason: String,
}

impl Fargate {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        match &self.action {
            FargateAction::List(list) => list.run(environment, console).await,
            FargateAction::Interrupt(interrupt) => interrupt.run(environment, console).await,
            FargateAction::Drain(machine) => machine.run("drain", environment, console).await,
            FargateAction::Activate(machine) => machine.run("activate", environment, console).await,
        }
    }
}

impl FargateList {
    async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let all: All = Client::find(&self.data_dir, environment)?.ask("/fargate", &json!({"list": {}})).await?;
        if self.output == Output::Json {
            return Ok(console.json(&all)?);
        }
        if all.machines.is_empty() {
            console.out.write_all(b"No machine offers Fargate capacity; `berth agent --fargate` on one of them does.\n")?;
            return Ok(());
        }
        let rows: Vec<_> = all.machines.iter().map(row).collect();
        console.out.write_all(table::render(&HEADINGS, &rows, console.colours).as_bytes())?;
        Ok(())
    }
}

impl FargateInterrupt {
    fn question(&self) -> Value {
        json!({"interrupt": {"task": self.task}})
    }

    async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let said: Interrupted = Client::find(&self.data_dir, environment)?.ask("/fargate", &self.question()).await?;
        if self.output == Output::Json {
            return Ok(console.json(&said)?);
        }
        let text = format!("{} is interrupted: {}\n", console.colours.paint(Style::Bold, &one_line(&said.task)), said.stopped_reason);
        console.out.write_all(text.as_bytes())?;
        Ok(())
    }
}

impl FargateMachine {
    async fn run(&self, verb: &str, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let question = json!({verb: {"machine": self.machine}});
        let said: Machine = Client::find(&self.data_dir, environment)?.ask("/fargate", &question).await?;
        if self.output == Output::Json {
            return Ok(console.json(&said)?);
        }
        let state = console.colours.paint(style(&said), &said.status);
        let left = said.fargate_tasks + said.other_tasks;
        let text = format!("{} is {state}; tasks on it: {left}\n", console.colours.paint(Style::Bold, &one_line(&said.machine)));
        console.out.write_all(text.as_bytes())?;
        Ok(())
    }
}

fn row(machine: &Machine) -> [Cell; 6] {
    let status = if machine.agent_connected { machine.status.clone() } else { format!("{}, AWAY", machine.status) };
    let also = match (&machine.container_instance_of, machine.other_tasks) {
        (None, _) => String::new(),
        (Some(cluster), 0) => format!("a container instance of {}", one_line(cluster)),
        (Some(cluster), tasks) => format!("a container instance of {}, with tasks: {tasks}", one_line(cluster)),
    };
    [
        Cell::plain(one_line(&machine.machine)),
        Cell::styled(style(machine), status),
        Cell::plain(format!("{} of {}", machine.free_cpu, machine.cpu)),
        Cell::plain(format!("{} of {} MiB", machine.free_memory, machine.memory)),
        Cell::plain(machine.fargate_tasks.to_string()),
        Cell::plain(also),
    ]
}

fn style(machine: &Machine) -> Style {
    match machine.status.as_str() {
        "ACTIVE" if machine.agent_connected => Style::Good,
        "ACTIVE" => Style::Bad,
        _ => Style::Dim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Colours;

    #[test]
    fn what_is_shown() {
        let machine = |own: Value, is_connected: bool| -> Machine {
            serde_json::from_value(json!({
                "machine": "0a", "containerInstanceOf": own, "status": "ACTIVE", "agentConnected": is_connected, "cpu": 2048, "memory": 4096,
                "freeCpu": 1792, "freeMemory": 3584, "fargateTasks": 1, "otherTasks": 0,
            }))
            .unwrap()
        };
        let rows = [row(&machine(Value::Null, true)), row(&machine("default".into(), false))];
        let shown = table::render(&HEADINGS, &rows, Colours::Off);
        let expected = "MACHINE  STATUS        FREE CPU      FREE MEMORY       TASKS  ALSO\n\
                        0a       ACTIVE        1792 of 2048  3584 of 4096 MiB  1\n\
                        0a       ACTIVE, AWAY  1792 of 2048  3584 of 4096 MiB  1      a container instance of default\n";
        assert_eq!(shown, expected);
    }
}
