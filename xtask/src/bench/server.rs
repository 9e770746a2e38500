//! A Berth of the bench's own: on a free port, in a folder of its own, ended and cleaned up however the bench ends.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_identity::AccessKey;
use berth_identity::credentials_file::parse;
use serde_json::Value;

use super::wait;

/// How long Berth may take to be ready or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Berth.
pub(super) struct Berth {
    child: Child,
    pub(super) dir: PathBuf,
    pub(super) authority: String,
    pub(super) key: AccessKey,
    /// From starting the process to `/healthz` answering 200.
    pub(super) ready_after: Duration,
}

impl Berth {
    /// Starts `berth ROLE` out of the release build.
    pub(super) fn start(role: &str, extra: &[&str]) -> Result<Self, Box<dyn Error>> {
        let binary = binary("berth")?;
        let dir = std::env::temp_dir().join(format!("berth-bench-{}-{}", std::process::id(), role));
        std::fs::create_dir_all(&dir)?;
        // Free now; another process could take it meanwhile, and then Berth says so.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let authority = format!("127.0.0.1:{port}");
        let log = std::fs::File::create(dir.with_extension("log"))?;
        let started = Instant::now();
        let child = Command::new(binary)
            .arg("--log=warn")
            .arg(role)
            .arg("--data-dir")
            .arg(&dir)
            .args(["--listen", &authority])
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut berth = Self { child, dir, authority, key: AccessKey::long_term("", "", ""), ready_after: Duration::ZERO };
        let ready = wait::until(PATIENCE, Duration::from_micros(200), || {
            if berth.is_ready() {
                return Ok(Some(()));
            }
            let Some(status) = berth.child.try_wait()? else { return Ok(None) };
            let log = std::fs::read_to_string(berth.dir.with_extension("log")).unwrap_or_default();
            Err(format!("berth {role} ended with {status}: {log}").into())
        });
        ready?.ok_or_else(|| format!("berth {role} is not ready after {PATIENCE:?}"))?;
        berth.ready_after = started.elapsed();
        let text = std::fs::read_to_string(berth.dir.join("credentials"))?;
        let profile = parse(&text)?.into_iter().next().ok_or("the credentials file is empty")?;
        berth.key = AccessKey::long_term(profile.access_key_id, profile.secret.expose(), "");
        Ok(berth)
    }

    fn is_ready(&self) -> bool {
        use std::io::{Read, Write};
        let Ok(mut stream) = std::net::TcpStream::connect(&self.authority) else { return false };
        let request = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.authority);
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    /// Resident memory of the process, in MiB.
    pub(super) fn resident_mib(&self) -> Result<f64, Box<dyn Error>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// Loads an image archive into the registry.
    pub(super) fn load_image(&self, archive: &Path, name: &str) -> Result<(), Box<dyn Error>> {
        let status = Command::new(binary("berth")?)
            .args(["image", "load"])
            .arg(archive)
            .arg(name)
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.authority))
            .env("AWS_ACCESS_KEY_ID", &self.key.id)
            .env("AWS_SECRET_ACCESS_KEY", self.key.secret.expose())
            .env("AWS_REGION", "us-east-1")
            .stdout(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err(format!("berth image load ended with {status}").into()) }
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        signal(self.child.id(), "USR1");
        // One that has not ended by then is killed.
        let _ = wait::until(PATIENCE, Duration::from_millis(10), || Ok(self.child.try_wait()?));
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
        let _ = std::fs::remove_file(self.dir.with_extension("log"));
    }
}

/// Sends a signal to a process of ours.
pub(super) fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
}

/// A program of the release build.
pub(super) fn binary(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = crate::workspace().join("target/release").join(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is not built; run `make build`", path.display()).into()) }
}

/// A string member of an answer.
pub(super) fn text(value: &Value, pointer: &str) -> Result<String, Box<dyn Error>> {
    Ok(value.pointer(pointer).and_then(Value::as_str).ok_or_else(|| format!("the answer has no {pointer}: {value}"))?.to_owned())
}
