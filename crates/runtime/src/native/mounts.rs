//! What is mounted in a container, in OCI form.

use std::path::Path;

use serde_json::{Value, json};

use crate::native::bundle::is_plain_absolute;
use crate::port::{ContainerSpec, RunError, Sharing, TmpfsMount};

/// Docker's default.
pub const SHARED_MEMORY_MIB: u32 = 64;

/// All mounts in the order in which they are made: parents before what lies in them.
///
/// # Errors
/// [`RunError::InvalidSpec`] that names the member.
pub fn mounts(spec: &ContainerSpec, folder: &Path) -> Result<Vec<Value>, RunError> {
    let mount = |kind: &str, destination: &str, options: &[&str]| json!({"type": kind, "source": kind, "destination": destination, "options": options});
    let shared = |name: &str, destination: &str| json!({"type": "shared", "source": name, "destination": destination, "options": []});
    let proc = match spec.pid {
        // The machine's is what a new one shows without a pid namespace of the container's own.
        Sharing::Own | Sharing::Closed | Sharing::Host => mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        Sharing::Task => shared("proc", "/proc"),
    };
    let shared_memory = format!("size={}m", spec.shared_memory_mib.unwrap_or(SHARED_MEMORY_MIB));
    let system = if spec.privileged { "rw" } else { "ro" };
    let mut all = vec![
        proc,
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", system]),
        mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", system]),
    ];
    let own_memory = || mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &shared_memory]);
    match spec.ipc {
        Sharing::Own => all.push(own_memory()),
        Sharing::Task => all.push(shared("shm", "/dev/shm")),
        Sharing::Host if Path::new("/dev/shm").is_dir() => all.push(bind(Path::new("/dev/shm"), Path::new("/dev/shm"), false)),
        // A machine without shared memory has none to give; programs expect some.
        Sharing::Host => all.push(own_memory()),
        Sharing::Closed => {}
    }
    let mut own = Vec::new();
    for name in ["hosts", "hostname", "resolv.conf"] {
        // As with Docker: these are part of the root, and no way to write where that is read-only.
        own.push((Path::new("/etc").join(name), bind(&folder.join(name), &Path::new("/etc").join(name), spec.read_only_root)));
    }
    for given in &spec.mounts {
        if !is_plain_absolute(&given.destination) || given.destination == Path::new("/") {
            return Err(RunError::InvalidSpec(format!("mountPoints: containerPath {:?} is not a path below /", given.destination)));
        }
        if given.destination.starts_with("/proc") {
            // What is hidden in /proc is found by name; something else in its place would be what is hidden.
            return Err(RunError::InvalidSpec(format!("mountPoints: containerPath {:?} is inside /proc", given.destination)));
        }
        if !given.source.is_absolute() || !(given.remote || given.source.exists()) {
            return Err(RunError::InvalidSpec(format!("mountPoints: source path {:?} does not exist on this machine", given.source)));
        }
        // A mount that the user places over one of ours takes its place.
        own.retain(|(destination, _)| *destination != given.destination);
        let mut mount = bind(&given.source, &given.destination, given.read_only);
        if let Some(owner) = given.owner {
            mount["owner"] = json!(owner);
        }
        own.push((given.destination.clone(), mount));
    }
    for given in &spec.tmpfs {
        if !is_plain_absolute(&given.destination) || given.destination == Path::new("/") {
            return Err(RunError::InvalidSpec(format!(
                "linuxParameters.tmpfs: containerPath {:?} is not a path below /",
                given.destination
            )));
        }
        if given.destination.starts_with("/proc") {
            return Err(RunError::InvalidSpec(format!("linuxParameters.tmpfs: containerPath {:?} is inside /proc", given.destination)));
        }
        own.retain(|(destination, _)| *destination != given.destination);
        own.push((given.destination.clone(), tmpfs(given)?));
    }
    all.retain(|ours| !own.iter().any(|(destination, _)| ours["destination"].as_str() == destination.to_str()));
    all.extend(own.into_iter().map(|(_, mount)| mount));
    // Ours among the user's: with the machine's own /dev given, pseudo terminals and shared memory are the container's all the same.
    let depth = |mount: &Value| mount["destination"].as_str().map_or(0, |place| Path::new(place).components().count());
    all.sort_by_key(depth);
    Ok(all)
}

fn bind(source: &Path, destination: &Path, read_only: bool) -> Value {
    json!({
        "type": "bind", "source": source, "destination": destination,
        "options": ["rbind", "rprivate", if read_only { "ro" } else { "rw" }],
    })
}

/// Docker's defaults unless the task definition says the opposite.
fn tmpfs(given: &TmpfsMount) -> Result<Value, RunError> {
    const KNOWN: [&str; 26] = [
        "defaults",
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "remount",
        "mand",
        "nomand",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "bind",
        "rbind",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "private",
    ];
    const KNOWN_VALUES: [&str; 7] = ["mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks=", "mpol=", "size="];
    // Accepted by ECS, without meaning for a new tmpfs of a container's own.
    const MEANINGLESS: [&str; 6] = ["defaults", "remount", "bind", "rbind", "private", "size="];
    let mut options = Vec::new();
    for option in &given.options {
        if !KNOWN.contains(&option.as_str()) && !KNOWN_VALUES.iter().any(|prefix| option.starts_with(prefix)) {
            return Err(RunError::InvalidSpec(format!("linuxParameters.tmpfs: unknown mount option {option:?}")));
        }
        if !MEANINGLESS.iter().any(|known| option.starts_with(known)) {
            options.push(option.clone());
        }
    }
    for (default, opposite) in [("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")] {
        if !options.iter().any(|option| option == default || option == opposite) {
            options.push(default.to_owned());
        }
    }
    options.push(format!("size={}m", given.size_mib));
    Ok(json!({"type": "tmpfs", "source": "tmpfs", "destination": given.destination, "options": options}))
}
