//! OCI archives: an image layout (image specification, "Image layout") in a tar. The image's manifest is pushed byte for
//! byte, so it keeps the digest it was built with.

use serde::Deserialize;

use super::archive::Archive;
use super::docker::OCI_MANIFEST;
use super::layer::{Meter, digest};
use super::name::ImageName;
use super::{ArchiveKind, Blob, Image, LoadError, OwnName, architecture};

const INDEX_TYPES: [&str; 2] = ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// An index of an index of an index is as deep as any tool goes.
const MAX_NESTING: usize = 4;
/// Images in one index: a dozen platforms, and an attestation for each.
const MAX_MANIFESTS: usize = 1000;
const MAX_LAYERS: usize = 500;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize, Clone, Default)]
struct Annotations {
    #[serde(rename = "org.opencontainers.image.ref.name", default)]
    ref_name: Option<String>,
    /// Full name, as containerd and buildx write it; their `ref.name` is the tag alone.
    #[serde(rename = "io.containerd.image.name", default)]
    full_name: Option<String>,
    /// Marks what is about an image and not one itself.
    #[serde(rename = "vnd.docker.reference.type", default)]
    reference_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// The image that `wanted` names, or the only one; of several platforms, this machine's.
pub(super) fn image(archive: &Archive, wanted: Option<&ImageName>, meter: &Meter) -> Result<Image, LoadError> {
    let index = parse_index(archive, "index.json", &archive.document("index.json")?)?;
    let top = choose(archive, &index, wanted)?;
    let own_name = own_name(top);
    let mut descriptor = top.clone();
    for _ in 0..MAX_NESTING {
        if !INDEX_TYPES.contains(&descriptor.media_type.as_str()) {
            return read(archive, &descriptor, own_name, meter);
        }
        let bytes = blob_document(archive, &descriptor, meter)?;
        let index = parse_index(archive, &descriptor.digest, &bytes)?;
        descriptor = for_this_machine(archive, &index)?.clone();
    }
    Err(archive.broken(format!("index.json is nested more than {MAX_NESTING} deep")))
}

fn parse_index(archive: &Archive, what: &str, bytes: &[u8]) -> Result<Index, LoadError> {
    let index: Index = serde_json::from_slice(bytes).map_err(|e| archive.broken(format!("{what} is not an image index: {e}")))?;
    if index.manifests.len() > MAX_MANIFESTS {
        return Err(archive.broken(format!("{what} lists more than {MAX_MANIFESTS} manifests")));
    }
    Ok(index)
}

fn choose<'a>(archive: &Archive, index: &'a Index, wanted: Option<&ImageName>) -> Result<&'a Descriptor, LoadError> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|d| is_image(d)).collect();
    let named = |descriptor: &&Descriptor| match own_name(descriptor) {
        OwnName::Name(name) => ImageName::parse(&name).ok().as_ref() == wanted,
        OwnName::None(_) => false,
    };
    match images.as_slice() {
        [] => Err(archive.broken("index.json lists no image")),
        [only] => Ok(only),
        several => {
            if wanted.is_some()
                && let Some(found) = several.iter().find(|d| named(d))
            {
                return Ok(found);
            }
            // Several platforms of one image, with nothing between them and index.json.
            if several.iter().all(|d| d.platform.is_some()) {
                return for_this_machine(archive, index);
            }
            let names = several.iter().map(|d| match own_name(d) {
                OwnName::Name(name) => name,
                OwnName::None(_) => d.digest.clone(),
            });
            Err(LoadError::Several { path: archive.path.clone(), names: names.take(20).collect() })
        }
    }
}

fn is_image(descriptor: &Descriptor) -> bool {
    descriptor.annotations.as_ref().is_none_or(|a| a.reference_type.is_none())
}

fn for_this_machine<'a>(archive: &Archive, index: &'a Index) -> Result<&'a Descriptor, LoadError> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|d| is_image(d)).collect();
    let fits = |d: &&&Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture());
    match (images.iter().find(fits), images.as_slice()) {
        (Some(found), _) | (None, [found]) => Ok(found),
        _ => {
            let platforms = images.iter().filter_map(|d| d.platform.as_ref()).map(|p| format!("{}/{}", p.os, p.architecture));
            let platforms: Vec<String> = platforms.take(20).collect();
            Err(archive.broken(format!("has no image for linux/{}, only for: {}", architecture(), platforms.join(", "))))
        }
    }
}

fn own_name(descriptor: &Descriptor) -> OwnName {
    let annotations = descriptor.annotations.clone().unwrap_or_default();
    match (annotations.full_name, annotations.ref_name) {
        (Some(name), _) => OwnName::Name(name),
        (None, Some(name)) if name.contains([':', '/']) => OwnName::Name(name),
        // By the specification it is a tag then, and a tag is no name.
        (None, Some(tag)) => OwnName::None(format!("org.opencontainers.image.ref.name is only {tag:?}")),
        (None, None) => OwnName::None("index.json has no org.opencontainers.image.ref.name".into()),
    }
}

fn read(archive: &Archive, descriptor: &Descriptor, own_name: OwnName, meter: &Meter) -> Result<Image, LoadError> {
    let bytes = blob_document(archive, descriptor, meter)?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|e| archive.broken(format!("{} is not an image manifest: {e}", descriptor.digest)))?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(archive.broken(format!("the image has {} layers, {MAX_LAYERS} are allowed", manifest.layers.len())));
    }
    let mut blobs: Vec<Blob> = Vec::new();
    for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
        if blobs.iter().all(|blob| blob.digest != part.digest) {
            blobs.push(blob(archive, part, meter)?);
        }
    }
    let named_type = if descriptor.media_type.is_empty() { OCI_MANIFEST.to_owned() } else { descriptor.media_type.clone() };
    let media_type = manifest.media_type.unwrap_or(named_type);
    Ok(Image { kind: ArchiveKind::Oci, blobs, layers: manifest.layers.len(), manifest: bytes, media_type, own_name })
}

/// A blob of the layout, with its size and digest checked.
fn blob(archive: &Archive, descriptor: &Descriptor, meter: &Meter) -> Result<Blob, LoadError> {
    let (source, size) = archive.find(&blob_path(archive, &descriptor.digest)?)?;
    if size != descriptor.size {
        let text = format!("blob {} has {size} bytes, the manifest says {}", descriptor.digest, descriptor.size);
        return Err(archive.broken(text));
    }
    let found = digest(&source, size, meter).map_err(|e| archive.unreadable(e))?;
    if found != descriptor.digest {
        return Err(archive.broken(format!("blob {} has digest {found}", descriptor.digest)));
    }
    Ok(Blob { digest: found, size, source })
}

fn blob_document(archive: &Archive, descriptor: &Descriptor, meter: &Meter) -> Result<Vec<u8>, LoadError> {
    blob(archive, descriptor, meter)?;
    archive.document(&blob_path(archive, &descriptor.digest)?)
}

fn blob_path(archive: &Archive, digest: &str) -> Result<String, LoadError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(format!("blobs/sha256/{hex}")),
        _ => Err(archive.broken(format!("{:?} is not a sha256 digest", digest.chars().take(100).collect::<String>()))),
    }
}
