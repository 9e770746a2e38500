//! What registries say of an image: manifests, lists of them, configurations. Read and checked here, before a layer is asked for.

use bytes::Bytes;

use super::reference::is_digest;
use super::registry::Repository;
use super::store::ImageDefaults;
use crate::port::PullError;

/// Docker's own limit, and what fits in an overlay mount.
const MAX_LAYERS: usize = 127;

/// The parts of a manifest or index that matter.
/// <https://github.com/opencontainers/image-spec/blob/main/manifest.md>
#[derive(serde::Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// What a blob or manifest is called and how long it is.
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
struct Configuration {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    config: Option<ImageDefaults>,
    rootfs: RootFs,
}

#[derive(serde::Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// A layer to fetch: what it is called at the registry and here.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: String,
}

/// An image found at a registry, checked as far as that goes without its layers.
pub(crate) struct Found {
    /// Digest of what the reference named: the manifest, or the index that led to it.
    pub(crate) digest: String,
    pub(crate) config_digest: String,
    /// The configuration as it came.
    pub(crate) configuration: Bytes,
    pub(crate) defaults: ImageDefaults,
    /// Lowest first.
    pub(crate) layers: Vec<Layer>,
}

impl Found {
    /// Layers' names here, lowest first.
    pub(crate) fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    }
}

/// Reads on from the manifest or index `bytes` with the digest `digest`.
///
/// # Errors
/// [`PullError`], of the registry or because it is no image for this machine.
pub(crate) async fn find(repository: &Repository<'_>, bytes: &[u8], digest: String) -> Result<Found, PullError> {
    let manifest: Manifest = parse("manifest", bytes)?;
    let manifest = match manifest.config {
        Some(_) => manifest,
        None => {
            let chosen = for_this_machine(&manifest.manifests)?;
            parse("manifest", &repository.manifest(&chosen.digest).await?.0)?
        }
    };
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
    let layers = manifest.layers.into_iter().zip(diff_ids).map(|(blob, diff_id)| Layer { blob, diff_id }).collect();
    let defaults = configuration.config.unwrap_or_default();
    Ok(Found { digest, config_digest: config.digest, configuration: bytes, defaults, layers })
}

fn parse<'a, T: serde::Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, PullError> {
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

fn for_this_machine(manifests: &[Descriptor]) -> Result<&Descriptor, PullError> {
    let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture();
    manifests
        .iter()
        .find(|entry| entry.platform.as_ref().is_some_and(fits))
        .filter(|entry| is_digest(&entry.digest))
        .ok_or_else(|| PullError::Invalid(format!("no matching manifest for linux/{} in the manifest list entries", architecture())))
}

/// An empty platform is what simple build tools write; they mean this machine.
fn check_platform(configuration: &Configuration) -> Result<(), PullError> {
    let Configuration { os, architecture: arch, .. } = configuration;
    let fits = (os.is_empty() || os == "linux") && (arch.is_empty() || arch == architecture());
    if fits { Ok(()) } else { Err(PullError::Invalid(format!("the image is for {os}/{arch}, this machine is linux/{}", architecture()))) }
}
