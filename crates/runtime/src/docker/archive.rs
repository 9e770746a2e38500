//! An image as the archive that `docker load` reads, written as it is sent: it never stands on the disk as a whole.
//!
//! <https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageLoad>, in the form of `docker save`: a
//! `manifest.json`, the configuration, and one tar for each layer.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use super::layer::LayerFile;

/// Pieces between the disk and the socket.
const AHEAD: usize = 16;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// What an archive holds.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The image's configuration, as it came.
    pub configuration: Bytes,
    /// `sha256:<hex>` of it.
    pub config_digest: String,
    /// The name that the image gets.
    pub reference: String,
    /// Layers, lowest first.
    pub diff_ids: Vec<String>,
    /// The layers' tars. Those that Docker has already may be missing.
    pub layers: HashMap<String, Arc<LayerFile>>,
}

/// The archive's bytes.
pub fn stream(archive: Archive) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (pieces, mut sent) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE, Pieces(pieces));
        let written = write(&archive, &mut out).and_then(|()| out.flush());
        if let Err(error) = written {
            // If the receiver is gone, that is the reason, and nobody is left to tell.
            let _ = out.into_parts().0.0.blocking_send(Err(error));
        }
    });
    futures_util::stream::poll_fn(move |context| sent.poll_recv(context))
}

fn write(archive: &Archive, out: &mut impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    let configuration = format!("{}.json", hex(&archive.config_digest));
    let layers: Vec<String> = archive.diff_ids.iter().map(|diff_id| layer_name(diff_id)).collect();
    let manifest = serde_json::json!([{"Config": configuration, "RepoTags": [archive.reference], "Layers": layers}]).to_string();
    append(&mut tar, &configuration, &archive.configuration)?;
    for (diff_id, layer) in &archive.layers {
        let mut file = std::fs::File::open(&layer.path)?;
        let mut header = header(file.metadata()?.len());
        tar.append_data(&mut header, layer_name(diff_id), &mut file)?;
    }
    append(&mut tar, "manifest.json", manifest.as_bytes())?;
    tar.finish()
}

fn layer_name(diff_id: &str) -> String {
    format!("{}/layer.tar", hex(diff_id))
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

fn append(tar: &mut tar::Builder<&mut impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(content.len() as u64), name, content)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header
}

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(piece)));
        sent.map(|()| piece.len()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
