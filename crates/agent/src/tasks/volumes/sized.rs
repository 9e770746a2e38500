//! A task's ephemeral storage with a size: its folder of volumes and its containers' own files belong to one project, which the file system
//! holds to the limit. The folder itself says which project that is, so a restarted agent finds it.

use std::fs;
use std::io;
use std::path::Path;

use berth_runtime::port::StorageLimit;
use berth_runtime::quota::{self, FIRST_PROJECT, Usage};

/// How many numbers in a row are looked at: as many tasks would have to have the same one.
const TRIES: u32 = 1000;

/// Makes a task's folder one of limited size. Nothing holds it to the limit here, if `required` allows that: then none is given. `Err` is a reason with its class. Calls must follow each other.
pub fn ensure(folder: &Path, bytes: u64, required: bool) -> Result<Option<StorageLimit>, String> {
    let failed =
        |problem: &dyn std::fmt::Display| format!("ResourceInitializationError: ephemeralStorage: {}: {problem}", folder.display());
    fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    match quota::available(folder) {
        Err(_) if !required => return Ok(None),
        available => available.map_err(|error| failed(&error))?,
    }
    let limited = || -> io::Result<StorageLimit> {
        let project = match quota::project_of(folder)? {
            0 => unused(&folder.file_name().unwrap_or_default().to_string_lossy(), |project| quota::usage(folder, project))?,
            known => known,
        };
        // The limit is there before the first file can be.
        quota::limit(folder, project, bytes)?;
        quota::assign(folder, project)?;
        Ok(StorageLimit { project, bytes })
    };
    limited().map(Some).map_err(|error| failed(&error))
}

/// A project that nobody has. It begins where the task's name says, so that two agents with one disk do not go for the same.
fn unused(task: &str, usage: impl Fn(u32) -> io::Result<Usage>) -> io::Result<u32> {
    let range = u64::from(i32::MAX as u32 - FIRST_PROJECT);
    // FNV-1a; any function would do that spreads.
    let start = task.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) % range;
    for step in 0..u64::from(TRIES) {
        let project = FIRST_PROJECT + ((start + step) % range) as u32;
        if usage(project)? == Usage::default() {
            return Ok(project);
        }
    }
    Err(io::Error::other("no project is free"))
}

/// Which project a folder's is, before it is removed.
pub fn project(folder: &Path) -> u32 {
    quota::project_of(folder).ok().filter(|project| *project >= FIRST_PROJECT).unwrap_or(0)
}

/// Forgets the limit of a project whose files are gone. One that still has files keeps it, and goes unused.
pub fn forget(beside: &Path, project: u32) {
    if project != 0
        && quota::usage(beside, project).is_ok_and(|usage| usage.files == 0)
        && let Err(error) = quota::limit(beside, project, 0)
    {
        tracing::warn!(project, %error, "the limit of a task's storage cannot be taken away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_nobody_has() {
        let free = |_| Ok(Usage::default());
        let (one, other) = (unused("task-a", free).unwrap(), unused("task-b", free).unwrap());
        assert!(one != other && one >= FIRST_PROJECT && one <= i32::MAX as u32);
        assert_eq!(unused("task-a", free).unwrap(), one, "the same each time");
        let taken = |project| Ok(if project == one { Usage { limit: 1, ..Default::default() } } else { Usage::default() });
        assert_eq!(unused("task-a", taken).unwrap(), one + 1);
        assert!(unused("task-a", |_| Ok(Usage { files: 1, ..Default::default() })).is_err());
        assert!(unused("task-a", |_| Err(io::ErrorKind::PermissionDenied.into())).is_err());
    }

    #[test]
    fn where_no_limit_can_be_kept_the_reason_names_the_member() {
        // tmpfs has no project quotas.
        if !Path::new("/dev/shm").is_dir() {
            eprintln!("SKIPPED (needs /dev/shm): where_no_limit_can_be_kept_the_reason_names_the_member");
            return;
        }
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        assert_eq!(ensure(&folder.path().join("t0"), 21 << 30, false), Ok(None), "where it may go without");
        let reason = ensure(&folder.path().join("t1"), 21 << 30, true).unwrap_err();
        assert!(
            reason.starts_with("ResourceInitializationError: ephemeralStorage: ") && reason.contains("has no project quotas"),
            "{reason}"
        );
    }
}
