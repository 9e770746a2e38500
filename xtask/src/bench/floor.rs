//! What this machine allows at best: a server with one blocking thread a connection that reads a request and writes an answer
//! of a given length, and does nothing else, or nothing else but to make 4 KiB durable first.
//!
//! A round trip between two processes is two wake-ups, and on a virtual machine a wake-up of an idle processor may cost more
//! than the whole call. Beside this peer a figure says what Berth adds. Where the bench's clients wait for answers awake, it waits so for
//! requests.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::client::read_awake;

/// Bytes that are made durable, in place, as a database's log does.
const SYNCED: usize = 4096;
/// Size of the file that they go round in; there from the start, so that a sync writes no metadata.
const FILE: usize = 8 * 1024 * 1024;

/// A server in a process of its own (a fork would share this one's threads): this program, called again.
pub(super) struct Floor {
    child: std::process::Child,
    pub(super) authority: String,
    file: Option<PathBuf>,
}

impl Floor {
    /// Starts it. `durable`: a file beside which place to sync. `awake`: it waits for requests awake.
    pub(super) fn start(answer: usize, durable: Option<&Path>, awake: bool) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command
            .args(["bench-floor", &answer.to_string()])
            .args(durable)
            .args(awake.then_some("--awake"))
            .stdin(std::process::Stdio::piped());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
        Ok(Self { child, authority: line.trim().to_owned(), file: durable.map(Path::to_owned) })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// The server: says its address on stdout, serves until stdin ends.
///
/// # Errors
/// If it cannot listen or make its file.
pub fn serve(answer: usize, durable: Option<&Path>, awake: bool) -> Result<(), Box<dyn std::error::Error>> {
    let file = durable.map(make).transpose()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    for stream in listener.incoming() {
        let (stream, file) = (stream?, file.as_ref().map(File::try_clone).transpose()?);
        std::thread::spawn(move || answer_all(stream, answer, file, awake));
    }
    Ok(())
}

fn make(path: &Path) -> std::io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.write_all_at(&vec![1; FILE], 0)?;
    file.sync_all()?;
    Ok(file)
}

fn answer_all(mut stream: TcpStream, length: usize, file: Option<File>, awake: bool) {
    let _ = stream.set_nodelay(true);
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + length, b'x');
    let mut request = [0; 16 * 1024];
    let mut at = 0;
    // Requests of the bench are far below the buffer and come one at a time, so each read is one.
    let read = if awake { read_awake } else { TcpStream::read };
    while matches!(read(&mut stream, &mut request), Ok(read) if read > 0) {
        if let Some(file) = &file {
            if file.write_all_at(&request[..SYNCED], at).and_then(|()| file.sync_data()).is_err() {
                return;
            }
            at = (at + SYNCED as u64) % FILE as u64;
        }
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}
