//! Project quotas: a limit on what a task keeps on disk. Files of a project belong to it whoever writes them and wherever they lie on the file
//! system; what is made in a folder of a project is the project's too. ext4 and xfs have them, where they are mounted with `prjquota`.
//!
//! By quotactl_fd(2) (Linux 5.14), which needs no path of the device, and the ioctls of chattr(1).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A task's own projects are chosen from here: others' are small numbers, by /etc/projects.
pub const FIRST_PROJECT: u32 = 0x1000_0000;

/// The kernel's unit of limits, in bytes.
const BLOCK: u64 = 1024;

/// What a project has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// In use.
    pub used: u64,
    /// The limit; 0: none.
    pub limit: u64,
    /// Files and folders.
    pub files: u64,
}

/// Why a file system does not keep to project quotas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// This kind of file system, or this kernel, has none.
    #[error("its file system ({0}) has no project quotas")]
    Unknown(String),
    /// It counts, and lets everything through.
    #[error("its file system counts what projects use, and is not mounted to hold them to a limit")]
    NotEnforced,
    /// It could have them, and does not count.
    #[error("its file system ({0}) is not mounted with project quotas")]
    Off(String),
    /// The kernel is too old.
    #[error("this kernel has no quotactl_fd(2)")]
    Kernel,
    /// It could not be found out.
    #[error("it cannot be asked: {0}")]
    Failed(String),
}

#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

const GET_ATTRIBUTES: libc::c_ulong = 0x801c_581f;
const SET_ATTRIBUTES: libc::c_ulong = 0x401c_5820;
const INHERIT: u32 = 0x200;

#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    blocks_hard: u64,
    blocks_soft: u64,
    bytes_used: u64,
    files_hard: u64,
    files_soft: u64,
    files_used: u64,
    blocks_time: u64,
    files_time: u64,
    valid: u32,
}

const BLOCK_LIMITS: u32 = 1;
const GET_QUOTA: u32 = 0x0080_0007;
const SET_QUOTA: u32 = 0x0080_0008;
/// Q_XGETQSTAT, which ext4 answers too.
const GET_STATE: u32 = 0x5805;
const PROJECTS: u32 = 2;

/// Whether the file system that a folder is on holds projects to their limits.
///
/// # Errors
/// Why it does not.
pub fn available(folder: &Path) -> Result<(), Unavailable> {
    const ENFORCED: u16 = 1 << 5;
    const COUNTED: u16 = 1 << 4;
    // Of the kernel's structure only the flags are of interest; it is smaller than this.
    let mut state = [0_u64; 32];
    let place = open(folder).map_err(|error| Unavailable::Failed(error.to_string()))?;
    control(&place, GET_STATE, 0, state.as_mut_ptr().cast()).map_err(|error| unavailable(&error, kind(&place)))?;
    let flags = (state[0] >> 16) as u16;
    match (flags & ENFORCED != 0, flags & COUNTED != 0) {
        (true, _) => Ok(()),
        (false, true) => Err(Unavailable::NotEnforced),
        (false, false) => Err(Unavailable::Off(kind(&place))),
    }
}

fn unavailable(error: &io::Error, kind: String) -> Unavailable {
    match error.raw_os_error() {
        // A file system that has quotas says so of those that are off; the call itself is missing in old kernels, and cannot be told apart
        // from a file system's answer but by its age.
        Some(libc::ENOSYS) if !has_call() => Unavailable::Kernel,
        Some(libc::ENOSYS | libc::ESRCH) if kind == "ext4" || kind == "xfs" => Unavailable::Off(kind),
        Some(libc::ENOSYS | libc::ESRCH | libc::EOPNOTSUPP | libc::EINVAL | libc::ENODEV) => Unavailable::Unknown(kind),
        _ => Unavailable::Failed(error.to_string()),
    }
}

/// A descriptor that is none: the kernel that knows the call says so.
fn has_call() -> bool {
    // SAFETY: nothing is written for a descriptor that is none.
    let result = unsafe { libc::syscall(libc::SYS_quotactl_fd, -1, (GET_STATE << 8) | PROJECTS, 0, std::ptr::null_mut::<u8>()) };
    result == -1 && io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// A name for a kind of file system, for people.
fn kind(place: &File) -> String {
    // SAFETY: zero is a valid value for this plain structure.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `found` has room for what the kernel writes.
    if unsafe { libc::fstatfs(place.as_raw_fd(), &raw mut found) } == -1 {
        return "unknown".to_owned();
    }
    match found.f_type as u64 {
        0xEF53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        0x9123_683E => "btrfs".to_owned(),
        0x794C_7630 => "overlay".to_owned(),
        other => format!("of type {other:#x}"),
    }
}

/// The project that a folder belongs to; 0 if none, also where the file system has none.
///
/// # Errors
/// Of the system.
pub fn project_of(folder: &Path) -> io::Result<u32> {
    match attributes(&open(folder)?) {
        Ok(found) => Ok(found.project),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Gives a folder, and all that is made in it from now on, to a project.
///
/// # Errors
/// Of the system.
pub fn assign(folder: &Path, project: u32) -> io::Result<()> {
    let place = open(folder)?;
    let mut changed = attributes(&place)?;
    changed.flags |= INHERIT;
    changed.project = project;
    // SAFETY: the structure is the one that the call reads, and outlives it.
    check(unsafe { libc::ioctl(place.as_raw_fd(), SET_ATTRIBUTES as _, &raw const changed) })
}

/// Sets a project's limit on the file system that a folder is on; 0 takes it away.
///
/// # Errors
/// Of the system.
pub fn limit(folder: &Path, project: u32, bytes: u64) -> io::Result<()> {
    let mut quota = DiskQuota { blocks_hard: bytes.div_ceil(BLOCK), valid: BLOCK_LIMITS, ..Default::default() };
    control(&open(folder)?, SET_QUOTA, project, (&raw mut quota).cast())
}

/// What a project has on the file system that a folder is on.
///
/// # Errors
/// Of the system.
pub fn usage(folder: &Path, project: u32) -> io::Result<Usage> {
    let mut quota = DiskQuota::default();
    match control(&open(folder)?, GET_QUOTA, project, (&raw mut quota).cast()) {
        // xfs has no record of what nobody has used yet.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Usage::default()),
        Err(error) => Err(error),
        Ok(()) => Ok(Usage { used: quota.bytes_used, limit: quota.blocks_hard.saturating_mul(BLOCK), files: quota.files_used }),
    }
}

fn attributes(place: &File) -> io::Result<Attributes> {
    let mut found = Attributes::default();
    // SAFETY: the structure is the one that the call writes, and outlives it.
    check(unsafe { libc::ioctl(place.as_raw_fd(), GET_ATTRIBUTES as _, &raw mut found) }).map(|()| found)
}

fn open(folder: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(folder)
}

fn control(place: &File, command: u32, project: u32, data: *mut u8) -> io::Result<()> {
    // SAFETY: whoever calls passes what the command reads or writes.
    let result = unsafe { libc::syscall(libc::SYS_quotactl_fd, place.as_raw_fd(), (command << 8) | PROJECTS, project, data) };
    check(result as i32)
}

fn check(result: i32) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_means() {
        let said = |number, kind: &str| unavailable(&io::Error::from_raw_os_error(number), kind.to_owned());
        assert_eq!(said(libc::ESRCH, "ext4"), Unavailable::Off("ext4".into()));
        assert_eq!(said(libc::EINVAL, "tmpfs"), Unavailable::Unknown("tmpfs".into()));
        assert!(matches!(said(libc::EACCES, "ext4"), Unavailable::Failed(_)));
    }

    #[test]
    fn a_file_system_without_projects_says_so() {
        // A kernel's own file system never has any.
        assert!(matches!(available(Path::new("/proc")), Err(Unavailable::Unknown(_) | Unavailable::Kernel)));
        assert_eq!(project_of(Path::new("/proc")).unwrap(), 0);
        assert!(matches!(available(Path::new("/no/such/folder")), Err(Unavailable::Failed(_))));
    }
}
