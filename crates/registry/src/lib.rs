//! An OCI registry (distribution specification 1.1) as one function from request to answer, over a folder of blobs.
//! It must never read the store, never decide who may call it (that is the caller's business), and never show a name
//! whose bytes are not verified and on the disk.

mod blobs;
mod body;
mod digest;
mod disk;
mod failure;
mod index;
mod lists;
mod manifests;
mod name;
mod route;
mod upload_requests;
mod uploads;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Body;
use parking_lot::{Mutex, RwLock};

pub use body::ResponseBody;
pub use digest::{Algorithm, Digest, DigestError};
pub use failure::{Code, Failure, unauthorized};
pub use lists::Image;
pub use name::{NameError, Reference, ReferenceError, RepositoryName, Tag};

use disk::{Disk, Found};
use index::{Index, Manifest};
use route::{Endpoint, Query, endpoint, unsupported};
use uploads::Uploads;

type Answer = Result<Response<ResponseBody>, Failure>;
/// Any request body, once its type no longer matters.
type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What a registry allows and how it reads the time.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Largest blob, in bytes.
    pub max_blob_bytes: u64,
    /// How many uploads may be under way at once, over all repositories.
    pub max_open_uploads: usize,
    /// An upload that saw no byte for this long may be dropped.
    pub upload_expiry: Duration,
    /// A request whose body brings nothing for this long is given up; what arrived stays.
    pub body_idle: Duration,
    /// The clock for expiry and for `pushed_at`.
    pub clock: fn() -> SystemTime,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_blob_bytes: 100 << 30,
            // A push by docker has five layers under way: room for fifty pushes, and a bound on open files.
            max_open_uploads: 256,
            upload_expiry: Duration::from_secs(24 * 60 * 60),
            body_idle: Duration::from_secs(60),
            clock: SystemTime::now,
        }
    }
}

/// The registry's folder could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("registry folder {}: {step}: {source}", dir.display())]
pub struct OpenError {
    dir: PathBuf,
    step: &'static str,
    source: io::Error,
}

/// A registry over one folder. Cheap to clone; all clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    disk: Disk,
    settings: Settings,
    index: RwLock<Index>,
    /// Taken, on a blocking thread, by every change of links and contents from its check to its end, so that a push
    /// and a deletion of the same content cannot cross. The index's own lock is then only ever held for moments.
    commit: Mutex<()>,
    uploads: Uploads,
}

impl Registry {
    /// Opens (or makes) the registry in `dir` with the default settings. What a crash left half done is removed;
    /// uploads under way can be resumed.
    ///
    /// # Errors
    /// If the folder cannot be read or written, or another process has it open.
    pub fn open(dir: PathBuf) -> Result<Registry, OpenError> {
        Registry::open_with(dir, Settings::default())
    }

    /// As [`Registry::open`], with other settings.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub fn open_with(dir: PathBuf, settings: Settings) -> Result<Registry, OpenError> {
        let failed = |step| {
            let dir = dir.clone();
            move |source| OpenError { dir, step, source }
        };
        let disk = Disk::open(dir.clone()).map_err(failed("prepare"))?;
        let index = load(&disk).map_err(failed("load"))?;
        let now = (settings.clock)();
        let uploads = Uploads::load(disk.uploads(), now, settings.upload_expiry).map_err(failed("load uploads"))?;
        let shared = Shared { disk, settings, index: RwLock::new(index), commit: Mutex::new(()), uploads };
        Ok(Registry { shared: Arc::new(shared) })
    }

    /// Drops uploads that saw no byte for the configured time before `now`; answers how many. Opening does the same,
    /// and so does starting an upload when there are too many.
    pub fn expire_uploads(&self, now: SystemTime) -> usize {
        self.shared.uploads.expire(now, self.shared.settings.upload_expiry)
    }

    /// Answers one request below `/v2/`. Who asks must have been checked before.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let body = body.map_err(Into::into).boxed_unsync();
        let answer = match endpoint(head.uri.path()) {
            Ok(endpoint) => self.answer(endpoint, &head, body).await,
            // A tag that cannot be is a manifest that is not there; only PUT has a reason to say more.
            Err(failure) if failure.code() == Code::TagInvalid && head.method != Method::PUT => {
                Err(Failure::new(Code::ManifestUnknown, "no manifest can have that tag"))
            }
            Err(failure) => Err(failure),
        };
        let mut response = answer.unwrap_or_else(Failure::into_response);
        mark_version(&mut response);
        response
    }

    async fn answer(&self, endpoint: Endpoint, head: &http::request::Parts, body: RequestBody) -> Answer {
        let shared = &self.shared;
        let query = Query::parse(head.uri.query());
        match (endpoint, &head.method) {
            (Endpoint::Base, &Method::GET | &Method::HEAD) => Ok(lists::json("{}".into())),
            (Endpoint::Catalog, &Method::GET) => shared.catalog(&query),
            (Endpoint::Tags(name), &Method::GET) => shared.tags(&name, &query),
            (Endpoint::Referrers(name, subject), &Method::GET) => {
                Shared::referrers(shared.clone(), name, subject, query.get("artifactType").map(str::to_owned)).await
            }
            (Endpoint::Blob(name, digest), &Method::GET) => Shared::get_blob(shared.clone(), name, digest, &head.headers).await,
            (Endpoint::Blob(name, digest), &Method::HEAD) => shared.head_blob(&name, &digest, &head.headers),
            (Endpoint::Blob(name, digest), &Method::DELETE) => Shared::delete_blob(shared.clone(), name, digest).await,
            (Endpoint::Manifest(name, reference), &Method::GET) => {
                Shared::get_manifest(shared.clone(), name, reference, &head.headers).await
            }
            (Endpoint::Manifest(name, reference), &Method::HEAD) => shared.head_manifest(&name, &reference, &head.headers),
            (Endpoint::Manifest(name, reference), &Method::PUT) => {
                Shared::put_manifest(shared.clone(), name, reference, &head.headers, body).await
            }
            (Endpoint::Manifest(name, reference), &Method::DELETE) => Shared::delete_manifest(shared.clone(), name, reference).await,
            (Endpoint::Uploads(name), &Method::POST) => Shared::start_upload(shared.clone(), name, &query, &head.headers, body).await,
            (Endpoint::Upload(name, id), &Method::GET) => shared.upload_status(&name, &id),
            (Endpoint::Upload(name, id), &Method::PATCH) => Shared::patch_upload(shared.clone(), name, id, &head.headers, body).await,
            (Endpoint::Upload(name, id), &Method::PUT) => Shared::put_upload(shared.clone(), name, id, &query, &head.headers, body).await,
            (Endpoint::Upload(name, id), &Method::DELETE) => shared.delete_upload(&name, &id),
            (_, method) => Err(unsupported(method)),
        }
    }
}

/// Runs `work` where blocking is allowed. It goes on to its end even if the client has gone meanwhile.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(cause) => Err(Failure::storage("blocking task", &io::Error::other(cause))),
    }
}

/// Docker's clients tell a v2 registry by this header.
pub(crate) fn mark_version(response: &mut Response<ResponseBody>) {
    response.headers_mut().insert(HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
}

/// Reads the folder into an index and removes what no complete thing refers to: a crash leaves, at worst, contents
/// without a link, links without contents or tags without a manifest.
fn load(disk: &Disk) -> io::Result<Index> {
    let mut index = Index::default();
    for (digest, size) in disk.contents()? {
        index.add_content(&digest, size);
    }
    let mut tags = Vec::new();
    let mut torn = Vec::new();
    disk.repositories(&mut |found| match found {
        Found::Repository(name) => index.add_repository(&name),
        Found::Blob(name, digest) => {
            if !index.add_blob(&name, &digest) {
                torn.push((name, digest, false));
            }
        }
        Found::Manifest(name, digest, record) => {
            let manifest = Manifest {
                media_type: record.media_type.into(),
                subject: record.subject.and_then(|s| s.parse().ok()),
                pushed_at: record.pushed_at,
            };
            if !index.add_manifest(&name, &digest, manifest) {
                torn.push((name, digest, true));
            }
        }
        // Folders come in no order: a tag may be met before its manifest.
        Found::Tag(name, tag, digest) => tags.push((name, tag, digest)),
    })?;
    for (name, tag, digest) in tags {
        if !index.add_tag(&name, &tag, &digest) {
            tracing::warn!(%name, %tag, %digest, "removing a tag without its manifest");
            disk.remove_tag(&name, &tag)?;
        }
    }
    for (name, digest, manifest) in torn {
        tracing::warn!(%name, %digest, "removing a link without its content");
        if manifest {
            disk.remove_manifest_record(&name, &digest)?;
        } else {
            disk.remove_blob_link(&name, &digest)?;
        }
    }
    for digest in index.take_unlinked() {
        tracing::info!(%digest, "removing content that no repository links");
        disk.remove_content(&digest)?;
    }
    Ok(index)
}
