//! The system calls a container may make: an allow list with the reach of Docker's default profile, so that what runs there
//! runs here and what is refused there is refused here. <https://docs.docker.com/engine/security/seccomp/>

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Calls that any container may make.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close
    close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
    epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
    fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
    _llseek _newselect arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid
    getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid
    getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get
    ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat
    listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap
    mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2
    pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv
    preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_tls setsid setsockopt setuid setuid32 setxattr
    setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair
    splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee
    tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit
    umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
    writev";

/// Calls that come with a capability.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname
         setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
];

/// Flags of clone(2) that make namespaces, but for those of threads.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;
const AF_VSOCK: u64 = 40;
/// PER_LINUX, PER_LINUX32, UNAME26, PER_LINUX32 | UNAME26, and "which is it".
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The profile of a container with these capabilities, as `berth-seccomp` reads it.
pub fn profile(capabilities: &BTreeSet<&str>) -> Value {
    let mut allow: BTreeSet<&str> = ALLOWED.split_whitespace().collect();
    for (capability, calls) in BY_CAPABILITY {
        if capabilities.contains(capability) {
            allow.extend(calls.split_whitespace());
        }
    }
    let mut rules: Vec<Value> = PERSONALITIES
        .iter()
        .map(|value| json!({"name": "personality", "errno": null, "when": [{"argument": 0, "compare": "eq", "value": value}]}))
        .collect();
    // A container that talks to the hypervisor talks past every network rule.
    rules.push(json!({"name": "socket", "errno": null, "when": [{"argument": 0, "compare": "ne", "value": AF_VSOCK}]}));
    if !allow.contains("clone") {
        rules.push(json!({"name": "clone", "errno": null,
            "when": [{"argument": 0, "compare": "masked", "mask": NAMESPACE_FLAGS, "value": 0}]}));
        // Its flags are in memory, where a filter cannot see them; "no such call" makes C libraries use clone instead.
        rules.push(json!({"name": "clone3", "errno": libc::ENOSYS, "when": []}));
    }
    json!({"errno": libc::EPERM, "allow": allow, "rules": rules})
}

/// Compiled filters, by profile.
#[derive(Debug)]
pub struct Filters {
    folder: PathBuf,
    program: PathBuf,
    /// Tells one build of the program from another: a new one may compile the same profile to something better, and what an old one
    /// made would otherwise be used for ever.
    compiler: String,
    /// One compiles at a time: the first task to want a filter waits for the one that is being made since the start.
    turn: Mutex<()>,
}

impl Filters {
    /// Filters are kept in `folder`, and made by `program`, which is `berth-seccomp`.
    ///
    /// # Errors
    /// Of the system.
    pub fn open(folder: PathBuf, program: PathBuf) -> io::Result<Filters> {
        use std::os::unix::fs::MetadataExt;
        std::fs::create_dir_all(&folder)?;
        let built = std::fs::metadata(&program).map_err(|e| io::Error::new(e.kind(), format!("look at {}: {e}", program.display())))?;
        let compiler = format!("{} {} {}", built.len(), built.mtime(), built.mtime_nsec());
        Ok(Filters { folder, program, compiler, turn: Mutex::default() })
    }

    /// Has the filter of these capabilities made beside whatever else there is to do: it takes a quarter of Berth's start on a new machine.
    pub fn compile_aside(self: &Arc<Self>, capabilities: BTreeSet<&'static str>) -> Compiling {
        let filters = Arc::clone(self);
        Compiling(Some(std::thread::spawn(move || {
            if let Err(error) = filters.compiled(&capabilities) {
                tracing::error!(%error, "the usual seccomp filter cannot be made; containers will not start");
            }
        })))
    }

    /// The filter of these capabilities; compiled the first time.
    ///
    /// # Errors
    /// Of the system; the text has what the compiler said.
    pub fn compiled(&self, capabilities: &BTreeSet<&str>) -> io::Result<PathBuf> {
        let profile = profile(capabilities).to_string();
        let file = self.folder.join(format!("{}.bpf", &hex::encode(Sha256::digest(format!("{} {profile}", self.compiler)))[..32]));
        if file.exists() {
            return Ok(file);
        }
        let _turn = self.turn.lock();
        if !file.exists() {
            let filter = compile(&self.program, &profile)?;
            let new = tempfile_name(&self.folder);
            std::fs::write(&new, filter)?;
            std::fs::rename(&new, &file)?;
        }
        Ok(file)
    }
}

/// A filter that is being made on a thread of its own. Dropping this waits for it: it is written into its owner's data directory.
pub struct Compiling(Option<std::thread::JoinHandle<()>>);

impl Drop for Compiling {
    fn drop(&mut self) {
        let _ = self.0.take().map(std::thread::JoinHandle::join);
    }
}

/// Two compilations at once must not write one file; both results are the same, so the later rename does no harm.
fn tempfile_name(folder: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    folder.join(format!("new-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn compile(program: &Path, profile: &str) -> io::Result<Vec<u8>> {
    let mut child = Command::new(program)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("run {}: {e}", program.display())))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(profile.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() || output.stdout.is_empty() {
        return Err(io::Error::other(format!("compile the seccomp filter: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(capabilities: &[&str], call: &str) -> bool {
        let profile = profile(&capabilities.iter().copied().collect());
        profile["allow"].as_array().unwrap().iter().any(|name| name == call)
    }

    #[test]
    fn dangerous_calls_need_their_capability() {
        for call in ["mount", "setns", "unshare", "bpf", "reboot", "init_module", "keyctl", "add_key", "kexec_load", "userfaultfd"] {
            assert!(!allows(&super::super::capabilities::DEFAULT, call), "{call}");
        }
        assert!(allows(&["SYS_ADMIN"], "mount"));
        assert!(allows(&super::super::capabilities::DEFAULT, "chroot"));
        // The last ones are Docker's too, and what debuggers, MPI and 32-bit programs come for.
        let usual =
            ["execve", "openat", "futex", "clock_gettime", "epoll_wait", "getrandom", "rseq", "process_vm_readv", "_llseek", "set_tls"];
        for call in usual {
            assert!(allows(&[], call), "{call}");
        }
    }

    #[test]
    fn namespaces_cannot_be_made_by_clone() {
        let rules = profile(&BTreeSet::new())["rules"].clone();
        let find = |name: &str| rules.as_array().unwrap().iter().find(|rule| rule["name"] == name).cloned();
        assert_eq!(find("clone").unwrap()["when"][0]["mask"], NAMESPACE_FLAGS);
        assert_eq!(find("clone3").unwrap()["errno"], libc::ENOSYS);
        let admin = profile(&["SYS_ADMIN"].into_iter().collect())["rules"].clone();
        assert!(admin.as_array().unwrap().iter().all(|rule| rule["name"] != "clone3"));
    }
}
