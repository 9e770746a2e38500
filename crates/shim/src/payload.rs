//! The last steps inside the container: become the user, find the program, confine the process, become the program.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::config::{Process, Rlimit};
use crate::request::{Blame, Confinement, Failure};
use crate::{capabilities, fds, inheritance, places, seccomp, users};

/// What runs in the container, with all that must be read before the process is cut off from the machine's files.
pub struct Payload {
    process: Process,
    user: String,
    working_directory: String,
    capabilities: u64,
    filter: Option<Vec<u8>>,
}

impl Payload {
    /// Reads the compiled seccomp filter and checks names.
    pub fn new(process: Process, user: String, working_directory: String, confinement: &Confinement) -> Result<Payload, Failure> {
        let filter = match &confinement.seccomp {
            Some(path) => Some(std::fs::read(path).map_err(|e| Failure::system(&format!("read seccomp filter {path:?}"), e))?),
            None => None,
        };
        let capabilities = capabilities::bits(&confinement.capabilities).map_err(Failure::spec)?;
        Ok(Payload { process, user, working_directory, capabilities, filter })
    }

    /// Where it will start.
    pub fn working_directory(&self) -> &str {
        &self.working_directory
    }

    /// Becomes the program. Must be called inside the container's root, with all rights. Returns only on failure.
    pub fn run(self) -> Failure {
        match self.prepare() {
            Ok(prepared) => prepared.execute(),
            Err(failure) => failure,
        }
    }

    /// All but the last step. Must be called inside the container's root, with all rights; gives them up.
    pub fn prepare(mut self) -> Result<Prepared, Failure> {
        let system = |step: &'static str| move |e: io::Error| Failure::system(step, e);
        let root = fds::open_place(Path::new("/"), libc::O_DIRECTORY).map_err(system("open the container's root"))?;
        let identity = users::resolve(&root, &self.user)?;
        users::complete(&mut self.process.env, &identity);
        self.enter(&root)?;
        drop(root);
        for limit in &self.process.rlimits {
            set_limit(limit)?;
        }
        // Keep the image's programs from inheriting anything, whatever was opened on the way here.
        fds::close_on_exec_from(3).map_err(system("close descriptors on exec"))?;
        give_outputs(identity.uid).map_err(system("give the outputs to the user"))?;
        capabilities::drop_bounding(self.capabilities).map_err(system("drop bounding capabilities"))?;
        become_user(&identity).map_err(system("become the user"))?;
        let program = find(&self.process).map_err(|text| Failure { blame: Blame::Exec, text })?;
        let prepared = Prepared {
            program: c_string(&program.to_string_lossy())?,
            arguments: self.process.args.iter().map(|text| c_string(text)).collect::<Result<_, _>>()?,
            environment: self.process.env.iter().map(|text| c_string(text)).collect::<Result<_, _>>()?,
        };
        // The filter takes CAP_SYS_ADMIN to install, so it comes before the last capabilities go.
        if let Some(filter) = &self.filter {
            seccomp::install(filter).map_err(system("install the seccomp filter"))?;
        }
        capabilities::keep(self.capabilities).map_err(system("drop capabilities"))?;
        // From here on only its own first process, or the agent, decides how long it lives.
        inheritance::die_with_parent(false);
        Ok(prepared)
    }

    /// Goes to the working directory.
    fn enter(&self, root: &std::os::fd::OwnedFd) -> Result<(), Failure> {
        let fail = |e: io::Error| Failure::spec(format!("chdir to cwd ({:?}): {}", self.working_directory, phrase(&e)));
        let folder = places::ensure_folder(root, &self.working_directory).map_err(fail)?;
        // SAFETY: plain fchdir on a descriptor we own.
        fds::check(unsafe { libc::fchdir(folder.as_raw_fd()) }).map_err(fail)?;
        // Fails for a directory that the container's root does not reach.
        std::env::current_dir().map(drop).map_err(fail)
    }
}

/// A process that is what it shall be but for its program.
pub struct Prepared {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Prepared {
    /// Becomes the program. Returns only on failure.
    pub fn execute(self) -> Failure {
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        // SAFETY: all three are NUL-terminated and outlive the call, which returns only on failure.
        unsafe { libc::execve(self.program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        let error = io::Error::last_os_error();
        Failure { blame: Blame::Exec, text: format!("exec {}: {}", self.program.to_string_lossy(), phrase(&error)) }
    }
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::spec(format!("{text:?} contains a NUL character")))
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Lets the user open its own outputs again by name: servers log to /dev/stdout, and a pipe has an owner like any file. Only
/// pipes, which are this container's alone; as runc does.
fn give_outputs(uid: u32) -> io::Result<()> {
    for fd in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: zero is a valid value for this plain structure, and the kernel has room for what it writes; -1 leaves the group.
        unsafe {
            let mut found: libc::stat = std::mem::zeroed();
            fds::check(libc::fstat(fd, &raw mut found))?;
            if found.st_mode & libc::S_IFMT == libc::S_IFIFO && found.st_uid != uid {
                fds::check(libc::fchown(fd, uid, libc::gid_t::MAX))?;
            }
        }
    }
    Ok(())
}

fn become_user(identity: &users::Identity) -> io::Result<()> {
    // SAFETY: the groups are valid for their number; the other calls have no memory arguments. One thread: raw calls suffice.
    unsafe {
        // Rights survive the change of user until the filter is in; execve takes them from anybody but root.
        fds::check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        fds::check(libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr()) as i32)?;
        fds::check(libc::syscall(libc::SYS_setresgid, identity.gid, identity.gid, identity.gid) as i32)?;
        fds::check(libc::syscall(libc::SYS_setresuid, identity.uid, identity.uid, identity.uid) as i32)?;
        fds::check(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0))?;
    }
    capabilities::raise_all()
}

fn set_limit(limit: &Rlimit) -> Result<(), Failure> {
    const NAMES: [(&str, u32); 15] = [
        ("RLIMIT_CORE", libc::RLIMIT_CORE),
        ("RLIMIT_CPU", libc::RLIMIT_CPU),
        ("RLIMIT_DATA", libc::RLIMIT_DATA),
        ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
        ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
        ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
        ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", libc::RLIMIT_NICE),
        ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
        ("RLIMIT_RSS", libc::RLIMIT_RSS),
        ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
        ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
        ("RLIMIT_STACK", libc::RLIMIT_STACK),
    ];
    let found = NAMES.iter().find(|(name, _)| *name == limit.kind);
    let (name, number) = found.ok_or_else(|| Failure::spec(format!("unknown resource limit {:?}", limit.kind)))?;
    let value = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: `value` outlives the call.
    fds::check(unsafe { libc::setrlimit(*number as _, &raw const value) })
        .map(drop)
        .map_err(|e| Failure::spec(format!("ulimits: set {name} to {}:{}: {e}", limit.soft, limit.hard)))
}

/// Finds the program as runc does, and words the failure as runc does: tools and people know these texts.
fn find(process: &Process) -> Result<PathBuf, String> {
    let name = process.args.first().ok_or("no command specified")?;
    if name.contains('/') {
        let path = Path::new(name).to_path_buf();
        return match executable(&path) {
            Verdict::Yes => Ok(path),
            Verdict::Missing(error) => Err(format!("exec: {name:?}: stat {name}: {}", phrase(&error))),
            Verdict::Directory => Err(format!("exec: {name:?}: is a directory")),
            Verdict::Forbidden => Err(format!("exec: {name:?}: permission denied")),
        };
    }
    let path = process.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut forbidden = false;
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let candidate = Path::new(folder).join(name);
        match executable(&candidate) {
            Verdict::Yes => return Ok(candidate),
            Verdict::Forbidden => forbidden = true,
            Verdict::Missing(_) | Verdict::Directory => {}
        }
    }
    Err(if forbidden {
        format!("exec: {name:?}: permission denied")
    } else {
        format!("exec: {name:?}: executable file not found in $PATH")
    })
}

enum Verdict {
    Yes,
    Missing(io::Error),
    Directory,
    Forbidden,
}

fn executable(path: &Path) -> Verdict {
    match std::fs::metadata(path) {
        Err(error) => Verdict::Missing(error),
        Ok(meta) if meta.is_dir() => Verdict::Directory,
        Ok(meta) if meta.mode() & 0o111 == 0 || meta.file_type().is_socket() => Verdict::Forbidden,
        Ok(_) => Verdict::Yes,
    }
}

/// An error as Go prints it: C's words in lower case, without Rust's number.
fn phrase(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
