//! The DNS server over real sockets: UDP and TCP, forwarding, loops, bounds, and tables that change under it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_network::dns::{Answer, CurrentTable, Record, Routing, Server, ServerConfig, Table, Upstreams, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record as WireRecord, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Long: nothing here is measured, it only must not hang.
const PATIENCE: Duration = Duration::from_secs(60);

fn request(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

fn table(last: u8) -> Table {
    let record = |name: &str, answers: Vec<Answer>| Record { name: name.into(), ttl_seconds: 10, routing: Routing::Multivalue, answers };
    let long = |number: u8| Answer::Srv { priority: 1, weight: 1, port: 1, target: format!("{}-{number}.ns.local", "m".repeat(60)) };
    let records = vec![
        record("hello", vec![Answer::A(Ipv4Addr::new(10, 0, 0, last))]),
        record("wide", (0..20).map(long).collect()),
        record("out", vec![Answer::Cname("www.example.com".into())]),
    ];
    // Eight targets of more than 60 bytes fit 1,232 bytes; names that are longer still do not.
    let deep =
        |number: u8| Answer::Srv { priority: 1, weight: 1, port: 1, target: format!("{0}.{0}.{0}-{number}.ns.local", "m".repeat(58)) };
    let deep = Zone { name: "deep.local".into(), records: vec![record("srv", (0..9).map(deep).collect())] };
    let (table, problems) = Table::new(u64::from(last), &[Zone { name: "ns.local".into(), records }, deep]);
    assert_eq!(problems, [""; 0]);
    table
}

async fn serve(upstreams: Upstreams) -> (Server, CurrentTable) {
    let tables = CurrentTable::default();
    tables.replace(table(1));
    (Server::start(ServerConfig { listen: LOOPBACK, upstreams }, tables.clone()).await.unwrap(), tables)
}

async fn by_udp(server: SocketAddr, request: &[u8]) -> Message {
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(request).await.unwrap();
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    assert_eq!(buffer[..2], request[..2]);
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn read_tcp(stream: &mut TcpStream) -> Message {
    let length = tokio::time::timeout(PATIENCE, stream.read_u16()).await.expect("an answer").unwrap();
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

async fn write_tcp(stream: &mut TcpStream, request: &[u8]) {
    stream.write_u16(u16::try_from(request.len()).unwrap()).await.unwrap();
    stream.write_all(request).await.unwrap();
}

fn address_of(message: &Message) -> String {
    message.answers.iter().map(|answer| answer.data.to_string()).collect::<Vec<_>>().join(" ")
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

/// How a name server of somebody else behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    /// First what others could have sent: a wrong id, a wrong question, no answer at all.
    AfterForgeries,
    Refuses,
    TruncatesUdp,
}

/// A name server of somebody else's, that knows 192.0.2.7 for every name, and how often it was asked.
async fn other(manner: Manner) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let reply = move |request: &[u8], by_tcp: bool| {
        let question = Message::from_vec(request).unwrap();
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.add_query(question.queries[0].clone());
        match manner {
            Manner::Refuses => answer.metadata.response_code = ResponseCode::Refused,
            Manner::TruncatesUdp if !by_tcp => answer.metadata.truncation = true,
            _ => {
                let data = RData::A("192.0.2.7".parse().unwrap());
                answer.add_answer(WireRecord::from_rdata(question.queries[0].name().clone(), 60, data));
            }
        }
        answer
    };
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let answer = reply(&buffer[..length], false);
            if manner == Manner::AfterForgeries {
                let mut wrong_id = answer.clone();
                wrong_id.metadata.id ^= 1;
                let mut wrong_question = answer.clone();
                wrong_question.queries[0].set_name(Name::from_ascii("forged.example.").unwrap());
                for forged in [wrong_id, wrong_question] {
                    socket.send_to(&forged.to_vec().unwrap(), peer).await.unwrap();
                }
                socket.send_to(b"x", peer).await.unwrap();
                socket.send_to(&buffer[..length], peer).await.unwrap();
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    let count = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let length = stream.read_u16().await.unwrap();
            let mut request = vec![0; usize::from(length)];
            stream.read_exact(&mut request).await.unwrap();
            write_tcp(&mut stream, &reply(&request, true).to_vec().unwrap()).await;
        }
    });
    (address, asked)
}

#[tokio::test]
async fn names_are_answered_over_udp_and_tcp_and_a_new_table_at_once() {
    let (server, tables) = serve(Upstreams::fixed(Vec::new())).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    for last in 2..20 {
        tables.replace(table(last));
        let wanted = format!("10.0.0.{last}");
        assert_eq!(address_of(&by_udp(server.address(), &request(7, "Hello.NS.local.", RecordType::A)).await), wanted);
        write_tcp(&mut stream, &request(8, "hello.ns.local.", RecordType::A)).await;
        assert_eq!(address_of(&read_tcp(&mut stream).await), wanted);
    }
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_comes_by_tcp() {
    let (server, _) = serve(Upstreams::fixed(Vec::new())).await;
    assert_eq!(by_udp(server.address(), &request(1, "wide.ns.local.", RecordType::SRV)).await.answers.len(), 8);
    let asked = request(9, "srv.deep.local.", RecordType::SRV);
    let cut = by_udp(server.address(), &asked).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    write_tcp(&mut stream, &asked).await;
    let whole = read_tcp(&mut stream).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 8);
}

#[tokio::test]
async fn names_of_others_are_asked_for_elsewhere_and_ours_never() {
    let (upstream, asked) = other(Manner::AfterForgeries).await;
    let (server, _) = serve(Upstreams::fixed(vec![upstream])).await;
    let answer = by_udp(server.address(), &request(0x4711, "www.Example.com.", RecordType::A)).await;
    assert_eq!(address_of(&answer), "192.0.2.7");
    assert_eq!(answer.queries[0].name().to_ascii(), "www.Example.com.");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(code(&by_udp(server.address(), &request(2, "gone.ns.local.", RecordType::A)).await), ResponseCode::NXDomain);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "our names are nobody else's");
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    write_tcp(&mut stream, &request(3, "example.com.", RecordType::A)).await;
    assert_eq!(address_of(&read_tcp(&mut stream).await), "192.0.2.7");
}

#[tokio::test]
async fn an_alias_that_leads_away_is_whole() {
    for manner in [Manner::Answers, Manner::TruncatesUdp] {
        let (upstream, _) = other(manner).await;
        let (server, _) = serve(Upstreams::fixed(vec![upstream])).await;
        let answer = by_udp(server.address(), &request(4, "out.ns.local.", RecordType::A)).await;
        assert_eq!(address_of(&answer), "www.example.com. 192.0.2.7");
        assert_eq!(answer.queries[0].name().to_ascii(), "out.ns.local.");
    }
    let (server, _) = serve(Upstreams::fixed(Vec::new())).await;
    assert_eq!(code(&by_udp(server.address(), &request(4, "out.ns.local.", RecordType::A)).await), ResponseCode::ServFail);
}

#[tokio::test]
async fn the_next_name_server_is_asked_where_one_is_of_no_use() {
    let (refuses, refused) = other(Manner::Refuses).await;
    let (answers, _) = other(Manner::Answers).await;
    // Nobody listens there: the port was free a moment ago.
    let nobody = UdpSocket::bind(LOOPBACK).await.unwrap().local_addr().unwrap();
    let (server, _) = serve(Upstreams::fixed(vec![nobody, refuses, answers])).await;
    assert_eq!(address_of(&by_udp(server.address(), &request(5, "example.com.", RecordType::A)).await), "192.0.2.7");
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    let (server, _) = serve(Upstreams::fixed(vec![refuses])).await;
    assert_eq!(code(&by_udp(server.address(), &request(6, "example.com.", RecordType::A)).await), ResponseCode::Refused);
    let (server, _) = serve(Upstreams::fixed(vec![nobody])).await;
    assert_eq!(code(&by_udp(server.address(), &request(6, "example.com.", RecordType::A)).await), ResponseCode::ServFail);
}

#[tokio::test]
async fn without_anybody_to_ask_and_with_nobody_but_itself_the_answer_is_servfail() {
    let port = std::net::UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let upstreams = Upstreams::fixed(vec![port]);
    let server = Server::start(ServerConfig { listen: port, upstreams }, CurrentTable::default()).await.unwrap();
    let asked = request(1, "example.com.", RecordType::A);
    assert_eq!(code(&by_udp(server.address(), &asked).await), ResponseCode::ServFail);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    write_tcp(&mut stream, &asked).await;
    assert_eq!(code(&read_tcp(&mut stream).await), ResponseCode::ServFail);
}

#[tokio::test]
async fn a_silent_name_server_holds_up_so_many_and_no_more() {
    let silent = UdpSocket::bind(LOOPBACK).await.unwrap();
    let (server, _) = serve(Upstreams::fixed(vec![silent.local_addr().unwrap()])).await;
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(server.address()).await.unwrap();
    // The first ones wait for the silent one; what comes beyond them is refused before they are through.
    let mut refused = false;
    let mut buffer = [0; 512];
    for id in 0..2000_u16 {
        socket.send(&request(id, "example.com.", RecordType::A)).await.unwrap();
        tokio::task::yield_now().await;
        if let Ok(length) = socket.try_recv(&mut buffer) {
            let id = u16::from_be_bytes([buffer[0], buffer[1]]);
            assert_eq!(code(&Message::from_vec(&buffer[..length]).unwrap()), ResponseCode::ServFail);
            refused |= id >= 512;
        }
    }
    while !refused {
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        assert!(length > 0);
        refused = u16::from_be_bytes([buffer[0], buffer[1]]) >= 512;
    }
    assert_eq!(address_of(&by_udp(server.address(), &request(1, "hello.ns.local.", RecordType::A)).await), "10.0.0.1", "ours go on");
}

#[tokio::test]
async fn nonsense_does_no_harm_and_long_messages_end_a_connection() {
    let (server, _) = serve(Upstreams::fixed(Vec::new())).await;
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(server.address()).await.unwrap();
    for nonsense in [&b""[..], b"x", &[0xff; 12], &[0; 12], &[0xc0; 4096]] {
        socket.send(nonsense).await.unwrap();
    }
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_u16(u16::MAX).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("it is closed");
    assert!(ended.is_err());
    assert_eq!(address_of(&by_udp(server.address(), &request(1, "hello.ns.local.", RecordType::A)).await), "10.0.0.1");
    let address = server.address();
    let again = || Server::start(ServerConfig { listen: address, upstreams: Upstreams::fixed(Vec::new()) }, CurrentTable::default());
    assert!(again().await.is_err(), "the address is taken");
    server.end().await;
    assert_eq!(again().await.expect("the address is free at once").address(), address);
}
