//! The verifier at its edges: AWS's published example, time, scope, tokens, malformed claims, and the property that any changed
//! bit is refused.

use berth_identity::sigv4::{SigningParams, amz_date, claimed_service, presign, sign_headers};
use berth_identity::{AccessKey, AuthError, Identity, KeySource, RequestParts, Secret, StaticKeys, Verifier, VerifierOptions};
use proptest::prelude::*;

const NOW: i64 = 1_795_233_600; // 20261121T040000Z
const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const USER: &str = "arn:aws:iam::000000000000:user/somebody";

type Headers = Vec<(String, String)>;

fn key() -> AccessKey {
    AccessKey::long_term(ID, SECRET, USER)
}

fn params(key: &AccessKey, now: i64) -> SigningParams<'_> {
    key.signing_params("us-east-1", "ecs", now)
}

fn signed(key: &AccessKey, now: i64, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Headers {
    let signed = sign_headers(&params(key, now), "POST", uri, headers, body);
    let given = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    given.chain(signed.pairs().map(|(name, value)| (name.to_owned(), value))).collect()
}

fn verify(keys: &dyn KeySource, uri: &str, headers: &Headers, body: &[u8]) -> Result<Identity, AuthError> {
    let parts = RequestParts { method: "POST", path_and_query: uri, headers, body };
    Verifier::new(VerifierOptions::default()).verify(&parts, NOW, keys)
}

fn outcome(keys: &dyn KeySource, headers: &Headers) -> Result<(), AuthError> {
    verify(keys, "/", headers, b"{}").map(|_| ())
}

fn at(signed_at: i64) -> Result<(), AuthError> {
    outcome(&StaticKeys::new([key()]), &signed(&key(), signed_at, "/", &[("host", "h")], b"{}"))
}

fn text(result: Result<(), AuthError>) -> (&'static str, String) {
    let error = result.expect_err("must be refused");
    (error.code(), error.to_string())
}

/// "Create a signed AWS API request" in the IAM user guide: the whole request, signature and all.
#[test]
fn awss_worked_example() {
    let headers: Headers = [
        ("Host", "iam.amazonaws.com"),
        ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("X-Amz-Date", "20150830T123600Z"),
        (
            "Authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let parts = RequestParts { method: "GET", path_and_query: "/?Action=ListUsers&Version=2010-05-08", headers: &headers, body: b"" };
    let now = amz_date::parse("20150830T123600Z").unwrap();
    let identity = Verifier::new(VerifierOptions::default()).verify(&parts, now, &StaticKeys::new([key()])).unwrap();
    assert_eq!((identity.principal_arn(), identity.region(), identity.service(), identity.signed_at()), (USER, "us-east-1", "iam", now));
}

#[test]
fn works_with_a_header_map() {
    let mut map = http::HeaderMap::new();
    for (name, value) in signed(&key(), NOW, "/", &[("host", "h"), ("x-amz-target", "T.Op")], b"{}") {
        map.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    let parts = RequestParts { method: "POST", path_and_query: "/", headers: &map, body: b"{}" };
    assert!(Verifier::new(VerifierOptions::default()).verify(&parts, NOW, &StaticKeys::new([key()])).is_ok());
}

#[test]
fn five_minutes_and_not_a_second_more() {
    assert_eq!(at(NOW - 300), Ok(()));
    assert_eq!(at(NOW + 300), Ok(()));
    assert_eq!(
        text(at(NOW - 301)),
        (
            "InvalidSignatureException",
            "Signature expired: 20261121T035459Z is now earlier than 20261121T035500Z (20261121T040000Z - 5 min.)".into()
        )
    );
    assert_eq!(
        text(at(NOW + 301)),
        (
            "InvalidSignatureException",
            "Signature not yet current: 20261121T040501Z is still later than 20261121T040500Z (20261121T040000Z + 5 min.)".into()
        )
    );
}

#[test]
fn presigned_urls_live_as_long_as_they_say() {
    let keys = StaticKeys::new([key()]);
    let check = |expires: u32, signed_at: i64| {
        let uri = presign(&params(&key(), signed_at), "POST", "/x?b=1&a=2", &[("host", "h")], b"{}", expires);
        verify(&keys, &uri, &vec![("host".to_owned(), "h".to_owned())], b"{}").map(|_| ())
    };
    assert_eq!(check(60, NOW - 60), Ok(()));
    assert!(matches!(check(60, NOW - 61), Err(AuthError::SignatureExpired { window: 60, .. })));
    assert_eq!(check(604_800, NOW - 604_800), Ok(()));
    assert!(matches!(check(604_801, NOW), Err(AuthError::IncompleteSignature { .. })));
    assert_eq!(check(60, NOW + 300), Ok(()));
    assert!(matches!(check(60, NOW + 301), Err(AuthError::SignatureNotYetCurrent { .. })));
    assert_eq!(check(0, NOW), Ok(()));
}

#[test]
fn a_changed_presigned_url_is_refused() {
    let keys = StaticKeys::new([key()]);
    let uri = presign(&params(&key(), NOW), "POST", "/x?b=1", &[("host", "h")], b"{}", 60);
    let check = |uri: &str| verify(&keys, uri, &vec![("host".to_owned(), "h".to_owned())], b"{}").map(|_| ());
    assert_eq!(check(&uri), Ok(()));
    assert_eq!(check(&uri.replace("Expires=60", "Expires=61")), Err(AuthError::SignatureMismatch));
    assert_eq!(check(&uri.replace("b=1", "b=2")), Err(AuthError::SignatureMismatch));
    assert!(matches!(check(&format!("{uri}&X-Amz-Expires=9999")), Err(AuthError::IncompleteSignature { .. })));
    assert!(matches!(check(&uri.replace("Expires=60", "Expires=-60")), Err(AuthError::IncompleteSignature { .. })));
    let (_, message) = text(check(&uri.replace("X-Amz-Credential", "X-Amz-Else")));
    assert_eq!(message, "AWS query-string parameters must include 'X-Amz-Credential'. Re-examine the query-string parameters.");
}

#[test]
fn unsigned_and_half_signed() {
    let keys = StaticKeys::new([key()]);
    let bare: Headers = vec![("host".into(), "h".into())];
    assert_eq!(text(outcome(&keys, &bare)), ("MissingAuthenticationTokenException", "Missing Authentication Token".into()));
    let check = |authorization: &str, date: Option<&str>| {
        let mut headers = bare.clone();
        headers.push(("authorization".into(), authorization.into()));
        headers.extend(date.map(|date| ("x-amz-date".to_owned(), date.to_owned())));
        text(outcome(&keys, &headers))
    };
    let now = Some("20261121T040000Z");
    let (code, message) = check("AWS4-HMAC-SHA256 SignedHeaders=host", None);
    assert_eq!(code, "IncompleteSignatureException");
    assert!(
        message.starts_with(
            "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization \
             header requires existence of either a 'X-Amz-Date' or a 'Date' header. (Hashed with SHA-256"
        ),
        "{message}"
    );
    for (authorization, date, wanted) in [
        ("Basic dTpw", now, "Unsupported AWS 'algorithm': 'Basic'."),
        ("AWS4-HMAC-SHA1 Credential=a", now, "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA1'."),
        ("AWS4-HMAC-SHA256 nonsense", now, "'nonsense' not a valid key=value pair"),
        ("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00", now, "Credential must have exactly 5"),
        ("AWS4-HMAC-SHA256 Signature=0, Signature=1", now, "more than one 'Signature'"),
        ("AWS4-HMAC-SHA256 Signature=0", Some("yesterday"), "Date must be in ISO-8601 'basic format'. Got 'yesterday'."),
    ] {
        let (code, message) = check(authorization, date);
        assert_eq!(code, "IncompleteSignatureException", "{authorization}");
        assert!(message.contains(wanted), "{authorization}: {message}");
    }
    let mut twice = signed(&key(), NOW, "/", &[("host", "h")], b"{}");
    let again = twice.iter().find(|header| header.0 == "authorization").unwrap().clone();
    twice.push(again);
    assert_eq!(text(outcome(&keys, &twice)).0, "IncompleteSignatureException");
}

#[test]
fn scope_must_fit() {
    let keys = StaticKeys::new([key()]);
    let headers = signed(&key(), NOW, "/", &[("host", "h")], b"{}");
    let parts = RequestParts { method: "POST", path_and_query: "/", headers: &headers, body: b"{}" };
    let check = |options| text(Verifier::new(options).verify(&parts, NOW, &keys).map(|_| ()));
    assert_eq!(
        check(VerifierOptions { expected_region: Some("eu-west-1".into()), ..VerifierOptions::default() }),
        ("InvalidSignatureException", "Credential should be scoped to a valid region, not 'us-east-1'. ".into())
    );
    assert_eq!(
        check(VerifierOptions { expected_services: vec!["iam".into()], ..VerifierOptions::default() }),
        ("InvalidSignatureException", "Credential should be scoped to correct service: 'iam'. ".into())
    );
    for (from, to, wanted) in [
        ("aws4_request", "aws5_request", "valid terminator: 'aws4_request', not 'aws5_request'"),
        ("/20261121/", "/20261120/", "Date in Credential scope does not match"),
    ] {
        let changed: Headers = headers.iter().map(|(name, value)| (name.clone(), value.replace(from, to))).collect();
        let (code, message) = text(outcome(&keys, &changed));
        assert_eq!(code, "InvalidSignatureException");
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn host_must_be_signed() {
    let headers = signed(&key(), NOW, "/", &[("x-amz-target", "T.Op")], b"{}");
    assert_eq!(outcome(&StaticKeys::new([key()]), &headers), Err(AuthError::HostNotSigned));
}

#[test]
fn session_tokens() {
    let mut session = key();
    session.session_token = Some(Secret::new("the-token"));
    session.expires_at = Some(NOW + 1);
    let keys = StaticKeys::new([session.clone()]);
    let headers = signed(&session, NOW, "/", &[("host", "h")], b"{}");
    assert_eq!(outcome(&keys, &headers), Ok(()));

    let without = signed(&key(), NOW, "/", &[("host", "h")], b"{}");
    let invalid = ("UnrecognizedClientException", "The security token included in the request is invalid.".to_owned());
    assert_eq!(text(outcome(&keys, &without)), invalid);
    let mut other = session.clone();
    other.session_token = Some(Secret::new("other-token"));
    assert_eq!(text(outcome(&keys, &signed(&other, NOW, "/", &[("host", "h")], b"{}"))), invalid);
    // A token that the key does not have is not just ignored.
    assert_eq!(text(outcome(&StaticKeys::new([key()]), &headers)), invalid);

    keys.insert(AccessKey { expires_at: Some(NOW), ..session });
    assert_eq!(text(outcome(&keys, &headers)).0, "ExpiredTokenException");
}

#[test]
fn unknown_keys_and_wrong_secrets() {
    let headers = signed(&key(), NOW, "/", &[("host", "h")], b"{}");
    assert_eq!(outcome(&StaticKeys::default(), &headers), Err(AuthError::UnrecognizedClient));
    let keys = StaticKeys::new([AccessKey::long_term(ID, "another", USER)]);
    assert_eq!(outcome(&keys, &headers), Err(AuthError::SignatureMismatch));
}

#[test]
fn a_replaced_secret_stops_working_at_once() {
    let keys = StaticKeys::new([key()]);
    let verifier = Verifier::new(VerifierOptions::default());
    let headers = signed(&key(), NOW, "/", &[("host", "h")], b"{}");
    let parts = RequestParts { method: "POST", path_and_query: "/", headers: &headers, body: b"{}" };
    assert!(verifier.verify(&parts, NOW, &keys).is_ok());
    keys.insert(AccessKey::long_term(ID, "new", USER));
    assert_eq!(verifier.verify(&parts, NOW, &keys).map(|_| ()), Err(AuthError::SignatureMismatch));
    keys.remove(ID);
    assert_eq!(verifier.verify(&parts, NOW, &keys).map(|_| ()), Err(AuthError::UnrecognizedClient));
}

#[test]
fn a_stated_body_hash_must_be_the_bodys() {
    let keys = StaticKeys::new([key()]);
    let right = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(outcome(&keys, &signed(&key(), NOW, "/", &[("host", "h"), ("x-amz-content-sha256", right)], b"{}")), Ok(()));
    for wrong in [&right.replace('4', "5"), "UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", ""] {
        let headers = signed(&key(), NOW, "/", &[("host", "h"), ("x-amz-content-sha256", wrong)], b"{}");
        assert_eq!(outcome(&keys, &headers), Err(AuthError::SignatureMismatch), "{wrong}");
    }
}

#[test]
fn the_claimed_service_is_only_a_hint() {
    assert_eq!(claimed_service(&Headers::new(), "/"), None);
    assert_eq!(claimed_service(&vec![("authorization", "Basic dTpw")], "/"), None);
    let headers = signed(&key(), NOW, "/", &[("host", "h")], b"{}");
    assert_eq!(claimed_service(&headers, "/").as_deref(), Some("ecs"));
}

#[test]
fn threads_share_a_verifier() {
    let verifier = Verifier::new(VerifierOptions::default());
    let keys = StaticKeys::new([key()]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..200 {
                    let body = number.to_string();
                    let headers = signed(&key(), NOW, "/", &[("host", "h")], body.as_bytes());
                    let parts = RequestParts { method: "POST", path_and_query: "/", headers: &headers, body: body.as_bytes() };
                    verifier.verify(&parts, NOW, &keys).unwrap();
                }
            });
        }
    });
}

prop_compose! {
    fn requests()(
        path in "(/[a-zA-Z0-9:%._~ +-]{1,8}){0,4}",
        query in proptest::option::of("[a-zA-Z0-9=&%+._~-]{0,24}"),
        target in "[!-~]([ -~]{0,20}[!-~])?",
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) -> (String, String, Vec<u8>) {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        (query.map_or(path.clone(), |query| format!("{path}?{query}")), target, body)
    }
}

proptest! {
    #[test]
    fn what_is_signed_is_let_in((uri, target, body) in requests()) {
        let keys = StaticKeys::new([key()]);
        let headers = signed(&key(), NOW, &uri, &[("host", "h"), ("x-amz-target", &target)], &body);
        prop_assert!(verify(&keys, &uri, &headers, &body).is_ok());
        let url = presign(&params(&key(), NOW), "POST", &uri, &[("host", "h"), ("x-amz-target", &target)], &body, 60);
        prop_assert!(verify(&keys, &url, &headers[..2].to_vec(), &body).is_ok());
    }

    #[test]
    fn any_flipped_bit_is_refused((uri, target, body) in requests(), bit in any::<prop::sample::Index>()) {
        let keys = StaticKeys::new([key()]);
        let headers = signed(&key(), NOW, &uri, &[("host", "berth"), ("x-amz-target", &target)], &body);
        let authorization = headers.iter().find(|header| header.0 == "authorization").unwrap().1.clone();
        let signature_at = authorization.find("Signature=").unwrap() + 10;
        // The body, a signed header, the signature and the key id: whatever bit is hit.
        let spans = [body.len(), target.len(), 64, ID.len()];
        let total: usize = spans.iter().sum();
        let place = bit.index(total * 8);
        let (mut at, mask) = (place / 8, 1_u8 << (place % 8));
        let which = spans.iter().position(|span| { let here = at < *span; if !here { at -= span; } here }).unwrap();
        let (mut changed_body, mut changed): (Vec<u8>, Vec<(String, Vec<u8>)>) =
            (body.clone(), headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect());
        match which {
            0 => changed_body[at] ^= mask,
            1 => changed[1].1[at] ^= mask,
            other => {
                let header = changed.iter_mut().find(|header| header.0 == "authorization").unwrap();
                let offset = if other == 2 { signature_at } else { authorization.find(ID).unwrap() };
                header.1[offset + at] ^= mask;
            }
        }
        // Runs of white space count as one space, so a flip from one kind of it to another changes nothing that is signed.
        prop_assume!(!(which == 1 && changed[1].1[at].is_ascii_whitespace()));
        let parts = RequestParts { method: "POST", path_and_query: &uri, headers: &changed, body: &changed_body };
        prop_assert!(Verifier::new(VerifierOptions::default()).verify(&parts, NOW, &keys).is_err());
    }

    #[test]
    fn nothing_makes_it_panic(authorization in "(AWS4-HMAC-SHA256 )?[ -~]{0,80}", uri in "[ -~]{0,80}", date in "[ -~]{0,20}") {
        let headers: Headers = vec![("authorization".into(), authorization), ("x-amz-date".into(), date)];
        prop_assert!(verify(&StaticKeys::new([key()]), &uri, &headers, b"").is_err());
        let query = format!("/?X-Amz-Algorithm=AWS4-HMAC-SHA256&{uri}");
        prop_assert!(verify(&StaticKeys::new([key()]), &query, &Headers::new(), b"").is_err());
    }
}
