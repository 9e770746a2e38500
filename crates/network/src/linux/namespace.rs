//! Network namespaces that live without a process: each is held by a bind mount.
//!
//! `create` changes the calling thread for good: only for threads that end afterwards.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::port::NetworkError;

/// The namespace of the calling thread, not of the process.
const OWN: &str = "/proc/thread-self/ns/net";

/// Puts the calling thread into a new namespace, holds it at `path`, and returns it opened. The thread must end afterwards.
///
/// # Errors
/// The step that failed; nothing is left at `path`.
pub fn create(path: &Path) -> Result<OwnedFd, NetworkError> {
    let failed = |step: &str, error: io::Error| NetworkError::System(format!("{step} {}: {error}", path.display()));
    File::create_new(path).map_err(|error| failed("make the namespace file", error))?;
    let made = unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| failed("unshare the network namespace for", errno.into()))
        .and_then(|()| {
            mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|errno| failed("bind the namespace to", errno.into()))
        })
        .and_then(|()| File::open(OWN).map_err(|error| failed("open the namespace of", error)));
    match made {
        Ok(file) => Ok(file.into()),
        Err(error) => {
            // What fails here is found and removed at the next start.
            drop(remove(path));
            Err(error)
        }
    }
}

/// Whether a namespace is held at `path`.
#[must_use]
pub fn is_held(path: &Path) -> bool {
    statfs(path).is_ok_and(|file_system| file_system.filesystem_type() == NSFS_MAGIC)
}

/// Lets the namespace go; the kernel removes it with its links when its last process ends. That there is none is no error.
///
/// # Errors
/// The step that failed.
pub fn remove(path: &Path) -> Result<(), NetworkError> {
    let failed = |step: &str, error: io::Error| NetworkError::System(format!("{step} {}: {error}", path.display()));
    while is_held(path) {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(failed("unmount the namespace", errno.into())),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove the namespace file", error)),
        _ => Ok(()),
    }
}
