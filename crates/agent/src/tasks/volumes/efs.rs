//! EFS file systems on this machine: an NFS server's export is mounted once, for as long as a task uses it; a task sees the directory that
//! it asked for by a mount of its own, which goes with its volumes and which a restarted agent finds.
//!
//! A server that does not answer holds up whoever asks it anything, and a thread that waits for one cannot be called back. So all of it
//! happens in a child process that is killed when it takes too long; the agent itself never looks into such a file system.

mod steps;

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;

use self::steps::{Failed, Prefix, Step, Steps};
use super::mounted_at;
use crate::config::EfsBackend;
use crate::plan::EfsMount;

/// How long a file system may take to be mounted. Longer than a server that is being restarted, shorter than people wait for a task.
const PATIENCE: Duration = Duration::from_secs(60);

/// One at a time makes or lets go of the mounts of one file system; others are not kept waiting by it.
#[derive(Debug, Default)]
pub struct EfsTurns(Mutex<HashMap<String, Arc<Mutex<()>>>>);

impl EfsTurns {
    fn of(&self, file_system: &str) -> Arc<Mutex<()>> {
        self.0.lock().entry(file_system.to_owned()).or_default().clone()
    }
}

/// Has a task's directory mounted. `Err` is a reason with its class.
pub fn ensure(wanted: &EfsMount, turns: &EfsTurns) -> Result<(), String> {
    ensure_within(wanted, turns, PATIENCE)
}

fn ensure_within(wanted: &EfsMount, turns: &EfsTurns, patience: Duration) -> Result<(), String> {
    let turn = turns.of(&wanted.file_system_id);
    let _turn = turn.lock();
    let failed = |problem: String| format!("ResourceInitializationError: EFS file system {}: {problem}", wanted.file_system_id);
    let io_failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| failed(format!("{path}: {error}"))
    };
    let place = mount_point(&wanted.folder).map_err(io_failed(&wanted.folder))?;
    if mounted_at(&place).map_err(io_failed(&place))? {
        return Ok(());
    }
    let (base, nfs) = match &wanted.backend {
        EfsBackend::Directory(folder) => (folder.clone(), None),
        EfsBackend::Nfs { host, port, export } => {
            let whole = mount_point(&wanted.whole).map_err(io_failed(&wanted.whole))?;
            let nfs = match mounted_at(&whole).map_err(io_failed(&whole))? {
                true => None,
                false => Some(nfs_mount(resolve(host, *port).map_err(failed)?, *port, export)),
            };
            (whole, nfs)
        }
    };
    let steps = plan(wanted, &base, &place, nfs).map_err(|error| failed(error.to_string()))?;
    steps.run(patience).map_err(|problem| failed(say(wanted, &problem, patience)))
}

/// A directory to mount on; only what is above it is looked at, for it may be a mount already that does not answer.
fn mount_point(folder: &Path) -> io::Result<PathBuf> {
    let (parent, name) = (folder.parent().unwrap_or(Path::new("/")), folder.file_name().unwrap_or_default());
    fs::create_dir_all(parent)?;
    let place = parent.canonicalize()?.join(name);
    match fs::create_dir(&place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(place),
    }
}

fn resolve(host: &str, port: u16) -> Result<IpAddr, String> {
    let found = (host, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.next();
    found.map(|address| address.ip()).ok_or_else(|| format!("{host} has no address"))
}

/// Device and options of mount(2), with those that amazon-efs-utils uses: a file system that comes back after a while is better than files
/// that break, and a fresh source port makes the server know the client again.
/// <https://docs.aws.amazon.com/efs/latest/ug/mounting-fs-nfs-mount-settings.html>
fn nfs_mount(address: IpAddr, port: u16, export: &str) -> (String, String) {
    let (host, protocol, client) = match address {
        IpAddr::V4(address) => (address.to_string(), "tcp", "0.0.0.0"),
        IpAddr::V6(address) => (format!("[{address}]"), "tcp6", "::"),
    };
    let options = format!(
        "nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport,proto={protocol},port={port},addr={address},clientaddr={client}"
    );
    (format!("{host}:{export}"), options)
}

fn plan(wanted: &EfsMount, base: &Path, place: &Path, nfs: Option<(String, String)>) -> io::Result<Steps> {
    use std::os::unix::ffi::OsStrExt;
    let path = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let parts: Vec<&str> = wanted.root.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let prefixes = (1..=parts.len()).map(|count| {
        let made = wanted.creation.is_some() || count == parts.len();
        Ok(Prefix { path: CString::new(parts[..count].join("/"))?, name: CString::new(parts[count - 1])?, looked_at: made })
    });
    let nfs = match nfs {
        Some((device, options)) => Some((CString::new(device)?, CString::new(options)?)),
        None => None,
    };
    let creation = wanted.creation.map(|creation| (creation.uid, creation.gid, creation.mode));
    let prefixes = prefixes.collect::<io::Result<Vec<_>>>()?;
    Ok(Steps {
        nfs,
        base: path(base)?,
        prefixes: prefixes.into_iter().filter(|prefix| prefix.looked_at).collect(),
        creation,
        place: path(place)?,
    })
}

fn say(wanted: &EfsMount, failed: &Failed, patience: Duration) -> String {
    let place = match &wanted.backend {
        EfsBackend::Nfs { host, port, export } => format!("nfs://{host}:{port}{export}"),
        EfsBackend::Directory(folder) => folder.display().to_string(),
    };
    let root = match &wanted.access_point {
        Some(point) => format!("the root directory {} of access point {point}", wanted.root),
        None => format!("rootDirectory {}", wanted.root),
    };
    match failed {
        Failed::TimedOut => format!("{place} does not answer: not mounted within {} s", patience.as_secs()),
        Failed::Begin(error) => format!("a process to mount {place} with: {error}"),
        Failed::At(Step::Mount, error) => format!("mounting {place}: {error}"),
        Failed::At(Step::OpenBase, error) => format!("{place}: {error}"),
        Failed::At(Step::OpenRoot, error) => format!("{root}: {error}"),
        Failed::At(Step::MakeRoot, error) => format!("making {root}: {error}"),
        Failed::At(Step::Attach, error) => format!("mounting {root} for the task: {error}"),
    }
}

/// Unmounts the exports that no task uses. `turns` where others may be at work; one that somebody is busy with is in use.
///
/// # Errors
/// What resists; the rest is let go of all the same.
pub fn release_idle(folder: &Path, turns: Option<&EfsTurns>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut outcome = Ok(());
    for entry in entries {
        let entry = entry?;
        let turn = turns.map(|turns| turns.of(&entry.file_name().to_string_lossy()));
        let turn = turn.as_ref().map(|turn| turn.try_lock());
        if matches!(turn, Some(None)) {
            continue;
        }
        outcome = outcome.and(release(&folder.canonicalize()?.join(entry.file_name())));
    }
    outcome
}

fn release(whole: &Path) -> io::Result<()> {
    if !is_idle(&fs::read_to_string("/proc/self/mountinfo")?, whole) {
        return Ok(());
    }
    if mounted_at(whole)? {
        // Not waiting for a server that may be gone.
        umount2(whole, MntFlags::MNT_DETACH)?;
    }
    // Never with what is in it.
    fs::remove_dir(whole)
}

/// Whether nothing but `whole` itself shows its file system: tasks' mounts are of the same one.
fn is_idle(mountinfo: &str, whole: &Path) -> bool {
    let mounts = || {
        mountinfo.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let (system, place) = (fields.next()?, fields.nth(1)?);
            Some((system, PathBuf::from(super::unescaped(place))))
        })
    };
    let own: Vec<&str> = mounts().filter(|(_, place)| place == whole).map(|(system, _)| system).collect();
    !mounts().any(|(system, place)| own.contains(&system) && place != whole)
}

#[cfg(test)]
#[path = "efs_tests.rs"]
mod tests;
