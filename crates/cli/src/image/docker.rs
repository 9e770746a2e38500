//! Docker archives, as `docker save` writes them: `manifest.json` names a configuration and the layer tars of each image.
//! (Docker 25 and later write an OCI layout beside it; `manifest.json` is the simpler of the two to trust.)

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::archive::{Archive, Source};
use super::layer::{LAYER_GZIP, Layer, Meter, pack};
use super::name::ImageName;
use super::{ArchiveKind, Blob, Image, LoadError, OwnName};

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// No image has more: overlay file systems end at 500, docker at 127.
const MAX_LAYERS: usize = 500;

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The archive's `manifest.json`, if it has one that is docker's: a list. A root file system may have some other file of
/// that name.
pub(super) fn manifest(archive: &Archive) -> Result<Option<Vec<Item>>, LoadError> {
    if !archive.has("manifest.json") {
        return Ok(None);
    }
    let Ok(document) = archive.document("manifest.json") else { return Ok(None) };
    if !matches!(serde_json::from_slice(&document), Ok(serde_json::Value::Array(_))) {
        return Ok(None);
    }
    let items = serde_json::from_slice(&document).map_err(|e| archive.broken(format!("manifest.json is not docker's: {e}")))?;
    Ok(Some(items))
}

/// The image that `wanted` names, or the only one.
pub(super) fn image(archive: &Archive, items: &[Item], wanted: Option<&ImageName>, meter: &Meter) -> Result<Image, LoadError> {
    let item = choose(archive, items, wanted)?;
    let config = archive.document(&item.config)?;
    let diff_ids = serde_json::from_slice::<Configuration>(&config)
        .map_err(|e| archive.broken(format!("{:?} is not an image configuration: {e}", item.config)))?
        .rootfs
        .diff_ids;
    if diff_ids.len() != item.layers.len() || diff_ids.len() > MAX_LAYERS {
        let text = format!("{} layers are listed, but the configuration has {}", item.layers.len(), diff_ids.len());
        return Err(archive.broken(format!("{text}; {MAX_LAYERS} at most are allowed")));
    }
    let mut packed: HashMap<&str, Blob> = HashMap::new();
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (name, expected) in item.layers.iter().zip(&diff_ids) {
        if let Some(blob) = packed.get(expected.as_str()) {
            layers.push(blob.clone());
            continue;
        }
        let (source, size) = archive.find(name)?;
        let Layer { blob, diff_id } = pack(archive, name, &source, size, meter)?;
        if diff_id != *expected {
            return Err(archive.broken(format!("layer {name:?} has digest {diff_id}, the configuration wants {expected}")));
        }
        packed.insert(expected, blob.clone());
        layers.push(blob);
    }
    let own_name = match item.repo_tags.as_deref() {
        Some([first, ..]) => OwnName::Name(first.clone()),
        _ => OwnName::None("manifest.json has no RepoTags".into()),
    };
    Ok(assemble(ArchiveKind::Docker, config, layers, own_name))
}

fn choose<'a>(archive: &Archive, items: &'a [Item], wanted: Option<&ImageName>) -> Result<&'a Item, LoadError> {
    let tags = |item: &'a Item| item.repo_tags.iter().flatten();
    match items {
        [] => Err(archive.broken("manifest.json lists no image")),
        [only] => Ok(only),
        several => {
            let is_wanted = |item: &&Item| tags_of(item).any(|tag| ImageName::parse(tag).ok().as_ref() == wanted);
            several.iter().find(|item| wanted.is_some() && is_wanted(item)).ok_or_else(|| {
                let names = several.iter().flat_map(tags).take(20).cloned().collect();
                LoadError::Several { path: archive.path.clone(), names }
            })
        }
    }
}

fn tags_of(item: &Item) -> impl Iterator<Item = &String> {
    item.repo_tags.iter().flatten()
}

/// An OCI image of a configuration and packed layers.
pub(super) fn assemble(kind: ArchiveKind, config: Vec<u8>, layers: Vec<Blob>, own_name: OwnName) -> Image {
    use sha2::{Digest, Sha256};
    let config: Arc<[u8]> = config.into();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&config)));
    let config = Blob { digest, size: config.len() as u64, source: Source::Bytes(config) };
    let descriptor = |blob: &Blob, media_type: &str| json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(&config, OCI_CONFIG),
        "layers": layers.iter().map(|layer| descriptor(layer, LAYER_GZIP)).collect::<Vec<_>>(),
    });
    let count = layers.len();
    let mut blobs = vec![config];
    for layer in layers {
        // An image may have one layer twice; it is pushed once.
        if blobs.iter().all(|blob| blob.digest != layer.digest) {
            blobs.push(layer);
        }
    }
    Image { kind, blobs, layers: count, manifest: manifest.to_string().into_bytes(), media_type: OCI_MANIFEST.into(), own_name }
}
