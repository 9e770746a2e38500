//! The sockets: datagrams and connections in, answers out. Everything that somebody else can make large has a bound.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::random::Random;
use super::table::Table;
use super::upstream::Upstreams;
use super::verdict::{Chase, Transport, Verdict, verdict};
use super::{forward, reply, tcp};
use hickory_proto::op::ResponseCode;

/// Questions to others that are under way at once; beyond it the answer is SERVFAIL at once, and clients try again.
const MOST_FORWARDED: usize = 512;
/// Connections at once; further ones wait to be accepted, in a queue of the kernel's that has a bound.
const MOST_CONNECTIONS: usize = 256;
/// Longest request. A question with its name is below 300 bytes; options may add some.
const MOST_REQUEST: usize = 4096;
/// How long a connection may say nothing, or take nothing (RFC 7766, 6.2.3 wants seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Datagrams in a row before others get their turn on this thread.
const BATCH: usize = 64;
/// Bytes that the kernel keeps of datagrams not yet read: some thousands of questions at once, asked by as many starting containers.
const RECEIVE_BUFFER: usize = 1 << 20;
/// How long to wait where the machine is out of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The table that is in force. Clones share it; a new one counts for the next question.
#[derive(Debug, Clone, Default)]
pub struct CurrentTable(Arc<RwLock<Arc<Table>>>);

impl CurrentTable {
    /// Puts a table in force.
    pub fn replace(&self, table: Table) {
        let old = std::mem::replace(&mut *self.0.write(), Arc::new(table));
        // Outside the lock: a large table takes a while to be let go.
        drop(old);
    }

    /// The table in force now.
    #[must_use]
    pub fn now(&self) -> Arc<Table> {
        Arc::clone(&self.0.read())
    }
}

/// Settings of a [`Server`].
#[derive(Debug)]
pub struct ServerConfig {
    /// Where it listens, over UDP and TCP. Port 0: one that is free for both.
    pub listen: SocketAddr,
    /// Who is asked for names of others.
    pub upstreams: Upstreams,
}

/// A running DNS server. Dropping it ends it soon, with whatever is under way.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    loops: JoinSet<()>,
}

struct Shared {
    table: CurrentTable,
    upstreams: Upstreams,
    own: [SocketAddr; 1],
    forwarded: Arc<Semaphore>,
}

impl Server {
    /// Takes the address and begins to answer.
    ///
    /// # Errors
    /// Whatever the machine says against listening there, such as that somebody else does.
    pub async fn start(config: ServerConfig, table: CurrentTable) -> io::Result<Self> {
        let (udp, listener) = bind(config.listen).await?;
        let address = udp.local_addr()?;
        let forwarded = Arc::new(Semaphore::new(MOST_FORWARDED));
        let shared = Arc::new(Shared { table, upstreams: config.upstreams, own: [address], forwarded });
        let seed = seed()?;
        let mut loops = JoinSet::new();
        loops.spawn(datagrams(shared.clone(), Arc::new(udp), Random::seeded(seed)));
        loops.spawn(connections(shared, listener));
        Ok(Self { address, loops })
    }

    /// Ends it, with whatever is under way. Then the address is free.
    pub async fn end(mut self) {
        self.loops.shutdown().await;
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn seed() -> io::Result<u64> {
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}

async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    const ATTEMPTS: usize = 16;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let udp = UdpSocket::bind(listen).await?;
        if let Err(error) = socket2::SockRef::from(&udp).set_recv_buffer_size(RECEIVE_BUFFER) {
            tracing::debug!(%error, "the machine's usual room for datagrams is kept");
        }
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(listener) => return Ok((udp, listener)),
            // Any port will do, and this one is taken for TCP.
            Err(error) if listen.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// Answers datagrams as they come, here and now: looking a name up takes less than to hand it to somebody else would.
async fn datagrams(shared: Arc<Shared>, socket: Arc<UdpSocket>, mut random: Random) {
    let mut buffer = [0; MOST_REQUEST];
    let mut forwards = JoinSet::new();
    loop {
        // An error is some earlier datagram's, such as a client that has gone.
        if socket.readable().await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        let table = shared.table.now();
        for turn in 0..BATCH {
            let (length, peer) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            let request = &buffer[..length];
            match verdict(&table, request, Transport::Udp, &mut random) {
                Verdict::Answer(answer) => send(&socket, &answer, peer).await,
                Verdict::Silence => {}
                open => match shared.open(open, request, peer, Transport::Udp) {
                    Err(refusal) => send(&socket, &refusal.unwrap_or_default(), peer).await,
                    Ok(work) => {
                        let socket = socket.clone();
                        forwards.spawn(async move { send(&socket, &work.await.unwrap_or_default(), peer).await });
                    }
                },
            }
            if turn + 1 == BATCH {
                tokio::task::yield_now().await;
            }
        }
        while forwards.try_join_next().is_some() {}
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], peer: SocketAddr) {
    if answer.is_empty() {
        return;
    }
    let sent = match socket.try_send_to(answer, peer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.send_to(answer, peer).await,
        other => other,
    };
    if let Err(error) = sent {
        tracing::debug!(%peer, %error, "an answer cannot be sent");
    }
}

async fn connections(shared: Arc<Shared>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut served = JoinSet::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let shared = shared.clone();
                served.spawn(async move {
                    if let Err(error) = connection(&shared, stream, peer).await {
                        tracing::debug!(%peer, %error, "a connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while served.try_join_next().is_some() {}
    }
}

/// One request after the other: a client that sends many at once waits for itself alone.
async fn connection(shared: &Shared, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let mut random = Random::seeded(seed()?);
    while let Some(request) = timeout(IDLE, tcp::read(&mut stream, MOST_REQUEST)).await?? {
        let decided = verdict(&shared.table.now(), &request, Transport::Tcp, &mut random);
        let answer = match decided {
            Verdict::Answer(answer) => Some(answer),
            Verdict::Silence => return Ok(()),
            open => match shared.open(open, &request, peer, Transport::Tcp) {
                Err(refusal) => refusal,
                Ok(work) => work.await,
            },
        };
        let Some(answer) = answer else { return Ok(()) };
        timeout(IDLE, tcp::write(&mut stream, &answer)).await??;
    }
    Ok(())
}

impl Shared {
    /// What is to be awaited for the answer to a request that somebody else has to be asked for, or the answer where nobody is asked.
    fn open(
        &self,
        verdict: Verdict,
        request: &[u8],
        peer: SocketAddr,
        transport: Transport,
    ) -> Result<impl Future<Output = Option<Vec<u8>>> + Send + use<>, Option<Vec<u8>>> {
        let refusal = |code| reply::bare(request, code, reply::question_end(request));
        // A resolver of this machine that was told to ask us, and whom we ask: what neither knows would go round for ever. Containers
        // have addresses of their own.
        if !self.own[0].ip().is_loopback() && is_this_machines(peer.ip()) {
            return Err(refusal(ResponseCode::Refused));
        }
        let servers = self.upstreams.now(&self.own);
        if servers.is_empty() {
            return Err(refusal(ResponseCode::ServFail));
        }
        let Ok(permit) = Arc::clone(&self.forwarded).try_acquire_owned() else { return Err(refusal(ResponseCode::ServFail)) };
        let failed = refusal(ResponseCode::ServFail);
        let request = request.to_vec();
        Ok(async move {
            let answer = match verdict {
                Verdict::Chase(chase) => chased(*chase, &servers).await,
                _ => forward::ask(&servers, &request, transport).await,
            };
            drop(permit);
            answer.or(failed)
        })
    }
}

/// Whether an address is one of this machine's: only then can it be bound. Which one its own questions come from is not known beforehand, since
/// they may be masqueraded.
fn is_this_machines(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// The rest of an answer that leads out of what is ours.
async fn chased(chase: Chase, servers: &[SocketAddr]) -> Option<Vec<u8>> {
    let request = chase.request(0)?;
    let mut answer = forward::ask(servers, &request, Transport::Udp).await;
    if answer.as_deref().is_some_and(reply::is_truncated) {
        answer = forward::ask(servers, &request, Transport::Tcp).await;
    }
    chase.finish(answer.as_deref())
}
