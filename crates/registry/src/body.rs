//! Response bodies: a few bytes held in memory, or a stretch of a file streamed in bounded pieces.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

/// The body of every answer of the registry.
pub type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// Bytes read from the file at a time: large enough that the hop to a blocking thread (about 10 µs) is below one
/// percent of the copy, small enough that a thousand slow readers hold no more than 256 MB.
const PIECE: usize = 256 * 1024;

pub(crate) fn empty() -> ResponseBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Streams the next `length` bytes of `file` from where it stands. A file that ends early breaks the connection
/// instead of passing off a short body as whole.
pub(crate) fn file(file: File, length: u64) -> ResponseBody {
    FileBody { left: length, state: State::Idle(Some(file)) }.boxed_unsync()
}

struct FileBody {
    left: u64,
    state: State,
}

enum State {
    Idle(Option<File>),
    Reading(JoinHandle<io::Result<(File, Bytes)>>),
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Idle(_) if this.left == 0 => return Poll::Ready(None),
                State::Idle(file) => {
                    let Some(mut file) = file.take() else { return Poll::Ready(None) };
                    let want = this.left.min(PIECE as u64) as usize;
                    this.state = State::Reading(tokio::task::spawn_blocking(move || {
                        let mut buffer = vec![0; want];
                        file.read_exact(&mut buffer)?;
                        Ok((file, Bytes::from(buffer)))
                    }));
                }
                State::Reading(task) => {
                    let result = ready!(Pin::new(task).poll(cx)).map_err(io::Error::other).flatten();
                    match result {
                        Ok((file, bytes)) => {
                            this.left -= bytes.len() as u64;
                            this.state = State::Idle(Some(file));
                            return Poll::Ready(Some(Ok(Frame::data(bytes))));
                        }
                        Err(cause) => {
                            this.state = State::Idle(None);
                            return Poll::Ready(Some(Err(cause)));
                        }
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
