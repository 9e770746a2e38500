//! For tests: an HTTP server on loopback that checks signatures and answers operations from a closure.

use std::sync::Arc;

use berth_identity::{AccessKey, RequestParts, StaticKeys, Verifier, VerifierOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::connection::Connection;
use crate::console::{Colours, Console};

/// What the closure answers: a body, or an HTTP status with one.
pub(crate) type Answer = Result<Value, (u16, Value)>;

/// A server that ends with the test's runtime.
pub(crate) struct FakeServer {
    pub url: String,
}

fn key() -> AccessKey {
    AccessKey::long_term("AKIATEST", "secret", "arn:aws:iam::000000000000:root")
}

/// A connection with the key the server knows.
pub(crate) fn connection(url: &str) -> Connection {
    Connection {
        endpoint: url.parse().unwrap(),
        endpoint_source: "AWS_ENDPOINT_URL".into(),
        region: "us-east-1".into(),
        key: key(),
        ca_bundle: None,
    }
}

impl FakeServer {
    pub async fn start(answer: impl Fn(&str, Value) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = Arc::new(answer);
        let verifier = Arc::new(Verifier::new(VerifierOptions::default()));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&answer), Arc::clone(&verifier)));
            }
        });
        Self { url }
    }
}

async fn serve(mut socket: TcpStream, answer: Arc<impl Fn(&str, Value) -> Answer>, verifier: Arc<Verifier>) {
    let mut received = Vec::new();
    loop {
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
            if socket.read_buf(&mut received).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8(received[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        let (method, path) = (first.next().unwrap(), first.next().unwrap());
        let headers: Vec<(String, String)> =
            lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        let length = header("content-length").map_or(0, |text| text.parse().unwrap());
        while received.len() < end + 4 + length {
            if socket.read_buf(&mut received).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body: Vec<u8> = received.drain(..end + 4 + length).skip(end + 4).collect();
        let answered = if path == "/healthz" {
            Ok(json!("ok"))
        } else {
            let parts = RequestParts { method, path_and_query: path, headers: &headers, body: &body };
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            match verifier.verify(&parts, now as i64, &StaticKeys::new([key()])) {
                Err(error) => Err((error.http_status(), json!({"__type": error.code(), "message": error.to_string()}))),
                Ok(_) => {
                    let target = header("x-amz-target").unwrap();
                    answer(target.split_once('.').unwrap().1, serde_json::from_slice(&body).unwrap())
                }
            }
        };
        let (status, body) = answered.map_or_else(|refusal| refusal, |body| (200, body));
        let body = body.to_string();
        let response = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if socket.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What a command wrote.
#[derive(Default)]
pub(crate) struct Written {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Written {
    /// A console without colours that writes here.
    pub fn console(&mut self) -> Console<'_> {
        Console { out: &mut self.out, err: &mut self.err, colours: Colours::Off, moving: false, live: false }
    }

    pub fn out(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub fn err(&self) -> &str {
        std::str::from_utf8(&self.err).unwrap()
    }
}
