//! One container's folder: what is written at creation, read after a restart, and taken away at the end.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::images::store::ImageDefaults;
use crate::native::bundle::{self, Machine, ProcessPlan};
use crate::native::capabilities;
use crate::native::cgroups::Layout;
use crate::native::ids::Ids;
use crate::native::monitor::{self, Sighting};
use crate::native::security::SecurityOptions;
use crate::native::starter::Starter;
use crate::native::{holders, mounts};
use crate::port::{ContainerId, ContainerNetwork, ContainerSpec, ExecSpec, RunError, Sharing, StorageLimit};
use crate::quota;

/// The killed processes of a container need some time to be gone from their cgroup.
const CGROUP_ATTEMPTS: u32 = 200;
const CGROUP_PAUSE: Duration = Duration::from_millis(10);

/// After SIGKILL a process can only be held up by the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a start that an earlier life of the agent began may go on, and how often it is looked at.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const START_PAUSE: Duration = Duration::from_millis(5);

/// In the mark of a start: the container had ended before.
const AGAIN: &str = "again";

/// What a restarted agent needs to know; `container.json`.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// As given.
    pub spec: ContainerSpec,
    /// Its process.
    pub process: ProcessPlan,
    /// Its cgroup's path.
    pub cgroup: String,
    /// Signal that asks it to stop.
    pub stop_signal: i32,
    /// Capabilities it keeps.
    pub capabilities: Vec<String>,
    /// Its compiled seccomp filter.
    pub filter: Option<PathBuf>,
    /// Whether its processes can gain no rights by executing.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Its AppArmor profile.
    #[serde(default)]
    pub apparmor: Option<String>,
    /// What its users are on the machine; the same ones if none.
    #[serde(default)]
    pub ids: Option<Ids>,
}

/// A container that has a folder.
#[derive(Debug)]
pub struct Container {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is.
    pub record: Record,
    /// One start or removal at a time.
    pub turn: tokio::sync::Mutex<()>,
}

/// All that goes into a new container.
pub struct Plan<'a> {
    /// As given.
    pub spec: ContainerSpec,
    /// Its cgroup's path.
    pub cgroup: String,
    /// Its folder, which must not be there yet.
    pub folder: PathBuf,
    /// The monitor's program.
    pub monitor: PathBuf,
    /// Capabilities it keeps.
    pub capabilities: Vec<String>,
    /// Its compiled seccomp filter.
    pub filter: Option<PathBuf>,
    /// How else it is confined.
    pub security: SecurityOptions,
    /// The file that says which process holds what its task shares.
    pub holder: PathBuf,
    /// Folder of layer links.
    pub layers: PathBuf,
    /// Links of its layers, topmost first.
    pub lower: Vec<String>,
    /// This machine.
    pub machine: &'a Machine,
    /// What its users are on the machine.
    pub ids: Option<Ids>,
    /// The image's wishes.
    pub defaults: &'a ImageDefaults,
}

impl Plan<'_> {
    /// Checks everything, then writes the folder.
    ///
    /// # Errors
    /// [`RunError`]; then nothing is left.
    pub fn write(self) -> Result<Container, RunError> {
        check_names(&self.spec)?;
        if !self.spec.gpus.is_empty() {
            return Err(RunError::InvalidSpec("resourceRequirements: this runtime cannot give GPUs to containers".into()));
        }
        if matches!(self.spec.network, ContainerNetwork::Bridge(_) | ContainerNetwork::Isolated) {
            return Err(RunError::InvalidSpec("networkMode: this runtime has no networks of its own".into()));
        }
        let process = bundle::plan_process(&self.spec, self.defaults, &bundle::machine_name())?;
        let config = bundle::config(&self.spec, &process, &self.folder, &self.cgroup, self.machine, self.ids.is_some())?;
        let SecurityOptions { no_new_privileges, apparmor, .. } = self.security;
        let confinement = confinement(&self.capabilities, self.filter.as_deref(), no_new_privileges, apparmor.as_deref());
        let shared = holders::is_wanted_by(&self.spec).then(|| {
            json!({
                "holder": self.holder,
                "pid": self.spec.pid == Sharing::Task,
                "ipc": self.spec.ipc == Sharing::Task,
                "shared_memory_mib": self.spec.shared_memory_mib.unwrap_or(mounts::SHARED_MEMORY_MIB),
            })
        });
        let request = json!({
            "id": self.spec.id,
            "config": config,
            "hierarchies": self.machine.cgroups.hierarchies(),
            "layers": self.layers,
            "lower": self.lower,
            "confinement": confinement,
            "terminal": self.spec.terminal,
            "stdin_open": self.spec.stdin_open,
            "init": self.spec.init,
            "shared": shared,
            "ids": self.ids,
            "no_devices": !self.machine.cgroups.restricts_devices(),
            "user": process.user,
            "working_directory": process.working_directory,
            "monitor": self.monitor,
            "log_limit": self.spec.log_limit,
            "oom_file": self.machine.cgroups.oom_file(&self.cgroup),
        });
        let record = Record {
            stop_signal: bundle::stop_signal(&self.defaults.stop_signal),
            cgroup: self.cgroup,
            capabilities: self.capabilities,
            filter: self.filter,
            no_new_privileges,
            apparmor,
            ids: self.ids,
            spec: self.spec,
            process,
        };
        match std::fs::create_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(RunError::InvalidSpec(format!("id: container {} exists already", record.spec.id)));
            }
            result => result.map_err(|e| RunError::System(format!("make {}: {e}", self.folder.display())))?,
        }
        if let Some(StorageLimit { project, bytes }) = record.spec.storage
            && let Err(error) = quota::limit(&self.folder, project, bytes).and_then(|()| quota::assign(&self.folder, project))
        {
            let _ = std::fs::remove_dir(&self.folder);
            return Err(RunError::InvalidSpec(format!("ephemeralStorage: {}: {error}", self.folder.display())));
        }
        if let Err(error) = write_files(&self.folder, &record, &request) {
            let _ = std::fs::remove_dir_all(&self.folder);
            return Err(RunError::System(format!("write the container's folder: {error}")));
        }
        Ok(Container::new(self.folder, record))
    }
}

/// How a process of the container is confined, for the shim.
fn confinement(capabilities: &[String], filter: Option<&Path>, no_new_privileges: bool, apparmor: Option<&str>) -> serde_json::Value {
    let kept = capabilities::bits(capabilities.iter().map(String::as_str));
    json!({"capabilities": kept, "seccomp": filter, "no_new_privileges": no_new_privileges, "apparmor": apparmor})
}

fn write_files(folder: &Path, record: &Record, request: &serde_json::Value) -> io::Result<()> {
    for name in ["upper", "work"] {
        std::fs::create_dir(folder.join(name))?;
    }
    let machine_hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    std::fs::write(folder.join("hosts"), bundle::hosts(&record.spec, &record.process, &machine_hosts))?;
    std::fs::write(folder.join("hostname"), format!("{}\n", record.process.hostname))?;
    std::fs::write(folder.join("resolv.conf"), bundle::resolv_conf(&record.spec, &bundle::machine_resolv_conf()))?;
    std::fs::write(folder.join("request.json"), serde_json::to_vec(request)?)?;
    // Last, and whole or not at all: a folder without it was never finished.
    let unfinished = folder.join("container.json.new");
    std::fs::write(&unfinished, serde_json::to_vec(record)?)?;
    std::fs::rename(unfinished, folder.join("container.json"))
}

/// Names that become paths.
fn check_names(spec: &ContainerSpec) -> Result<(), RunError> {
    let plain = |text: &str, more: &[u8]| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || more.contains(&b))
    };
    if !plain(&spec.id.0, b"") {
        return Err(RunError::InvalidSpec(format!("id: {:?} is not 1 to 64 of [a-z0-9-]", spec.id.0)));
    }
    let parent = &spec.cgroup_parent;
    if !plain(&parent.to_ascii_lowercase(), b"_.") || parent.starts_with('.') {
        return Err(RunError::InvalidSpec(format!("cgroup_parent: {parent:?} is not 1 to 64 of [A-Za-z0-9-_.]")));
    }
    Ok(())
}

/// The containers in `folder`. Folders that were never finished are removed.
///
/// # Errors
/// Of the system.
pub fn load_all(folder: &Path) -> io::Result<HashMap<ContainerId, std::sync::Arc<Container>>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match std::fs::read(path.join("container.json")) {
            Ok(text) => {
                let parsed: Result<Record, _> = serde_json::from_slice(&text);
                match parsed {
                    Ok(record) => drop(all.insert(record.spec.id.clone(), std::sync::Arc::new(Container::new(path, record)))),
                    // Not removed: whatever it is, it may have a container running in it.
                    Err(error) => tracing::error!(folder = %path.display(), %error, "cannot read a container's record"),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::remove_dir_all(&path)?,
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

impl Container {
    fn new(folder: PathBuf, record: Record) -> Container {
        Container { folder, record, turn: tokio::sync::Mutex::new(()) }
    }

    /// Whether a start was tried and has not failed.
    pub fn was_started(&self) -> bool {
        self.folder.join("started").exists()
    }

    /// Writes the mark before the shim is asked, and in it who that is: an agent that dies meanwhile must find a start that goes on, or
    /// one that came to nothing, never "created" while a container comes up.
    ///
    /// # Errors
    /// Of the system.
    pub fn mark_started(&self, starter: Starter, again: bool) -> io::Result<()> {
        let (mark, text) = (self.folder.join("started"), starter.to_text());
        let text = if again { text + AGAIN + "\n" } else { text };
        // The first may be cut off: it names a process that was asked nothing, or none, and the container was never begun.
        match std::fs::OpenOptions::new().write(true).create_new(true).open(&mark) {
            Ok(mut file) => return io::Write::write_all(&mut file, text.as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        // Not in place: one that is cut off would no longer say that the container had ended before.
        let fresh = self.folder.join("started.new");
        std::fs::write(&fresh, text)?;
        std::fs::rename(fresh, mark)
    }

    /// The mark of the last start: its process, and whether the container had ended before.
    fn mark(&self) -> (Option<Starter>, bool) {
        let text = std::fs::read_to_string(self.folder.join("started")).unwrap_or_default();
        (Starter::parse(&text), text.lines().any(|line| line == AGAIN))
    }

    /// Whether it may be about to live again, so that its exit file says nothing: that is taken away when its program executes.
    pub fn may_be_reviving(&self) -> bool {
        let (starter, again) = self.mark();
        again && starter.is_some_and(Starter::is_alive)
    }

    /// Makes ready for another life what has ended: nothing of the last one is left but its files, its output and its exit. Whoever calls
    /// has its turn.
    ///
    /// # Errors
    /// With the step; the container has ended as before.
    pub async fn prepare_again(&self, cgroups: &Layout) -> io::Result<()> {
        if let (Some(monitor), _) = self.mark() {
            // The last thing it does is to take away its socket, which must not be the next one's.
            let patience = tokio::time::timeout(KILL_TIMEOUT, async {
                while monitor.is_alive() {
                    tokio::time::sleep(START_PAUSE).await;
                }
            });
            if patience.await.is_err() {
                monitor.kill();
            }
        }
        // A start that came to nothing may have left processes; and what the cgroup has counted, such as kills for memory, was the last life.
        cgroups.kill(&self.record.cgroup);
        remove_cgroup(cgroups, &self.record.cgroup).await?;
        self.forget_start();
        // A "volatile" overlay refuses to be mounted again on its work folder; what the container wrote is in the other.
        let work = self.folder.join("work");
        std::fs::remove_dir_all(&work)?;
        std::fs::create_dir(&work)
    }

    /// Takes away what a start leaves beside the mark.
    pub fn forget_start(&self) {
        for name in ["monitor.sock", "exit.json.new"] {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
    }

    /// What its folder says about it once no start is under way: one that an earlier life of the agent began may still be. Whoever calls
    /// has its turn.
    pub async fn settled_sighting(&self) -> Sighting {
        let (starter, again) = self.mark();
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            // In this order: what it wrote before its end is seen after it.
            let goes_on = starter.is_some_and(Starter::is_alive);
            let sighting = monitor::sight(&self.folder).await;
            let is_open = match sighting {
                Sighting::Nothing => true,
                // Of the life before, perhaps.
                Sighting::Exited(_) => again,
                Sighting::Running(_) => false,
            };
            if !is_open || !goes_on {
                return sighting;
            }
            if tokio::time::Instant::now() >= deadline {
                // It must not come round later.
                starter.into_iter().for_each(Starter::kill);
            }
            tokio::time::sleep(START_PAUSE).await;
        }
    }

    /// Whether a start that was marked came to nothing before there could be anything of the container: the agent died before it had
    /// asked the shim, which begins with the socket and with room for the exit file.
    pub fn was_never_begun(&self) -> bool {
        ["monitor.sock", "exit.json.new", "exit.json"].iter().all(|name| !self.folder.join(name).exists())
    }

    /// Back to "created", after a start that failed.
    pub fn reset(&self) {
        self.forget_start();
        let _ = std::fs::remove_file(self.folder.join("started"));
        // A "volatile" overlay cannot be mounted again on what it left.
        for name in ["upper", "work"] {
            let _ = std::fs::remove_dir_all(self.folder.join(name));
            let _ = std::fs::create_dir(self.folder.join(name));
        }
    }

    /// What `berth-shim exec` is told.
    ///
    /// # Errors
    /// [`RunError::InvalidSpec`].
    pub fn exec_request(&self, pid: i32, spec: ExecSpec, machine: &Machine) -> Result<Vec<u8>, RunError> {
        if spec.command.first().is_none_or(String::is_empty) {
            return Err(RunError::InvalidSpec("command: no command specified".into()));
        }
        let own = &self.record.process;
        let user = spec.user.unwrap_or_else(|| own.user.clone());
        let changed = |entry: &&String| !spec.environment.contains_key(entry.split('=').next().unwrap_or_default());
        let mut environment: Vec<String> = own.environment.iter().filter(changed).cloned().collect();
        environment.extend(spec.environment.iter().map(|(name, value)| format!("{name}={value}")));
        let Record { capabilities, filter, no_new_privileges, apparmor, ids, .. } = &self.record;
        let request = json!({
            "pid": pid,
            "cgroup": self.record.cgroup,
            "hierarchies": machine.cgroups.hierarchies(),
            "process": {"args": spec.command, "env": environment, "rlimits": bundle::rlimits(&self.record.spec, machine)?},
            "confinement": confinement(capabilities, filter.as_deref(), *no_new_privileges, apparmor.as_deref()),
            "ids": ids,
            "user": user,
            "working_directory": own.working_directory,
        });
        serde_json::to_vec(&request).map_err(|e| RunError::System(format!("write the request: {e}")))
    }

    /// Ends it if it runs, and takes everything of it away.
    ///
    /// # Errors
    /// With the step; calling again goes on.
    pub async fn remove(&self, cgroups: &Layout) -> io::Result<()> {
        let cgroup = &self.record.cgroup;
        let ended = self.was_started() && matches!(self.settled_sighting().await, Sighting::Exited(_));
        if ended && self.mark().1 {
            // A start that came to nothing at its very end may have left processes.
            cgroups.kill(cgroup);
        }
        if self.was_started() && !ended {
            if monitor::signal(&self.folder, libc::SIGKILL).await? {
                let ended = tokio::time::timeout(KILL_TIMEOUT, monitor::wait(&self.folder)).await;
                ended.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it does not end after SIGKILL"))?;
            }
            // One without a monitor: its processes may still be there.
            cgroups.kill(cgroup);
        }
        remove_cgroup(cgroups, cgroup).await?;
        let folder = self.folder.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&folder)).await.map_err(io::Error::other)?;
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Removes a container's cgroup whose processes are ending.
///
/// # Errors
/// Of the system.
pub async fn remove_cgroup(cgroups: &Layout, path: &str) -> io::Result<()> {
    for _ in 0..CGROUP_ATTEMPTS {
        match cgroups.remove_tree(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => tokio::time::sleep(CGROUP_PAUSE).await,
            result => return result,
        }
    }
    cgroups.remove_tree(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_agent_did_not_finish_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let half = folder.path().join("half");
        std::fs::create_dir_all(half.join("upper")).unwrap();
        std::fs::write(half.join("container.json.new"), r#"{"spec": {"id": "ha"#).unwrap();
        assert!(load_all(folder.path()).unwrap().is_empty() && !half.exists());
        // One that has its name is never taken away: a container may be running in it.
        let damaged = folder.path().join("damaged");
        std::fs::create_dir_all(&damaged).unwrap();
        std::fs::write(damaged.join("container.json"), "?").unwrap();
        assert!(load_all(folder.path()).unwrap().is_empty() && damaged.exists());
    }
}
