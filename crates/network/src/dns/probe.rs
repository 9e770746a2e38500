//! Whether containers reach a DNS server: a machine's firewall may let nothing from them to the machine itself, and who asks such a server waits
//! for seconds each time. Asked from inside a namespace that is connected as theirs are.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// What [`super::verdict`] answers at once whatever the table is: a question in no class of ours.
const QUESTION: &[u8] = b"\xbe\x70\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x03";
const TRIES: u32 = 3;
/// For one try; the way is a few microseconds long.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether a DNS server of ours answers to the inside of a network namespace. Blocks for some milliseconds, or 1.5 seconds where nothing comes
/// back.
///
/// # Errors
/// Whatever the machine says against asking from there; then nothing is known.
pub fn answers_inside(namespace: &Path, server: SocketAddr) -> io::Result<bool> {
    let file = std::fs::File::open(namespace)?;
    // A thread of its own, that ends afterwards: it never comes back out of the namespace.
    let thread = std::thread::Builder::new().name("berth-dns-probe".into()).spawn(move || {
        enter(&file)?;
        ask(server)
    })?;
    thread.join().map_err(|_| io::Error::other("the thread that asks panicked"))?
}

#[cfg(target_os = "linux")]
fn enter(namespace: &std::fs::File) -> io::Result<()> {
    Ok(nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?)
}

#[cfg(not(target_os = "linux"))]
fn enter(_: &std::fs::File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn ask(server: SocketAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 512];
    for _ in 0..TRIES {
        // What is refused or lost is as good as not answered.
        if socket.send(QUESTION).is_ok()
            && let Ok(length) = socket.recv(&mut answer)
            && super::reply::answers(&answer[..length], [QUESTION[0], QUESTION[1]], super::reply::question(QUESTION).unwrap_or_default())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::{CurrentTable, Server, ServerConfig, Upstreams};
    use super::*;

    #[tokio::test]
    async fn one_that_answers_and_one_that_does_not() {
        let config = ServerConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), upstreams: Upstreams::fixed(Vec::new()) };
        let server = Server::start(config, CurrentTable::default()).await.unwrap();
        let address = server.address();
        let asked = |address| tokio::task::spawn_blocking(move || ask(address));
        assert!(asked(address).await.unwrap().unwrap());
        server.end().await;
        assert!(!asked(address).await.unwrap().unwrap());
        assert!(answers_inside(Path::new("/proc/none"), address).is_err());
    }
}
