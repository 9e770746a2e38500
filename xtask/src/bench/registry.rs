//! The smallest registry that a runtime can pull from, on loopback: it knows images by their tags, and sends as fast as it can.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::image::{Blob, Image, MANIFEST_TYPE, digest};
use super::namespace::Network;

/// How long a client may keep quiet.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon the end of the bench is noticed.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Images by their tags; all in one repository.
pub(super) type Images = Arc<Mutex<BTreeMap<String, Image>>>;

/// A registry; it ends when this is dropped.
pub(super) struct Registry {
    port: u16,
    over: Arc<AtomicBool>,
}

impl Registry {
    /// Serves on a free port of loopback, of another network namespace if one is given.
    pub(super) fn serve(images: Images, network: Option<&Network>) -> io::Result<Self> {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let listener = network.map_or_else(bind, |network| network.inside(bind))?;
        let (port, over) = (listener.local_addr()?.port(), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&over);
        std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let mut watched = [PollFd::new(&listener, PollFlags::IN)];
                if poll(&mut watched, Some(&LOOK)).unwrap_or(0) == 0 {
                    continue;
                }
                let Ok((stream, _)) = listener.accept() else { continue };
                let images = Arc::clone(&images);
                // A client that hangs up ends its thread.
                std::thread::spawn(move || drop(answer_all(stream, &images)));
            }
        });
        Ok(Self { port, over })
    }

    /// What an image of that tag is called.
    pub(super) fn reference(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/bench:{tag}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn answer_all(stream: TcpStream, images: &Images) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut first, mut from) = (String::new(), 0);
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? <= 2 {
                break;
            }
            if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                from = range.split('-').next().and_then(|number| number.trim().parse().ok()).unwrap_or(0);
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        answer(&stream, images, path, from, method == "GET")?;
    }
}

fn answer(stream: &TcpStream, images: &Images, path: &str, from: u64, with_body: bool) -> io::Result<()> {
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.contains("/manifests/") {
        let found = {
            let images = images.lock().unwrap_or_else(PoisonError::into_inner);
            let by_digest = || images.values().find(|image| digest(&image.manifest) == last);
            images.get(last).or_else(by_digest).map(|image| image.manifest.clone())
        };
        return match found {
            Some(manifest) => send(stream, &Blob::Bytes(manifest.clone()), 0, with_body, MANIFEST_TYPE, &digest(&manifest)),
            None => refuse(stream, "MANIFEST_UNKNOWN"),
        };
    }
    if path.contains("/blobs/") {
        let found = images.lock().unwrap_or_else(PoisonError::into_inner).values().find_map(|image| image.blobs.get(last).cloned());
        return match found {
            Some(blob) => send(stream, &blob, from, with_body, "application/octet-stream", last),
            None => refuse(stream, "BLOB_UNKNOWN"),
        };
    }
    send(stream, &Blob::Bytes(b"{}".to_vec()), 0, with_body, "application/json", "")
}

fn refuse(mut stream: &TcpStream, code: &str) -> io::Result<()> {
    let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"there is none\"}}]}}");
    write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn send(mut stream: &TcpStream, blob: &Blob, from: u64, with_body: bool, kind: &str, digest: &str) -> io::Result<()> {
    let size = blob.size();
    let from = from.min(size);
    let status =
        if from == 0 { "200 OK".to_owned() } else { format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{size}", size - 1) };
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ndocker-content-digest: {digest}\r\ncontent-length: {}\r\n\r\n", size - from);
    stream.write_all(head.as_bytes())?;
    if !with_body {
        return Ok(());
    }
    match blob {
        Blob::Bytes(bytes) => stream.write_all(&bytes[usize::try_from(from).unwrap_or(bytes.len())..]),
        Blob::File(path, _) => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(from))?;
            io::copy(&mut file.take(size - from), &mut stream).map(drop)
        }
    }
}
