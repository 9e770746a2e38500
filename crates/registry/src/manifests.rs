//! Manifests: kept byte for byte under their digest, with the media type they came with. A manifest becomes visible
//! only when all it refers to is in the repository (its `subject` excepted, which may come later).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;

use crate::blobs::{IMMUTABLE, created, matches_etag, name_content, not_modified, plain};
use crate::body;
use crate::digest::Digest;
use crate::disk::{ManifestRecord, read_bounded};
use crate::failure::{Code, Failure};
use crate::index::{Index, Manifest, Resolved};
use crate::name::{Reference, RepositoryName};
use crate::{Answer, RequestBody, Shared, blocking};

/// Largest manifest, in bytes: what the distribution specification tells registries to allow at least.
const MAX_MANIFEST: u64 = 4 << 20;
/// Longest media type, in bytes (RFC 6838: 127 for each half).
const MAX_MEDIA_TYPE: usize = 255;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The parts of an image manifest or index that the registry has to understand.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    /// Of the artifact manifest of the image specification's 1.1 release candidates, still pushed by old tools.
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    size: Option<u64>,
    /// Where a foreign layer is to be had; such a layer need not be here.
    #[serde(default)]
    urls: Option<Vec<String>>,
}

/// A manifest that passed every check that needs no look at the repository.
struct Checked {
    bytes: Bytes,
    digest: Digest,
    record: ManifestRecord,
    subject: Option<Digest>,
    blobs: Vec<(Digest, Option<u64>)>,
    manifests: Vec<(Digest, Option<u64>)>,
}

impl Shared {
    fn resolve(&self, name: &RepositoryName, reference: &Reference) -> Result<Resolved, Failure> {
        let index = self.index.read();
        index.resolve(name, reference).ok_or_else(|| unknown(&index, name, reference))
    }

    pub(crate) fn head_manifest(&self, name: &RepositoryName, reference: &Reference, request: &HeaderMap) -> Answer {
        let found = self.resolve(name, reference)?;
        if matches_etag(request, &found.digest) {
            return Ok(not_modified(&found.digest));
        }
        let mut response = Response::new(body::empty());
        describe(response.headers_mut(), reference, &found)?;
        Ok(response)
    }

    pub(crate) async fn get_manifest(this: Arc<Shared>, name: RepositoryName, reference: Reference, request: &HeaderMap) -> Answer {
        let found = this.resolve(&name, &reference)?;
        if matches_etag(request, &found.digest) {
            return Ok(not_modified(&found.digest));
        }
        let path = this.disk.content(&found.digest);
        let gone = Failure::new(Code::ManifestUnknown, format!("manifest {} was just deleted", found.digest));
        let bytes = blocking(move || {
            read_bounded(&path, MAX_MANIFEST).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => gone,
                _ => Failure::storage("read manifest", &e),
            })
        })
        .await?;
        let mut response = Response::new(body::full(bytes));
        describe(response.headers_mut(), &reference, &found)?;
        Ok(response)
    }

    pub(crate) async fn put_manifest(
        this: Arc<Shared>,
        name: RepositoryName,
        reference: Reference,
        request: &HeaderMap,
        body: RequestBody,
    ) -> Answer {
        let content_type = content_type(request)?;
        let bytes = collect(body, this.settings.body_idle).await?;
        let pushed_at = (this.settings.clock)().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let checked = check(bytes, &reference, content_type, pushed_at)?;
        let subject = checked.subject.clone();
        let digest = checked.digest.clone();
        let location = format!("/v2/{name}/manifests/{digest}");
        blocking(move || this.commit_manifest(&name, &reference, &checked)).await?;
        let mut response = created(&location, &digest);
        if let Some(subject) = subject {
            let value = HeaderValue::from_str(&subject.to_string()).expect("a digest is visible ASCII");
            response.headers_mut().insert(HeaderName::from_static("oci-subject"), value);
        }
        Ok(response)
    }

    fn commit_manifest(&self, name: &RepositoryName, reference: &Reference, checked: &Checked) -> Result<(), Failure> {
        let digest = &checked.digest;
        let _turn = self.commit.lock();
        let (content_known, manifest_known, tag_known) = {
            let index = self.index.read();
            check_references(&index, name, checked)?;
            let repository = index.repository(name);
            let same = |m: &Manifest| *m.media_type == *checked.record.media_type;
            let tagged = match reference {
                Reference::Tag(tag) => repository.is_some_and(|r| r.tags.get(tag) == Some(digest)),
                Reference::Digest(_) => true,
            };
            let manifest = repository.and_then(|r| r.manifests.get(digest)).is_some_and(same);
            (index.content_size(digest).is_some(), manifest, tagged)
        };
        if !content_known {
            self.disk.write_content(&checked.bytes, digest).map_err(|e| Failure::storage("write manifest", &e))?;
            self.index.write().add_content(digest, checked.bytes.len() as u64);
        }
        if !manifest_known {
            self.disk.write_manifest_record(name, digest, &checked.record).map_err(|e| Failure::storage("write manifest record", &e))?;
            let manifest = Manifest {
                media_type: checked.record.media_type.as_str().into(),
                subject: checked.subject.clone(),
                pushed_at: checked.record.pushed_at,
            };
            self.index.write().add_manifest(name, digest, manifest);
        }
        if let (Reference::Tag(tag), false) = (reference, tag_known) {
            self.disk.write_tag(name, tag, digest).map_err(|e| Failure::storage("write tag", &e))?;
            self.index.write().add_tag(name, tag, digest);
        }
        Ok(())
    }

    /// By tag only the tag goes; by digest the manifest and every tag that points at it ("Deleting manifests").
    pub(crate) async fn delete_manifest(this: Arc<Shared>, name: RepositoryName, reference: Reference) -> Answer {
        blocking(move || {
            let _turn = this.commit.lock();
            let found = this.resolve(&name, &reference)?;
            let tags = match reference {
                Reference::Tag(tag) => return this.drop_tags(&name, vec![tag]),
                Reference::Digest(_) => {
                    let index = this.index.read();
                    let tags = index.repository(&name).into_iter().flat_map(|r| &r.tags);
                    tags.filter(|(_, d)| **d == found.digest).map(|(tag, _)| tag.clone()).collect()
                }
            };
            this.drop_tags(&name, tags)?;
            this.disk.remove_manifest_record(&name, &found.digest).map_err(|e| Failure::storage("remove manifest record", &e))?;
            if this.index.write().remove_manifest(&name, &found.digest) {
                this.disk.remove_content(&found.digest).map_err(|e| Failure::storage("remove manifest", &e))?;
            }
            Ok(())
        })
        .await?;
        Ok(plain(StatusCode::ACCEPTED))
    }

    /// Needs the commit turn.
    fn drop_tags(&self, name: &RepositoryName, tags: Vec<crate::Tag>) -> Result<(), Failure> {
        for tag in tags {
            self.disk.remove_tag(name, &tag).map_err(|e| Failure::storage("remove tag", &e))?;
            self.index.write().remove_tag(name, &tag);
        }
        Ok(())
    }
}

fn unknown(index: &Index, name: &RepositoryName, reference: &Reference) -> Failure {
    if index.repository(name).is_none() {
        return Failure::new(Code::NameUnknown, format!("repository {name} is not known to the registry"));
    }
    let what = match reference {
        Reference::Tag(tag) => tag.to_string(),
        Reference::Digest(digest) => digest.to_string(),
    };
    Failure::new(Code::ManifestUnknown, format!("manifest {what} is not known to repository {name}"))
}

fn describe(headers: &mut HeaderMap, reference: &Reference, found: &Resolved) -> Result<(), Failure> {
    let media_type = HeaderValue::from_str(&found.media_type)
        .map_err(|_| Failure::new(Code::ManifestInvalid, "the stored media type is not a header value"))?;
    headers.insert(CONTENT_TYPE, media_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(found.size));
    if matches!(reference, Reference::Digest(_)) {
        headers.insert(CACHE_CONTROL, IMMUTABLE);
    }
    name_content(headers, &found.digest);
    Ok(())
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::ManifestInvalid, message)
}

/// The media type of the request, without parameters.
fn content_type(request: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = request.get(CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().map_err(|_| invalid("Content-Type is not visible ASCII"))?;
    let media_type = text.split(';').next().unwrap_or("").trim();
    Ok((!media_type.is_empty()).then(|| media_type.to_owned()))
}

async fn collect(mut body: RequestBody, idle: std::time::Duration) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(idle, body.frame())
            .await
            .map_err(|_| invalid("the manifest stopped arriving").with_status(StatusCode::REQUEST_TIMEOUT))?;
        let Some(frame) = frame else { return Ok(bytes.freeze()) };
        let frame = frame.map_err(|e| invalid(format!("the manifest broke off: {e}")))?;
        let Ok(piece) = frame.into_data() else { continue };
        if (bytes.len() + piece.len()) as u64 > MAX_MANIFEST {
            return Err(invalid(format!("a manifest has {MAX_MANIFEST} bytes at most")).with_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        bytes.extend_from_slice(&piece);
    }
}

fn check(bytes: Bytes, reference: &Reference, content_type: Option<String>, pushed_at: u64) -> Result<Checked, Failure> {
    let digest = match reference {
        Reference::Tag(_) => Digest::sha256(&bytes),
        Reference::Digest(wanted) => {
            let digest = Digest::of(wanted.algorithm(), &bytes);
            if digest != *wanted {
                return Err(Failure::new(Code::DigestInvalid, format!("the manifest's digest is {digest}, not {wanted}")));
            }
            digest
        }
    };
    let document: Document = serde_json::from_slice(&bytes).map_err(|e| invalid(format!("not a manifest: {e}")))?;
    if document.schema_version != Some(2) {
        return Err(invalid("schemaVersion must be 2"));
    }
    // A document that could be read as either would let two clients see two images under one digest (CVE-2021-41190).
    let image = document.config.is_some() || document.layers.is_some();
    if image && document.manifests.is_some() {
        return Err(invalid("a manifest has either config and layers, or manifests"));
    }
    let media_type = media_type(&document, content_type)?;
    let blobs = document.config.iter().chain(document.layers.iter().flatten()).chain(document.blobs.iter().flatten());
    let blobs = blobs.filter(|d| !is_foreign(d)).map(parse).collect::<Result<_, _>>()?;
    let manifests = document.manifests.iter().flatten().map(parse).collect::<Result<_, _>>()?;
    let subject = document.subject.as_ref().map(parse).transpose()?.map(|(digest, _)| digest);
    // The specification: a manifest without an artifactType is listed with its config's media type.
    let artifact_type = document.artifact_type.filter(|t| !t.is_empty()).or(document.config.and_then(|c| c.media_type));
    let record = ManifestRecord {
        media_type,
        pushed_at,
        subject: subject.as_ref().map(ToString::to_string),
        artifact_type,
        annotations: subject.is_some().then_some(document.annotations).flatten(),
    };
    Ok(Checked { bytes, digest, record, subject, blobs, manifests })
}

fn media_type(document: &Document, content_type: Option<String>) -> Result<String, Failure> {
    let media_type = match (content_type, &document.media_type) {
        (Some(sent), Some(own)) if sent != *own => {
            return Err(invalid(format!("Content-Type is {sent}, but mediaType in the manifest is {own}")));
        }
        (Some(sent), _) => sent,
        (None, Some(own)) => own.clone(),
        (None, None) if document.manifests.is_some() => OCI_INDEX.to_owned(),
        (None, None) => OCI_MANIFEST.to_owned(),
    };
    if media_type.len() > MAX_MEDIA_TYPE || !media_type.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(invalid("the media type is not a media type"));
    }
    Ok(media_type)
}

fn is_foreign(descriptor: &Descriptor) -> bool {
    descriptor.urls.as_ref().is_some_and(|urls| !urls.is_empty())
}

fn parse(descriptor: &Descriptor) -> Result<(Digest, Option<u64>), Failure> {
    let digest = descriptor.digest.parse().map_err(|e| invalid(format!("descriptor {:?}: {e}", descriptor.digest)))?;
    Ok((digest, descriptor.size))
}

fn check_references(index: &Index, name: &RepositoryName, checked: &Checked) -> Result<(), Failure> {
    let missing =
        |digest: &Digest, what| Failure::new(Code::ManifestBlobUnknown, format!("{what} {digest} is not known to repository {name}"));
    let right_size = |digest: &Digest, is: u64, says: Option<u64>| match says {
        Some(says) if says != is => Err(invalid(format!("{digest} has {is} bytes, but the manifest says {says}"))),
        _ => Ok(()),
    };
    for (digest, says) in &checked.blobs {
        let is = index.blob(name, digest).ok_or_else(|| missing(digest, "blob"))?;
        right_size(digest, is, *says)?;
    }
    for (digest, says) in &checked.manifests {
        let known = index.resolve(name, &Reference::Digest(digest.clone()));
        let is = known.ok_or_else(|| missing(digest, "manifest"))?.size;
        right_size(digest, is, *says)?;
    }
    Ok(())
}
