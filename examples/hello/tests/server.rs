//! The server as a process: what it answers, that it stops on SIGTERM, and that it survives bad company.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(environment: &[(&str, &str)]) -> Server {
        let mut process = Command::new(env!("CARGO_BIN_EXE_hello"))
            .env_clear()
            .env("PORT", "0")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let port = line.trim().rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
        Server { process, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("connect");
        stream.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer
    }

    fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn pages() {
    let server = Server::start(&[("COLOUR", "blue")]);
    let text = server.get("/");
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("text/plain") && text.contains("requests: 1\n"), "{text}");
    let html = server.send("GET / HTTP/1.1\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
    assert!(html.contains("<!doctype html>") && html.contains("<dd>2</dd>"), "{html}");
    assert!(server.get("/healthz").ends_with("\r\n\r\nok\n"));
    assert!(server.get("/env").ends_with("\r\n\r\nCOLOUR=blue\nPORT=0\n"));
    assert!(server.get("/nowhere").starts_with("HTTP/1.1 404"));
    assert!(server.get("/exit?code=abc").starts_with("HTTP/1.1 400"));
    assert!(server.send("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi").starts_with("HTTP/1.1 405"));
    assert!(server.send("nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn one_connection_carries_several_requests() {
    let server = Server::start(&[]);
    let one = "GET /healthz HTTP/1.1\r\n\r\n";
    let answer = server.send(&format!("{one}{one}GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"));
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
}

#[test]
fn exits_with_the_code_asked_for() {
    let mut server = Server::start(&[]);
    assert!(server.get("/exit?code=42").ends_with("exiting with 42\n"));
    assert_eq!(server.process.wait().expect("wait").code(), Some(42));
}

#[test]
fn stops_on_sigterm_with_silent_connections_open() {
    let mut server = Server::start(&[]);
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(server.address).expect("connect")).collect();
    assert!(server.get("/healthz").contains("ok"), "silent connections hold nobody up");
    // SAFETY: the process is our own child and not yet waited for.
    assert_eq!(unsafe { libc::kill(server.process.id() as libc::pid_t, libc::SIGTERM) }, 0);
    assert_eq!(server.process.wait().expect("wait").code(), Some(0));
    drop(silent);
}

#[test]
fn names_the_task_by_its_metadata() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let endpoint = format!("http://{}/v4/abc", listener.local_addr().expect("address"));
    let metadata = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let head: Vec<String> = BufReader::new(&stream).lines().map(|l| l.expect("request")).take_while(|l| !l.is_empty()).collect();
        let body = "{\"Cluster\":\"default\",\"TaskARN\":\"arn:aws:ecs:us-east-1:000000000000:task/default/0123\"}";
        write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}").expect("answer");
        head
    });
    let server = Server::start(&[("ECS_CONTAINER_METADATA_URI_V4", &endpoint)]);
    assert!(server.get("/").contains("arn:aws:ecs:us-east-1:000000000000:task/default/0123"));
    assert_eq!(metadata.join().expect("metadata")[0], "GET /v4/abc/task HTTP/1.0");
    assert!(server.get("/").contains("task/default/0123"), "kept, for the endpoint is gone by now");
}

#[test]
fn a_bad_port_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_hello")).env("PORT", "http").output().expect("run");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("PORT"));
}
