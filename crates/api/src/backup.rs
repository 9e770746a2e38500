//! `GET /backup`: everything the store keeps, as of one revision, as a file. What is sent is made as it is read; a reader who
//! takes his time holds neither a lock nor more than a few pieces in memory.

use std::io::{self, Write};
use std::sync::Arc;

use berth_store::backup::{self, Header};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;

use crate::context::Shared;
use crate::edge::{Body, authenticate, render_failure, request_id};
use crate::failure::Failure;
use crate::limits::{Share, throttled};
use crate::sockets::basic_authorized;

/// Bytes of a piece: large enough that handing it over costs nothing beside compressing it.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for the reader.
const WAITING: usize = 4;

/// Answers with a backup, to whoever has an access key (SigV4, or HTTP Basic as for `/metrics` and `/v2/`).
pub(crate) fn answer(api: &Shared, request: Request<Incoming>) -> Response<Body> {
    let head = request.into_parts().0;
    match begin(api, &head) {
        Ok(response) => response,
        Err(failure) => render_failure(&failure, &request_id(api)),
    }
}

fn begin(api: &Shared, head: &http::request::Parts) -> Result<Response<Body>, Failure> {
    if !basic_authorized(api, &head.headers) {
        authenticate(api, head, b"", "berth:Backup")?;
    }
    let mut place = api.limits.backups.share();
    if !place.grow(1) {
        return Err(throttled());
    }
    let (pieces, sent) = mpsc::channel(WAITING);
    let api = Arc::clone(api);
    tokio::task::spawn_blocking(move || write(&api, pieces, place));
    let frames = stream::unfold(sent, |mut sent| async move {
        let piece: io::Result<Bytes> = sent.recv().await?;
        Some((piece.map(Frame::data), sent))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zstd"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"berth.backup\""));
    Ok(response)
}

/// Writes it piece by piece, as quickly as it is read. Without its last line it is no backup, so an end before that needs no word.
fn write(api: &Shared, pieces: mpsc::Sender<io::Result<Bytes>>, place: Share) {
    let (records, revision) = {
        let state = api.store.state();
        (state.records().collect::<Vec<_>>(), state.revision)
    };
    let scope = api.scope();
    let header = Header {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision,
        region: scope.region.to_string(),
        account: scope.account.to_string(),
        taken_at: api.now(),
    };
    let mut out = Pieces { pieces, piece: BytesMut::new() };
    let written = backup::write(&header, records, &mut out).and_then(|count| out.flush().map(|()| count));
    match written {
        Ok(records) => tracing::info!(%revision, records, "a backup was taken"),
        Err(error) => {
            tracing::info!(%revision, %error, "a backup broke off");
            // If the reader is gone there is nobody to tell.
            let _ = out.pieces.blocking_send(Err(error));
        }
    }
    drop(place);
}

struct Pieces {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    /// Hands over what there is, once the reader has room for it.
    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "its reader has gone"))
    }
}
