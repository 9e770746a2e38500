//! A registry behind a real HTTP server on loopback, and small images to push at it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use berth_registry::{Digest, Registry, Settings};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub struct Served {
    pub registry: Registry,
    pub address: SocketAddr,
    pub client: Client,
    pub dir: PathBuf,
    accept: JoinHandle<()>,
    _temp: Option<tempfile::TempDir>,
}

impl Served {
    pub async fn fresh() -> Served {
        Served::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Served {
        let temp = tempfile::tempdir().expect("temp folder");
        let mut served = Served::open(temp.path().join("registry"), settings).await;
        served._temp = Some(temp);
        served
    }

    pub async fn open(dir: PathBuf, settings: Settings) -> Served {
        let registry = Registry::open_with(dir.clone(), settings).expect("open");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let accept = tokio::spawn(accept(listener, registry.clone()));
        Served { registry, address, client: client(), dir, accept, _temp: None }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.expect("answer")
    }

    pub async fn head(&self, path: &str) -> Response {
        self.client.head(self.url(path)).send().await.expect("answer")
    }

    pub async fn delete(&self, path: &str) -> Response {
        self.client.delete(self.url(path)).send().await.expect("answer")
    }

    /// Starts an upload and answers its path.
    pub async fn start(&self, name: &str) -> String {
        let response = self.client.post(self.url(&format!("/v2/{name}/blobs/uploads/"))).send().await.expect("answer");
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        header(&response, "location")
    }

    pub async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let path = self.start(name).await;
        let url = self.url(&format!("{path}?digest={digest}"));
        let response = self.client.put(url).body(bytes.to_vec()).send().await.expect("answer");
        assert_eq!(response.status(), StatusCode::CREATED);
        digest
    }

    pub async fn put_manifest(&self, name: &str, reference: &str, kind: &str, body: &Value) -> Response {
        let url = self.url(&format!("/v2/{name}/manifests/{reference}"));
        let bytes = serde_json::to_vec(body).expect("json");
        self.client.put(url).header("content-type", kind).body(bytes).send().await.expect("answer")
    }

    /// Pushes a config and one layer and answers a manifest of them.
    pub async fn image(&self, name: &str, layer: &[u8]) -> Value {
        let config = b"{\"architecture\":\"amd64\",\"os\":\"linux\"}";
        let config_digest = self.push_blob(name, config).await;
        let layer_digest = self.push_blob(name, layer).await;
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest.to_string(),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": layer_digest.to_string(),
                "size": layer.len(),
            }],
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

pub async fn accept(listener: TcpListener, registry: Registry) {
    while let Ok((stream, _)) = listener.accept().await {
        let registry = registry.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let registry = registry.clone();
                async move { Ok::<_, Infallible>(registry.handle(request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

pub fn client() -> Client {
    // The second test of a process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().expect("client")
}

pub fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().expect("ASCII").to_owned()
}

/// The specification's error code in a refusal, with its status checked.
pub async fn refused(response: Response, status: u16) -> String {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(header(&response, "docker-distribution-api-version"), "registry/2.0");
    let body: Value = serde_json::from_slice(&response.bytes().await.expect("body")).expect("error JSON");
    body["errors"][0]["code"].as_str().expect("code").to_owned()
}

pub async fn json_of(response: Response) -> Value {
    assert_eq!(response.status(), StatusCode::OK);
    serde_json::from_slice(&response.bytes().await.expect("body")).expect("JSON")
}

/// Bytes without a pattern that a buffer mix-up could hide in.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// How many contents lie in the folder.
pub fn contents(dir: &std::path::Path) -> usize {
    let shards = std::fs::read_dir(dir.join("blobs/sha256")).into_iter().flatten().flatten();
    shards.map(|shard| std::fs::read_dir(shard.path()).expect("shard").count()).sum()
}

/// How many entries a folder has.
pub fn count(dir: std::path::PathBuf) -> usize {
    std::fs::read_dir(dir).expect("folder").count()
}
