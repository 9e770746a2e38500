//! Calls whoever stands in for a hook's Lambda function: the event goes in as JSON, the answer's bytes come out, bounded in size. How long
//! it may take is the caller's.

use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::HookTarget;

/// Largest answer; one has three members, of which `hookDetails` alone may be large.
const MAX_ANSWER: usize = 16 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("{0} cannot be reached: {1}")]
    Unreachable(HookTarget, String),
    #[error("{0} answered with HTTP status {1}")]
    Status(HookTarget, u16),
    #[error("{0} cannot be run: {1}")]
    NotRun(HookTarget, std::io::Error),
    #[error("{0} ended with {1}")]
    Ended(HookTarget, std::process::ExitStatus),
    #[error("the answer of {0} is larger than {MAX_ANSWER} bytes")]
    TooLarge(HookTarget),
}

/// Calls.
pub(super) async fn call(target: &HookTarget, event: Vec<u8>) -> Result<Vec<u8>, CallError> {
    match target {
        HookTarget::Url(url) => post(target, url, event).await,
        HookTarget::Command(path) => run(target, path, event).await,
    }
}

async fn post(target: &HookTarget, url: &Url, event: Vec<u8>) -> Result<Vec<u8>, CallError> {
    let failed = |error: &reqwest::Error| CallError::Unreachable(target.clone(), innermost(error));
    let http = client(url.scheme() == "http").map_err(|problem| CallError::Unreachable(target.clone(), problem))?;
    let call = http.post(url.clone()).header("content-type", "application/json").body(event);
    let mut response = call.send().await.map_err(|error| failed(&error))?;
    if !response.status().is_success() {
        return Err(CallError::Status(target.clone(), response.status().as_u16()));
    }
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        answer.extend_from_slice(&chunk);
        if answer.len() > MAX_ANSWER {
            return Err(CallError::TooLarge(target.clone()));
        }
    }
    Ok(answer)
}

/// Clients are made at the first call: few servers make one. Without TLS there is nobody to trust, and machines without certificates need
/// none.
fn client(is_plain: bool) -> Result<reqwest::Client, String> {
    static PLAIN: OnceLock<reqwest::Client> = OnceLock::new();
    static SECURE: OnceLock<reqwest::Client> = OnceLock::new();
    let known = if is_plain { &PLAIN } else { &SECURE };
    if let Some(client) = known.get() {
        return Ok(client.clone());
    }
    // Fails only where somebody installed one before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(reqwest::redirect::Policy::none());
    let builder = if is_plain { builder.no_proxy().tls_certs_only([]) } else { builder };
    let client = builder.build().map_err(|error| format!("no HTTP client: {error}"))?;
    Ok(known.get_or_init(|| client).clone())
}

/// reqwest's own text says only that sending failed; the reason is at the chain's end.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Ended with the call, should that be given up. The server's own settings, a store's password among them, are not the command's.
async fn run(target: &HookTarget, path: &Path, event: Vec<u8>) -> Result<Vec<u8>, CallError> {
    let failed = |error| CallError::NotRun(target.clone(), error);
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BERTH_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // Who does not read the event does not want it.
            let _ = stdin.write_all(&event).await;
        }
    };
    let read = async {
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_ANSWER as u64 + 1).read_to_end(&mut answer).await?;
        }
        Ok(answer)
    };
    let ((), answer) = tokio::join!(write, read);
    let answer = answer.map_err(failed)?;
    if answer.len() > MAX_ANSWER {
        return Err(CallError::TooLarge(target.clone()));
    }
    let status = child.wait().await.map_err(failed)?;
    if status.success() { Ok(answer) } else { Err(CallError::Ended(target.clone(), status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn command(path: &str) -> Result<Vec<u8>, CallError> {
        call(&HookTarget::Command(path.into()), b"{\"a\":1}".to_vec()).await
    }

    #[tokio::test]
    async fn a_command_reads_the_event_and_writes_the_answer() {
        assert_eq!(command("/bin/cat").await.unwrap(), b"{\"a\":1}");
        assert!(matches!(command("/bin/false").await, Err(CallError::Ended(..))));
        assert!(matches!(command("/nonexistent/hook").await, Err(CallError::NotRun(..))));
        assert!(matches!(command("/usr/bin/yes").await, Err(CallError::TooLarge(_))));
    }
}
