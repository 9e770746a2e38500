//! What is remembered of images that were brought to Docker: by digest what they are, by reference which digest it led to. Docker keeps
//! the images themselves; a record is only believed together with an image there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::images::reference::is_digest;
use crate::port::{Image, ImageLayer};

/// An image that was brought to Docker.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// Digest of what the reference named: the manifest, or the index that led to it.
    pub digest: String,
    /// Digest of the configuration.
    pub config_digest: String,
    /// Layers, lowest first; none are known of an image that Docker had without Berth.
    pub diff_ids: Vec<String>,
    /// Bytes of each layer's tar; empty where nobody knows.
    #[serde(default)]
    pub layer_sizes: Vec<u64>,
}

impl Record {
    /// Whether its layers' sizes are known, each of them.
    #[must_use]
    pub fn knows_sizes(&self) -> bool {
        !self.diff_ids.is_empty() && self.layer_sizes.len() == self.diff_ids.len()
    }

    /// Its layers, named as Docker shares them: by all that is below, too.
    #[must_use]
    pub fn layers(&self) -> Vec<ImageLayer> {
        let chain = |below: &mut String, (diff_id, bytes): (&String, &u64)| {
            *below = if below.is_empty() { diff_id.clone() } else { hex::encode(Sha256::digest(format!("{below} {diff_id}"))) };
            Some(ImageLayer { id: below.clone(), bytes: *bytes })
        };
        self.diff_ids.iter().zip(&self.layer_sizes).scan(String::new(), chain).collect()
    }
}

impl From<&Record> for Image {
    fn from(record: &Record) -> Image {
        Image { digest: record.digest.clone(), config_digest: record.config_digest.clone() }
    }
}

/// The records of one data directory.
#[derive(Debug)]
pub struct Records {
    root: PathBuf,
    counter: AtomicU64,
}

impl Records {
    /// Opens or makes the folder, and empties its place for files on their way.
    ///
    /// # Errors
    /// Of the system.
    pub fn open(root: &Path) -> io::Result<Records> {
        for folder in ["images", "references", "tmp"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        for entry in std::fs::read_dir(root.join("tmp"))? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(Records { root: root.to_owned(), counter: AtomicU64::new(0) })
    }

    /// Where everything is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A name for a file on its way; it is removed at the next start if it is left.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp").join(self.counter.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// What a digest stands for.
    #[must_use]
    pub fn image(&self, digest: &str) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(self.image_file(digest)?).ok()?).ok()
    }

    /// All images.
    #[must_use]
    pub fn images(&self) -> Vec<Record> {
        let Ok(entries) = std::fs::read_dir(self.root.join("images")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()).collect()
    }

    /// When an image came.
    #[must_use]
    pub fn arrived_at(&self, digest: &str) -> Option<SystemTime> {
        self.image_file(digest)?.metadata().ok()?.modified().ok()
    }

    /// Forgets an image and the references that lead to it.
    ///
    /// # Errors
    /// Of the system.
    pub fn forget(&self, digest: &str) -> io::Result<()> {
        for entry in std::fs::read_dir(self.root.join("references"))? {
            let path = entry?.path();
            if std::fs::read_to_string(&path).is_ok_and(|leads_to| leads_to == digest) {
                std::fs::remove_file(&path)?;
            }
        }
        match self.image_file(digest).map(std::fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The digest that a reference led to when it was last pulled.
    #[must_use]
    pub fn reference(&self, key: &str) -> Option<String> {
        std::fs::read_to_string(self.reference_file(key)).ok()
    }

    /// Remembers an image.
    ///
    /// # Errors
    /// Of the system.
    pub fn put_image(&self, record: &Record) -> io::Result<()> {
        let file = self.image_file(&record.digest).ok_or_else(|| io::Error::other("not a digest"))?;
        self.write(&file, &serde_json::to_vec(record)?)
    }

    /// Remembers where a reference led.
    ///
    /// # Errors
    /// Of the system.
    pub fn put_reference(&self, key: &str, digest: &str) -> io::Result<()> {
        self.write(&self.reference_file(key), digest.as_bytes())
    }

    fn image_file(&self, digest: &str) -> Option<PathBuf> {
        is_digest(digest).then(|| self.root.join("images").join(digest.trim_start_matches("sha256:")))
    }

    /// References hold slashes and colons; their hash is a file name.
    fn reference_file(&self, key: &str) -> PathBuf {
        self.root.join("references").join(hex::encode(Sha256::digest(key)))
    }

    fn write(&self, file: &Path, text: &[u8]) -> io::Result<()> {
        let temporary = self.temporary();
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, file)
    }
}
