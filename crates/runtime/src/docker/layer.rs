//! A layer on its way to Docker: unpacked to a plain tar in a file, checked as strictly as for the native runtime, and gone with the last
//! pull that needs it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::images::inside::safe_path;
use crate::images::space;
use crate::images::unpack::{Blamed, Counted, Limits, UnpackError, Unpacked, decoder};

/// A checked layer's tar.
#[derive(Debug)]
pub struct LayerFile {
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
}

impl Drop for LayerFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Writes the tar of a layer (gzip, zstd or plain) to `path`. `size` is the compressed size that the manifest promised.
///
/// # Errors
/// [`UnpackError`]; the file then holds rubbish.
pub fn receive(compressed: impl Read, size: u64, path: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    let budget = limits.bytes.min(size.saturating_mul(limits.ratio).max(limits.free_bytes));
    let file = File::create(path).map_err(|e| UnpackError::Storage(format!("make {}: {e}", path.display())))?;
    let mut source = Blamed { inner: compressed, failure: None };
    let mut copy = Copy { file: io::BufWriter::with_capacity(256 << 10, file), failure: None, written: 0 };
    let result = check(&mut source, budget, &mut copy, limits);
    if let Some(failure) = source.failure.take() {
        return Err(UnpackError::Source(failure));
    }
    if let Some(failure) = copy.failure.take() {
        return Err(unwritten(path, &failure, copy.written));
    }
    copy.file.flush().map_err(|e| unwritten(path, &e, copy.written))?;
    result
}

fn unwritten(path: &Path, error: &io::Error, written: u64) -> UnpackError {
    match space::is_full(error) {
        true => UnpackError::Full(written),
        false => UnpackError::Storage(format!("write {}: {error}", path.display())),
    }
}

fn check(source: &mut impl Read, budget: u64, copy: &mut Copy, limits: Limits) -> Result<Unpacked, UnpackError> {
    let mut tar = Counted { inner: decoder(source)?, hash: Sha256::new(), left: budget };
    let mut copied = Copied { inner: &mut tar, copy };
    check_entries(&mut copied, limits)?;
    // The diff_id covers the padding after the last entry too.
    io::copy(&mut copied, &mut io::sink()).map_err(|e| UnpackError::Invalid(format!("read layer: {e}")))?;
    Ok(tar.finish(budget))
}

/// Docker unpacks below a root that it cannot leave, so a name that tries to would end somewhere inside. It is refused all the same: no
/// honest image has one.
fn check_entries(tar: &mut impl Read, limits: Limits) -> Result<(), UnpackError> {
    let unreadable = |e: io::Error| UnpackError::Invalid(format!("read layer: {e}"));
    let mut count = 0;
    for entry in tar::Archive::new(tar).entries().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        count += 1;
        if count > limits.entries {
            return Err(UnpackError::Invalid(format!("a layer has more than {} entries", limits.entries)));
        }
        let raw = entry.path_bytes();
        let name = String::from_utf8_lossy(&raw);
        let leaves = || UnpackError::Invalid(format!("entry {name:?} tries to leave its directory"));
        safe_path(&raw).ok_or_else(leaves)?;
        if entry.header().entry_type() == tar::EntryType::Link {
            let target = entry.link_name_bytes().ok_or_else(|| UnpackError::Invalid(format!("entry {name:?} is a link to nothing")))?;
            safe_path(&target).ok_or_else(leaves)?;
        }
    }
    Ok(())
}

struct Copy {
    file: io::BufWriter<File>,
    failure: Option<io::Error>,
    written: u64,
}

struct Copied<'a, R> {
    inner: &'a mut R,
    copy: &'a mut Copy,
}

impl<R: Read> Read for Copied<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.copy.file.write_all(&buffer[..count]).map_err(|error| {
            let told = io::Error::new(error.kind(), error.to_string());
            self.copy.failure = Some(error);
            told
        })?;
        self.copy.written += count as u64;
        Ok(count)
    }
}
