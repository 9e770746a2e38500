//! The commands' names and the way each is run. It must never end the process: that is the binary's to do.

use std::io::{BufWriter, IsTerminal};
use std::process::ExitCode;

use crate::console::{Colours, Console};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::{Alarm, Backup, Deploy, Down, Env, Fargate, Image, Logs, Plan, Ps, Register, Rollback, Version, Why};

/// The operator's commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the variables that point AWS tools at the Berth of this machine
    ///
    /// They are read from the data directory: AWS_ENDPOINT_URL, the root access key and the region. Nothing but these variables is needed
    /// for the AWS CLI, the SDKs and whatever is built on them to talk to Berth.
    Env(Env),
    /// Bring images into Berth's registry
    Image(Image),
    /// Write all that the server knows into a file, while it goes on
    ///
    /// It holds clusters, definitions, services, tasks and container instances as of one moment. Not in it are the images of the registry and
    /// the root key: those are folders and files of the data directory. `berth restore FILE` makes a server's data of it again. It holds what
    /// task definitions hold, secrets in environment variables too, and is readable by its owner alone.
    Backup(Backup),
    /// Register a task definition from a file
    ///
    /// Files of task definitions are often what DescribeTaskDefinition or the console showed. What stands there that only the service says (ARN,
    /// revision, status, required attributes, compatibilities, dates) is left out, which is said; a member that no task definition has is refused.
    Register(Register),
    /// List tasks
    ///
    /// Without --all these are the tasks that should run; with it also those that are stopping or have stopped within the last hour, with
    /// exit codes and reasons.
    Ps(Ps),
    /// Show what containers of this machine wrote
    ///
    /// TASK is a task's id, the beginning of one, an ARN, or the name of a service: then the containers of its running tasks are shown, of the
    /// newest deployment alone, or those of the task that stopped last. Output is kept on the machine that runs the container, until the agent
    /// there removes the stopped container.
    Logs(Logs),
    /// Say why a service, a task or a container instance is as it is
    ///
    /// What a deployment waits for, which rule refused which container instance, why a task is still pending, why it stopped and what it wrote
    /// last: the reasons as the server's own plans give them, out of its state as it is now.
    Why(Why),
    /// Say what would come of a request, and change nothing
    ///
    /// Where tasks would go, what would not fit and why, in which steps a deployment would go on: as the server's own placement and planner
    /// answer it now, perhaps with container instances more or fewer than there are.
    Plan(Plan),
    /// See how a service's deployment goes
    Deploy(Deploy),
    /// Bring a service back to the revision it had before
    ///
    /// While a deployment goes on it is stopped, and the server goes back to the last revision that came out whole (StopServiceDeployment).
    /// When none goes on, the service gets the task definition of the last revision before its own that came out and runs another one
    /// (UpdateService); nothing else of the service is changed. What is done is said before it is done.
    Rollback(Rollback),
    /// Say what an alarm says, to deployments that watch it
    ///
    /// On AWS CloudWatch says it. Here whatever watches the services does, with this command or with POST /alarms: a script, Alertmanager, a
    /// probe. Deployments of services whose deploymentConfiguration.alarms names the alarm end when it goes into ALARM.
    Alarm(Alarm),
    /// Look after the machines that offer Fargate capacity
    ///
    /// On AWS nobody sees them. Here somebody runs them: this lists what is free on each, takes one out of use, and takes a FARGATE_SPOT task's
    /// capacity away, with the warning that AWS gives.
    Fargate(Fargate),
    /// Stop the Berth of this machine and all its tasks
    ///
    /// Tasks get their stop signal, and SIGKILL after their stopTimeout, as with StopTask. To stop the server and leave tasks running, send it
    /// SIGTERM or press Ctrl-C where it runs. Succeeds also when nothing runs.
    Down(Down),
    /// Print Berth's version
    Version(Version),
}

/// How results are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Runs a command: results on stdout, all else on stderr. Exit code 0 when it did what was asked, 1 when it failed, 2 when an
/// argument or a setting is wrong.
pub async fn run(command: Command) -> ExitCode {
    let environment = Environment::of_process();
    let mut out = BufWriter::new(std::io::stdout());
    let mut err = std::io::stderr();
    let is_dumb = environment.get("TERM") == Some("dumb");
    let mut console = Console {
        colours: Colours::of(&std::io::stdout(), &environment),
        moving: std::io::stderr().is_terminal() && !is_dumb,
        live: std::io::stdout().is_terminal() && !is_dumb,
        out: &mut out,
        err: &mut err,
    };
    let outcome = dispatch(command, &environment, &mut console).await;
    let outcome = outcome.and_then(|()| Ok(console.out.flush()?));
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // What was written before the failure is still good.
    let _ = console.out.flush();
    if let Some(text) = failure.render() {
        // With stderr closed too there is nobody left to tell.
        let _ = console.err.write_all(text.as_bytes());
    }
    ExitCode::from(failure.code())
}

async fn dispatch(command: Command, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Env(env) => env.run(environment, console).await,
        Command::Image(image) => image.run(environment, console).await,
        Command::Backup(backup) => backup.run(environment, console).await,
        Command::Register(register) => register.run(environment, console).await,
        Command::Ps(ps) => ps.run(environment, console).await,
        Command::Logs(logs) => logs.run(environment, console).await,
        Command::Why(why) => why.run(environment, console).await,
        Command::Plan(plan) => plan.run(environment, console).await,
        Command::Deploy(deploy) => deploy.run(environment, console).await,
        Command::Rollback(rollback) => rollback.run(environment, console).await,
        Command::Alarm(alarm) => alarm.run(environment, console).await,
        Command::Fargate(fargate) => fargate.run(environment, console).await,
        Command::Down(down) => down.run(environment, console).await,
        Command::Version(version) => version.run(console),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Debug, Parser)]
    #[command(name = "berth")]
    struct Berth {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Berth::try_parse_from(line.split(' ')).map(|berth| berth.command)
    }

    #[test]
    fn the_definitions_are_sound() {
        Berth::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example_and_takes_json() {
        fn check(command: &mut clap::Command, path: &str) {
            if command.get_name() == "help" {
                return;
            }
            let path = format!("{path} {}", command.get_name());
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{path} --help shows no example:\n{help}");
            if command.has_subcommands() {
                command.get_subcommands_mut().for_each(|inner| check(inner, &path));
            } else {
                let output = command
                    .get_arguments()
                    .find(|argument| argument.get_id() == "output")
                    .unwrap_or_else(|| panic!("{path} has no --output"));
                assert!(output.get_possible_values().iter().any(|value| value.get_name() == "json"), "{path} --output json");
            }
        }
        let mut berth = Berth::command();
        berth.build();
        berth.get_subcommands_mut().for_each(|command| check(command, "berth"));
    }

    #[test]
    fn what_people_type() {
        for line in [
            "berth env",
            "berth env --output dotenv --data-dir /tmp/x",
            "berth image load hello.tar",
            "berth image load hello.tar hello:1 --output json",
            "berth backup berth.backup",
            "berth backup - --data-dir /tmp/x",
            "berth backup berth.backup --force --output json",
            "berth register web.json --output json",
            "berth register -",
            "berth ps",
            "berth ps --cluster blue -a --output json",
            "berth logs 1a2b",
            "berth logs web -f --tail 10 --timestamps --container app",
            "berth logs web --tail=0 --follow",
            "berth logs --group /ecs/web --stream web/app",
            "berth why web",
            "berth why 3f1c --cluster blue --output json",
            "berth plan run-task --task-definition web --count 3 --placement-strategy type=random type=spread,field=host",
            "berth plan update-service --service web --desired-count 3 --add-instances 2=8a2e --add-instances 1 --remove 77aa",
            "berth plan update-service --cli-input-json {} --output json",
            "berth deploy status web",
            "berth deploy status web --cluster blue --watch --output json",
            "berth deploy status web --wait --timeout 60",
            "berth rollback web --dry-run",
            "berth rollback web --to web:3 --wait --timeout 600 --output json",
            "berth alarm set web-p99 ALARM --reason slow --window 30 --output json",
            "berth alarm list",
            "berth alarm delete web-p99",
            "berth fargate list --output json",
            "berth fargate interrupt 0a",
            "berth fargate drain 0a",
            "berth fargate activate 0a --output json",
            "berth down --timeout 5",
            "berth version --output json",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn bad_arguments_end_with_two_and_name_the_argument() {
        for (line, named) in [
            ("berth ps --output yaml", "--output"),
            ("berth logs", "<TASK>"),
            ("berth why", "<WHAT>"),
            ("berth logs web --tail many", "--tail"),
            ("berth logs web --group g", "--group"),
            ("berth logs web --stream s", "--stream"),
            ("berth plan run-task --add-instances many", "--add-instances"),
            ("berth plan run-task --placement-constraints near", "--placement-constraints"),
            ("berth deploy status", "<SERVICE>"),
            ("berth deploy status web --timeout 5", "--wait"),
            ("berth deploy status web --watch --timeout 0", "--timeout"),
            ("berth deploy status web --watch --wait", "--watch"),
            ("berth rollback", "<SERVICE>"),
            ("berth rollback web --dry-run --wait", "--dry-run"),
            ("berth down --timeout -1", "-1"),
            ("berth down --timeout 0", "--timeout"),
            ("berth image load", "<FILE>"),
            ("berth register", "<FILE>"),
            ("berth backup", "<FILE>"),
            ("berth psx", "psx"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(named), "{line}: {error}");
        }
    }
}
