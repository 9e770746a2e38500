//! A Docker of the test's own. Debian's packages are unpacked into `target/docker`, never installed; the daemon runs, together with the
//! test, in network, mount and process namespaces of its own, so that the machine's rules, bridges and containers are not touched.

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_runtime::native::cgroups::Layout;

/// What dockerd and the programs that it starts are made of.
const PACKAGES: [&str; 13] = [
    "docker.io",
    "containerd",
    "runc",
    "iptables",
    "tini",
    "libdevmapper1.02.1",
    "libip4tc2",
    "libip6tc2",
    "libxtables12",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libmnl0",
];

/// Set in the process that runs within the namespaces: where its folder is.
const INSIDE: &str = "BERTH_DOCKER_TEST_FOLDER";

/// Runs `test` in a process of its own with a daemon, or says why not. `name` is the test's own.
pub fn inside<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Arc<Daemon>) -> F) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        let daemon = Arc::new(Daemon::new(PathBuf::from(folder)));
        daemon.start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio starts");
        runtime.block_on(test(Arc::clone(&daemon)));
        drop(runtime);
        daemon.kill();
        return;
    }
    // SAFETY: no memory arguments.
    if unsafe { libc::geteuid() } != 0 || !Path::new("/bin/busybox").exists() {
        println!("SKIPPED (needs root and busybox-static): {name}");
        return;
    }
    if let Err(problem) = unpack() {
        println!("SKIPPED (needs Debian's docker.io: {problem}): {name}");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let own = std::env::current_exe().expect("a test has a path");
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(own)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, folder.path())
        .status()
        .expect("util-linux is part of every Debian");
    if !status.success() {
        let log = std::fs::read_to_string(folder.path().join("dockerd.log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(30).collect();
        println!("dockerd's last words, latest first:\n{}", last.join("\n"));
    }
    if let Ok(cgroups) = Layout::detect() {
        cgroups.sweep(&cgroup(folder.path()));
    }
    // runc makes them in the unified hierarchy of a hybrid machine too.
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten() {
        remove_cgroups(&hierarchy.path().join(cgroup(folder.path())));
    }
    assert!(status.success(), "the test failed within its namespaces");
}

/// `target/docker`, beside the profile's folder that the test lies in.
fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.ancestors().nth(3).expect("target/<profile>/deps").join("docker")
}

fn unpack() -> Result<(), String> {
    let folder = programs();
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let lock = std::fs::File::create(folder.join("lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    if folder.join("whole").exists() {
        return Ok(());
    }
    let packages = folder.join("packages");
    std::fs::create_dir_all(&packages).map_err(|e| e.to_string())?;
    let run = |command: &mut Command| match command.current_dir(&packages).stdout(Stdio::null()).stderr(Stdio::piped()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    run(Command::new("apt-get").args(["download", "-qq"]).args(PACKAGES))?;
    for entry in std::fs::read_dir(&packages).map_err(|e| e.to_string())?.flatten() {
        run(Command::new("dpkg-deb").arg("--extract").arg(entry.path()).arg(&folder))?;
    }
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).map_err(|e| e.to_string())?;
    for (name, target) in
        [("iptables", "sbin/xtables-nft-multi"), ("ip6tables", "sbin/xtables-nft-multi"), ("docker-init", "bin/tini-static")]
    {
        let _ = std::os::unix::fs::symlink(folder.join("usr").join(target), bin.join(name));
    }
    std::fs::write(folder.join("whole"), "").map_err(|e| e.to_string())
}

/// From below: a cgroup with others in it cannot be removed.
fn remove_cgroups(path: &Path) {
    for inner in std::fs::read_dir(path).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_cgroups(&inner.path());
    }
    if path.exists() {
        std::fs::remove_dir(path).unwrap_or_else(|error| panic!("{} is left: {error}", path.display()));
    }
}

/// A service manager's children ignore no signal; whoever started this test may. Without the C library, which keeps two for itself.
fn hear_all_signals() -> std::io::Result<()> {
    // The kernel's own structure: handler, flags, restorer, mask; all zero is the default action.
    let default = [0_u64; 4];
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // SAFETY: `default` has the size that the kernel reads, and outlives the call.
        let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8) };
        if done != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What a service manager gives dockerd, as far as this machine can.
fn most_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for what the kernel writes.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_max.min(65_536)
}

fn cgroup(folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "")).unwrap_or_default();
    format!("berth-docker-{name}")
}

/// A daemon in this process's namespaces.
pub struct Daemon {
    folder: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Daemon {
    fn new(folder: PathBuf) -> Daemon {
        let lo = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(lo.is_ok_and(|status| status.success()), "loopback of a new namespace comes up");
        Daemon { folder, child: Mutex::default() }
    }

    /// The test's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its address.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    fn command(&self, program: &str) -> Command {
        let programs = programs();
        let path = std::env::var("PATH").unwrap_or_default();
        let of = |name: &str| programs.join(name).display().to_string();
        let mut command = Command::new(programs.join("usr").join(program));
        command
            .env("PATH", format!("{}:{}:{}:{path}", of("usr/sbin"), of("usr/bin"), of("bin")))
            .env("LD_LIBRARY_PATH", format!("{}:{}", of("usr/lib/x86_64-linux-gnu"), of("lib/x86_64-linux-gnu")))
            .env("XTABLES_LIBDIR", of("usr/lib/x86_64-linux-gnu/xtables"))
            .env_remove("DOCKER_HOST");
        command
    }

    /// Starts it, and waits until it answers.
    pub fn start(&self) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.folder.join("dockerd.log")).expect("a log");
        let inside = |name: &str| self.folder.join(name);
        let _ = std::fs::remove_file(inside("docker.sock"));
        let files = most_files();
        let mut command = self.command("sbin/dockerd");
        // SAFETY: the function only makes system calls, and touches no memory but its own stack.
        unsafe { command.pre_exec(hear_all_signals) };
        let child = command
            .arg("--data-root")
            .arg(inside("docker-data"))
            .arg("--exec-root")
            .arg(inside("docker-exec"))
            .arg("--pidfile")
            .arg(inside("docker.pid"))
            .arg("--cgroup-parent")
            .arg(format!("/{}", cgroup(&self.folder)))
            .args(["--host", &self.host(), "--default-ulimit", &format!("nofile={files}:{files}"), "--storage-driver", "overlay2"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("dockerd was unpacked");
        *self.child.lock().expect("nobody panicked") = Some(child);
        for _ in 0..600 {
            if self.command("bin/docker").args(["--host", &self.host(), "version"]).output().is_ok_and(|output| output.status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("dockerd does not answer");
    }

    /// Kills it, and containerd with it, as a crash would.
    pub fn kill(&self) {
        let Some(mut child) = self.child.lock().expect("nobody panicked").take() else { return };
        let _ = child.kill();
        let _ = child.wait();
        let file = self.folder.join("docker-exec/containerd/containerd.pid");
        let pid = std::fs::read_to_string(&file).ok();
        if let Some(pid) = pid.and_then(|text| text.trim().parse::<i32>().ok()) {
            // SAFETY: plain kill of the containerd that this daemon started, in this test's own process namespace.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        // The first process of this namespace is the test, which collects no orphans: their numbers would be taken for living daemons.
        let _ = std::fs::remove_file(file);
        let _ = std::fs::remove_file(self.folder.join("docker.pid"));
    }

    /// Runs Docker's own command.
    pub fn docker(&self, arguments: &[&str]) {
        let output = self.command("bin/docker").args(["--host", &self.host()]).args(arguments).output().expect("docker was unpacked");
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
