//! The checking side: from a request to who sent it, or to why it is refused. It must never read the clock, and never let the
//! time an answer takes tell how much of a signature was right.

use super::canonical::{CanonicalRequest, HeaderSource, body_hash};
use super::claim::{Claim, Form};
use super::key_cache::{DerivedKey, KeyCache};
use super::{UNSIGNED_PAYLOAD, amz_date, is_s3, signature};
use crate::AuthError;
use crate::RoleSession;
use crate::keys::{AccessKey, KeySource};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// A request as it came over the wire.
#[derive(Clone, Copy)]
pub struct RequestParts<'a> {
    /// The HTTP method, in upper case.
    pub method: &'a str,
    /// Path and query as sent, percent-encoding included.
    pub path_and_query: &'a str,
    /// All headers. With HTTP/2 the caller adds `:authority` as `host`.
    pub headers: &'a dyn HeaderSource,
    /// The whole body.
    pub body: &'a [u8],
}

/// What a [`Verifier`] insists on.
#[derive(Debug, Clone)]
pub struct VerifierOptions {
    /// The one region that a signature may be scoped to; any if `None`.
    pub expected_region: Option<String>,
    /// The services (signing names) that a signature may be scoped to; any if empty.
    pub expected_services: Vec<String>,
    /// By how many seconds a request's clock may differ from ours. AWS allows five minutes.
    pub clock_skew: i64,
    /// How many derived signing keys are remembered, at about 500 bytes each.
    pub cached_keys: usize,
}

impl Default for VerifierOptions {
    fn default() -> Self {
        Self { expected_region: None, expected_services: Vec::new(), clock_skew: 300, cached_keys: 4096 }
    }
}

/// Who sent a request, proved by a signature.
#[derive(Debug, Clone)]
pub struct Identity {
    key: Arc<AccessKey>,
    scope: Arc<(String, String)>,
    signed_at: i64,
}

impl Identity {
    /// The access key that signed.
    pub fn access_key(&self) -> &Arc<AccessKey> {
        &self.key
    }

    /// The ARN of whom the access key belongs to: a user, a role session or the account's root.
    pub fn principal_arn(&self) -> &str {
        &self.key.principal_arn
    }

    /// The role session that signed, if it was one.
    pub fn role_session(&self) -> Option<&RoleSession> {
        self.key.role_session.as_deref()
    }

    /// The region that the signature is scoped to.
    pub fn region(&self) -> &str {
        &self.scope.0
    }

    /// The service that the signature is scoped to, such as `ecs`.
    pub fn service(&self) -> &str {
        &self.scope.1
    }

    /// When the request was signed, in Unix seconds.
    pub fn signed_at(&self) -> i64 {
        self.signed_at
    }
}

/// Checks signatures. One serves a whole process, from any number of threads.
pub struct Verifier {
    options: VerifierOptions,
    cache: KeyCache,
}

impl Verifier {
    /// A verifier with nothing remembered yet.
    pub fn new(options: VerifierOptions) -> Self {
        Self { cache: KeyCache::new(options.cached_keys), options }
    }

    /// Who sent `request`, at `now_unix` (Unix seconds), as far as `keys` knows.
    ///
    /// # Errors
    /// With AWS's own code and sentence when the request is unsigned, signed wrongly, out of time, scoped elsewhere, or signed
    /// with a key that is unknown or has run out.
    pub fn verify(&self, request: &RequestParts<'_>, now_unix: i64, keys: &dyn KeySource) -> Result<Identity, AuthError> {
        let (path, query) = request.path_and_query.split_once('?').unwrap_or((request.path_and_query, ""));
        let claim = Claim::read(request.headers, query)?;
        let signed_at = amz_date::render_bytes(claim.signed_at);
        let signed_at = std::str::from_utf8(&signed_at).expect("digits and two letters");
        self.check_scope(&claim, signed_at)?;
        self.check_time(&claim, now_unix)?;
        let of_session = || keys.session_key(&claim.access_key_id, claim.session_token.as_deref()?);
        let key = keys.access_key(&claim.access_key_id).or_else(of_session).ok_or(AuthError::UnrecognizedClient)?;
        check_session(&key, claim.session_token.as_deref(), now_unix)?;
        if !claim.signed_headers.split(';').any(|name| name == "host") {
            return Err(AuthError::HostNotSigned);
        }
        let hash = body_hash(request.body);
        let hash = std::str::from_utf8(&hash).expect("hexadecimal is text");
        let canonical = CanonicalRequest {
            method: request.method,
            path,
            query,
            headers: request.headers,
            signed_headers: &claim.signed_headers,
            payload_hash: payload_hash(&claim, request.headers, hash)?,
            s3_path: is_s3(&claim.service),
        };
        let canonical = canonical.digest().map_err(|_| AuthError::SignatureMismatch)?;

        let cached = self.cache.get(&key, &claim.day, &claim.region, &claim.service);
        let is_new = cached.is_none();
        let derived = cached.unwrap_or_else(|| Arc::new(DerivedKey::derive(&key, &claim.day, &claim.region, &claim.service)));
        // Compared as text, not as bytes, so that an upper-case spelling of the right signature is a wrong one, as with AWS.
        let expected = signature(&derived.mac, signed_at, &claim.day, &claim.region, &claim.service, &canonical);
        if !bool::from(expected.as_slice().ct_eq(claim.signature.as_bytes())) {
            return Err(AuthError::SignatureMismatch);
        }
        let scope = Arc::clone(&derived.scope);
        if is_new {
            // Only now: else anybody who knows an access key id could fill the cache with scopes of his own invention.
            self.cache.keep(derived);
        }
        Ok(Identity { key, scope, signed_at: claim.signed_at })
    }

    fn check_scope(&self, claim: &Claim<'_>, signed_at: &str) -> Result<(), AuthError> {
        let wrong = |message: String| Err(AuthError::WrongScope { message });
        if claim.day != signed_at[..8] {
            return wrong(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}', from '{signed_at}'.",
                claim.day.chars().take(16).collect::<String>(),
                &signed_at[..8]
            ));
        }
        if let Some(region) = &self.options.expected_region
            && claim.region != region.as_str()
        {
            return wrong(format!("Credential should be scoped to a valid region, not '{}'. ", shortened(&claim.region)));
        }
        let services = &self.options.expected_services;
        if !services.is_empty() && !services.iter().any(|service| claim.service == service.as_str()) {
            return wrong(format!("Credential should be scoped to correct service: '{}'. ", services.join("', '")));
        }
        Ok(())
    }

    fn check_time(&self, claim: &Claim<'_>, now: i64) -> Result<(), AuthError> {
        let skew = self.options.clock_skew;
        let signed_at = claim.signed_at;
        let window = match claim.form {
            Form::Header | Form::Presigned { expires: None } => skew,
            Form::Presigned { expires: Some(expires) } => expires,
        };
        if signed_at > now.saturating_add(skew) {
            return Err(AuthError::SignatureNotYetCurrent { signed_at, now, window: skew });
        }
        if signed_at < now.saturating_sub(window) {
            return Err(AuthError::SignatureExpired { signed_at, now, window });
        }
        Ok(())
    }
}

// A key without a token must come without one, too: a token that nobody looked at would only seem to have been checked.
fn check_session(key: &AccessKey, claimed: Option<&[u8]>, now: i64) -> Result<(), AuthError> {
    match (&key.session_token, claimed) {
        (None, None) => {}
        (Some(token), Some(claimed)) if bool::from(token.expose().as_bytes().ct_eq(claimed)) => {}
        _ => return Err(AuthError::UnrecognizedClient),
    }
    if key.expires_at.is_some_and(|end| end <= now) {
        return Err(AuthError::ExpiredToken);
    }
    Ok(())
}

// The hash that goes into the canonical request: always of the body that came, unless the service is one that lets it go unsigned.
fn payload_hash<'a>(claim: &Claim<'_>, headers: &dyn HeaderSource, computed: &'a str) -> Result<&'a str, AuthError> {
    match headers.first("x-amz-content-sha256") {
        Some(given) if given == UNSIGNED_PAYLOAD.as_bytes() && is_s3(&claim.service) => Ok(UNSIGNED_PAYLOAD),
        Some(given) if given == computed.as_bytes() => Ok(computed),
        Some(_) => Err(AuthError::SignatureMismatch),
        None if is_s3(&claim.service) && claim.form != Form::Header => Ok(UNSIGNED_PAYLOAD),
        None => Ok(computed),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}
