//! One layer from its compressed bytes to a folder that overlay can use. The tar is hostile: no entry may touch anything
//! outside the folder, and everything is counted.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::inside::{Inside, safe_path, split};

/// What a layer may be. Generous for real images, deadly for bombs.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Most unpacked bytes.
    pub bytes: u64,
    /// Most unpacked bytes per compressed byte; not applied to the first [`Limits::free_bytes`].
    pub ratio: u64,
    /// Unpacked bytes that any layer may have.
    pub free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 4_000_000, bytes: 64 << 30, ratio: 200, free_bytes: 256 << 20 }
    }
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The layer is not one, or not a decent one.
    #[error("{0}")]
    Invalid(String),
    /// The disk.
    #[error("{0}")]
    Storage(String),
    /// The disk is full, after so many unpacked bytes of this layer.
    #[error("no space left after {0} bytes")]
    Full(u64),
    /// The source of bytes broke off.
    #[error("{0}")]
    Source(io::Error),
}

/// A layer that was unpacked whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// `sha256:<hex>` of its tar.
    pub diff_id: String,
    /// Bytes of its tar: within a few percent what it takes on the disk.
    pub bytes: u64,
}

/// Unpacks a layer (gzip, zstd or plain, told by its first bytes) into the empty folder `target`.
///
/// `size` is the compressed size that the manifest promised.
///
/// # Errors
/// [`UnpackError`]; `target` then holds rubbish.
pub fn unpack(compressed: impl Read, size: u64, target: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    let budget = limits.bytes.min(size.saturating_mul(limits.ratio).max(limits.free_bytes));
    let mut source = Blamed { inner: compressed, failure: None };
    let result = decode_into(&mut source, budget, target, limits);
    // A broken connection shows up as an error of the tar reader; the cause is what the user needs.
    match source.failure.take() {
        Some(failure) => Err(UnpackError::Source(failure)),
        None => result,
    }
}

fn decode_into(source: &mut impl Read, budget: u64, target: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    let decoded = decoder(source)?;
    let mut tar = Counted { inner: decoded, hash: Sha256::new(), left: budget };
    let folder = Inside::open(target).map_err(|e| UnpackError::Storage(format!("open {}: {e}", target.display())))?;
    unpack_tar(&mut tar, folder, limits).map_err(|error| match error {
        UnpackError::Full(_) => UnpackError::Full(budget - tar.left),
        other => other,
    })?;
    // The diff_id covers the padding after the last entry too.
    io::copy(&mut tar, &mut io::sink()).map_err(|e| UnpackError::Invalid(format!("read layer: {e}")))?;
    Ok(tar.finish(budget))
}

/// The bytes of a layer's tar: gzip, zstd or plain, told by its first bytes.
///
/// # Errors
/// [`UnpackError::Invalid`].
pub(crate) fn decoder<'a>(source: &'a mut impl Read) -> Result<Box<dyn Read + 'a>, UnpackError> {
    let mut magic = Vec::with_capacity(4);
    source.take(4).read_to_end(&mut magic).map_err(|e| UnpackError::Invalid(format!("read layer: {e}")))?;
    let whole = io::Cursor::new(magic.clone()).chain(source);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Box::new(zstd::stream::Decoder::new(whole).map_err(|e| UnpackError::Invalid(format!("read zstd layer: {e}")))?)
        }
        _ => Box::new(whole),
    })
}

fn unpack_tar(tar: &mut impl Read, mut folder: Inside, limits: Limits) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(tar);
    let mut folder_times = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    let mut count = 0;
    for entry in archive.entries().map_err(|e| UnpackError::Invalid(format!("read layer: {e}")))? {
        let mut entry = entry.map_err(|e| UnpackError::Invalid(format!("read layer: {e}")))?;
        count += 1;
        if count > limits.entries {
            return Err(UnpackError::Invalid(format!("a layer has more than {} entries", limits.entries)));
        }
        let raw = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&raw);
        let path = safe_path(&raw).ok_or_else(|| UnpackError::Invalid(format!("entry {name:?} tries to leave its directory")))?;
        place(&mut entry, &path, &mut folder, &mut folder_times, &mut buffer).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other | io::ErrorKind::InvalidInput => {
                UnpackError::Invalid(format!("entry {name:?}: {error}"))
            }
            // A path below something that is no folder, a link to nothing.
            io::ErrorKind::NotADirectory | io::ErrorKind::NotFound => UnpackError::Invalid(format!("entry {name:?}: {error}")),
            _ if super::space::is_full(&error) => UnpackError::Full(0),
            _ => UnpackError::Storage(format!("entry {name:?}: {error}")),
        })?;
    }
    // Last, because every file that was put into a folder has touched it.
    for (path, time) in folder_times.into_iter().rev() {
        if let Ok(opened) = folder.folder(&path) {
            set_time(&opened, c"", time, libc::AT_EMPTY_PATH);
        }
    }
    Ok(())
}

fn place(
    entry: &mut tar::Entry<'_, impl Read>,
    path: &[u8],
    folder: &mut Inside,
    folder_times: &mut Vec<(Vec<u8>, u64)>,
    buffer: &mut [u8],
) -> io::Result<()> {
    let header = entry.header();
    let kind = header.entry_type();
    if kind.is_pax_global_extensions() {
        return Ok(());
    }
    if path.is_empty() {
        // The root itself: only its rights matter.
        let root = folder.folder(b"")?;
        return set_rights(&root, c"", &Rights::of(header)?, true);
    }
    let rights = Rights::of(header)?;
    let time = header.mtime().unwrap_or(0);
    let (parent_path, name) = split(path);
    let parent = folder.make_folder(parent_path)?;
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        return whiteout(&parent, hidden, folder);
    }
    let c_name = CString::new(name)?;
    match kind {
        tar::EntryType::Directory => {
            folder.clear_unless_folder(&parent, &c_name)?;
            // SAFETY: `c_name` is NUL-terminated and outlives the call.
            match checked(unsafe { libc::mkdirat(parent.as_raw_fd(), c_name.as_ptr(), 0o755) }) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            set_rights(&parent, &c_name, &rights, true)?;
            folder_times.push((path.to_vec(), time));
        }
        tar::EntryType::Symlink => {
            folder.clear(&parent, &c_name)?;
            let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?;
            let target = CString::new(target.into_owned())?;
            // SAFETY: both strings are NUL-terminated and outlive the call.
            checked(unsafe { libc::symlinkat(target.as_ptr(), parent.as_raw_fd(), c_name.as_ptr()) })?;
            set_rights(&parent, &c_name, &rights, false)?;
            set_time(&parent, &c_name, time, libc::AT_SYMLINK_NOFOLLOW);
        }
        tar::EntryType::Link => {
            let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?;
            let target =
                safe_path(&target).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "hard link tries to leave its directory"))?;
            let existing = folder.entry(&target)?;
            folder.clear(&parent, &c_name)?;
            // SAFETY: both strings are NUL-terminated and outlive the call.
            checked(unsafe { libc::linkat(existing.as_raw_fd(), c"".as_ptr(), parent.as_raw_fd(), c_name.as_ptr(), libc::AT_EMPTY_PATH) })?;
        }
        tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
            folder.clear(&parent, &c_name)?;
            let (type_bits, device) = match kind {
                tar::EntryType::Fifo => (libc::S_IFIFO, 0),
                kind => {
                    let major = header.device_major()?.unwrap_or(0);
                    let minor = header.device_minor()?.unwrap_or(0);
                    (if kind == tar::EntryType::Char { libc::S_IFCHR } else { libc::S_IFBLK }, libc::makedev(major, minor))
                }
            };
            // SAFETY: `c_name` is NUL-terminated and outlives the call.
            checked(unsafe { libc::mknodat(parent.as_raw_fd(), c_name.as_ptr(), type_bits | 0o600, device) })?;
            set_rights(&parent, &c_name, &rights, true)?;
            set_time(&parent, &c_name, time, libc::AT_SYMLINK_NOFOLLOW);
        }
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let attributes = attributes(entry)?;
            folder.clear(&parent, &c_name)?;
            write_file(entry, &parent, &c_name, &rights, time, &attributes, buffer)?;
        }
        // Anything else (volume labels and the like) has no meaning in an image.
        _ => {}
    }
    Ok(())
}

fn write_file(
    entry: &mut impl Read,
    parent: &OwnedFd,
    name: &CString,
    rights: &Rights,
    time: u64,
    attributes: &[(CString, Vec<u8>)],
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut file = Inside::create(parent, name)?;
    // Bigger writes than io::copy's: measured 15 % faster over a whole image.
    loop {
        let count = entry.read(buffer)?;
        if count == 0 {
            break;
        }
        file.write_all(&buffer[..count])?;
    }
    let fd = file.as_raw_fd();
    // SAFETY: plain calls on a descriptor we own; the attribute's buffers outlive the call.
    unsafe {
        // The owner first: changing it clears the set-user-id bits and file capabilities.
        checked(libc::fchown(fd, rights.uid, rights.gid))?;
        checked(libc::fchmod(fd, rights.mode))?;
        for (name, value) in attributes {
            checked(libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0))?;
        }
        let times = times(time);
        libc::futimens(fd, times.as_ptr());
    }
    Ok(())
}

/// File capabilities and users' own attributes. Never `trusted.*`: overlay believes those (a layer could redirect a path).
fn attributes(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else { continue };
        if name == "security.capability" || name.starts_with("user.") {
            found.push((CString::new(name)?, extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

/// OCI's whiteouts in overlay's form: a character device 0:0, or an attribute on the folder.
fn whiteout(parent: &OwnedFd, hidden: &[u8], folder: &mut Inside) -> io::Result<()> {
    if hidden == b".wh..opq" {
        let place = CString::new(format!("/proc/self/fd/{}", parent.as_raw_fd()))?;
        // SAFETY: all strings are NUL-terminated and outlive the call; the value is one byte.
        return checked(unsafe { libc::setxattr(place.as_ptr(), c"trusted.overlay.opaque".as_ptr(), c"y".as_ptr().cast(), 1, 0) })
            .map(drop);
    }
    if hidden.starts_with(b".wh.") {
        // Bookkeeping of aufs.
        return Ok(());
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a whiteout that hides nothing"));
    }
    let name = CString::new(hidden)?;
    folder.clear(parent, &name)?;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    checked(unsafe { libc::mknodat(parent.as_raw_fd(), name.as_ptr(), libc::S_IFCHR, 0) }).map(drop)
}

struct Rights {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Rights {
    fn of(header: &tar::Header) -> io::Result<Rights> {
        let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "owner out of range"));
        Ok(Rights { uid: id(header.uid()?)?, gid: id(header.gid()?)?, mode: header.mode()? & 0o7777 })
    }
}

fn set_rights(parent: &OwnedFd, name: &std::ffi::CStr, rights: &Rights, with_mode: bool) -> io::Result<()> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: `name` is NUL-terminated and outlives the calls.
    checked(unsafe { libc::fchownat(parent.as_raw_fd(), name.as_ptr(), rights.uid, rights.gid, flags) })?;
    if with_mode {
        let place = if name.is_empty() { c"." } else { name };
        // The entry was just made or found to be no link, and nobody else writes here.
        // SAFETY: as above.
        checked(unsafe { libc::fchmodat(parent.as_raw_fd(), place.as_ptr(), rights.mode, 0) })?;
    }
    Ok(())
}

fn times(seconds: u64) -> [libc::timespec; 2] {
    let time = libc::timespec { tv_sec: seconds as libc::time_t, tv_nsec: 0 };
    [time, time]
}

/// Best effort: a time that the file system cannot hold harms nobody.
fn set_time(parent: &OwnedFd, name: &std::ffi::CStr, seconds: u64, flags: i32) {
    let times = times(seconds);
    // SAFETY: `name` and `times` outlive the call.
    unsafe { libc::utimensat(parent.as_raw_fd(), name.as_ptr(), times.as_ptr(), flags) };
}

/// Turns the C convention of -1 into an error.
pub(super) fn checked(result: i32) -> io::Result<i32> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Hashes and counts what is unpacked.
pub(crate) struct Counted<R> {
    pub(crate) inner: R,
    pub(crate) hash: Sha256,
    pub(crate) left: u64,
}

impl<R> Counted<R> {
    /// What came, of a reader that began with `budget` bytes left.
    pub(crate) fn finish(self, budget: u64) -> Unpacked {
        Unpacked { diff_id: format!("sha256:{}", hex::encode(self.hash.finalize())), bytes: budget - self.left }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count as u64 > self.left {
            return Err(io::Error::other("the layer unpacks to more than is believable for its size"));
        }
        self.left -= count as u64;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Remembers an error of the source, which decoders would otherwise dress up as their own.
pub(crate) struct Blamed<R> {
    pub(crate) inner: R,
    pub(crate) failure: Option<io::Error>,
}

impl<R: Read> Read for Blamed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            self.failure = Some(error);
            copy
        })
    }
}

#[cfg(all(test, feature = "conformance"))]
#[path = "unpack_tests.rs"]
mod tests;
