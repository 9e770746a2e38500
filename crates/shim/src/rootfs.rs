//! The container's root file system: an overlay over the image's layers, what is mounted into it, and the way into it.
//!
//! Runs in the container's own mount namespace: the mounts live exactly as long as the container, nobody has to clean them up,
//! and a thousand containers do not lengthen the mount table that each further one has to copy. Every destination is resolved
//! by the kernel inside the root and mounted on by descriptor, so an image cannot bend a mount out of it.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::cgroups::{self, Cgroup};
use crate::config::{Config, Device, Mount};
use crate::idmap::{self, Mapped};
use crate::places::{FOLDER, ensure_file, ensure_folder, make_folder_at};
use crate::request::Failure;
use crate::shared::Joined;
use crate::users::Identity;
use crate::{fds, shared};

/// mount(2) takes one page of options.
const MAX_OPTIONS: usize = 4095;

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

/// Mounts the overlay at `target`; gives the mounted root directory. Where the container's users are `mapped`, the layers are seen with its ids, and
/// what it writes is theirs.
pub fn overlay(
    bundle: &Path,
    target: &Path,
    layers: &Path,
    lower: &[String],
    no_devices: bool,
    mapped: Option<&Mapped>,
) -> Result<OwnedFd, Failure> {
    // Slave, not private: when the host unmounts a disk it must not stay busy because of containers.
    fds::mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_SLAVE, c"")
        .map_err(|e| Failure::system("make mounts slaves of the machine's", e))?;
    // Paths by descriptor are short (127 layers fit in the page) and cannot hold a comma or colon.
    let open_folder = |path: &Path| fds::open_place(path, libc::O_DIRECTORY);
    let layers = open_folder(layers).map_err(|e| Failure::system("open the layers' folder", e))?;
    let folder = open_folder(bundle).map_err(|e| Failure::system("open the container's folder", e))?;
    let mut merged = open_folder(target).map_err(|e| Failure::system("open the root's mount point", e))?;
    let own = folder.as_raw_fd();
    let below: Vec<String> = match mapped {
        None => lower.iter().map(|link| format!("/proc/self/fd/{}/{link}", layers.as_raw_fd())).collect(),
        Some(mapped) => {
            give_upper(&folder, mapped).map_err(|e| Failure::system("give the container its root directory", e))?;
            merged = shelf(target, &layers, lower, mapped).map_err(|e| Failure::system("show the layers with the container's ids", e))?;
            (0..lower.len()).map(|number| format!("/proc/self/fd/{}/{number}", merged.as_raw_fd())).collect()
        }
    };
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

/// The overlay's root is its upper folder.
fn give_upper(bundle: &OwnedFd, mapped: &Mapped) -> io::Result<()> {
    let (root, upper) = (mapped.ids.first, fds::open_straight(bundle, "upper", FOLDER)?);
    // SAFETY: the path is a literal.
    fds::check(unsafe { libc::fchownat(upper.as_raw_fd(), c"".as_ptr(), root, root, libc::AT_EMPTY_PATH) }).map(drop)
}

/// Puts the layers, each with the container's ids, into a folder in memory at `target`, under their numbers. The overlay lies over that. Attached, for
/// only since Linux 6.15 an overlay takes mounts that are attached nowhere.
fn shelf(target: &Path, layers: &OwnedFd, lower: &[String], mapped: &Mapped) -> io::Result<OwnedFd> {
    let place = fds::open_place(target, libc::O_DIRECTORY)?;
    fds::mount_onto(c"tmpfs", &place, c"tmpfs", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC, c"mode=700,size=64k")?;
    let shelf = fds::open_place(target, libc::O_DIRECTORY)?;
    for (number, link) in lower.iter().enumerate() {
        let tree = fds::open_tree(&fds::open_at(layers, link, FOLDER)?, false)?;
        fds::map_mount(&tree, &mapped.namespace)?;
        make_folder_at(&shelf, &number.to_string())?;
        fds::move_mount(&tree, &fds::open_straight(&shelf, &number.to_string(), FOLDER)?)?;
    }
    Ok(shelf)
}

/// Mounts everything that the configuration lists, and fills /dev. `user`: who the container's user is on the machine.
pub fn furnish(
    root: &OwnedFd,
    config: &Config,
    cgroup: &Cgroup,
    joined: Option<&Joined>,
    user: Option<&Identity>,
    mapped: Option<&Mapped>,
) -> Result<(), Failure> {
    for mount in &config.mounts {
        let step = |e: io::Error| Failure::system(&format!("mount {} at {}", mount.source, mount.destination), e);
        match mount.kind.as_str() {
            "bind" => bind(root, mount, user, mapped).map_err(|e| in_whose_name(mount, mapped, e).unwrap_or_else(step))?,
            "shared" => show_shared(root, mount, joined).map_err(step)?,
            "cgroup" => show_cgroup(root, mount, cgroup).map_err(step)?,
            _ => new_file_system(root, mount, mapped).map_err(step)?,
        }
    }
    if has_foreign_dev(config) {
        // A folder of the machine's: what is in it is the user's affair, and device files in it would be the machine's.
        return Ok(());
    }
    fill_dev(root, &config.linux.devices).map_err(|e| Failure::system("make device files", e))
}

/// What became of a mount whose files have another user, if that is what cannot be. It belongs to the specification: an access point.
fn in_whose_name(mount: &Mount, mapped: Option<&Mapped>, error: io::Error) -> Result<Failure, io::Error> {
    let refused = matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSPC | libc::ENOSYS | libc::EPERM));
    match &mount.owner {
        Some(owner) if refused => Ok(Failure::spec(format!(
            "accessPointId: the files at {} cannot be those of user {}:{}: this kernel, or the file system of {}, has no idmapped mounts ({error})",
            mount.destination, owner.uid, owner.gid, mount.source
        ))),
        None if refused && mapped.is_some() => Ok(Failure::spec(format!(
            "mountPoints: the files at {} cannot be those of the task's own users: this kernel, or the file system of {}, has no idmapped mounts \
             ({error})",
            mount.destination, mount.source
        ))),
        _ => Err(error),
    }
}

/// Whether /dev is a folder of the machine's.
pub fn has_foreign_dev(config: &Config) -> bool {
    config.mounts.iter().any(|mount| mount.kind == "bind" && mount.destination == "/dev")
}

/// A mount that the containers of a task have in common.
fn show_shared(root: &OwnedFd, mount: &Mount, joined: Option<&Joined>) -> io::Result<()> {
    let tree = joined.and_then(|joined| joined.tree(&mount.source)).ok_or(io::ErrorKind::NotFound)?;
    let target =
        if mount.source == shared::PROC { system_folder(root, &mount.destination)? } else { ensure_folder(root, &mount.destination)? };
    fds::move_mount(tree, &target)
}

/// What is hidden and read-only below it is found by name afterwards: it must be where it seems to be.
fn system_folder(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    match fds::open_straight(root, path, FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => ensure_folder(root, path),
        result => result,
    }
}

fn bind(root: &OwnedFd, mount: &Mount, user: Option<&Identity>, mapped: Option<&Mapped>) -> io::Result<()> {
    let source = fds::open_place(Path::new(&mount.source), 0)?;
    let is_folder = fds::is_folder(&source)?;
    let target = if is_folder { ensure_folder(root, &mount.destination)? } else { ensure_file(root, &mount.destination)? };
    refuse_in_proc(&target)?;
    // What lies below is of other file systems, whose files are not the access point's, nor the task's.
    let tree = fds::open_tree(&source, mount.owner.is_none() && mapped.is_none())?;
    match (&mount.owner, user, mapped) {
        (Some(owner), Some(user), _) => idmap::apply(&tree, owner, user)?,
        (_, _, Some(mapped)) => fds::map_mount(&tree, &mapped.namespace)?,
        _ => {}
    }
    let read_only = if mount.options.iter().any(|option| option == "ro") { fds::RDONLY } else { 0 };
    fds::set_mount(&tree, read_only, true)?;
    fds::move_mount(&tree, &target)
}

/// The destination's text is not in /proc, `berth-runtime` has seen to that; a link of the image may still lead there
/// (CVE-2019-16884, CVE-2019-19921): what is hidden in /proc, and kernel settings, are found there by name.
fn refuse_in_proc(target: &OwnedFd) -> io::Result<()> {
    if fds::is_in_proc(target)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link of the image leads inside /proc"));
    }
    Ok(())
}

fn new_file_system(root: &OwnedFd, mount: &Mount, mapped: Option<&Mapped>) -> io::Result<()> {
    let mut covered = None;
    let target = match mount.kind.as_str() {
        "proc" | "sysfs" => system_folder(root, &mount.destination)?,
        "tmpfs" => {
            covered = fds::open_in_root(root, &mount.destination, FOLDER).and_then(|folder| fds::rights(&folder)).ok();
            ensure_folder(root, &mount.destination)?
        }
        _ => ensure_folder(root, &mount.destination)?,
    };
    if mount.kind != "proc" {
        refuse_in_proc(&target)?;
    }
    let mut flags = 0;
    // As with runc: rights of the folder that it covers, unless the options say otherwise. Options come later and win.
    let covered = covered.map(|rights| format!("mode={rights:o}"));
    let mut data: Vec<String> = covered.into_iter().collect();
    for option in &mount.options {
        match flag(option) {
            Some((set, true)) => flags |= set,
            Some((clear, false)) => flags &= !clear,
            None => data.push(mapped.map_or_else(|| option.clone(), |mapped| mapped.ids.shifted(option))),
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
                owner: None,
            },
            None,
        );
    };
    let target = ensure_folder(root, &mount.destination)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    fds::mount_onto(c"tmpfs", &target, c"tmpfs", flags, c"mode=755,size=64k")?;
    let top = fds::open_in_root(root, &mount.destination, FOLDER)?;
    for (name, folder) in folders.iter().filter(|(name, _)| cgroups::is_shown(name)) {
        ignore_existing(make_folder_at(&top, name))?;
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
        let (folder, name) = device.path.rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        let parent = match folder {
            "/dev" => fds::open_straight(root, "/dev", FOLDER)?,
            folder => ensure_folder(root, folder)?,
        };
        refuse_in_proc(&parent)?;
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
    ignore_existing(fds::check(unsafe { libc::mknodat(folder.as_raw_fd(), name.as_ptr(), mode, device) }).map(drop))
}

fn link_at(folder: &OwnedFd, name: &str, target: &str) -> io::Result<()> {
    let (name, target) = (CString::new(name)?, CString::new(target)?);
    // SAFETY: both strings are NUL-terminated and outlive the call.
    ignore_existing(fds::check(unsafe { libc::symlinkat(target.as_ptr(), folder.as_raw_fd(), name.as_ptr()) }).map(drop))
}

fn ignore_existing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
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
        make_read_only(path).map_err(|e| Failure::system(&format!("make {path} read-only"), e))?;
    }
    if !config.linux.masked_paths.is_empty() {
        let null = fds::open_null().map_err(|e| Failure::system("open /dev/null to hide files with", e))?.into();
        for path in &config.linux.masked_paths {
            hide(path, &null).map_err(|e| Failure::system(&format!("hide {path}"), e))?;
        }
        std::env::set_current_dir("/").map_err(|e| Failure::system("return to the root", e))?;
    }
    if config.root.readonly {
        // By mount_setattr, which adds to what the mount has: a remount would take "no device files" away from it.
        let root = fds::open_place(Path::new("/"), libc::O_DIRECTORY).map_err(|e| Failure::system("open the root file system", e))?;
        fds::set_mount(&root, fds::RDONLY, false).map_err(|e| Failure::system("make the root read-only", e))?;
    }
    Ok(())
}

/// The place at a path of the configuration; `None` if this kernel does not have it. Never through a link.
fn existing(path: &str) -> io::Result<Option<OwnedFd>> {
    match fds::open_place(Path::new(path), libc::O_NOFOLLOW) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        result => result.map(Some),
    }
}

fn make_read_only(path: &str) -> io::Result<()> {
    let Some(place) = existing(path)? else { return Ok(()) };
    let tree = fds::open_tree(&place, true)?;
    fds::set_mount(&tree, fds::RDONLY | fds::NOSUID | fds::NODEV | fds::NOEXEC, true)?;
    fds::move_mount(&tree, &place)
}

fn hide(path: &str, null: &OwnedFd) -> io::Result<()> {
    let Some(place) = existing(path)? else { return Ok(()) };
    if fds::is_folder(&place)? {
        // Not by way of /proc: of a shared pid namespace's this process is no part.
        return fds::mount_here(&place, c"tmpfs", libc::MS_RDONLY, c"size=0k");
    }
    fds::move_mount(&fds::open_tree(null, false)?, &place)
}

/// Writes kernel settings of the container's own namespaces; its /proc is mounted and still writable.
pub fn set_sysctls(config: &Config) -> Result<(), Failure> {
    if config.linux.sysctl.is_empty() {
        return Ok(());
    }
    let proc = fds::open_place(Path::new("/proc"), libc::O_DIRECTORY).map_err(|e| Failure::system("open /proc", e))?;
    for (name, value) in &config.linux.sysctl {
        write_sysctl(&proc, name, value).map_err(|e| Failure::spec(format!("systemControls: set {name}: {e}")))?;
    }
    Ok(())
}

/// Straight down in a real /proc, so that no other file is written (CVE-2025-52881).
fn write_sysctl(proc: &OwnedFd, name: &str, value: &str) -> io::Result<()> {
    let file = fds::open_straight(proc, &format!("sys/{}", name.replace('.', "/")), libc::O_WRONLY)?;
    if !fds::is_in_proc(&file)? {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a kernel setting"));
    }
    std::fs::File::from(file).write_all(value.as_bytes())
}
