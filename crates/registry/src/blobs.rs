//! Blobs: reading them, whole or in part, and the commit that makes a verified upload visible.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    IF_RANGE, LOCATION, RANGE,
};
use http::{Response, StatusCode};

use crate::body::{self, ResponseBody};
use crate::digest::Digest;
use crate::failure::{Code, Failure};
use crate::name::RepositoryName;
use crate::{Answer, Shared, blocking};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// What is named by its content never changes: a client may keep it for a year without asking.
pub(crate) const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

impl Shared {
    fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> Result<u64, Failure> {
        self.index.read().blob(name, digest).ok_or_else(|| unknown(name, digest))
    }

    pub(crate) fn head_blob(&self, name: &RepositoryName, digest: &Digest, request: &HeaderMap) -> Answer {
        let size = self.blob_size(name, digest)?;
        if matches_etag(request, digest) {
            return Ok(not_modified(digest));
        }
        let mut response = Response::new(body::empty());
        describe(response.headers_mut(), digest, size);
        Ok(response)
    }

    pub(crate) async fn get_blob(this: Arc<Shared>, name: RepositoryName, digest: Digest, request: &HeaderMap) -> Answer {
        let size = this.blob_size(&name, &digest)?;
        if matches_etag(request, &digest) {
            return Ok(not_modified(&digest));
        }
        let part = match wanted(request, &digest, size) {
            Wanted::Whole => None,
            Wanted::Part { start, length } => Some((start, length)),
            Wanted::Nothing => {
                let total = HeaderValue::from_str(&format!("bytes */{size}")).expect("digits");
                return Err(Failure::new(Code::RangeInvalid, "the range lies outside the blob").with_header(CONTENT_RANGE, total));
            }
        };
        let (start, length) = part.unwrap_or((0, size));
        let path = this.disk.content(&digest);
        let missing = unknown(&name, &digest);
        let file = blocking(move || {
            let open = || {
                let mut file = File::open(&path)?;
                file.seek(SeekFrom::Start(start))?;
                Ok(file)
            };
            open().map_err(|e: io::Error| match e.kind() {
                // Deleted between the look at the index and now.
                io::ErrorKind::NotFound => missing,
                _ => Failure::storage("open blob", &e),
            })
        })
        .await?;
        let mut response = Response::new(body::file(file, length));
        describe(response.headers_mut(), &digest, length);
        if part.is_some() {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{size}", start + length - 1);
            response.headers_mut().insert(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits"));
        }
        Ok(response)
    }

    pub(crate) async fn delete_blob(this: Arc<Shared>, name: RepositoryName, digest: Digest) -> Answer {
        blocking(move || {
            let _turn = this.commit.lock();
            this.blob_size(&name, &digest)?;
            this.disk.remove_blob_link(&name, &digest).map_err(|e| Failure::storage("remove blob link", &e))?;
            if this.index.write().remove_blob(&name, &digest) {
                this.disk.remove_content(&digest).map_err(|e| Failure::storage("remove blob", &e))?;
            }
            Ok(())
        })
        .await?;
        Ok(plain(StatusCode::ACCEPTED))
    }

    /// Makes a verified and synced `file` visible as a blob of `name`. Blocks.
    pub(crate) fn commit_blob(&self, name: &RepositoryName, digest: &Digest, file: &Path, size: u64) -> Result<(), Failure> {
        let _turn = self.commit.lock();
        let known = self.index.read().content_size(digest).is_some();
        if !known {
            self.disk.adopt_content(file, digest).map_err(|e| Failure::storage("keep blob", &e))?;
            self.index.write().add_content(digest, size);
        }
        self.link_blob(name, digest)
    }

    /// Lets `name` serve what `from` has, if `from` has it; answers whether it did. Blocks.
    pub(crate) fn mount_blob(&self, name: &RepositoryName, digest: &Digest, from: &RepositoryName) -> Result<bool, Failure> {
        let _turn = self.commit.lock();
        let there = self.index.read().blob(from, digest).is_some();
        if there {
            self.link_blob(name, digest)?;
        }
        Ok(there)
    }

    /// Needs the commit turn.
    fn link_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<(), Failure> {
        let linked = self.index.read().blob(name, digest).is_some();
        if !linked {
            self.disk.write_blob_link(name, digest).map_err(|e| Failure::storage("link blob", &e))?;
            self.index.write().add_blob(name, digest);
        }
        Ok(())
    }
}

fn unknown(name: &RepositoryName, digest: &Digest) -> Failure {
    Failure::new(Code::BlobUnknown, format!("blob {digest} is not known to repository {name}"))
}

fn describe(headers: &mut HeaderMap, digest: &Digest, length: u64) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, IMMUTABLE);
    name_content(headers, digest);
}

pub(crate) fn name_content(headers: &mut HeaderMap, digest: &Digest) {
    headers.insert(CONTENT_DIGEST, digest_value(digest));
    headers.insert(ETAG, HeaderValue::from_str(&etag(digest)).expect("a digest is visible ASCII"));
}

pub(crate) fn digest_value(digest: &Digest) -> HeaderValue {
    HeaderValue::from_str(&digest.to_string()).expect("a digest is visible ASCII")
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

pub(crate) fn matches_etag(request: &HeaderMap, digest: &Digest) -> bool {
    let wanted = etag(digest);
    let values = request.get_all(IF_NONE_MATCH).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == wanted)
}

pub(crate) fn not_modified(digest: &Digest) -> Response<ResponseBody> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    name_content(response.headers_mut(), digest);
    response
}

/// An answer without a body.
pub(crate) fn plain(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}

/// `201 Created` with where the content now is.
pub(crate) fn created(location: &str, digest: &Digest) -> Response<ResponseBody> {
    let mut response = plain(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_str(location).expect("names and digests are visible ASCII"));
    headers.insert(CONTENT_DIGEST, digest_value(digest));
    response
}

#[derive(Debug, PartialEq)]
enum Wanted {
    Whole,
    Part { start: u64, length: u64 },
    Nothing,
}

/// RFC 9110, section 14: one byte range is honoured; several, or a unit or form that we don't know, mean the whole.
fn wanted(request: &HeaderMap, digest: &Digest, size: u64) -> Wanted {
    let Some(range) = request.get(RANGE).and_then(|v| v.to_str().ok()) else { return Wanted::Whole };
    if request.get(IF_RANGE).is_some_and(|v| v.as_bytes() != etag(digest).as_bytes()) {
        return Wanted::Whole;
    }
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            Some(0) => return Wanted::Nothing,
            Some(n) => (size.saturating_sub(n), size),
            None => return Wanted::Whole,
        },
        (first, "") => match number(first) {
            Some(first) => (first, size),
            None => return Wanted::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
            _ => return Wanted::Whole,
        },
    };
    if start >= size { Wanted::Nothing } else { Wanted::Part { start, length: end - start } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(range: &str, size: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(range).unwrap());
        wanted(&headers, &Digest::sha256(b"x"), size)
    }

    #[test]
    fn ranges() {
        assert_eq!(ask("bytes=0-0", 10), Wanted::Part { start: 0, length: 1 });
        assert_eq!(ask("bytes=2-5", 10), Wanted::Part { start: 2, length: 4 });
        assert_eq!(ask("bytes=5-", 10), Wanted::Part { start: 5, length: 5 });
        assert_eq!(ask("bytes=5-99", 10), Wanted::Part { start: 5, length: 5 });
        assert_eq!(ask("bytes=-3", 10), Wanted::Part { start: 7, length: 3 });
        assert_eq!(ask("bytes=-30", 10), Wanted::Part { start: 0, length: 10 });
        assert_eq!(ask("bytes=0-18446744073709551615", 10), Wanted::Part { start: 0, length: 10 });
        for nothing in ["bytes=10-", "bytes=-0", "bytes=99-100"] {
            assert_eq!(ask(nothing, 10), Wanted::Nothing, "{nothing}");
        }
        assert_eq!(ask("bytes=0-", 0), Wanted::Nothing);
        for whole in ["bytes=0-1,4-5", "lines=1-2", "bytes=5-2", "bytes=x-y", "bytes=-", "bytes"] {
            assert_eq!(ask(whole, 10), Wanted::Whole, "{whole}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        let digest = Digest::sha256(b"x");
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        headers.insert(IF_RANGE, HeaderValue::from_static("\"other\""));
        assert_eq!(wanted(&headers, &digest, 10), Wanted::Whole);
        headers.insert(IF_RANGE, HeaderValue::from_str(&etag(&digest)).unwrap());
        assert_eq!(wanted(&headers, &digest, 10), Wanted::Part { start: 0, length: 1 });
    }
}
