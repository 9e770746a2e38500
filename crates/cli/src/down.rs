//! `berth down`: ends the server of this machine together with all its tasks. It must never signal a process that is not
//! certainly that server.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_shapes::ecs;
use serde_json::json;

use crate::client::Client;
use crate::command::Output;
use crate::connection::{Connection, ConnectionError};
use crate::console::Console;
use crate::data_dir::{Endpoint, default_data_dir};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::process::Process;
use crate::tasks;

/// How often to look whether the server is gone.
const POLL: Duration = Duration::from_millis(50);
/// How often to ask how many tasks are left, where that is shown.
const COUNT: Duration = Duration::from_millis(500);
/// How long to wait for that answer: the server has better things to do now.
const COUNT_PATIENCE: Duration = Duration::from_millis(400);

/// Stop the Berth of this machine and all its tasks.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  berth down\n  berth down --data-dir /srv/berth --timeout 150")]
pub struct Down {
    /// Data directory of the Berth to stop [default: ~/.berth; root: /var/lib/berth]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Seconds to wait for the end; tasks may take their stopTimeout, 30 seconds by default, to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// Why the server still runs.
#[derive(Debug, thiserror::Error)]
enum DownError {
    #[error("process {pid}, which {file} names, is not the Berth of {data_dir}; it was left alone")]
    Foreign { pid: i32, file: PathBuf, data_dir: PathBuf },
    #[error("cannot stop process {pid}: {error}")]
    Signal { pid: i32, error: io::Error },
    #[error("Berth (process {pid}) has not ended after {seconds} seconds")]
    Timeout { pid: i32, seconds: u64, data_dir: PathBuf },
}

impl From<DownError> for Failure {
    fn from(error: DownError) -> Self {
        let advice = match &error {
            DownError::Foreign { pid, file, .. } => {
                format!(
                    "that Berth has most likely ended without clearing up: then remove {}.\nLook with: ps -p {pid} -o args",
                    file.display()
                )
            }
            DownError::Signal { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                "it belongs to another user: run this as that user, or as root with sudo".to_owned()
            }
            DownError::Signal { pid, .. } => format!("stop it where it runs, or with: kill -USR1 {pid}"),
            DownError::Timeout { pid, data_dir, .. } => format!(
                "see what still runs with `berth ps --all --data-dir {}`, then wait longer with --timeout SECONDS,\n\
                 or end the server and leave its tasks running with: kill {pid}",
                data_dir.display()
            ),
        };
        Failure::new(error.to_string(), advice)
    }
}

impl Down {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let data_dir = self.data_dir.clone().map_or_else(|| default_data_dir(environment), Ok)?;
        let Some(file) = Endpoint::read(&data_dir).map_err(ConnectionError::from)? else {
            return self.nothing_runs(&data_dir, console);
        };
        let pid = file.pid;
        let held = Process::hold(pid).map_err(|error| DownError::Signal { pid, error })?;
        let Some(process) = held else { return self.nothing_runs(&data_dir, console) };
        let path = Endpoint::path(&data_dir);
        let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        if !written.is_ok_and(|written| process.is_berth_of(&data_dir, written)) {
            return Err(DownError::Foreign { pid, file: path, data_dir }.into());
        }
        // Made before the signal, while the credentials are certainly there: an ephemeral Berth takes them along.
        let connection = Connection::of_data_dir(&data_dir, file, environment).ok();
        let client = connection.and_then(|connection| Client::new(&connection).ok());
        process.ask_to_stop_all().map_err(|error| DownError::Signal { pid, error })?;
        if !console.moving {
            writeln!(console.err, "stopping Berth (process {pid}) and its tasks")?;
        }
        let waited = self.wait(&process, pid, client.as_ref(), console).await;
        console.progress("")?;
        if !waited? {
            return Err(DownError::Timeout { pid, seconds: self.timeout, data_dir }.into());
        }
        match self.output {
            Output::Text => writeln!(console.out, "Berth has stopped")?,
            Output::Json => writeln!(console.out, "{}", json!({ "stopped": true, "pid": pid }))?,
        }
        Ok(())
    }

    fn nothing_runs(&self, data_dir: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
        match self.output {
            Output::Text => writeln!(console.out, "no Berth runs with {}; nothing to stop", data_dir.display())?,
            Output::Json => writeln!(console.out, "{}", json!({ "stopped": false, "pid": null }))?,
        }
        Ok(())
    }

    /// Waits for the end; false when the time is over.
    async fn wait(&self, process: &Process, pid: i32, client: Option<&Client>, console: &mut Console<'_>) -> io::Result<bool> {
        let started = Instant::now();
        let mut next_count = started;
        while !process.has_ended() {
            let waited = started.elapsed();
            if waited >= Duration::from_secs(self.timeout) {
                return Ok(false);
            }
            if console.moving && Instant::now() >= next_count {
                next_count = Instant::now() + COUNT;
                let left = match client {
                    Some(client) => tasks_left(client).await,
                    None => None,
                };
                let left = left.map_or_else(String::new, |left| format!(", {left} left"));
                console.progress(&format!("stopping Berth (process {pid}) and its tasks{left} ... {}s", waited.as_secs()))?;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(true)
    }
}

/// How many tasks have not stopped yet, if the server still tells.
async fn tasks_left(client: &Client) -> Option<i64> {
    let count = async {
        let clusters = tasks::clusters(client, None).await.ok()?;
        let mut left = 0;
        for page in clusters.chunks(100) {
            let request = ecs::DescribeClustersRequest { clusters: Some(page.to_vec()), ..Default::default() };
            let answer: ecs::DescribeClustersResponse = client.call("DescribeClusters", &request).await.ok()?;
            for cluster in answer.clusters.unwrap_or_default() {
                left += i64::from(cluster.running_tasks_count.unwrap_or(0)) + i64::from(cluster.pending_tasks_count.unwrap_or(0));
            }
        }
        Some(left)
    };
    tokio::time::timeout(COUNT_PATIENCE, count).await.ok().flatten()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::testing::Written;
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A stand-in for the server: says so on SIGUSR1 and ends, or ignores it.
    fn server(data_dir: &Path, name: &str, on_signal: &str) -> Killed {
        let script = format!("trap {on_signal:?} USR1; echo; while :; do sleep 0.02; done");
        let mut command = Command::new("sh");
        command.arg0(name).args(["-c", &script, "up"]).current_dir(data_dir).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let file = Endpoint {
            endpoint: "http://127.0.0.1:1".into(),
            region: "us-east-1".into(),
            account: "000000000000".into(),
            pid: child.id() as i32,
        };
        file.write(data_dir).unwrap();
        Killed(child)
    }

    async fn down(data_dir: &Path, timeout: u64, output: Output) -> (Result<(), Failure>, Written) {
        let down = Down { data_dir: Some(data_dir.to_owned()), timeout, output };
        let mut written = Written::default();
        let outcome = down.run(&Environment::default(), &mut written.console()).await;
        (outcome, written)
    }

    #[tokio::test]
    async fn the_server_is_asked_and_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let child = server(folder.path(), "berth", "echo asked > asked; exit 0");
        let (outcome, written) = down(folder.path(), 60, Output::Text).await;
        outcome.unwrap();
        assert_eq!(written.out(), "Berth has stopped\n");
        assert_eq!(written.err(), format!("stopping Berth (process {}) and its tasks\n", child.0.id()));
        assert_eq!(std::fs::read_to_string(folder.path().join("asked")).unwrap(), "asked\n");
        // Now the file is stale, and nothing runs.
        drop(child);
        let (outcome, written) = down(folder.path(), 60, Output::Text).await;
        outcome.unwrap();
        assert_eq!(written.out(), format!("no Berth runs with {}; nothing to stop\n", folder.path().display()));
    }

    #[tokio::test]
    async fn nothing_runs_is_success() {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, written) = down(folder.path(), 1, Output::Json).await;
        outcome.unwrap();
        assert_eq!(written.out(), "{\"pid\":null,\"stopped\":false}\n");
    }

    #[tokio::test]
    async fn a_foreign_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = server(folder.path(), "postgres", "echo asked > asked; exit 0");
        let (outcome, _) = down(folder.path(), 1, Output::Text).await;
        let text = outcome.unwrap_err().render().unwrap();
        assert!(text.contains("is not the Berth of") && text.contains("it was left alone"), "{text}");
        assert!(child.0.try_wait().unwrap().is_none(), "it still runs");
        assert!(!folder.path().join("asked").exists());
    }

    #[tokio::test]
    async fn a_server_that_stays_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let child = server(folder.path(), "berth", "");
        let (outcome, written) = down(folder.path(), 1, Output::Text).await;
        let pid = child.0.id();
        assert_eq!(
            outcome.unwrap_err().render().unwrap(),
            format!(
                "error: Berth (process {pid}) has not ended after 1 seconds\n  see what still runs with `berth ps --all --data-dir {}`, \
                 then wait longer with --timeout SECONDS,\n  or end the server and leave its tasks running with: kill {pid}\n",
                folder.path().display()
            )
        );
        assert_eq!(written.out(), "");
    }
}
