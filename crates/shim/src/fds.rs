//! Thin, checked wrappers around the system calls that the shim needs and `std` lacks. All safety arguments are here or local.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
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

/// Copies a descriptor to a number of at least `lowest`, close-on-exec.
pub fn lift(fd: &OwnedFd, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain fcntl on a descriptor we own.
    own(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) }.into())
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

fn open_how(root: &OwnedFd, path: &str, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: 0, resolve };
    // SAFETY: `path` and `how` outlive the call, and the size is that of what is pointed to.
    own(unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, std::mem::size_of::<OpenHow>()) })
}

/// Opens `path` as a process would whose root is `root`: neither `..` nor a symbolic link can lead out of it.
pub fn open_in_root(root: &OwnedFd, path: &str, flags: i32) -> io::Result<OwnedFd> {
    open_how(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
}

/// As [`open_in_root`], but no part of the path may be a link at all.
pub fn open_straight(root: &OwnedFd, path: &str, flags: i32) -> io::Result<OwnedFd> {
    open_how(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS)
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

/// Copies the mount at `path` (with those below it, if `recursive`) into a descriptor.
pub fn open_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    const CLONE: u32 = 1;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = CLONE | libc::O_CLOEXEC as u32 | if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    // SAFETY: `path` is NUL-terminated and outlives the call.
    own(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Sets attributes of a mount that a descriptor stands for, and makes it private.
pub fn set_mount(tree: &OwnedFd, set: u64, recursive: bool) -> io::Result<()> {
    let attributes = MountAttributes { set, clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a literal and `attributes` outlives the call; the size is that of what is pointed to.
    let result = unsafe {
        let size = std::mem::size_of::<MountAttributes>();
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &raw const attributes, size)
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

/// Joins namespaces.
pub fn setns(fd: &OwnedFd, kinds: i32) -> io::Result<()> {
    // SAFETY: no memory arguments.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }).map(drop)
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
