//! Images: from a reference to unpacked layers. Knows nothing of containers.

pub(crate) mod fetch;
pub mod inside;
pub(crate) mod manifest;
pub mod reference;
pub mod registry;
pub mod space;
pub mod steady;
pub mod store;
pub(crate) mod turns;
pub mod unpack;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use self::fetch::{PARALLEL_LAYERS, fetch_layer};
use self::manifest::{Found, Layer};
use self::reference::{Origin, Reference};
use self::registry::{Registries, Repository};
use self::steady::Patience;
use self::store::{Store, StoredImage, Temporary};
use self::turns::Turns;
use self::unpack::{Limits, UnpackError};
use crate::port::{Image, ImageLayer, ImageObservation, PullBehavior, PullError, PullRequest, RemoveImageError, Space};

pub use self::registry::{BerthRegistry, PULL_INACTIVITY};

/// The images of this machine.
pub struct Images {
    store: Arc<Store>,
    registries: Registries,
    turns: Turns,
    held: Arc<Mutex<HashMap<String, usize>>>,
    limits: Limits,
    patience: Patience,
}

impl Images {
    /// Opens the store in `root`; connects to nothing. A registry that sends nothing for as long as `inactivity` counts as gone.
    ///
    /// # Errors
    /// Of the system, with the step.
    pub fn open(root: &Path, own: Option<BerthRegistry>, inactivity: Duration) -> io::Result<Images> {
        let store = Store::open(root).map_err(|e| io::Error::new(e.kind(), format!("open image store {}: {e}", root.display())))?;
        let registries = Registries::new(own, inactivity).map_err(io::Error::other)?;
        let images = Images {
            store: Arc::new(store),
            registries,
            turns: Turns::default(),
            held: Arc::default(),
            limits: Limits::default(),
            patience: Patience::default(),
        };
        // A removal that was broken off left them.
        if let Err(error) = images.remove_orphans() {
            tracing::warn!(%error, "layers that no image has cannot be removed");
        }
        Ok(images)
    }

    /// The folder of layer links, and the links of an image's layers, topmost first.
    ///
    /// # Errors
    /// Of the system.
    pub fn layers(&self, image: &StoredImage) -> io::Result<(PathBuf, Vec<String>)> {
        let links = image.diff_ids.iter().rev().map(|diff_id| self.store.link(diff_id)).collect::<io::Result<Vec<_>>>()?;
        Ok((self.store.links(), links))
    }

    /// The folder of layer links.
    pub(crate) fn links(&self) -> PathBuf {
        self.store.links()
    }

    /// Keeps an image from being removed for as long as what is given back lives. `None`: it is not here.
    pub fn hold(&self, digest: &str) -> Option<Held> {
        // Whoever removes an image forgets it under this lock.
        let mut held = self.held.lock();
        let image = self.store.image(digest)?;
        *held.entry(digest.to_owned()).or_insert(0) += 1;
        drop(held);
        Some(Held { held: Arc::clone(&self.held), image })
    }

    /// All images; `is_used` says which of them containers have.
    ///
    /// # Errors
    /// Of the system.
    pub fn observe(&self, is_used: impl Fn(&str) -> bool) -> io::Result<Vec<ImageObservation>> {
        let layer = |diff_id: &String| ImageLayer { id: diff_id.clone(), bytes: self.store.layer_size(diff_id) };
        let known = self.store.images()?.into_iter().map(|(image, arrived_at)| ImageObservation {
            layers: image.diff_ids.iter().map(layer).collect(),
            arrived_at,
            is_used: is_used(&image.digest),
            foreign_names: None,
            digest: image.digest,
        });
        let mut known: Vec<ImageObservation> = known.collect();
        known.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(known)
    }

    /// Removes an image; see [`crate::port::Runtime::remove_image`]. `is_used` says whether containers have it.
    ///
    /// # Errors
    /// [`RemoveImageError`].
    pub fn remove(&self, digest: &str, is_used: impl Fn() -> bool) -> Result<(), RemoveImageError> {
        let step = |step: &str, error: io::Error| RemoveImageError::System(format!("{step} {digest}: {error}"));
        let held = self.held.lock();
        if held.contains_key(digest) || is_used() {
            return Err(RemoveImageError::InUse(digest.to_owned()));
        }
        self.store.forget_image(digest).map_err(|error| step("forget image", error))?;
        drop(held);
        self.remove_orphans().map_err(|error| step("remove the layers of image", error))
    }

    /// Removes layers that no image has. One that a pull is at work on is left to it.
    fn remove_orphans(&self) -> io::Result<()> {
        let needed = self.store.needed_layers()?;
        for diff_id in self.store.layers()?.into_iter().filter(|diff_id| !needed.contains(diff_id)) {
            let Some(_turn) = self.turns.try_take(&diff_id) else { continue };
            // Looked at again with the turn: from here on no pull can begin to count on the layer.
            if !self.store.needed_layers()?.contains(&diff_id) {
                self.store.remove_layer(&diff_id)?;
            }
        }
        Ok(())
    }

    /// The file system that images are on.
    pub fn space(&self) -> Option<Space> {
        space::of(self.store.root())
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
        let _turn = self.turns.wait(&format!("reference {key}")).await;
        let image = steady::again(self.patience, &request.reference, || self.fetch_or_keep(&reference, &key, &request)).await?;
        Ok(image.as_ref().into())
    }

    async fn fetch_or_keep(&self, reference: &Reference, key: &str, request: &PullRequest) -> Result<Arc<StoredImage>, PullError> {
        let fetched = self.fetch(reference, key, request).await;
        match (fetched, request.behavior) {
            (Err(error), PullBehavior::Default) => {
                let here = self.store.resolve(key).ok_or_else(|| error.to_string());
                if here.is_ok() {
                    tracing::warn!(reference = request.reference, %error, "pull failed; using the copy that is here");
                }
                here.map_err(|_| error)
            }
            (outcome, _) => outcome,
        }
    }

    async fn fetch(&self, reference: &Reference, key: &str, request: &PullRequest) -> Result<Arc<StoredImage>, PullError> {
        let origins = reference.origins(self.registries.own(), request.login.is_some());
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
        let (origin, credentials) = self.registries.enter(origin, request).await?;
        let repository = self.registries.repository(&origin, credentials.as_ref());
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
        let found = manifest::find(&repository, &bytes, digest).await?;
        let image = self.fetch_image(&repository, found).await?;
        self.store.put_reference(key, &image.digest).map_err(storage)?;
        Ok(image)
    }

    async fn fetch_image(&self, repository: &Repository<'_>, found: Found) -> Result<Arc<StoredImage>, PullError> {
        let mut wanted = found.layers.clone();
        // In one order for all, and all before the first byte: so pulls that share layers cannot wait for each other in a ring.
        wanted.sort_by(|a, b| a.diff_id.cmp(&b.diff_id));
        wanted.dedup_by(|a, b| a.diff_id == b.diff_id);
        let mut turns = Vec::new();
        for layer in &wanted {
            turns.push(self.turns.wait(&layer.diff_id).await);
        }
        wanted.retain(|layer| !self.store.has_layer(&layer.diff_id));
        space::check(self.store.root(), wanted.iter().map(|layer| layer.blob.size).sum())?;
        let unpacked: Vec<(String, u64, Temporary)> = futures_util::stream::iter(wanted)
            .map(|layer| self.fetch_layer(repository, layer))
            .buffer_unordered(PARALLEL_LAYERS)
            .try_collect()
            .await?;
        // Published together, after the last one: a pull that fails leaves nothing.
        let new: Vec<String> = unpacked.iter().map(|(diff_id, ..)| diff_id.clone()).collect();
        for (diff_id, bytes, folder) in unpacked {
            self.store.publish_layer(folder, &diff_id, bytes).map_err(storage)?;
        }
        let diff_ids = found.diff_ids();
        let image = StoredImage { digest: found.digest, config_digest: found.config_digest, diff_ids, defaults: found.defaults };
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

    async fn fetch_layer(&self, repository: &Repository<'_>, layer: Layer) -> Result<(String, u64, Temporary), PullError> {
        let (store, limits) = (Arc::clone(&self.store), self.limits);
        let receive = move |pieces: fetch::Pieces, size: u64| {
            let failed = |error: io::Error| match space::is_full(&error) {
                true => UnpackError::Full(0),
                false => UnpackError::Storage(format!("make a folder: {error}")),
            };
            let folder = store.temporary().map_err(failed)?;
            unpack::unpack(pieces, size, &folder.files(), limits).map(|unpacked| (unpacked, folder))
        };
        let (bytes, folder) = fetch_layer(repository, &layer, self.patience, self.store.root(), receive).await?;
        Ok((layer.diff_id, bytes, folder))
    }
}

/// An image that nobody can remove meanwhile.
pub struct Held {
    held: Arc<Mutex<HashMap<String, usize>>>,
    image: Arc<StoredImage>,
}

impl std::ops::Deref for Held {
    type Target = StoredImage;

    fn deref(&self) -> &StoredImage {
        &self.image
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if let Some(count) = held.get_mut(&self.image.digest) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.image.digest);
            }
        }
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

#[cfg(all(test, feature = "conformance"))]
#[path = "removal_tests.rs"]
mod tests;
