//! The upload endpoints: what POST, PATCH, PUT, GET and DELETE below `/blobs/uploads/` mean ("Pushing blobs" in the
//! distribution specification), over the uploads themselves.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE};
use http::{Response, StatusCode};

use crate::blobs::{created, plain};
use crate::body::ResponseBody;
use crate::digest::Digest;
use crate::failure::{Code, Failure};
use crate::name::RepositoryName;
use crate::route::Query;
use crate::uploads::{Chunk, Upload};
use crate::{Answer, RequestBody, Shared, blocking};

impl Shared {
    /// POST: a mount, a whole blob at once, or the start of an upload.
    pub(crate) async fn start_upload(
        this: Arc<Shared>,
        name: RepositoryName,
        query: &Query,
        request: &HeaderMap,
        body: RequestBody,
    ) -> Answer {
        if let Some(mount) = query.get("mount") {
            let digest = parse_digest(mount)?;
            // Without `from` any repository might do, but a name serves only what was pushed or mounted to it.
            if let Some(from) = query.get("from") {
                let from: RepositoryName = from.parse().map_err(|e| Failure::new(Code::NameInvalid, format!("from: {e}")))?;
                let (shared, to, wanted) = (this.clone(), name.clone(), digest.clone());
                if blocking(move || shared.mount_blob(&to, &wanted, &from)).await? {
                    return Ok(created(&blob_location(&name, &digest), &digest));
                }
            }
            // The specification: what cannot be mounted becomes an ordinary upload.
        }
        let wanted = query.get("digest").map(parse_digest).transpose()?;
        let (shared, to) = (this.clone(), name.clone());
        let upload = blocking(move || shared.begin_upload(&to)).await?;
        match wanted {
            None => Ok(progress(StatusCode::ACCEPTED, &name, &upload)),
            Some(digest) => {
                let chunk = Chunk { range: None, length: content_length(request) };
                let done = Self::complete(this.clone(), upload.clone(), chunk, body, digest).await;
                // One request, one blob: nobody knows the upload's id, so nobody could resume it.
                this.uploads.discard(&upload);
                done
            }
        }
    }

    pub(crate) fn upload_status(&self, name: &RepositoryName, id: &str) -> Answer {
        let upload = self.uploads.find(name, id)?;
        Ok(progress(StatusCode::NO_CONTENT, name, &upload))
    }

    pub(crate) fn delete_upload(&self, name: &RepositoryName, id: &str) -> Answer {
        let upload = self.uploads.find(name, id)?;
        self.uploads.discard(&upload);
        Ok(plain(StatusCode::NO_CONTENT))
    }

    pub(crate) async fn patch_upload(
        this: Arc<Shared>,
        name: RepositoryName,
        id: String,
        request: &HeaderMap,
        body: RequestBody,
    ) -> Answer {
        let upload = this.uploads.find(&name, &id)?;
        let chunk = chunk(request)?;
        let writer = upload.writer(this.settings.body_idle).await?;
        let done = upload.append(writer, chunk, body, &this.settings).await;
        match done {
            Ok(_) => Ok(progress(StatusCode::ACCEPTED, &name, &upload)),
            Err(failure) => Err(this.drop_if_too_large(&upload, failure)),
        }
    }

    pub(crate) async fn put_upload(
        this: Arc<Shared>,
        name: RepositoryName,
        id: String,
        query: &Query,
        request: &HeaderMap,
        body: RequestBody,
    ) -> Answer {
        let upload = this.uploads.find(&name, &id)?;
        let wanted = query.get("digest").ok_or_else(|| Failure::new(Code::DigestInvalid, "digest is missing"))?;
        let digest = parse_digest(wanted)?;
        let chunk = chunk(request)?;
        match Self::complete(this.clone(), upload.clone(), chunk, body, digest).await {
            Ok(response) => Ok(response),
            Err(failure) => Err(this.drop_if_too_large(&upload, failure)),
        }
    }

    async fn complete(this: Arc<Shared>, upload: Arc<Upload>, chunk: Chunk, body: RequestBody, digest: Digest) -> Answer {
        let writer = upload.writer(this.settings.body_idle).await?;
        let mut writer = upload.append(writer, chunk, body, &this.settings).await?;
        let location = blob_location(upload.repository(), &digest);
        let wanted = digest.clone();
        blocking(move || this.finish_upload(&upload, &mut writer, &wanted)).await?;
        Ok(created(&location, &digest))
    }

    /// An upload that burst its limit can never be finished; keeping it would only hold the space.
    fn drop_if_too_large(&self, upload: &Upload, failure: Failure) -> Failure {
        if failure.code() == Code::SizeInvalid {
            self.uploads.discard(upload);
        }
        failure
    }
}

fn blob_location(name: &RepositoryName, digest: &Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

fn parse_digest(text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(|e| Failure::new(Code::DigestInvalid, format!("{e}")))
}

fn content_length(request: &HeaderMap) -> Option<u64> {
    request.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The specification writes `Content-Range: FIRST-LAST`; the form of RFC 9110 (`bytes FIRST-LAST/TOTAL`) is understood
/// too. Without the header the bytes are simply the next ones.
fn chunk(request: &HeaderMap) -> Result<Chunk, Failure> {
    let length = content_length(request);
    let Some(value) = request.get(CONTENT_RANGE) else { return Ok(Chunk { range: None, length }) };
    let parse = || {
        let text = value.to_str().ok()?;
        let text = text.strip_prefix("bytes ").unwrap_or(text);
        let (first, last) = text.split('/').next()?.split_once('-')?;
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some((first, last.checked_sub(first)?.checked_add(1)?))
    };
    match parse() {
        Some(range) => Ok(Chunk { range: Some(range), length }),
        // An empty last chunk has no form of its own; clients send `0-0` or worse with it.
        None if length == Some(0) => Ok(Chunk { range: None, length }),
        None => {
            Err(Failure::new(Code::BlobUploadInvalid, "Content-Range is not FIRST-LAST").with_status(StatusCode::RANGE_NOT_SATISFIABLE))
        }
    }
}

/// Where the upload goes on, how far it got, and what it is called.
fn progress_fields(name: &RepositoryName, upload: &Upload) -> [(HeaderName, HeaderValue); 3] {
    let value = |text: String| HeaderValue::from_str(&text).expect("names, ids and digits are visible ASCII");
    // An inclusive range cannot say "nothing"; `0-0` is what registries answer then.
    let last = upload.received().saturating_sub(1);
    [
        (LOCATION, value(format!("/v2/{name}/blobs/uploads/{}", upload.id))),
        (RANGE, value(format!("0-{last}"))),
        (HeaderName::from_static("docker-upload-uuid"), value(upload.id.clone())),
    ]
}

fn progress(status: StatusCode, name: &RepositoryName, upload: &Upload) -> Response<ResponseBody> {
    let mut response = plain(status);
    response.headers_mut().extend(progress_fields(name, upload));
    response
}

/// Tells a client that lost its place where the upload really is.
pub(crate) fn progress_headers(failure: Failure, name: &RepositoryName, upload: &Upload) -> Failure {
    progress_fields(name, upload).into_iter().fold(failure, |f, (name, value)| f.with_header(name, value))
}
