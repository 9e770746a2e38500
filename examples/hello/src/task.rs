//! The task's ARN, from the task metadata endpoint version 4 (ECS developer guide, "Task metadata endpoint version 4").

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// An endpoint on the same machine answers in a millisecond; a page must not wait longer than this for it.
const PATIENCE: Duration = Duration::from_millis(500);
/// After a failure nobody asks again for so long.
const REST: Duration = Duration::from_secs(5);
/// A task's metadata are a few kilobytes.
const MAX_ANSWER: u64 = 256 * 1024;

/// The ARN, asked for when first needed and then kept.
pub struct TaskArn {
    endpoint: Option<String>,
    state: Mutex<State>,
}

enum State {
    Known(String),
    Unknown { ask_after: Option<Instant> },
}

impl TaskArn {
    pub fn from_environment() -> TaskArn {
        let endpoint = std::env::var("ECS_CONTAINER_METADATA_URI_V4").ok();
        TaskArn { endpoint, state: Mutex::new(State::Unknown { ask_after: None }) }
    }

    /// None when this is no task, or its metadata cannot be had right now.
    pub fn get(&self) -> Option<String> {
        let endpoint = self.endpoint.as_deref()?;
        let mut state = self.state.lock().expect("nobody panics with the ARN");
        match &*state {
            State::Known(arn) => return Some(arn.clone()),
            State::Unknown { ask_after: Some(when) } if Instant::now() < *when => return None,
            State::Unknown { .. } => {}
        }
        let found = fetch(endpoint).ok().and_then(|answer| member(&answer, "TaskARN"));
        *state = match &found {
            Some(arn) => State::Known(arn.clone()),
            None => State::Unknown { ask_after: Some(Instant::now() + REST) },
        };
        found
    }
}

fn fetch(endpoint: &str) -> io::Result<String> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the metadata endpoint is not http://ADDRESS/PATH");
    let rest = endpoint.strip_prefix("http://").ok_or_else(invalid)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // An address, never a name: a static program has no resolver to rely on.
    let address: SocketAddr = host.parse().or_else(|_| format!("{host}:80").parse()).map_err(|_: std::net::AddrParseError| invalid())?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /{path}/task HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// A text member of a JSON object, found without a parser: an ARN has no character that JSON escapes.
fn member(json: &str, name: &str) -> Option<String> {
    let rest = json.split_once(&format!("\"{name}\""))?.1.trim_start().strip_prefix(':')?.trim_start();
    let value = rest.strip_prefix('"')?.split('"').next()?;
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members() {
        assert_eq!(member(r#"{"A":1, "TaskARN" : "arn:x", "B":"y"}"#, "TaskARN").as_deref(), Some("arn:x"));
        assert_eq!(member(r#"{"TaskARN":null}"#, "TaskARN"), None);
        assert_eq!(member("HTTP/1.0 404", "TaskARN"), None);
    }
}
