//! One layer on its way into an image: its content is hashed (the diff id), an unpacked one is compressed, a packed one is
//! taken as it is.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::archive::{Archive, Source, SourceReader};
use super::{Blob, LoadError};

pub(super) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Largest unpacked layer, in bytes; a compressed one that goes on beyond it is a bomb.
const MAX_LAYER: u64 = 100 << 30;

/// Bytes read so far, for whoever watches.
#[derive(Default)]
pub(super) struct Meter(AtomicU64);

impl Meter {
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct Layer {
    pub blob: Blob,
    /// Digest of the unpacked tar.
    pub diff_id: String,
}

/// Reads the layer `what` through, and compresses it where it is not. Blocks.
pub(super) fn pack(archive: &Archive, what: &str, source: &Source, size: u64, meter: &Meter) -> Result<Layer, LoadError> {
    let mut magic = [0; 4];
    let count = size.min(4) as usize;
    source.read_exact_at(&mut magic[..count], 0).map_err(|e| archive.unreadable(e))?;
    match magic {
        [0x1f, 0x8b, ..] => keep_gzip(archive, what, source, size, meter),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Err(archive.broken(format!("layer {what:?} is compressed with zstd, which a docker archive cannot say")))
        }
        _ => compress(archive, source, size, meter),
    }
}

/// A packed layer stays as it is; it is unpacked only to learn its diff id.
fn keep_gzip(archive: &Archive, what: &str, source: &Source, size: u64, meter: &Meter) -> Result<Layer, LoadError> {
    let mut packed = Sha256::new();
    let mut plain = Sha256::new();
    {
        let input = HashingReader { inner: SourceReader::new(source, size), hasher: &mut packed, meter };
        let mut decoder = flate2::read::MultiGzDecoder::new(BufReader::with_capacity(256 * 1024, input));
        let mut buffer = vec![0; 256 * 1024];
        let mut unpacked = 0u64;
        loop {
            let count = decoder.read(&mut buffer).map_err(|e| archive.broken(format!("layer {what:?} is damaged: {e}")))?;
            if count == 0 {
                break;
            }
            unpacked += count as u64;
            if unpacked > MAX_LAYER {
                return Err(archive.broken(format!("layer {what:?} unpacks to more than {MAX_LAYER} bytes")));
            }
            plain.update(&buffer[..count]);
        }
    }
    let blob = Blob { digest: hex_digest(packed), size, source: source.clone() };
    Ok(Layer { blob, diff_id: hex_digest(plain) })
}

fn compress(archive: &Archive, source: &Source, size: u64, meter: &Meter) -> Result<Layer, LoadError> {
    let temporary = |source| LoadError::Temporary { source };
    let file = tempfile::tempfile().map_err(temporary)?;
    let out = HashingWriter { file, hasher: Sha256::new(), written: 0 };
    // The fastest level: the archive is read from a disk and most often sent over loopback, where more is time lost. Level
    // and header are fixed, so the same layer has the same digest each time and is pushed once.
    let mut encoder = GzEncoder::new(out, Compression::fast());
    let mut plain = Sha256::new();
    let mut input = SourceReader::new(source, size);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = input.read(&mut buffer).map_err(|e| archive.unreadable(e))?;
        if count == 0 {
            break;
        }
        plain.update(&buffer[..count]);
        encoder.write_all(&buffer[..count]).map_err(temporary)?;
        meter.add(count);
    }
    let HashingWriter { file, hasher, written } = encoder.finish().map_err(temporary)?;
    let blob = Blob { digest: hex_digest(hasher), size: written, source: Source::Slice { file: Arc::new(file), offset: 0 } };
    Ok(Layer { blob, diff_id: hex_digest(plain) })
}

/// The digest of a source's bytes. Blocks.
pub(super) fn digest(source: &Source, size: u64, meter: &Meter) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut HashingReader { inner: SourceReader::new(source, size), hasher: &mut hasher, meter }, &mut io::sink())?;
    Ok(hex_digest(hasher))
}

pub(super) fn hex_digest(hasher: Sha256) -> String {
    format!("sha256:{}", hex::encode(hasher.finalize()))
}

struct HashingReader<'a, R> {
    inner: R,
    hasher: &'a mut Sha256,
    meter: &'a Meter,
}

impl<R: Read> Read for HashingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.meter.add(count);
        Ok(count)
    }
}

struct HashingWriter {
    file: File,
    hasher: Sha256,
    written: u64,
}

impl Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
