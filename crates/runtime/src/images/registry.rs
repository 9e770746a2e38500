//! Talks to registries. Berth's own is spoken to directly over one kept-alive client, because asking it whether an image is
//! still the same is on the path of every task's start; all others through `oci-client`, which knows their token dances.

use std::collections::HashMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::reference::{Origin, is_loopback};
use crate::port::{PullError, PullRequest, RegistryCredentials};

/// Media types of manifests, in the order of preference.
pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// OCI distribution: registries should take, and clients expect, manifests of at most 4 MiB.
const MAX_MANIFEST: usize = 4 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a registry may send nothing, unless somebody says otherwise: amazon-ecs-agent's `ECS_IMAGE_PULL_INACTIVITY_TIMEOUT`. Between two
/// reads, not for the whole: layers may be long.
pub const PULL_INACTIVITY: Duration = Duration::from_secs(60);

/// One per registry and user; making one reads the machine's certificates, which takes tens of milliseconds.
const MAX_CLIENTS: usize = 32;

/// Berth's own registry, asked first for names without a registry host.
#[derive(Debug, Clone)]
pub struct BerthRegistry {
    /// `http://host:port`, one for each server: they share their records, but each has a registry of its own.
    pub endpoints: Vec<String>,
    /// For HTTP Basic authentication.
    pub credentials: RegistryCredentials,
    /// The account whose ECR host names mean this registry alone.
    pub account: String,
    /// The region of that account.
    pub region: String,
}

/// All registries.
pub struct Registries {
    own: Option<BerthRegistry>,
    inactivity: Duration,
    direct: reqwest::Client,
    clients: Mutex<HashMap<String, Arc<oci_client::Client>>>,
}

/// A stream of a blob's bytes.
pub type Blob = BoxStream<'static, std::io::Result<Bytes>>;

impl Registries {
    /// Makes the clients; connects to nothing. A registry that sends nothing for as long as `inactivity` counts as gone.
    ///
    /// # Errors
    /// The text of what is wrong with this machine's TLS or the endpoint.
    pub fn new(own: Option<BerthRegistry>, inactivity: Duration) -> Result<Registries, String> {
        static PROVIDER: Once = Once::new();
        // An error means that the program has chosen one already, which is as good.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let direct = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(inactivity)
            .tcp_nodelay(true)
            .build()
            .map_err(|e| format!("make the HTTP client: {e}"))?;
        Ok(Registries { own, inactivity, direct, clients: Mutex::default() })
    }

    /// (account, region) of Berth's own registry.
    pub fn own(&self) -> Option<(&str, &str)> {
        self.own.as_ref().map(|own| (own.account.as_str(), own.region.as_str()))
    }

    /// Where an origin is asked, and as whom: as it stands, or as whoever logs in to ECR says.
    ///
    /// # Errors
    /// [`PullError::Unauthorized`] if there is no login.
    pub async fn enter(&self, origin: &Origin, request: &PullRequest) -> Result<(Origin, Option<RegistryCredentials>), PullError> {
        match (&request.login, &request.credentials) {
            (Some(logins), None) if origin.is_ecr => {
                let login = logins.login().await.map_err(PullError::Unauthorized)?;
                Ok((Origin { host: Some(login.host), ..origin.clone() }, Some(login.credentials)))
            }
            (_, credentials) => Ok((origin.clone(), credentials.clone())),
        }
    }

    /// The repository at its registry.
    pub fn repository<'a>(&'a self, origin: &'a Origin, credentials: Option<&RegistryCredentials>) -> Repository<'a> {
        let remote = match (&origin.host, &self.own) {
            (Some(host), _) => {
                let auth = match credentials {
                    Some(c) => RegistryAuth::Basic(c.username.clone(), c.password.clone()),
                    None => RegistryAuth::Anonymous,
                };
                Remote::Oci { client: self.client(host, credentials), host, auth }
            }
            (None, Some(own)) => Remote::Own { client: &self.direct, own },
            (None, None) => unreachable!("only a configured registry of our own is an origin without a host"),
        };
        Repository { remote, name: &origin.repository }
    }

    fn client(&self, host: &str, credentials: Option<&RegistryCredentials>) -> Arc<oci_client::Client> {
        // oci-client keeps the first credentials it sees for a registry, so other ones need another client.
        let identity = credentials.map(|c| hex::encode(Sha256::digest(format!("{}\0{}", c.username, c.password))));
        let key = format!("{host}\0{}", identity.unwrap_or_default());
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&key) {
            return Arc::clone(client);
        }
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        let client = Arc::new(oci_client::Client::new(ClientConfig {
            protocol: if is_loopback(host) { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(self.inactivity),
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION")),
            no_proxy: Some("localhost,127.0.0.0/8,::1".into()),
            ..ClientConfig::default()
        }));
        clients.insert(key, Arc::clone(&client));
        client
    }
}

/// One repository at one registry.
pub struct Repository<'a> {
    remote: Remote<'a>,
    name: &'a str,
}

enum Remote<'a> {
    Own { client: &'a reqwest::Client, own: &'a BerthRegistry },
    Oci { client: Arc<oci_client::Client>, host: &'a str, auth: RegistryAuth },
}

impl Repository<'_> {
    /// What a tag or digest stands for now; one HEAD request. `None`: the registry does not say.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn digest(&self, version: &str) -> Result<Option<String>, PullError> {
        match &self.remote {
            Remote::Own { .. } => {
                let answer = self.ask(reqwest::Method::HEAD, &format!("manifests/{version}")).await?;
                Ok(answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()).map(str::to_owned))
            }
            Remote::Oci { client, auth, .. } => {
                client.fetch_manifest_digest(&self.reference(version), auth).await.map(Some).map_err(|e| self.translate(e, version))
            }
        }
    }

    /// A manifest's bytes and digest, checked.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn manifest(&self, version: &str) -> Result<(Bytes, String), PullError> {
        let bytes = match &self.remote {
            Remote::Own { .. } => {
                let answer = self.ask(reqwest::Method::GET, &format!("manifests/{version}")).await?;
                gather(Box::pin(answer.bytes_stream().map(|part| part.map_err(std::io::Error::other))), MAX_MANIFEST).await?
            }
            Remote::Oci { client, auth, .. } => {
                let answer = client.pull_manifest_raw(&self.reference(version), auth, &MANIFEST_TYPES).await;
                answer.map_err(|e| self.translate(e, version))?.0
            }
        };
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if version.starts_with("sha256:") && version != digest {
            return Err(PullError::Invalid(format!("manifest {version} has the digest {digest}")));
        }
        Ok((bytes, digest))
    }

    /// A blob as a stream, from its byte `from` on. Nobody has checked its digest yet.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn blob(&self, digest: &str, size: u64, from: u64) -> Result<Blob, PullError> {
        match &self.remote {
            Remote::Own { .. } => {
                let answer = self.ask_from(reqwest::Method::GET, &format!("blobs/{digest}"), from).await?;
                let is_part = answer.status() == reqwest::StatusCode::PARTIAL_CONTENT;
                let stream: Blob = Box::pin(answer.bytes_stream().map(|part| part.map_err(std::io::Error::other)));
                Ok(if is_part { stream } else { skip(stream, from) })
            }
            Remote::Oci { client, auth, .. } => {
                let reference = self.reference(digest);
                client.store_auth_if_needed(reference.resolve_registry(), auth).await;
                let descriptor = OciDescriptor { digest: digest.to_owned(), size: size as i64, ..OciDescriptor::default() };
                if from == 0 {
                    let answer = client.pull_blob_stream(&reference, &descriptor).await.map_err(|e| self.translate(e, digest))?;
                    return Ok(answer.stream);
                }
                let answer = client.pull_blob_stream_partial(&reference, &descriptor, from, None).await;
                Ok(match answer.map_err(|e| self.translate(e, digest))? {
                    BlobResponse::Partial(part) => part.stream,
                    BlobResponse::Full(all) => skip(all.stream, from),
                })
            }
        }
    }

    /// A small blob, checked.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn small_blob(&self, digest: &str, size: u64) -> Result<Bytes, PullError> {
        let bytes = gather(self.blob(digest, size, 0).await?, MAX_MANIFEST).await?;
        let found = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if found != digest {
            return Err(PullError::Invalid(format!("blob {digest} has the digest {found}")));
        }
        Ok(bytes)
    }

    /// Asks Berth's own registry: every server until one has it. What one of them says it does not have is not there, though another
    /// cannot be reached: a server that is down must not keep images of other registries from being found.
    async fn ask(&self, method: reqwest::Method, what: &str) -> Result<reqwest::Response, PullError> {
        self.ask_from(method, what, 0).await
    }

    /// As [`Repository::ask`], for what comes from byte `from` on; a server may answer with all of it.
    async fn ask_from(&self, method: reqwest::Method, what: &str, from: u64) -> Result<reqwest::Response, PullError> {
        let Remote::Own { own, .. } = &self.remote else { unreachable!("only for Berth's own registry") };
        let mut refusal = None;
        for endpoint in &own.endpoints {
            match self.ask_at(endpoint, method.clone(), what, from).await {
                Ok(answer) => return Ok(answer),
                Err(error) if refusal.is_none() || !matches!(error, PullError::Unreachable(_)) => refusal = Some(error),
                Err(_) => {}
            }
        }
        Err(refusal.unwrap_or_else(|| PullError::Unreachable("no server of Berth is known".to_owned())))
    }

    async fn ask_at(&self, endpoint: &str, method: reqwest::Method, what: &str, from: u64) -> Result<reqwest::Response, PullError> {
        let Remote::Own { client, own } = &self.remote else { unreachable!("only for Berth's own registry") };
        let url = format!("{}/v2/{}/{what}", endpoint.trim_end_matches('/'), self.name);
        let mut request = client.request(method, &url);
        if from > 0 {
            request = request.header(reqwest::header::RANGE, format!("bytes={from}-"));
        }
        let answer = request
            .basic_auth(&own.credentials.username, Some(&own.credentials.password))
            .header(reqwest::header::ACCEPT, MANIFEST_TYPES.join(", "))
            .send()
            .await
            .map_err(|e| PullError::Unreachable(format!("{endpoint}: {}", chain(&e))))?;
        match answer.status().as_u16() {
            200..=299 => Ok(answer),
            404 => Err(PullError::NotFound(format!("{}:{what}", self.name))),
            401 | 403 => Err(PullError::Unauthorized(format!("{url}: {}", answer.status()))),
            _ => Err(PullError::Unreachable(format!("{url}: {}", answer.status()))),
        }
    }

    fn reference(&self, version: &str) -> oci_client::Reference {
        let Remote::Oci { host, .. } = &self.remote else { unreachable!("only for other registries") };
        let (host, name) = (host.to_string(), self.name.to_owned());
        if version.starts_with("sha256:") {
            oci_client::Reference::with_digest(host, name, version.to_owned())
        } else {
            oci_client::Reference::with_tag(host, name, version.to_owned())
        }
    }

    fn translate(&self, error: OciDistributionError, version: &str) -> PullError {
        let Remote::Oci { host, .. } = &self.remote else { unreachable!("only for other registries") };
        let what = format!("{host}/{}:{version}", self.name);
        let text = format!("{what}: {}", chain(&error));
        match &error {
            OciDistributionError::ImageManifestNotFoundError(_) => PullError::NotFound(what),
            OciDistributionError::ServerError { code: 404, .. } => PullError::NotFound(what),
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::ServerError { code: 401 | 403, .. } => PullError::Unauthorized(text),
            OciDistributionError::RegistryError { envelope, .. } => {
                let codes: Vec<&OciErrorCode> = envelope.errors.iter().map(|error| &error.code).collect();
                let any = |wanted: &[OciErrorCode]| codes.iter().any(|code| wanted.contains(code));
                use OciErrorCode::{BlobUnknown, Denied, ManifestUnknown, NameUnknown, NotFound, Unauthorized};
                if any(&[ManifestUnknown, NameUnknown, NotFound, BlobUnknown]) {
                    PullError::NotFound(what)
                } else if any(&[Unauthorized, Denied]) {
                    PullError::Unauthorized(text)
                } else {
                    PullError::Unreachable(text)
                }
            }
            OciDistributionError::DigestError(_)
            | OciDistributionError::JsonError(_)
            | OciDistributionError::ManifestParsingError(_)
            | OciDistributionError::ManifestEncodingError(_) => PullError::Invalid(text),
            _ => PullError::Unreachable(text),
        }
    }
}

/// What a server that knows no ranges sends once more is left out.
fn skip(stream: Blob, bytes: u64) -> Blob {
    let rest = stream.scan(bytes, |left, part| {
        let part = part.map(|mut part| {
            let over = usize::try_from(*left).unwrap_or(usize::MAX).min(part.len());
            *left -= over as u64;
            part.split_off(over)
        });
        std::future::ready(Some(part))
    });
    Box::pin(rest)
}

async fn gather(mut stream: Blob, limit: usize) -> Result<Bytes, PullError> {
    let mut all = Vec::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|e| PullError::Unreachable(chain(&e)))?;
        if all.len() + part.len() > limit {
            return Err(PullError::Invalid(format!("a manifest or configuration is longer than {limit} bytes")));
        }
        all.extend_from_slice(&part);
    }
    Ok(all.into())
}

/// An error with its causes: reqwest's own text says only "error sending request".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let layer = next.to_string();
        if !text.contains(&layer) {
            text = format!("{text}: {layer}");
        }
        cause = next.source();
    }
    text
}
