//! The `berth` binary: configuration, wiring, shutdown. It holds no logic of its own.

mod data_dir;
mod doctor;
mod failure;
mod log;
mod machine;
mod node;
mod restore;
mod server;
mod settings;
mod signals;
mod span_export;
mod span_layer;
mod store;
mod up;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

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
    /// How much to log to stderr: error, warn, info, debug or trace
    #[arg(long, global = true, default_value = "info", env = "BERTH_LOG", value_name = "LEVEL")]
    log: LevelFilter,
    #[command(subcommand)]
    role: Role,
}

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
    #[command(
        after_help = "Example:\n  ECS_BACKEND_HOST=http://10.0.0.5:4566 ECS_CLUSTER=default AWS_DEFAULT_REGION=us-east-1 \\\n  AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... ECS_DATADIR=/var/lib/ecs berth agent"
    )]
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

/// Runs a role with its log, which outlives it.
async fn logged(level: LevelFilter, role: Role) -> Result<(), Failure> {
    let quiet = LogSettings::default();
    let (settings, name) = match &role {
        Role::Up(settings) => (&settings.server.log, "up"),
        Role::Server(settings) => (&settings.log, "server"),
        Role::Agent(settings) => (&settings.log, "agent"),
        Role::Restore(_) | Role::Doctor(_) | Role::Command(_) => (&quiet, "command"),
    };
    let log = Log::start(level, settings, name)?;
    let outcome = run(role).await;
    log.finish();
    outcome
}

async fn run(role: Role) -> Result<(), Failure> {
    match role {
        Role::Up(settings) => up::up(settings).await,
        Role::Server(settings) => up::server(settings).await,
        Role::Agent(settings) => up::agent(settings).await,
        Role::Restore(settings) => restore::restore(&settings),
        Role::Doctor(_) | Role::Command(_) => Ok(()),
    }
}
