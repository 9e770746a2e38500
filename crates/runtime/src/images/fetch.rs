//! One layer from its registry to whoever receives it: read, hashed, counted, and believed only at its end.

use std::io;
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::manifest::Layer;
use super::registry::Repository;
use super::space;
use super::steady::{Patience, Steady};
use super::unpack::{UnpackError, Unpacked};
use crate::port::PullError;

/// Layers of one image that are fetched at the same time. Unpacking is bound by the disk: more does not help.
pub(crate) const PARALLEL_LAYERS: usize = 3;

/// Pieces of a layer between the network and the unpacker; a piece is at most some tens of KiB.
const PIECES_AHEAD: usize = 64;

/// Fetches a layer. `receive` gets its compressed bytes and how many the manifest promised, in a thread where it may block; what it gives
/// back is dropped, also when this is, after its last write and never before. `place` is where it writes to.
///
/// # Errors
/// [`PullError`], also when the bytes or what they unpack to are not what their digests say.
pub(crate) async fn fetch_layer<T: Send + 'static>(
    repository: &Repository<'_>,
    layer: &Layer,
    patience: Patience,
    place: &Path,
    receive: impl FnOnce(Pieces, u64) -> Result<(Unpacked, T), UnpackError> + Send + 'static,
) -> Result<(u64, T), PullError> {
    let (digest, size) = (layer.blob.digest.clone(), layer.blob.size);
    let mut stream = Steady::open(repository, &digest, size, patience).await?;
    let (pieces, source) = tokio::sync::mpsc::channel(PIECES_AHEAD);
    let receiver = tokio::task::spawn_blocking(move || receive(Pieces { source, current: Bytes::new() }, size));
    // Hashing here and unpacking there use two cores.
    let mut hash = Sha256::new();
    let mut length = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        length += piece.len() as u64;
        if length > size {
            return Err(PullError::Invalid(format!("layer {digest} is longer than its manifest says")));
        }
        hash.update(&piece);
        if pieces.send(Ok(piece)).await.is_err() {
            // The receiver has given up; it says why.
            break;
        }
    }
    drop(pieces);
    let outcome = receiver.await.map_err(|e| PullError::Storage(format!("receive layer {digest}: {e}")))?;
    let finished = format!("sha256:{}", hex::encode(hash.finalize()));
    let (unpacked, received) = match outcome {
        // Wrong bytes explain a tar that cannot be read; the reverse is not true.
        Err(UnpackError::Invalid(_) | UnpackError::Source(_)) | Ok(_) if length == size && finished != digest => {
            return Err(PullError::Invalid(format!("layer {digest} has the digest {finished}")));
        }
        Ok(_) if length < size => return Err(PullError::Unreachable(format!("layer {digest} broke off after {length} bytes"))),
        Ok(received) => received,
        Err(UnpackError::Invalid(text)) => return Err(PullError::Invalid(format!("layer {digest}: {text}"))),
        Err(UnpackError::Storage(text)) => return Err(PullError::Storage(format!("layer {digest}: {text}"))),
        Err(UnpackError::Full(written)) => return Err(space::exhausted(place, written)),
        Err(UnpackError::Source(error)) => return Err(PullError::Unreachable(format!("layer {digest}: {error}"))),
    };
    if unpacked.diff_id != layer.diff_id {
        let text = format!("layer {digest} unpacks to {}, the configuration says {}", unpacked.diff_id, layer.diff_id);
        return Err(PullError::Invalid(text));
    }
    Ok((unpacked.bytes, received))
}

/// The receiver's side of the stream.
pub(crate) struct Pieces {
    source: tokio::sync::mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.source.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
