//! A folder whose every path is resolved by the kernel as if the folder were the root: no `..` and no link can lead out.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use super::unpack::checked;

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// The folder, with the last used sub-folder kept open: a tar lists a folder's files in a row.
pub struct Inside {
    root: Rc<OwnedFd>,
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

impl Inside {
    /// Opens the folder.
    ///
    /// # Errors
    /// Of the system.
    pub fn open(path: &Path) -> io::Result<Inside> {
        let root = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)?;
        Ok(Inside { root: Rc::new(root.into()), last: None })
    }

    fn resolve(&self, path: &[u8], flags: i32) -> io::Result<OwnedFd> {
        let path = CString::new(if path.is_empty() { b"." } else { path })?;
        let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: 0, resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
        // SAFETY: `path` and `how` outlive the call, and the size is that of what is pointed to.
        let fd = unsafe {
            libc::syscall(libc::SYS_openat2, self.root.as_raw_fd(), path.as_ptr(), &raw const how, std::mem::size_of::<OpenHow>())
        };
        let fd = checked(fd as i32)?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// An existing sub-folder.
    ///
    /// # Errors
    /// Of the system.
    pub fn folder(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.resolve(path, libc::O_PATH | libc::O_DIRECTORY)
    }

    /// An existing entry of any kind; a link itself, not what it points to.
    ///
    /// # Errors
    /// Of the system.
    pub fn entry(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.resolve(path, libc::O_PATH | libc::O_NOFOLLOW)
    }

    /// A sub-folder, made with its parents if missing: layers need not list them.
    ///
    /// # Errors
    /// Of the system.
    pub fn make_folder(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(fd));
        }
        let found = match self.folder(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (parent, name) = split(path);
                let parent = self.make_folder(parent)?;
                let name = CString::new(name)?;
                // SAFETY: `name` is NUL-terminated and outlives the call.
                checked(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o755) })?;
                self.folder(path)?
            }
            Err(error) => return Err(error),
        };
        let found = Rc::new(found);
        self.last = Some((path.to_vec(), Rc::clone(&found)));
        Ok(found)
    }

    /// Makes a new file; never follows a link.
    ///
    /// # Errors
    /// Of the system.
    pub fn create(parent: &OwnedFd, name: &CStr) -> io::Result<File> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: `name` is NUL-terminated and outlives the call.
        let fd = checked(unsafe { libc::openat(parent.as_raw_fd(), name.as_ptr(), flags, 0o600) })?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(unsafe { File::from_raw_fd(fd) })
    }

    /// Removes what stands where an entry goes: the later one of a layer wins.
    ///
    /// # Errors
    /// Of the system.
    pub fn clear(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        // SAFETY: `name` is NUL-terminated and outlives the call.
        match checked(unsafe { libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), 0) }) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EISDIR | libc::EPERM)) => {
                self.last = None;
                let place = format!("/proc/self/fd/{}/{}", parent.as_raw_fd(), name.to_string_lossy());
                std::fs::remove_dir_all(place)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Inside::clear`], but a real folder stays with what is in it.
    ///
    /// # Errors
    /// Of the system.
    pub fn clear_unless_folder(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        // SAFETY: zero is a valid value for this plain structure.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `name` is NUL-terminated, `stat` has room for what the kernel writes.
        let found = unsafe { libc::fstatat(parent.as_raw_fd(), name.as_ptr(), &raw mut stat, libc::AT_SYMLINK_NOFOLLOW) } == 0;
        if found && stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return self.clear(parent, name);
        }
        Ok(())
    }
}

/// A tar's path without leading slashes and dots; `None` if it goes up anywhere. Bytes, since names need not be UTF-8.
pub fn safe_path(path: &[u8]) -> Option<Vec<u8>> {
    if path.contains(&0) {
        return None;
    }
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) { None } else { Some(parts.join(&b'/')) }
}

/// Parent and name; the parent of a top-level entry is empty.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
