//! The connection to the Docker Engine, and what its answers mean.
//!
//! <https://docs.docker.com/reference/api/engine/>

use std::path::Path;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};

use crate::port::{ContainerId, RunError};

/// Docker's own place of its socket.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// The oldest API that is spoken: Docker 20.10's. One before it has no single reading of statistics.
const OLDEST_API: (usize, usize) = (1, 41);

/// Until an answer begins. Loading a large image says nothing until its last layer is in.
const ANSWER_TIMEOUT_SECONDS: u64 = 1800;

/// Why there is no Docker to work with. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not a socket of this machine: bind mounts, ports and process ids would be another's.
    #[error("DOCKER_HOST is {0}; only unix:// sockets of this machine can be used")]
    NotLocal(String),
    /// Nothing answers.
    #[error("Docker does not answer at {host}: {problem}")]
    Silent {
        /// The address.
        host: String,
        /// What happened.
        problem: String,
    },
    /// It is too old.
    #[error("Docker at {host} speaks API {found}; Berth needs 1.41 (Docker 20.10) or newer")]
    TooOld {
        /// The address.
        host: String,
        /// Its version.
        found: String,
    },
}

/// Connects to `host` (`unix://PATH`), in the newest version of the API that both sides speak.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(host: &str) -> Result<Docker, ConnectError> {
    let path = host.strip_prefix("unix://").ok_or_else(|| ConnectError::NotLocal(host.to_owned()))?;
    let silent = |problem: String| ConnectError::Silent { host: host.to_owned(), problem };
    if !Path::new(path).exists() {
        return Err(silent("there is no such socket".to_owned()));
    }
    let docker = Docker::connect_with_unix(host, ANSWER_TIMEOUT_SECONDS, API_DEFAULT_VERSION).map_err(|error| silent(text(&error)))?;
    let docker = docker.negotiate_version().await.map_err(|error| silent(text(&error)))?;
    let version = docker.client_version();
    if (version.major_version, version.minor_version) < OLDEST_API {
        return Err(ConnectError::TooOld { host: host.to_owned(), found: version.to_string() });
    }
    Ok(docker)
}

/// What Docker says, without the library's own words around it; with the causes where the connection itself failed.
#[must_use]
pub fn text(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        other => crate::images::registry::chain(other),
    }
}

/// The status of a refusal; 0 where there was no answer.
#[must_use]
pub fn status(error: &Error) -> u16 {
    match error {
        Error::DockerResponseServerError { status_code, .. } => *status_code,
        _ => 0,
    }
}

/// Why something that concerns a container failed.
#[must_use]
pub fn run_error(error: &Error, id: &ContainerId, step: &str) -> RunError {
    let said = text(error);
    if let Some(problem) = program_error(&said) {
        return RunError::Exec(problem);
    }
    // Docker looks at devices only now.
    if said.contains("error gathering device information") {
        return RunError::InvalidSpec(format!("linuxParameters.devices: {said}"));
    }
    match status(error) {
        404 => RunError::NoContainer(id.clone()),
        _ => RunError::System(format!("{step}: {said}")),
    }
}

/// The part of a start's failure that is the program's own fault, as runc says it:
/// `.. exec: "x": executable file not found in $PATH: unknown`.
#[must_use]
pub fn program_error(said: &str) -> Option<String> {
    let begins = said.rfind("exec: \"")?;
    let problem = said[begins..].trim_end();
    Some(problem.strip_suffix(": unknown").unwrap_or(problem).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_fault_is_taken_out_of_runcs_words() {
        let said = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \
                    \"nothing\": executable file not found in $PATH: unknown\r\n";
        assert_eq!(program_error(said).unwrap(), "exec: \"nothing\": executable file not found in $PATH");
        assert_eq!(program_error("driver failed programming external connectivity"), None);
    }

    #[test]
    fn answers_become_errors_of_the_port() {
        let id = ContainerId("c".to_owned());
        let answer = |status_code, message: &str| Error::DockerResponseServerError { status_code, message: message.to_owned() };
        assert!(matches!(run_error(&answer(404, "No such container: c"), &id, "x"), RunError::NoContainer(_)));
        assert!(matches!(
            run_error(&answer(404, "exec: \"/a\": stat /a: no such file or directory: unknown"), &id, "x"),
            RunError::Exec(_)
        ));
        assert_eq!(run_error(&answer(500, "no room"), &id, "start container c").to_string(), "start container c: no room");
    }

    #[tokio::test]
    async fn addresses_that_cannot_be_used_are_named() {
        assert!(matches!(connect("tcp://10.0.0.1:2375").await, Err(ConnectError::NotLocal(_))));
        let error = connect("unix:///nonexistent/docker.sock").await.expect_err("nobody is there").to_string();
        assert_eq!(error, "Docker does not answer at unix:///nonexistent/docker.sock: there is no such socket");
    }
}
