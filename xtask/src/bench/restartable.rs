//! A `berth server` that the bench kills and starts again over the same data, on the same port.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_identity::AccessKey;
use berth_identity::credentials_file::parse;

use super::client::Client;
use super::scratch::{Process, free_port};
use super::server::binary;
use super::wait;

/// How long it may take to be ready, even with a million tasks on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running server. Dropping it kills it; its data stay.
pub(super) struct Server {
    pub(super) process: Process,
    pub(super) authority: String,
    pub(super) key: AccessKey,
    /// From starting the process to `/healthz` answering 200.
    pub(super) ready_after: Duration,
}

impl Server {
    /// Starts it over a folder's data, on a free port.
    pub(super) fn start(data: &Path) -> Result<Self, Box<dyn Error>> {
        Self::start_with(data, None, &[])
    }

    /// Starts it on the given address.
    pub(super) fn start_at(data: &Path, authority: &str) -> Result<Self, Box<dyn Error>> {
        Self::start_with(data, Some(authority), &[])
    }

    /// Starts it with further arguments.
    pub(super) fn start_with(data: &Path, authority: Option<&str>, arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let free = format!("127.0.0.1:{}", free_port());
        let authority = authority.unwrap_or(&free);
        let log = data.join("bench.log");
        let mut command = Command::new(binary("berth")?);
        command.args(["--log=warn", "server", "--listen", authority, "--data-dir"]).arg(data).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // Looked at in short sleeps: how fast it is there is what is measured.
        command.stderr(std::fs::File::options().create(true).append(true).open(&log)?);
        let started = Instant::now();
        let mut process = Process::spawn(&mut command)?;
        let ready = wait::until(PATIENCE, Duration::from_micros(500), || {
            if is_ready(authority) {
                return Ok(Some(()));
            }
            let Some(status) = process.child.try_wait()? else { return Ok(None) };
            Err(format!("berth server ended with {status}: {}", std::fs::read_to_string(&log).unwrap_or_default()).into())
        });
        ready?.ok_or_else(|| format!("berth server is not ready after {PATIENCE:?}"))?;
        let ready_after = started.elapsed();
        let text = std::fs::read_to_string(data.join("credentials"))?;
        let profile = parse(&text)?.into_iter().next().ok_or("the credentials file is empty")?;
        let key = AccessKey::long_term(profile.access_key_id, profile.secret.expose(), "");
        Ok(Self { process, authority: authority.to_owned(), key, ready_after })
    }

    pub(super) fn client(&self) -> Result<Client, Box<dyn Error>> {
        Client::connect(&self.authority, &self.key)
    }
}

fn is_ready(authority: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(authority) else { return false };
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}
