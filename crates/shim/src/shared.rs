//! Joins what the containers of a task have in common: the namespaces of the task's holder, and copies of the mounts that it made there.
//!
//! A container's own process never mounts a shared pid namespace's /proc: only a member of that namespace could, and while it still had
//! all rights the other containers would see it there, and those with CAP_SYS_PTRACE could take it over.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::fds;
use crate::request::{Failure, Shared};

/// Where the holder has mounted them, as it sees it; also their names in a container's mounts.
pub const PROC: &str = "proc";
/// The shared memory.
pub const SHM: &str = "shm";

/// What was joined.
pub struct Joined {
    /// The namespace in which the program is to be born.
    pub pid: Option<OwnedFd>,
    /// The ipc namespace.
    pub ipc: Option<OwnedFd>,
    /// The user namespace of the task's ids.
    pub user: OwnedFd,
    trees: Vec<(&'static str, OwnedFd)>,
}

impl Joined {
    /// The mount of a name, not yet anywhere.
    pub fn tree(&self, name: &str) -> Option<&OwnedFd> {
        self.trees.iter().find(|(known, _)| *known == name).map(|(_, tree)| tree)
    }
}

/// Opens it all. The caller's working directory is lost on the way; it is `back` in the end.
pub fn join(shared: &Shared, back: &Path) -> Result<Joined, Failure> {
    let system = |step: &'static str| move |e: io::Error| Failure::system(step, e);
    let holder = find(&shared.holder).map_err(system("find the holder of the task's namespaces"))?;
    let open = |kind: &str| File::open(format!("/proc/self/fd/{}/ns/{kind}", holder.as_raw_fd())).map(OwnedFd::from);
    let open = |kind: &str| open(kind).map_err(system("open the task's namespaces"));
    let pid = if shared.pid { Some(open("pid")?) } else { None };
    let ipc = if shared.ipc { Some(open("ipc")?) } else { None };
    let (user, theirs) = (open("user")?, open("mnt")?);
    let ours: OwnedFd = File::open("/proc/self/ns/mnt").map_err(system("open the machine's mounts"))?.into();
    // A mount can only be copied by somebody who is where it is.
    fds::setns(&theirs, libc::CLONE_NEWNS).map_err(system("join the holder's mounts"))?;
    let trees = copies(shared);
    fds::setns(&ours, libc::CLONE_NEWNS).map_err(system("return to the machine's mounts"))?;
    std::env::set_current_dir(back).map_err(system("return to the container's folder"))?;
    Ok(Joined { pid, ipc, user, trees: trees.map_err(system("copy the task's mounts"))? })
}

fn copies(shared: &Shared) -> io::Result<Vec<(&'static str, OwnedFd)>> {
    let mut trees = Vec::new();
    for name in [shared.pid.then_some(PROC), shared.ipc.then_some(SHM)].into_iter().flatten() {
        let place = fds::open_place(&Path::new("/").join(name), libc::O_DIRECTORY)?;
        if name == SHM {
            grow(&place, shared.shared_memory_mib)?;
        }
        let tree = fds::open_tree(&place, false)?;
        fds::set_mount(&tree, fds::NOSUID | fds::NODEV | fds::NOEXEC, false)?;
        trees.push((name, tree));
    }
    Ok(trees)
}

/// The shared memory is as large as the largest that one of the containers asks for.
fn grow(place: &OwnedFd, mib: u32) -> io::Result<()> {
    let wanted = u64::from(mib) << 20;
    if fds::capacity(place)? >= wanted {
        return Ok(());
    }
    let flags = libc::MS_REMOUNT | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    fds::mount(c"shm", c"/shm", c"tmpfs", flags, &std::ffi::CString::new(format!("size={mib}m"))?)
}

/// The folder of the holder in /proc, which stays that process's whoever is given its number later.
fn find(file: &Path) -> io::Result<OwnedFd> {
    let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let text = std::fs::read_to_string(file)?;
    let mut words = text.split_whitespace();
    let (pid, began) = (words.next().ok_or_else(|| strange("it is empty"))?, words.next().ok_or_else(|| strange("it is cut off"))?);
    let folder = fds::open_place(&Path::new("/proc").join(pid), libc::O_DIRECTORY)?;
    let stat = std::fs::read_to_string(format!("/proc/self/fd/{}/stat", folder.as_raw_fd()))?;
    if began_at(&stat) != Some(began) {
        return Err(strange("it has ended"));
    }
    Ok(folder)
}

/// When a process began, in clock ticks since the machine's boot: the 22nd field of `/proc/PID/stat` (proc_pid_stat(5)).
pub fn began_at(stat: &str) -> Option<&str> {
    // The second field is the program's name in parentheses, which may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_found_behind_any_name() {
        let fields: Vec<String> = (3..=30).map(|number| number.to_string()).collect();
        assert_eq!(began_at(&format!("7 (a) b) 1 2) {}", fields.join(" "))), Some("22"));
        assert_eq!(began_at("7 (cut) S 1"), None);
    }
}
