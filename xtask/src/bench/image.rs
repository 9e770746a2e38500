//! Images of the bench's own, as a registry has them: made of the sample program and of layers of a given size.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest, Sha256};

/// What a registry sends of a blob.
pub(super) enum Blob {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file of so many bytes.
    File(PathBuf, u64),
}

impl Blob {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }
}

/// A layer, packed with gzip.
#[derive(Clone)]
pub(super) struct Layer {
    digest: String,
    diff_id: String,
    blob: Arc<Blob>,
}

/// What a large layer is filled with.
#[derive(Clone, Copy)]
pub(super) enum Filling {
    /// What cannot be packed, as programs' compressed data are.
    Noise,
    /// What packs well, as programs and texts do.
    Text,
}

/// An image: a manifest and what it names.
pub(super) struct Image {
    pub(super) manifest: Vec<u8>,
    pub(super) blobs: BTreeMap<String, Arc<Blob>>,
}

pub(super) const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Layer {
    /// Of a tar file.
    fn of(tar: &[u8]) -> io::Result<Self> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(tar)?;
        let packed = packed.finish()?;
        Ok(Self { digest: digest(&packed), diff_id: digest(tar), blob: Arc::new(Blob::Bytes(packed)) })
    }

    /// With the sample program, and a mark by which it is another than the rest.
    pub(super) fn program(hello: &[u8], mark: &str) -> io::Result<Self> {
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, "hello", 0o755, hello.len() as u64, hello)?;
        append(&mut tar, "mark", 0o644, mark.len() as u64, mark.as_bytes())?;
        Self::of(&tar.into_inner()?)
    }

    /// With one file of so many bytes; it is written to `path`. Layers of one seed are the same.
    pub(super) fn large(path: &Path, size: u64, filling: Filling, seed: u64) -> io::Result<Self> {
        let packed = Hashing::new(io::BufWriter::new(File::create(path)?));
        let tar = Hashing::new(GzEncoder::new(packed, Compression::fast()));
        let mut tar = tar::Builder::new(tar);
        append(&mut tar, &format!("filling-{seed}"), 0o644, size, Filler::new(filling, seed).take(size))?;
        let (plain, packer) = tar.into_inner()?.finish();
        let (packed, mut file) = packer.finish()?.finish();
        file.flush()?;
        let blob = Arc::new(Blob::File(path.to_owned(), path.metadata()?.len()));
        Ok(Self { digest: packed, diff_id: plain, blob })
    }
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, mode: u32, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, name, content)
}

/// Passes on what is written, and keeps its hash.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn finish(self) -> (String, W) {
        (format!("sha256:{}", hex::encode(self.hash.finalize())), self.inner)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Bytes without end.
struct Filler {
    filling: Filling,
    state: u64,
    ready: Vec<u8>,
    at: usize,
}

impl Filler {
    fn new(filling: Filling, seed: u64) -> Self {
        Self { filling, state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, ready: Vec::new(), at: 0 }
    }

    /// Marsaglia's xorshift: nothing that gzip would find.
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn refill(&mut self) {
        self.ready.clear();
        self.at = 0;
        while self.ready.len() < 64 * 1024 {
            let word = self.next();
            match self.filling {
                Filling::Noise => self.ready.extend_from_slice(&word.to_le_bytes()),
                Filling::Text => {
                    let line = format!("{:04x} a line of a text that comes again and again, and is nearly the same\n", word % 65_536);
                    self.ready.extend_from_slice(line.as_bytes());
                }
            }
        }
    }
}

impl Read for Filler {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() {
            self.refill();
        }
        let count = buffer.len().min(self.ready.len() - self.at);
        buffer[..count].copy_from_slice(&self.ready[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Image {
    /// The sample program with its settings, over these layers; the first must have the program.
    pub(super) fn new(layers: &[Layer]) -> Self {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": crate::pack::architecture(),
            "os": "linux",
            "config": {"Cmd": ["/hello"], "Env": ["PATH=/", "PORT=0"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let named: Vec<_> = layers
            .iter()
            .map(|layer| {
                json!({"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": layer.blob.size(), "digest": layer.digest})
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": digest(&config)},
            "layers": named,
        });
        let mut blobs: BTreeMap<String, Arc<Blob>> = layers.iter().map(|layer| (layer.digest.clone(), layer.blob.clone())).collect();
        blobs.insert(digest(&config), Arc::new(Blob::Bytes(config)));
        Self { manifest: manifest.to_string().into_bytes(), blobs }
    }
}

/// The sample program, out of its archive.
pub(super) fn hello(archive: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let layer = file_of(File::open(archive)?, "layer.tar")?.ok_or("the sample image has no layer")?;
    file_of(&layer[..], "hello")?.ok_or_else(|| "the sample image has no program".into())
}

fn file_of(tar: impl Read, name: &str) -> io::Result<Option<Vec<u8>>> {
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        if entry.path()?.ends_with(name) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            return Ok(Some(content));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn a_large_layer_is_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        for (filling, packs) in [(Filling::Noise, false), (Filling::Text, true)] {
            let path = folder.path().join("layer");
            let layer = Layer::large(&path, 300_000, filling, 7).unwrap();
            let packed = std::fs::read(&path).unwrap();
            assert_eq!(layer.digest, digest(&packed));
            let mut tar = Vec::new();
            GzDecoder::new(&packed[..]).read_to_end(&mut tar).unwrap();
            assert_eq!(layer.diff_id, digest(&tar));
            assert_eq!(packed.len() < 100_000, packs, "{}", packed.len());
            let mut files = tar::Archive::new(&tar[..]);
            assert_eq!(files.entries().unwrap().next().unwrap().unwrap().header().size().unwrap(), 300_000);
        }
    }

    #[test]
    fn a_manifest_names_its_blobs() {
        let image = Image::new(&[Layer::program(b"elf", "1").unwrap(), Layer::program(b"elf", "2").unwrap()]);
        let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        let named = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
        for one in named {
            let blob = &image.blobs[one["digest"].as_str().unwrap()];
            assert_eq!(one["size"], blob.size());
            let Blob::Bytes(bytes) = blob.as_ref() else { panic!("a small blob is in memory") };
            assert_eq!(one["digest"], digest(bytes));
        }
        assert_eq!(image.blobs.len(), 3);
    }
}
