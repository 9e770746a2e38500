//! The agent's side of a container's monitor: its socket while the container runs, its exit file after that.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::port::{Exit, Started};

/// An answer to `state` or `signal` takes a fraction of a millisecond; a monitor that is stopped must not stop the agent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The exit file's content.
#[derive(serde::Deserialize)]
struct ExitRecord {
    code: i32,
    oom: bool,
    at: u64,
}

/// What a container's folder says about it.
#[derive(Debug)]
pub enum Sighting {
    /// Its monitor answers.
    Running(Started),
    /// It ended.
    Exited(Exit),
    /// There is neither monitor nor exit file.
    Nothing,
}

/// Looks.
pub async fn sight(folder: &Path) -> Sighting {
    if let Some(exit) = exit(folder) {
        return Sighting::Exited(exit);
    }
    if let Ok(line) = ask(folder, "state\n").await
        && let Some(started) = parse_running(&line)
    {
        return Sighting::Running(started);
    }
    // It may have ended between the two questions.
    exit(folder).map_or(Sighting::Nothing, Sighting::Exited)
}

/// The exit file, if the container has ended and somebody saw how.
pub fn exit(folder: &Path) -> Option<Exit> {
    parse_exit(&std::fs::read(folder.join("exit.json")).ok()?)
}

/// Spaces around the record mean nothing.
fn parse_exit(text: &[u8]) -> Option<Exit> {
    let record: ExitRecord = serde_json::from_slice(text).ok()?;
    Some(Exit { code: record.code, oom_killed: record.oom, at: time(record.at) })
}

/// A time from nanoseconds since 1970.
pub fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn parse_running(line: &str) -> Option<Started> {
    let mut words = line.strip_prefix("running ")?.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    Some(Started { pid, at: time(words.next()?.parse().ok()?), address: None })
}

/// Sends a signal. `Ok(false)`: there is no monitor, so nothing runs.
///
/// # Errors
/// What the monitor says.
pub async fn signal(folder: &Path, number: i32) -> io::Result<bool> {
    match ask(folder, &format!("signal {number}\n")).await {
        Ok(line) if line.trim() == "ok" => Ok(true),
        // It hung up: the container has just ended.
        Ok(line) if line.is_empty() => Ok(false),
        Ok(line) => Err(io::Error::other(line.trim().to_owned())),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits for the end; `None` if there is nobody to wait for and no exit file.
pub async fn wait(folder: &Path) -> Option<Exit> {
    let mut line = String::new();
    if exit(folder).is_none()
        && let Ok(mut stream) = connect(folder).await
        && stream.write_all(b"wait\n").await.is_ok()
    {
        let _ = BufReader::new(stream).read_line(&mut line).await;
    }
    // What the monitor says holds also where it could not write it down.
    exit(folder).or_else(|| parse_exit(line.as_bytes()))
}

async fn ask(folder: &Path, command: &str) -> io::Result<String> {
    let exchange = async {
        let mut stream = connect(folder).await?;
        stream.write_all(command.as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        Ok(line)
    };
    tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe)
}

/// Connects by way of the folder's descriptor: socket paths are limited to 108 bytes, data directories are not.
async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let folder = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/monitor.sock", folder.as_raw_fd())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_monitor_says_holds_though_it_could_not_write() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = tokio::net::UnixListener::bind(folder.path().join("monitor.sock")).expect("a socket");
        let monitor = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut command = [0; 5];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut command).await.expect("a command");
            stream.write_all(b"{\"code\":7,\"signal\":0,\"oom\":false,\"at\":5}\n").await.expect("it listens");
        };
        let (exit, ()) = tokio::join!(wait(folder.path()), monitor);
        assert_eq!(exit, Some(Exit { code: 7, oom_killed: false, at: time(5) }));
    }

    #[test]
    fn an_exit_file_may_have_room_left() {
        let text = format!("{{\"code\":1,\"signal\":0,\"oom\":true,\"at\":9}}\n{}", " ".repeat(200));
        assert_eq!(parse_exit(text.as_bytes()).map(|exit| exit.code), Some(1));
        assert_eq!(parse_exit(b"   "), None);
    }
}
