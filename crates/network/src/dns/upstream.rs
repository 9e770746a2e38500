//! Who is asked for names of others: the machine's own name servers, as its resolv.conf has them now, or those that somebody set.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The port of DNS.
const PORT: u16 = 53;
/// As many as a resolver looks at (resolv.conf(5), MAXNS).
const MOST: usize = 3;
/// How long a file is believed before it is read again: networks change under a machine.
const BELIEVED: Duration = Duration::from_secs(5);
/// Longest resolv.conf that is read.
const MOST_BYTES: u64 = 64 * 1024;

/// Where names of others are asked for.
#[derive(Debug)]
pub struct Upstreams(Source);

#[derive(Debug)]
enum Source {
    Fixed(Vec<SocketAddr>),
    File { path: PathBuf, read: Mutex<Option<(Instant, Vec<SocketAddr>)>> },
}

impl Upstreams {
    /// These, in order.
    #[must_use]
    pub fn fixed(servers: Vec<SocketAddr>) -> Self {
        Self(Source::Fixed(servers))
    }

    /// Those of a resolv.conf. It is read again while the server runs; where it cannot be read there are none.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File { path: path.into(), read: Mutex::new(None) })
    }

    /// Whom to ask now, first to last; never one of `own`, which are the addresses of the one who asks.
    #[must_use]
    pub fn now(&self, own: &[SocketAddr]) -> Vec<SocketAddr> {
        let servers = match &self.0 {
            Source::Fixed(servers) => servers.clone(),
            Source::File { path, read } => {
                let mut read = read.lock();
                match &*read {
                    Some((at, servers)) if at.elapsed() < BELIEVED => servers.clone(),
                    _ => {
                        let servers = name_servers(&text(path));
                        *read = Some((Instant::now(), servers.clone()));
                        servers
                    }
                }
            }
        };
        servers.into_iter().filter(|server| !own.iter().any(|own| is_same(*own, *server))).take(MOST).collect()
    }
}

fn text(path: &std::path::Path) -> String {
    use std::io::Read;
    let mut text = String::new();
    // Without it there is nobody to ask, which whoever asks is told.
    if let Ok(file) = std::fs::File::open(path)
        && let Err(error) = file.take(MOST_BYTES).read_to_string(&mut text)
    {
        tracing::debug!(path = %path.display(), %error, "name servers cannot be read");
    }
    text
}

/// Whether what is sent to one reaches the other: who listens on all addresses has the machine's own too.
fn is_same(own: SocketAddr, other: SocketAddr) -> bool {
    own.port() == other.port() && (own.ip() == other.ip() || own.ip().is_unspecified() && other.ip().is_loopback())
}

/// The name servers of a resolv.conf (resolv.conf(5)), in order; what is no address is passed over, as resolvers do.
#[must_use]
pub fn name_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // A link-local address may name its interface, which the standard library has no word for.
        address.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT))
    };
    resolv_conf.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn resolv_conf_as_resolvers_read_it() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.2\n\tnameserver   fd00::1  \nnameserver x\noptions ndots:2\nnameservers 1.1.1.1\n";
        assert_eq!(name_servers(text), addresses(&["10.0.0.2:53", "[fd00::1]:53"]));
        assert_eq!(name_servers(""), []);
    }

    #[test]
    fn nobody_asks_itself() {
        let upstreams = Upstreams::fixed(addresses(&["127.0.0.1:53", "10.0.0.2:53", "10.0.0.2:54", "10.0.0.3:53", "10.0.0.4:53"]));
        assert_eq!(upstreams.now(&addresses(&["10.0.0.2:53"])), addresses(&["127.0.0.1:53", "10.0.0.2:54", "10.0.0.3:53"]));
        assert_eq!(upstreams.now(&addresses(&["0.0.0.0:53"]))[0], addresses(&["10.0.0.2:53"])[0]);
    }

    #[test]
    fn a_file_that_is_not_there_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        assert_eq!(Upstreams::file(&path).now(&[]), []);
        std::fs::write(&path, "nameserver 10.0.0.2\n").unwrap();
        assert_eq!(Upstreams::file(&path).now(&[]), addresses(&["10.0.0.2:53"]));
    }
}
