//! From a request's method, path and query to one of a closed set of endpoints ("Endpoints" in the OCI distribution
//! specification). Past this point nobody looks at a path again.

use http::Method;

use crate::digest::Digest;
use crate::failure::{Code, Failure};
use crate::name::{Reference, RepositoryName};

/// What a path below `/v2/` names; names and references are valid already.
#[derive(Debug, PartialEq)]
pub(crate) enum Endpoint {
    Base,
    Catalog,
    Tags(RepositoryName),
    Manifest(RepositoryName, Reference),
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, String),
    Referrers(RepositoryName, Digest),
}

pub(crate) fn endpoint(path: &str) -> Result<Endpoint, Failure> {
    let path = percent_decode(path, false).ok_or_else(|| Failure::new(Code::NameInvalid, "the path is not valid percent-encoded UTF-8"))?;
    if path == "/v2" || path == "/v2/" {
        return Ok(Endpoint::Base);
    }
    let unknown = || Failure::new(Code::NameUnknown, "no such endpoint below /v2/").with_status(http::StatusCode::NOT_FOUND);
    let rest = path.strip_prefix("/v2/").ok_or_else(unknown)?;
    let parts: Vec<&str> = rest.split('/').collect();
    let name = |parts: &[&str]| -> Result<RepositoryName, Failure> {
        parts.join("/").parse().map_err(|e| Failure::new(Code::NameInvalid, format!("{e}")))
    };
    let digest = |text: &str| -> Result<Digest, Failure> { text.parse().map_err(|e| Failure::new(Code::DigestInvalid, format!("{e}"))) };
    // Longer endings first: a repository may itself be called `a/blobs` or `tags`.
    match parts.as_slice() {
        ["_catalog"] => Ok(Endpoint::Catalog),
        [head @ .., "blobs", "uploads", ""] | [head @ .., "blobs", "uploads"] if !head.is_empty() => Ok(Endpoint::Uploads(name(head)?)),
        [head @ .., "blobs", "uploads", id] if !head.is_empty() => Ok(Endpoint::Upload(name(head)?, (*id).to_owned())),
        [head @ .., "tags", "list"] if !head.is_empty() => Ok(Endpoint::Tags(name(head)?)),
        [head @ .., "manifests", reference] if !head.is_empty() => {
            let name = name(head)?;
            let reference = reference.parse().map_err(|e: crate::name::ReferenceError| {
                let code = match e {
                    crate::name::ReferenceError::Tag(_) => Code::TagInvalid,
                    crate::name::ReferenceError::Digest(_) => Code::DigestInvalid,
                };
                Failure::new(code, e.to_string())
            })?;
            Ok(Endpoint::Manifest(name, reference))
        }
        [head @ .., "referrers", subject] if !head.is_empty() => Ok(Endpoint::Referrers(name(head)?, digest(subject)?)),
        [head @ .., "blobs", value] if !head.is_empty() => Ok(Endpoint::Blob(name(head)?, digest(value)?)),
        _ => Err(unknown()),
    }
}

/// The answer for a method that the endpoint does not have.
pub(crate) fn unsupported(method: &Method) -> Failure {
    Failure::new(Code::Unsupported, format!("{method} is not supported here"))
}

/// The query of a request, decoded; at most 64 pairs are looked at.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Query {
        let pairs = query.unwrap_or("").split('&').filter(|p| !p.is_empty()).take(64).filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(key, true)?, percent_decode(value, true)?))
        });
        Query(pairs.collect())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

fn percent_decode(text: &str, form: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                (high * 16 + low) as u8
            }
            // Docker and Go clients send digests unescaped, and no value of this API holds a real space; a `+` in a
            // form-encoded query is one all the same.
            b'+' if form => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().expect("valid name")
    }

    #[test]
    fn paths_by_their_endings() {
        let digest = Digest::sha256(b"x");
        assert_eq!(endpoint("/v2/").unwrap(), Endpoint::Base);
        assert_eq!(endpoint("/v2/_catalog").unwrap(), Endpoint::Catalog);
        assert_eq!(endpoint("/v2/a/b/tags/list").unwrap(), Endpoint::Tags(name("a/b")));
        assert_eq!(endpoint("/v2/tags/tags/list").unwrap(), Endpoint::Tags(name("tags")));
        assert_eq!(endpoint("/v2/a/blobs/uploads/").unwrap(), Endpoint::Uploads(name("a")));
        assert_eq!(endpoint("/v2/a/blobs/uploads/7f").unwrap(), Endpoint::Upload(name("a"), "7f".into()));
        let blob = format!("/v2/a/blobs/{digest}");
        assert_eq!(endpoint(&blob).unwrap(), Endpoint::Blob(name("a"), digest.clone()));
        assert_eq!(endpoint(&blob.replace(':', "%3A")).unwrap(), Endpoint::Blob(name("a"), digest.clone()));
        assert_eq!(endpoint(&format!("/v2/blobs/uploads/blobs/{digest}")).unwrap(), Endpoint::Blob(name("blobs/uploads"), digest.clone()));
        assert_eq!(endpoint(&format!("/v2/a/referrers/{digest}")).unwrap(), Endpoint::Referrers(name("a"), digest));
    }

    #[test]
    fn refusals_carry_the_right_code() {
        for (path, code) in [
            ("/v2/A/tags/list", "NAME_INVALID"),
            ("/v2/a/../b/manifests/x", "NAME_INVALID"),
            ("/v2/a/%2e%2e/manifests/x", "NAME_INVALID"),
            ("/v2/a/blobs/sha256:zz", "DIGEST_INVALID"),
            ("/v2/a/manifests/sha256:zz", "DIGEST_INVALID"),
            ("/v2/a/manifests/.x", "TAG_INVALID"),
            ("/v2/a/nonsense", "NAME_UNKNOWN"),
            ("/v2/a%zz/tags/list", "NAME_INVALID"),
        ] {
            let failure = endpoint(path).expect_err(path);
            assert!(failure.to_string().starts_with(code), "{path}: {failure}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(Some("digest=sha256%3Aab&n=3&tag=a&tag=b&flag"));
        assert_eq!(query.get("digest"), Some("sha256:ab"));
        assert_eq!((query.get("n"), query.get("tag")), (Some("3"), Some("a")));
        assert_eq!((query.get("flag"), query.get("none")), (Some(""), None));
    }
}
