//! The shorter way of large connections between two tasks, with real traffic. Each test runs on a machine of its own.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "one harness for several test programs")]
mod machine;
#[allow(dead_code, reason = "one harness for several test programs")]
mod traffic;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use berth_network::linux::{InterfaceConfig, InterfaceNetwork};
use berth_network::port::Attachment;
use machine::{address, attached, everything, expect_nothing_left, group, held, id, on_machine, table};
use socket2::{Domain, Socket, Type};
use traffic::in_namespace;

const PORT: u16 = 5001;
const FROM: u16 = 40_001;
/// Generous: it only bounds how long a failing test takes.
const PATIENCE: Duration = Duration::from_secs(30);
const MUCH: u64 = 64 << 20;

/// A connection from one task to another that moves bytes until it is told to end.
struct Stream {
    received: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<bool>,
}

/// What a stream consists of: no two places that could be mistaken for each other are alike.
fn pattern() -> Vec<u8> {
    (0..251_u32 * 509).map(|n| (n % 251) as u8 ^ (n / 251) as u8).collect()
}

async fn connected(from: &Attachment, to: &Attachment) -> (TcpStream, TcpStream) {
    let listener = in_namespace(&held(to), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("listen")).await;
    let peer: SocketAddr = SocketAddrV4::new(to.address.expect("an address"), PORT).into();
    let client = in_namespace(&held(from), move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, FROM).into()).expect("the same port each time");
        socket.connect_timeout(&peer.into(), PATIENCE).expect("connect");
        TcpStream::from(socket)
    })
    .await;
    let (server, _) = listener.accept().expect("accept");
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        end.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    }
    (client, server)
}

impl Stream {
    async fn begin(from: &Attachment, to: &Attachment) -> Self {
        let (mut client, mut server) = connected(from, to).await;
        let (received, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, is_over) = (Arc::clone(&received), Arc::clone(&ends));
        let sender = thread::spawn(move || {
            let (pattern, mut sent) = (pattern(), 0);
            while !is_over.load(Ordering::Relaxed) {
                client.write_all(&pattern).expect("send");
                sent += pattern.len() as u64;
            }
            // The receiver ends first: its end of the connection is then the one that lingers.
            assert_eq!(client.read(&mut [0; 1]).expect("the other's end"), 0);
            sent
        });
        let is_over = Arc::clone(&ends);
        let receiver = thread::spawn(move || {
            let (pattern, mut buffer, mut at, mut is_whole, mut has_ended) = (pattern(), vec![0; 128 << 10], 0, true, false);
            loop {
                match server.read(&mut buffer).expect("receive") {
                    0 => return is_whole,
                    length => {
                        is_whole &= buffer[..length].iter().all(|byte| {
                            at = (at + 1) % pattern.len();
                            *byte == pattern[(at + pattern.len() - 1) % pattern.len()]
                        });
                        counted.fetch_add(length as u64, Ordering::Relaxed);
                    }
                }
                if is_over.load(Ordering::Relaxed) && !has_ended {
                    server.shutdown(std::net::Shutdown::Write).expect("end");
                    has_ended = true;
                }
            }
        });
        Self { received, ends, sender, receiver }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    async fn gets(&self, more: u64) {
        let until = self.received() + more;
        wait("bytes go on", async || self.received() >= until).await;
    }

    /// All that was sent came, in order, and both ends saw the end.
    fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender ends well");
        assert!(self.receiver.join().expect("the receiver ends well"), "bytes were lost or mixed up");
        assert_eq!(self.received.load(Ordering::Relaxed), sent);
    }
}

async fn wait(what: &str, is_so: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "in {PATIENCE:?} it was not so that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn shortcuts(network: &InterfaceNetwork) -> Option<usize> {
    network.shortcuts().await.expect("it can be asked")
}

/// Waits until the stream takes the shorter way; `false` if this kernel has none.
async fn is_short(network: &InterfaceNetwork) -> bool {
    wait("the stream takes the shorter way", async || shortcuts(network).await.is_none_or(|count| count == 2)).await;
    let is_short = shortcuts(network).await.is_some();
    if !is_short {
        eprintln!("SKIPPED: this kernel has no bpf_redirect_peer, or does not allow it");
    }
    is_short
}

async fn two_tasks(network: &InterfaceNetwork) -> (Attachment, Attachment) {
    network.apply(&table(&[("sg-x", group(&[everything()], &[everything()]))])).await.expect("apply");
    (attached(network, 5, &["sg-x"]).await, attached(network, 6, &["sg-x"]).await)
}

/// Bytes that the machine sent by its ends of tasks' links: those that took the long way.
fn sent_by_the_machine() -> u64 {
    let links = std::fs::read_to_string("/proc/thread-self/net/dev").expect("links");
    let tasks = links.lines().filter_map(|line| line.trim().split_once(':')).filter(|(name, _)| name.starts_with('t') && name.len() == 13);
    tasks.map(|(_, counts)| counts.split_whitespace().nth(8).expect("sent bytes").parse::<u64>().expect("a number")).sum()
}

#[test]
fn a_large_connection_takes_the_shorter_way_and_ends_like_any_other() {
    on_machine(|machine| async move {
        let network = machine.open();
        let (client, server) = two_tasks(&network).await;
        // The second has the first one's addresses and ports.
        for _ in 0..2 {
            let stream = Stream::begin(&client, &server).await;
            if !is_short(&network).await {
                return stream.end();
            }
            let before = sent_by_the_machine();
            assert!(before > 1 << 20, "{before} bytes took the long way, and it was counted how many came so");
            stream.gets(MUCH).await;
            let long = sent_by_the_machine() - before;
            assert!(long < MUCH / 20, "{long} bytes of {MUCH} took the long way");
            stream.end();
            wait("what ended is forgotten", async || shortcuts(&network).await == Some(0)).await;
        }
        for number in [5, 6] {
            network.detach(&id(number)).await.expect("detach");
        }
        network.shutdown().await.expect("shut down");
        expect_nothing_left(&machine).await;
    });
}

#[test]
fn a_stream_takes_the_long_way_again_and_again_and_stays_whole() {
    const SWEEP: Duration = Duration::from_millis(700);
    on_machine(|machine| async move {
        let network = InterfaceNetwork::open(InterfaceConfig { sweep_every: SWEEP, ..machine.config() }).expect("open");
        let (client, server) = two_tasks(&network).await;
        let stream = Stream::begin(&client, &server).await;
        if !is_short(&network).await {
            return stream.end();
        }
        // Each time tracking sees some of it, and then it takes the shorter way once more.
        for _ in 0..3 {
            let before = sent_by_the_machine();
            wait("much takes the long way", async || sent_by_the_machine() - before > MUCH / 20).await;
            assert!(is_short(&network).await);
        }
        stream.end();
        wait("nothing is left on the shorter way", async || shortcuts(&network).await == Some(0)).await;
    });
}

#[test]
fn who_is_detached_leaves_no_way_to_its_address() {
    on_machine(|machine| async move {
        let network = machine.open();
        let (client, server) = two_tasks(&network).await;
        let stream = Stream::begin(&client, &server).await;
        if !is_short(&network).await {
            return stream.end();
        }
        network.detach(&id(6)).await.expect("detach");
        assert_eq!(shortcuts(&network).await, Some(0));
        // Another task gets the address, and the first one's connections go to it by the rules.
        let next = attached(&network, 6, &["sg-x"]).await;
        assert_eq!(next.address, Some(address(6)));
        let other = traffic::serve_tcp(&held(&next), PORT + 1, "next").await;
        let to = SocketAddrV4::new(address(6), PORT + 1);
        assert_eq!(traffic::dial(Some(&held(&client)), to).await.expect("the next one answers"), "next");
        drop(other);
    });
}

#[test]
fn a_stream_outlives_the_agent_and_gets_its_shorter_way_back() {
    on_machine(|machine| async move {
        let network = machine.open();
        let (client, server) = two_tasks(&network).await;
        let stream = Stream::begin(&client, &server).await;
        if !is_short(&network).await {
            return stream.end();
        }
        drop(network);
        stream.gets(MUCH).await;
        let network = machine.open();
        assert!(is_short(&network).await);
        stream.gets(MUCH).await;
        stream.end();
        wait("what ended is forgotten", async || shortcuts(&network).await == Some(0)).await;
    });
}
