//! Signed requests: the first line is method, path and query; then headers, a line each, an empty line, and the body. Nobody gets in
//! without the key.
#![no_main]

use berth_identity::{AccessKey, RequestParts, StaticKeys, Verifier, VerifierOptions};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let Ok(first) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let (method, path_and_query) = first.split_once(' ').unwrap_or(("POST", first));
    let mut rest = parts.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) else { continue };
        headers.append(name, value);
    }
    let keys = StaticKeys::new([AccessKey::long_term("AKIAEXAMPLE", "a secret that nobody guesses", "arn:aws:iam::000000000000:root")]);
    let request = RequestParts { method, path_and_query, headers: &headers, body: rest };
    let verified = Verifier::new(VerifierOptions::default()).verify(&request, 1_700_000_000, &keys);
    assert!(verified.is_err(), "somebody got in without the key");
});
