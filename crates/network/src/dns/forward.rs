//! Asking others: one request to one name server after the other, until one says something. Ids and ports of questions cannot be guessed,
//! and what does not belong to a question is not taken for its answer (RFC 5452).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::reply;
use super::tcp;
use super::verdict::Transport;

/// How long one name server may take. Clients ask again after five seconds, and by then all of them should have been tried.
const PATIENCE: Duration = Duration::from_millis(1600);
/// Longest datagram that is read. Answers are as long as the client allowed, which hardly ever is more than 4,096.
const MOST_DATAGRAM: usize = 8 * 1024;
/// Datagrams that belong to no question before a try counts as failed: somebody is guessing.
const MOST_STRANGERS: usize = 64;
/// SERVFAIL, NOTIMP and REFUSED: what makes a resolver ask its next name server.
const NOT_HERE: [u8; 3] = [2, 4, 5];

/// Asks each in turn. The answer has the request's own id. `None`: nobody answered.
pub(super) async fn ask(servers: &[SocketAddr], request: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let question = reply::question(request)?;
    let mut last = None;
    for server in servers {
        // The system's own source of randomness failing is a reason to ask nobody.
        let id = getrandom::u32().ok()?.to_be_bytes();
        let id = [id[0], id[1]];
        let mut asked = request.to_vec();
        asked[..2].copy_from_slice(&id);
        let attempt = async {
            match transport {
                Transport::Udp => by_udp(*server, &asked, id, question).await,
                Transport::Tcp => by_tcp(*server, &asked, id, question).await,
            }
        };
        match timeout(PATIENCE, attempt).await {
            Ok(Ok(mut answer)) => {
                answer[..2].copy_from_slice(&request[..2]);
                let is_final = !NOT_HERE.contains(&(answer[3] & 0x0f));
                last = Some(answer);
                if is_final {
                    break;
                }
            }
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
            Err(_) => tracing::debug!(%server, "a name server does not answer"),
        }
    }
    last
}

async fn by_udp(server: SocketAddr, request: &[u8], id: [u8; 2], question: &[u8]) -> io::Result<Vec<u8>> {
    // A port of its own for each question; the kernel picks one at random. Connected: others' datagrams do not get in.
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; MOST_DATAGRAM];
    for _ in 0..MOST_STRANGERS {
        let length = socket.recv(&mut buffer).await?;
        if !reply::answers(&buffer[..length], id, question) {
            continue;
        }
        if length == MOST_DATAGRAM {
            // Its end may be cut off.
            let whole = reply::truncated(request, reply::question_end(request));
            return whole.ok_or_else(|| io::Error::other("the answer is too long"));
        }
        buffer.truncate(length);
        return Ok(buffer);
    }
    Err(io::Error::other("too many datagrams that answer nothing"))
}

async fn by_tcp(server: SocketAddr, request: &[u8], id: [u8; 2], question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    tcp::write(&mut stream, request).await?;
    let answer = tcp::read(&mut stream, usize::from(u16::MAX)).await?;
    match answer.filter(|answer| reply::answers(answer, id, question)) {
        Some(answer) => Ok(answer),
        None => Err(io::Error::other("what came is no answer to the question")),
    }
}
