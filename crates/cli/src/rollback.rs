//! `berth rollback`: brings a service back to an earlier revision by the calls that any ECS client has. It must never do what it has not said
//! first, and never more than one of the two calls.

use std::time::Duration;

use berth_shapes::ecs;
use serde::Serialize;

use crate::client::{Client, ClientError};
use crate::command::Output;
use crate::connection::DataDirArgument;
use crate::console::Console;
use crate::deploy::follow::{PATIENCE_SECONDS, Presenter, follow, verdict};
use crate::deploy::look::Sight;
use crate::deploy::print;
use crate::environment::Environment;
use crate::failure::{FAILED, Failure};
use crate::services::{self, Place};
use crate::tasks::name_of;

mod history;
#[cfg(test)]
mod tests;
mod way;

use way::{NoWay, Revision, Wanted, Way};

/// Bring a service back to the revision it had before.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth rollback web --dry-run\n  berth rollback web --wait\n  berth rollback web --to web:3\n  berth deploy status web --wait || berth rollback web --wait --output json"
)]
pub struct Rollback {
    /// The service (name or ARN)
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Its cluster (name or ARN); all of them are searched otherwise
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Back to this one: a service revision (its 19 digits or ARN), or a task definition (family:revision or ARN). It comes by a new
    /// deployment, also where one goes on
    #[arg(long, value_name = "REVISION|FAMILY:N")]
    to: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Wait until the service is back; exit code 1 if it does not come back
    #[arg(long)]
    wait: bool,
    /// Seconds after which --wait gives up; 1800 otherwise
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=604_800), requires = "wait")]
    timeout: Option<u64>,
    /// How to print; with --wait JSON is two objects, what is done and how the deployment ended, a line each
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// What is done, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    /// The call, or `None` where it goes back already.
    action: &'static str,
    dry_run: bool,
    cluster: &'a str,
    service: &'a str,
    /// The deployment that brings it back; none yet where it would be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_deployment_arn: Option<&'a str>,
    from: &'a Revision,
    to: &'a Revision,
}

impl Rollback {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let client = Client::find(&self.data_dir, environment)?;
        let place = services::find(&client, &self.service, self.cluster.as_deref()).await?;
        let service = services::describe(&client, &place).await?.unwrap_or_default();
        let wanted = wanted(self.to.as_deref(), service.service_arn.as_deref().unwrap_or_default());
        if let Wanted::Revision(arn) = &wanted
            && !arn.starts_with(&revisions_of(service.service_arn.as_deref().unwrap_or_default()))
        {
            return Err(refusal(&NoWay::NoRevision(arn.clone()), &place, &service));
        }
        let history = history::read(&client, &place, &service, &wanted).await?;
        let mut way = history.way(&wanted).map_err(|error| refusal(&error, &place, &service))?;
        if let Way::Update { to, definition, .. } = &mut way {
            let arn = usable_definition(&client, definition, &place).await?;
            // A family alone may turn out to be what the service has.
            if service.task_definition.as_ref() == Some(&arn) {
                return Err(refusal(&NoWay::Same(name_of(&arn).to_owned()), &place, &service));
            }
            to.task_definition = Some(arn);
        }
        if self.output == Output::Text {
            writeln!(console.out, "{}", self.announcement(&way, &place))?;
            console.out.flush()?;
        }
        let deployment = if self.dry_run { way.known_deployment() } else { go(&client, &place, &way).await? };
        if self.output == Output::Json {
            let (action, from, to) = way.parts();
            let (cluster, service) = (name_of(&place.cluster), place.name.as_str());
            let service_deployment_arn = deployment.as_deref();
            console.json(&Done { action, dry_run: self.dry_run, cluster, service, service_deployment_arn, from, to })?;
        }
        if !self.wait {
            if self.output == Output::Text && !self.dry_run {
                writeln!(console.out, "watch it with `berth deploy status {} --watch`", place.name)?;
            }
            return Ok(());
        }
        let mut sight = Sight::new(&client, place, deployment);
        let patience = Duration::from_secs(self.timeout.unwrap_or(PATIENCE_SECONDS));
        let status = follow(&mut sight, patience, Presenter::Silent, console).await?;
        print(&status, self.output, console)?;
        verdict(&status, !matches!(way, Way::Update { .. }))
    }

    /// What is about to be done, in a sentence.
    fn announcement(&self, way: &Way, place: &Place) -> String {
        let (_, from, to) = way.parts();
        let (from, to) = (from.in_words(), to.in_words());
        let would = if self.dry_run { "would " } else { "" };
        let service = format!("service {} in cluster {}", place.name, name_of(&place.cluster));
        match way {
            Way::Stop { deployment, .. } => {
                format!("{service}: {would}stop deployment {} of {from} and go back to {to}", name_of(deployment))
            }
            Way::Underway { deployment, .. } => {
                format!("{service}: deployment {} of {from} goes back to {to} already; nothing to do", name_of(deployment))
            }
            Way::Update { .. } => format!("{service}: {would}go from {from} back to {to} with a new deployment"),
        }
    }
}

impl Way {
    fn parts(&self) -> (&'static str, &Revision, &Revision) {
        match self {
            Self::Stop { from, to, .. } => ("StopServiceDeployment", from, to),
            Self::Underway { from, to, .. } => ("None", from, to),
            Self::Update { from, to, .. } => ("UpdateService", from, to),
        }
    }

    fn known_deployment(&self) -> Option<String> {
        match self {
            Self::Stop { deployment, .. } | Self::Underway { deployment, .. } => Some(deployment.clone()),
            Self::Update { .. } => None,
        }
    }
}

/// What `--to` means: 19 digits or a service revision's ARN, else a task definition.
fn wanted(to: Option<&str>, service_arn: &str) -> Wanted {
    match to {
        None => Wanted::Last,
        Some(text) if text.contains(":service-revision/") => Wanted::Revision(text.to_owned()),
        Some(text) if text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Wanted::Revision(format!("{}{text}", revisions_of(service_arn)))
        }
        Some(text) => Wanted::Definition(text.to_owned()),
    }
}

/// What the ARNs of a service's revisions begin with.
fn revisions_of(service_arn: &str) -> String {
    format!("{}/", service_arn.replacen(":service/", ":service-revision/", 1))
}

fn refusal(error: &NoWay, place: &Place, service: &ecs::Service) -> Failure {
    let name = &place.name;
    let advice = match error {
        NoWay::First => format!(
            "set it to another task definition with `berth rollback {name} --to FAMILY:N`, or stop its tasks with\n\
             `aws ecs update-service --cluster {} --service {name} --desired-count 0`",
            name_of(&place.cluster)
        ),
        NoWay::Nothing(_) => format!("name one with `berth rollback {name} --to FAMILY:N`; `aws ecs list-task-definitions` lists them"),
        NoWay::NoDeployment => {
            let controller = service.deployment_controller.as_ref().and_then(|controller| controller.r#type.as_ref());
            format!("its deployments are its controller's ({}) to roll back", controller.map_or("ECS", |kind| kind.as_str()))
        }
        NoWay::NoRevision(_) => {
            format!("see which there were with `aws ecs list-service-deployments --cluster {} --service {name}`", name_of(&place.cluster))
        }
        NoWay::Same(_) => format!("a new deployment of the same: `aws ecs update-service --service {name} --force-new-deployment`"),
    };
    Failure::Said { message: format!("service {name}: {error}"), advice: Some(advice), code: FAILED }
}

/// The ARN of a definition. One that was deregistered since cannot be deployed; better to know before anything is said.
async fn usable_definition(client: &Client, definition: &str, place: &Place) -> Result<String, Failure> {
    let request = ecs::DescribeTaskDefinitionRequest { task_definition: Some(definition.to_owned()), ..Default::default() };
    let advice =
        || format!("name another one with `berth rollback {} --to FAMILY:N`; `aws ecs list-task-definitions` lists them", place.name);
    let answer: ecs::DescribeTaskDefinitionResponse = match client.call("DescribeTaskDefinition", &request).await {
        Err(error @ ClientError::Service { status: 400, .. }) if error.code() == Some("ClientException") => {
            return Err(Failure::new(format!("there is no task definition {} any more: {error}", name_of(definition)), advice()));
        }
        answer => answer?,
    };
    let found = answer.task_definition.unwrap_or_default();
    match found.status.as_ref().map(|status| status.as_str()) {
        None | Some("ACTIVE") => Ok(found.task_definition_arn.unwrap_or_else(|| definition.to_owned())),
        Some(status) => Err(Failure::new(format!("task definition {} is {status} and cannot be deployed", name_of(definition)), advice())),
    }
}

/// Makes the call; gives the ARN of the deployment that brings the service back.
async fn go(client: &Client, place: &Place, way: &Way) -> Result<Option<String>, Failure> {
    match way {
        Way::Underway { .. } => Ok(way.known_deployment()),
        Way::Stop { deployment, .. } => {
            let request =
                ecs::StopServiceDeploymentRequest { service_deployment_arn: Some(deployment.clone()), stop_type: Some("ROLLBACK".into()) };
            let answer: Result<ecs::StopServiceDeploymentResponse, _> = client.call("StopServiceDeployment", &request).await;
            match answer {
                // It came out, or went back, between the look and the call.
                Err(error) if error.code() == Some("ConflictException") => Err(Failure::new(
                    format!("deployment {} has just ended: {error}", name_of(deployment)),
                    format!("see how with `berth deploy status {0}`, and run `berth rollback {0}` again if it is still wanted", place.name),
                )),
                answer => Ok(answer?.service_deployment_arn.or_else(|| way.known_deployment())),
            }
        }
        Way::Update { definition, .. } => {
            let request = ecs::UpdateServiceRequest {
                cluster: Some(place.cluster.clone()),
                service: Some(place.name.clone()),
                task_definition: Some(definition.clone()),
                ..Default::default()
            };
            let answer: ecs::UpdateServiceResponse = client.call("UpdateService", &request).await?;
            Ok(answer.service.and_then(|service| service.current_service_deployment))
        }
    }
}
