//! The pushing side of the OCI distribution API: asks which blobs are there, sends the others, and the manifest last.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Client, RequestBuilder, Response, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::name::ImageName;
use super::{Blob, Destination, Image, LoadError, Progress};

/// How often progress is told.
pub(super) const TICK: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A push that moves no byte for so long, or whose answer takes so long once all is sent (a registry syncs 100 GB to a
/// slow disk), is given up.
const STALLED: Duration = Duration::from_secs(300);
/// Bytes read from the disk at a time.
const PIECE: u64 = 256 * 1024;
/// Bytes of a refusal that are looked at.
const MAX_REFUSAL: usize = 64 * 1024;

pub(super) struct Push {
    client: Client,
    endpoint: Url,
    username: String,
    password: String,
}

impl Push {
    pub fn new(destination: &Destination<'_>) -> Result<Push, LoadError> {
        let Destination { endpoint, username, password, ca_bundle } = *destination;
        let refuse = |problem: String| LoadError::Endpoint { endpoint: endpoint.to_owned(), problem };
        let mut url: Url = endpoint.parse().map_err(|e| refuse(format!("it is not a URL: {e}")))?;
        let loopback = is_loopback(&url);
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err(refuse("a password goes over plain http to loopback only; use https".into())),
            _ => return Err(refuse("it is neither http nor https".into())),
        }
        url.set_path("/");
        url.set_query(None);
        // Another part of the process may have installed it before; that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
            .tcp_nodelay(true);
        if loopback {
            // A proxy has another loopback.
            builder = builder.no_proxy();
        }
        if let Some(path) = ca_bundle {
            let fail = |problem: String| refuse(format!("the certificates in {} cannot be used: {problem}", path.display()));
            let pem = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| fail(innermost(&e)))?);
        } else if url.scheme() == "http" {
            // Reading the system's certificates takes longer than a small push.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|e| refuse(innermost(&e)))?;
        Ok(Push { client, endpoint: url, username: username.to_owned(), password: password.to_owned() })
    }

    /// Sends what the registry lacks; answers how many bytes that were.
    pub async fn blobs(&self, name: &ImageName, blobs: &[Blob], progress: &mut (dyn FnMut(Progress) + Send)) -> Result<u64, LoadError> {
        let mut sent = 0;
        let count = blobs.len();
        for (index, blob) in blobs.iter().enumerate() {
            let (number, total) = (index + 1, blob.size);
            if self.has(name, blob).await? {
                progress(Progress::Present { blob: number, blobs: count, total });
                continue;
            }
            let mut tell = |bytes| progress(Progress::Pushing { blob: number, blobs: count, bytes, total });
            self.send(name, blob, &mut tell).await?;
            sent += total;
        }
        Ok(sent)
    }

    /// Sends the manifest under the image's tag; answers its digest.
    pub async fn manifest(&self, name: &ImageName, image: &Image) -> Result<String, LoadError> {
        let step = format!("pushing the manifest of {name}");
        let url = self.url(&step, &format!("/v2/{}/manifests/{}", name.name, name.tag))?;
        let request = self.client.put(url).header(CONTENT_TYPE, &image.media_type).body(image.manifest.clone());
        let response = self.answer(&step, request.timeout(STALLED)).await?;
        self.expect(&step, response, StatusCode::CREATED).await?;
        Ok(format!("sha256:{}", hex::encode(Sha256::digest(&image.manifest))))
    }

    async fn has(&self, name: &ImageName, blob: &Blob) -> Result<bool, LoadError> {
        let step = format!("asking for blob {}", blob.digest);
        let url = self.url(&step, &format!("/v2/{}/blobs/{}", name.name, blob.digest))?;
        let response = self.answer(&step, self.client.head(url).timeout(STALLED)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.expect(&step, response, StatusCode::OK).await.map(|_| true),
        }
    }

    async fn send(&self, name: &ImageName, blob: &Blob, tell: &mut (dyn FnMut(u64) + Send)) -> Result<(), LoadError> {
        let step = format!("pushing blob {}", blob.digest);
        let start = self.url(&step, &format!("/v2/{}/blobs/uploads/", name.name))?;
        let response = self.answer(&step, self.client.post(start).header(CONTENT_LENGTH, 0).timeout(STALLED)).await?;
        let response = self.expect(&step, response, StatusCode::ACCEPTED).await?;
        let mut url = self.location(&step, &response)?;
        url.query_pairs_mut().append_pair("digest", &blob.digest);

        let counter = Arc::new(AtomicU64::new(0));
        let request = self.client.put(url).header(CONTENT_LENGTH, blob.size).header(CONTENT_TYPE, "application/octet-stream");
        let request = self.answer(&step, request.body(stream(blob.clone(), counter.clone())));
        tokio::pin!(request);
        let mut tick = tokio::time::interval(TICK);
        let mut moved = (0, Instant::now());
        let response = loop {
            tokio::select! {
                response = &mut request => break response?,
                _ = tick.tick() => {
                    let bytes = counter.load(Ordering::Relaxed);
                    tell(bytes);
                    if bytes != moved.0 {
                        moved = (bytes, Instant::now());
                    } else if moved.1.elapsed() > STALLED {
                        return Err(self.unreachable(&step, format!("nothing moved for {} seconds", STALLED.as_secs())));
                    }
                }
            }
        };
        self.expect(&step, response, StatusCode::CREATED).await?;
        tell(blob.size);
        Ok(())
    }

    fn url(&self, step: &str, path: &str) -> Result<Url, LoadError> {
        self.endpoint.join(path).map_err(|e| self.unreachable(step, e.to_string()))
    }

    /// Where an upload goes on. Never at another host, which would be given the password.
    fn location(&self, step: &str, response: &Response) -> Result<Url, LoadError> {
        let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
        let url = location.and_then(|l| response.url().join(l).ok());
        match url {
            Some(url) if url.origin() == self.endpoint.origin() => Ok(url),
            Some(url) => Err(self.unreachable(step, format!("it sends the upload elsewhere, to {}", url.origin().ascii_serialization()))),
            None => Err(self.unreachable(step, "it does not say where the upload goes (no Location)".into())),
        }
    }

    async fn answer(&self, step: &str, request: RequestBuilder) -> Result<Response, LoadError> {
        let request = request.basic_auth(&self.username, Some(&self.password));
        request.send().await.map_err(|e| self.unreachable(step, innermost(&e)))
    }

    async fn expect(&self, step: &str, mut response: Response, wanted: StatusCode) -> Result<Response, LoadError> {
        let status = response.status();
        if status == wanted {
            return Ok(response);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(LoadError::Unauthorized { endpoint: self.shown() });
        }
        let mut body = Vec::new();
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() > MAX_REFUSAL {
                break;
            }
        }
        Err(LoadError::Refused { step: step.to_owned(), status: status.as_u16(), detail: detail(&body) })
    }

    fn unreachable(&self, step: &str, problem: String) -> LoadError {
        LoadError::Unreachable { step: step.to_owned(), endpoint: self.shown(), problem }
    }

    fn shown(&self) -> String {
        self.endpoint.origin().ascii_serialization()
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The first error of the specification's error body.
fn detail(body: &[u8]) -> String {
    let parse = || {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let error = body.get("errors")?.get(0)?;
        let code = error.get("code")?.as_str()?;
        let message = error.get("message").and_then(|m| m.as_str()).unwrap_or("");
        Some(format!("{code}: {message}"))
    };
    parse().unwrap_or_default()
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// A blob's bytes as a request body, counted as they go.
fn stream(blob: Blob, counter: Arc<AtomicU64>) -> Body {
    let pieces = futures_util::stream::try_unfold((blob, 0u64), move |(blob, at)| {
        let counter = counter.clone();
        async move {
            let count = (blob.size - at).min(PIECE);
            if count == 0 {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; count as usize];
                blob.source.read_exact_at(&mut buffer, at).map(|()| (Bytes::from(buffer), blob))
            });
            let (bytes, blob) = read.await.map_err(std::io::Error::other)??;
            counter.store(at + count, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Some((bytes, (blob, at + count))))
        }
    });
    Body::wrap_stream(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(endpoint: &str) -> Result<Push, LoadError> {
        Push::new(&Destination { endpoint, username: "u", password: "p", ca_bundle: None })
    }

    #[test]
    fn endpoints() {
        for good in ["http://127.0.0.1:4566", "http://localhost:4566/", "http://[::1]:4566", "https://berth.example/x?y"] {
            assert!(push(good).is_ok(), "{good}");
        }
        for (bad, why) in [("http://192.0.2.1:4566", "use https"), ("127.0.0.1:4566", "URL"), ("ftp://localhost", "neither http nor https")]
        {
            let text = push(bad).err().expect(bad).to_string();
            assert!(text.contains(why), "{text}");
        }
    }

    #[test]
    fn a_missing_ca_bundle_is_named() {
        let ca_bundle = Some(std::path::Path::new("/nowhere/ca.pem"));
        let destination = Destination { endpoint: "https://berth.example", username: "u", password: "p", ca_bundle };
        let text = Push::new(&destination).err().expect("a refusal").to_string();
        assert!(text.contains("/nowhere/ca.pem"), "{text}");
    }

    #[test]
    fn refusals_are_read() {
        assert_eq!(detail(br#"{"errors":[{"code":"DENIED","message":"no"}]}"#), "DENIED: no");
        assert_eq!(detail(b"<html>"), "");
    }
}
