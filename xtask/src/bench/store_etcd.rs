//! The store's peer: a single etcd (Debian package etcd-server) on loopback with its data on the same disk, spoken to by gRPC
//! over kept-alive HTTP/2 connections. The few messages needed are written by hand.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;

use super::scratch::{Process, free_port};

/// How long etcd may take to answer first.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running etcd.
pub(super) struct Etcd {
    /// Killed when dropped.
    _process: Process,
    pub(super) authority: String,
}

impl Etcd {
    /// Starts it with its data in `folder`, and waits until it takes a put.
    pub(super) async fn start(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let authority = format!("127.0.0.1:{}", free_port());
        let (client, peer) = (format!("http://{authority}"), format!("http://127.0.0.1:{}", free_port()));
        let log = std::fs::File::create(folder.join("etcd.log"))?;
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(folder.join("etcd")).args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut etcd = Self { _process: Process::spawn(&mut command)?, authority };
        let started = Instant::now();
        loop {
            let tried = match Connection::open(&etcd.authority).await {
                Ok(connection) => connection.put(b"first", b"").await.map_err(Into::into),
                Err(error) => Err(error),
            };
            let Err(error) = tried else { return Ok(etcd) };
            let ended = etcd._process.child.try_wait()?;
            if ended.is_some() || started.elapsed() > PATIENCE {
                return Err(format!("etcd does not answer ({error}, ended: {ended:?})").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A connection to etcd; clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    authority: String,
}

impl Connection {
    pub(super) async fn open(authority: &str) -> Result<Self, Box<dyn Error>> {
        let stream = tokio::net::TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        // It ends with the last handle on it; an error is seen by whoever waits for an answer.
        tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, authority: authority.to_owned() })
    }

    /// Writes a key. Gives its revision.
    pub(super) async fn put(&self, key: &[u8], value: &[u8]) -> Result<u64, String> {
        let answer = self.call("Put", &put_request(key, value)).await?;
        revision(&answer)
    }

    /// Writes a key if its last change was that revision. Gives the new one, or `None` if it was not.
    pub(super) async fn put_if(&self, key: &[u8], value: &[u8], expected: u64) -> Result<Option<u64>, String> {
        // Compare { result: EQUAL (0, left out), target: MOD (2) = field 2, key = 3, mod_revision = 6 }.
        let mut compare = vec![0x10, 2];
        bytes_field(&mut compare, 3, key);
        compare.push(0x30);
        varint(&mut compare, expected);
        // RequestOp { request_put = 2 } in TxnRequest { compare = 1, success = 2 }.
        let mut operation = Vec::new();
        bytes_field(&mut operation, 2, &put_request(key, value));
        let mut transaction = Vec::new();
        bytes_field(&mut transaction, 1, &compare);
        bytes_field(&mut transaction, 2, &operation);
        let answer = self.call("Txn", &transaction).await?;
        let succeeded = fields(&answer)?.into_iter().any(|field| field == Field::Number(2, 1));
        if succeeded { revision(&answer).map(Some) } else { Ok(None) }
    }

    async fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let text = |error: &dyn std::fmt::Display| format!("etcd {method}: {error}");
        let mut sender = self.sender.clone().ready().await.map_err(|error| text(&error))?;
        let request = http::Request::post(format!("http://{}/etcdserverpb.KV/{method}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| text(&error))?;
        let (answer, mut stream) = sender.send_request(request, false).map_err(|error| text(&error))?;
        let mut frame = BytesMut::with_capacity(message.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).map_err(|error| text(&error))?);
        frame.put_slice(message);
        stream.send_data(frame.freeze(), true).map_err(|error| text(&error))?;
        let mut body = answer.await.map_err(|error| text(&error))?.into_body();
        let mut received = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(|error| text(&error))?;
            let _ = body.flow_control().release_capacity(chunk.len());
            received.extend_from_slice(&chunk);
        }
        let trailers = body.trailers().await.map_err(|error| text(&error))?.unwrap_or_default();
        match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
            Some(b"0") if received.len() >= 5 => Ok(received.split_off(5)),
            status => Err(text(&format!("status {status:?}, {:?}", trailers.get("grpc-message")))),
        }
    }
}

/// PutRequest { key = 1, value = 2 }.
fn put_request(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    bytes_field(&mut request, 1, key);
    bytes_field(&mut request, 2, value);
    request
}

/// PutResponse and TxnResponse { header = 1 }, ResponseHeader { revision = 3 }.
fn revision(answer: &[u8]) -> Result<u64, String> {
    for field in fields(answer)? {
        if let Field::Bytes(1, header) = field {
            for field in fields(header)? {
                if let Field::Number(3, revision) = field {
                    return Ok(revision);
                }
            }
        }
    }
    Err("etcd's answer has no revision".to_owned())
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn bytes_field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[derive(Debug, PartialEq, Eq)]
enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

fn fields(mut message: &[u8]) -> Result<Vec<Field<'_>>, String> {
    fn take(message: &mut &[u8]) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = message.split_first().ok_or("a message of etcd's ends early")?;
            *message = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number of etcd's is too long".to_owned())
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = take(&mut message)?;
        match tag & 7 {
            0 => found.push(Field::Number(tag >> 3, take(&mut message)?)),
            2 => {
                let length = usize::try_from(take(&mut message)?).map_err(|error| error.to_string())?;
                let (bytes, rest) = message.split_at_checked(length).ok_or("a message of etcd's ends early")?;
                message = rest;
                found.push(Field::Bytes(tag >> 3, bytes));
            }
            kind => return Err(format!("a message of etcd's has a field of kind {kind}")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut header = vec![0x18];
        varint(&mut header, 300);
        let mut answer = Vec::new();
        bytes_field(&mut answer, 1, &header);
        answer.extend([0x10, 1]);
        assert_eq!(revision(&answer), Ok(300));
        assert_eq!(fields(&answer).unwrap()[1], Field::Number(2, 1));
        assert!(fields(&answer[..3]).is_err(), "a message that ends early is an error");
        assert!(revision(&[]).is_err());
    }
}
