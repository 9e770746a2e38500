//! AWS Signature Version 4: the canonical form of a request, the signing of one and the checking of one.
//! It must never read the clock or keep a request; the only state is the bounded cache of derived signing keys.
//!
//! Source: "AWS Signature Version 4 for API requests" in the IAM user guide; where that leaves a choice, what botocore sends.

pub mod amz_date;
mod canonical;
mod claim;
mod key_cache;
mod percent;
mod signing;
mod verifier;

pub use canonical::{CanonicalRequest, HeaderSource, UnsignableRequest};
pub use claim::claimed_service;
pub use signing::{SignedHeaders, SigningParams, presign, sign_headers};
pub use verifier::{Identity, RequestParts, Verifier, VerifierOptions};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The one signing algorithm that is made and accepted here.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The last element of every credential scope.
pub const TERMINATOR: &str = "aws4_request";
/// Stands in for the body's hash where the service (S3 alone, here) lets a body go unsigned.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// The longest life of a presigned URL, in seconds: one week.
pub const LONGEST_PRESIGNED: i64 = 604_800;

/// S3 is the one service whose object keys must survive byte for byte, so it encodes paths once and lets bodies go unsigned.
fn is_s3(service: &str) -> bool {
    matches!(service, "s3" | "s3-object-lambda" | "s3-outposts" | "s3express")
}

/// A MAC keyed with the signing key of one (secret, day, region, service): its key blocks are already digested, which is
/// why it, and not the bare key, is what the cache holds.
fn signing_mac(secret: &str, day: &str, region: &str, service: &str) -> Hmac<Sha256> {
    let mut first = zeroize::Zeroizing::new(Vec::with_capacity(4 + secret.len()));
    first.extend_from_slice(b"AWS4");
    first.extend_from_slice(secret.as_bytes());
    let day_key = hmac(&first, day.as_bytes());
    let region_key = hmac(&day_key, region.as_bytes());
    let service_key = hmac(&region_key, service.as_bytes());
    keyed(&hmac(&service_key, TERMINATOR.as_bytes()))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = keyed(key);
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The signature, as lower-case hexadecimal, of the string to sign that these parts make up.
fn signature(mac: &Hmac<Sha256>, signed_at: &str, day: &str, region: &str, service: &str, canonical: &[u8; 32]) -> [u8; 64] {
    let mut mac = mac.clone();
    for part in [ALGORITHM, "\n", signed_at, "\n", day, "/", region, "/", service, "/", TERMINATOR, "\n"] {
        mac.update(part.as_bytes());
    }
    mac.update(&lower_hex(canonical));
    lower_hex(&mac.finalize().into_bytes().into())
}

fn lower_hex(digest: &[u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    hex::encode_to_slice(digest, &mut text).expect("64 characters hold 32 bytes");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of "Create a signed AWS API request" in the IAM user guide.
    #[test]
    fn signing_key_of_awss_worked_example() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let first = [b"AWS4".as_slice(), secret.as_bytes()].concat();
        let key = ["20150830", "us-east-1", "iam", TERMINATOR].iter().fold(first, |key, part| hmac(&key, part.as_bytes()).to_vec());
        assert_eq!(hex::encode(key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
        let mut canonical = [0; 32];
        hex::decode_to_slice("f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59", &mut canonical).unwrap();
        let mac = signing_mac(secret, "20150830", "us-east-1", "iam");
        assert_eq!(
            std::str::from_utf8(&signature(&mac, "20150830T123600Z", "20150830", "us-east-1", "iam", &canonical)).unwrap(),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }
}
