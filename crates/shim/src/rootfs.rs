//! The container's root file system: an overlay over the image's layers, what is mounted into it, and the way into it.
//!
//! Runs in the container's own mount namespace: the mounts live exactly as long as the container, nobody has to clean them up,
//! and a thousand containers do not lengthen the mount table that each further one has to copy. Every destination is resolved
//! by the kernel inside the root and mounted on by descriptor, so an image cannot bend a mount out of it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cgroups::{self, Cgroup};
use crate::config::{Config, Device, Mount};
use crate::fds;
use crate::request::Failure;

/// mount(2) takes one page of options.
const MAX_OPTIONS: usize = 4095;
const FOLDER: i32 = libc::O_PATH | libc::O_DIRECTORY;

/// The usual device files: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts the overlay at `target`; gives the mounted root directory.
pub fn overlay(bundle: &Path, target: &Path, layers: &Path, lower: &[String], no_devices: bool) -> Result<OwnedFd, Failure> {
    // Slave, not private: when the host unmounts a disk it must not stay busy because of containers.
    fds::mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_SLAVE, c"")
        .map_err(|e| Failure::system("make mounts slaves of the machine's", e))?;
    // Paths by descriptor are short (127 layers fit in the page) and cannot hold a comma or colon.
    let layers = open_folder(layers).map_err(|e| Failure::system("open the layers' folder", e))?;
    let folder = open_folder(bundle).map_err(|e| Failure::system("open the container's folder", e))?;
    let merged = open_folder(target).map_err(|e| Failure::system("open the root's mount point", e))?;
    let own = folder.as_raw_fd();
    let below: Vec<String> = lower.iter().map(|link| format!("/proc/self/fd/{}/{link}", layers.as_raw_fd())).collect();
    let options = format!("lowerdir={},upperdir=/proc/self/fd/{own}/upper,workdir=/proc/self/fd/{own}/work", below.join(":"));
    if options.len() > MAX_OPTIONS {
        return Err(Failure::spec(format!("the image has too many layers ({})", lower.len())));
    }
    let flags = if no_devices { libc::MS_NODEV } else { 0 };
    let try_with = |options: &str| fds::mount_onto(c"overlay", &merged, c"overlay", flags, &CString::new(options)?);
    // "volatile": a container's own files never outlive a power loss (it is lost then), so nothing is gained by waiting for
    // the disk when it is unmounted or when its program calls fsync. Kernels before 5.10 do not know it.
    let mut result = try_with(&format!("{options},volatile"));
    if result.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL)) {
        result = try_with(&options);
    }
    result.map_err(|e| Failure::system("mount the root file system (overlay)", e))?;
    open_folder(target).map_err(|e| Failure::system("open the root file system", e))
}

/// Mounts everything that the configuration lists, and fills /dev.
pub fn furnish(root: &OwnedFd, config: &Config, cgroup: &Cgroup) -> Result<(), Failure> {
    for mount in &config.mounts {
        let step = |e: io::Error| Failure::system(&format!("mount {} at {}", mount.source, mount.destination), e);
        match mount.kind.as_str() {
            "bind" => bind(root, mount).map_err(step)?,
            "cgroup" => show_cgroup(root, mount, cgroup).map_err(step)?,
            _ => new_file_system(root, mount).map_err(step)?,
        }
    }
    fill_dev(root, &config.linux.devices).map_err(|e| Failure::system("make device files", e))
}

fn bind(root: &OwnedFd, mount: &Mount) -> io::Result<()> {
    let source = Path::new(&mount.source);
    let target = if source.is_dir() { ensure_folder(root, &mount.destination)? } else { ensure_file(root, &mount.destination)? };
    let tree = fds::open_tree(source, true)?;
    let read_only = if mount.options.iter().any(|option| option == "ro") { fds::RDONLY } else { 0 };
    fds::set_mount(&tree, read_only, true)?;
    fds::move_mount(&tree, &target)
}

fn new_file_system(root: &OwnedFd, mount: &Mount) -> io::Result<()> {
    let target = match mount.kind.as_str() {
        // What is hidden and read-only below these is found by name afterwards: they must be where they seem to be.
        "proc" | "sysfs" => match fds::open_straight(root, &mount.destination, FOLDER) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => ensure_folder(root, &mount.destination)?,
            result => result?,
        },
        _ => ensure_folder(root, &mount.destination)?,
    };
    let mut flags = 0;
    let mut data = Vec::new();
    for option in &mount.options {
        match flag(option) {
            Some((set, true)) => flags |= set,
            Some((clear, false)) => flags &= !clear,
            None => data.push(option.as_str()),
        }
    }
    let kind = CString::new(mount.kind.as_str())?;
    fds::mount_onto(&kind, &target, &kind, flags, &CString::new(data.join(","))?)
}

/// mount(8)'s words for mount(2)'s flags, and whether they set or clear it.
fn flag(option: &str) -> Option<(libc::c_ulong, bool)> {
    Some(match option {
        "ro" => (libc::MS_RDONLY, true),
        "rw" => (libc::MS_RDONLY, false),
        "nosuid" => (libc::MS_NOSUID, true),
        "suid" => (libc::MS_NOSUID, false),
        "nodev" => (libc::MS_NODEV, true),
        "dev" => (libc::MS_NODEV, false),
        "noexec" => (libc::MS_NOEXEC, true),
        "exec" => (libc::MS_NOEXEC, false),
        "sync" => (libc::MS_SYNCHRONOUS, true),
        "async" => (libc::MS_SYNCHRONOUS, false),
        "dirsync" => (libc::MS_DIRSYNC, true),
        "mand" => (libc::MS_MANDLOCK, true),
        "nomand" => (libc::MS_MANDLOCK, false),
        "noatime" => (libc::MS_NOATIME, true),
        "atime" => (libc::MS_NOATIME, false),
        "nodiratime" => (libc::MS_NODIRATIME, true),
        "diratime" => (libc::MS_NODIRATIME, false),
        "relatime" => (libc::MS_RELATIME, true),
        "norelatime" => (libc::MS_RELATIME, false),
        "strictatime" => (libc::MS_STRICTATIME, true),
        "nostrictatime" => (libc::MS_STRICTATIME, false),
        _ => return None,
    })
}

/// /sys/fs/cgroup: on version 2 a mount of the container's own namespace, on version 1 a folder with each hierarchy's.
fn show_cgroup(root: &OwnedFd, mount: &Mount, cgroup: &Cgroup) -> io::Result<()> {
    let writable = !mount.options.iter().any(|option| option == "ro");
    let Cgroup::V1 { folders, .. } = cgroup else {
        return new_file_system(
            root,
            &Mount {
                kind: "cgroup2".into(),
                source: "cgroup2".into(),
                destination: mount.destination.clone(),
                options: mount.options.clone(),
            },
        );
    };
    let target = ensure_folder(root, &mount.destination)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    fds::mount_onto(c"tmpfs", &target, c"tmpfs", flags, c"mode=755,size=64k")?;
    let top = fds::open_in_root(root, &mount.destination, FOLDER)?;
    for (name, folder) in folders.iter().filter(|(name, _)| cgroups::is_shown(name)) {
        make_folder_at(&top, name)?;
        let place = fds::open_straight(&top, name, FOLDER)?;
        fds::move_mount(&cgroups::view(folder, writable)?, &place)?;
        for part in name.split(',').filter(|part| part != name) {
            link_at(&top, part, name)?;
        }
    }
    if writable {
        return Ok(());
    }
    fds::mount_onto(c"none", &top, c"none", flags | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, c"")
}

fn fill_dev(root: &OwnedFd, more: &[Device]) -> io::Result<()> {
    let dev = fds::open_straight(root, "/dev", FOLDER)?;
    // SAFETY: no memory arguments. The rights below are meant exactly.
    let old = unsafe { libc::umask(0) };
    for (name, major, minor) in DEVICES {
        make_device(&dev, name, libc::S_IFCHR | 0o666, libc::makedev(major, minor))?;
    }
    for (name, target) in LINKS {
        link_at(&dev, name, target)?;
    }
    for device in more {
        let Some((folder, name)) = device.path.strip_prefix("/dev/").map(|path| path.rsplit_once('/').unwrap_or(("", path))) else {
            continue;
        };
        let parent =
            if folder.is_empty() { fds::open_straight(root, "/dev", FOLDER)? } else { ensure_folder(root, &format!("/dev/{folder}"))? };
        let kind = if device.kind == "b" { libc::S_IFBLK } else { libc::S_IFCHR };
        make_device(&parent, name, kind | device.file_mode, libc::makedev(device.major, device.minor))?;
        let c_name = CString::new(name)?;
        // SAFETY: `c_name` is NUL-terminated and outlives the call.
        fds::check(unsafe { libc::fchownat(parent.as_raw_fd(), c_name.as_ptr(), device.uid, device.gid, libc::AT_SYMLINK_NOFOLLOW) })?;
    }
    // SAFETY: as above.
    unsafe { libc::umask(old) };
    Ok(())
}

fn make_device(folder: &OwnedFd, name: &str, mode: u32, device: libc::dev_t) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    ignore_existing(fds::check(unsafe { libc::mknodat(folder.as_raw_fd(), name.as_ptr(), mode, device) }))
}

fn link_at(folder: &OwnedFd, name: &str, target: &str) -> io::Result<()> {
    let (name, target) = (CString::new(name)?, CString::new(target)?);
    // SAFETY: both strings are NUL-terminated and outlive the call.
    ignore_existing(fds::check(unsafe { libc::symlinkat(target.as_ptr(), folder.as_raw_fd(), name.as_ptr()) }))
}

fn make_folder_at(folder: &OwnedFd, name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    ignore_existing(fds::check(unsafe { libc::mkdirat(folder.as_raw_fd(), name.as_ptr(), 0o755) }))
}

fn ignore_existing(result: io::Result<i32>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes `root` the root, and lets go of everything else.
pub fn pivot(root: &OwnedFd) -> io::Result<()> {
    // SAFETY: plain calls; the paths are literals. The new root is stacked on the old one and the old one then taken off.
    unsafe {
        fds::check(libc::fchdir(root.as_raw_fd()))?;
        fds::check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as i32)?;
        fds::check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        fds::check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}

/// After the pivot: what must not be seen or written.
pub fn seal(config: &Config) -> Result<(), Failure> {
    for path in &config.linux.readonly_paths {
        over(Path::new(path), None, true).map_err(|e| Failure::system(&format!("make {path} read-only"), e))?;
    }
    for path in &config.linux.masked_paths {
        hide(path).map_err(|e| Failure::system(&format!("hide {path}"), e))?;
    }
    if config.root.readonly {
        let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        // The other flags of the mount are what `overlay` gave it; NODEV is kept because dropping it would not matter read-only.
        fds::mount(c"none", c"/", c"none", flags, c"").map_err(|e| Failure::system("make the root read-only", e))?;
    }
    Ok(())
}

fn hide(path: &str) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => fds::mount(c"tmpfs", &CString::new(path)?, c"tmpfs", libc::MS_RDONLY, c"size=0k"),
        Ok(_) => over(Path::new(path), Some(Path::new("/dev/null")), false),
    }
}

/// Mounts `source` (or the place itself) over a place that exists.
fn over(place: &Path, source: Option<&Path>, read_only: bool) -> io::Result<()> {
    let target = match std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => OwnedFd::from(result?),
    };
    let tree = fds::open_tree(source.unwrap_or(place), true)?;
    if read_only {
        fds::set_mount(&tree, fds::RDONLY | fds::NOSUID | fds::NODEV | fds::NOEXEC, true)?;
    }
    fds::move_mount(&tree, &target)
}

/// Opens a folder inside `root`; makes it, and its parents, if missing.
///
/// Walks component by component, each opened inside the root and never through /proc's magic links: a path or link in an image
/// must not make or enter a folder outside (as in CVE-2024-21626). New folders are root's, as Docker makes them.
pub fn ensure_folder(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    if let Ok(found) = fds::open_in_root(root, path, FOLDER) {
        return Ok(found);
    }
    let mut so_far = String::from("/");
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let parent = fds::open_in_root(root, &so_far, FOLDER)?;
        so_far.push_str(part);
        so_far.push('/');
        if fds::open_in_root(root, &so_far, FOLDER).is_err() {
            make_folder_at(&parent, part)?;
        }
    }
    fds::open_in_root(root, path, FOLDER)
}

/// Opens a file inside `root`; makes an empty one if missing.
fn ensure_file(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    match fds::open_in_root(root, path, libc::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("/", path));
            let parent = ensure_folder(root, if folder.is_empty() { "/" } else { folder })?;
            let name = CString::new(name)?;
            // SAFETY: `name` is NUL-terminated and outlives the call.
            ignore_existing(fds::check(unsafe { libc::mknodat(parent.as_raw_fd(), name.as_ptr(), libc::S_IFREG | 0o644, 0) }))?;
            fds::open_in_root(root, path, libc::O_PATH)
        }
        result => result,
    }
}

/// Opens a folder as a place, not for reading.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(std::fs::OpenOptions::new().read(true).custom_flags(FOLDER).open(path)?.into())
}

/// Writes kernel settings of the container's own namespaces; its /proc is mounted and still writable.
pub fn set_sysctls(config: &Config) -> Result<(), Failure> {
    for (name, value) in &config.linux.sysctl {
        let path = PathBuf::from(format!("/proc/sys/{}", name.replace('.', "/")));
        std::fs::write(&path, value).map_err(|e| Failure::spec(format!("systemControls: set {name}: {e}")))?;
    }
    Ok(())
}
