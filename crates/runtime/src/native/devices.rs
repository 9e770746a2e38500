//! Device files of the machine in a container: all of them for privileged ones, those of `linuxParameters.devices` for others.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Device.html>

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::native::bundle::is_plain_absolute;
use crate::port::{ContainerSpec, DeviceMapping, RunError};

/// What a permission may be made of; also what a mapping without any means.
const ALL: &str = "rwm";

/// Folders are followed this deep.
const MAX_DEPTH: u32 = 8;

/// Device files and the cgroup rules that let them work, in OCI form.
#[derive(Debug, Default)]
pub struct Devices {
    /// `linux.devices`.
    pub files: Vec<Value>,
    /// Rules besides the usual ones.
    pub rules: Vec<Value>,
}

/// All that a container gets.
///
/// # Errors
/// [`RunError::InvalidSpec`] that names the member.
pub fn devices(spec: &ContainerSpec) -> Result<Devices, RunError> {
    let mut all = Devices { files: if spec.privileged { of_the_machine() } else { Vec::new() }, rules: Vec::new() };
    for mapping in &spec.devices {
        let found = given(mapping).map_err(|text| RunError::InvalidSpec(format!("linuxParameters.devices: {text}")))?;
        // A privileged container has them all, and may do everything with them, under the machine's own names.
        if !spec.privileged || mapping.host_path != mapping.container_path {
            all.files.extend(found.files);
        }
        if !spec.privileged {
            all.rules.extend(found.rules);
        }
    }
    Ok(all)
}

/// As Docker does: a link on the machine is followed, and a folder means all device files in it.
fn given(mapping: &DeviceMapping) -> Result<Devices, String> {
    let DeviceMapping { host_path, container_path, permissions } = mapping;
    if let Some(letter) = permissions.chars().find(|letter| !ALL.contains(*letter)) {
        return Err(format!("permissions {permissions:?} of {host_path:?}: {letter:?} is none of r, w and m"));
    }
    if !is_plain_absolute(container_path) || container_path == Path::new("/") || container_path.starts_with("/proc") {
        return Err(format!("containerPath {container_path:?} is not a path below / and outside /proc"));
    }
    let gathering = format!("error gathering device information while adding custom device {host_path:?}");
    let not_a_device = || format!("{gathering}: not a device node");
    if !host_path.is_absolute() {
        return Err(format!("hostPath {host_path:?} is not absolute"));
    }
    let place = host_path.canonicalize().map_err(|_| format!("{gathering}: no such file or directory"))?;
    let mut found = Vec::new();
    if place.is_dir() {
        nodes(&place, MAX_DEPTH, &|_| false, &mut found);
    } else {
        found.push(place.clone());
    }
    let access = if permissions.is_empty() { ALL } else { permissions };
    let mut all = Devices::default();
    for node in found {
        let below = node.strip_prefix(&place).unwrap_or(Path::new(""));
        let inside = if below.as_os_str().is_empty() { container_path.clone() } else { container_path.join(below) };
        let file = file(&node, &inside).ok_or_else(not_a_device)?;
        all.rules.push(json!({"allow": true, "type": file["type"], "major": file["major"], "minor": file["minor"], "access": access}));
        all.files.push(file);
    }
    if all.files.is_empty() { Err(not_a_device()) } else { Ok(all) }
}

/// Every device file of the machine but those that a container has of its own.
fn of_the_machine() -> Vec<Value> {
    const OWN: [&str; 7] = ["pts", "shm", "mqueue", "fd", "console", "ptmx", ".udev"];
    let root = Path::new("/dev");
    let mut found = Vec::new();
    nodes(root, MAX_DEPTH, &|path| path.strip_prefix(root).is_ok_and(|name| OWN.iter().any(|own| name == Path::new(own))), &mut found);
    found.iter().filter_map(|path| file(path, path)).collect()
}

/// The device files below a folder, in the order of their names.
fn nodes(folder: &Path, depth: u32, skip: &impl Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries.into_iter().filter(|path| !skip(path)) {
        // Not through links, which would show a device twice, or lead round in a circle.
        let Ok(kind) = std::fs::symlink_metadata(&path).map(|meta| meta.file_type()) else { continue };
        if kind.is_dir() && depth > 0 {
            nodes(&path, depth - 1, skip, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(path);
        }
    }
}

/// A device file in OCI form; `None` if it is something else.
fn file(node: &Path, inside: &Path) -> Option<Value> {
    let meta = std::fs::metadata(node).ok()?;
    let kind = meta.file_type();
    (kind.is_char_device() || kind.is_block_device()).then(|| {
        json!({
            "path": inside, "type": if kind.is_block_device() { "b" } else { "c" },
            "major": libc::major(meta.rdev()), "minor": libc::minor(meta.rdev()),
            "fileMode": meta.mode() & 0o777, "uid": meta.uid(), "gid": meta.gid(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str, container: &str, permissions: &str) -> DeviceMapping {
        DeviceMapping { host_path: host.into(), container_path: container.into(), permissions: permissions.into() }
    }

    #[test]
    fn a_device_is_renamed_and_its_permissions_kept() {
        let one = given(&mapping("/dev/null", "/dev/other", "r")).unwrap();
        assert_eq!((one.files[0]["path"].as_str(), one.files[0]["minor"].as_u64()), (Some("/dev/other"), Some(3)));
        assert_eq!(one.rules[0], json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}));
        assert_eq!(given(&mapping("/dev/null", "/dev/null", "")).unwrap().rules[0]["access"], "rwm");
    }

    #[test]
    fn a_folder_means_all_in_it_and_a_link_what_it_leads_to() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("link")).expect("a link");
        let link = folder.path().join("link");
        let by_link = given(&mapping(link.to_str().expect("a plain path"), "/dev/x", "rw")).unwrap();
        assert_eq!(by_link.files[0]["minor"], 5);
        let error = given(&mapping(folder.path().to_str().expect("a plain path"), "/dev/x", "rw")).unwrap_err();
        assert!(error.ends_with("not a device node"), "{error}");
    }

    #[test]
    fn what_is_no_device_is_named() {
        let refused = |mapping: DeviceMapping| given(&mapping).unwrap_err();
        assert!(refused(mapping("/etc/passwd", "/dev/x", "r")).contains("\"/etc/passwd\": not a device node"));
        assert!(refused(mapping("/dev/no-such-device", "/dev/x", "r")).contains("no such file or directory"));
        assert!(refused(mapping("/dev/null", "/dev/x", "rx")).contains("'x' is none of r, w and m"));
        assert!(refused(mapping("/dev/null", "/dev/../x", "r")).contains("containerPath"));
        assert!(refused(mapping("/dev/null", "/proc/x", "r")).contains("containerPath"));
    }
}
