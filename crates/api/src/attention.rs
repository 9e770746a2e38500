//! A connection that waits awake for a moment after each answer, while one client makes call after call. To wake a sleeping thread
//! costs more than most calls that only read, and such a client's next call comes at once. It must never keep a thread from other
//! connections' calls for longer than that moment, nor an idle server awake.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How long to wait awake: a client that was asleep itself has sent its next call by then. Calls that take longer than that are not
/// waited for: what is saved is little beside them, and what they set off in other tasks wants the processor more.
const AWAKE: Duration = Duration::from_micros(100);
/// Answers that one connection must have been given, with none to another between them, before it is waited for awake. So a client that
/// stays away, or calls now and then, costs one such moment in so many calls.
const STREAK: u64 = 8;
/// Most bytes taken at once by a connection that is awake.
const PIECE: usize = 16 * 1024;
/// The half of a word.
const LOW: u64 = 0xffff_ffff;

/// Whom this server answered last, and how often in a row.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    next: AtomicU64,
    /// The connection's number in the high half, the length of the streak in the low one.
    streak: AtomicU64,
}

impl Attention {
    /// A new connection's number: from 1 to the half of a word. That they come again after four thousand million does no harm.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) % LOW + 1
    }

    /// A connection's call was answered.
    pub(crate) fn answered(&self, connection: u64, took: Duration) {
        if took > AWAKE {
            return self.is_over();
        }
        let streak = self.streak.load(Ordering::Relaxed);
        // Another answer may come between; then one of them is not counted, which does no harm.
        let next = if streak >> 32 == connection { streak + u64::from(streak & LOW < STREAK) } else { connection << 32 | 1 };
        if next != streak {
            self.streak.store(next, Ordering::Relaxed);
        }
    }

    /// Whether it is waited for awake.
    pub(crate) fn is_for(&self, connection: u64) -> bool {
        self.streak.load(Ordering::Relaxed) == connection << 32 | STREAK
    }

    /// It was waited for in vain, or is not to be waited for: the streak begins anew.
    fn is_over(&self) {
        if self.streak.load(Ordering::Relaxed) != 0 {
            self.streak.store(0, Ordering::Relaxed);
        }
    }
}

/// A client's connection.
pub(crate) struct Attentive {
    socket: TcpStream,
    attention: Arc<Attention>,
    pub(crate) number: u64,
    /// It was answered, and has not been waited for since.
    answered: bool,
    /// There is more than one processor: with one, the client could not call while it is waited for awake.
    may_wait: bool,
}

impl Attentive {
    pub(crate) fn new(socket: TcpStream, attention: Arc<Attention>) -> Self {
        let number = attention.number();
        let may_wait = std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        Self { socket, attention, number, answered: false, may_wait }
    }

    /// The socket alone.
    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Looks for the next call until it comes or the time is over.
    fn wait(&self, buffer: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let until = Instant::now() + AWAKE;
        let socket = SockRef::from(&self.socket);
        loop {
            let mut first = [std::mem::MaybeUninit::uninit()];
            match socket.peek(&mut first) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Tokio will meet it as well.
                Err(_) => return None,
            }
            if !self.attention.is_for(self.number) {
                return None;
            }
            if Instant::now() >= until {
                self.attention.is_over();
                return None;
            }
            std::hint::spin_loop();
        }
        let room = buffer.remaining().min(PIECE);
        match (&*socket).read(buffer.initialize_unfilled_to(room)) {
            Ok(read) => {
                buffer.advance(read);
                Some(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn note(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.answered |= matches!(polled, Poll::Ready(Ok(_)));
        polled
    }
}

impl AsyncRead for Attentive {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_read(context, buffer);
        if polled.is_pending() && std::mem::take(&mut self.answered) && self.may_wait && self.attention.is_for(self.number) {
            // The waker is registered already: whatever comes once this gives up wakes the task.
            return self.wait(buffer).map_or(Poll::Pending, Poll::Ready);
        }
        polled
    }
}

impl AsyncWrite for Attentive {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.note(polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(context, pieces);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_who_is_answered_again_and_again_is_waited_for() {
        let attention = Attention::default();
        let (one, other) = (attention.number(), attention.number());
        let quick = |connection, times: u64| (0..times).for_each(|_| attention.answered(connection, Duration::ZERO));
        quick(one, STREAK - 1);
        assert!(!attention.is_for(one));
        quick(one, 100);
        assert!(attention.is_for(one) && !attention.is_for(other));
        quick(other, 1);
        assert!(!attention.is_for(one) && !attention.is_for(other));
        quick(one, STREAK);
        attention.answered(one, AWAKE * 2);
        assert!(!attention.is_for(one), "a call that took long");
        quick(one, STREAK);
        attention.is_over();
        quick(one, STREAK - 1);
        assert!(!attention.is_for(one), "it begins anew");
    }

    /// Calls and answers as they come, awake or not: nothing is lost, nothing comes twice, the end is seen.
    #[tokio::test]
    async fn what_comes_is_read_once_whoever_waits() {
        const CALLS: u32 = 2_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || {
            use std::io::Write;
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            for call in 0..CALLS {
                stream.write_all(&call.to_be_bytes()).unwrap();
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(u32::from_be_bytes(answer), call);
            }
        });
        let attention = Arc::new(Attention::default());
        let mut server = Attentive::new(listener.accept().await.unwrap().0, Arc::clone(&attention));
        server.may_wait = true;
        for call in 0..CALLS {
            // Now and then somebody else comes between.
            attention.answered(if call % 100 == 0 { LOW } else { server.number }, Duration::ZERO);
            assert_eq!(server.read_u32().await.unwrap(), call);
            server.write_u32(call).await.unwrap();
        }
        let mut rest = [0; 1];
        assert_eq!(server.read(&mut rest).await.unwrap(), 0);
        client.join().unwrap();
    }
}
