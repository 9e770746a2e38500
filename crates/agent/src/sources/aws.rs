//! The sources as AWS serves them, or whoever speaks like AWS: SSM, Secrets Manager, S3, each at an endpoint of its own.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use berth_identity::AccessKey;
use berth_identity::sigv4::sign_headers;
use berth_runtime::port::RegistryLogin;
use parking_lot::Mutex;
use reqwest::Url;
use serde_json::{Value, json};

use super::{ObjectReference, SecretReference, SourceError, Sources, ecr};
use crate::clock::Clock;
use crate::ecs_client::innermost;
use crate::engine::Millis;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a call is made where nobody answers or the service is overloaded.
const TRIES: u32 = 3;
/// The wait before the second try; it doubles.
const DELAY: Duration = Duration::from_millis(200);
/// Parameters have 8 KiB, secrets 64 KiB; an environment file of more than this is a mistake.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Where AWS's services are asked. Without an endpoint a service is not asked at all: this agent's keys are not AWS's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceEndpoints {
    /// `AWS_ENDPOINT_URL`: of whatever has none of its own.
    pub all: Option<String>,
    /// `AWS_ENDPOINT_URL_SSM`.
    pub ssm: Option<String>,
    /// `AWS_ENDPOINT_URL_SECRETS_MANAGER`.
    pub secrets_manager: Option<String>,
    /// `AWS_ENDPOINT_URL_S3`.
    pub s3: Option<String>,
    /// `AWS_ENDPOINT_URL_ECR`.
    pub ecr: Option<String>,
}

/// Sources that are asked over HTTP.
pub struct AwsSources {
    endpoints: ServiceEndpoints,
    key: AccessKey,
    clock: Clock,
    http: OnceLock<Result<reqwest::Client, String>>,
    /// Logins to registries that are still good, by region, account and key, with their ends.
    logins: Mutex<BTreeMap<[String; 3], (RegistryLogin, Millis)>>,
}

struct Request<'a> {
    service: &'static str,
    region: &'a str,
    method: &'static str,
    url: Url,
    target: Option<&'static str>,
    body: Vec<u8>,
}

/// Why one try failed.
enum Miss {
    /// It may come out better another time.
    Passing(String),
    /// It will not.
    Final(String),
}

impl AwsSources {
    /// Sources at these endpoints; `key` signs.
    #[must_use]
    pub fn new(endpoints: ServiceEndpoints, key: AccessKey, clock: Clock) -> Self {
        Self { endpoints, key, clock, http: OnceLock::new(), logins: Mutex::default() }
    }

    /// An object's content, whatever it is for. (`s3:GetObject`)
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn content(&self, region: &str, object: &ObjectReference, key: &AccessKey) -> Result<Vec<u8>, SourceError> {
        let mut url = self.endpoint("s3", self.endpoints.s3.as_ref(), "AWS_ENDPOINT_URL_S3")?;
        let path = object_path(url.path(), object);
        url.set_path(&path);
        let request = Request { service: "s3", region, method: "GET", url, target: None, body: Vec::new() };
        self.send(&request, key).await
    }

    fn endpoint(&self, service: &str, own: Option<&String>, variable: &str) -> Result<Url, SourceError> {
        let Some(text) = own.or(self.endpoints.all.as_ref()) else {
            return Err(SourceError(format!("no endpoint of {service} is configured: set {variable} for the agent")));
        };
        let url = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
        url.ok_or_else(|| SourceError(format!("{variable}: '{text}' is no http or https URL")))
    }

    /// The client is made when it is first needed: most tasks have no secrets.
    fn http(&self) -> Result<&reqwest::Client, SourceError> {
        let make = || {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
            builder.redirect(reqwest::redirect::Policy::none()).build().map_err(|error| error.to_string())
        };
        self.http.get_or_init(make).as_ref().map_err(|error| SourceError(format!("no HTTP client: {error}")))
    }

    async fn json(
        &self,
        url: Url,
        service: &'static str,
        target: &'static str,
        region: &str,
        body: Value,
        key: &AccessKey,
    ) -> Result<Value, SourceError> {
        let request = Request { service, region, method: "POST", url, target: Some(target), body: body.to_string().into_bytes() };
        let answer = self.send(&request, key).await?;
        serde_json::from_slice(&answer).map_err(|_| SourceError(format!("{target}: the answer is no JSON")))
    }

    async fn send(&self, request: &Request<'_>, key: &AccessKey) -> Result<Vec<u8>, SourceError> {
        let mut delay = DELAY;
        let mut tries = 1;
        loop {
            match self.once(request, key).await {
                Ok(answer) => return Ok(answer),
                Err(Miss::Passing(_)) if tries < TRIES => {
                    tokio::time::sleep(delay).await;
                    delay *= 2;
                    tries += 1;
                }
                Err(Miss::Passing(problem)) => {
                    return Err(SourceError(format!("service call has been retried {} time(s): {problem}", tries - 1)));
                }
                Err(Miss::Final(problem)) => return Err(SourceError(problem)),
            }
        }
    }

    async fn once(&self, request: &Request<'_>, key: &AccessKey) -> Result<Vec<u8>, Miss> {
        let http = self.http().map_err(|SourceError(problem)| Miss::Final(problem))?;
        let url = &request.url;
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut headers = vec![("host", host.as_str())];
        let mut call = http.request(request.method.parse().expect("a method"), url.clone());
        if let Some(target) = request.target {
            headers.extend([("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)]);
            call = call.header("content-type", "application/x-amz-json-1.1").header("x-amz-target", target);
        }
        let params = key.signing_params(request.region, request.service, self.clock.now().div_euclid(1000));
        for (name, value) in sign_headers(&params, request.method, url.path(), &headers, &request.body).pairs() {
            call = call.header(name, value);
        }
        let unreachable = |error: reqwest::Error| Miss::Passing(format!("{} at {host}: {}", request.service, innermost(&error)));
        let mut response = call.body(request.body.clone()).send().await.map_err(unreachable)?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            answer.extend_from_slice(&chunk);
            if answer.len() > MOST_BYTES {
                return Err(Miss::Final(format!("{} at {host}: the answer is larger than {MOST_BYTES} bytes", request.service)));
            }
        }
        if status.is_success() {
            return Ok(answer);
        }
        let problem = format!("{} at {host}: {} (HTTP {})", request.service, refusal(&answer), status.as_u16());
        Err(if status.is_server_error() || status.as_u16() == 429 { Miss::Passing(problem) } else { Miss::Final(problem) })
    }
}

/// What a service says of its refusal, of JSON or of S3's XML.
fn refusal(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        let kind = json["__type"].as_str().unwrap_or_default();
        let message = json["message"].as_str().or_else(|| json["Message"].as_str()).unwrap_or_default();
        return format!("{}: {message}", kind.rsplit('#').next().unwrap_or(kind));
    }
    let within = |tag: &str| Some(text.split_once(&format!("<{tag}>"))?.1.split_once(&format!("</{tag}>"))?.0.to_owned());
    match (within("Code"), within("Message")) {
        (Some(code), message) => format!("{code}: {}", message.unwrap_or_default()),
        _ => text.chars().take(200).collect(),
    }
}

/// The path of an object, with what a path must not hold in percent signs.
fn object_path(base: &str, object: &ObjectReference) -> String {
    let mut path = base.trim_end_matches('/').to_owned();
    for byte in format!("/{}/{}", object.bucket, object.key).bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[async_trait]
impl Sources for AwsSources {
    fn own_key(&self) -> AccessKey {
        self.key.clone()
    }

    async fn parameters(&self, region: &str, names: &[String], key: &AccessKey) -> Result<BTreeMap<String, String>, SourceError> {
        let url = self.endpoint("ssm", self.endpoints.ssm.as_ref(), "AWS_ENDPOINT_URL_SSM")?;
        let wanted = json!({"Names": names, "WithDecryption": true});
        let answer = self.json(url, "ssm", "AmazonSSM.GetParameters", region, wanted, key).await?;
        let unknown: Vec<&str> = answer["InvalidParameters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !unknown.is_empty() {
            return Err(SourceError(format!("invalid parameters: {}", unknown.join(","))));
        }
        let pair = |one: &Value| Some((one["Name"].as_str()?.to_owned(), one["Value"].as_str()?.to_owned()));
        Ok(answer["Parameters"].as_array().into_iter().flatten().filter_map(pair).collect())
    }

    async fn secret(&self, region: &str, secret: &SecretReference, key: &AccessKey) -> Result<String, SourceError> {
        let failed = |SourceError(problem)| SourceError(format!("secret {}: {problem}", secret.id));
        let url =
            self.endpoint("secretsmanager", self.endpoints.secrets_manager.as_ref(), "AWS_ENDPOINT_URL_SECRETS_MANAGER").map_err(failed)?;
        let mut wanted = json!({"SecretId": secret.id});
        for (name, value) in [("VersionStage", &secret.version_stage), ("VersionId", &secret.version_id)] {
            if let Some(value) = value {
                wanted[name] = value.as_str().into();
            }
        }
        let answer = self.json(url, "secretsmanager", "secretsmanager.GetSecretValue", region, wanted, key).await.map_err(failed)?;
        let text = answer["SecretString"].as_str().map(str::to_owned);
        text.ok_or_else(|| failed(SourceError("it has no text (SecretString)".to_owned())))
    }

    async fn object(&self, region: &str, object: &ObjectReference, key: &AccessKey) -> Result<Vec<u8>, SourceError> {
        let ObjectReference { bucket, key: name } = object;
        let failed = |SourceError(problem)| {
            SourceError(format!("unable to download env file with key {name} from bucket {bucket}, error: {problem}"))
        };
        self.content(region, object, key).await.map_err(failed)
    }

    fn has_registries(&self) -> bool {
        self.endpoints.ecr.is_some() || self.endpoints.all.is_some()
    }

    async fn registry_login(&self, region: &str, account: &str, key: &AccessKey) -> Result<RegistryLogin, SourceError> {
        let whose = [region, account, &key.id].map(str::to_owned);
        let latest = self.clock.now().saturating_add(ecr::LEAST_LEFT);
        if let Some((login, _)) = self.logins.lock().get(&whose).filter(|(_, expires_at)| *expires_at > latest) {
            return Ok(login.clone());
        }
        let url = self.endpoint("ecr", self.endpoints.ecr.as_ref(), "AWS_ENDPOINT_URL_ECR")?;
        const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
        let answer = self.json(url, "ecr", TARGET, region, json!({"registryIds": [account]}), key).await?;
        let (login, expires_at) = ecr::parse(&answer)?;
        let mut logins = self.logins.lock();
        // Keys of roles change: what has ended is nobody's any more.
        logins.retain(|_, (_, expires_at)| *expires_at > latest);
        logins.insert(whose, (login.clone(), expires_at));
        Ok(login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_both_kinds() {
        assert_eq!(refusal(br#"{"__type":"com.amazonaws.x#ResourceNotFoundException","Message":"no"}"#), "ResourceNotFoundException: no");
        assert_eq!(refusal(b"<?xml?><Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"), "NoSuchKey: gone");
        assert_eq!(refusal(b"oops"), "oops");
    }

    #[test]
    fn paths_of_objects() {
        let object = ObjectReference { bucket: "b".into(), key: "a b/c+d.env".into() };
        assert_eq!(object_path("/", &object), "/b/a%20b/c%2Bd.env");
        assert_eq!(object_path("/minio/", &object), "/minio/b/a%20b/c%2Bd.env");
    }
}
