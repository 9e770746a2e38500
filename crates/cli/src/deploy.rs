//! `berth deploy status`: how a service's deployment goes, once or until it ends. It must never change anything.

use std::time::Duration;

use crate::client::Client;
use crate::command::Output;
use crate::connection::DataDirArgument;
use crate::console::Console;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::services;

mod changes;
pub(crate) mod follow;
pub(crate) mod look;
#[cfg(test)]
pub(crate) mod sample;
mod screen;
pub(crate) mod show;
pub(crate) mod status;
#[cfg(test)]
mod tests;

use follow::{PATIENCE_SECONDS, Presenter, Shown, follow, now_millis, verdict};
use look::Sight;

/// See how a service's deployment goes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  aws ecs update-service --service web --task-definition web && berth deploy status web --watch")]
pub struct Deploy {
    /// What to do
    #[command(subcommand)]
    action: DeployAction,
}

/// What can be done about deployments.
#[derive(Debug, clap::Subcommand)]
pub enum DeployAction {
    /// Show how far a service's deployment is, what it waits for and what it did last
    ///
    /// Printed once, the exit code is 0 whatever the state. With --watch every change is shown until the deployment ends: on a terminal the view
    /// is drawn again in place, elsewhere each change is a line (--output json: an object a line). With --wait nothing is shown until it
    /// ends. With either the exit code says how it ended: 0 when the deployment completed; 1 when it failed, was rolled back or stopped, or has
    /// not ended in time; 130 after Ctrl-C, which changes nothing about the deployment.
    Status(DeployStatus),
}

/// Show how far a service's deployment is.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("until-end").args(["watch", "wait"])),
    after_help = "Examples:\n  berth deploy status web\n  berth deploy status web --watch\n  berth deploy status web --wait --timeout 600 || berth rollback web --wait\n  berth deploy status web --watch --output json | jq -r '[.outcome, .service.runningCount] | @tsv'"
)]
pub struct DeployStatus {
    /// The service (name or ARN)
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Its cluster (name or ARN); all of them are searched otherwise
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Show each change until the deployment ends
    #[arg(long, short)]
    watch: bool,
    /// Wait in silence until the deployment ends, then show it
    #[arg(long)]
    wait: bool,
    /// Seconds after which --watch or --wait gives up; 1800 otherwise
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=604_800), requires = "until-end")]
    timeout: Option<u64>,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

impl Deploy {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        match &self.action {
            DeployAction::Status(status) => status.run(environment, console).await,
        }
    }
}

impl DeployStatus {
    async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let client = Client::find(&self.data_dir, environment)?;
        let place = services::find(&client, &self.service, self.cluster.as_deref()).await?;
        let mut sight = Sight::new(&client, place, None);
        let patience = Duration::from_secs(self.timeout.unwrap_or(PATIENCE_SECONDS));
        if self.watch {
            let presenter = Presenter::of(self.output, console);
            let status = follow(&mut sight, patience, presenter, console).await?;
            return verdict(&status, false);
        }
        let status = if self.wait { follow(&mut sight, patience, Presenter::Silent, console).await? } else { sight.look().await? };
        print(&status, self.output, console)?;
        if self.wait { verdict(&status, false) } else { Ok(()) }
    }
}

/// A status as it is now.
pub(crate) fn print(status: &status::Status, output: Output, console: &mut Console<'_>) -> Result<(), Failure> {
    let now = now_millis();
    match output {
        Output::Json => console.json(&Shown::new(status, now))?,
        Output::Text => console.out.write_all(show::render(status, now, console.colours).as_bytes())?,
    }
    Ok(())
}
