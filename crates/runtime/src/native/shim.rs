//! The agent's side of `berth-shim`: starts it, tells it what to do, hears what came of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::native::ids::{self, Ids};
use crate::native::monitor::time;
use crate::native::starter::Starter;
use crate::port::{ExecOutcome, RunError, Started};

/// A start takes milliseconds; a minute means that something in the kernel or on the disk hangs.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Nobody's: files with these ids are there for the trial's moment only.
const TRIAL_IDS: u32 = 0x7000_0000;

/// The shim's program as a sealed copy in memory.
///
/// A container can reach the program that its first process was before it became the container's (`/proc/self/exe`); through a
/// file it could overwrite the machine's own shim (CVE-2019-5736). This copy nobody can change.
#[derive(Debug)]
pub struct Program {
    copy: File,
}

impl Program {
    /// Copies the program.
    ///
    /// # Errors
    /// Of the system.
    pub fn load(path: &Path) -> io::Result<Program> {
        const MFD_EXEC: libc::c_uint = 0x10;
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a literal.
        let mut fd = unsafe { libc::memfd_create(c"berth-shim".as_ptr(), flags | MFD_EXEC) };
        if fd == -1 {
            // Kernels before 6.3 do not know that flag, and do not need it.
            // SAFETY: as above.
            fd = unsafe { libc::memfd_create(c"berth-shim".as_ptr(), flags) };
        }
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let mut copy = unsafe { File::from_raw_fd(fd) };
        io::copy(&mut File::open(path)?, &mut copy)?;
        let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        // SAFETY: plain fcntl on a descriptor we own.
        if unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, seals) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Program { copy })
    }

    /// Starts it with a socket as its stdin and lets it be reaped whenever it, or the monitor it becomes, ends. The second part
    /// ends it when something is sent through it.
    fn spawn(&self, mode: &str, stdout: Stdio, stderr: Stdio) -> io::Result<(UnixStream, oneshot::Sender<()>, Option<Starter>)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // Nothing but program and arguments: so the standard library takes posix_spawn, which does not copy the agent's memory map.
        let mut child = tokio::process::Command::new(format!("/proc/self/fd/{}", self.copy.as_raw_fd()))
            .arg0("berth-shim")
            .arg(mode)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(stdout)
            .stderr(stderr)
            .kill_on_drop(false)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("run berth-shim: {e}")))?;
        let starter = child.id().and_then(|pid| Starter::of(i32::try_from(pid).ok()?).ok());
        let (end, ended) = oneshot::channel();
        tokio::spawn(async move {
            tokio::select! {
                _ = child.wait() => {}
                Ok(()) = ended => drop(child.kill().await),
            }
        });
        Ok((UnixStream::from_std(ours)?, end, starter))
    }
}

/// What the shim writes, one a line.
#[derive(serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Started { pid: i32, at: u64 },
    Exited { code: i32 },
    Failed { blame: String, text: String },
}

/// A shim that is ready and waits for its work.
#[derive(Debug)]
pub struct Shim {
    socket: UnixStream,
    end: oneshot::Sender<()>,
    starter: Starter,
}

impl Shim {
    /// Starts one that will make a container.
    ///
    /// # Errors
    /// Of the system.
    pub fn prepare(program: &Program) -> io::Result<Shim> {
        let (socket, end, starter) = program.spawn("start", Stdio::null(), Stdio::null())?;
        let starter = starter.ok_or_else(|| io::Error::other("the shim ended at once"))?;
        Ok(Shim { socket, end, starter })
    }

    /// The process that will make the container, and watch it.
    pub fn starter(&self) -> Starter {
        self.starter
    }

    /// Has it make the container whose folder is `folder`; returns when the container's program executes. `task_cpu_shares` is what
    /// the task's containers have together.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self, folder: &Path, task_cpu_shares: u64) -> Result<Started, StartError> {
        use std::os::unix::ffi::OsStrExt;
        let mut socket = self.socket;
        let said = async {
            let request = [folder.as_os_str().as_bytes(), b"\0", task_cpu_shares.to_string().as_bytes()].concat();
            socket.write_all(&request).await?;
            socket.shutdown().await?;
            let mut line = String::new();
            BufReader::new(socket).read_line(&mut line).await?;
            Ok::<_, io::Error>(line)
        };
        let line = match tokio::time::timeout(START_TIMEOUT, said).await {
            Ok(Ok(line)) => line,
            // Nobody has read the request: another shim may be asked.
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Err(StartError::Vanished),
            Ok(Err(error)) => return Err(StartError::Failed(RunError::System(format!("talk to the shim: {error}")))),
            Err(_) => {
                // It must not come round later and run what by then counts as not started.
                let _ = self.end.send(());
                return Err(StartError::Failed(RunError::System(format!("the shim did not answer in {START_TIMEOUT:?}"))));
            }
        };
        match parse(&line).map_err(StartError::Failed)? {
            Reply::Started { pid, at } => Ok(Started { pid, at: time(at), address: None }),
            Reply::Failed { blame, text } => Err(StartError::Failed(failure(&blame, text))),
            Reply::Exited { .. } => Err(StartError::Failed(RunError::System("the shim answered out of turn".into()))),
        }
    }
}

/// Has the shim make the holder of what a task's containers share; returns when it is written down in `folder`.
///
/// # Errors
/// [`RunError::System`].
pub async fn hold(program: &Program, folder: &Path, ids: Option<Ids>) -> Result<(), RunError> {
    use std::os::unix::ffi::OsStrExt;
    let system = |e: io::Error| RunError::System(format!("make the namespaces that the task shares: {e}"));
    let (mut socket, end, _) = program.spawn("hold", Stdio::null(), Stdio::null()).map_err(system)?;
    let said = async {
        let ids = ids.map(|ids| format!("\0{} {}", ids.first, ids.count)).unwrap_or_default();
        socket.write_all(&[folder.as_os_str().as_bytes(), ids.as_bytes()].concat()).await?;
        socket.shutdown().await?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).await?;
        Ok::<_, io::Error>(line)
    };
    let Ok(line) = tokio::time::timeout(START_TIMEOUT, said).await else {
        // Before it has let the holder go, that dies with it.
        let _ = end.send(());
        return Err(RunError::System(format!("the shim did not answer in {START_TIMEOUT:?}")));
    };
    match parse(&line.map_err(system)?)? {
        Reply::Failed { blame, text } => Err(failure(&blame, text)),
        _ => Ok(()),
    }
}

/// Has the shim try whether users can be given other ids here; `folder` is a place on the file system of images and containers. Waits.
///
/// # Errors
/// Why not, in words for people.
pub fn try_remapping(shim: &Path, folder: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("it cannot be tried: {error}");
    let scratch = folder.join(format!(".remap-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).map_err(failed)?;
    let outcome = try_in(shim, &scratch);
    // The mounts in it went with their namespace.
    let _ = std::fs::remove_dir_all(&scratch);
    outcome
}

fn try_in(shim: &Path, scratch: &Path) -> Result<(), String> {
    use std::io::{Read, Write};
    use std::os::unix::ffi::OsStrExt;
    let failed = |error: io::Error| format!("it cannot be tried: {error}");
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    ours.set_read_timeout(Some(START_TIMEOUT)).map_err(failed)?;
    let mut child = std::process::Command::new(shim)
        .arg("remap")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let request = [scratch.as_os_str().as_bytes(), format!("\0{TRIAL_IDS} {}", ids::COUNT).as_bytes()].concat();
    let mut line = String::new();
    let said =
        ours.write_all(&request).and_then(|()| ours.shutdown(std::net::Shutdown::Write)).and_then(|()| ours.read_to_string(&mut line));
    if said.is_err() {
        let _ = child.kill();
    }
    let ended = child.wait();
    said.and(ended).map_err(failed)?;
    match parse(line.trim_end()) {
        Ok(Reply::Failed { text, .. }) => Err(text),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Why a start failed.
#[derive(Debug)]
pub enum StartError {
    /// The shim had died before it was given its work.
    Vanished,
    /// The start itself.
    Failed(RunError),
}

fn parse(line: &str) -> Result<Reply, RunError> {
    serde_json::from_str(line).map_err(|_| RunError::System(format!("the shim ended without an answer ({line:?})")))
}

fn failure(blame: &str, text: String) -> RunError {
    match blame {
        "exec" => RunError::Exec(text),
        "spec" => RunError::InvalidSpec(text),
        _ => RunError::System(text),
    }
}

/// Runs a process in a container, as `berth-shim exec` is told by `request`.
///
/// # Errors
/// [`RunError`].
pub async fn exec(program: &Program, request: &[u8], timeout: Duration, output_limit: usize) -> Result<ExecOutcome, RunError> {
    let system = |step: &str, e: io::Error| RunError::System(format!("{step}: {e}"));
    let (writer, mut output) = pipe::pipe().map_err(|e| system("make the output pipe", e))?;
    let writer = writer.into_blocking_fd().map_err(|e| system("make the output pipe", e))?;
    let second = writer.try_clone().map_err(|e| system("make the output pipe", e))?;
    let (mut socket, _end, _) = program.spawn("exec", writer.into(), second.into()).map_err(|e| system("start the shim", e))?;
    socket.write_all(request).await.map_err(|e| system("talk to the shim", e))?;
    socket.shutdown().await.map_err(|e| system("talk to the shim", e))?;

    let mut kept = Vec::new();
    let conversation = async {
        let mut replies = BufReader::new(socket).lines();
        let mut buffer = [0; 16 << 10];
        let mut open = true;
        loop {
            tokio::select! {
                line = replies.next_line() => {
                    let line = line.map_err(|e| system("talk to the shim", e))?.unwrap_or_default();
                    match parse(&line)? {
                        Reply::Started { .. } => {}
                        Reply::Exited { code } => {
                            // What it wrote before its end is in the pipe; children it left may keep the pipe open for ever. The
                            // kernel itself is asked: the event loop may not have heard of the last bytes yet.
                            while let Some(count @ 1..) = read_now(&output, &mut buffer) {
                                keep(&mut kept, &buffer[..count], output_limit);
                            }
                            return Ok(code);
                        }
                        Reply::Failed { blame, text } => return Err(failure(&blame, text)),
                    }
                }
                count = read(&mut output, &mut buffer), if open => match count {
                    Ok(0) | Err(_) => open = false,
                    Ok(count) => keep(&mut kept, &buffer[..count], output_limit),
                }
            }
        }
    };
    // When the time is up the socket is dropped, upon which the shim kills the process.
    let code = match tokio::time::timeout(timeout, conversation).await {
        Ok(result) => Some(result?),
        Err(_) => None,
    };
    Ok(ExecOutcome { code, output: kept })
}

async fn read(output: &mut pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    tokio::io::AsyncReadExt::read(output, buffer).await
}

/// What is in the pipe now; `None` if nothing is, or it broke.
fn read_now(output: &pipe::Receiver, buffer: &mut [u8]) -> Option<usize> {
    use std::os::fd::AsRawFd;
    // SAFETY: the buffer is valid for its length. The pipe does not block.
    let count = unsafe { libc::read(output.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(count).ok()
}

fn keep(kept: &mut Vec<u8>, new: &[u8], limit: usize) {
    let room = limit.saturating_sub(kept.len());
    kept.extend_from_slice(&new[..new.len().min(room)]);
}
