//! Thin, checked wrappers around the system calls that the shim needs and `std` lacks. All safety arguments are here or local.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Turns the C convention of -1 into an error.
pub fn check(result: i32) -> io::Result<i32> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn own(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result as i32)?;
    // SAFETY: the kernel has just made this descriptor; it belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A close-on-exec pipe: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors that the kernel writes.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both descriptors were just made and belong to nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Makes `from` also available as `to`, kept open across exec.
pub fn place(from: RawFd, to: RawFd) -> io::Result<()> {
    if from == to {
        // SAFETY: plain fcntl on a descriptor number.
        return check(unsafe { libc::fcntl(to, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: plain dup2 on descriptor numbers.
    check(unsafe { libc::dup2(from, to) }).map(drop)
}

/// Keeps other processes from looking into this one and those it clones, until they execute a program: one that is born in a
/// container's pid namespace must already be hidden then, so this comes before the clone (CVE-2016-9962).
pub fn hide_from_others() {
    // SAFETY: no memory arguments.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Copies a descriptor to a number of at least `lowest`, close-on-exec.
pub fn lift(fd: &OwnedFd, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain fcntl on a descriptor we own.
    own(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) }.into())
}

/// Closes all descriptors from `lowest` on: what the agent had inherited without knowing must reach neither container nor monitor.
pub fn close_from(lowest: RawFd) -> io::Result<()> {
    // SAFETY: no memory arguments.
    let result = unsafe { libc::syscall(libc::SYS_close_range, lowest, u32::MAX, 0) };
    check(result as i32).map(drop)
}

/// Marks all descriptors from `lowest` on close-on-exec.
pub fn close_on_exec_from(lowest: RawFd) -> io::Result<()> {
    // SAFETY: no memory arguments.
    let result = unsafe { libc::syscall(libc::SYS_close_range, lowest, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(result as i32).map(drop)
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// How often a walk is tried again that the kernel broke off; as often as runc does.
const WALKS: u32 = 128;

/// openat2(2). With a `..` in the path or in a link on the way, the kernel gives up with EAGAIN whenever anybody on the machine
/// renames or mounts meanwhile, for it could not tell then whether the walk stayed inside.
fn open_how(root: &OwnedFd, path: &str, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: 0, resolve };
    let size = std::mem::size_of::<OpenHow>();
    // SAFETY: `path` and `how` outlive the call, and the size is that of what is pointed to.
    let walk = || own(unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size) });
    for _ in 1..WALKS {
        match walk() {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            result => return result,
        }
    }
    walk()
}

/// Opens `path` as a process would whose root is `root`: neither `..` nor a symbolic link can lead out of it.
pub fn open_in_root(root: &OwnedFd, path: &str, flags: i32) -> io::Result<OwnedFd> {
    open_how(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
}

/// As [`open_in_root`], but no part of the path may be a link at all.
pub fn open_straight(root: &OwnedFd, path: &str, flags: i32) -> io::Result<OwnedFd> {
    open_how(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS)
}

/// openat(2), for folders that no image has a say in.
pub fn open_at(folder: &OwnedFd, name: &str, flags: i32) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    own(unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC) }.into())
}

/// mount(2).
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong, options: &CStr) -> io::Result<()> {
    // SAFETY: all four strings are NUL-terminated and outlive the call.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) }).map(drop)
}

/// mount(2) onto a descriptor, which no link can bend. The machine's /proc must still be there.
pub fn mount_onto(source: &CStr, target: &OwnedFd, kind: &CStr, flags: libc::c_ulong, options: &CStr) -> io::Result<()> {
    mount(source, &CString::new(format!("/proc/self/fd/{}", target.as_raw_fd()))?, kind, flags, options)
}

/// mount(2) onto a folder by going there: this needs no /proc that knows this process. The working directory is that folder then.
pub fn mount_here(target: &OwnedFd, kind: &CStr, flags: libc::c_ulong, options: &CStr) -> io::Result<()> {
    // SAFETY: no memory arguments.
    check(unsafe { libc::fchdir(target.as_raw_fd()) })?;
    mount(kind, c".", kind, flags, options)
}

/// Mount attributes of mount_setattr(2).
pub const RDONLY: u64 = 0x1;
/// No set-user-id.
pub const NOSUID: u64 = 0x2;
/// No device files.
pub const NODEV: u64 = 0x4;
/// No programs.
pub const NOEXEC: u64 = 0x8;

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Opens a path as a place, not for reading; `more` may say what it must be, or that it must not be a link.
pub fn open_place(path: &Path, more: i32) -> io::Result<OwnedFd> {
    Ok(std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | more).open(path)?.into())
}

/// Copies the mount at `place` (with those below it, if `recursive`) into a descriptor. By descriptor, not by name: what was
/// looked at before is what is mounted, whoever may rename things meanwhile.
pub fn open_tree(place: &OwnedFd, recursive: bool) -> io::Result<OwnedFd> {
    const CLONE: u32 = 1;
    let flags = CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32 | if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    // SAFETY: the path is a literal.
    own(unsafe { libc::syscall(libc::SYS_open_tree, place.as_raw_fd(), c"".as_ptr(), flags) })
}

fn stat(fd: &OwnedFd) -> io::Result<libc::stat> {
    // SAFETY: zero is a valid value for this plain structure.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `found` has room for what the kernel writes.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut found) })?;
    Ok(found)
}

/// Whether a descriptor stands for a folder.
pub fn is_folder(fd: &OwnedFd) -> io::Result<bool> {
    Ok(stat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Rights as chmod(1) writes them.
pub fn rights(fd: &OwnedFd) -> io::Result<u32> {
    Ok(stat(fd)?.st_mode & 0o7777)
}

fn stat_system(fd: &OwnedFd) -> io::Result<libc::statfs> {
    // SAFETY: zero is a valid value for this plain structure.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `found` has room for what the kernel writes.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut found) })?;
    Ok(found)
}

/// The magic number of the file system that a descriptor leads into.
pub fn file_system(fd: &OwnedFd) -> io::Result<u64> {
    Ok(stat_system(fd)?.f_type as u64)
}

/// Size in bytes of the file system that a descriptor leads into.
pub fn capacity(fd: &OwnedFd) -> io::Result<u64> {
    let found = stat_system(fd)?;
    Ok((found.f_blocks as u64).saturating_mul(found.f_bsize as u64))
}

/// Whether a descriptor leads into a proc file system.
pub fn is_in_proc(fd: &OwnedFd) -> io::Result<bool> {
    Ok(file_system(fd)? == libc::PROC_SUPER_MAGIC as u64)
}

/// Opens this root's /dev/null. It must be the null device itself: where somebody else filled /dev it could be a link to
/// anything, which would then be what programs read, or what is laid over hidden files (CVE-2025-31133).
pub fn open_null() -> io::Result<std::fs::File> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    // Not blocking, for it may be a FIFO; but the program that gets it expects an ordinary stdin.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open("/dev/null")?;
    // SAFETY: plain fcntl on a descriptor we own.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) })?;
    let meta = file.metadata()?;
    if !meta.file_type().is_char_device() || meta.rdev() != libc::makedev(1, 3) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not the null device"));
    }
    Ok(file)
}

/// Sets attributes of a mount that a descriptor stands for, and makes it private.
pub fn set_mount(tree: &OwnedFd, set: u64, recursive: bool) -> io::Result<()> {
    change_mount(tree, &MountAttributes { set, clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 }, recursive)
}

/// Shows the files of a mount that a descriptor stands for, and that is attached nowhere yet, by the mapping of a user namespace.
pub fn map_mount(tree: &OwnedFd, namespace: &OwnedFd) -> io::Result<()> {
    const IDMAP: u64 = 0x0010_0000;
    let user_namespace = namespace.as_raw_fd() as u64;
    change_mount(tree, &MountAttributes { set: IDMAP, clear: 0, propagation: 0, user_namespace }, false)
}

fn change_mount(tree: &OwnedFd, attributes: &MountAttributes, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a literal and `attributes` outlives the call; the size is that of what is pointed to.
    let result = unsafe {
        let size = std::mem::size_of::<MountAttributes>();
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, std::ptr::from_ref(attributes), size)
    };
    check(result as i32).map(drop)
}

/// Mounts a copied tree onto what `target` stands for.
pub fn move_mount(tree: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    const FROM_EMPTY_TO_EMPTY: u32 = 0x4 | 0x40;
    // SAFETY: both paths are literals.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), target.as_raw_fd(), c"".as_ptr(), FROM_EMPTY_TO_EMPTY)
    };
    check(result as i32).map(drop)
}

/// A descriptor of a process.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory arguments.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Whether the process of a descriptor has not been reaped.
pub fn is_alive(pidfd: &OwnedFd) -> bool {
    // SAFETY: no siginfo is passed; signal 0 only asks.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), 0, std::ptr::null::<u8>(), 0) == 0 }
}

/// Joins namespaces.
pub fn setns(fd: &OwnedFd, kinds: i32) -> io::Result<()> {
    // SAFETY: no memory arguments.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }).map(drop)
}

/// Clones this process as a child of its parent. By the old call, which is what containers' seccomp filters let through. Gives 0
/// in the child.
///
/// # Safety
/// As with [`clone`].
pub unsafe fn clone_sibling() -> io::Result<i32> {
    let flags = (libc::CLONE_PARENT | libc::SIGCHLD) as libc::c_ulong;
    let none: libc::c_ulong = 0;
    // SAFETY: no stack and no places for numbers are given, so the child continues on a copy of this one.
    check(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) } as i32)
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Clones this process as fork(2) does, with namespaces, straight into a cgroup if there is one. Gives 0 in the child.
///
/// # Safety
/// The process must have one thread: the child continues with a copy of its memory.
pub unsafe fn clone(flags: i32, cgroup: Option<RawFd>) -> io::Result<i32> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut arguments = CloneArguments { flags: flags as u64, exit_signal: libc::SIGCHLD as u64, ..CloneArguments::default() };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup as u64;
    }
    // SAFETY: `arguments` outlives the call, the size is right; no stack is given, so the child continues on a copy of this one.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, std::mem::size_of::<CloneArguments>()) };
    check(result as i32)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn walks_survive_renames_elsewhere() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("a folder");
        std::fs::create_dir(folder.path().join("x")).expect("a folder");
        let root = open_place(folder.path(), libc::O_DIRECTORY).expect("it is there");
        let (stop, path) = (AtomicBool::new(false), folder.path());
        let failed = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = std::fs::rename(path.join("x"), path.join("y"));
                    let _ = std::fs::rename(path.join("y"), path.join("x"));
                }
            });
            let walk = |_: &u32| open_in_root(&root, "/a/b/../b/../b/../b", libc::O_PATH).is_err();
            let failed = (0..200_000).filter(walk).count();
            stop.store(true, Ordering::Relaxed);
            failed
        });
        assert_eq!(failed, 0);
    }
}
