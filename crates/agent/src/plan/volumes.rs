//! Volumes and mount points: from names to bind mounts, and what must be there for them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use berth_acs::messages as acs;
use berth_runtime::port::{BindMount, FileOwner};

use super::efs::{self, EfsMount};
use super::{MOST_CONTAINERS, PlanContext, fargate};

/// The folder below that of all volumes for those that outlive their tasks. No task can be called so: ids have no underscore.
pub const SHARED: &str = "_shared";

const GIB: u64 = 1 << 30;

/// What must be there before a container is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumePlan {
    /// A path of the machine: left as it is if it is there, be it a file, and else made as a directory.
    Host(PathBuf),
    /// A directory that goes with its task.
    Task {
        /// Where it is.
        folder: PathBuf,
        /// What is mounted there.
        mount: Option<MountPlan>,
    },
    /// The folder of all that the task keeps on disk, with a limit on it. Before the others, which are in it.
    Sized {
        /// Where it is.
        folder: PathBuf,
        /// Most bytes, the containers' own files among them.
        bytes: u64,
        /// The task cannot be run where nothing holds it to the limit.
        required: bool,
    },
    /// A directory of an EFS file system.
    Efs(Box<EfsMount>),
    /// It cannot be had on this machine; why, with the member's name.
    Refused(String),
    /// A directory that is found by its name and outlives its tasks.
    Shared {
        /// Its name.
        name: String,
        /// Where it is.
        folder: PathBuf,
        /// Made if it is not there.
        autoprovision: bool,
        /// What is mounted there.
        mount: Option<MountPlan>,
        /// As it was asked for first; another one of the same name is an error. Docker's labels are among it.
        configuration: acs::DockerVolumeConfiguration,
    },
}

/// A mount, as `driverOpts` of Docker's `local` driver say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// The file system's type; `none` for a bind mount.
    pub kind: String,
    /// What is mounted.
    pub device: String,
    /// Options, separated by commas.
    pub options: String,
}

/// A container's bind mounts, and the volumes that they need: its own, then those of the containers whose volumes it takes over. A
/// path of its own wins over one that it takes over.
pub(super) fn mounts(
    task: &acs::Task,
    container: &acs::Container,
    task_id: &str,
    context: &PlanContext,
) -> Result<(Vec<BindMount>, Vec<VolumePlan>), String> {
    let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
    let folder = context.volumes_dir.join(task_id);
    if fargate::is_wanted(task) {
        // Every such task has a limit; a machine that cannot hold it to one has said so when it started.
        let bytes = fargate::storage_gib(task).saturating_mul(GIB);
        volumes.push(VolumePlan::Sized { folder, bytes, required: false });
    } else if let Some(storage) = &task.ephemeral_storage {
        let bytes = u64::try_from(storage.size_in_gib).ok().filter(|size| *size > 0).and_then(|size| size.checked_mul(GIB));
        let bytes = bytes.ok_or_else(|| format!("ephemeralStorage: sizeInGiB {} is no size", storage.size_in_gib))?;
        volumes.push(VolumePlan::Sized { folder, bytes, required: true });
    }
    collect(task, container, false, task_id, context, 0, (&mut mounts, &mut volumes))?;
    Ok((mounts, volumes))
}

fn collect(
    task: &acs::Task,
    container: &acs::Container,
    read_only: bool,
    task_id: &str,
    context: &PlanContext,
    depth: usize,
    (mounts, volumes): (&mut Vec<BindMount>, &mut Vec<VolumePlan>),
) -> Result<(), String> {
    if depth > MOST_CONTAINERS {
        return Err("volumesFrom goes in a circle".to_owned());
    }
    for point in &container.mount_points {
        let name = &point.source_volume;
        let volume = task.volumes.iter().find(|volume| volume.name == *name);
        let volume = volume.ok_or_else(|| format!("mount point {}: the task has no volume '{name}'", point.container_path))?;
        let (source, plan, owner) = volume_plan(volume, task_id, context)?;
        let destination = PathBuf::from(&point.container_path);
        if !is_plain_absolute(&destination) {
            return Err(format!("mount point of volume '{name}': '{}' is not an absolute path", point.container_path));
        }
        if depth > 0 && mounts.iter().any(|mount| mount.destination == destination) {
            continue;
        }
        let remote = matches!(plan, VolumePlan::Efs(_));
        if !volumes.contains(&plan) {
            volumes.push(plan);
        }
        mounts.push(BindMount { source, destination, read_only: point.read_only || read_only, owner, remote });
    }
    for from in &container.volumes_from {
        let other = task.containers.iter().find(|other| other.name == from.source_container);
        let other = other.ok_or_else(|| format!("volumesFrom: the task has no container '{}'", from.source_container))?;
        collect(task, other, read_only || from.read_only, task_id, context, depth + 1, (&mut *mounts, &mut *volumes))?;
    }
    Ok(())
}

/// Where a volume is, and what must be done to have it there.
fn volume_plan(volume: &acs::Volume, task_id: &str, context: &PlanContext) -> Result<(PathBuf, VolumePlan, Option<FileOwner>), String> {
    let name = &volume.name;
    let unowned = |(source, plan)| (source, plan, None);
    if !matches!(volume.kind.as_str(), "" | "host" | "docker" | "efs") {
        return Err(format!("volume '{name}' of type {} is not supported by this agent", volume.kind));
    }
    let is_legal = (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let legal = || if is_legal { Ok(()) } else { Err(format!("'{name}' is no name of a volume")) };
    let of_task = context.volumes_dir.join(task_id).join(name);
    if volume.kind == "efs" || volume.efs_volume_configuration.is_some() {
        legal()?;
        let configuration = volume.efs_volume_configuration.clone().unwrap_or_default();
        return Ok(match efs::mount(&configuration, &context.efs, &context.volumes_dir, of_task.clone()) {
            Ok((mount, owner)) => (of_task, VolumePlan::Efs(Box::new(mount)), owner),
            Err(reason) => (of_task, VolumePlan::Refused(reason), None),
        });
    }
    if let Some(docker) = &volume.docker_volume_configuration {
        legal()?;
        if !matches!(docker.driver.as_str(), "" | "local") {
            return Err(format!("volume '{name}': driver {} is not supported by this agent", docker.driver));
        }
        let mount = mount(name, &docker.driver_opts)?;
        let plan = match docker.scope.as_str() {
            "" | "task" => Ok((of_task.clone(), VolumePlan::Task { folder: of_task, mount })),
            "shared" => {
                // The content is one level deeper, beside what is written of it.
                let folder = context.volumes_dir.join(SHARED).join(name).join("data");
                let configuration = acs::DockerVolumeConfiguration { autoprovision: true, driver: "local".to_owned(), ..docker.clone() };
                let (name, autoprovision) = (name.clone(), docker.autoprovision);
                Ok((folder.clone(), VolumePlan::Shared { name, folder, autoprovision, mount, configuration }))
            }
            other => Err(format!("volume '{name}': scope {other} is neither task nor shared")),
        };
        return plan.map(unowned);
    }
    let path = volume.host.as_ref().map(|host| host.source_path.as_str()).unwrap_or_default();
    if path.is_empty() {
        legal()?;
        return Ok(unowned((of_task.clone(), VolumePlan::Task { folder: of_task, mount: None })));
    }
    let path = PathBuf::from(path);
    if !is_plain_absolute(&path) {
        return Err(format!("volume '{name}': sourcePath is not an absolute path"));
    }
    Ok(unowned((path.clone(), VolumePlan::Host(path))))
}

/// What the options of the `local` driver ask to be mounted. Docker's rules: no other options; a device and a type go together.
fn mount(volume: &str, options: &BTreeMap<String, String>) -> Result<Option<MountPlan>, String> {
    if let Some(unknown) = options.keys().find(|key| !matches!(key.as_str(), "type" | "device" | "o" | "size")) {
        return Err(format!("volume '{volume}': invalid option: \"{unknown}\""));
    }
    if options.contains_key("size") {
        return Err(format!("volume '{volume}': quota size requested but no quota support"));
    }
    let get = |name: &str| options.get(name).cloned().unwrap_or_default();
    let plan = MountPlan { kind: get("type"), device: get("device"), options: get("o") };
    match (plan.kind.is_empty(), plan.device.is_empty(), plan.options.is_empty()) {
        (true, true, true) => Ok(None),
        (false, false, _) => Ok(Some(plan)),
        (true, _, _) => Err(format!("volume '{volume}': missing required option: \"type\"")),
        (_, true, _) => Err(format!("volume '{volume}': missing required option: \"device\"")),
    }
}

fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
}
