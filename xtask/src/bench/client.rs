//! The smallest HTTP client that can keep a server busy: one connection, bytes made beforehand, answers read to their end.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_identity::AccessKey;
use berth_identity::sigv4::{SigningParams, sign_headers};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one end of a connection looks for what comes before it sleeps, if it is to wait awake: several times what a durable call takes.
const AWAKE: Duration = Duration::from_millis(2);

/// A connection to Berth's API.
pub(super) struct Client {
    stream: TcpStream,
    /// It waits for answers awake.
    awake: bool,
    authority: String,
    key: AccessKey,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn connect(authority: &str, key: &AccessKey) -> Result<Self, Box<dyn Error>> {
        Self::over(TcpStream::connect(authority)?, authority, key)
    }

    /// Over a connection that is there.
    pub(super) fn over(stream: TcpStream, authority: &str, key: &AccessKey) -> Result<Self, Box<dyn Error>> {
        stream.set_nodelay(true)?;
        // An answer that does not come must not be waited for without end.
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, awake: false, authority: authority.to_owned(), key: key.clone(), buffer: vec![0; 256 * 1024] })
    }

    /// From here on it looks for its answers instead of sleeping until they come: then a call takes what the server takes, not what the
    /// system takes to wake a processor that went idle.
    pub(super) fn wait_awake(mut self) -> Self {
        self.awake = true;
        self
    }

    /// A signed request as bytes. It may be sent many times: a signature holds for five minutes.
    pub(super) fn signed(&self, operation: &str, body: &Value) -> Vec<u8> {
        signed(&self.authority, &self.key, operation, &body.to_string())
    }

    /// Sends a request and reads its answer: status and body.
    pub(super) fn send(&mut self, request: &[u8]) -> Result<(u16, &[u8]), Box<dyn Error>> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        let (head, length) = loop {
            let read = self.read(filled)?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            filled += read;
            if let Some(at) = self.buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
                break (at + 4, content_length(&self.buffer[..at])?);
            }
        };
        if head + length > self.buffer.len() {
            self.buffer.resize(head + length, 0);
        }
        while filled < head + length {
            let read = self.read(filled)?;
            if read == 0 {
                return Err("the server broke off an answer".into());
            }
            filled += read;
        }
        let status = std::str::from_utf8(&self.buffer[9..12])?.parse()?;
        Ok((status, &self.buffer[head..head + length]))
    }

    fn read(&mut self, filled: usize) -> std::io::Result<usize> {
        let buffer = &mut self.buffer[filled..];
        if self.awake { read_awake(&mut self.stream, buffer) } else { self.stream.read(buffer) }
    }

    /// Calls an operation of ECS; anything but 200 is an error.
    pub(super) fn call(&mut self, operation: &str, body: &Value) -> Result<Value, Box<dyn Error>> {
        self.call_to(&ECS, operation, body)
    }

    /// Calls an operation of any service.
    pub(super) fn call_to(&mut self, service: &Service, operation: &str, body: &Value) -> Result<Value, Box<dyn Error>> {
        let request = signed_for(service, &self.authority, &self.key, operation, &body.to_string());
        let (status, answer) = self.send(&request)?;
        if status != 200 {
            return Err(format!("{operation} answered {status}: {}", String::from_utf8_lossy(answer)).into());
        }
        Ok(serde_json::from_slice(answer)?)
    }
}

/// Reads what comes next, looking for it for a moment before it sleeps. Whoever else wants the processor goes first.
pub(super) fn read_awake(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    let until = Instant::now() + AWAKE;
    while Instant::now() < until {
        match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            other => return Ok(other?),
        }
    }
    stream.read(buffer)
}

/// The length of an answer's body, from its head.
pub(super) fn content_length(head: &[u8]) -> Result<usize, Box<dyn Error>> {
    let head = std::str::from_utf8(head)?;
    let line = head.split("\r\n").find(|line| line.len() > 15 && line[..15].eq_ignore_ascii_case("content-length:"));
    Ok(line.ok_or("the answer has no content-length")?[15..].trim().parse()?)
}

/// A service whose requests are JSON.
pub(super) struct Service {
    /// Its name in signatures.
    pub(super) signing: &'static str,
    /// What stands before the operation in `x-amz-target`.
    pub(super) target: &'static str,
}

const ECS: Service = Service { signing: "ecs", target: "AmazonEC2ContainerServiceV20141113" };

/// A request to ECS, signed, as bytes.
pub(super) fn signed(authority: &str, key: &AccessKey, operation: &str, body: &str) -> Vec<u8> {
    signed_for(&ECS, authority, key, operation, body)
}

fn signed_for(service: &Service, authority: &str, key: &AccessKey, operation: &str, body: &str) -> Vec<u8> {
    let target = format!("{}.{operation}", service.target);
    let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    let params = SigningParams {
        access_key: &key.id,
        secret: key.secret.expose(),
        session_token: None,
        region: "us-east-1",
        service: service.signing,
        now_unix,
    };
    let headers = [("host", authority), ("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
    let signed = sign_headers(&params, "POST", "/", &headers, body.as_bytes());
    let mut request = String::from("POST / HTTP/1.1\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    for (name, value) in signed.pairs() {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    request.into_bytes()
}
