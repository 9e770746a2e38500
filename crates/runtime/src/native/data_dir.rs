//! The runtime's folder: nobody else's, and one runtime's at a time.

use std::io;
use std::path::Path;

/// Makes a folder that only root may look into.
///
/// # Errors
/// Of the system.
pub fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

/// Keeps other runtimes out for as long as the file is open.
///
/// # Errors
/// Of the system; `ResourceBusy` while another process has it.
pub fn lock(data_dir: &Path) -> io::Result<std::fs::File> {
    use std::os::fd::AsRawFd;
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(data_dir.join("lock"))?;
    // SAFETY: plain flock on a descriptor we own.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == -1 {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it"));
    }
    Ok(file)
}
