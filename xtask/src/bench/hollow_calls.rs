//! The API calls of all hollow agents of a process. They share some kept-alive connections: with one each, ten thousand agents
//! would need more file descriptors than a process may have. Real agents have their own, of which most are idle at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_identity::AccessKey;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::client::{content_length, signed};

/// Connections. Each has one call under way at a time.
const CONNECTIONS: usize = 256;
/// Calls that may wait for a connection.
const QUEUE: usize = 64;
/// How often a call is made before its caller is told: the server may be restarting, or say that it is too busy.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

type Outcome = Result<Vec<u8>, String>;

struct Call {
    operation: &'static str,
    body: String,
    reply: oneshot::Sender<Outcome>,
}

/// The connections; clones share them.
#[derive(Clone)]
pub(super) struct Calls {
    connections: Arc<Vec<mpsc::Sender<Call>>>,
    next: Arc<AtomicUsize>,
}

impl Calls {
    /// Starts them, each with its first call.
    pub(super) fn start(authority: &str, key: &AccessKey) -> Self {
        let connections = (0..CONNECTIONS).map(|_| {
            let (calls, inbox) = mpsc::channel(QUEUE);
            let line = Line { authority: authority.to_owned(), key: key.clone(), stream: None, buffer: vec![0; 16 * 1024] };
            tokio::spawn(line.run(inbox));
            calls
        });
        Self { connections: Arc::new(connections.collect()), next: Arc::default() }
    }

    /// Calls an operation; anything but 200, after some tries, is an error.
    pub(super) async fn call(&self, operation: &'static str, body: &Value) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let line = &self.connections[self.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS];
        let ended = |_| "the connection's task has ended".to_owned();
        line.send(Call { operation, body: body.to_string(), reply }).await.map_err(|_| ended(()))?;
        outcome.await.map_err(|_| ended(()))?
    }
}

/// One connection.
struct Line {
    authority: String,
    key: AccessKey,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Line {
    async fn run(mut self, mut inbox: mpsc::Receiver<Call>) {
        while let Some(call) = inbox.recv().await {
            let mut outcome = Err(String::new());
            for _ in 0..TRIES {
                outcome = match self.send(&call).await {
                    Ok((200, body)) => Ok(body),
                    Ok((status, body)) => Err(format!("{} answered {status}: {}", call.operation, String::from_utf8_lossy(&body))),
                    Err(error) => {
                        self.stream = None;
                        Err(format!("{}: {error}", call.operation))
                    }
                };
                let is_final = outcome.as_ref().err().is_none_or(|error| error.contains("answered 4") && !error.contains("Throttling"));
                if is_final {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            // Its agent may have been told to end.
            let _ = call.reply.send(outcome);
        }
    }

    async fn send(&mut self, call: &Call) -> std::io::Result<(u16, Vec<u8>)> {
        let bad = |problem: String| std::io::Error::new(std::io::ErrorKind::InvalidData, problem);
        let request = signed(&self.authority, &self.key, call.operation, &call.body);
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.authority).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(&request).await?;
        let mut filled = 0;
        let (head, length) = loop {
            filled += read(&mut stream, &mut self.buffer[filled..]).await?;
            if let Some(at) = self.buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
                break (at + 4, content_length(&self.buffer[..at]).map_err(|error| bad(error.to_string()))?);
            }
        };
        if head + length > self.buffer.len() {
            self.buffer.resize(head + length, 0);
        }
        while filled < head + length {
            filled += read(&mut stream, &mut self.buffer[filled..]).await?;
        }
        let status = std::str::from_utf8(&self.buffer[9..12]).ok().and_then(|text| text.parse().ok());
        let status = status.ok_or_else(|| bad("the answer has no status".to_owned()))?;
        self.stream = Some(stream);
        Ok((status, self.buffer[head..head + length].to_vec()))
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    match stream.read(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}
