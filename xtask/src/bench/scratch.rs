//! What a bench makes outside itself: folders and processes. All of it goes when its owner is dropped and when the bench is
//! told to end (Ctrl-C, SIGTERM, SIGHUP), so that a bench that was broken off leaves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::ports::Port;
use super::{cgroups, memory, quantile, remains};

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// Memory is the median of so many looks.
const LOOKS: usize = 20;
const BETWEEN: Duration = Duration::from_millis(100);

static MADE: Mutex<Made> = Mutex::new(Made { processes: BTreeMap::new(), folders: BTreeSet::new() });
static GUARD: Once = Once::new();

struct Made {
    processes: BTreeMap<u32, Ending>,
    folders: BTreeSet<PathBuf>,
}

/// How a process is ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    /// What it is sent, and waited for, before it is killed: one that has containers must end them.
    pub(super) signal: Option<Signal>,
    /// The folder below which it mounts, and nobody else.
    pub(super) mounts: Option<PathBuf>,
    /// The cgroup, of whatever hierarchy, in which everything is its own.
    pub(super) cgroup: Option<String>,
    /// What the command lines of its helpers name, and nobody else's: those that outlive it are killed.
    pub(super) helpers: Option<String>,
    /// The letters by which an agent's things on this machine are known: nothing of them is left.
    pub(super) agent: Option<String>,
}

impl Ending {
    /// Takes away what is left when the process is gone.
    fn clear(&self) {
        if let Some(word) = &self.helpers {
            memory::named(word).into_iter().for_each(|pid| send(pid, Signal::KILL));
        }
        if let Some(folder) = &self.mounts {
            remains::unmount_below(folder);
        }
        if let Some(name) = &self.cgroup {
            cgroups::remove(name, PATIENCE);
        }
        if let Some(name) = &self.agent {
            remains::clear(name, PATIENCE);
        }
    }
}

/// The lists stay right whoever panicked over them: every change is a single one.
fn made() -> MutexGuard<'static, Made> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts cleaning up at signals, and lets this process and its children open as many files as they ever may.
pub(super) fn prepare() -> Result<(), Box<dyn Error>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    GUARD.call_once(|| drop(std::thread::spawn(watch)));
    Ok(())
}

fn watch() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let listen = |kind| signal(kind).expect("signals can be listened to");
        let (mut interrupt, mut terminate, mut hangup) =
            (listen(SignalKind::interrupt()), listen(SignalKind::terminate()), listen(SignalKind::hangup()));
        let code = tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
            _ = hangup.recv() => 129,
        };
        // Held to the end: nobody makes anything more.
        let made = made();
        let gentle = || made.processes.iter().filter_map(|(pid, ending)| ending.signal.map(|signal| (*pid, signal)));
        gentle().for_each(|(pid, signal)| send(pid, signal));
        let started = Instant::now();
        while started.elapsed() < PATIENCE && gentle().any(|(pid, _)| is_alive(pid)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        for pid in made.processes.keys() {
            send(*pid, Signal::KILL);
        }
        // A process that dies may still be writing into its folder.
        std::thread::sleep(Duration::from_millis(200));
        made.processes.values().for_each(Ending::clear);
        for folder in &made.folders {
            let _ = std::fs::remove_dir_all(folder);
        }
        std::process::exit(code);
    });
}

/// Whether a process runs; one that nobody has waited for yet does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A folder of the bench's own.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes it, below the system's folder for temporary files.
    pub(super) fn make(name: &str) -> Result<Self, Box<dyn Error>> {
        let path = std::env::temp_dir().join(format!("berth-bench-{}-{name}", std::process::id()));
        made().folders.insert(path.clone());
        std::fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        made().folders.remove(&self.path);
    }
}

/// A process of the bench's own.
pub(super) struct Process {
    pub(super) child: Child,
    ending: Ending,
}

impl Process {
    pub(super) fn spawn(command: &mut Command) -> Result<Self, Box<dyn Error>> {
        Self::spawn_with(command, Ending::default())
    }

    /// Starts one that is ended in a way of its own. What ends the bench from a terminal does not reach it.
    pub(super) fn spawn_with(command: &mut Command, ending: Ending) -> Result<Self, Box<dyn Error>> {
        if ending.signal.is_some() {
            command.process_group(0);
        }
        // Started and noted under the lock: a signal in between must not miss it.
        let mut made = made();
        let child = command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        made.processes.insert(child.id(), ending.clone());
        Ok(Self { child, ending })
    }

    /// Ends it at once, as a crash does, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        made().processes.remove(&self.child.id());
    }

    /// Tells it to end, and waits until it has.
    pub(super) fn terminate(&mut self) {
        self.end_by(Signal::TERM);
    }

    fn end_by(&mut self, signal: Signal) {
        send(self.child.id(), signal);
        let started = Instant::now();
        while started.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// Bytes resident.
    pub(super) fn resident(&self) -> Result<f64, Box<dyn Error>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(kib * 1024.0)
    }

    /// Bytes resident: the median of some looks, which one moment's work does not change.
    pub(super) fn settled_resident(&self) -> Result<f64, Box<dyn Error>> {
        let mut looks = Vec::new();
        for _ in 0..LOOKS {
            looks.push(self.resident()?);
            std::thread::sleep(BETWEEN);
        }
        Ok(quantile(&looks, 0.5))
    }

    /// Seconds of processors that it has used.
    pub(super) fn cpu(&self) -> Result<f64, Box<dyn Error>> {
        cpu_of(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        match self.ending.signal {
            Some(signal) if matches!(self.child.try_wait(), Ok(None)) => self.end_by(signal),
            _ => self.kill(),
        }
        self.ending.clear();
    }
}

/// Seconds of processors that this process has used.
pub(super) fn own_cpu() -> Result<f64, Box<dyn Error>> {
    cpu_of("self")
}

fn cpu_of(process: &str) -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may hold anything, but it is the last thing with a bracket. utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no process name in stat")?.1.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64, Box<dyn Error>> { Ok(fields.get(at).ok_or("stat is too short")?.parse()?) };
    #[expect(clippy::cast_precision_loss, reason = "a hundred or so")]
    let second = rustix::param::clock_ticks_per_second() as f64;
    Ok((ticks(11)? + ticks(12)?) / second)
}

/// A port that is this process's until it ends: a server that was killed finds its own free when it is started again.
pub(super) fn free_port() -> u16 {
    static HELD: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = Port::free();
    let number = port.number;
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(port);
    number
}
