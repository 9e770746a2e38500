//! Command-line settings of the roles.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_api::Throttle;
use berth_control::NamedHook;

use crate::log::LogSettings;
use crate::runtime_choice::RuntimeChoice;
use crate::store::Place;

/// Settings of whatever serves the API.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerSettings {
    /// Where everything is kept [default: ~/.berth, for root /var/lib/berth]
    #[arg(long, value_name = "DIR", env = "BERTH_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address and port to serve on; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4566", env = "BERTH_LISTEN")]
    pub(crate) listen: SocketAddr,
    /// Where records are kept: sqlite (in the data directory), or etcd://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PREFIX, which several servers
    /// may share; over TLS etcds://...?ca=FILE[&cert=FILE&key=FILE]. A password is best given by the environment: arguments are seen by
    /// everybody on the machine. Images stay in each server's own data directory
    #[arg(long, value_name = "STORE", default_value = "sqlite", env = "BERTH_STORE", hide_env_values = true)]
    pub(crate) store: Place,
    /// AWS region to be
    #[arg(long, value_name = "REGION", default_value = "us-east-1", value_parser = region)]
    pub(crate) region: String,
    /// AWS account to be, twelve digits
    #[arg(long, value_name = "ID", default_value = "000000000000", value_parser = account)]
    pub(crate) account: String,
    /// URL that agents and clients reach this server by [default: from --listen]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// How many seconds a task without health checks must run to count as healthy in a deployment
    #[arg(long, value_name = "SECONDS", default_value = "40", value_parser = seconds, env = "BERTH_HEALTHY_AFTER")]
    pub(crate) healthy_after: Duration,
    /// How many seconds after an agent fell silent its service tasks are replaced on other machines; `off`: never, as on ECS. One that said
    /// goodbye is given at least 30 seconds to come back
    #[arg(long, value_name = "SECONDS|off", default_value = "1", value_parser = seconds_or_off, env = "BERTH_REPLACE_AFTER")]
    pub(crate) replace_after: SecondsOrOff,
    /// How many seconds a minute of a deployment's bake times and hook timeouts takes; fewer than 60 are for trials
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, env = "BERTH_DEPLOYMENT_MINUTE")]
    pub(crate) deployment_minute: Duration,
    /// How many seconds the credentials of one issue of a task's role are good; fewer than AWS's least, 900, are for trials
    #[arg(long, value_name = "SECONDS", default_value = "21600", value_parser = clap::value_parser!(u64).range(4..=43_200), hide = true)]
    pub(crate) role_credentials_seconds: u64,
    /// What stands in for a Lambda function that a deployment lifecycle hook names: it is POSTed the event that ECS would invoke the function
    /// with, or, as command:/PATH, run with it as its input, and answers as the function would. A hook may also name an https:// URL itself.
    /// May be given again for other functions, up to 100
    #[arg(long, value_name = "NAME=URL|command:/PATH")]
    pub(crate) hook: Vec<NamedHook>,
    /// Hold an action back as AWS does: so many calls a second, so many at once; what goes beyond is answered with ThrottlingException. May
    /// be given again for other actions, e.g. --throttle RegisterTaskDefinition=1/20
    #[arg(long, value_name = "ACTION=RATE/BURST")]
    pub(crate) throttle: Vec<Throttle>,
    #[command(flatten)]
    pub(crate) log: LogSettings,
}

/// A time that may be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SecondsOrOff(pub(crate) Option<Duration>);

/// Settings of `berth up`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpSettings {
    #[command(flatten)]
    pub(crate) server: ServerSettings,
    /// Stop every task and remove everything, the data directory too, at a clean exit (for CI and trials)
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// What runs the containers. auto: native as root; without root the Docker Engine, at DOCKER_HOST or /var/run/docker.sock
    #[arg(long, value_name = "RUNTIME", value_enum, default_value_t, env = "BERTH_RUNTIME")]
    pub(crate) runtime: RuntimeChoice,
    /// Run no Fargate tasks on this machine; so does BERTH_FARGATE=false. They need the native runtime, and take part of what container
    /// instances have
    #[arg(long)]
    pub(crate) no_fargate: bool,
}

/// Settings of `berth agent`; the rest comes from amazon-ecs-agent's environment variables.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AgentSettings {
    /// File of NAME=VALUE lines with the variables below, or s3://BUCKET/KEY of such a file; the environment is stronger
    /// [default: /etc/ecs/ecs.config, if it is there]
    #[arg(long, value_name = "FILE|s3://BUCKET/KEY", env = "BERTH_AGENT_CONFIG")]
    pub(crate) config: Option<String>,
    /// AWS account of the server, twelve digits: image names of its registry are asked for at the server
    #[arg(long, value_name = "ID", default_value = "000000000000", value_parser = account)]
    pub(crate) account: String,
    /// What runs the containers. auto: native as root; without root the Docker Engine, at DOCKER_HOST or /var/run/docker.sock
    #[arg(long, value_name = "RUNTIME", value_enum, default_value_t, env = "BERTH_RUNTIME")]
    pub(crate) runtime: RuntimeChoice,
    /// Be a machine for Fargate tasks of all clusters, and for nothing else; so does BERTH_FARGATE=true. It shows as no container instance,
    /// and ECS_CLUSTER has no meaning
    #[arg(long)]
    pub(crate) fargate: bool,
    #[command(flatten)]
    pub(crate) log: LogSettings,
}

pub(crate) fn region(text: &str) -> Result<String, String> {
    let legal = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if legal { Ok(text.to_owned()) } else { Err("a region has lower-case letters, digits and hyphens, like us-east-1".to_owned()) }
}

pub(crate) fn account(text: &str) -> Result<String, String> {
    let legal = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    if legal { Ok(text.to_owned()) } else { Err("an account has twelve digits".to_owned()) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn seconds_or_off(text: &str) -> Result<SecondsOrOff, String> {
    if text == "off" { Ok(SecondsOrOff(None)) } else { seconds(text).map(|time| SecondsOrOff(Some(time))) }
}
