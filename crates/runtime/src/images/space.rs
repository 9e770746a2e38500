//! Room on the file system that images are kept on.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::port::{PullError, Space};

/// The space of the file system that `path` is on, as an ordinary user may use it; `None` if the system does not say.
#[must_use]
pub fn of(path: &Path) -> Option<Space> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all-zero is a valid `statvfs`; the call fills it in.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } == -1 {
        return None;
    }
    let bytes = |blocks: libc::fsblkcnt_t| blocks.saturating_mul(stat.f_frsize);
    Some(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
}

/// Whether an error says that the disk, or somebody's share of it, is full.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Refuses what cannot fit where `path` is. `needed` counts compressed layers, which unpacked are hardly ever smaller: better to say so at
/// once than to fill the disk first.
///
/// # Errors
/// [`PullError::NoSpace`].
pub(crate) fn check(path: &Path, needed: u64) -> Result<(), PullError> {
    match of(path) {
        Some(Space { free, .. }) if free < needed => Err(PullError::NoSpace { needed, free }),
        _ => Ok(()),
    }
}

/// A pull that found the disk full on its way, after so many bytes of it.
pub(crate) fn exhausted(path: &Path, written: u64) -> PullError {
    // What this pull had written is gone by now, so more than that is needed.
    let free = of(path).map_or(0, |space| space.free);
    PullError::NoSpace { needed: written.max(free.saturating_add(1)), free }
}
