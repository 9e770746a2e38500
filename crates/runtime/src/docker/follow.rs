//! Follows the output of containers from Docker's log into their own files, for as long as they run.

use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::engine::{status, text};
use super::log_file::{LogFile, Stream};

/// Between two questions to a daemon that does not answer, or whose stream broke off.
const PAUSE: Duration = Duration::from_millis(200);

/// Messages that are written with one call, if so many are there.
const TOGETHER: usize = 256;

/// One container's follower; it ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    work: JoinHandle<()>,
    over: watch::Receiver<bool>,
}

impl Follower {
    /// Follows the container called `name` in Docker into `folder`, which keeps at most `limit` bytes.
    #[must_use]
    pub fn start(docker: Docker, name: String, folder: PathBuf, limit: u64) -> Follower {
        let (tell, over) = watch::channel(false);
        let work = tokio::spawn(async move {
            match LogFile::open(&folder, limit) {
                Ok(mut log) => follow(&docker, &name, &mut log).await,
                Err(error) => tracing::error!(container = name, %error, "a container's log cannot be opened"),
            }
            tell.send_replace(true);
        });
        Follower { work, over }
    }

    /// Tells when everything that the container said is in its files.
    #[must_use]
    pub fn over(&self) -> watch::Receiver<bool> {
        self.over.clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Files are written by single calls, between which alone it can be ended.
        self.work.abort();
    }
}

async fn follow(docker: &Docker, name: &str, log: &mut LogFile) {
    loop {
        read(docker, name, log, true).await;
        match docker.inspect_container(name, None).await {
            Ok(found) if found.state.as_ref().and_then(|state| state.running) == Some(true) => {}
            Ok(_) => {
                // A stream that ends with its container may have been a little faster than the last lines; now they are all there.
                read(docker, name, log, false).await;
                return;
            }
            Err(error) if status(&error) == 404 => return,
            Err(error) => tracing::debug!(container = name, error = text(&error), "Docker does not say how a container is"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn read(docker: &Docker, name: &str, log: &mut LogFile, follow: bool) {
    let since = i32::try_from(log.begin()).unwrap_or(i32::MAX);
    let options =
        LogsOptions { follow, stdout: true, stderr: true, timestamps: true, since, tail: "all".to_owned(), ..LogsOptions::default() };
    let mut messages = docker.logs(name, Some(options)).ready_chunks(TOGETHER).boxed();
    while let Some(chunk) = messages.next().await {
        let told = chunk.iter().filter_map(|item| match item {
            Ok(LogOutput::StdErr { message }) => Some((Stream::Err, message.as_ref())),
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message }) => {
                Some((Stream::Out, message.as_ref()))
            }
            Err(_) => None,
        });
        if let Err(error) = log.write(told) {
            // A full disk takes lines, not the container: what Docker still has is read again, from what stands in the files.
            tracing::warn!(container = name, %error, "a container's log cannot be written");
            if let Err(error) = log.reopen() {
                tracing::warn!(container = name, %error, "nor can it be opened again");
            }
            return;
        }
        if let Some(error) = chunk.iter().find_map(|item| item.as_ref().err()) {
            tracing::debug!(container = name, error = text(error), "a container's log broke off");
            return;
        }
    }
}
