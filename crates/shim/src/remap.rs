//! `berth-shim remap`: tries whether this machine can give a container users of its own: user namespaces, and layers and files that are shown with
//! other owners (idmapped mounts, and an overlay that takes them: Linux 5.19). What only trying shows is tried, in namespaces that go with it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::idmap::{self, Ids, Mapped};
use crate::request::{self, Failure, Reply};
use crate::{fds, inheritance, rootfs, steps};

/// What the file in the trial's layer is called.
const FILE: &str = "file";

/// Runs. The request is an empty folder to try in, on the file system of images and containers, and after a NUL the ids to try with.
pub fn run() -> ExitCode {
    match request::read().map_err(|e| Failure::system("read the request", e)).and_then(|request| attempt(&request)) {
        Ok(pid) => {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
            request::reply(&Reply::Started { pid, at });
            ExitCode::SUCCESS
        }
        Err(failure) => {
            request::reply(&Reply::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

fn attempt(request: &[u8]) -> Result<i32, Failure> {
    let system = |step: &'static str| move |e: io::Error| Failure::system(step, e);
    let mut parts = request.splitn(2, |byte| *byte == 0);
    let folder = PathBuf::from(std::ffi::OsStr::from_bytes(parts.next().unwrap_or_default()));
    let ids = parts.next().and_then(idmap::parse).ok_or_else(|| Failure::system("read the request", "it has no ids"))?;
    for name in ["upper", "work", "merged", "layers", "layers/0"] {
        std::fs::create_dir(folder.join(name)).map_err(system("make folders"))?;
    }
    std::fs::write(folder.join("layers/0").join(FILE), "below").map_err(system("write a file"))?;
    let mapped = Mapped { ids, namespace: ids.namespace().map_err(system("make a user namespace"))? };
    let (hears, reporter) = steps::channel().map_err(system("make the status pipe"))?;
    // SAFETY: the shim has one thread.
    let pid = unsafe { fds::clone(libc::CLONE_NEWNS, None) }.map_err(system("clone into a new mount namespace"))?;
    if pid == 0 {
        drop(hears);
        inheritance::die_with_parent(true);
        let outcome = inside(&folder, &mapped);
        if let Err(failure) = &outcome {
            reporter.report(failure);
        }
        std::process::exit(i32::from(outcome.is_err()));
    }
    drop(reporter);
    let outcome = hears.outcome();
    // SAFETY: an unreaped child of this process.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    outcome.map(|()| pid)
}

/// What a container's beginning does, and what its root does then: reads, changes and makes files.
fn inside(folder: &Path, mapped: &Mapped) -> Result<(), Failure> {
    let system = |step: &'static str| move |e: io::Error| Failure::system(step, e);
    let root = rootfs::overlay(folder, &folder.join("merged"), &folder.join("layers"), &["0".to_owned()], false, Some(mapped))?;
    // SAFETY: plain fchdir on a descriptor we own.
    fds::check(unsafe { libc::fchdir(std::os::fd::AsRawFd::as_raw_fd(&root)) }).map_err(system("enter the overlay"))?;
    become_root(mapped.ids, &mapped.namespace).map_err(system("become the container's root"))?;
    let changed = std::fs::write(FILE, "above")
        .and_then(|()| std::fs::write("new", ""))
        .and_then(|()| std::os::unix::fs::chown(FILE, Some(7), Some(7)));
    changed.map_err(system("write through an overlay as the container's root"))?;
    let owners = (std::fs::metadata(FILE).map(|meta| meta.uid()), std::fs::metadata("new").map(|meta| meta.uid()));
    match owners {
        (Ok(7), Ok(0)) => Ok(()),
        other => Err(Failure::system("look at the files' owners", format!("{other:?}"))),
    }
}

fn become_root(ids: Ids, namespace: &OwnedFd) -> io::Result<()> {
    ids.make_files_as_root()?;
    fds::setns(namespace, libc::CLONE_NEWUSER)?;
    // SAFETY: no memory arguments but an empty list.
    unsafe {
        fds::check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) as i32)?;
        fds::check(libc::syscall(libc::SYS_setresgid, 0, 0, 0) as i32)?;
        fds::check(libc::syscall(libc::SYS_setresuid, 0, 0, 0) as i32).map(drop)
    }
}
