//! Servers and clients inside namespaces.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use berth_network::port::Attachment;
use nix::sched::{CloneFlags, setns};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UdpSocket};

/// Generous: it only bounds how long a failing test takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a call that must fail may take where packets are dropped without an answer.
const BRIEF: Duration = Duration::from_millis(400);

/// The namespace of an attachment of a network that holds them.
pub fn held(attachment: &Attachment) -> &Path {
    attachment.namespace.as_deref().expect("a namespace")
}

/// Runs `work` on a thread inside a namespace; sockets it returns stay there.
pub async fn in_namespace<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    on_thread(Some(namespace), work).await
}

async fn on_thread<T: Send + 'static>(namespace: Option<&Path>, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = namespace.map(|path| File::open(path).expect("open the namespace"));
    let (sender, receiver) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        if let Some(namespace) = namespace {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
        }
        drop(sender.send(work()));
    });
    receiver.await.expect("the thread ends with a result")
}

/// A server inside a namespace; its sockets keep the namespace alive until it is dropped.
#[must_use]
pub struct Server(tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers each connection to `port` with `greeting`.
pub async fn serve_tcp(namespace: &Path, port: u16, greeting: &str) -> Server {
    let listener = in_namespace(namespace, move || std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).await.expect("listen");
    listener.set_nonblocking(true).expect("non-blocking");
    let listener = TcpListener::from_std(listener).expect("a listener");
    let greeting = greeting.to_owned();
    Server(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let greeting = greeting.clone();
            tokio::spawn(async move { stream.write_all(greeting.as_bytes()).await });
        }
    }))
}

/// Answers each datagram to `port` with `greeting`.
pub async fn serve_udp(namespace: &Path, port: u16, greeting: &str) -> Server {
    let socket = in_namespace(namespace, move || std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).await.expect("bind");
    socket.set_nonblocking(true).expect("non-blocking");
    let socket = UdpSocket::from_std(socket).expect("a socket");
    let greeting = greeting.to_owned();
    Server(tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((_, sender)) = socket.recv_from(&mut buffer).await {
            drop(socket.send_to(greeting.as_bytes(), sender).await);
        }
    }))
}

/// Connects and reads to the end; from the machine, or from within a namespace.
pub async fn dial(from: Option<&Path>, to: SocketAddrV4) -> io::Result<String> {
    dial_within(from, to, PATIENCE).await
}

/// Like [`dial`], for a call that is expected to get no answer at all.
pub async fn dial_briefly(from: Option<&Path>, to: SocketAddrV4) -> io::Result<String> {
    dial_within(from, to, BRIEF).await
}

async fn dial_within(from: Option<&Path>, to: SocketAddrV4, patience: Duration) -> io::Result<String> {
    on_thread(from, move || {
        let mut stream = TcpStream::connect_timeout(&to.into(), patience)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .await
}

/// Sends a datagram and waits for the answer, trying again as UDP clients do.
pub async fn exchange(client: &UdpSocket, to: SocketAddrV4) -> io::Result<String> {
    let mut buffer = [0; 64];
    for _ in 0..20 {
        // A refusal of an earlier datagram may come up in any call.
        drop(client.send_to(b"?", to).await);
        if let Ok(Ok((length, _))) = tokio::time::timeout(Duration::from_secs(1), client.recv_from(&mut buffer)).await {
            return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Whether a datagram from a new socket brings an answer. One that is dropped is waited for briefly.
pub async fn udp_arrives(from: PathBuf, to: SocketAddrV4) -> bool {
    in_namespace(&from, move || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
        socket.set_read_timeout(Some(BRIEF)).expect("a timeout");
        drop(socket.send_to(b"?", to));
        socket.recv_from(&mut [0; 64]).is_ok()
    })
    .await
}

/// Whether an echo request of a new identifier is answered.
pub async fn ping(from: &Path, to: Ipv4Addr) -> bool {
    in_namespace(from, move || {
        use nix::sys::socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket, sockopt,
        };
        use nix::sys::time::{TimeVal, TimeValLike};
        use std::os::fd::AsRawFd;

        let echo = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp).expect("a ping socket");
        setsockopt(&echo, sockopt::ReceiveTimeout, &TimeVal::milliseconds(400)).expect("a timeout");
        // Type 8, code 0; the kernel fills in checksum and identifier.
        let request = [8, 0, 0, 0, 0, 0, 0, 1];
        let address: SockaddrIn = SocketAddrV4::new(to, 0).into();
        let sent = sendto(echo.as_raw_fd(), &request, &address, MsgFlags::empty());
        sent.is_ok() && recv(echo.as_raw_fd(), &mut [0; 64], MsgFlags::empty()).is_ok()
    })
    .await
}
