//! Images: from a reference to unpacked layers. Knows nothing of containers.

pub mod inside;
pub mod reference;
pub mod registry;
pub mod steady;
pub mod store;
pub mod unpack;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

use self::reference::{Origin, Reference, is_digest};
use self::registry::{Registries, Repository};
use self::steady::{Patience, Steady};
use self::store::{ImageDefaults, Store, StoredImage, Temporary};
use self::unpack::{Limits, UnpackError};
use crate::port::{Image, PullBehavior, PullError, PullRequest};

pub use self::registry::BerthRegistry;

/// Layers of one image that are fetched at the same time. Unpacking is bound by the disk: more does not help.
pub(crate) const PARALLEL_LAYERS: usize = 3;

/// Docker's own limit, and what fits in an overlay mount.
pub(crate) const MAX_LAYERS: usize = 127;

/// Pieces of a layer between the network and the unpacker; a piece is at most some tens of KiB.
pub(crate) const PIECES_AHEAD: usize = 64;

/// The images of this machine.
pub struct Images {
    store: Arc<Store>,
    registries: Registries,
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    limits: Limits,
    patience: Patience,
}

/// The parts of a manifest or index that matter.
/// <https://github.com/opencontainers/image-spec/blob/main/manifest.md>
#[derive(serde::Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(serde::Deserialize, Clone)]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    pub(crate) size: u64,
    platform: Option<Platform>,
}

#[derive(serde::Deserialize, Clone)]
struct Platform {
    architecture: String,
    os: String,
}

/// <https://github.com/opencontainers/image-spec/blob/main/config.md>
#[derive(serde::Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    config: Option<ImageDefaults>,
    pub(crate) rootfs: RootFs,
}

#[derive(serde::Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<String>,
}

/// A layer to fetch: what it is called at the registry and here.
struct Wanted {
    blob: Descriptor,
    diff_id: String,
}

impl Images {
    /// Opens the store in `root`; connects to nothing.
    ///
    /// # Errors
    /// Of the system, with the step.
    pub fn open(root: &Path, own: Option<BerthRegistry>) -> io::Result<Images> {
        let store = Store::open(root).map_err(|e| io::Error::new(e.kind(), format!("open image store {}: {e}", root.display())))?;
        let registries = Registries::new(own).map_err(io::Error::other)?;
        Ok(Images { store: Arc::new(store), registries, locks: Mutex::default(), limits: Limits::default(), patience: Patience::default() })
    }

    /// An image that is here, by the digest that [`Images::pull`] gave.
    pub fn get(&self, digest: &str) -> Option<Arc<StoredImage>> {
        self.store.image(digest)
    }

    /// The folder of layer links, and the links of an image's layers, topmost first.
    ///
    /// # Errors
    /// Of the system.
    pub fn layers(&self, image: &StoredImage) -> io::Result<(PathBuf, Vec<String>)> {
        let links = image.diff_ids.iter().rev().map(|diff_id| self.store.link(diff_id)).collect::<io::Result<Vec<_>>>()?;
        Ok((self.store.links(), links))
    }

    /// Makes an image present; see [`crate::port::Runtime::pull`].
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn pull(&self, request: PullRequest) -> Result<Image, PullError> {
        let reference = Reference::parse(&request.reference)?;
        let key = reference.key();
        let here = self.store.resolve(&key);
        // What a digest names never changes.
        let settled = reference.digest.is_some() || matches!(request.behavior, PullBehavior::Once | PullBehavior::PreferCached);
        if let (Some(image), true) = (&here, settled) {
            return Ok(image.as_ref().into());
        }
        // The second of two pulls of one reference waits here, then finds everything done for the price of one question.
        let _turn = self.lock(&format!("reference {key}")).await;
        let mut failures = 0;
        loop {
            let error = match self.fetch(&reference, &key, &request).await {
                Ok(image) => return Ok(image.as_ref().into()),
                Err(error) => error,
            };
            if let (Some(image), PullBehavior::Default) = (self.store.resolve(&key), request.behavior) {
                tracing::warn!(reference = request.reference, %error, "pull failed; using the copy that is here");
                return Ok(image.as_ref().into());
            }
            failures += 1;
            // A registry that does not answer now may in a moment; what it refuses it will refuse again.
            let pause = matches!(error, PullError::Unreachable(_)).then(|| self.patience.pause(failures)).flatten();
            let Some(pause) = pause else { return Err(error) };
            tracing::warn!(reference = request.reference, %error, ?pause, "pull failed; trying again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn fetch(&self, reference: &Reference, key: &str, request: &PullRequest) -> Result<Arc<StoredImage>, PullError> {
        let origins = reference.origins(self.registries.own());
        let mut result = Err(PullError::NotFound(request.reference.clone()));
        for origin in &origins {
            result = self.fetch_from(origin, reference.version(), key, request).await;
            if !matches!(result, Err(PullError::NotFound(_))) {
                break;
            }
        }
        result
    }

    async fn fetch_from(&self, origin: &Origin, version: &str, key: &str, request: &PullRequest) -> Result<Arc<StoredImage>, PullError> {
        let repository = self.registries.repository(origin, request.credentials.as_ref());
        // Asking costs a request only where the answer can save the rest.
        if let Some(here) = self.store.resolve(key)
            && repository.digest(version).await?.as_ref() == Some(&here.digest)
        {
            return Ok(here);
        }
        let (bytes, digest) = repository.manifest(version).await?;
        if let Some(here) = self.store.image(&digest) {
            self.store.put_reference(key, &digest).map_err(storage)?;
            return Ok(here);
        }
        let manifest: Manifest = parse("manifest", &bytes)?;
        let manifest = match manifest.config {
            Some(_) => manifest,
            None => {
                let chosen = for_this_machine(&manifest.manifests)?;
                parse("manifest", &repository.manifest(&chosen.digest).await?.0)?
            }
        };
        let image = self.fetch_image(&repository, manifest, digest).await?;
        self.store.put_reference(key, &image.digest).map_err(storage)?;
        Ok(image)
    }

    async fn fetch_image(&self, repository: &Repository<'_>, manifest: Manifest, digest: String) -> Result<Arc<StoredImage>, PullError> {
        let config = manifest.config.ok_or_else(|| PullError::Invalid("the manifest has no configuration".into()))?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(PullError::Invalid(format!("the image has more than {MAX_LAYERS} layers")));
        }
        let configuration: Configuration = parse("configuration", &repository.small_blob(&config.digest, config.size).await?)?;
        check_platform(&configuration)?;
        let diff_ids = configuration.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() || !diff_ids.iter().all(|diff_id| is_digest(diff_id)) {
            return Err(PullError::Invalid("the configuration's diff_ids do not match the manifest's layers".into()));
        }
        if !manifest.layers.iter().all(|layer| is_digest(&layer.digest)) {
            return Err(PullError::Invalid("a layer's digest is not sha256".into()));
        }
        let mut wanted: Vec<Wanted> =
            manifest.layers.into_iter().zip(&diff_ids).map(|(blob, diff_id)| Wanted { blob, diff_id: diff_id.clone() }).collect();
        // In one order for all, and all before the first byte: so pulls that share layers cannot wait for each other in a ring.
        wanted.sort_by(|a, b| a.diff_id.cmp(&b.diff_id));
        wanted.dedup_by(|a, b| a.diff_id == b.diff_id);
        let mut turns = Vec::new();
        for layer in &wanted {
            turns.push(self.lock(&layer.diff_id).await);
        }
        wanted.retain(|layer| !self.store.has_layer(&layer.diff_id));
        let unpacked: Vec<(String, Temporary)> = futures_util::stream::iter(wanted)
            .map(|layer| self.fetch_layer(repository, layer))
            .buffer_unordered(PARALLEL_LAYERS)
            .try_collect()
            .await?;
        // Published together, after the last one: a pull that fails leaves nothing.
        let new: Vec<String> = unpacked.iter().map(|(diff_id, _)| diff_id.clone()).collect();
        for (diff_id, folder) in unpacked {
            self.store.publish_layer(folder, &diff_id).map_err(storage)?;
        }
        let defaults = configuration.config.unwrap_or_default();
        let image = StoredImage { digest, config_digest: config.digest, diff_ids, defaults };
        let image = self.store.put_image(image).map_err(storage)?;
        if !new.is_empty() {
            let store = Arc::clone(&self.store);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = store.flush(&new) {
                    tracing::warn!(%error, "cannot bring image layers to the disk");
                }
            });
        }
        Ok(image)
    }

    async fn fetch_layer(&self, repository: &Repository<'_>, layer: Wanted) -> Result<(String, Temporary), PullError> {
        let Descriptor { digest, size, .. } = layer.blob;
        let mut stream = Steady::open(repository, &digest, size, self.patience).await?;
        let folder = self.store.temporary().map_err(storage)?;
        let limits = self.limits;
        let (pieces, source) = tokio::sync::mpsc::channel(PIECES_AHEAD);
        let unpacker = tokio::task::spawn_blocking(move || {
            // The folder travels along: should this pull be dropped, it is removed after the last write to it, not before.
            let source = Pieces { source, current: bytes::Bytes::new() };
            unpack::unpack(source, size, &folder.files(), limits).map(|diff_id| (diff_id, folder))
        });
        // Hashing here and unpacking there use two cores.
        let mut hash = Sha256::new();
        let mut length = 0;
        while let Some(piece) = stream.next().await {
            // The unpacker ends by itself when nothing more comes.
            let piece = piece?;
            length += piece.len() as u64;
            if length > size {
                return Err(PullError::Invalid(format!("layer {digest} is longer than its manifest says")));
            }
            hash.update(&piece);
            if pieces.send(Ok(piece)).await.is_err() {
                // The unpacker has given up; it says why.
                break;
            }
        }
        drop(pieces);
        let outcome = unpacker.await.map_err(|e| PullError::Storage(format!("unpack layer {digest}: {e}")))?;
        let finished = format!("sha256:{}", hex::encode(hash.finalize()));
        let (diff_id, folder) = match outcome {
            // Wrong bytes explain a tar that cannot be read; the reverse is not true.
            Err(UnpackError::Invalid(_) | UnpackError::Source(_)) | Ok(_) if length == size && finished != digest => {
                return Err(PullError::Invalid(format!("layer {digest} has the digest {finished}")));
            }
            Ok(unpacked) => unpacked,
            Err(UnpackError::Invalid(text)) => return Err(PullError::Invalid(format!("layer {digest}: {text}"))),
            Err(UnpackError::Storage(text)) => return Err(PullError::Storage(format!("layer {digest}: {text}"))),
            Err(UnpackError::Source(error)) => return Err(PullError::Unreachable(format!("layer {digest}: {error}"))),
        };
        if diff_id != layer.diff_id {
            return Err(PullError::Invalid(format!("layer {digest} unpacks to {diff_id}, the configuration says {}", layer.diff_id)));
        }
        Ok((diff_id, folder))
    }

    /// Waits for the only right to work on `name`.
    async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(name).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                locks.insert(name.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

impl From<&StoredImage> for Image {
    fn from(image: &StoredImage) -> Image {
        Image { digest: image.digest.clone(), config_digest: image.config_digest.clone() }
    }
}

pub(crate) fn storage(error: io::Error) -> PullError {
    PullError::Storage(error.to_string())
}

pub(crate) fn parse<'a, T: serde::Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, PullError> {
    serde_json::from_slice(bytes).map_err(|e| PullError::Invalid(format!("parse {what}: {e}")))
}

/// Go's name of this machine's architecture, as images use it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn for_this_machine(manifests: &[Descriptor]) -> Result<&Descriptor, PullError> {
    let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture();
    manifests
        .iter()
        .find(|entry| entry.platform.as_ref().is_some_and(fits))
        .filter(|entry| is_digest(&entry.digest))
        .ok_or_else(|| PullError::Invalid(format!("no matching manifest for linux/{} in the manifest list entries", architecture())))
}

/// An empty platform is what simple build tools write; they mean this machine.
pub(crate) fn check_platform(configuration: &Configuration) -> Result<(), PullError> {
    let Configuration { os, architecture: arch, .. } = configuration;
    let fits = (os.is_empty() || os == "linux") && (arch.is_empty() || arch == architecture());
    if fits { Ok(()) } else { Err(PullError::Invalid(format!("the image is for {os}/{arch}, this machine is linux/{}", architecture()))) }
}

/// The unpacker's side of the stream.
pub(crate) struct Pieces {
    pub(crate) source: tokio::sync::mpsc::Receiver<io::Result<bytes::Bytes>>,
    pub(crate) current: bytes::Bytes,
}

impl io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.source.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
