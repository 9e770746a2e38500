//! What a request claims about its own signature, from either place that SigV4 allows: the `Authorization` header or the query
//! string of a presigned URL. Nothing here is checked against a key; a claim is only well-formed.

use super::{ALGORITHM, HeaderSource, TERMINATOR, amz_date, canonical::query_parameters, percent};
use crate::AuthError;
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// The longest `Authorization` header that is looked at; AWS's own signers stay below 1 KiB.
const LONGEST_AUTHORIZATION: usize = 8 * 1024;

/// A well-formed claim.
pub(super) struct Claim<'a> {
    pub(super) access_key_id: Cow<'a, str>,
    pub(super) day: Cow<'a, str>,
    pub(super) region: Cow<'a, str>,
    pub(super) service: Cow<'a, str>,
    pub(super) signed_headers: Cow<'a, str>,
    pub(super) signature: Cow<'a, str>,
    /// Unix seconds.
    pub(super) signed_at: i64,
    pub(super) session_token: Option<Cow<'a, [u8]>>,
    pub(super) form: Form,
}

/// Where the signature was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Header,
    /// With `X-Amz-Expires` in seconds, where given.
    Presigned {
        expires: Option<i64>,
    },
}

impl<'a> Claim<'a> {
    pub(super) fn read(headers: &'a dyn HeaderSource, query: &'a str) -> Result<Self, AuthError> {
        let mut authorization = None;
        let mut count = 0;
        headers.for_each("authorization", &mut |value| {
            authorization = Some(value);
            count += 1;
        });
        match authorization {
            Some(_) if count > 1 => Err(incomplete("The request has more than one Authorization header.")),
            Some(value) => Self::from_header(value, headers),
            None if is_presigned(query) => Self::from_query(query),
            None => Err(AuthError::MissingAuthenticationToken),
        }
    }

    fn from_header(value: &'a [u8], headers: &'a dyn HeaderSource) -> Result<Self, AuthError> {
        if value.len() > LONGEST_AUTHORIZATION {
            return Err(incomplete("The Authorization header is too long."));
        }
        let text = std::str::from_utf8(value).map_err(|_| incomplete("The Authorization header is not text."))?.trim();
        let (algorithm, rest) = text.split_once(' ').unwrap_or((text, ""));
        if algorithm != ALGORITHM {
            return Err(incomplete(format!("Unsupported AWS 'algorithm': '{}'.", shortened(algorithm))));
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                incomplete(format!("'{}' not a valid key=value pair (missing equal-sign) in Authorization header.", shortened(part)))
            })?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(incomplete(format!("Authorization header has more than one '{name}' parameter.")));
            }
        }
        let date = date_text(headers)?;
        let (Some(credential), Some(signed_headers), Some(signature), Some(signed_at)) = (credential, signed_headers, signature, date)
        else {
            return Err(missing_in_header(text, credential, signature, signed_headers, date));
        };
        let scope = split_credential(credential)?;
        Ok(Self {
            access_key_id: scope[0].into(),
            day: scope[1].into(),
            region: scope[2].into(),
            service: scope[3].into(),
            signed_headers: signed_headers.into(),
            signature: signature.into(),
            signed_at,
            session_token: headers.first("x-amz-security-token").map(Cow::Borrowed),
            form: Form::Header,
        })
    }

    fn from_query(query: &'a str) -> Result<Self, AuthError> {
        const NAMES: [&str; 7] = [
            "X-Amz-Algorithm",
            "X-Amz-Credential",
            "X-Amz-Signature",
            "X-Amz-SignedHeaders",
            "X-Amz-Date",
            "X-Amz-Expires",
            "X-Amz-Security-Token",
        ];
        let mut found: [Option<String>; NAMES.len()] = Default::default();
        for (name, value) in query_parameters(query) {
            let Some(place) = NAMES.iter().position(|wanted| *wanted == name) else { continue };
            let value = String::from_utf8(percent::decoded(value, true)).map_err(|_| incomplete(format!("'{name}' is not UTF-8.")))?;
            if found[place].replace(value).is_some() {
                return Err(incomplete(format!("AWS query-string parameters must include '{name}' only once.")));
            }
        }
        let missing: Vec<String> = (0..5)
            .filter(|place| found[*place].as_ref().is_none_or(String::is_empty))
            .map(|place| format!("AWS query-string parameters must include '{}'. ", NAMES[place]))
            .collect();
        if !missing.is_empty() {
            return Err(incomplete(format!("{}Re-examine the query-string parameters.", missing.concat())));
        }
        let [algorithm, credential, signature, signed_headers, date, expires, token] = found.map(Option::unwrap_or_default);
        if algorithm != ALGORITHM {
            return Err(incomplete(format!("Unsupported AWS 'algorithm': '{}'.", shortened(&algorithm))));
        }
        let scope = split_credential(&credential)?.map(str::to_owned);
        let [access_key_id, day, region, service] = scope;
        let expires = match expires.as_str() {
            "" => None,
            text => Some(seconds(text).ok_or_else(|| {
                incomplete(format!("X-Amz-Expires must be a number of seconds between 0 and 604800, not '{}'.", shortened(text)))
            })?),
        };
        Ok(Self {
            access_key_id: access_key_id.into(),
            day: day.into(),
            region: region.into(),
            service: service.into(),
            signed_headers: signed_headers.into(),
            signature: signature.into(),
            signed_at: amz_date::parse(&date).ok_or_else(|| bad_date(&date))?,
            session_token: (!token.is_empty()).then(|| Cow::Owned(token.into_bytes())),
            form: Form::Presigned { expires },
        })
    }
}

/// The service that a request says it was signed for, such as `ecs`, before anything is verified: what an edge that serves
/// several services on one port may route by. `None` where the request is not signed or its signature cannot be read.
pub fn claimed_service(headers: &dyn HeaderSource, path_and_query: &str) -> Option<String> {
    let query = path_and_query.split_once('?').map_or("", |(_, query)| query);
    match headers.first("authorization") {
        Some(value) => {
            let text = std::str::from_utf8(value).ok()?;
            let credential = text.split_once("Credential=")?.1.split([',', ' ']).next()?;
            Some(split_credential(credential).ok()?[3].to_owned())
        }
        None => {
            let (_, value) = query_parameters(query).find(|(name, _)| *name == "X-Amz-Credential")?;
            let credential = String::from_utf8(percent::decoded(value, true)).ok()?;
            Some(split_credential(&credential).ok()?[3].to_owned())
        }
    }
}

fn is_presigned(query: &str) -> bool {
    !query.is_empty() && query_parameters(query).any(|(name, _)| matches!(name, "X-Amz-Algorithm" | "X-Amz-Signature" | "X-Amz-Credential"))
}

// X-Amz-Date wins over Date, which AWS accepts in either spelling.
fn date_text(headers: &dyn HeaderSource) -> Result<Option<i64>, AuthError> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim().to_owned();
    if let Some(value) = headers.first("x-amz-date") {
        let parsed = std::str::from_utf8(value).ok().and_then(|text| amz_date::parse(text.trim()));
        return parsed.map(Some).ok_or_else(|| bad_date(&text(value)));
    }
    let Some(value) = headers.first("date").map(text) else { return Ok(None) };
    amz_date::parse(&value).or_else(|| amz_date::parse_http(&value)).map(Some).ok_or_else(|| bad_date(&value))
}

// Split from the right: the access key id is whatever is left over.
fn split_credential(credential: &str) -> Result<[&str; 4], AuthError> {
    let mut parts = credential.rsplitn(5, '/');
    let (Some(end), Some(service), Some(region), Some(day), Some(id)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
            shortened(credential)
        )));
    };
    if end != TERMINATOR {
        let message = format!("Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'.", shortened(end));
        return Err(AuthError::WrongScope { message });
    }
    Ok([id, day, region, service])
}

fn missing_in_header(text: &str, credential: Option<&str>, signature: Option<&str>, headers: Option<&str>, date: Option<i64>) -> AuthError {
    let mut message = String::new();
    for (name, absent) in [("Credential", credential.is_none()), ("Signature", signature.is_none()), ("SignedHeaders", headers.is_none())] {
        if absent {
            message += &format!("Authorization header requires '{name}' parameter. ");
        }
    }
    if date.is_none() {
        message += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ";
    }
    // The header itself would be good for another try within five minutes, so AWS shows its hash, and so do we.
    let hash = STANDARD.encode(Sha256::digest(text.as_bytes()));
    AuthError::IncompleteSignature { message: format!("{message}(Hashed with SHA-256 and encoded with Base64) Authorization={hash}") }
}

fn seconds(text: &str) -> Option<i64> {
    let value: i64 = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()?;
    (value <= super::LONGEST_PRESIGNED).then_some(value)
}

fn bad_date(text: &str) -> AuthError {
    incomplete(format!("Date must be in ISO-8601 'basic format'. Got '{}'. See http://en.wikipedia.org/wiki/ISO_8601", shortened(text)))
}

fn incomplete(message: impl Into<String>) -> AuthError {
    AuthError::IncompleteSignature { message: message.into() }
}

// Whatever comes back in an answer is bounded.
fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}
