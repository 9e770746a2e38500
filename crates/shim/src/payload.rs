//! The last steps inside the container: become the user, find the program, confine the process, become the program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::{Process, Rlimit};
use crate::idmap::Mapped;
use crate::request::{Blame, Confinement, Failure};
use crate::{capabilities, fds, inheritance, init, places, seccomp, terminal, users};

/// What runs in the container, with all that must be read before the process is cut off from the machine's files.
pub struct Payload {
    process: Process,
    user: String,
    working_directory: String,
    capabilities: u64,
    filter: Option<Vec<u8>>,
    no_new_privileges: bool,
    apparmor: Option<Profile>,
    mapped: Option<Rc<Mapped>>,
}

/// An AppArmor profile and where this process says that it wants it.
struct Profile {
    name: String,
    /// Open once the process is the one that will become the program, or its parent.
    place: Option<std::fs::File>,
}

impl Payload {
    /// Reads the compiled seccomp filter. `mapped`: what its users are on the machine.
    pub fn new(
        process: Process,
        user: String,
        working_directory: String,
        confinement: &Confinement,
        mapped: Option<Rc<Mapped>>,
    ) -> Result<Payload, Failure> {
        let filter = match &confinement.seccomp {
            Some(path) => Some(std::fs::read(path).map_err(|e| Failure::system(&format!("read seccomp filter {path:?}"), e))?),
            None => None,
        };
        let capabilities = confinement.capabilities;
        let no_new_privileges = confinement.no_new_privileges;
        let apparmor = confinement.apparmor.clone().map(|name| Profile { name, place: None });
        Ok(Payload { process, user, working_directory, capabilities, filter, no_new_privileges, apparmor, mapped })
    }

    /// Opens what only the machine's /proc has, by the process that will become the program, or by its parent.
    pub fn open_profile(&mut self) -> Result<(), Failure> {
        let Some(profile) = &mut self.apparmor else { return Ok(()) };
        let open = |path: &str| std::fs::File::options().write(true).open(path);
        // The second is the only one before Linux 5.8, and another security module's where there are several.
        let place = open("/proc/self/attr/apparmor/exec").or_else(|_| open("/proc/self/attr/exec"));
        profile.place = Some(place.map_err(|e| Failure::system("ask for an AppArmor profile", e))?);
        Ok(())
    }

    /// Who it will be, as written.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Where it will start.
    pub fn working_directory(&self) -> &str {
        &self.working_directory
    }

    /// All but the last step. Must be called inside the container's root, with all rights; gives them up.
    pub fn prepare(mut self) -> Result<Prepared, Failure> {
        let system = |step: &'static str| move |e: io::Error| Failure::system(step, e);
        let root = fds::open_place(Path::new("/"), libc::O_DIRECTORY).map_err(system("open the container's root"))?;
        let identity = users::resolve(&root, &self.user)?;
        users::complete(&mut self.process.env, &identity);
        let on_machine = self.mapped.as_ref().map(|mapped| mapped.ids.on_machine(&identity)).transpose()?;
        if let Some(mapped) = &self.mapped {
            mapped.ids.make_files_as_root().map_err(system("make files as the container's root"))?;
        }
        self.enter(&root)?;
        drop(root);
        for limit in &self.process.rlimits {
            set_limit(limit)?;
        }
        // Keep the image's programs from inheriting anything, whatever was opened on the way here.
        fds::close_on_exec_from(3).map_err(system("close descriptors on exec"))?;
        give_outputs(on_machine.map_or(identity.uid, |user| user.uid)).map_err(system("give the outputs to the user"))?;
        if let Some(mapped) = self.mapped.take() {
            // From here on it has no rights on the machine: all that it has holds for what belongs to these ids, and that is given up below.
            fds::setns(&mapped.namespace, libc::CLONE_NEWUSER).map_err(system("join the user namespace"))?;
        }
        capabilities::drop_bounding(self.capabilities).map_err(system("drop bounding capabilities"))?;
        become_user(&identity).map_err(system("become the user"))?;
        if let Some(Profile { name, place: Some(place) }) = &mut self.apparmor {
            // Holds from the next execve on, of this process or of one that it forks.
            let asked = io::Write::write_all(place, format!("exec {name}").as_bytes());
            asked.map_err(|e| Failure::spec(format!("dockerSecurityOptions: apparmor: profile {name:?}: {}", phrase(&e))))?;
        }
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
        if self.no_new_privileges {
            // SAFETY: no memory arguments.
            fds::check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map_err(system("forbid new privileges"))?;
        }
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

/// How the program begins.
#[derive(Clone, Copy)]
pub struct Manner {
    /// Its standard input is a terminal that shall be its own.
    pub terminal: bool,
    /// It has an init above it.
    pub init: bool,
}

impl Prepared {
    /// Becomes the program, or the init above it, as the leader of a session. Returns only on failure.
    pub fn begin(self, manner: Manner) -> Failure {
        // SAFETY: no memory arguments. A session's leader already cannot make another, which is as good.
        unsafe { libc::setsid() };
        if manner.terminal
            && let Err(error) = terminal::control()
        {
            return Failure::system("take the terminal", error);
        }
        if manner.init { init::run(self, manner.terminal) } else { self.execute() }
    }

    /// Begins in a process that is cloned from this one as its sibling, and so born in the pid namespace that this one has joined. Its
    /// number goes out through `tells`. Only now, when all rights are gone that the program shall not have: other members of that namespace
    /// may trace it from its first moment if they have CAP_SYS_PTRACE. Returns only on failure.
    pub fn begin_inside(self, manner: Manner, tells: &OwnedFd) -> Failure {
        // SAFETY: one thread.
        match unsafe { fds::clone_sibling() } {
            Ok(0) => self.begin(manner),
            Ok(pid) => {
                // SAFETY: the number is valid for its length. Without it the shim has nobody to wait for, and says so.
                unsafe { libc::write(tells.as_raw_fd(), pid.to_ne_bytes().as_ptr().cast(), 4) };
                std::process::exit(0)
            }
            Err(error) => Failure::system("clone inside the container", error),
        }
    }

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

/// Lets the user open its own input and outputs again by name: servers log to /dev/stdout, and a pipe has an owner like any file. Only
/// pipes and pseudo terminals, which are this container's alone; as runc does.
fn give_outputs(uid: u32) -> io::Result<()> {
    const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;
    for fd in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: zero is a valid value for this plain structure, and the kernel has room for what it writes; -1 leaves the group.
        unsafe {
            let mut found: libc::stat = std::mem::zeroed();
            fds::check(libc::fstat(fd, &raw mut found))?;
            let is_own = match found.st_mode & libc::S_IFMT {
                libc::S_IFIFO => true,
                libc::S_IFCHR => PSEUDO_TERMINALS.contains(&libc::major(found.st_rdev)),
                _ => false,
            };
            if is_own && found.st_uid != uid {
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
