//! As much of HTTP/1.1 as a page needs: a request's head, read with a bound on its size and on the time it takes.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Largest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// A request's head. Bodies are not read: a request that brings one is the last of its connection.
pub struct Request {
    pub method: String,
    pub path: String,
    query: String,
    /// A browser, rather than curl or a health check.
    pub wants_html: bool,
    pub keep_alive: bool,
}

/// Why there is no request.
#[derive(Debug)]
pub enum Broken {
    Io(io::Error),
    Malformed(&'static str),
}

impl Request {
    /// The next request of a connection, or none if the client is done. `held` keeps what was read beyond it.
    pub fn read(stream: &mut TcpStream, held: &mut Vec<u8>, deadline: Instant) -> Result<Option<Request>, Broken> {
        loop {
            if let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = held.drain(..end + 4).collect();
                return Request::parse(&head[..end]).map(Some);
            }
            if held.len() >= MAX_HEAD {
                return Err(Broken::Malformed("the request head is too large"));
            }
            // One deadline over all reads: a client that sends a byte now and then must not hold the thread.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(left)).map_err(Broken::Io)?;
            let mut piece = [0; 2048];
            match stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(count) => held.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Io(error)),
            }
            if Instant::now() >= deadline {
                return Err(Broken::Io(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    fn parse(head: &[u8]) -> Result<Request, Broken> {
        let head = std::str::from_utf8(head).map_err(|_| Broken::Malformed("the request head is not text"))?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or("").split(' ');
        let (method, target, version) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(method), Some(target), Some(version), None) if version.starts_with("HTTP/1.") => (method, target, version),
            _ => return Err(Broken::Malformed("not an HTTP/1 request")),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request =
            Request { method: method.into(), path: path.into(), query: query.into(), wants_html: false, keep_alive: version != "HTTP/1.0" };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim().to_ascii_lowercase();
            match name.to_ascii_lowercase().as_str() {
                "accept" => request.wants_html |= value.contains("text/html"),
                "connection" if value.contains("close") => request.keep_alive = false,
                "content-length" if value != "0" => request.keep_alive = false,
                "transfer-encoding" => request.keep_alive = false,
                _ => {}
            }
        }
        Ok(request)
    }

    /// A value of the query string, undecoded.
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query.split('&').filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let browser = Request::parse(b"GET /exit?a=1&code=3 HTTP/1.1\r\nAccept: text/html,*/*\r\nHost: x").unwrap();
        assert_eq!((browser.method.as_str(), browser.path.as_str()), ("GET", "/exit"));
        assert_eq!((browser.query("code"), browser.query("b")), (Some("3"), None));
        assert!(browser.wants_html && browser.keep_alive);
        let curl = Request::parse(b"HEAD / HTTP/1.1\r\naccept: */*\r\nConnection: close").unwrap();
        assert!(!curl.wants_html && !curl.keep_alive);
        assert!(!Request::parse(b"POST / HTTP/1.1\r\nContent-Length: 5").unwrap().keep_alive);
        for bad in ["", "GET /", "GET / HTTP/2", "GET / x HTTP/1.1"] {
            assert!(Request::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
