//! Ports that Berth wants for itself and for tasks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::finding::Finding;

/// Whoever serves a port of this machine answers sooner.
const PATIENCE: Duration = Duration::from_secs(2);
/// Fewer and services of many tasks run out of them.
const FEW: usize = 1000;

/// Whether the server can listen where it is told to.
pub(super) fn listen(address: SocketAddr) -> Finding {
    const CHECK: &str = "server port";
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(CHECK, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => match healthy(address) {
            true => Finding::good(CHECK, format!("a Berth serves at {address}")),
            false => Finding::bad(
                CHECK,
                format!("another program listens at {address}"),
                format!("find it with `ss -ltnp sport = :{}`, or give Berth another port with --listen", address.port()),
            ),
        },
        Err(error) => Finding::bad(CHECK, format!("{address}: {error}"), "give an address of this machine with --listen"),
    }
}

/// Whether it is a Berth that answers there.
fn healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The range of which tasks get their dynamic host ports.
pub(super) fn dynamic(range: &RangeInclusive<u16>) -> Finding {
    const CHECK: &str = "dynamic ports";
    let found = format!("{}-{} for tasks without a hostPort", range.start(), range.end());
    if range.clone().count() < FEW {
        return Finding::warning(CHECK, found, "widen it: `sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"`");
    }
    Finding::good(CHECK, found)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_free_port_a_taken_one_and_a_berth() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        let stranger = std::thread::spawn(move || {
            let (mut stream, _) = free.accept().unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked);
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
            free
        });
        assert_eq!(listen(address).verdict, Verdict::Bad);
        let taken = stranger.join().unwrap();
        let berth = std::thread::spawn(move || {
            let (mut stream, _) = taken.accept().unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        });
        assert!(listen(address).found.contains("a Berth serves"));
        berth.join().unwrap();
        assert!(listen("203.0.113.7:1".parse().unwrap()).mend.unwrap().contains("--listen"));
    }

    #[test]
    fn ranges() {
        assert_eq!(dynamic(&(32768..=60999)).verdict, Verdict::Good);
        assert_eq!(dynamic(&(32768..=32800)).verdict, Verdict::Warning);
    }
}
