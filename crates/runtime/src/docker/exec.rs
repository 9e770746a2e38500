//! A process inside a running container, with an end to its time and its output.

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecResults};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::engine::{program_error, run_error};
use crate::port::{ContainerId, ExecOutcome, ExecSpec, RunError};

/// Exit codes with which Docker says that a program could not be executed.
const NOT_EXECUTED: [i64; 2] = [126, 127];

/// Runs `spec` in the container called `name` in Docker.
///
/// # Errors
/// [`RunError`].
pub async fn run(docker: &Docker, name: &str, id: &ContainerId, spec: ExecSpec) -> Result<ExecOutcome, RunError> {
    let failed = |error: bollard::errors::Error| run_error(&error, id, &format!("run a process in container {id}"));
    let options = CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: Some(spec.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        cmd: Some(spec.command),
        user: spec.user,
        ..CreateExecOptions::<String>::default()
    };
    let exec = docker.create_exec(name, options).await.map_err(failed)?.id;
    let mut kept = Vec::new();
    let reading = async {
        let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec, None).await? else { return Ok(()) };
        while let Some(piece) = output.next().await {
            // What is too much is read all the same, so that the process is not held up.
            let piece = piece?.into_bytes();
            let room = spec.output_limit.saturating_sub(kept.len());
            kept.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Ok(())
    };
    match timeout(spec.timeout, reading).await {
        Ok(read) => read.map_err(failed)?,
        Err(_) => {
            kill(docker, name, &exec).await;
            return Ok(ExecOutcome { code: None, output: kept });
        }
    }
    let code = docker.inspect_exec(&exec).await.map_err(failed)?.exit_code;
    if code.is_some_and(|code| NOT_EXECUTED.contains(&code)) {
        let said = String::from_utf8_lossy(&kept);
        // Docker tells its own failure in place of the program's output.
        if let Some(problem) = program_error(&said).filter(|_| said.starts_with("OCI runtime exec failed")) {
            return Err(RunError::Exec(problem));
        }
    }
    Ok(ExecOutcome { code: code.and_then(|code| i32::try_from(code).ok()), output: kept })
}

/// Docker has no call that ends an exec. Its process leads a group of its own, which is killed from outside, or, without the right to,
/// from inside the container.
async fn kill(docker: &Docker, name: &str, exec: &str) {
    let found = docker.inspect_exec(exec).await.ok().filter(|found| found.running == Some(true));
    let Some(pid) = found.and_then(|found| i32::try_from(found.pid?).ok()).filter(|pid| *pid > 1) else { return };
    // SAFETY: plain kill; Docker has just said that the process runs, and its number belongs to the exec alone.
    if unsafe { libc::kill(-pid, libc::SIGKILL) } == 0 {
        return;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:")).and_then(|pids| pids.split_whitespace().last());
    let Some(inside) = inside else { return };
    let options = CreateExecOptions {
        cmd: Some(vec!["kill".to_owned(), "-9".to_owned(), format!("-{inside}")]),
        user: Some("0".to_owned()),
        ..CreateExecOptions::<String>::default()
    };
    let killed = async {
        let killer = docker.create_exec(name, options).await?.id;
        docker.start_exec(&killer, Some(bollard::exec::StartExecOptions { detach: true, ..Default::default() })).await
    };
    if let Err(error) = killed.await {
        tracing::warn!(container = name, %error, "a process that took too long cannot be killed");
    }
}
