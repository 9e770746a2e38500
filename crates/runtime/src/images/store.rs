//! What is on disk of images: unpacked layers by diff_id, image records by digest, references to digests.
//!
//! Whatever has its final name is whole; everything else lives in `tmp`, which is emptied at start.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// The file beside a layer's content that says how many bytes that has.
const SIZE: &str = "size";

/// What is kept of an image's configuration; Docker's `config` object.
/// <https://github.com/opencontainers/image-spec/blob/main/config.md>
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageDefaults {
    /// `user[:group]`.
    pub user: String,
    /// `NAME=value`, in order.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Entry point.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the command where there is no entry point.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Signal to stop it, by name or number.
    pub stop_signal: String,
}

fn null_as_default<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    use serde::Deserialize;
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredImage {
    /// Digest of what the reference named: the manifest, or the index that led to it.
    pub digest: String,
    /// Digest of the configuration.
    pub config_digest: String,
    /// Layers, lowest first.
    pub diff_ids: Vec<String>,
    /// The image's own wishes.
    pub defaults: ImageDefaults,
}

/// The store. All methods are synchronous and short, but for [`Store::flush`].
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    boot: String,
    images: Mutex<HashMap<String, Arc<StoredImage>>>,
    references: Mutex<HashMap<String, String>>,
    counter: AtomicU64,
}

impl Store {
    /// Opens or makes the store. Drops layers that a crash of the machine may have left half on disk.
    ///
    /// # Errors
    /// Of the system.
    pub fn open(root: &Path) -> io::Result<Store> {
        for folder in ["layers", "links", "images", "references", "tmp"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        // Names in here are of one process; what an earlier one left is rubbish.
        for entry in std::fs::read_dir(root.join("tmp"))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { std::fs::remove_dir_all(entry.path())? } else { std::fs::remove_file(entry.path())? }
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let store =
            Store { root: root.to_owned(), boot, images: Mutex::default(), references: Mutex::default(), counter: AtomicU64::new(0) };
        store.drop_unflushed()?;
        Ok(store)
    }

    /// A layer is renamed into place before its bytes are on the disk (waiting for that would double a pull's time). Until
    /// they are, it carries a mark with the machine's boot id; a mark of another boot means that a crash came between.
    fn drop_unflushed(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.root.join("layers"))? {
            let path = entry?.path();
            match std::fs::read_to_string(path.join("unflushed")) {
                Ok(boot) if boot != self.boot => std::fs::remove_dir_all(&path)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A new, empty folder for a layer being unpacked.
    ///
    /// # Errors
    /// Of the system.
    pub fn temporary(&self) -> io::Result<Temporary> {
        let path = self.temporary_path();
        std::fs::create_dir(&path)?;
        std::fs::create_dir(path.join("fs"))?;
        Ok(Temporary { path })
    }

    fn temporary_path(&self) -> PathBuf {
        self.root.join("tmp").join(self.counter.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Whether a layer is here.
    pub fn has_layer(&self, diff_id: &str) -> bool {
        self.layer(diff_id).exists()
    }

    fn layer(&self, diff_id: &str) -> PathBuf {
        self.root.join("layers").join(diff_id.trim_start_matches("sha256:"))
    }

    /// Where everything is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Gives an unpacked layer of so many bytes its name.
    ///
    /// # Errors
    /// Of the system.
    pub fn publish_layer(&self, mut unpacked: Temporary, diff_id: &str, bytes: u64) -> io::Result<()> {
        std::fs::write(unpacked.path.join(SIZE), bytes.to_string())?;
        std::fs::write(unpacked.path.join("unflushed"), &self.boot)?;
        std::fs::rename(&unpacked.path, self.layer(diff_id))?;
        unpacked.path.clear();
        self.link(diff_id).map(drop)
    }

    /// Waits until all layers are on the disk, and takes their marks. Slow; not on any path that somebody waits for.
    ///
    /// # Errors
    /// Of the system.
    pub fn flush(&self, diff_ids: &[String]) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let root = std::fs::File::open(&self.root)?;
        // SAFETY: plain syncfs on a descriptor we own.
        super::unpack::checked(unsafe { libc::syncfs(root.as_raw_fd()) })?;
        for diff_id in diff_ids {
            match std::fs::remove_file(self.layer(diff_id).join("unflushed")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All layers that are here.
    ///
    /// # Errors
    /// Of the system.
    pub fn layers(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(self.root.join("layers"))?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        let names: io::Result<Vec<Option<String>>> = names.collect();
        Ok(names?.into_iter().flatten().map(|hex| format!("sha256:{hex}")).collect())
    }

    /// Bytes of a layer, about; counted once where an earlier version of Berth did not write them down.
    pub fn layer_size(&self, diff_id: &str) -> u64 {
        let layer = self.layer(diff_id);
        let written = std::fs::read_to_string(layer.join(SIZE)).ok().and_then(|text| text.parse().ok());
        written.unwrap_or_else(|| {
            let bytes = walk(&layer.join("fs"));
            if let Err(error) = std::fs::write(layer.join(SIZE), bytes.to_string()) {
                tracing::debug!(diff_id, %error, "a layer's size cannot be written down");
            }
            bytes
        })
    }

    /// Removes a layer and its link. Whoever calls has the turn of it.
    ///
    /// # Errors
    /// Of the system.
    pub fn remove_layer(&self, diff_id: &str) -> io::Result<()> {
        // First out of the way: half a layer must not have a whole one's name.
        let gone = self.temporary_path();
        std::fs::rename(self.layer(diff_id), &gone)?;
        for (path, target) in self.link_places(diff_id) {
            if std::fs::read_link(&path).is_ok_and(|found| found == target) {
                std::fs::remove_file(&path)?;
            }
        }
        std::fs::remove_dir_all(&gone)
    }

    /// Folder of the layers' short links.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The short link of a layer: the options of an overlay mount are one page, and an image may have 127 layers.
    ///
    /// # Errors
    /// Of the system.
    pub fn link(&self, diff_id: &str) -> io::Result<String> {
        for (path, target) in self.link_places(diff_id) {
            let name = || path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            match std::os::unix::fs::symlink(&target, &path) {
                Ok(()) => return Ok(name()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if std::fs::read_link(&path)? == target {
                        return Ok(name());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("no free link for layer {diff_id}")))
    }

    /// Where the link of a layer may be, and where it leads. Longer names only where two layers begin alike, which takes somebody who
    /// tries for it.
    fn link_places(&self, diff_id: &str) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        let hex = diff_id.trim_start_matches("sha256:").to_owned();
        let links = self.links();
        [12, 24, 64]
            .into_iter()
            .map(move |length| (links.join(&hex[..length.min(hex.len())]), PathBuf::from(format!("../layers/{hex}/fs"))))
    }

    /// An image by its digest, if it and all its layers are here.
    pub fn image(&self, digest: &str) -> Option<Arc<StoredImage>> {
        if let Some(image) = self.images.lock().get(digest) {
            return Some(Arc::clone(image));
        }
        let text = std::fs::read(self.image_file(digest)?).ok()?;
        let image: StoredImage = serde_json::from_slice(&text).ok()?;
        if !image.diff_ids.iter().all(|diff_id| self.has_layer(diff_id)) {
            return None;
        }
        let image = Arc::new(image);
        self.images.lock().insert(digest.to_owned(), Arc::clone(&image));
        Some(image)
    }

    fn image_file(&self, digest: &str) -> Option<PathBuf> {
        super::reference::is_digest(digest).then(|| self.root.join("images").join(digest.trim_start_matches("sha256:")))
    }

    /// Records an image whose layers are all here.
    ///
    /// # Errors
    /// Of the system.
    pub fn put_image(&self, image: StoredImage) -> io::Result<Arc<StoredImage>> {
        let file = self.image_file(&image.digest).ok_or_else(|| io::Error::other("not a digest"))?;
        self.write(&file, &serde_json::to_vec(&image)?)?;
        let image = Arc::new(image);
        self.images.lock().insert(image.digest.clone(), Arc::clone(&image));
        Ok(image)
    }

    /// All images on record, and when they came. Their layers may be missing after a crash of the machine.
    ///
    /// # Errors
    /// Of the system, also if one of them cannot be read: its layers may be a container's, so nobody is to take those for nobody's.
    pub fn images(&self) -> io::Result<Vec<(StoredImage, SystemTime)>> {
        let mut images = Vec::new();
        for entry in std::fs::read_dir(self.root.join("images"))? {
            let path = entry?.path();
            let read = || {
                let image = serde_json::from_slice(&std::fs::read(&path)?)?;
                Ok::<_, io::Error>((image, path.metadata()?.modified()?))
            };
            match read() {
                Ok(image) => images.push(image),
                // Removed between the two looks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("read {}: {error}", path.display()))),
            }
        }
        Ok(images)
    }

    /// Layers that images on record have.
    ///
    /// # Errors
    /// Of the system.
    pub fn needed_layers(&self) -> io::Result<HashSet<String>> {
        Ok(self.images()?.into_iter().flat_map(|(image, _)| image.diff_ids).collect())
    }

    /// Forgets an image and the references that lead to it; its layers stay.
    ///
    /// # Errors
    /// Of the system.
    pub fn forget_image(&self, digest: &str) -> io::Result<()> {
        let mut references = self.references.lock();
        references.retain(|_, leads_to| leads_to != digest);
        for entry in std::fs::read_dir(self.root.join("references"))? {
            let path = entry?.path();
            if std::fs::read_to_string(&path).is_ok_and(|leads_to| leads_to == digest) {
                std::fs::remove_file(&path)?;
            }
        }
        if let Some(file) = self.image_file(digest) {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.images.lock().remove(digest);
        Ok(())
    }

    /// The image that a reference led to when it was last pulled.
    pub fn resolve(&self, key: &str) -> Option<Arc<StoredImage>> {
        let known = self.references.lock().get(key).cloned();
        let digest = match known {
            Some(digest) => digest,
            None => {
                let digest = std::fs::read_to_string(self.reference_file(key)).ok()?;
                self.references.lock().insert(key.to_owned(), digest.clone());
                digest
            }
        };
        self.image(&digest)
    }

    /// References hold slashes and colons; their hash is a file name.
    fn reference_file(&self, key: &str) -> PathBuf {
        self.root.join("references").join(hex::encode(Sha256::digest(key)))
    }

    /// Remembers where a reference led.
    ///
    /// # Errors
    /// Of the system.
    pub fn put_reference(&self, key: &str, digest: &str) -> io::Result<()> {
        self.write(&self.reference_file(key), digest.as_bytes())?;
        self.references.lock().insert(key.to_owned(), digest.to_owned());
        Ok(())
    }

    fn write(&self, file: &Path, text: &[u8]) -> io::Result<()> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root.join("tmp").join(format!("file-{number}"));
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, file)
    }
}

/// Bytes of all files below a folder.
fn walk(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let one = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => walk(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(one).sum()
}

/// A folder in `tmp` that goes away unless it is published.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Where the layer's root goes.
    pub fn files(&self) -> PathBuf {
        self.path.join("fs")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
