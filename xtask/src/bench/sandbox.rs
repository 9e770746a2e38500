//! A server and an agent as processes of their own, in network and mount namespaces that nothing else is in: however they end, what they
//! made there ends with them.

use std::error::Error;
use std::fs::File;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_identity::AccessKey;
use berth_identity::credentials_file::parse;
use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::client::Client;
use super::namespace::Network;
use super::scratch::{Ending, Folder, Process, prepare};
use super::server::binary;
use super::wait;

/// Nobody else is there, so that any port will do.
const AUTHORITY: &str = "127.0.0.1:4566";
/// How long each of the two may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The two. The agent goes first when this is dropped.
pub(super) struct Sandbox {
    pub(super) agent: Process,
    server: Process,
    key: AccessKey,
    network: Network,
    folder: Folder,
}

/// Berth's own letters for a data directory, in the names of its cgroups and links.
pub(super) fn short_name(data: &Path) -> Result<String, Box<dyn Error>> {
    let digest = Sha256::digest(data.canonicalize()?.as_os_str().as_bytes());
    Ok(hex::encode(digest).chars().take(8).collect())
}

impl Sandbox {
    pub(super) fn start() -> Result<Self, Box<dyn Error>> {
        prepare()?;
        let folder = Folder::make("apart")?;
        let (server_data, agent_data) = (folder.path().join("server"), folder.path().join("agent"));
        std::fs::create_dir(&agent_data)?;
        let berth = binary("berth")?;
        let mut command = Command::new("unshare");
        // Loopback is down in a new namespace. The shell becomes the server.
        command.args(["--net", "--mount", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).arg(&berth);
        command.args(["--log=warn", "server", "--listen", AUTHORITY, "--data-dir"]).arg(&server_data);
        let ending = Ending { signal: Some(Signal::TERM), ..Ending::default() };
        let server = Process::spawn_with(quiet(&mut command, &folder.path().join("server.log"))?, ending)?;
        // Written once it serves.
        let credentials = wait::until(PATIENCE, Duration::from_millis(20), || {
            let serves = server_data.join("endpoint.json").exists();
            Ok(serves.then(|| std::fs::read_to_string(server_data.join("credentials")).ok()).flatten())
        });
        let credentials = credentials?.ok_or_else(|| format!("berth server is not ready: {}", said(&folder, "server.log")))?;
        let profile = parse(&credentials)?.into_iter().next().ok_or("the credentials file is empty")?;
        let key = AccessKey::long_term(profile.access_key_id, profile.secret.expose(), "");
        let network = Network::of(server.child.id())?;

        let mut command = beside(&server);
        command.arg(&berth).args(["--log=warn", "agent"]);
        command.env("ECS_CLUSTER", "default").env("ECS_BACKEND_HOST", format!("http://{AUTHORITY}")).env("ECS_DATADIR", &agent_data);
        command.env("ECS_EXTERNAL", "true").env("AWS_DEFAULT_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", key.secret.expose());
        // An agent leaves its tasks running; here they end with it.
        let ending = Ending { signal: Some(Signal::TERM), agent: Some(short_name(&agent_data)?), ..Ending::default() };
        let agent = Process::spawn_with(quiet(&mut command, &folder.path().join("agent.log"))?, ending)?;
        let sandbox = Self { agent, server, key, network, folder };
        let mut client = sandbox.client()?;
        let connected = wait::until(PATIENCE, Duration::from_millis(20), || {
            let listed = client.call("ListContainerInstances", &json!({}));
            let Some(arns) = listed.ok().map(|found| found["containerInstanceArns"].clone()).filter(|arns| !arns[0].is_null()) else {
                return Ok(None);
            };
            let found = client.call("DescribeContainerInstances", &json!({"containerInstances": arns}))?;
            Ok((found["containerInstances"][0]["agentConnected"] == true).then_some(()))
        });
        connected?.ok_or_else(|| format!("berth agent is not connected: {}", said(&sandbox.folder, "agent.log")))?;
        Ok(sandbox)
    }

    pub(super) fn client(&self) -> Result<Client, Box<dyn Error>> {
        let stream = self.network.inside(|| TcpStream::connect(AUTHORITY))?;
        Client::over(stream, AUTHORITY, &self.key)
    }

    /// Where the agent's data are.
    pub(super) fn agent_data(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// Loads an image archive into the server's registry.
    pub(super) fn load_image(&self, archive: &Path, name: &str) -> Result<(), Box<dyn Error>> {
        let mut command = beside(&self.server);
        command.arg(binary("berth")?).args(["image", "load"]).arg(archive).arg(name);
        command.env("AWS_ENDPOINT_URL", format!("http://{AUTHORITY}")).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", &self.key.id).env("AWS_SECRET_ACCESS_KEY", self.key.secret.expose());
        let status = command.stdout(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(format!("berth image load ended with {status}").into()) }
    }
}

/// A command in the namespaces of the server.
fn beside(server: &Process) -> Command {
    let mut command = Command::new("nsenter");
    let pid = server.child.id();
    command.arg(format!("--net=/proc/{pid}/ns/net")).arg(format!("--mount=/proc/{pid}/ns/mnt")).arg("--");
    command
}

fn quiet<'a>(command: &'a mut Command, log: &Path) -> Result<&'a mut Command, Box<dyn Error>> {
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?))
}

fn said(folder: &Folder, log: &str) -> String {
    std::fs::read_to_string(folder.path().join(log)).unwrap_or_default()
}
