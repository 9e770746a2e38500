//! A client of the AWS JSON API: signs, sends, reads answers and errors. It must never retry or reorder, so that whoever
//! measures or tests with it sees what the server did.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_identity::AccessKey;
use berth_identity::sigv4::sign_headers;
use berth_shapes::ecs;
use reqwest::Url;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::{Connection, DataDirArgument};
use crate::environment::Environment;
use crate::failure::Failure;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A hundred tasks of ten containers each are below a megabyte; more than this is no answer of ECS's.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// How long a file may take altogether, as long as it does not stop coming.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// An error's text is below this.
const MAX_REFUSAL: usize = 64 * 1024;
/// How much of an answer that is no JSON is shown.
const SHOWN: usize = 200;

/// Calls the API's operations. Cheap to clone; connections are kept open and shared.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Url,
    source: String,
    host: String,
    region: String,
    key: AccessKey,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client itself cannot be made; the text names the setting.
    #[error("{0}")]
    Setting(String),
    /// Nobody answers.
    #[error("no answer from {endpoint} (from {source_name}): {problem}")]
    Unreachable {
        /// URL of the API.
        endpoint: String,
        /// Where the URL is from.
        source_name: String,
        /// What happened.
        problem: String,
    },
    /// The service answers with an error.
    #[error("{operation} failed: {message} ({code})")]
    Service {
        /// The operation called.
        operation: String,
        /// The error's name, such as `ClusterNotFoundException`.
        code: String,
        /// The service's text.
        message: String,
        /// The HTTP status.
        status: u16,
    },
    /// What came is no answer to this operation.
    #[error("{operation}: {endpoint} gave an answer that is not ECS's (HTTP {status}): {problem}")]
    BadAnswer {
        /// The operation called.
        operation: String,
        /// URL of the API.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        problem: String,
    },
}

impl ClientError {
    /// The error's name as the service has it.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Service { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The HTTP status, where there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Service { status, .. } | Self::BadAnswer { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What the user can do.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Unreachable { .. } => "is it running? Start it with `berth up`, or set AWS_ENDPOINT_URL with `eval \"$(berth env)\"`",
            Self::BadAnswer { .. } => "something else may listen there: compare with what `berth env` prints",
            Self::Service { code, .. } => match code.as_str() {
                "UnrecognizedClientException"
                | "InvalidSignatureException"
                | "InvalidClientTokenId"
                | "SignatureDoesNotMatch"
                | "MissingAuthenticationTokenException"
                | "IncompleteSignatureException" => {
                    "the access key is not this Berth's: run `eval \"$(berth env)\"`, or unset AWS_ENDPOINT_URL to use the Berth of this machine"
                }
                "ClusterNotFoundException" => "see which there are with `aws ecs list-clusters`",
                "ThrottlingException" => "the server is busy; try again in a moment",
                _ => return None,
            },
            Self::Setting(_) => return None,
        };
        Some(advice.to_owned())
    }
}

impl Client {
    /// A client for a connection. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Setting`] when `AWS_CA_BUNDLE` cannot be used or the system has no certificates at all.
    pub fn new(connection: &Connection) -> Result<Self, ClientError> {
        let http = http_client(connection)?;
        let mut host = connection.endpoint.host_str().unwrap_or_default().to_owned();
        if let Some(port) = connection.endpoint.port() {
            host = format!("{host}:{port}");
        }
        Ok(Self {
            http,
            endpoint: connection.endpoint.clone(),
            source: connection.endpoint_source.clone(),
            host,
            region: connection.region.clone(),
            key: connection.key.clone(),
        })
    }

    /// A client for the server that a command finds.
    pub(crate) fn find(argument: &DataDirArgument, environment: &Environment) -> Result<Self, Failure> {
        Ok(Self::new(&Connection::find(argument, environment)?)?)
    }

    /// Calls an ECS operation, such as `ListTasks`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call<Req, Res>(&self, operation: &str, request: &Req) -> Result<Res, ClientError>
    where
        Req: Serialize + ?Sized,
        Res: DeserializeOwned,
    {
        self.post(operation, "/", request).await
    }

    /// Asks one of Berth's own questions, such as `/why`, of which no AWS service has the like. The path's name is what errors call it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask<Req, Res>(&self, path: &str, request: &Req) -> Result<Res, ClientError>
    where
        Req: Serialize + ?Sized,
        Res: DeserializeOwned,
    {
        self.post(path.trim_start_matches('/'), path, request).await
    }

    async fn post<Req, Res>(&self, operation: &str, path: &str, request: &Req) -> Result<Res, ClientError>
    where
        Req: Serialize + ?Sized,
        Res: DeserializeOwned,
    {
        let body =
            serde_json::to_vec(request).map_err(|error| ClientError::Setting(format!("{operation}: cannot write the request: {error}")))?;
        let target = format!("{}.{operation}", ecs::TARGET_PREFIX);
        let signed = [("host", self.host.as_str()), ("content-type", CONTENT_TYPE), ("x-amz-target", target.as_str())];
        let params = self.key.signing_params(&self.region, ecs::SIGNING_NAME, now_unix());
        let mut url = self.endpoint.clone();
        url.set_path(path);
        let headers = sign_headers(&params, "POST", url.path(), &signed, &body);
        let mut post = self.http.post(url).header("content-type", CONTENT_TYPE).header("x-amz-target", &target);
        for (name, value) in headers.pairs() {
            post = post.header(name, value);
        }
        let mut response = post.body(body).send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let named = response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(short_code);
        let mut answer = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if answer.len() + piece.len() > MAX_ANSWER {
                return Err(self.bad_answer(operation, status, format!("more than {MAX_ANSWER} bytes")));
            }
            answer.extend_from_slice(&piece);
        }
        if status != 200 {
            return Err(self.refused(operation, status, named, &answer));
        }
        serde_json::from_slice(&answer).map_err(|error| self.bad_answer(operation, status, error.to_string()))
    }

    /// Begins a signed `GET` of a file, whose content comes piece by piece and may take however long it takes.
    ///
    /// # Errors
    /// [`ClientError`]; `what` is what the file is called in it.
    pub async fn download(&self, what: &str, path: &str) -> Result<Download, ClientError> {
        let mut url = self.endpoint.clone();
        url.set_path(path);
        let params = self.key.signing_params(&self.region, ecs::SIGNING_NAME, now_unix());
        let headers = sign_headers(&params, "GET", url.path(), &[("host", self.host.as_str())], b"");
        let mut get = self.http.get(url).timeout(DOWNLOAD_TIMEOUT);
        for (name, value) in headers.pairs() {
            get = get.header(name, value);
        }
        let answer = tokio::time::timeout(CALL_TIMEOUT, get.send()).await.map_err(|_| self.silent())?;
        let mut response = answer.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(Download { client: self.clone(), response });
        }
        let named = response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(short_code);
        let mut answer = Vec::new();
        while answer.len() < MAX_REFUSAL
            && let Some(piece) = response.chunk().await.map_err(|error| self.unreachable(&error))?
        {
            answer.extend_from_slice(&piece);
        }
        Err(self.refused(what, status, named, &answer))
    }

    /// Whether the server answers on its health path within `patience`.
    pub async fn is_healthy(&self, patience: Duration) -> bool {
        let mut url = self.endpoint.clone();
        url.set_path("/healthz");
        let answer = self.http.get(url).timeout(patience).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    fn refused(&self, operation: &str, status: u16, named: Option<String>, answer: &[u8]) -> ClientError {
        let body: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
        let text = |names: &[&str]| names.iter().find_map(|name| body.get(name)?.as_str()).map(str::to_owned);
        match named.or_else(|| text(&["__type", "code"]).map(|code| short_code(&code))) {
            Some(code) => {
                let message = text(&["message", "Message"]).unwrap_or_else(|| "no reason given".to_owned());
                ClientError::Service { operation: operation.to_owned(), code, message, status }
            }
            None => {
                let shown: String = String::from_utf8_lossy(answer).chars().take(SHOWN).collect();
                self.bad_answer(operation, status, format!("{:?}", shown.trim()))
            }
        }
    }

    fn bad_answer(&self, operation: &str, status: u16, problem: String) -> ClientError {
        ClientError::BadAnswer { operation: operation.to_owned(), endpoint: self.endpoint.to_string(), status, problem }
    }

    fn silent(&self) -> ClientError {
        self.no_answer("nothing came any more, for a minute".to_owned())
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        self.no_answer(innermost(error))
    }

    fn no_answer(&self, problem: String) -> ClientError {
        ClientError::Unreachable {
            endpoint: self.endpoint.as_str().trim_end_matches('/').to_owned(),
            source_name: self.source.clone(),
            problem,
        }
    }
}

/// A file that is coming.
#[derive(Debug)]
pub struct Download {
    client: Client,
    response: reqwest::Response,
}

impl Download {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if it breaks off, or nothing comes for a minute.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, ClientError> {
        let piece = tokio::time::timeout(CALL_TIMEOUT, self.response.chunk()).await.map_err(|_| self.client.silent())?;
        piece.map_err(|error| self.client.unreachable(&error))
    }
}

fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The error's name without the namespace before and the URL behind it that some protocols add.
fn short_code(text: &str) -> String {
    let text = text.split(':').next().unwrap_or(text);
    text.rsplit('#').next().unwrap_or(text).to_owned()
}

/// The last cause says what happened; those above only that a request failed.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn http_client(connection: &Connection) -> Result<reqwest::Client, ClientError> {
    // Another part of the process may have installed it before; that is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
        .tcp_nodelay(true);
    if is_loopback(&connection.endpoint) {
        // A proxy has another loopback.
        builder = builder.no_proxy();
    }
    if let Some(path) = &connection.ca_bundle {
        let fail = |problem: String| ClientError::Setting(format!("AWS_CA_BUNDLE={} cannot be used: {problem}", path.display()));
        let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| fail(error.to_string()))?;
        builder = builder.tls_certs_only(certificates);
    } else if connection.endpoint.scheme() == "http" {
        // Reading the system's certificates takes longer than the call, and a small machine may have none.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| ClientError::Setting(format!("cannot make an HTTP client: {}", innermost(&error))))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeServer, connection};
    use serde_json::{Value, json};

    #[tokio::test]
    async fn requests_are_signed_and_answers_read() {
        // The fake server checks the signature with the same code as the real one.
        let server = FakeServer::start(|operation, request| {
            assert_eq!(operation, "ListTasks");
            Ok(json!({ "taskArns": [request["cluster"]] }))
        })
        .await;
        let client = Client::new(&connection(&server.url)).unwrap();
        let request = ecs::ListTasksRequest { cluster: Some("blue".into()), ..Default::default() };
        let answer: ecs::ListTasksResponse = client.call("ListTasks", &request).await.unwrap();
        assert_eq!(answer.task_arns, Some(vec!["blue".to_owned()]));
        assert!(client.is_healthy(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn a_wrong_key_is_explained() {
        let server = FakeServer::start(|_, _| Ok(json!({}))).await;
        let mut connection = connection(&server.url);
        connection.key = AccessKey::long_term("AKIANOBODY", "x", "");
        let client = Client::new(&connection).unwrap();
        let error = client.call::<_, Value>("ListTasks", &json!({})).await.unwrap_err();
        assert_eq!((error.code(), error.status()), (Some("UnrecognizedClientException"), Some(400)));
        assert!(error.advice().unwrap().contains("berth env"));
    }

    #[tokio::test]
    async fn errors_of_the_service() {
        let server = FakeServer::start(|_, _| {
            Err((400, json!({"__type": "com.amazonaws.ecs#ClusterNotFoundException", "message": "Cluster not found."})))
        })
        .await;
        let client = Client::new(&connection(&server.url)).unwrap();
        let error = client.call::<_, Value>("ListTasks", &json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), "ListTasks failed: Cluster not found. (ClusterNotFoundException)");
    }

    #[tokio::test]
    async fn answers_of_something_else() {
        let server = FakeServer::start(|_, _| Err((404, json!("nothing here")))).await;
        let client = Client::new(&connection(&server.url)).unwrap();
        let error = client.call::<_, Value>("ListTasks", &json!({})).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("ListTasks: {}/ gave an answer that is not ECS's (HTTP 404): \"\\\"nothing here\\\"\"", server.url)
        );
    }

    #[tokio::test]
    async fn nobody_there() {
        let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", unused.local_addr().unwrap());
        drop(unused);
        let client = Client::new(&connection(&url)).unwrap();
        let error = client.call::<_, Value>("ListTasks", &json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no answer from {url} (from AWS_ENDPOINT_URL): Connection refused (os error 111)"));
        assert!(error.advice().unwrap().contains("berth up"));
    }

    #[test]
    fn codes_lose_their_wrapping() {
        for text in ["ServerException", "ns#ServerException", "ServerException:http://x/y", "ns#ServerException:http://x"] {
            assert_eq!(short_code(text), "ServerException");
        }
    }

    #[test]
    fn loopback_in_all_spellings() {
        for (url, expected) in
            [("http://127.0.0.1:4566", true), ("http://[::1]:1", true), ("http://localhost", true), ("https://berth.example", false)]
        {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
