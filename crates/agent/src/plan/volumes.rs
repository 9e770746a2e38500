//! Volumes and mount points: from names to bind mounts.

use std::path::{Component, Path, PathBuf};

use berth_acs::messages as acs;
use berth_runtime::port::BindMount;

use super::PlanContext;

/// A container's bind mounts, and the host directories that they need.
pub(super) fn mounts(
    task: &acs::Task,
    container: &acs::Container,
    task_id: &str,
    context: &PlanContext,
) -> Result<(Vec<BindMount>, Vec<PathBuf>), String> {
    let mut mounts = Vec::new();
    let mut directories = Vec::new();
    for point in &container.mount_points {
        let name = &point.source_volume;
        let volume = task.volumes.iter().find(|volume| volume.name == *name);
        let volume = volume.ok_or_else(|| format!("mount point {}: the task has no volume '{name}'", point.container_path))?;
        let source = source(volume, task_id, context)?;
        let destination = PathBuf::from(&point.container_path);
        if !is_plain_absolute(&destination) {
            return Err(format!("mount point of volume '{name}': '{}' is not an absolute path", point.container_path));
        }
        directories.push(source.clone());
        mounts.push(BindMount { source, destination, read_only: point.read_only });
    }
    Ok((mounts, directories))
}

fn source(volume: &acs::Volume, task_id: &str, context: &PlanContext) -> Result<PathBuf, String> {
    let name = &volume.name;
    if !matches!(volume.kind.as_str(), "" | "host")
        || volume.docker_volume_configuration.is_some()
        || volume.efs_volume_configuration.is_some()
    {
        return Err(format!("volume '{name}' of type {} is not supported by this agent", volume.kind));
    }
    let path = volume.host.as_ref().map(|host| host.source_path.as_str()).unwrap_or_default();
    if path.is_empty() {
        let legal = (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        return if legal { Ok(context.volumes_dir.join(task_id).join(name)) } else { Err(format!("'{name}' is no name of a volume")) };
    }
    let path = PathBuf::from(path);
    if is_plain_absolute(&path) { Ok(path) } else { Err(format!("volume '{name}': sourcePath is not an absolute path")) }
}

fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
}
