//! Archives of every kind are loaded into a real registry over loopback HTTP.

mod archives;
mod hostile;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::path::PathBuf;

use berth_registry::{Registry, unauthorized};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::{LoadError, LoadedImage, Progress, load};

/// `AWS:secret`, as `Authorization: Basic` carries it.
const AUTHORIZATION: &str = "Basic QVdTOnNlY3JldA==";

/// A registry that wants a password, and a folder for archives.
struct Harbour {
    endpoint: String,
    folder: tempfile::TempDir,
    registry: Registry,
    server: tokio::task::JoinHandle<()>,
}

impl Harbour {
    async fn open() -> Harbour {
        let folder = tempfile::tempdir().expect("temp folder");
        let registry = Registry::open(folder.path().join("registry")).expect("registry");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let endpoint = format!("http://{}", listener.local_addr().expect("address"));
        let server = tokio::spawn(serve(listener, registry.clone()));
        Harbour { endpoint, folder, registry, server }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).expect("archive");
        path
    }

    async fn load(&self, archive: &[u8], name: Option<&str>) -> Result<LoadedImage, LoadError> {
        let path = self.write("archive.tar", archive);
        load(&path, name, &self.endpoint, "AWS", "secret", &mut |_| {}).await
    }

    async fn refused(&self, archive: &[u8]) -> String {
        let text = self.load(archive, Some("x")).await.expect_err("a refusal").to_string();
        assert_eq!(self.registry.repositories(), Vec::<String>::new(), "nothing was pushed: {text}");
        text
    }

    async fn get(&self, path: &str) -> Vec<u8> {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("client");
        let request = client.get(format!("{}{path}", self.endpoint)).header("authorization", AUTHORIZATION);
        let response = request.send().await.expect("answer");
        assert_eq!(response.status(), 200, "{path}");
        response.bytes().await.expect("body").to_vec()
    }

    /// The manifest, configuration and unpacked layers of an image, as a client would pull them.
    async fn pull(&self, name: &str, reference: &str) -> (Value, Value, Vec<Vec<u8>>) {
        let manifest: Value = serde_json::from_slice(&self.get(&format!("/v2/{name}/manifests/{reference}")).await).expect("manifest");
        let blob = |descriptor: &Value| format!("/v2/{name}/blobs/{}", descriptor["digest"].as_str().expect("digest"));
        let config = serde_json::from_slice(&self.get(&blob(&manifest["config"])).await).expect("config");
        let mut layers = Vec::new();
        for layer in manifest["layers"].as_array().expect("layers") {
            layers.push(gunzip(&self.get(&blob(layer)).await));
        }
        (manifest, config, layers)
    }
}

impl Drop for Harbour {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, registry: Registry) {
    while let Ok((stream, _)) = listener.accept().await {
        let registry = registry.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let registry = registry.clone();
                async move {
                    let known = request.headers().get("authorization").is_some_and(|a| a == AUTHORIZATION);
                    Ok::<_, Infallible>(if known { registry.handle(request).await } else { unauthorized() })
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        builder.append_data(&mut header, name, *bytes).expect("entry");
    }
    builder.into_inner().expect("tar")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("gunzip");
    plain
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn layer(text: &str) -> Vec<u8> {
    tar(&[("etc/motd", text.as_bytes())])
}

/// What `docker save` writes for an image of these (unpacked) layers.
fn docker_save(tags: &[&str], layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| sha256(l)).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } }).to_string();
    let names: Vec<String> = (0..layers.len()).map(|i| format!("{i}/layer.tar")).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": names }]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().copied()));
    tar(&files)
}

/// An OCI layout of one image; answers the archive and the digest of its manifest.
fn oci_archive(annotations: &Value, layers: &[&[u8]]) -> (Vec<u8>, String) {
    let packed: Vec<Vec<u8>> = layers.iter().map(|l| gzip(l)).collect();
    let diff_ids: Vec<String> = layers.iter().map(|l| sha256(l)).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } }).to_string();
    let descriptor = |bytes: &[u8], media_type: &str| json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "config": descriptor(config.as_bytes(), "application/vnd.oci.image.config.v1+json"),
        "layers": packed.iter().map(|p| descriptor(p, "application/vnd.oci.image.layer.v1.tar+gzip")).collect::<Vec<_>>(),
        "annotations": { "kept": "byte for byte" },
    })
    .to_string();
    let mut top = descriptor(manifest.as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    top["annotations"] = annotations.clone();
    let index = json!({ "schemaVersion": 2, "manifests": [top] }).to_string();
    let path = |bytes: &[u8]| sha256(bytes).replace("sha256:", "blobs/sha256/");
    let mut blobs: Vec<(String, &[u8])> =
        vec![(path(config.as_bytes()), config.as_bytes()), (path(manifest.as_bytes()), manifest.as_bytes())];
    blobs.extend(packed.iter().map(|p| (path(p), p.as_slice())));
    let mut files: Vec<(&str, &[u8])> = vec![("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}"), ("index.json", index.as_bytes())];
    files.extend(blobs.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
    (tar(&files), sha256(manifest.as_bytes()))
}
