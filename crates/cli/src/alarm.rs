//! `berth alarm`: tells the server what an alarm says, so that deployments which watch it know. It must never measure anything itself.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::command::Output;
use crate::connection::DataDirArgument;
use crate::console::{Console, Style, one_line};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::ps::table::{self, Cell};

const HEADINGS: [&str; 4] = ["ALARM", "STATE", "WINDOW", "REASON"];

/// Say what an alarm says.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  berth alarm set web-p99 ALARM --reason \"p99 is 3.1 s\"")]
pub struct Alarm {
    /// What to do
    #[command(subcommand)]
    action: AlarmAction,
}

/// What can be done about alarms.
#[derive(Debug, clap::Subcommand)]
pub enum AlarmAction {
    /// Say that an alarm is OK, in ALARM, or that nobody knows; one that there is not is made
    ///
    /// A service whose deploymentConfiguration.alarms names it has its deployment ended when the alarm goes into ALARM while the deployment
    /// goes on, and with rollback brought back to what it ran before.
    Set(AlarmSet),
    /// List alarms and what they say
    List(AlarmList),
    /// Forget an alarm
    Delete(AlarmDelete),
}

/// Say what an alarm says.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth alarm set web-p99 OK\n  berth alarm set web-p99 ALARM --reason \"p99 is 3.1 s\"\n  berth alarm set web-p99 OK --window 300 --output json"
)]
pub struct AlarmSet {
    /// Its name, as services name it
    #[arg(value_name = "NAME")]
    name: String,
    /// What it says
    #[arg(value_name = "STATE", value_parser = ["OK", "ALARM", "INSUFFICIENT_DATA"])]
    state: String,
    /// Why, in words
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Seconds that it needs to notice something, 60 where nobody says; deployments bake for so long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    window: Option<u32>,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// List alarms.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth alarm list\n  berth alarm list --output json | jq -r '.alarms[] | select(.state == \"ALARM\").name'"
)]
pub struct AlarmList {
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// Forget an alarm.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  berth alarm delete web-p99")]
pub struct AlarmDelete {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// An alarm as the server has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    name: String,
    state: String,
    reason: String,
    window_seconds: u32,
    updated_at: f64,
    alarmed_at: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct All {
    alarms: Vec<Said>,
}

impl Alarm {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        match &self.action {
            AlarmAction::Set(set) => set.run(environment, console).await,
            AlarmAction::List(list) => list.run(environment, console).await,
            AlarmAction::Delete(delete) => delete.run(environment, console).await,
        }
    }
}

impl AlarmSet {
    fn question(&self) -> Value {
        let mut said = json!({"name": self.name, "state": self.state, "reason": self.reason});
        if let Some(window) = self.window {
            said["windowSeconds"] = window.into();
        }
        json!({"set": said})
    }

    async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let said: Said = Client::find(&self.data_dir, environment)?.ask("/alarms", &self.question()).await?;
        show(&said, self.output, "is", console)
    }
}

impl AlarmList {
    async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let all: All = Client::find(&self.data_dir, environment)?.ask("/alarms", &json!({"list": {}})).await?;
        if self.output == Output::Json {
            return Ok(console.json(&all)?);
        }
        if all.alarms.is_empty() {
            console.out.write_all(b"There are no alarms; `berth alarm set NAME OK` makes one.\n")?;
            return Ok(());
        }
        let rows: Vec<_> = all.alarms.iter().map(row).collect();
        console.out.write_all(table::render(&HEADINGS, &rows, console.colours).as_bytes())?;
        Ok(())
    }
}

impl AlarmDelete {
    async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let said: Said = Client::find(&self.data_dir, environment)?.ask("/alarms", &json!({"delete": {"name": self.name}})).await?;
        show(&said, self.output, "is forgotten; it was", console)
    }
}

fn show(said: &Said, output: Output, verb: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    if output == Output::Json {
        return Ok(console.json(said)?);
    }
    let state = console.colours.paint(style(&said.state), &said.state);
    let text = format!("{} {verb} {state}\n", console.colours.paint(Style::Bold, &one_line(&said.name)));
    console.out.write_all(text.as_bytes())?;
    Ok(())
}

fn row(said: &Said) -> [Cell; 4] {
    [
        Cell::plain(one_line(&said.name)),
        Cell::styled(style(&said.state), said.state.clone()),
        Cell::plain(format!("{} s", said.window_seconds)),
        Cell::plain(one_line(&said.reason)),
    ]
}

fn style(state: &str) -> Style {
    match state {
        "OK" => Style::Good,
        "ALARM" => Style::Bad,
        _ => Style::Dim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Colours;

    #[test]
    fn what_is_said_and_shown() {
        let set = |window| AlarmSet {
            name: "slow".into(),
            state: "OK".into(),
            reason: "p99".into(),
            window,
            output: Output::Text,
            data_dir: DataDirArgument::default(),
        };
        assert_eq!(set(None).question(), json!({"set": {"name": "slow", "state": "OK", "reason": "p99"}}));
        assert_eq!(set(Some(30)).question()["set"]["windowSeconds"], 30);
        let said = json!({"name": "slow", "state": "ALARM", "reason": "p99\n3 s", "windowSeconds": 60, "updatedAt": 1.5, "alarmedAt": 1.5});
        let said: Said = serde_json::from_value(said).unwrap();
        let shown = table::render(&HEADINGS, &[row(&said)], Colours::Off);
        assert_eq!(shown, "ALARM  STATE  WINDOW  REASON\nslow   ALARM  60 s    p99 3 s\n");
    }
}
