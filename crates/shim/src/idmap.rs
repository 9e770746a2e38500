//! Gives the files of one mount another user: what is the access point's user on the disk is the container's user in the container, and
//! the other way round. By the kernel's idmapped mounts (mount_setattr(2)), which take the mapping from a user namespace.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::config::FileOwner;
use crate::fds;
use crate::users::Identity;

/// The child of which only the user namespace is wanted answers at once.
const PATIENCE_MILLIS: i32 = 10_000;

/// Maps a mount that is not attached anywhere yet. Everybody but the container's own user (and group) is nobody there: may look at what
/// everybody may look at, and write nothing.
///
/// # Errors
/// Of the kernel: `EINVAL` where the file system knows no such mounts, `ENOSPC` where user namespaces are forbidden.
pub fn apply(tree: &OwnedFd, owner: &FileOwner, seen: &Identity) -> io::Result<()> {
    let namespace = namespace(&line(owner.uid, seen.uid), &line(owner.gid, seen.gid))?;
    fds::map_mount(tree, &namespace)
}

/// "On the disk, in the container, how many".
fn line(on_disk: u32, seen: u32) -> String {
    format!("{on_disk} {seen} 1\n")
}

/// A user namespace with these mappings, kept by its descriptor alone.
fn namespace(users: &str, groups: &str) -> io::Result<OwnedFd> {
    let (reader, writer) = fds::pipe()?;
    // It shares this process's descriptors: its own folder in the machine's /proc, whose name for it is unknown in here, comes that way.
    // SAFETY: the shim has one thread.
    let child = unsafe { fds::clone(libc::CLONE_NEWUSER | libc::CLONE_FILES, None) }?;
    if child == 0 {
        // SAFETY: the path is a literal; the process ends here, whatever happens.
        unsafe {
            let own = libc::open(c"/proc/self".as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
            let told = if own == -1 { -*libc::__errno_location() } else { own };
            libc::write(writer.as_raw_fd(), (&raw const told).cast(), std::mem::size_of::<i32>());
            loop {
                libc::pause();
            }
        }
    }
    let made = hear(reader).and_then(|folder| {
        write_at(&folder, "uid_map", users)?;
        write_at(&folder, "gid_map", groups)?;
        fds::open_at(&folder, "ns/user", libc::O_RDONLY)
    });
    // SAFETY: an unreaped child of this process.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    made
}

/// The child's folder in /proc.
fn hear(reader: OwnedFd) -> io::Result<OwnedFd> {
    let mut wait = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which outlives the call.
    if fds::check(unsafe { libc::poll(&raw mut wait, 1, PATIENCE_MILLIS) })? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut told = [0; 4];
    File::from(reader).read_exact(&mut told)?;
    match i32::from_ne_bytes(told) {
        // SAFETY: the child has opened it into the table of both, and ends without using it.
        folder @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(folder) }),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn write_at(folder: &OwnedFd, name: &str, text: &str) -> io::Result<()> {
    File::from(fds::open_at(folder, name, libc::O_WRONLY)?).write_all(text.as_bytes())
}
