//! A tar file, possibly compressed, of which parts are wanted in any order: the file is scanned once, and what it holds is
//! then read in place. Memory stays small whatever the file says about itself.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tar::EntryType;

use super::LoadError;
use super::layer::{Meter, hex_digest};

/// Largest unpacked archive, in bytes: the registry takes no larger blob either.
const MAX_UNPACKED: u64 = 100 << 30;
/// Largest JSON document in an archive, in bytes: a registry refuses larger manifests, and configurations are smaller.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
/// An image archive has a few files for each layer; a root file system may have any number, which are not remembered.
const MAX_REMEMBERED: usize = 20_000;
/// Files of an image archive lie at most this deep (`blobs/sha256/HEX`).
const MAX_DEPTH: usize = 3;
/// Links from one layer to another, as old versions of docker wrote them, are followed this often.
const MAX_LINKS: usize = 8;
/// Longest extended header, in bytes. The tar crate reads them into memory; a real one holds a path and a few attributes.
const MAX_EXTENSION: u64 = 1 << 20;

/// Bytes to be had as often as wanted.
#[derive(Clone)]
pub(super) enum Source {
    Slice { file: Arc<File>, offset: u64 },
    Bytes(Arc<[u8]>),
}

impl Source {
    /// Fills `buffer` from position `at`; an early end is an error.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Source::Slice { file, offset } => file.read_exact_at(buffer, offset + at),
            Source::Bytes(bytes) => {
                let part = usize::try_from(at).ok().and_then(|at| bytes.get(at..)?.get(..buffer.len()));
                buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// Reads a source from its start to its size.
pub(super) struct SourceReader<'a> {
    source: &'a Source,
    at: u64,
    size: u64,
}

impl<'a> SourceReader<'a> {
    pub fn new(source: &'a Source, size: u64) -> SourceReader<'a> {
        SourceReader { source, at: 0, size }
    }
}

impl Read for SourceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (self.size - self.at).min(buffer.len() as u64) as usize;
        self.source.read_exact_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

enum Entry {
    File {
        offset: u64,
        size: u64,
    },
    /// To another file of the archive.
    Link(String),
}

/// The gzipped file as it came, where the archive was one.
pub(super) struct Gzipped {
    pub file: Arc<File>,
    pub size: u64,
    /// Of the file as it is.
    pub digest: String,
    /// Of what is in it.
    pub diff_id: String,
}

pub(super) struct Archive {
    pub path: PathBuf,
    /// The tar itself, unpacked to a nameless temporary file where it was compressed.
    pub file: Arc<File>,
    pub size: u64,
    pub gzipped: Option<Gzipped>,
    entries: HashMap<String, Entry>,
    /// More files than an image archive can have.
    crowded: bool,
}

impl Archive {
    /// Opens and scans the file. Blocks.
    pub fn open(path: &Path, meter: &Arc<Meter>) -> Result<Archive, LoadError> {
        let fail = |source| LoadError::Read { path: path.to_owned(), source };
        let broken = |problem: String| LoadError::Archive { path: path.to_owned(), problem };
        let mut file = File::open(path).map_err(fail)?;
        let about = file.metadata().map_err(fail)?;
        if !about.is_file() {
            return Err(broken("is not a file; name a tar archive".into()));
        }
        let mut magic = [0; 6];
        let count = read_up_to(&mut file, &mut magic).map_err(fail)?;
        file.rewind().map_err(fail)?;
        if let Some(other) = foreign_compression(&magic[..count]) {
            return Err(broken(format!("is compressed with {other}; only gzip and zstd are understood, so unpack it first")));
        }
        let (tar, size, gzipped) = match Packing::of(&magic) {
            None => (file, about.len(), None),
            Some(packing) => {
                let unpacked = unpack(path, &file, packing, meter)?;
                let Unpacked { tar, size, diff_id, digest } = unpacked;
                let gzipped = Gzipped { file: Arc::new(file), size: about.len(), digest, diff_id };
                (tar, size, matches!(packing, Packing::Gzip).then_some(gzipped))
            }
        };
        let mut archive = Archive { path: path.to_owned(), file: Arc::new(tar), size, gzipped, entries: HashMap::new(), crowded: false };
        archive.scan()?;
        Ok(archive)
    }

    pub fn broken(&self, problem: impl Into<String>) -> LoadError {
        LoadError::Archive { path: self.path.clone(), problem: problem.into() }
    }

    pub fn unreadable(&self, source: io::Error) -> LoadError {
        LoadError::Read { path: self.path.clone(), source }
    }

    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where a file of the archive lies.
    pub fn find(&self, name: &str) -> Result<(Source, u64), LoadError> {
        if self.crowded {
            return Err(self.broken(format!("holds more than {MAX_REMEMBERED} files, which no image archive does")));
        }
        let mut at = name.to_owned();
        for _ in 0..MAX_LINKS {
            match self.entries.get(&at) {
                Some(Entry::File { offset, size }) => {
                    return Ok((Source::Slice { file: self.file.clone(), offset: *offset }, *size));
                }
                Some(Entry::Link(target)) => at.clone_from(target),
                None => return Err(self.broken(format!("{name:?} is missing from the archive"))),
            }
        }
        Err(self.broken(format!("{name:?} is a link that leads nowhere")))
    }

    /// A JSON document of the archive, whole.
    pub fn document(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let (source, size) = self.find(name)?;
        if size > MAX_DOCUMENT {
            return Err(self.broken(format!("{name:?} has {size} bytes, {MAX_DOCUMENT} are allowed")));
        }
        let mut bytes = vec![0; size as usize];
        source.read_exact_at(&mut bytes, 0).map_err(|e| self.unreadable(e))?;
        Ok(bytes)
    }

    fn scan(&mut self) -> Result<(), LoadError> {
        self.check_extensions()?;
        let mut archive = tar::Archive::new(BufReader::with_capacity(16 * 1024, self.reader()?));
        let entries = archive.entries_with_seek().map_err(|e| self.not_tar(&e))?;
        let mut found = 0usize;
        for entry in entries {
            let entry = entry.map_err(|e| self.not_tar(&e))?;
            found += 1;
            let path = entry.path_bytes();
            let Ok(path) = std::str::from_utf8(&path) else { continue };
            let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
            if parts.contains(&"..") {
                return Err(self.broken(format!("holds the path {path:?}, which leads out of it")));
            }
            let (offset, size) = (entry.raw_file_position(), entry.size());
            let kind = entry.header().entry_type();
            if kind.is_file() && offset.checked_add(size).is_none_or(|end| end > self.size) {
                return Err(self.broken(format!("is cut off within {path:?}")));
            }
            if parts.len() > MAX_DEPTH {
                continue;
            }
            let entry = match kind {
                EntryType::Regular | EntryType::Continuous => Entry::File { offset, size },
                EntryType::Symlink | EntryType::Link => {
                    let link = entry.link_name_bytes().and_then(|l| String::from_utf8(l.into_owned()).ok());
                    let base = if kind == EntryType::Symlink { &parts[..parts.len().saturating_sub(1)] } else { &[] };
                    let Some(target) = link.and_then(|link| resolve(base, &link)) else { continue };
                    Entry::Link(target)
                }
                _ => continue,
            };
            if self.entries.len() < MAX_REMEMBERED {
                self.entries.insert(parts.join("/"), entry);
            } else {
                self.crowded = true;
            }
        }
        if found == 0 {
            return Err(self.broken("is an empty archive"));
        }
        Ok(())
    }

    /// Looks at the raw headers before the tar crate reads extended ones into memory.
    fn check_extensions(&self) -> Result<(), LoadError> {
        let mut archive = tar::Archive::new(BufReader::with_capacity(16 * 1024, self.reader()?));
        for entry in archive.entries_with_seek().map_err(|e| self.not_tar(&e))?.raw(true) {
            let entry = entry.map_err(|e| self.not_tar(&e))?;
            let kind = entry.header().entry_type();
            let extends =
                kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() || kind.is_pax_global_extensions();
            if extends && entry.size() > MAX_EXTENSION {
                return Err(self.broken(format!("holds an extended header of {} bytes, {MAX_EXTENSION} are allowed", entry.size())));
            }
        }
        Ok(())
    }

    fn reader(&self) -> Result<File, LoadError> {
        let mut file = self.file.try_clone().map_err(|e| self.unreadable(e))?;
        // The clone shares its position with the original, which is otherwise only read by position.
        file.seek(SeekFrom::Start(0)).map_err(|e| self.unreadable(e))?;
        Ok(file)
    }

    fn not_tar(&self, error: &io::Error) -> LoadError {
        self.broken(format!("is not a tar archive, or a damaged one: {error}"))
    }
}

/// Where a link of the archive leads; nowhere if that is outside.
fn resolve(base: &[&str], link: &str) -> Option<String> {
    if link.starts_with('/') {
        return None;
    }
    let mut parts = base.to_vec();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read(&mut buffer[count..])? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}

fn foreign_compression(magic: &[u8]) -> Option<&'static str> {
    match magic {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        [b'P', b'K', 3, 4, ..] => Some("zip"),
        _ => None,
    }
}

/// How an archive as a whole is compressed.
#[derive(Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    fn of(magic: &[u8]) -> Option<Packing> {
        match magic {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            _ => None,
        }
    }
}

struct Unpacked {
    /// Nameless, so that it is gone with the process.
    tar: File,
    size: u64,
    diff_id: String,
    /// Of the file as it came.
    digest: String,
}

fn unpack(path: &Path, file: &File, packing: Packing, meter: &Arc<Meter>) -> Result<Unpacked, LoadError> {
    let temporary = |source| LoadError::Temporary { source };
    let broken = |problem| LoadError::Archive { path: path.to_owned(), problem };
    let damaged = |e: io::Error| broken(format!("the compressed file is damaged or cut off: {e}"));
    let mut tar = tempfile::tempfile().map_err(temporary)?;
    let mut packed = Sha256::new();
    let mut plain = Sha256::new();
    let mut size = 0u64;
    let mut buffer = vec![0; 256 * 1024];
    {
        let input = BufReader::with_capacity(256 * 1024, Tee { file, hasher: &mut packed, meter });
        let mut decoder: Box<dyn Read> = match packing {
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            // It refuses windows above 128 MiB by itself, so its memory is bounded.
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(damaged)?),
        };
        loop {
            let count = decoder.read(&mut buffer).map_err(damaged)?;
            if count == 0 {
                break;
            }
            size += count as u64;
            if size > MAX_UNPACKED {
                return Err(broken(format!("unpacks to more than {MAX_UNPACKED} bytes")));
            }
            plain.update(&buffer[..count]);
            tar.write_all(&buffer[..count]).map_err(temporary)?;
        }
    }
    Ok(Unpacked { tar, size, diff_id: hex_digest(plain), digest: hex_digest(packed) })
}

/// Hashes and counts what is read from a file.
struct Tee<'a> {
    file: &'a File,
    hasher: &'a mut Sha256,
    meter: &'a Meter,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.meter.add(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        assert_eq!(resolve(&["abc"], "../def/layer.tar").as_deref(), Some("def/layer.tar"));
        assert_eq!(resolve(&["abc"], "./x").as_deref(), Some("abc/x"));
        assert_eq!(resolve(&["abc"], "../../etc/passwd"), None);
        assert_eq!(resolve(&[], "/etc/passwd"), None);
    }
}
