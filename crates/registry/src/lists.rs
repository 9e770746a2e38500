//! Lists: the catalog of repositories, the tags of one, the referrers of a manifest, and the same for callers in the
//! process (ECR's ListImages and DescribeImages are rendered from them). Pages are in lexical order, as the
//! distribution specification wants ("Listing Tags").

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LINK};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::{ResponseBody, full};
use crate::digest::Digest;
use crate::failure::{Code, Failure};
use crate::name::{Reference, RepositoryName};
use crate::route::Query;
use crate::{Answer, Registry, Shared, blocking};

/// Most names on one page, asked for or not: about 1 MB of answer.
const MAX_PAGE: usize = 10_000;
/// Most referrers in one answer. The specification pages them too, but no client in use has that many.
const MAX_REFERRERS: usize = 1_000;

/// One manifest of a repository, with the tags that point at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What names it for good.
    pub digest: Digest,
    /// Its media type, e.g. `application/vnd.oci.image.manifest.v1+json`.
    pub media_type: String,
    /// Size of the manifest itself, in bytes.
    pub manifest_bytes: u64,
    /// When it was first pushed here, in seconds since the epoch.
    pub pushed_at: u64,
    /// Tags in lexical order; empty for an untagged image.
    pub tags: Vec<String>,
}

impl Registry {
    /// Names of all repositories, in order.
    pub fn repositories(&self) -> Vec<String> {
        self.shared.index.read().names().map(ToString::to_string).collect()
    }

    /// All manifests of a repository in order of digest; nothing if there is no such repository.
    pub fn images(&self, name: &RepositoryName) -> Option<Vec<Image>> {
        let index = self.shared.index.read();
        let repository = index.repository(name)?;
        let mut images: Vec<Image> = repository
            .manifests
            .iter()
            .map(|(digest, manifest)| Image {
                digest: digest.clone(),
                media_type: manifest.media_type.to_string(),
                manifest_bytes: index.content_size(digest).unwrap_or(0),
                pushed_at: manifest.pushed_at,
                tags: Vec::new(),
            })
            .collect();
        for (tag, digest) in &repository.tags {
            if let Ok(at) = images.binary_search_by(|image| image.digest.cmp(digest)) {
                images[at].tags.push(tag.to_string());
            }
        }
        Some(images)
    }

    /// What a tag points to (or the digest itself, if it is there).
    pub fn resolve(&self, name: &RepositoryName, reference: &Reference) -> Option<Digest> {
        self.shared.index.read().resolve(name, reference).map(|found| found.digest)
    }
}

impl Shared {
    pub(crate) fn catalog(&self, query: &Query) -> Answer {
        let page = Page::parse(query)?;
        let index = self.index.read();
        let (names, last) = page.take(index.names_after(page.last));
        let mut response = json(json!({ "repositories": names }).to_string());
        page.link(&mut response, "/v2/_catalog", last);
        Ok(response)
    }

    pub(crate) fn tags(&self, name: &RepositoryName, query: &Query) -> Answer {
        let page = Page::parse(query)?;
        let index = self.index.read();
        let repository = index
            .repository(name)
            .ok_or_else(|| Failure::new(Code::NameUnknown, format!("repository {name} is not known to the registry")))?;
        let (tags, last) = page.take(repository.tags_after(page.last));
        let mut response = json(json!({ "name": name.as_str(), "tags": tags }).to_string());
        page.link(&mut response, &format!("/v2/{name}/tags/list"), last);
        Ok(response)
    }

    /// The manifests whose `subject` is `subject`, as an image index; an empty one where there are none, for a 404
    /// would tell clients that the registry has no such API.
    pub(crate) async fn referrers(this: Arc<Shared>, name: RepositoryName, subject: Digest, artifact_type: Option<String>) -> Answer {
        let filtered = artifact_type.is_some();
        let found: Vec<(Digest, u64)> = {
            let index = this.index.read();
            let manifests = index.repository(&name).into_iter().flat_map(|r| &r.manifests);
            manifests
                .filter(|(_, manifest)| manifest.subject.as_ref() == Some(&subject))
                .take(MAX_REFERRERS)
                .map(|(digest, _)| (digest.clone(), index.content_size(digest).unwrap_or(0)))
                .collect()
        };
        let manifests = blocking(move || {
            let mut manifests = Vec::with_capacity(found.len());
            for (digest, size) in found {
                // Deleted since: then it refers to nothing any more.
                let Ok(record) = this.disk.read_manifest_record(&name, &digest) else { continue };
                if artifact_type.is_some() && artifact_type != record.artifact_type {
                    continue;
                }
                let mut descriptor = json!({ "mediaType": record.media_type, "digest": digest.to_string(), "size": size });
                if let Some(kind) = record.artifact_type {
                    descriptor["artifactType"] = Value::String(kind);
                }
                if let Some(annotations) = record.annotations {
                    descriptor["annotations"] = Value::Object(annotations);
                }
                manifests.push(descriptor);
            }
            Ok(manifests)
        })
        .await?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        let mut response = json(index.to_string());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/vnd.oci.image.index.v1+json"));
        if filtered {
            headers.insert(HeaderName::from_static("oci-filters-applied"), HeaderValue::from_static("artifactType"));
        }
        Ok(response)
    }
}

/// A page as asked for with `n` and `last`.
struct Page<'a> {
    count: usize,
    last: &'a str,
}

impl<'a> Page<'a> {
    fn parse(query: &'a Query) -> Result<Page<'a>, Failure> {
        let count = match query.get("n") {
            None => MAX_PAGE,
            Some(text) => text
                .parse::<usize>()
                .map(|n| n.min(MAX_PAGE))
                .map_err(|_| Failure::new(Code::PaginationNumberInvalid, "n must be a whole number, zero or more"))?,
        };
        Ok(Page { count, last: query.get("last").unwrap_or("") })
    }

    fn take<T: ToString>(&self, all: impl Iterator<Item = T>) -> (Vec<String>, Option<String>) {
        let mut all = all.map(|item| item.to_string());
        let page: Vec<String> = all.by_ref().take(self.count).collect();
        let last = all.next().and_then(|_| page.last().cloned());
        (page, last)
    }

    /// Sets `Link` to the next page, where there is one (a page of none has no next, or a client would turn for ever).
    fn link(&self, response: &mut Response<ResponseBody>, path: &str, last: Option<String>) {
        let Some(last) = last else { return };
        // A name or tag holds no character that a query or a header would need escaped, but `/` is fine in a query.
        let link = format!("<{path}?n={}&last={last}>; rel=\"next\"", self.count);
        let value = HeaderValue::from_str(&link).expect("names and tags are visible ASCII");
        response.headers_mut().insert(LINK, value);
    }
}

/// A 200 answer of JSON.
pub(crate) fn json(text: String) -> Response<ResponseBody> {
    let length = text.len();
    let mut response = Response::new(full(text));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}
