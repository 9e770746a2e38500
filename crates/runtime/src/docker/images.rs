//! Images for Docker: fetched and checked by the same client as for the native runtime, then given to Docker with `docker load`.
//!
//! Docker's own pull is not used: it would not know Berth's registry nor its credentials, would take less care with hostile layers, and
//! older daemons cannot read zstd. What Docker has by itself (`docker build`, `docker pull`) is used where no registry has it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::SystemInfo;
use bollard::query_parameters::{ImportImageOptions, ListContainersOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions};
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::archive::{self, Archive};
use super::capabilities;
use super::engine::{status, text};
use super::layer::{self, LayerFile};
use super::names;
use super::records::{Record, Records};
use crate::images::fetch::{PARALLEL_LAYERS, Pieces, fetch_layer};
use crate::images::manifest::{self, Found, Layer};
use crate::images::reference::{Origin, Reference, is_digest};
use crate::images::registry::{Registries, Repository};
use crate::images::steady::{self, Patience};
use crate::images::turns::Turns;
use crate::images::unpack::Limits;
use crate::images::{space, storage};
use crate::port::{Image, ImageLayer, ImageObservation, PullBehavior, PullError, PullRequest, RemoveImageError, Space};

/// The images of one Docker, as far as one data directory brought them there.
pub struct DockerImages {
    docker: Docker,
    /// Whether Docker takes an archive without the layers that it has already. The containerd store does not.
    may_omit_layers: bool,
    /// Docker's own folder, if it is on this machine.
    docker_root: Option<PathBuf>,
    records: Records,
    registries: Registries,
    turns: Turns,
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

impl DockerImages {
    /// Opens the records in `root`; `registries` are asked for what Docker then gets.
    ///
    /// # Errors
    /// Of the system, with the step.
    pub fn open(docker: Docker, info: &SystemInfo, root: &Path, registries: Registries) -> io::Result<DockerImages> {
        let records = Records::open(root).map_err(|e| io::Error::new(e.kind(), format!("open image records {}: {e}", root.display())))?;
        let may_omit_layers = capabilities::may_omit_layers(info);
        let docker_root = info.docker_root_dir.as_ref().map(PathBuf::from).filter(|root| root.is_dir());
        Ok(DockerImages { docker, may_omit_layers, docker_root, records, registries, turns: Turns::default(), underway: Mutex::default() })
    }

    /// Makes an image present; see [`crate::port::Runtime::pull`].
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn pull(&self, request: PullRequest) -> Result<Image, PullError> {
        steady::again(Patience::default(), &request.reference, || self.pull_once(&request)).await
    }

    async fn pull_once(&self, request: &PullRequest) -> Result<Image, PullError> {
        let reference = Reference::parse(&request.reference)?;
        let key = reference.key();
        // What a digest names never changes.
        let settled = reference.digest.is_some() || matches!(request.behavior, PullBehavior::Once | PullBehavior::PreferCached);
        if settled && let Some(here) = self.resolve(&key).await {
            return Ok((&here).into());
        }
        // The second of two pulls of one reference waits here, then finds everything done for the price of one question.
        let _turn = self.turns.wait(&format!("reference {key}")).await;
        if request.behavior == PullBehavior::PreferCached
            && let Some(own) = self.adopt(&reference, &key).await?
        {
            return Ok((&own).into());
        }
        match self.fetch(&reference, &key, request).await {
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

    /// All images of this Docker. Those that any data directory of Berth's brought, and this one did not, are nobody's to remove here.
    ///
    /// # Errors
    /// Docker's.
    pub async fn observe(&self) -> Result<Vec<ImageObservation>, Error> {
        // Everybody's, not this data directory's alone.
        let all = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let containers = self.docker.list_containers(Some(all)).await?;
        let there = self.docker.list_images(Some(ListImagesOptions::default())).await?;
        let is_used = |name: Option<&String>, id: &str| {
            containers.iter().any(|one| one.image_id.as_deref() == Some(id) || (one.image.is_some() && one.image.as_ref() == name))
        };
        let mut seen = Vec::new();
        for image in there {
            let ours: Vec<(&String, Option<Record>)> =
                image.repo_tags.iter().filter_map(|tag| Some((tag, self.records.image(&names::image_digest(tag)?)))).collect();
            let bytes = u64::try_from(image.size).unwrap_or(0);
            let whole = || vec![ImageLayer { id: image.id.clone(), bytes }];
            if ours.is_empty() {
                seen.push(ImageObservation {
                    digest: image.id.clone(),
                    layers: whole(),
                    arrived_at: UNIX_EPOCH + Duration::from_secs(u64::try_from(image.created).unwrap_or(0)),
                    is_used: is_used(None, &image.id),
                    foreign_names: Some(image.repo_tags.clone()),
                });
            }
            for (tag, record) in ours.into_iter().filter_map(|(tag, record)| Some((tag, record?))) {
                seen.push(ImageObservation {
                    layers: if record.knows_sizes() { record.layers() } else { whole() },
                    arrived_at: self.records.arrived_at(&record.digest).unwrap_or(UNIX_EPOCH),
                    is_used: is_used(Some(tag), &image.id),
                    foreign_names: None,
                    digest: record.digest,
                });
            }
        }
        seen.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(seen)
    }

    /// Removes an image; see [`crate::port::Runtime::remove_image`]. Docker itself says whether a container has it.
    ///
    /// # Errors
    /// [`RemoveImageError`].
    pub async fn remove(&self, digest: &str) -> Result<(), RemoveImageError> {
        let Some(_turn) = self.turns.try_take(&format!("image {digest}")) else {
            return Err(RemoveImageError::InUse(digest.to_owned()));
        };
        let step = |step: &str, problem: String| RemoveImageError::System(format!("{step} image {digest}: {problem}"));
        let names = match self.records.image(digest) {
            Some(_) => vec![names::image_reference(digest)],
            None => match self.docker.inspect_image(digest).await {
                // Each of its names: by its id Docker does not remove what has several.
                Ok(found) => found.repo_tags.filter(|tags| !tags.is_empty()).unwrap_or_else(|| vec![digest.to_owned()]),
                Err(error) if status(&error) == 404 => return Ok(()),
                Err(error) => return Err(step("find", text(&error))),
            },
        };
        // By the first of several names Docker would take it from somebody who has it by another.
        let filters = HashMap::from([("ancestor".to_owned(), names.clone())]);
        let of_it = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        match self.docker.list_containers(Some(of_it)).await {
            Ok(containers) if containers.is_empty() => {}
            Ok(_) => return Err(RemoveImageError::InUse(digest.to_owned())),
            Err(error) => return Err(step("see who has", text(&error))),
        }
        for name in names {
            match self.docker.remove_image(&name, None::<RemoveImageOptions>, None).await {
                Ok(_) => {}
                Err(error) if status(&error) == 404 => {}
                Err(error) if status(&error) == 409 => return Err(RemoveImageError::InUse(digest.to_owned())),
                Err(error) => return Err(step("remove", text(&error))),
            }
        }
        self.records.forget(digest).map_err(|error| step("forget", error.to_string()))
    }

    /// The file system that Docker's images are on, if it is this machine's.
    pub fn space(&self) -> Option<Space> {
        space::of(self.docker_root.as_deref()?)
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
        let diff_ids = found.root_fs.and_then(|root| root.layers).unwrap_or_default();
        let record = Record { digest, config_digest: id, diff_ids, layer_sizes: Vec::new() };
        self.keep(&record, key)?;
        Ok(Some(record))
    }

    fn keep(&self, record: &Record, key: &str) -> Result<(), PullError> {
        self.records.put_image(record).map_err(storage)?;
        self.records.put_reference(key, &record.digest).map_err(storage)
    }

    async fn fetch(&self, reference: &Reference, key: &str, request: &PullRequest) -> Result<Record, PullError> {
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

    async fn fetch_from(&self, origin: &Origin, version: &str, key: &str, request: &PullRequest) -> Result<Record, PullError> {
        let (origin, credentials) = self.registries.enter(origin, request).await?;
        let repository = self.registries.repository(&origin, credentials.as_ref());
        // Asking costs a request only where the answer can save the rest.
        if let Some(here) = self.resolve(key).await
            && repository.digest(version).await?.as_ref() == Some(&here.digest)
        {
            return Ok(here);
        }
        let (bytes, digest) = repository.manifest(version).await?;
        // Two references may lead to one image; and nobody removes it on its way.
        let _turn = self.turns.wait(&format!("image {digest}")).await;
        if let Some(here) = self.image(&digest).await {
            self.keep(&here, key)?;
            return Ok(here);
        }
        let found = manifest::find(&repository, &bytes, digest).await?;
        // Until it is on record, so that whoever begins later finds its layers in Docker.
        let _loading = Loading::begin(&self.underway);
        let record = self.load(&repository, &found).await?;
        self.keep(&record, key)?;
        Ok(record)
    }

    /// Brings an image to Docker: without the layers that it has, or, where it turns out to miss one of those, whole.
    async fn load(&self, repository: &Repository<'_>, found: &Found) -> Result<Record, PullError> {
        let here = if self.may_omit_layers { self.layers_in_docker(&found.diff_ids()).await } else { Vec::new() };
        match self.load_from(repository, found, &here).await {
            Err(PullError::Invalid(problem)) if !here.is_empty() => {
                tracing::debug!(digest = found.digest, problem, "Docker does not take an image without its lower layers");
                self.load_from(repository, found, &[]).await
            }
            outcome => outcome,
        }
    }

    /// An image's lowest layers that Docker has, by the images that were brought there: their sizes. Its own word for a layer is the
    /// chain of all below it, so only a common beginning counts.
    async fn layers_in_docker(&self, diff_ids: &[String]) -> Vec<u64> {
        let common = |record: &Record| record.diff_ids.iter().zip(diff_ids).take_while(|(a, b)| a == b).count();
        let mut candidates: Vec<(usize, Record)> = self.records.images().into_iter().map(|record| (common(&record), record)).collect();
        candidates.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.digest.cmp(&b.1.digest)));
        for (count, record) in candidates.into_iter().filter(|(count, _)| *count > 0) {
            if self.image(&record.digest).await.is_some() {
                return (0..count).map(|layer| record.layer_sizes.get(layer).copied().unwrap_or(0)).collect();
            }
        }
        Vec::new()
    }

    /// The same where its lowest layers are `here` already.
    async fn load_from(&self, repository: &Repository<'_>, found: &Found, here: &[u64]) -> Result<Record, PullError> {
        let mut wanted: Vec<Layer> = found.layers.iter().skip(here.len()).cloned().collect();
        // In one order for all, so that pulls that share layers cannot wait for each other in a ring.
        wanted.sort_by(|a, b| a.diff_id.cmp(&b.diff_id));
        wanted.dedup_by(|a, b| a.diff_id == b.diff_id);
        let needed = wanted.iter().map(|layer| layer.blob.size).sum();
        for place in self.places() {
            space::check(place, needed)?;
        }
        let layers: HashMap<String, Arc<LayerFile>> =
            futures_util::stream::iter(wanted).map(|layer| self.layer(repository, layer)).buffered(PARALLEL_LAYERS).try_collect().await?;
        let sizes = found.layers.iter().enumerate().map(|(index, layer)| match here.get(index) {
            Some(size) => *size,
            None => layers.get(&layer.diff_id).map_or(0, |layer| layer.bytes),
        });
        let record = Record {
            digest: found.digest.clone(),
            config_digest: found.config_digest.clone(),
            diff_ids: found.diff_ids(),
            layer_sizes: sizes.collect(),
        };
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
            answer.map_err(|error| self.load_error(&text(&error), &record))?;
        }
        match self.docker.inspect_image(&names::image_reference(&record.digest)).await {
            Ok(loaded) if loaded.root_fs.as_ref().and_then(|root| root.layers.as_ref()) == Some(&record.diff_ids) => Ok(record),
            Ok(_) => Err(PullError::Storage(format!("Docker has other layers for image {}", record.digest))),
            Err(error) => Err(self.load_error(&text(&error), &record)),
        }
    }

    /// A layer's checked tar. Pulls at the same time share it.
    async fn layer(&self, repository: &Repository<'_>, layer: Layer) -> Result<(String, Arc<LayerFile>), PullError> {
        let diff_id = layer.diff_id.clone();
        let _turn = self.turns.wait(&diff_id).await;
        let known = self.underway.lock().layers.get(&diff_id).cloned();
        if let Some(here) = known {
            return Ok((diff_id, here));
        }
        let path = self.records.temporary();
        let receive = move |pieces: Pieces, size: u64| {
            let mut file = LayerFile { path, bytes: 0 };
            let received = layer::receive(pieces, size, &file.path, Limits::default())?;
            file.bytes = received.bytes;
            Ok((received, file))
        };
        let (_, file) = fetch_layer(repository, &layer, Patience::default(), self.records.root(), receive).await?;
        let file = Arc::new(file);
        self.underway.lock().layers.insert(diff_id.clone(), Arc::clone(&file));
        Ok((diff_id, file))
    }

    /// Where a pull writes to: layers on their way, and Docker's own folder if that is on this machine.
    fn places(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.records.root()).chain(self.docker_root.as_deref())
    }

    /// Docker's refusal of an image: the disk's, or the image's own.
    fn load_error(&self, said: &str, record: &Record) -> PullError {
        let lower = said.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|words| lower.contains(words));
        if says(&["no space left", "disk quota"]) {
            let place = self.docker_root.as_deref().unwrap_or(self.records.root());
            space::exhausted(place, record.layer_sizes.iter().sum())
        } else if says(&["read-only file system", "error trying to connect", "connection"]) {
            PullError::Storage(format!("docker load: {said}"))
        } else {
            PullError::Invalid(said.to_owned())
        }
    }
}
