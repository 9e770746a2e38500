//! Gives the files of one mount another user: what is the access point's user on the disk is the container's user in the container, and
//! the other way round. By the kernel's idmapped mounts (mount_setattr(2)), which take the mapping from a user namespace.
//!
//! And gives a whole container other users: its root and all others are, on the machine, ids that are nobody's but its task's ([`Ids`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::config::FileOwner;
use crate::request::Failure;
use crate::users::Identity;
use crate::{capabilities, fds};

/// The child of which only the user namespace is wanted answers at once.
const PATIENCE_MILLIS: i32 = 10_000;

/// The ids of the machine that a container's own stand for: its user or group n is `first + n` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Ids {
    /// What its root is on the machine.
    pub first: u32,
    /// How many it has.
    pub count: u32,
}

impl Ids {
    /// A user namespace with these ids, kept by its descriptor alone.
    ///
    /// # Errors
    /// Of the kernel: `ENOSPC` where user namespaces are forbidden.
    pub fn namespace(self) -> io::Result<OwnedFd> {
        let map = format!("0 {} {}\n", self.first, self.count);
        namespace(&map, &map)
    }

    /// What somebody of the container is on the machine.
    ///
    /// # Errors
    /// The container has no such id.
    pub fn on_machine(self, identity: &Identity) -> Result<Identity, Failure> {
        let id = |id: u32| if id < self.count { Some(self.first + id) } else { None };
        let ids = (id(identity.uid), id(identity.gid), identity.groups.iter().map(|group| id(*group)).collect());
        match ids {
            (Some(uid), Some(gid), Some(groups)) => Ok(Identity { uid, gid, groups, home: identity.home.clone() }),
            _ => Err(Failure::spec(format!(
                "user {}:{}: this container has the user and group ids 0-{} only",
                identity.uid,
                identity.gid,
                self.count - 1
            ))),
        }
    }

    /// A mount option that names a user or group of the container, as the machine's kernel wants it.
    pub fn shifted(self, option: &str) -> String {
        let parsed = option.split_once('=').filter(|(name, _)| matches!(*name, "uid" | "gid"));
        match parsed.and_then(|(name, id)| Some((name, id.parse::<u32>().ok().filter(|id| *id < self.count)?))) {
            Some((name, id)) => format!("{name}={}", self.first + id),
            None => option.to_owned(),
        }
    }

    /// Has this process make files as the container's root, with the machine's root's rights: what it makes in there belongs in there.
    ///
    /// # Errors
    /// Of the system.
    pub fn make_files_as_root(self) -> io::Result<()> {
        // SAFETY: no memory arguments. By system call: the C library would speak of all threads. They fail by leaving it as it was.
        unsafe {
            libc::syscall(libc::SYS_setfsgid, self.first);
            libc::syscall(libc::SYS_setfsuid, self.first);
            // With an id that is none they only answer.
            if libc::syscall(libc::SYS_setfsuid, -1) as u32 != self.first || libc::syscall(libc::SYS_setfsgid, -1) as u32 != self.first {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
        // The kernel has taken the rights over files with the id.
        capabilities::raise_all()
    }
}

/// Reads ids as they come with a request that is no document: the first and how many, with a blank between.
pub fn parse(text: &[u8]) -> Option<Ids> {
    let (first, count) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some(Ids { first: first.parse().ok()?, count: count.parse().ok()? })
}

/// A container's own ids, and the user namespace of them.
#[derive(Debug)]
pub struct Mapped {
    /// The ids.
    pub ids: Ids,
    /// The namespace.
    pub namespace: OwnedFd,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids { first: 1000, count: 10 };

    #[test]
    fn ids_are_shifted_as_far_as_there_are_some() {
        let who = |uid, gid, groups: &[u32]| Identity { uid, gid, groups: groups.to_vec(), home: "/".into() };
        assert_eq!(IDS.on_machine(&who(0, 9, &[9, 3])).expect("it has them"), who(1000, 1009, &[1009, 1003]));
        for beyond in [who(10, 0, &[]), who(0, 10, &[]), who(0, 0, &[10])] {
            assert!(IDS.on_machine(&beyond).expect_err("it has none").text.contains("ids 0-9 only"));
        }
    }

    #[test]
    fn ids_as_text() {
        assert_eq!(parse(b"1000 10"), Some(IDS));
        assert!(parse(b"1000").is_none() && parse(b"x 1").is_none());
    }

    #[test]
    fn options_that_name_users_are_shifted() {
        let cases = [("gid=5", "gid=1005"), ("uid=0", "uid=1000"), ("uid=10", "uid=10"), ("mode=0620", "mode=0620"), ("nodev", "nodev")];
        for (given, expected) in cases {
            assert_eq!(IDS.shifted(given), expected);
        }
    }
}
