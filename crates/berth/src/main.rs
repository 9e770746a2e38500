//! The `berth` binary: configuration, wiring, shutdown. It holds no logic of its own.

mod agent_log;
mod agent_settings;
mod data_dir;
mod doctor;
mod failure;
mod fargate;
mod log;
mod machine;
mod node;
mod restore;
mod rolling_file;
mod runtime_choice;
mod server;
mod settings;
mod signals;
mod span_export;
mod span_layer;
mod start_code;
mod store;
mod up;

use std::path::Path;
use std::process::ExitCode;

use berth_agent::AgentConfig;
use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use crate::agent_log::{DEFAULT_FILE, FileLayer, level_filter};
use crate::doctor::DoctorSettings;
use crate::failure::Failure;
use crate::log::{Log, LogSettings};
use crate::restore::RestoreSettings;
use crate::settings::{AgentSettings, ServerSettings, UpSettings};

/// Amazon ECS on machines of your own.
#[derive(Debug, Parser)]
#[command(
    name = "berth",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  berth up\n  eval \"$(berth env)\"\n  aws ecs list-clusters"
)]
struct Arguments {
    /// How much to log to stderr: error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, env = "BERTH_LOG", value_name = "LEVEL")]
    log: Option<LevelFilter>,
    #[command(subcommand)]
    role: Role,
}

/// The variables that most machines need, and an example.
const AGENT_HELP: &str = "\
Variables:
  ECS_BACKEND_HOST              URL of the server
  ECS_CLUSTER                   the cluster [default: default, made if it is not there]
  AWS_DEFAULT_REGION            the server's region
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
                                a key of the server's
  ECS_DATADIR                   where what survives the agent is kept [default: /data]
  ECS_INSTANCE_ATTRIBUTES       attributes to place tasks by, like {\"stack\":\"prod\"}
  ECS_CONTAINER_INSTANCE_TAGS   tags of the container instance, like {\"team\":\"a\"}
  ECS_RESERVED_MEMORY           MiB that tasks do not get [default: 0]
  ECS_RESERVED_PORTS, ECS_RESERVED_PORTS_UDP
                                ports that tasks do not get, like [22,80]
  ECS_IMAGE_PULL_BEHAVIOR       default, always, once or prefer-cached
  ECS_ENGINE_AUTH_TYPE, ECS_ENGINE_AUTH_DATA
                                logins of registries: docker, {\"HOST\":{\"username\":\"..\",\"password\":\"..\"}}
  ECS_CONTAINER_STOP_TIMEOUT    from stop signal to kill [default: 30s]
  ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION
                                how long ended tasks are kept [default: 3h]
  ECS_LOGLEVEL, ECS_LOGFILE     how much is logged, and where to [default: info, as root /var/log/ecs/ecs-agent.log]
  AWS_ENDPOINT_URL_S3           where a --config in S3 and environment files are

Examples:
  ECS_BACKEND_HOST=http://10.0.0.5:4566 ECS_CLUSTER=default AWS_DEFAULT_REGION=us-east-1 \\
  AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... ECS_DATADIR=/var/lib/ecs berth agent
  berth agent --config /etc/ecs/ecs.config";

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Run everything on this machine, in the foreground: server, registry, agent
    ///
    /// On SIGTERM or Ctrl-C tasks keep running, as with ECS's agent; the next `berth up` finds them again. `berth down` stops them.
    #[command(after_help = "Example:\n  berth up --data-dir /srv/berth --listen 127.0.0.1:4566")]
    Up(UpSettings),
    /// Run the server alone; machines join it with `berth agent` or the official ECS agent
    ///
    /// Several servers share an etcd cluster with --store: any of them serves any call, one of them runs the loops, and another takes over
    /// within seconds when it dies. What the registry holds is not shared: push images to each server, or to a registry beside them.
    #[command(
        after_help = "Examples:\n  berth server --listen 0.0.0.0:4566 --endpoint http://ecs.example.internal:4566\n  berth server --listen 10.0.0.1:4566 --store etcd://10.0.0.11:2379,10.0.0.12:2379,10.0.0.13:2379"
    )]
    Server(ServerSettings),
    /// Join this machine to a server as a container instance, set by amazon-ecs-agent's environment variables
    ///
    /// The variables are taken from the environment, from --config (or /etc/ecs/ecs.config), and from amazon-ecs-agent's JSON file
    /// (ECS_AGENT_CONFIG_FILE_PATH, or /etc/ecs_container_agent/config.json), in this order. docs/agent.md has all of them.
    #[command(after_help = AGENT_HELP)]
    Agent(AgentSettings),
    /// Make a server's data of a backup that `berth backup` wrote
    ///
    /// The server must not run, and its store must be empty. The backup is read and checked as a whole before anything is written.
    #[command(after_help = "Example:\n  berth restore berth.backup --data-dir /srv/berth && berth up --data-dir /srv/berth")]
    Restore(RestoreSettings),
    /// Say whether this machine can run containers, and how to mend what is in the way
    ///
    /// Kernel, privileges, control groups, overlay mounts, a container's network, disk, clock, ports. What only trying shows is tried in
    /// namespaces of its own: nothing of the machine is changed. Ends with 1 if containers cannot run.
    #[command(after_help = "Examples:\n  sudo berth doctor\n  sudo berth doctor --data-dir /srv/berth --output json")]
    Doctor(DoctorSettings),
    #[command(flatten)]
    Command(berth_cli::Command),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("berth: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match arguments.role {
        Role::Command(command) => return runtime.block_on(berth_cli::run(command)),
        Role::Doctor(settings) => match doctor::doctor(&settings) {
            Ok(false) => return ExitCode::FAILURE,
            outcome => outcome.map(drop),
        },
        role => runtime.block_on(logged(arguments.log, role)),
    };
    // Blocking threads that still wait (a socket, a pipe) must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("berth: {failure}");
            failure.exit_code()
        }
    }
}

/// Runs a role with its log, which outlives it. What the agent is told says where its log goes, so it is read first.
async fn logged(level: Option<LevelFilter>, role: Role) -> Result<(), Failure> {
    let quiet = LogSettings::default();
    let (settings, name) = match &role {
        Role::Up(settings) => (&settings.server.log, "up"),
        Role::Server(settings) => (&settings.log, "server"),
        Role::Agent(settings) => (&settings.log, "agent"),
        Role::Restore(_) | Role::Doctor(_) | Role::Command(_) => (&quiet, "command"),
    };
    let mut told = match &role {
        Role::Up(_) => Some(agent_settings::of_environment()?),
        Role::Agent(settings) => Some(agent_settings::of_machine(settings.config.as_deref()).await?),
        _ => None,
    };
    let is_agent = matches!(role, Role::Agent(_));
    let file = match &mut told {
        // Inside of `berth up` the agent shares the process's log, unless it is told otherwise.
        Some(told) => FileLayer::open(&told.log, default_file(is_agent), &mut told.notices)?,
        None => None,
    };
    let of_agent = told.as_ref().filter(|_| is_agent).and_then(|told| told.log.level).map(level_filter);
    let log = Log::start(level.or(of_agent).unwrap_or(LevelFilter::INFO), settings, name, file)?;
    for line in told.iter().flat_map(|told| &told.notices) {
        tracing::warn!("{line}");
    }
    let outcome = run(role, told.map(|told| told.config).unwrap_or_default()).await;
    log.finish();
    outcome
}

/// Where an agent's log goes that is not told: only root may write there.
fn default_file(is_agent: bool) -> Option<&'static Path> {
    // SAFETY: geteuid only returns a number.
    (is_agent && unsafe { libc::geteuid() } == 0).then_some(Path::new(DEFAULT_FILE))
}

async fn run(role: Role, agent: AgentConfig) -> Result<(), Failure> {
    match role {
        Role::Up(settings) => up::up(settings, agent).await,
        Role::Server(settings) => up::server(settings).await,
        Role::Agent(settings) => up::agent(settings, agent).await,
        Role::Restore(settings) => restore::restore(&settings),
        Role::Doctor(_) | Role::Command(_) => Ok(()),
    }
}
