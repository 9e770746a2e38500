//! Both ends over real sockets on loopback: the handshake, its refusals, frames both ways, limits and losses.

use berth_acs::messages::*;
use berth_acs::server_socket::upgrade_response;
use berth_acs::telemetry_framing;
use berth_acs::{
    AcsQuery, AgentConnection, AgentFrame, ConnectError, DialOptions, MAX_FRAME, Refusal, RefusalKind, ServerConnection, ServerFrame,
    SocketError, TelemetryAnswer, TelemetryConnection, TelemetryFrame, TelemetryServerConnection,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Io = TokioIo<Upgraded>;

struct Accepted {
    uri: String,
    headers: HeaderMap,
    io: Io,
}

/// A server that hands over every upgraded connection, or refuses every one.
async fn server(refusal: Option<Refusal>) -> (String, mpsc::Receiver<Accepted>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (accepted, connections) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (accepted, refusal) = (accepted.clone(), refusal.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (accepted, refusal) = (accepted.clone(), refusal.clone());
                async move { Ok::<_, Infallible>(answer(request, accepted, refusal)) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    (endpoint, connections)
}

fn answer(request: Request<Incoming>, accepted: mpsc::Sender<Accepted>, refusal: Option<Refusal>) -> Response<Full<Bytes>> {
    if let Some(refusal) = refusal {
        let body = Full::new(Bytes::from(refusal.render()));
        return Response::builder().status(refusal.kind.status()).body(body).unwrap();
    }
    match upgrade_response(request.headers()) {
        Ok(response) => {
            let (uri, headers) = (request.uri().to_string(), request.headers().clone());
            tokio::spawn(async move {
                let io = TokioIo::new(hyper::upgrade::on(request).await.expect("the upgrade"));
                let _ = accepted.send(Accepted { uri, headers, io }).await;
            });
            response.map(|()| Full::default())
        }
        Err(error) => Response::builder().status(400).body(Full::new(Bytes::from(error.to_string()))).unwrap(),
    }
}

fn query() -> AcsQuery {
    AcsQuery {
        agent_hash: "abc".into(),
        agent_version: "0.1.0".into(),
        cluster: "default".into(),
        container_instance_arn: "arn:aws:ecs:us-east-1:000000000000:container-instance/default/0123".into(),
        docker_version: "DockerVersion: none".into(),
        protocol_version: 2,
        send_credentials: true,
        seq_num: 1,
        berth_heartbeat: true,
        berth_dns: false,
        berth_differences: false,
    }
}

fn sign(host: &str, path_and_query: &str) -> Vec<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(format!("signed {host} {path_and_query}")).unwrap();
    vec![(http::header::AUTHORIZATION, value), (http::header::HOST, HeaderValue::from_static("repeated"))]
}

async fn pair() -> (AgentConnection, ServerConnection<Io>) {
    let (endpoint, mut connections) = server(None).await;
    let agent = AgentConnection::connect(&endpoint, &query().render(), sign, &DialOptions::default()).await.unwrap();
    let accepted = connections.recv().await.unwrap();
    (agent, ServerConnection::new(accepted.io).await)
}

#[tokio::test]
async fn the_handshake_is_signed_over_what_is_sent() {
    let (endpoint, mut connections) = server(None).await;
    AgentConnection::connect(&format!("{endpoint}/"), &query().render(), sign, &DialOptions::default()).await.unwrap();
    let accepted = connections.recv().await.unwrap();
    let (path, sent) = accepted.uri.split_once('?').unwrap();
    assert_eq!((path, AcsQuery::parse(sent)), ("/ws", Ok(query())));
    let host = endpoint.trim_start_matches("http://");
    assert_eq!(accepted.headers.get_all("host").into_iter().collect::<Vec<_>>(), [host]);
    assert_eq!(accepted.headers["authorization"], format!("signed {host} {}", accepted.uri));
}

#[tokio::test]
async fn frames_go_both_ways_in_order() {
    let (mut agent, mut server) = pair().await;
    let payload = PayloadMessage { message_id: "p".into(), tasks: vec![Task { arn: "t".into(), ..Task::default() }], ..Default::default() };
    let frames = [
        ServerFrame::Heartbeat(HeartbeatMessage { healthy: true, message_id: "h".into() }),
        ServerFrame::Payload(payload.into()),
        ServerFrame::Unknown { kind: "Future".into() },
    ];
    server.send_all(&frames).await.unwrap();
    for frame in &frames {
        assert_eq!(&agent.next().await.unwrap().unwrap(), frame);
    }
    let ack = AgentFrame::Ack(AckRequest { message_id: "p".into(), ..AckRequest::default() });
    agent.send_all([&AgentFrame::HeartbeatAck(HeartbeatAckRequest { message_id: "h".into() }), &ack]).await.unwrap();
    assert!(matches!(server.next().await.unwrap().unwrap(), AgentFrame::HeartbeatAck(_)));
    assert_eq!(server.next().await.unwrap().unwrap(), ack);
}

#[tokio::test]
async fn a_close_says_why_and_ends_both_ends() {
    let (mut agent, mut server) = pair().await;
    let reason = "ö".repeat(100);
    server.close(1000, &reason).await.unwrap();
    assert!(agent.next().await.is_none());
    let close = agent.wire_close().unwrap();
    assert_eq!((close.code, close.reason.as_str()), (1000, "ö".repeat(61).as_str()));
    assert!(server.next().await.is_none());
    assert!(agent.next().await.is_none(), "for good");
    assert!(agent.send(&AgentFrame::HeartbeatAck(HeartbeatAckRequest::default())).await.is_err());
}

#[tokio::test]
async fn a_vanished_peer_is_noticed() {
    // As the official agent ends: without a close frame.
    let (agent, mut server) = pair().await;
    drop(agent);
    assert!(server.next().await.unwrap().unwrap_err().is_fatal());
    assert!(server.next().await.is_none());
}

#[tokio::test]
async fn one_bad_frame_does_not_end_the_connection() {
    let (mut agent, mut server) = pair().await;
    let bad = AgentFrame::Unknown { kind: "x".repeat(MAX_FRAME) };
    assert!(matches!(agent.send(&bad).await, Err(SocketError::Frame(_))));
    server.send(&ServerFrame::Close(ExceptionMessage::default())).await.unwrap();
    assert!(agent.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn too_large_a_frame_from_the_wire_ends_the_connection() {
    let (endpoint, mut connections) = server(None).await;
    let mut stream = tokio::net::TcpStream::connect(endpoint.trim_start_matches("http://")).await.unwrap();
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await
        .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    let mut server = ServerConnection::new(connections.recv().await.unwrap().io).await;
    // Malformed, binary, then one that announces two megabytes.
    for frame in [&b"\x81\x82\0\0\0\0{}"[..], b"\x82\x81\0\0\0\0x", b"\x81\xff\0\0\0\0\0\x20\0\0\0\0\0\0"] {
        stream.write_all(frame).await.unwrap();
    }
    let malformed = server.next().await.unwrap().unwrap_err();
    assert!(matches!(malformed, SocketError::Frame(_)) && !malformed.is_fatal(), "{malformed}");
    assert!(matches!(server.next().await.unwrap(), Err(SocketError::Binary)));
    assert!(server.next().await.unwrap().unwrap_err().is_fatal());
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let refusal = Refusal::new(RefusalKind::InactiveInstanceException, "deregistered");
    let (endpoint, _connections) = server(Some(refusal.clone())).await;
    match AgentConnection::connect(&endpoint, &query().render(), sign, &DialOptions::default()).await.err().unwrap() {
        ConnectError::Refused { status: 400, refusal: got } => assert_eq!(got, refusal),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_trusted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dial = async |endpoint: String| AgentConnection::connect(&endpoint, "", sign, &DialOptions::default()).await.err().unwrap();
    assert!(matches!(dial(format!("https://{address}")).await, ConnectError::TlsNotConfigured { .. }));
    // A server that talks of something else.
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await.unwrap();
    });
    assert!(matches!(dial(format!("ws://{address}")).await, ConnectError::NotAWebsocket));
    answering.await.unwrap();
    // The listener is gone with its task.
    assert!(matches!(dial(format!("http://{address}")).await, ConnectError::Tcp { .. }));
}

#[tokio::test]
async fn telemetry_is_signed_frame_by_frame() {
    let (endpoint, mut connections) = server(None).await;
    let mut agent = TelemetryConnection::connect(&endpoint, "cluster=default", sign, &DialOptions::default()).await.unwrap();
    let accepted = connections.recv().await.unwrap();
    let uri = accepted.uri.clone();
    let mut server = TelemetryServerConnection::new(accepted.io).await;
    let frame = TelemetryFrame::Metrics(PublishMetricsRequest { timestamp: 1.5, ..PublishMetricsRequest::default() });
    let sign_body = |host: &str, path: &str, json: &str| {
        vec![("Authorization".to_owned(), format!("signed {path} {}", json.len())), ("Host".to_owned(), host.to_owned())]
    };
    agent.send(&frame, sign_body).await.unwrap();
    let got = server.next().await.unwrap().unwrap();
    assert_eq!(got.frame, frame);
    assert_eq!(got.headers[0], ("Authorization".to_owned(), format!("signed {uri} {}", got.json.len())));
    assert_eq!(got.headers[2], ("content-length".to_owned(), got.json.len().to_string()));
    let rendered = telemetry_framing::render(&got.headers, &got.json).unwrap();
    assert_eq!(telemetry_framing::parse(&rendered).unwrap().1, got.json);
    let answer = got.frame.answer().unwrap();
    server.send(&answer).await.unwrap();
    assert_eq!(agent.next().await.unwrap().unwrap(), answer);
    assert!(matches!(answer, TelemetryAnswer::AckMetrics(_)));
    agent.close(1000, "done").await.unwrap();
    assert!(server.next().await.is_none());
}
