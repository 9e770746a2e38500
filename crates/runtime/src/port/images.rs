//! What the port says of images: asking for one, how that fails, what is here.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

/// How `pull` treats an image that is already here. Meanings follow `ECS_IMAGE_PULL_BEHAVIOR` of amazon-ecs-agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullBehavior {
    /// Ask the registry; where that fails, use the copy that is here.
    #[default]
    Default,
    /// Ask the registry; where that fails, the pull fails.
    Always,
    /// Ask the registry only if this image was never pulled here.
    Once,
    /// Use the copy that is here; ask the registry only if there is none.
    PreferCached,
}

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// User name of HTTP Basic authentication.
    pub username: String,
    /// Password; never logged (this type's `Debug` hides it).
    pub password: String,
}

impl std::fmt::Debug for PullRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PullRequest { reference, behavior, credentials, login } = self;
        let mut shown = f.debug_struct("PullRequest");
        shown.field("reference", reference).field("behavior", behavior).field("credentials", credentials);
        shown.field("login", &login.is_some()).finish()
    }
}

impl std::fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Where an image's registry really is, and how to log in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// Host and port to ask in the place of the reference's host. On loopback without TLS, elsewhere with it.
    pub host: String,
    /// For HTTP Basic authentication.
    pub credentials: RegistryCredentials,
}

/// Logs in to Amazon ECR; asked only when an image's registry is one of its hosts and Berth's own registry does not have the image.
#[async_trait]
pub trait RegistryLogins: Send + Sync {
    /// How to log in.
    ///
    /// # Errors
    /// The text of why there is no login, for [`PullError::Unauthorized`].
    async fn login(&self) -> Result<RegistryLogin, String>;
}

/// One request to have an image here.
#[derive(Clone)]
pub struct PullRequest {
    /// The reference as the task definition has it (`busybox`, `hello:latest`, `host:5000/a/b@sha256:..`).
    pub reference: String,
    /// What to do with a copy that is already here.
    pub behavior: PullBehavior,
    /// Credentials for the registry that the reference names, if any.
    pub credentials: Option<RegistryCredentials>,
    /// Logs in to ECR where there are no credentials; without it ECR's hosts are asked as they are, and for nobody.
    pub login: Option<Arc<dyn RegistryLogins>>,
}

/// An image that is here, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of the manifest, `sha256:<hex>`; this is what ECS reports as `imageDigest`.
    pub digest: String,
    /// Digest of the image's configuration blob, `sha256:<hex>` (Docker's image id).
    pub config_digest: String,
}

/// Why a pull failed. `Display` is the text that follows `CannotPullContainerError: ` in ECS's reason.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The reference cannot be parsed.
    #[error("invalid reference format: {0}")]
    InvalidReference(String),
    /// The registry answers that there is no such repository or tag.
    #[error("pull access denied or image not found: {0}")]
    NotFound(String),
    /// The registry refuses the credentials.
    #[error("authentication failed: {0}")]
    Unauthorized(String),
    /// The registry cannot be reached or breaks off.
    #[error("failed to reach the registry: {0}")]
    Unreachable(String),
    /// The registry breaks off, or stands still, in the middle of a layer, however often it is asked for the rest.
    #[error("the registry breaks off: {0}")]
    BrokenOff(String),
    /// What came is not what its digest says, or a layer tries to leave its directory, or it is no image for this machine.
    #[error("invalid image: {0}")]
    Invalid(String),
    /// This machine cannot keep the image (disk).
    #[error("cannot store the image: {0}")]
    Storage(String),
    /// This machine has no room for the image.
    #[error("no space left for the image: it needs at least {needed} bytes more, and {free} bytes are free")]
    NoSpace {
        /// What is known to be needed: of compressed layers, so the truth is rather more.
        needed: u64,
        /// What is free where images are kept.
        free: u64,
    },
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What can be written.
    pub free: u64,
}

/// A layer of an image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// The same for images that share it on the disk.
    pub id: String,
    /// Bytes it takes, about.
    pub bytes: u64,
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageObservation {
    /// As [`Image::digest`]; of an image that was not pulled here, what else it is found by.
    pub digest: String,
    /// What it takes on the disk.
    pub layers: Vec<ImageLayer>,
    /// When it came here; of an image that was not pulled here, when it was made.
    pub arrived_at: SystemTime,
    /// A container has it, in whatever state.
    pub is_used: bool,
    /// Of an image that others brought (Docker's own), its names there; `None`: it was pulled here.
    pub foreign_names: Option<Vec<String>>,
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveImageError {
    /// A container has it or is being made of it.
    #[error("a container has image {0}")]
    InUse(String),
    /// The system refuses; the text says which step.
    #[error("{0}")]
    System(String),
}
