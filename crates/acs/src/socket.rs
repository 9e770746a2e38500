//! A websocket of text frames, bounded in both directions: what client and server, ACS and TCS have in common.

use crate::messages::{FrameError, MAX_FRAME};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// What may be waiting to be written before `send` waits for the peer.
const WRITE_BUFFER: usize = 4 * MAX_FRAME;
/// What a connection reads at once. The library's own 128 KiB are zeroed before every read and stay resident: with a thousand
/// agents that is most of the memory and half of the time. A larger frame is put together of several reads.
const READ_BUFFER: usize = 4 * 1024;

/// Why a frame could not be received or sent.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// One frame is at fault; the connection goes on.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A binary frame, which neither side sends; the connection goes on.
    #[error("a binary frame, where only text is spoken")]
    Binary,
    /// The connection is lost.
    #[error("the websocket is lost: {0}")]
    Lost(#[from] Error),
}

impl SocketError {
    /// Whether there is nothing more to come.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

/// How the other side closed the websocket, where it said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireClose {
    /// RFC 6455's code, such as 1000.
    pub code: u16,
    /// Its reason.
    pub reason: String,
}

pub(crate) struct TextSocket<S> {
    inner: WebSocketStream<S>,
    over: bool,
    close: Option<WireClose>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TextSocket<S> {
    pub(crate) async fn new(stream: S, role: Role) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME))
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(READ_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER);
        Self { inner: WebSocketStream::from_raw_socket(stream, role, Some(config)).await, over: false, close: None }
    }

    /// Safe to be dropped half-way: a frame is either returned or still there.
    pub(crate) async fn next(&mut self) -> Option<Result<Utf8Bytes, SocketError>> {
        while !self.over {
            match self.inner.next().await {
                Some(Ok(Message::Text(text))) => return Some(Ok(text)),
                Some(Ok(Message::Binary(_))) => return Some(Err(SocketError::Binary)),
                Some(Ok(Message::Close(frame))) => {
                    self.close = frame.map(|frame| WireClose { code: frame.code.into(), reason: frame.reason.to_string() });
                    // The answer goes out, but nobody waits for the other side to hang up: it may never do so.
                    self.over = true;
                    let _ = self.inner.flush().await;
                }
                // The library answers pings itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => self.over = true,
                Some(Err(error)) => {
                    self.over = true;
                    return Some(Err(error.into()));
                }
            }
        }
        None
    }

    pub(crate) async fn send(&mut self, texts: impl IntoIterator<Item = String>) -> Result<(), SocketError> {
        for text in texts {
            self.inner.feed(Message::text(text)).await?;
        }
        Ok(self.inner.flush().await?)
    }

    pub(crate) async fn close(&mut self, code: u16, reason: &str) -> Result<(), SocketError> {
        // A control frame holds 125 bytes, two of them the code.
        let end = (0..=reason.len().min(123)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
        match self.inner.close(Some(CloseFrame { code: code.into(), reason: reason[..end].into() })).await {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn wire_close(&self) -> Option<&WireClose> {
        self.close.as_ref()
    }
}
