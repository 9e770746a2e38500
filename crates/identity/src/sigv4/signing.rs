//! The signing side: headers or a presigned URL for a request that Berth's own commands and agent send.
//! It must never send anything itself.

use super::canonical::{CanonicalRequest, HeaderSource, body_hash};
use super::{ALGORITHM, TERMINATOR, UNSIGNED_PAYLOAD, amz_date, is_s3, percent, signature, signing_mac};
use std::fmt::Write;

/// Headers that proxies and HTTP libraries add or change on the way; a signature over one would break for no gain.
const NEVER_SIGNED: [&str; 6] = ["authorization", "connection", "expect", "transfer-encoding", "user-agent", "x-amzn-trace-id"];

/// Whose key signs, for which region and service, and when.
#[derive(Clone, Copy)]
pub struct SigningParams<'a> {
    /// The access key id.
    pub access_key: &'a str,
    /// The secret access key.
    pub secret: &'a str,
    /// The session token, with temporary credentials.
    pub session_token: Option<&'a str>,
    /// The region to be named in the scope, such as `us-east-1`.
    pub region: &'a str,
    /// The service's signing name, such as `ecs`.
    pub service: &'a str,
    /// The present time in Unix seconds.
    pub now_unix: i64,
}

/// The headers to add to a request, besides those it was signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedHeaders {
    /// `Authorization`.
    pub authorization: String,
    /// `X-Amz-Date`.
    pub x_amz_date: String,
    /// `X-Amz-Security-Token`, with temporary credentials.
    pub x_amz_security_token: Option<String>,
    /// `X-Amz-Content-Sha256`, for S3 alone.
    pub x_amz_content_sha256: Option<String>,
}

impl SignedHeaders {
    /// The headers as (lower-case name, value), in no order that matters.
    pub fn pairs(self) -> impl Iterator<Item = (&'static str, String)> {
        [
            Some(("authorization", self.authorization)),
            Some(("x-amz-date", self.x_amz_date)),
            self.x_amz_security_token.map(|token| ("x-amz-security-token", token)),
            self.x_amz_content_sha256.map(|hash| ("x-amz-content-sha256", hash)),
        ]
        .into_iter()
        .flatten()
    }
}

/// Signs a request in the header form. `uri` is path and query as they will be sent; `headers` must hold `host` and whatever
/// else is to be signed (but none of the headers that come back).
///
/// Source: "Create a signed AWS API request" in the IAM user guide.
pub fn sign_headers(params: &SigningParams<'_>, method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> SignedHeaders {
    let x_amz_date = amz_date::render(params.now_unix);
    let hash = body_hash(body);
    let hash = std::str::from_utf8(&hash).expect("hexadecimal is text");
    let mut all: Vec<(&str, &str)> = headers.to_vec();
    all.push(("x-amz-date", &x_amz_date));
    if let Some(token) = params.session_token {
        all.push(("x-amz-security-token", token));
    }
    if is_s3(params.service) {
        all.push(("x-amz-content-sha256", hash));
    }
    let signed_headers = signed_names(&all);
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let signature = sign(params, method, path, query, &all, &signed_headers, hash);
    SignedHeaders {
        authorization: format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={signed_headers}, Signature={signature}",
            params.access_key,
            scope(params, &x_amz_date)
        ),
        x_amz_date,
        x_amz_security_token: params.session_token.map(str::to_owned),
        x_amz_content_sha256: is_s3(params.service).then(|| hash.to_owned()),
    }
}

/// Presigns a URL: the path and query to send, good for `expires` seconds from `params.now_unix`. The `headers` (`host` at the
/// least) and the `body` must be sent exactly as given here; for S3 the body is not part of the signature.
///
/// Source: "Authenticating Requests: Using Query Parameters" in the S3 API reference.
pub fn presign(params: &SigningParams<'_>, method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8], expires: u32) -> String {
    let date = amz_date::render(params.now_unix);
    let hash = body_hash(body);
    let hash = if is_s3(params.service) { UNSIGNED_PAYLOAD } else { std::str::from_utf8(&hash).expect("hexadecimal is text") };
    let all: Vec<(&str, &str)> = headers.to_vec();
    let signed_headers = signed_names(&all);
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut query = query.to_owned();
    let mut add = |name: &str, value: &str| {
        let separator = if query.is_empty() { "" } else { "&" };
        let value = String::from_utf8(percent::encoded(value.as_bytes())).expect("percent-encoding is ASCII");
        write!(query, "{separator}{name}={value}").expect("a String takes any text");
    };
    add("X-Amz-Algorithm", ALGORITHM);
    add("X-Amz-Credential", &format!("{}/{}", params.access_key, scope(params, &date)));
    add("X-Amz-Date", &date);
    add("X-Amz-Expires", &expires.to_string());
    add("X-Amz-SignedHeaders", &signed_headers);
    if let Some(token) = params.session_token {
        add("X-Amz-Security-Token", token);
    }
    let signature = sign(params, method, path, &query, &all, &signed_headers, hash);
    format!("{path}?{query}&X-Amz-Signature={signature}")
}

fn sign(
    params: &SigningParams<'_>,
    method: &str,
    path: &str,
    query: &str,
    headers: &Vec<(&str, &str)>,
    signed_headers: &str,
    payload_hash: &str,
) -> String {
    let headers: &dyn HeaderSource = headers;
    let canonical =
        CanonicalRequest { method, path, query, headers, signed_headers, payload_hash, s3_path: is_s3(params.service) }.digest();
    // A request of our own making that has no canonical form (over a thousand parameters) has no signature either: it goes out
    // with one that is refused, which is the answer it would get with the right one.
    let canonical = canonical.unwrap_or([0; 32]);
    let date = amz_date::render(params.now_unix);
    let mac = signing_mac(params.secret, &date[..8], params.region, params.service);
    let text = signature(&mac, &date, &date[..8], params.region, params.service, &canonical);
    String::from_utf8(text.to_vec()).expect("hexadecimal is text")
}

fn scope(params: &SigningParams<'_>, date: &str) -> String {
    format!("{}/{}/{}/{TERMINATOR}", &date[..8], params.region, params.service)
}

fn signed_names(headers: &[(&str, &str)]) -> String {
    let mut names: Vec<String> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.retain(|name| !NEVER_SIGNED.contains(&name.as_str()));
    names.sort_unstable();
    names.dedup();
    names.join(";")
}
