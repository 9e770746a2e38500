//! The canonical request: the one spelling of a request that signer and verifier both hash.
//! It is written piece by piece straight into the hash, since verification is on the path of every call.

use super::{lower_hex, percent};
use http::HeaderMap;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// More query parameters than this are refused rather than sorted: no AWS call comes near it.
const MOST_QUERY_PARAMETERS: usize = 1000;

/// Where the values of a request's headers are found. Names are asked for in lower case.
pub trait HeaderSource {
    /// Calls `each` with every value of the header `name`, in the order in which they arrived.
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8]));

    /// The first value of the header `name`, if there is one.
    fn first<'h>(&'h self, name: &str) -> Option<&'h [u8]> {
        let mut found = None;
        self.for_each(name, &mut |value| {
            found.get_or_insert(value);
        });
        found
    }
}

impl HeaderSource for HeaderMap {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        for value in self.get_all(name) {
            each(value.as_bytes());
        }
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> HeaderSource for Vec<(N, V)> {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        for (key, value) in self {
            if key.as_ref().eq_ignore_ascii_case(name) {
                each(value.as_ref());
            }
        }
    }
}

/// A request that has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsignableRequest {
    /// A name in `SignedHeaders` is not among the request's headers.
    #[error("the signed header '{0}' is not in the request")]
    MissingHeader(String),
    /// A name in `SignedHeaders` has an upper-case letter or is empty; the canonical form has none of either.
    #[error("the signed header name '{0}' is not in canonical form")]
    BadHeaderName(String),
    /// The query string has more parameters than any AWS call.
    #[error("more than {MOST_QUERY_PARAMETERS} query parameters")]
    TooManyQueryParameters,
}

/// A request's parts in the form in which they went over the wire, ready to be made canonical.
///
/// Source: "Create a canonical request" in the IAM user guide.
#[derive(Clone, Copy)]
pub struct CanonicalRequest<'a> {
    /// The HTTP method, in upper case.
    pub method: &'a str,
    /// The path as sent, percent-encoding included.
    pub path: &'a str,
    /// The query as sent, without the question mark.
    pub query: &'a str,
    /// The headers, of which only the signed ones are looked at.
    pub headers: &'a dyn HeaderSource,
    /// The signed headers' names: lower case, sorted, joined by semicolons.
    pub signed_headers: &'a str,
    /// The body's SHA-256 in lower-case hexadecimal, or `UNSIGNED-PAYLOAD`.
    pub payload_hash: &'a str,
    /// Whether the path is encoded once and taken literally, as S3 alone does; all else normalises it and encodes it twice.
    pub s3_path: bool,
}

impl CanonicalRequest<'_> {
    /// The canonical request as text, for people who look for the difference between two of them.
    ///
    /// # Errors
    /// When the request has no canonical form.
    pub fn render(&self) -> Result<String, UnsignableRequest> {
        let mut text = Vec::with_capacity(512);
        self.write(&mut |part| text.extend_from_slice(part))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The canonical request's SHA-256, without building its text.
    ///
    /// # Errors
    /// When the request has no canonical form.
    pub fn digest(&self) -> Result<[u8; 32], UnsignableRequest> {
        let mut hash = Sha256::new();
        self.write(&mut |part| hash.update(part))?;
        Ok(hash.finalize().into())
    }

    fn write(&self, put: &mut impl FnMut(&[u8])) -> Result<(), UnsignableRequest> {
        put(self.method.as_bytes());
        put(b"\n");
        self.write_path(put);
        put(b"\n");
        self.write_query(put)?;
        put(b"\n");
        for name in self.signed_headers.split(';') {
            self.write_header(name, put)?;
        }
        put(b"\n");
        put(self.signed_headers.as_bytes());
        put(b"\n");
        put(self.payload_hash.as_bytes());
        Ok(())
    }

    fn write_path(&self, put: &mut impl FnMut(&[u8])) {
        if self.s3_path {
            let path = if self.path.is_empty() { "/" } else { self.path };
            return percent::encode(&percent::decoded(path, false), true, put);
        }
        percent::encode(without_dot_segments(self.path).as_bytes(), true, put);
    }

    fn write_query(&self, put: &mut impl FnMut(&[u8])) -> Result<(), UnsignableRequest> {
        if self.query.is_empty() {
            return Ok(());
        }
        if self.query.bytes().filter(|byte| *byte == b'&').count() >= MOST_QUERY_PARAMETERS {
            return Err(UnsignableRequest::TooManyQueryParameters);
        }
        let mut parameters: Vec<(Vec<u8>, Vec<u8>)> = query_parameters(self.query)
            .filter(|(name, _)| *name != "X-Amz-Signature")
            .map(|(name, value)| (canonical_escape(name), canonical_escape(value)))
            .collect();
        parameters.sort_unstable();
        for (place, (name, value)) in parameters.iter().enumerate() {
            if place > 0 {
                put(b"&");
            }
            put(name);
            put(b"=");
            put(value);
        }
        Ok(())
    }

    fn write_header(&self, name: &str, put: &mut impl FnMut(&[u8])) -> Result<(), UnsignableRequest> {
        if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(UnsignableRequest::BadHeaderName(name.to_owned()));
        }
        put(name.as_bytes());
        put(b":");
        let mut values = 0;
        self.headers.for_each(name, &mut |value| {
            if values > 0 {
                put(b",");
            }
            values += 1;
            write_trimmed(value, put);
        });
        if values == 0 {
            return Err(UnsignableRequest::MissingHeader(name.to_owned()));
        }
        put(b"\n");
        Ok(())
    }
}

/// The names and values of a query string, still percent-encoded, in the order sent.
pub(super) fn query_parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
}

// What a client left bare on the wire (say a colon) is escaped in the canonical form all the same, so decode first.
fn canonical_escape(text: &str) -> Vec<u8> {
    percent::encoded(&percent::decoded(text, true))
}

// White space at the ends goes, and any run of it inside becomes one space.
fn write_trimmed(value: &[u8], put: &mut impl FnMut(&[u8])) {
    let value = value.trim_ascii();
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    if !value.windows(2).any(|pair| blank(&pair[0]) && blank(&pair[1])) && !value.contains(&b'\t') {
        return put(value);
    }
    let words = value.split(blank).filter(|word| !word.is_empty());
    for (place, word) in words.enumerate() {
        if place > 0 {
            put(b" ");
        }
        put(word);
    }
}

// RFC 3986 section 5.2.4, and doubled slashes become one, as AWS's services do before they look at a path.
fn without_dot_segments(path: &str) -> Cow<'_, str> {
    if path.is_empty() {
        return Cow::Borrowed("/");
    }
    if !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{end}", kept.join("/")))
}

/// The SHA-256 of a body in lower-case hexadecimal.
pub(super) fn body_hash(body: &[u8]) -> [u8; 64] {
    lower_hex(&Sha256::digest(body).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str, s3_path: bool) -> String {
        let headers: Vec<(&str, &str)> = vec![("host", "h")];
        let request =
            CanonicalRequest { method: "GET", path, query: "", headers: &headers, signed_headers: "host", payload_hash: "-", s3_path };
        request.render().unwrap().lines().nth(1).unwrap().to_owned()
    }

    fn query(query: &str) -> String {
        let headers: Vec<(&str, &str)> = vec![("host", "h")];
        let request = CanonicalRequest {
            method: "GET",
            path: "/",
            query,
            headers: &headers,
            signed_headers: "host",
            payload_hash: "-",
            s3_path: false,
        };
        request.render().unwrap().lines().nth(2).unwrap().to_owned()
    }

    #[test]
    fn the_whole_form() {
        let headers: Vec<(&str, &str)> =
            vec![("Host", "  a   b "), ("X-Two", "first"), ("x-two", " second\tword  "), ("unsigned", "never seen"), ("x-zero", "")];
        let request = CanonicalRequest {
            method: "POST",
            path: "/a b",
            query: "z=1&a=2",
            headers: &headers,
            signed_headers: "host;x-two;x-zero",
            payload_hash: "HASH",
            s3_path: false,
        };
        assert_eq!(
            request.render().unwrap(),
            "POST\n/a%20b\na=2&z=1\nhost:a b\nx-two:first,second word\nx-zero:\n\nhost;x-two;x-zero\nHASH"
        );
        let missing = CanonicalRequest { signed_headers: "host;x-three", ..request };
        assert_eq!(missing.digest(), Err(UnsignableRequest::MissingHeader("x-three".into())));
        let shouting = CanonicalRequest { signed_headers: "Host", ..request };
        assert_eq!(shouting.digest(), Err(UnsignableRequest::BadHeaderName("Host".into())));
    }

    #[test]
    fn paths() {
        assert_eq!(path("", false), "/");
        assert_eq!(path("/a/./b/../c//d/", false), "/a/c/d/");
        assert_eq!(path("/../..", false), "/");
        assert_eq!(path("/v1/arn%3Aaws%3Aecs", false), "/v1/arn%253Aaws%253Aecs");
        assert_eq!(path("/v1/arn:aws:ecs", false), "/v1/arn%3Aaws%3Aecs");
        assert_eq!(path("/a/./b//c%20d", true), "/a/./b//c%20d");
        assert_eq!(path("/a:b", true), "/a%3Ab");
    }

    #[test]
    fn queries() {
        assert_eq!(query("b=2&a=2&a=1&a-b=0"), "a=1&a=2&a-b=0&b=2");
        assert_eq!(query("flag&x=a+b&y=a%20b&z=%2f"), "flag=&x=a%20b&y=a%20b&z=%2F");
        assert_eq!(query("X-Amz-Signature=0&a=1&&"), "a=1");
        assert_eq!(query("a=%zz"), "a=%25zz");
        let many = "a=1&".repeat(1001);
        let headers: Vec<(&str, &str)> = vec![("host", "h")];
        let request = CanonicalRequest {
            method: "GET",
            path: "/",
            query: &many,
            headers: &headers,
            signed_headers: "host",
            payload_hash: "-",
            s3_path: false,
        };
        assert_eq!(request.digest(), Err(UnsignableRequest::TooManyQueryParameters));
    }
}
