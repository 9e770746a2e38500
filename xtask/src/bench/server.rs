//! A Berth of the bench's own: on a free port, in a folder of its own, ended and cleaned up however the bench ends.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_identity::AccessKey;
use berth_identity::credentials_file::parse;
use rustix::process::Signal;
use serde_json::Value;

use super::scratch::{Ending, Folder, Process, free_port, prepare};
use super::{sandbox::short_name, wait};

/// How long Berth may take to be ready or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Berth. Dropping it ends its tasks and all of it.
pub(super) struct Berth {
    process: Process,
    folder: Folder,
    pub(super) authority: String,
    pub(super) key: AccessKey,
    /// From starting the process to `/healthz` answering 200.
    pub(super) ready_after: Duration,
}

impl Berth {
    /// Starts `berth ROLE` out of the release build.
    pub(super) fn start(role: &str, extra: &[&str]) -> Result<Self, Box<dyn Error>> {
        Self::start_with(role, extra, &[])
    }

    /// The same with variables in its environment.
    pub(super) fn start_with(role: &str, extra: &[&str], variables: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        prepare()?;
        let binary = binary("berth")?;
        let folder = Folder::make(role)?;
        let data = folder.path().join("data");
        let authority = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(binary);
        command.arg("--log=warn").arg(role).arg("--data-dir").arg(&data).args(["--listen", &authority]).args(extra);
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(folder.path().join("log"))?);
        std::fs::create_dir(&data)?;
        let agent = Some(short_name(&data)?);
        let ending = Ending { signal: Some(Signal::USR1), agent, ..Ending::default() };
        let started = Instant::now();
        let process = Process::spawn_with(&mut command, ending)?;
        let mut berth = Self { process, folder, authority, key: AccessKey::long_term("", "", ""), ready_after: Duration::ZERO };
        let ready = wait::until(PATIENCE, Duration::from_micros(200), || {
            if berth.is_ready() {
                return Ok(Some(()));
            }
            let Some(status) = berth.process.child.try_wait()? else { return Ok(None) };
            let log = std::fs::read_to_string(berth.folder.path().join("log")).unwrap_or_default();
            Err(format!("berth {role} ended with {status}: {log}").into())
        });
        ready?.ok_or_else(|| format!("berth {role} is not ready after {PATIENCE:?}"))?;
        berth.ready_after = started.elapsed();
        let text = std::fs::read_to_string(data.join("credentials"))?;
        let profile = parse(&text)?.into_iter().next().ok_or("the credentials file is empty")?;
        berth.key = AccessKey::long_term(profile.access_key_id, profile.secret.expose(), "");
        Ok(berth)
    }

    /// Where its data are.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
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
        Ok(self.process.resident()? / f64::from(1 << 20))
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

/// Sends a signal to a process of ours.
pub(super) fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
}

/// A program of the release build, or of the folder that `BERTH_BENCH_BIN` names.
pub(super) fn binary(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let folder = std::env::var_os("BERTH_BENCH_BIN").map_or_else(|| crate::workspace().join("target/release"), PathBuf::from);
    let path = folder.join(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is not built; run `make build`", path.display()).into()) }
}

/// A string member of an answer.
pub(super) fn text(value: &Value, pointer: &str) -> Result<String, Box<dyn Error>> {
    Ok(value.pointer(pointer).and_then(Value::as_str).ok_or_else(|| format!("the answer has no {pointer}: {value}"))?.to_owned())
}
