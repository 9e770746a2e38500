//! Images for Docker: fetched and checked by the same client as for the native runtime, then given to Docker with `docker load`.
//!
//! Docker's own pull is not used: it would not know Berth's registry nor its credentials, would take less care with hostile layers, and
//! older daemons cannot read zstd. What Docker has by itself (`docker build`, `docker pull`) is used where no registry has it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use bollard::Docker;
use bollard::query_parameters::{ImportImageOptions, TagImageOptions};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

use super::archive::{self, Archive};
use super::engine::{status, text};
use super::layer::{self, LayerFile};
use super::names;
use super::records::{Record, Records};
use crate::images::reference::{Origin, Reference, is_digest};
use crate::images::registry::{Registries, Repository};
use crate::images::steady::{Patience, Steady};
use crate::images::unpack::{Limits, UnpackError};
use crate::images::{
    BerthRegistry, Configuration, Descriptor, MAX_LAYERS, Manifest, PARALLEL_LAYERS, PIECES_AHEAD, Pieces, check_platform,
    for_this_machine, parse, storage,
};
use crate::port::{Image, PullBehavior, PullError, PullRequest};

/// The images of one Docker, as far as one data directory brought them there.
pub struct DockerImages {
    docker: Docker,
    /// Whether Docker takes an archive without the layers that it has already. The containerd store does not.
    may_omit_layers: bool,
    records: Records,
    registries: Registries,
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    underway: Mutex<Underway>,
}

/// Layers that were fetched, as long as any image is being brought to Docker: a pull that has looked what Docker has may still need one
/// that another's load has just ended with.
#[derive(Default)]
struct Underway {
    loads: usize,
    layers: HashMap<String, Arc<LayerFile>>,
}

/// An image is being brought to Docker.
struct Loading<'a>(&'a Mutex<Underway>);

impl<'a> Loading<'a> {
    fn begin(underway: &'a Mutex<Underway>) -> Loading<'a> {
        underway.lock().loads += 1;
        Loading(underway)
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut underway = self.0.lock();
        underway.loads -= 1;
        if underway.loads == 0 {
            underway.layers.clear();
        }
    }
}

/// An image found at a registry.
struct Found {
    record: Record,
    configuration: Bytes,
    layers: Vec<Descriptor>,
}

impl DockerImages {
    /// Opens the records in `root`.
    ///
    /// # Errors
    /// Of the system, with the step.
    pub fn open(docker: Docker, may_omit_layers: bool, root: &Path, own: Option<BerthRegistry>) -> io::Result<DockerImages> {
        let records = Records::open(root).map_err(|e| io::Error::new(e.kind(), format!("open image records {}: {e}", root.display())))?;
        let registries = Registries::new(own).map_err(io::Error::other)?;
        Ok(DockerImages { docker, may_omit_layers, records, registries, locks: Mutex::default(), underway: Mutex::default() })
    }

    /// Makes an image present; see [`crate::port::Runtime::pull`].
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn pull(&self, request: PullRequest) -> Result<Image, PullError> {
        let reference = Reference::parse(&request.reference)?;
        let key = reference.key();
        // What a digest names never changes.
        let settled = reference.digest.is_some() || matches!(request.behavior, PullBehavior::Once | PullBehavior::PreferCached);
        if settled && let Some(here) = self.resolve(&key).await {
            return Ok((&here).into());
        }
        // The second of two pulls of one reference waits here, then finds everything done for the price of one question.
        let _turn = self.lock(&format!("reference {key}")).await;
        if request.behavior == PullBehavior::PreferCached
            && let Some(own) = self.adopt(&reference, &key).await?
        {
            return Ok((&own).into());
        }
        match self.fetch(&reference, &key, &request).await {
            Ok(record) => Ok((&record).into()),
            Err(error) if request.behavior == PullBehavior::Default => {
                let here = match self.adopt(&reference, &key).await? {
                    Some(own) => Some(own),
                    None => self.resolve(&key).await,
                };
                let here = here.ok_or_else(|| error.to_string());
                if here.is_ok() {
                    tracing::warn!(reference = request.reference, %error, "pull failed; using the copy that is here");
                }
                here.map(|record| (&record).into()).map_err(|_| error)
            }
            Err(error) => Err(error),
        }
    }

    /// The image that a reference led to when it was last pulled, if Docker still has it.
    async fn resolve(&self, key: &str) -> Option<Record> {
        let digest = self.records.reference(key)?;
        self.image(&digest).await
    }

    async fn image(&self, digest: &str) -> Option<Record> {
        let record = self.records.image(digest)?;
        self.docker.inspect_image(&names::image_reference(digest)).await.ok().map(|_| record)
    }

    /// What Docker itself has under a reference: built there, or pulled there by hand. It gets a name of Berth's beside its own.
    async fn adopt(&self, reference: &Reference, key: &str) -> Result<Option<Record>, PullError> {
        let host = reference.host.as_deref().map(|host| format!("{host}/")).unwrap_or_default();
        let separator = if reference.digest.is_some() { '@' } else { ':' };
        let name = format!("{host}{}{separator}{}", reference.repository, reference.version());
        let found = match self.docker.inspect_image(&name).await {
            Ok(found) => found,
            Err(error) if status(&error) == 404 => return Ok(None),
            Err(error) => return Err(PullError::Storage(text(&error))),
        };
        let Some(id) = found.id.filter(|id| is_digest(id)) else { return Ok(None) };
        let pulled = found.repo_digests.unwrap_or_default().into_iter().filter_map(|name| Some(name.rsplit_once('@')?.1.to_owned()));
        let digest = pulled.into_iter().find(|digest| is_digest(digest)).unwrap_or_else(|| id.clone());
        let (repository, tag) = names::image(&digest);
        let options = TagImageOptions { repo: Some(repository), tag: Some(tag) };
        self.docker.tag_image(&id, Some(options)).await.map_err(|error| PullError::Storage(text(&error)))?;
        let record = Record { digest, config_digest: id, diff_ids: found.root_fs.and_then(|root| root.layers).unwrap_or_default() };
        self.keep(&record, key)?;
        Ok(Some(record))
    }

    fn keep(&self, record: &Record, key: &str) -> Result<(), PullError> {
        self.records.put_image(record).map_err(storage)?;
        self.records.put_reference(key, &record.digest).map_err(storage)
    }

    async fn fetch(&self, reference: &Reference, key: &str, request: &PullRequest) -> Result<Record, PullError> {
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

    async fn fetch_from(&self, origin: &Origin, version: &str, key: &str, request: &PullRequest) -> Result<Record, PullError> {
        let repository = self.registries.repository(origin, request.credentials.as_ref());
        // Asking costs a request only where the answer can save the rest.
        if let Some(here) = self.resolve(key).await
            && repository.digest(version).await?.as_ref() == Some(&here.digest)
        {
            return Ok(here);
        }
        let (bytes, digest) = repository.manifest(version).await?;
        if let Some(here) = self.image(&digest).await {
            self.keep(&here, key)?;
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
        let found = self.look(&repository, manifest, digest).await?;
        // Until it is on record, so that whoever begins later finds its layers in Docker.
        let _loading = Loading::begin(&self.underway);
        self.load(&repository, &found).await?;
        self.keep(&found.record, key)?;
        Ok(found.record)
    }

    async fn look(&self, repository: &Repository<'_>, manifest: Manifest, digest: String) -> Result<Found, PullError> {
        let config = manifest.config.ok_or_else(|| PullError::Invalid("the manifest has no configuration".into()))?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(PullError::Invalid(format!("the image has more than {MAX_LAYERS} layers")));
        }
        let bytes = repository.small_blob(&config.digest, config.size).await?;
        let configuration: Configuration = parse("configuration", &bytes)?;
        check_platform(&configuration)?;
        let diff_ids = configuration.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() || !diff_ids.iter().all(|diff_id| is_digest(diff_id)) {
            return Err(PullError::Invalid("the configuration's diff_ids do not match the manifest's layers".into()));
        }
        if !manifest.layers.iter().all(|layer| is_digest(&layer.digest)) {
            return Err(PullError::Invalid("a layer's digest is not sha256".into()));
        }
        let record = Record { digest, config_digest: config.digest, diff_ids };
        Ok(Found { record, configuration: bytes, layers: manifest.layers })
    }

    /// Brings an image to Docker: without the layers that it has, or, where it turns out to miss one of those, whole.
    async fn load(&self, repository: &Repository<'_>, found: &Found) -> Result<(), PullError> {
        let here = if self.may_omit_layers { self.layers_in_docker(&found.record.diff_ids).await } else { 0 };
        match self.load_from(repository, found, here).await {
            Err(PullError::Invalid(problem)) if here > 0 => {
                tracing::debug!(digest = found.record.digest, problem, "Docker does not take an image without its lower layers");
                self.load_from(repository, found, 0).await
            }
            outcome => outcome,
        }
    }

    /// How many of an image's lowest layers Docker has, by the images that were brought there. Its own word for a layer is the chain of
    /// all below it, so only a common beginning counts.
    async fn layers_in_docker(&self, diff_ids: &[String]) -> usize {
        let common = |record: &Record| record.diff_ids.iter().zip(diff_ids).take_while(|(a, b)| a == b).count();
        let mut candidates: Vec<(usize, Record)> = self.records.images().into_iter().map(|record| (common(&record), record)).collect();
        candidates.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.digest.cmp(&b.1.digest)));
        for (count, record) in candidates.into_iter().filter(|(count, _)| *count > 0) {
            if self.image(&record.digest).await.is_some() {
                return count;
            }
        }
        0
    }

    async fn load_from(&self, repository: &Repository<'_>, found: &Found, first: usize) -> Result<(), PullError> {
        let record = &found.record;
        let mut wanted: Vec<(Descriptor, String)> = found.layers.iter().cloned().zip(record.diff_ids.iter().cloned()).skip(first).collect();
        // In one order for all, so that pulls that share layers cannot wait for each other in a ring.
        wanted.sort_by(|a, b| a.1.cmp(&b.1));
        wanted.dedup_by(|a, b| a.1 == b.1);
        let layers: HashMap<String, Arc<LayerFile>> = futures_util::stream::iter(wanted)
            .map(|(blob, diff_id)| self.layer(repository, blob, diff_id))
            .buffered(PARALLEL_LAYERS)
            .try_collect()
            .await?;
        let archive = Archive {
            configuration: found.configuration.clone(),
            config_digest: record.config_digest.clone(),
            reference: names::image_reference(&record.digest),
            diff_ids: record.diff_ids.clone(),
            layers,
        };
        let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
        let mut answers = self.docker.import_image_stream(options, archive::stream(archive), None).boxed();
        while let Some(answer) = answers.next().await {
            answer.map_err(|error| load_error(&text(&error)))?;
        }
        match self.docker.inspect_image(&names::image_reference(&record.digest)).await {
            Ok(loaded) if loaded.root_fs.as_ref().and_then(|root| root.layers.as_ref()) == Some(&record.diff_ids) => Ok(()),
            Ok(_) => Err(PullError::Storage(format!("Docker has other layers for image {}", record.digest))),
            Err(error) => Err(load_error(&text(&error))),
        }
    }

    /// A layer's checked tar. Pulls at the same time share it.
    async fn layer(&self, repository: &Repository<'_>, blob: Descriptor, diff_id: String) -> Result<(String, Arc<LayerFile>), PullError> {
        let _turn = self.lock(&diff_id).await;
        let known = self.underway.lock().layers.get(&diff_id).cloned();
        if let Some(here) = known {
            return Ok((diff_id, here));
        }
        let layer = Arc::new(self.fetch_layer(repository, &blob, &diff_id).await?);
        self.underway.lock().layers.insert(diff_id.clone(), Arc::clone(&layer));
        Ok((diff_id, layer))
    }

    async fn fetch_layer(&self, repository: &Repository<'_>, blob: &Descriptor, expected: &str) -> Result<LayerFile, PullError> {
        let Descriptor { digest, size, .. } = blob.clone();
        let mut blob = Steady::open(repository, &digest, size, Patience::default()).await?;
        let file = LayerFile { path: self.records.temporary() };
        let (pieces, source) = tokio::sync::mpsc::channel(PIECES_AHEAD);
        let receiver = tokio::task::spawn_blocking(move || {
            // The file travels along: should this pull be dropped, it is removed after the last write to it, not before.
            let source = Pieces { source, current: Bytes::new() };
            layer::receive(source, size, &file.path, Limits::default()).map(|diff_id| (diff_id, file))
        });
        let mut hash = Sha256::new();
        let mut length = 0;
        while let Some(piece) = blob.next().await {
            let piece = piece?;
            length += piece.len() as u64;
            if length > size {
                return Err(PullError::Invalid(format!("layer {digest} is longer than its manifest says")));
            }
            hash.update(&piece);
            if pieces.send(Ok(piece)).await.is_err() {
                // The receiver has given up; it says why.
                break;
            }
        }
        drop(pieces);
        let outcome = receiver.await.map_err(|e| PullError::Storage(format!("receive layer {digest}: {e}")))?;
        let finished = format!("sha256:{}", hex::encode(hash.finalize()));
        let (diff_id, file) = match outcome {
            // Wrong bytes explain a tar that cannot be read, and the client's own complaint; the reverse is not true.
            Err(UnpackError::Invalid(_) | UnpackError::Source(_)) | Ok(_) if length == size && finished != digest => {
                return Err(PullError::Invalid(format!("layer {digest} has the digest {finished}")));
            }
            Ok(_) if length < size => return Err(PullError::Unreachable(format!("layer {digest} broke off after {length} bytes"))),
            Ok(received) => received,
            Err(UnpackError::Invalid(problem)) => return Err(PullError::Invalid(format!("layer {digest}: {problem}"))),
            Err(UnpackError::Storage(problem)) => return Err(PullError::Storage(format!("layer {digest}: {problem}"))),
            Err(UnpackError::Source(error)) => return Err(PullError::Unreachable(format!("layer {digest}: {error}"))),
        };
        if diff_id != expected {
            return Err(PullError::Invalid(format!("layer {digest} unpacks to {diff_id}, the configuration says {expected}")));
        }
        Ok(file)
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

/// Docker's refusal of an image: the disk's, or the image's own.
fn load_error(said: &str) -> PullError {
    let of_the_disk = ["no space left", "disk quota", "read-only file system", "error trying to connect", "connection"];
    let lower = said.to_ascii_lowercase();
    if of_the_disk.iter().any(|words| lower.contains(words)) {
        PullError::Storage(format!("docker load: {said}"))
    } else {
        PullError::Invalid(said.to_owned())
    }
}
