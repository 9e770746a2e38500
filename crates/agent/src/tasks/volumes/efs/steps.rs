//! The system calls by which a directory of a file system is mounted, in a child process. Between fork and end it makes no other calls, takes
//! no memory and no lock: other threads of the agent may have held any at the time of the fork.

use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// As often as the shim tries a walk that the kernel broke off because somebody renamed something meanwhile.
const WALKS: u32 = 128;
/// A killed process is gone after that unless the kernel itself hangs; then it is left to the end of the agent.
const REAPED_WITHIN: Duration = Duration::from_secs(2);

/// What is done, all of it made before the fork.
pub struct Steps {
    /// Device and options of an NFS mount to be made at `base` first.
    pub nfs: Option<(CString, CString)>,
    /// The file system's root.
    pub base: CString,
    /// The way down from it; none for the root itself.
    pub prefixes: Vec<Prefix>,
    /// User, group and rights of the directories that are missing on it; if none, nothing is made.
    pub creation: Option<(u32, u32, u32)>,
    /// Where the end of the way is mounted.
    pub place: CString,
}

/// A part of the way.
#[derive(Debug)]
pub struct Prefix {
    /// From the root to here, without a leading slash.
    pub path: CString,
    /// Its last part.
    pub name: CString,
    /// Whether it is opened by itself; the kernel walks over the others.
    pub looked_at: bool,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Mounting the export.
    Mount,
    /// Opening the file system's root.
    OpenBase,
    /// Opening the directory in it.
    OpenRoot,
    /// Making that directory.
    MakeRoot,
    /// Mounting it for the task.
    Attach,
}

/// Why there is no mount.
#[derive(Debug)]
pub enum Failed {
    /// A step.
    At(Step, io::Error),
    /// It took too long.
    TimedOut,
    /// There was no child.
    Begin(io::Error),
}

const STEPS: [Step; 5] = [Step::Mount, Step::OpenBase, Step::OpenRoot, Step::MakeRoot, Step::Attach];

impl Steps {
    /// Does it, in a child that is killed when its time is over.
    pub fn run(&self, patience: Duration) -> Result<(), Failed> {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| Failed::Begin(error.into()))?;
        // SAFETY: the child makes only system calls, on memory that was made before, and ends by _exit.
        let child = unsafe { libc::fork() };
        match child {
            -1 => return Err(Failed::Begin(io::Error::last_os_error())),
            0 => self.run_and_end(writer.as_raw_fd()),
            _ => drop(writer),
        }
        let outcome = hear(&reader, patience);
        reap(child, matches!(outcome, Err(Failed::TimedOut)));
        outcome
    }

    /// In the child: tells a byte for the step (5: all done) and the number of its error.
    fn run_and_end(&self, tells: RawFd) -> ! {
        let done = (STEPS.len() as u8, 0);
        // SAFETY: no memory arguments. What the agent has open, sockets and locks, is none of this process's business.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3, tells - 1, 0);
            libc::syscall(libc::SYS_close_range, tells + 1, u32::MAX, 0);
        }
        let (step, error) = match self.mount() {
            Ok(()) => done,
            Err((step, error)) => (step as u8, error),
        };
        let number = error.to_ne_bytes();
        let told = [step, number[0], number[1], number[2], number[3]];
        // SAFETY: the buffer outlives the call; the process ends.
        unsafe {
            libc::write(tells, told.as_ptr().cast(), told.len());
            libc::_exit(0)
        }
    }

    fn mount(&self) -> Result<(), (Step, i32)> {
        if let Some((device, options)) = &self.nfs {
            // SAFETY: all strings are NUL-terminated and outlive the call.
            let made = unsafe { libc::mount(device.as_ptr(), self.base.as_ptr(), c"nfs4".as_ptr(), 0, options.as_ptr().cast()) };
            check(made.into()).map_err(|error| (Step::Mount, error))?;
        }
        let base = open(libc::AT_FDCWD, &self.base, libc::O_PATH | libc::O_DIRECTORY).map_err(|error| (Step::OpenBase, error))?;
        let mut here = base;
        for prefix in &self.prefixes {
            here = match walk(base, &prefix.path) {
                Err(libc::ENOENT) => match self.creation {
                    Some(creation) => make(here, &prefix.name, creation).map_err(|error| (Step::MakeRoot, error))?,
                    None => return Err((Step::OpenRoot, libc::ENOENT)),
                },
                opened => opened.map_err(|error| (Step::OpenRoot, error))?,
            };
        }
        attach(here, &self.place).map_err(|error| (Step::Attach, error))
    }
}

fn check(result: libc::c_long) -> Result<RawFd, i32> {
    // SAFETY: errno is this thread's own.
    if result == -1 { Err(unsafe { *libc::__errno_location() }) } else { Ok(result as RawFd) }
}

fn open(folder: RawFd, path: &CStr, flags: i32) -> Result<RawFd, i32> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe { libc::openat(folder, path.as_ptr(), flags | libc::O_CLOEXEC) }.into())
}

/// Down from the file system's root, as if that were the machine's: containers write links into it, and none may lead out.
fn walk(base: RawFd, path: &CStr) -> Result<RawFd, i32> {
    // SAFETY: zero is a valid value for this plain structure.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        tries += 1;
        // SAFETY: `path` and `how` outlive the call, and the size is that of what is pointed to.
        let opened = unsafe { libc::syscall(libc::SYS_openat2, base, path.as_ptr(), &raw const how, std::mem::size_of_val(&how)) };
        match check(opened) {
            Err(libc::EAGAIN) if tries < WALKS => {}
            outcome => return outcome,
        }
    }
}

fn make(parent: RawFd, name: &CStr, (uid, gid, mode): (u32, u32, u32)) -> Result<RawFd, i32> {
    // By O_PATH descriptors nothing can be made; a directory opened again by itself is the same one.
    let parent = open(parent, c".", libc::O_RDONLY | libc::O_DIRECTORY)?;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    check(unsafe { libc::mkdirat(parent, name.as_ptr(), 0o700) }.into())?;
    let made = open(parent, name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
    // SAFETY: no memory arguments. Rights last: a change of owner takes some away.
    unsafe {
        check(libc::fchown(made, uid, gid).into())?;
        check(libc::fchmod(made, mode).into())?;
    }
    Ok(made)
}

fn attach(folder: RawFd, place: &CStr) -> Result<(), i32> {
    const CLONE: i32 = 1;
    const FROM_EMPTY: u32 = 0x4;
    // SAFETY: the paths are NUL-terminated and outlive the calls.
    unsafe {
        let tree = check(libc::syscall(libc::SYS_open_tree, folder, c"".as_ptr(), CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH))?;
        check(libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), libc::AT_FDCWD, place.as_ptr(), FROM_EMPTY)).map(drop)
    }
}

/// What the child tells; its end without a word is one too.
pub(super) fn hear(reader: &OwnedFd, patience: Duration) -> Result<(), Failed> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis().min(i32::MAX as u128) as i32;
        let mut wait = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which outlives the call.
        match unsafe { libc::poll(&raw mut wait, 1, left) } {
            0 => return Err(Failed::TimedOut),
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(Failed::Begin(io::Error::last_os_error())),
            _ => break,
        }
    }
    let mut told = [0; 5];
    // SAFETY: a copy of a descriptor that is ours.
    let copy = unsafe { OwnedFd::from_raw_fd(libc::fcntl(reader.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3)) };
    std::fs::File::from(copy).read_exact(&mut told).map_err(Failed::Begin)?;
    let error = i32::from_ne_bytes([told[1], told[2], told[3], told[4]]);
    match STEPS.get(usize::from(told[0])) {
        None => Ok(()),
        Some(step) => Err(Failed::At(*step, io::Error::from_raw_os_error(error))),
    }
}

pub(super) fn reap(child: i32, kill: bool) {
    let deadline = Instant::now() + REAPED_WITHIN;
    loop {
        // SAFETY: an unreaped child of this process; no status is asked for.
        let reaped = unsafe {
            if kill {
                libc::kill(child, libc::SIGKILL);
            }
            libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG)
        };
        if reaped != 0 || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
