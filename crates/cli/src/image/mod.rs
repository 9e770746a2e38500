//! Image archives: what `docker save`, an OCI tool or plain `tar` wrote becomes an image in a registry, over the OCI
//! distribution API alone. Nothing of an archive is trusted: sizes are bounded, digests are computed, names are checked.

mod archive;
mod docker;
mod layer;
mod name;
mod oci;
mod push;
mod rootfs;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::{Archive, Source};
use layer::Meter;
use name::ImageName;
use push::Push;

/// What an archive turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// Of `docker save`: `manifest.json`, a configuration and layer tars.
    Docker,
    /// An OCI image layout in a tar: `oci-layout`, `index.json` and blobs.
    Oci,
    /// Any other tar, taken as the root file system of a container.
    RootFileSystem,
}

/// How far a load got. Reports come at the start of a step, about ten times a second during it, and at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The archive is being read: layers are verified and compressed. In bytes read so far; the total is not known before.
    Reading {
        /// Bytes read so far.
        bytes: u64,
    },
    /// A blob goes to the registry.
    Pushing {
        /// Which one, from 1.
        blob: usize,
        /// How many there are.
        blobs: usize,
        /// Bytes sent so far.
        bytes: u64,
        /// Bytes of this blob.
        total: u64,
    },
    /// The registry has that blob already.
    Present {
        /// Which one, from 1.
        blob: usize,
        /// How many there are.
        blobs: usize,
        /// Bytes of this blob.
        total: u64,
    },
}

/// An image that the registry now has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// `NAME:TAG`, as a task definition may name it.
    pub reference: String,
    /// The manifest's digest, `sha256:…`.
    pub digest: String,
    /// What the archive was.
    pub kind: ArchiveKind,
    /// How many layers the image has.
    pub layers: usize,
    /// Bytes of all its blobs.
    pub bytes: u64,
    /// Bytes that had to be sent, for the registry lacked them.
    pub pushed_bytes: u64,
}

/// Why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive is broken, hostile or of a kind that is not understood.
    #[error("{}: {problem}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Layers are compressed in the folder for temporary files, and that failed.
    #[error("cannot write a temporary file in {} (TMPDIR): {source}", std::env::temp_dir().display())]
    Temporary {
        /// Why not.
        source: io::Error,
    },
    /// The name is not one that an image can have.
    #[error("{given:?} is not an image name: {problem}")]
    Name {
        /// The name, from the argument or the archive.
        given: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The archive does not say what the image is called.
    #[error("{}: the archive does not name its image ({hint}); give NAME:TAG", path.display())]
    Nameless {
        /// The file.
        path: PathBuf,
        /// What there was instead of a name.
        hint: String,
    },
    /// The archive holds several images and it is not clear which is meant.
    #[error("{}: the archive holds {}; give the NAME:TAG of one of them", path.display(), names.join(", "))]
    Several {
        /// The file.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// The endpoint is not one to push to.
    #[error("cannot push to endpoint {endpoint:?}: {problem}")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The registry cannot be reached, or the connection broke.
    #[error("{step}: no answer from the registry at {endpoint}: {problem}")]
    Unreachable {
        /// What was being done.
        step: String,
        /// The endpoint.
        endpoint: String,
        /// The innermost cause.
        problem: String,
    },
    /// The registry did not accept the credentials.
    #[error("the registry at {endpoint} does not accept these credentials")]
    Unauthorized {
        /// The endpoint.
        endpoint: String,
    },
    /// The registry refused a step.
    #[error("{step}: the registry answered {status}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Refused {
        /// What was being done.
        step: String,
        /// The HTTP status.
        status: u16,
        /// The registry's code and message, where it gave them.
        detail: String,
    },
}

/// One blob to push.
#[derive(Clone)]
struct Blob {
    /// `sha256:…`
    digest: String,
    size: u64,
    source: Source,
}

/// An image, verified and ready to be pushed.
struct Image {
    kind: ArchiveKind,
    /// Configuration and layers, each digest once.
    blobs: Vec<Blob>,
    layers: usize,
    manifest: Vec<u8>,
    media_type: String,
    /// What the archive calls it.
    own_name: OwnName,
}

enum OwnName {
    Name(String),
    /// None, and what there was instead.
    None(String),
}

/// A registry to push to.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// Its URL; `http` is for loopback only, since a password goes along.
    pub endpoint: &'a str,
    /// The user of Basic authentication (`AWS` with a token of ECR's GetAuthorizationToken).
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
    /// A PEM file of the only certificate authorities to trust; the system's if not given.
    pub ca_bundle: Option<&'a Path>,
}

/// As [`load_to`], trusting the system's certificate authorities.
///
/// # Errors
/// As [`load_to`].
pub async fn load(
    file: &Path,
    name: Option<&str>,
    endpoint: &str,
    username: &str,
    password: &str,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<LoadedImage, LoadError> {
    load_to(file, name, &Destination { endpoint, username, password, ca_bundle: None }, progress).await
}

/// Reads the archive `file` and pushes its image to `destination` with Basic authentication. The image is called `name` (`NAME` or `NAME:TAG`), or else what the archive calls it; a missing
/// tag is `latest`, and a registry's host in front is dropped, since it is this registry that holds the image now.
///
/// # Errors
/// A [`LoadError`] that names the file, setting or step at fault. Blobs that were pushed before a failure stay in the
/// registry, where the next try finds them; the tag only moves at the very end.
pub async fn load_to(
    file: &Path,
    name: Option<&str>,
    destination: &Destination<'_>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<LoadedImage, LoadError> {
    let given = name.map(ImageName::parse).transpose()?;
    let push = Push::new(destination)?;
    let meter = Arc::new(Meter::default());
    progress(Progress::Reading { bytes: 0 });
    let (path, wanted, counter) = (file.to_owned(), given.clone(), meter.clone());
    let mut reading = tokio::task::spawn_blocking(move || read(&path, wanted.as_ref(), &counter));
    let mut tick = tokio::time::interval(push::TICK);
    let image = loop {
        tokio::select! {
            image = &mut reading => break image.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?,
            _ = tick.tick() => progress(Progress::Reading { bytes: meter.bytes() }),
        }
    };
    progress(Progress::Reading { bytes: meter.bytes() });
    let name = match (given, &image.own_name) {
        (Some(name), _) => name,
        (None, OwnName::Name(name)) => ImageName::parse(name)?,
        (None, OwnName::None(hint)) => return Err(LoadError::Nameless { path: file.to_owned(), hint: hint.clone() }),
    };
    let pushed_bytes = push.blobs(&name, &image.blobs, progress).await?;
    let digest = push.manifest(&name, &image).await?;
    Ok(LoadedImage {
        reference: name.to_string(),
        digest,
        kind: image.kind,
        layers: image.layers,
        bytes: image.blobs.iter().map(|blob| blob.size).sum(),
        pushed_bytes,
    })
}

/// Blocks while the archive is recognised, its layers verified and compressed.
fn read(path: &Path, wanted: Option<&ImageName>, meter: &Arc<Meter>) -> Result<Image, LoadError> {
    let archive = Archive::open(path, meter)?;
    if let Some(manifest) = docker::manifest(&archive)? {
        return docker::image(&archive, &manifest, wanted, meter);
    }
    if archive.has("oci-layout") && archive.has("index.json") {
        return oci::image(&archive, wanted, meter);
    }
    rootfs::image(&archive, meter)
}

/// This machine's architecture as images name it (Go's GOARCH).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
