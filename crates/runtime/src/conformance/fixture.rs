//! What the suite needs around a runtime: images built here, a registry on loopback that serves them, network namespaces.
//!
//! Contacts nothing but loopback; everything goes away on drop.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// Where Debian's busybox-static puts it.
pub const BUSYBOX: &str = "/bin/busybox";

/// Applets that the suite runs.
const APPLETS: [&str; 27] = [
    "cat", "chown", "cut", "dd", "echo", "env", "grep", "head", "hostname", "id", "kill", "ls", "mkdir", "mknod", "mount", "pwd",
    "readlink", "rm", "seq", "sh", "sleep", "stat", "touch", "true", "unshare", "wc", "yes",
];

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A layer being written.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Layer {
        Layer { tar: tar::Builder::new(Vec::new()) }
    }
}

impl Layer {
    fn append(mut self, name: &str, kind: tar::EntryType, mode: u32, link: Option<&str>, content: &[u8]) -> Layer {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        // By hand: the crate refuses to write the very names that must be refused when read.
        let bytes = name.as_bytes();
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        if let Some(link) = link {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        self.tar.append(&header, content).expect("writing to memory");
        self
    }

    /// A file.
    pub fn file(self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> Layer {
        self.append(name, tar::EntryType::Regular, mode, None, content.as_ref())
    }

    /// A folder.
    pub fn folder(self, name: &str, mode: u32) -> Layer {
        self.append(name, tar::EntryType::Directory, mode, None, b"")
    }

    /// A symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> Layer {
        self.append(name, tar::EntryType::Symlink, 0o777, Some(target), b"")
    }

    /// A hard link.
    pub fn hard_link(self, name: &str, target: &str) -> Layer {
        self.append(name, tar::EntryType::Link, 0o644, Some(target), b"")
    }

    /// The tar.
    pub fn finish(self) -> Vec<u8> {
        self.tar.into_inner().expect("writing to memory")
    }
}

/// A layer with busybox, users and /tmp; `None` where busybox-static is not installed.
pub fn busybox() -> Option<Layer> {
    let program = std::fs::read(BUSYBOX).ok()?;
    let mut layer = Layer::default()
        .folder("bin", 0o755)
        .folder("etc", 0o755)
        .folder("tmp", 0o1777)
        .file("bin/busybox", 0o755, program)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nweb:x:34:\nlogs:x:4:web\n")
        .file("etc/secret", 0o600, "for root\n")
        .file("etc/plain", 0o644, "no program\n");
    for applet in APPLETS {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    Some(layer)
}

/// Bytes as a layer blob.
pub fn pack(tar: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => tar.to_vec(),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).expect("writing to memory");
            encoder.finish().expect("writing to memory")
        }
        Packing::Zstd => zstd::encode_all(tar, 1).expect("writing to memory"),
    }
}

/// `sha256:<hex>` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A registry that knows what it was given, on a free port of 127.0.0.1.
pub struct TestRegistry {
    address: SocketAddr,
    content: Arc<Mutex<HashMap<String, Stored>>>,
    log: Arc<Mutex<Vec<String>>>,
    faults: Arc<Mutex<Faults>>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Stored {
    bytes: Bytes,
    kind: String,
    digest: String,
}

/// How it fails.
#[derive(Default)]
struct Faults {
    /// After so many bytes of a blob the connection is closed, so often.
    breaks: (usize, u32),
    /// Ranges are not known: everything is sent each time.
    no_ranges: bool,
    /// So many requests are answered with 503.
    busy: u32,
    /// Bytes of blobs that were sent.
    sent: usize,
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl TestRegistry {
    /// Starts one.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub async fn start() -> TestRegistry {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let content: Arc<Mutex<HashMap<String, Stored>>> = Arc::default();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let faults: Arc<Mutex<Faults>> = Arc::default();
        let (served, logged, faulty) = (Arc::clone(&content), Arc::clone(&log), Arc::clone(&faults));
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&served), Arc::clone(&logged), Arc::clone(&faulty)));
            }
        });
        TestRegistry { address, content, log, faults, server }
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Requests so far, as `METHOD path`; forgets them.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }

    /// From now on closes the connection after `bytes` of a blob, `times` times; and knows no ranges, if so said.
    pub fn break_off(&self, bytes: usize, times: u32, no_ranges: bool) {
        *self.faults.lock() = Faults { breaks: (bytes, times), no_ranges, ..Faults::default() };
    }

    /// Answers so many requests with 503.
    pub fn be_busy(&self, requests: u32) {
        self.faults.lock().busy = requests;
    }

    /// Bytes of blobs that were sent since [`TestRegistry::break_off`].
    pub fn sent(&self) -> usize {
        self.faults.lock().sent
    }

    /// Puts bytes at a path below /v2/; for wrong ones too.
    pub fn put(&self, path: &str, kind: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let stored = Stored { digest: digest(&bytes), kind: kind.to_owned(), bytes };
        self.content.lock().insert(format!("/v2/{path}"), stored);
    }

    /// Takes a path away.
    pub fn forget(&self, path: &str) {
        self.content.lock().remove(&format!("/v2/{path}"));
    }

    /// Puts a blob; gives its digest.
    pub fn put_blob(&self, repository: &str, bytes: Vec<u8>) -> String {
        let name = digest(&bytes);
        self.put(&format!("{repository}/blobs/{name}"), "application/octet-stream", bytes);
        name
    }

    /// Puts a manifest under its digest and a tag; gives the digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, manifest: &Value) -> String {
        let bytes = manifest.to_string().into_bytes();
        let kind = manifest["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json").to_owned();
        let name = digest(&bytes);
        self.put(&format!("{repository}/manifests/{name}"), &kind, bytes.clone());
        self.put(&format!("{repository}/manifests/{tag}"), &kind, bytes);
        name
    }

    /// Puts a whole image; `config` is the `config` object of its configuration. Gives the manifest.
    pub fn put_image(&self, repository: &str, tag: &str, layers: &[(Vec<u8>, Packing)], config: Value) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| digest(tar)).collect();
        let blobs: Vec<Value> = layers
            .iter()
            .map(|(tar, packing)| {
                let blob = pack(tar, *packing);
                let size = blob.len();
                let kind = match packing {
                    Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
                    Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
                    Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
                };
                json!({"mediaType": kind, "size": size, "digest": self.put_blob(repository, blob)})
            })
            .collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let configuration = json!({
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let configuration = configuration.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "size": configuration.len(),
                "digest": self.put_blob(repository, configuration),
            },
            "layers": blobs,
        });
        self.put_manifest(repository, tag, &manifest);
        manifest
    }
}

async fn serve(
    stream: tokio::net::TcpStream,
    content: Arc<Mutex<HashMap<String, Stored>>>,
    log: Arc<Mutex<Vec<String>>>,
    faults: Arc<Mutex<Faults>>,
) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            return;
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let mut from = 0;
        loop {
            let mut header = String::new();
            if !matches!(stream.read_line(&mut header).await, Ok(1..)) {
                return;
            }
            if header == "\r\n" {
                break;
            }
            if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
                from = range.split('-').next().and_then(|number| number.trim().parse().ok()).unwrap_or(0);
            }
        }
        log.lock().push(format!("{method} {path}"));
        let found = content.lock().get(&path).cloned();
        let is_busy = {
            let mut faults = faults.lock();
            let is_busy = faults.busy > 0;
            faults.busy = faults.busy.saturating_sub(1);
            is_busy
        };
        let (status, mut stored) = match found {
            _ if is_busy => ("503 Service Unavailable", Stored { bytes: Bytes::new(), kind: "text/plain".into(), digest: String::new() }),
            Some(stored) => ("200 OK", stored),
            None if path == "/v2/" => {
                ("200 OK", Stored { bytes: Bytes::from_static(b"{}"), kind: "application/json".into(), digest: String::new() })
            }
            None => {
                let text = json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "not here", "detail": {}}]}).to_string();
                ("404 Not Found", Stored { bytes: text.into(), kind: "application/json".into(), digest: String::new() })
            }
        };
        let (mut status, mut until) = (status, None);
        if path.contains("/blobs/") && status == "200 OK" {
            let mut faults = faults.lock();
            if from > 0 && from < stored.bytes.len() && !faults.no_ranges {
                (status, stored.bytes) = ("206 Partial Content", stored.bytes.slice(from..));
            }
            if faults.breaks.1 > 0 && faults.breaks.0 < stored.bytes.len() {
                faults.breaks.1 -= 1;
                until = Some(faults.breaks.0);
            }
            faults.sent += until.unwrap_or(stored.bytes.len());
        }
        let digest = if stored.digest.is_empty() || path.contains("/blobs/") {
            String::new()
        } else {
            format!("Docker-Content-Digest: {}\r\n", stored.digest)
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{digest}\r\n", stored.kind, stored.bytes.len());
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        if let (Some(until), "GET") = (until, method.as_str()) {
            let _ = stream.write_all(&stored.bytes[..until]).await;
            let _ = stream.shutdown().await;
            return;
        }
        if method == "GET" && stream.write_all(&stored.bytes).await.is_err() {
            return;
        }
        let _ = stream.flush().await;
    }
}

/// A network namespace with nothing but a lo that is down, kept by a bind mount.
pub struct TestNamespace {
    path: PathBuf,
}

impl TestNamespace {
    /// Makes one at a path in `folder`. `None` without the right to.
    pub fn make(folder: &Path) -> Option<TestNamespace> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = folder.join(format!("netns-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&path, "").ok()?;
        let target = std::ffi::CString::new(path.to_str()?).ok()?;
        // In a thread that ends: the namespace of the process itself must not change.
        let made = std::thread::spawn(move || {
            // SAFETY: unshare has no memory arguments; the strings outlive the call.
            unsafe {
                libc::unshare(libc::CLONE_NEWNET) == 0
                    && libc::mount(c"/proc/thread-self/ns/net".as_ptr(), target.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null())
                        == 0
            }
        });
        let namespace = TestNamespace { path };
        made.join().ok()?.then_some(namespace)
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if let Ok(path) = std::ffi::CString::new(self.path.as_os_str().as_encoded_bytes()) {
            // SAFETY: the string outlives the call.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
        let _ = std::fs::remove_file(&self.path);
    }
}
