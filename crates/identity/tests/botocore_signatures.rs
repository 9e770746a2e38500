//! Requests as botocore signed them must be let in, and our own signer must give the very same signatures.

use berth_identity::sigv4::{SigningParams, amz_date, claimed_service, presign, sign_headers};
use berth_identity::{AccessKey, AuthError, RequestParts, Secret, StaticKeys, Verifier, VerifierOptions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    access_key: String,
    secret: String,
    now: String,
    cases: Vec<Case>,
}

#[derive(Clone, Deserialize)]
struct Case {
    name: String,
    form: String,
    method: String,
    uri: String,
    service: String,
    region: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
    body: String,
    #[serde(default)]
    expires: u32,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/botocore.json")).expect("the fixture is JSON of this form")
}

impl Fixture {
    fn now(&self) -> i64 {
        amz_date::parse(&self.now).unwrap()
    }

    fn keys(&self, case: &Case) -> StaticKeys {
        let mut key = AccessKey::long_term(&self.access_key, &self.secret, "arn:aws:iam::000000000000:user/botocore");
        key.session_token = case.token.as_ref().map(Secret::new);
        StaticKeys::new([key])
    }

    fn verify(&self, case: &Case) -> Result<String, AuthError> {
        let parts = RequestParts { method: &case.method, path_and_query: &case.uri, headers: &case.headers, body: case.body.as_bytes() };
        let verifier = Verifier::new(VerifierOptions {
            expected_region: Some(case.region.clone()),
            expected_services: vec!["other".into(), case.service.clone()],
            ..VerifierOptions::default()
        });
        let first = verifier.verify(&parts, self.now(), &self.keys(case)).map(|identity| identity.service().to_owned());
        let second = verifier.verify(&parts, self.now(), &self.keys(case)).map(|identity| identity.service().to_owned());
        assert_eq!(first, second, "{}: the cached signing key must give the same answer", case.name);
        first
    }
}

#[test]
fn every_case_is_let_in() {
    let fixture = fixture();
    assert!(fixture.cases.len() >= 25);
    for case in &fixture.cases {
        assert_eq!(fixture.verify(case).as_deref(), Ok(case.service.as_str()), "{}", case.name);
        assert_eq!(claimed_service(&case.headers, &case.uri).as_deref(), Some(case.service.as_str()), "{}", case.name);
    }
}

#[test]
fn our_signatures_are_the_same() {
    let fixture = fixture();
    let mut compared = 0;
    for case in &fixture.cases {
        let params = SigningParams {
            access_key: &fixture.access_key,
            secret: &fixture.secret,
            session_token: case.token.as_deref(),
            region: &case.region,
            service: &case.service,
            now_unix: fixture.now(),
        };
        // What our signer neither makes nor should: a Date instead of X-Amz-Date, an unsigned body in the header form.
        if matches!(case.name.as_str(), "http date" | "s3 unsigned payload") {
            continue;
        }
        let added = ["authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];
        let given: Vec<(&str, &str)> = case
            .headers
            .iter()
            .filter(|(name, _)| !added.contains(&name.to_ascii_lowercase().as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if case.form == "header" {
            let theirs = case.headers.iter().find(|(name, _)| name == "Authorization").unwrap();
            let ours = sign_headers(&params, &case.method, &case.uri, &given, case.body.as_bytes());
            assert_eq!(ours.authorization, theirs.1, "{}", case.name);
            assert_eq!(ours.x_amz_date, fixture.now, "{}", case.name);
        } else {
            let (uri, _) = case.uri.split_once("&X-Amz-Algorithm").unwrap();
            let ours = presign(&params, &case.method, uri, &given, case.body.as_bytes(), case.expires);
            assert_eq!(ours, case.uri, "{}", case.name);
        }
        compared += 1;
    }
    assert!(compared >= 23);
}

#[test]
fn a_changed_request_is_refused() {
    let fixture = fixture();
    let mismatch = Err(AuthError::SignatureMismatch);
    for original in &fixture.cases {
        let name = &original.name;
        let with = |change: &dyn Fn(&mut Case)| {
            let mut case = original.clone();
            change(&mut case);
            fixture.verify(&case)
        };
        assert_eq!(with(&|case| case.method = "DELETE".into()), mismatch, "{name}: method");
        assert_eq!(with(&|case| case.uri.insert(case.uri.find('?').unwrap_or(case.uri.len()), 'x')), mismatch, "{name}: path");
        assert_eq!(with(&|case| case.uri += if case.uri.contains('?') { "&more=1" } else { "?more=1" }), mismatch, "{name}: query");
        assert_eq!(
            with(&|case| case.headers.iter_mut().filter(|header| header.0 == "Host").for_each(|header| header.1 += "x")),
            mismatch,
            "{name}: host"
        );
        assert_eq!(with(&|case| case.headers.retain(|header| header.0 != "Host")), mismatch, "{name}: no host");
        let changed_body = with(&|case| case.body += "x");
        if name == "s3 unsigned payload" || name == "presigned s3" {
            assert_eq!(changed_body.as_deref(), Ok("s3"), "{name}: an unsigned body may change");
        } else {
            assert_eq!(changed_body, mismatch, "{name}: body");
        }
    }
}
