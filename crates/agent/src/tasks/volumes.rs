//! Volumes on this machine: having them there before a container is made, and taking them away. What is mounted in one is never
//! deleted with it.

mod efs;
mod sized;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use berth_acs::messages::DockerVolumeConfiguration;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use berth_runtime::port::StorageLimit;
use parking_lot::Mutex;

use self::efs::EfsTurns;
use crate::plan::{EFS, MountPlan, SHARED, VolumePlan};

/// The file beside a shared volume's content that says how it was asked for.
const CONFIGURATION: &str = "volume.json";

/// How many mounts over each other in one place are taken away.
const MOST_LAYERS: u32 = 16;

/// Who makes or takes away volumes now: two tasks may want the same one.
#[derive(Debug, Default)]
pub struct Turns {
    here: Mutex<()>,
    efs: EfsTurns,
}

/// Has a container's volumes there, in their order; what its storage is limited to, if it is. `Err` is a reason with its class.
///
/// `match_full`: a shared volume that is there already must have the options and labels that are asked for.
pub fn ensure_all(volumes: &[VolumePlan], turns: &Turns, match_full: bool) -> Result<Option<StorageLimit>, String> {
    let mut limit = None;
    for volume in volumes {
        match volume {
            VolumePlan::Refused(reason) => return Err(format!("ResourceInitializationError: {reason}")),
            VolumePlan::Efs(mount) => efs::ensure(mount, &turns.efs)?,
            VolumePlan::Sized { folder, bytes, required } => {
                let _turn = turns.here.lock();
                limit = sized::ensure(folder, *bytes, *required)?;
            }
            volume => {
                let _turn = turns.here.lock();
                ensure(volume, match_full)?;
            }
        }
    }
    Ok(limit)
}

/// Has a volume of this machine there. Calls for one volume must follow each other. `Err` is a reason with its class.
fn ensure(volume: &VolumePlan, match_full: bool) -> Result<(), String> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |error: io::Error| format!("CannotCreateVolumeError: {what}: {error}")
    };
    match volume {
        // A file, a socket, a device: whatever is there is what was meant.
        VolumePlan::Host(path) if path.exists() => Ok(()),
        VolumePlan::Host(path) => fs::create_dir_all(path).map_err(failed(path)),
        VolumePlan::Task { folder, mount } => {
            fs::create_dir_all(folder).map_err(failed(folder))?;
            mounted(folder, mount.as_ref())
        }
        VolumePlan::Shared { name, folder, autoprovision, mount, configuration } => {
            let file = folder.with_file_name(CONFIGURATION);
            match fs::read(&file) {
                Ok(bytes) if *autoprovision && match_full => fits(name, &bytes, configuration)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && *autoprovision => {
                    fs::create_dir_all(folder).map_err(failed(folder))?;
                    let bytes = serde_json::to_vec(configuration).map_err(|error| format!("CannotCreateVolumeError: {name}: {error}"))?;
                    // The whole file or none: half a one would make the volume unusable for good.
                    let new = file.with_extension("new");
                    fs::write(&new, bytes).and_then(|()| fs::rename(&new, &file)).map_err(failed(&file))?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(format!(
                        "CannotCreateVolumeError: there is no shared volume '{name}', and it is not to be made (autoprovision)"
                    ));
                }
                Err(error) => return Err(failed(&file)(error)),
            }
            mounted(folder, mount.as_ref())
        }
        VolumePlan::Sized { .. } | VolumePlan::Efs(_) | VolumePlan::Refused(_) => Ok(()),
    }
}

/// Whether a volume that is there is the one that is asked for.
fn fits(name: &str, written: &[u8], asked: &DockerVolumeConfiguration) -> Result<(), String> {
    let there: DockerVolumeConfiguration = serde_json::from_slice(written).unwrap_or_default();
    let differs = [("driverOpts", there.driver_opts != asked.driver_opts), ("labels", there.labels != asked.labels)];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((member, _)) => Err(format!("CannotCreateVolumeError: shared volume '{name}' is there already, with other {member}")),
        None => Ok(()),
    }
}

fn mounted(folder: &Path, plan: Option<&MountPlan>) -> Result<(), String> {
    let Some(plan) = plan else { return Ok(()) };
    let failed = |problem: String| format!("CannotCreateVolumeError: mounting {} of type {}: {problem}", plan.device, plan.kind);
    if mount_points(folder).map_err(|error| failed(error.to_string()))?.iter().any(|point| point == folder) {
        return Ok(());
    }
    let (flags, data) = options(&plan.options);
    let data = Some(data.as_str()).filter(|data| !data.is_empty());
    mount(Some(plan.device.as_str()), folder, Some(plan.kind.as_str()), flags, data).map_err(|error| failed(error.desc().to_owned()))
}

/// What mount(8) makes of options: flags of the kernel's, and the rest for the file system.
fn options(text: &str) -> (MsFlags, String) {
    let known = BTreeMap::from([
        ("defaults", MsFlags::empty()),
        ("rw", MsFlags::empty()),
        ("ro", MsFlags::MS_RDONLY),
        ("bind", MsFlags::MS_BIND),
        ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC)),
        ("nosuid", MsFlags::MS_NOSUID),
        ("nodev", MsFlags::MS_NODEV),
        ("noexec", MsFlags::MS_NOEXEC),
        ("sync", MsFlags::MS_SYNCHRONOUS),
        ("dirsync", MsFlags::MS_DIRSYNC),
        ("noatime", MsFlags::MS_NOATIME),
        ("nodiratime", MsFlags::MS_NODIRATIME),
        ("relatime", MsFlags::MS_RELATIME),
        ("strictatime", MsFlags::MS_STRICTATIME),
    ]);
    let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
    for option in text.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        match known.get(option) {
            Some(flag) => flags |= *flag,
            None => data.push(option),
        }
    }
    (flags, data.join(","))
}

/// Removes the volumes of tasks, of all whose folder's name is not kept. Those that are found by name stay, as Docker's do; only what
/// is mounted in them goes with `all`, which the next task that wants them mounts again.
///
/// # Errors
/// What resists; the rest is removed all the same.
pub fn sweep(volumes: &Path, is_kept: impl Fn(&str) -> bool, all: bool) -> io::Result<()> {
    let entries = match fs::read_dir(volumes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut outcome = Ok(());
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let gone = match name.to_str() {
            Some(SHARED) if all => unmount(&entry.path()),
            Some(SHARED) => Ok(()),
            Some(EFS) => continue,
            Some(name) if is_kept(name) => Ok(()),
            _ => remove(&entry.path()),
        };
        outcome = outcome.and(gone);
    }
    // After the tasks' own.
    outcome.and(efs::release_idle(&volumes.join(EFS), None))
}

/// Removes a task's volumes, and lets go of file systems that only it used.
///
/// # Errors
/// What resists. While something is still mounted, nothing is deleted: it would be the content of somebody's file system.
pub fn remove_of_task(volumes: &Path, task: &str, turns: &Turns) -> io::Result<()> {
    remove(&volumes.join(task))?;
    efs::release_idle(&volumes.join(EFS), Some(&turns.efs))
}

/// Removes a folder of volumes with all that is in it, after taking away what is mounted there.
///
/// # Errors
/// What resists. While something is still mounted, nothing is deleted: it would be the content of somebody's file system.
fn remove(folder: &Path) -> io::Result<()> {
    unmount(folder)?;
    let project = sized::project(folder);
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sized::forget(folder.parent().unwrap_or(folder), project);
    Ok(())
}

fn unmount(folder: &Path) -> io::Result<()> {
    // Mounts can lie over each other.
    for layer in 0.. {
        let points = mount_points(folder)?;
        match points.first() {
            None => return Ok(()),
            Some(point) if layer == MOST_LAYERS => return Err(io::Error::other(format!("{} is still mounted", point.display()))),
            Some(_) => points.iter().rev().try_for_each(|point| umount2(point, MntFlags::MNT_DETACH))?,
        }
    }
    Ok(())
}

/// Whether something is mounted at a path, whose folders must be no links. Asks the kernel's list alone.
fn mounted_at(place: &Path) -> io::Result<bool> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| Path::new(&unescaped(point)) == place))
}

/// Where something is mounted at or below a folder, parents first.
fn mount_points(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = match folder.canonicalize() {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|line| Some(PathBuf::from(unescaped(line.split(' ').nth(4)?))));
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(&folder)).collect();
    points.sort_unstable();
    Ok(points)
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, char)| text.replace(code, char))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(dir: &Path, autoprovision: bool, label: &str) -> VolumePlan {
        let configuration =
            DockerVolumeConfiguration { labels: [("l".to_owned(), label.to_owned())].into(), autoprovision: true, ..Default::default() };
        VolumePlan::Shared { name: "v".into(), folder: dir.join("v/data"), autoprovision, mount: None, configuration }
    }

    #[test]
    fn a_host_path_may_be_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        ensure(&VolumePlan::Host(file.clone()), true).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "x");
        ensure(&VolumePlan::Host(dir.path().join("a/b")), true).unwrap();
        assert!(dir.path().join("a/b").is_dir());
        assert!(ensure(&VolumePlan::Host(file.join("c")), true).unwrap_err().starts_with("CannotCreateVolumeError: "));
    }

    #[test]
    fn a_shared_volume_is_made_once_and_is_what_it_was_made_as() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ensure(&shared(dir.path(), false, "a"), true).unwrap_err().contains("no shared volume 'v'"));
        ensure(&shared(dir.path(), true, "a"), true).unwrap();
        fs::write(dir.path().join("v/data/file"), "kept").unwrap();
        ensure(&shared(dir.path(), true, "a"), true).unwrap();
        ensure(&shared(dir.path(), false, "b"), true).unwrap();
        assert!(ensure(&shared(dir.path(), true, "b"), true).unwrap_err().ends_with("with other labels"));
        ensure(&shared(dir.path(), true, "b"), false).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("v/data/file")).unwrap(), "kept");
    }

    #[test]
    fn volumes_of_tasks_that_are_gone_go_and_those_found_by_name_stay() {
        let dir = tempfile::tempdir().unwrap();
        sweep(&dir.path().join("none"), |_| false, true).unwrap();
        for name in ["t1/v", "t2/v", "_shared/v/data"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let left = || {
            let mut names: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        sweep(dir.path(), |id| id == "t2", false).unwrap();
        assert_eq!(left(), ["_shared", "t2"]);
        sweep(dir.path(), |_| false, true).unwrap();
        assert_eq!(left(), ["_shared"]);
        assert!(dir.path().join("_shared/v/data").exists());
    }

    #[test]
    fn options_are_flags_or_the_file_systems() {
        let (flags, data) = options("ro, size=10m,nodev,uid=1000,");
        assert_eq!((flags, data.as_str()), (MsFlags::MS_RDONLY | MsFlags::MS_NODEV, "size=10m,uid=1000"));
        assert_eq!(options("rbind").0, MsFlags::MS_BIND | MsFlags::MS_REC);
    }

    #[test]
    fn what_is_mounted_in_a_volume_is_not_deleted_with_it() {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED (needs root): what_is_mounted_in_a_volume_is_not_deleted_with_it: mounting");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("their s");
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("precious"), "x").unwrap();
        let plan = MountPlan { kind: "none".into(), device: theirs.display().to_string(), options: "bind".into() };
        let folder = dir.path().join("volumes/t 1/v");
        for _ in 0..2 {
            ensure(&VolumePlan::Task { folder: folder.clone(), mount: Some(plan.clone()) }, true).unwrap();
        }
        assert!(folder.join("precious").exists());
        assert_eq!(mount_points(&folder).unwrap().len(), 1, "once, however often it is asked for");
        remove(&dir.path().join("volumes")).unwrap();
        assert!(!dir.path().join("volumes").exists() && theirs.join("precious").exists());
        let unknown = MountPlan { kind: "nosuchfs".into(), device: "x".into(), options: String::new() };
        let error = ensure(&VolumePlan::Task { folder: folder.clone(), mount: Some(unknown) }, true).unwrap_err();
        assert!(error.starts_with("CannotCreateVolumeError: mounting x of type nosuchfs: "), "{error}");
        remove(&folder).unwrap();
    }
}
