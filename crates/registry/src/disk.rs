//! The registry's folder: where things lie, and the few durable steps by which they appear and go. Nothing is visible
//! under its final name before its bytes are on the disk.
//!
//! ```text
//! lock                                            held while open, so that two processes never share the folder
//! blobs/sha256/9f/9f86d0…                         contents, once over all repositories
//! repositories/NAME/_blobs/sha256/9f86d0…         empty: NAME may serve that blob
//! repositories/NAME/_manifests/sha256/9f86d0…     a ManifestRecord: NAME has that manifest
//! repositories/NAME/_tags/latest                  the digest that the tag points to
//! uploads/ID/{repository,bytes}                   an upload under way
//! tmp/                                            small files before their rename; emptied at open
//! ```
//! `_blobs` and its siblings cannot be mistaken for part of a name, for no part of a name begins with `_`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest};
use crate::name::{RepositoryName, Tag};

/// What a repository keeps about one of its manifests beside the bytes; annotations stay on disk because only the
/// referrers answer needs them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestRecord {
    pub media_type: String,
    /// Seconds since the epoch.
    pub pushed_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

pub(crate) struct Disk {
    root: PathBuf,
    /// Numbers the files in `tmp/`; unique because the folder is locked and emptied at open.
    next_tmp: AtomicU64,
    _lock: File,
}

/// One thing found in a repository's folder at open.
pub(crate) enum Found {
    Repository(RepositoryName),
    Blob(RepositoryName, Digest),
    Manifest(RepositoryName, Digest, ManifestRecord),
    Tag(RepositoryName, Tag, Digest),
}

impl Disk {
    /// Makes the folders, takes the lock and empties `tmp/`.
    pub(crate) fn open(root: PathBuf) -> io::Result<Disk> {
        fs::create_dir_all(&root)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(root.join("lock"))?;
        lock.try_lock().map_err(|e| match e {
            fs::TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "another process has this registry open"),
            fs::TryLockError::Error(e) => e,
        })?;
        for folder in ["blobs", "repositories", "uploads"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let tmp = root.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::create_dir(&tmp)?,
        }
        sync_folder(&root)?;
        Ok(Disk { root, next_tmp: AtomicU64::new(0), _lock: lock })
    }

    pub(crate) fn content(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs").join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    fn repository(&self, name: &RepositoryName) -> PathBuf {
        self.root.join("repositories").join(name.as_str())
    }

    fn blob_link(&self, name: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository(name).join("_blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn manifest_record(&self, name: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository(name).join("_manifests").join(digest.algorithm().name()).join(digest.hex())
    }

    fn tag(&self, name: &RepositoryName, tag: &Tag) -> PathBuf {
        self.repository(name).join("_tags").join(tag.as_str())
    }

    /// Moves a finished file, whose bytes are synced already, to the place of its content.
    pub(crate) fn adopt_content(&self, file: &Path, digest: &Digest) -> io::Result<()> {
        let place = self.content(digest);
        let folder = place.parent().expect("a content path has a folder");
        make_folders(folder)?;
        fs::rename(file, &place)?;
        sync_folder(folder)
    }

    pub(crate) fn write_content(&self, bytes: &[u8], digest: &Digest) -> io::Result<()> {
        self.write_whole(&self.content(digest), bytes)
    }

    pub(crate) fn write_blob_link(&self, name: &RepositoryName, digest: &Digest) -> io::Result<()> {
        let link = self.blob_link(name, digest);
        let folder = link.parent().expect("a link has a folder");
        make_folders(folder)?;
        File::create(&link)?;
        sync_folder(folder)
    }

    pub(crate) fn write_manifest_record(&self, name: &RepositoryName, digest: &Digest, record: &ManifestRecord) -> io::Result<()> {
        self.write_whole(&self.manifest_record(name, digest), &serde_json::to_vec(record)?)
    }

    pub(crate) fn read_manifest_record(&self, name: &RepositoryName, digest: &Digest) -> io::Result<ManifestRecord> {
        Ok(serde_json::from_slice(&fs::read(self.manifest_record(name, digest))?)?)
    }

    pub(crate) fn write_tag(&self, name: &RepositoryName, tag: &Tag, digest: &Digest) -> io::Result<()> {
        self.write_whole(&self.tag(name, tag), digest.to_string().as_bytes())
    }

    pub(crate) fn remove_blob_link(&self, name: &RepositoryName, digest: &Digest) -> io::Result<()> {
        remove_file(&self.blob_link(name, digest))
    }

    pub(crate) fn remove_manifest_record(&self, name: &RepositoryName, digest: &Digest) -> io::Result<()> {
        remove_file(&self.manifest_record(name, digest))
    }

    pub(crate) fn remove_tag(&self, name: &RepositoryName, tag: &Tag) -> io::Result<()> {
        remove_file(&self.tag(name, tag))
    }

    pub(crate) fn remove_content(&self, digest: &Digest) -> io::Result<()> {
        remove_file(&self.content(digest))
    }

    /// Writes beside, syncs, renames, syncs the folder: afterwards `place` holds all of `bytes`, or what it held before.
    fn write_whole(&self, place: &Path, bytes: &[u8]) -> io::Result<()> {
        let tmp = self.root.join("tmp").join(self.next_tmp.fetch_add(1, Ordering::Relaxed).to_string());
        let write = || {
            let mut file = File::create(&tmp)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            let folder = place.parent().expect("every place has a folder");
            make_folders(folder)?;
            fs::rename(&tmp, place)?;
            sync_folder(folder)
        };
        write().inspect_err(|_| {
            // What is left is emptied at the next open in any case.
            let _ = fs::remove_file(&tmp);
        })
    }

    /// Every content on disk with its size in bytes.
    pub(crate) fn contents(&self) -> io::Result<Vec<(Digest, u64)>> {
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            for shard in entries(&self.root.join("blobs").join(algorithm.name()))? {
                for file in entries(&shard.path())? {
                    let size = file.metadata()?.len();
                    let digest = file.file_name().to_str().and_then(|hex| digest_of(algorithm, hex));
                    // A file of somebody else's is left alone, but never served.
                    found.extend(digest.map(|d| (d, size)));
                }
            }
        }
        Ok(found)
    }

    /// Calls `visit` with all that the repositories hold, in no order.
    pub(crate) fn repositories(&self, visit: &mut dyn FnMut(Found)) -> io::Result<()> {
        let root = self.root.join("repositories");
        // Names are 255 bytes at most, so at most 128 parts: a loop over a list needs no bound of its own.
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            let name = folder.strip_prefix(&root).ok().and_then(Path::to_str).and_then(|n| n.parse().ok());
            for entry in entries(&folder)? {
                if !entry.file_type()?.is_dir() {
                    continue;
                }
                match (entry.file_name().to_str(), &name) {
                    (Some("_blobs"), Some(name)) => {
                        visit(Found::Repository(RepositoryName::clone(name)));
                        self.records(&entry.path(), &mut |digest, _| {
                            visit(Found::Blob(name.clone(), digest));
                            Ok(())
                        })?;
                    }
                    (Some("_manifests"), Some(name)) => {
                        visit(Found::Repository(name.clone()));
                        self.records(&entry.path(), &mut |digest, path| {
                            match serde_json::from_slice(&fs::read(path)?) {
                                Ok(record) => visit(Found::Manifest(name.clone(), digest, record)),
                                Err(error) => tracing::warn!(?path, %error, "skipped an unreadable manifest record"),
                            }
                            Ok(())
                        })?;
                    }
                    (Some("_tags"), Some(name)) => {
                        visit(Found::Repository(name.clone()));
                        for file in entries(&entry.path())? {
                            let tag = file.file_name().to_str().and_then(|t| t.parse().ok());
                            let digest = fs::read_to_string(file.path())?.parse().ok();
                            if let (Some(tag), Some(digest)) = (tag, digest) {
                                visit(Found::Tag(name.clone(), tag, digest));
                            }
                        }
                    }
                    (Some(part), _) if !part.starts_with(['_', '.']) => folders.push(entry.path()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn records(&self, folder: &Path, visit: &mut dyn FnMut(Digest, &Path) -> io::Result<()>) -> io::Result<()> {
        for algorithm in Algorithm::ALL {
            for file in entries(&folder.join(algorithm.name()))? {
                if let Some(digest) = file.file_name().to_str().and_then(|hex| digest_of(algorithm, hex)) {
                    visit(digest, &file.path())?;
                }
            }
        }
        Ok(())
    }
}

fn digest_of(algorithm: Algorithm, hex: &str) -> Option<Digest> {
    format!("{}:{hex}", algorithm.name()).parse().ok()
}

/// A folder's entries; none when it is not there.
fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// `create_dir_all` that also syncs each folder it adds to, without which a new folder can be lost with all in it.
pub(crate) fn make_folders(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(folder.parent().expect("below the registry's folder")),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            make_folders(folder.parent().ok_or(e)?)?;
            make_folders(folder)
        }
        Err(e) => Err(e),
    }
}

pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path.parent().expect("every file has a folder")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than its kind may be"));
    }
    Ok(bytes)
}
