//! A place to launch containers in without an agent: a folder with a busybox image, the request that the agent would write, and
//! what the shim and the monitor answer. Leaves no process, cgroup or file.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const SHIM: &str = env!("CARGO_BIN_EXE_berth-shim");
const MONITOR: &str = env!("CARGO_BIN_EXE_berth-monitor");
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 20] = [
    "cat", "chmod", "dd", "echo", "grep", "head", "id", "ls", "mkdir", "mknod", "mount", "mv", "readlink", "sh", "sleep", "stat", "touch",
    "true", "ulimit", "yes",
];
/// Nothing here takes long; whoever waits this long waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether containers can be launched here; says loudly if not.
pub fn can(what: &str) -> bool {
    // SAFETY: no memory arguments.
    let root = unsafe { libc::geteuid() == 0 };
    if !root || !Path::new(BUSYBOX).exists() {
        println!("SKIPPED (needs root and busybox-static): {what}");
        return false;
    }
    true
}

/// Mount points of cgroup v1's hierarchies; none where version 2 is alone.
pub fn hierarchies() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
    let fields = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        Some((before.split(' ').nth(4)?.to_owned(), after.split(' ').next()?.to_owned()))
    };
    let all: Vec<(String, String)> = mounts.lines().filter_map(fields).collect();
    if all.iter().any(|(point, kind)| kind == "cgroup2" && point == "/sys/fs/cgroup") {
        return Vec::new();
    }
    all.into_iter().filter(|(point, kind)| kind == "cgroup" && point.starts_with("/sys/fs/cgroup")).map(|(point, _)| point.into()).collect()
}

/// The folders of a cgroup.
pub fn cgroup_folders(path: &str) -> Vec<PathBuf> {
    let roots = hierarchies();
    let roots = if roots.is_empty() { vec![PathBuf::from("/sys/fs/cgroup")] } else { roots };
    roots.into_iter().map(|root| root.join(path.trim_start_matches('/'))).collect()
}

/// One container, not started: change `image` (its only layer) and `request` before that.
pub struct Container {
    pub folder: PathBuf,
    pub image: PathBuf,
    pub request: Value,
    pub cgroup: String,
    pub task_cpu_shares: Option<u64>,
    shims: Vec<Child>,
    _whole: tempfile::TempDir,
}

impl Container {
    /// One whose program is a shell script; both of its streams in one, so that there is an order.
    pub fn of(script: &str) -> Container {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let whole = tempfile::tempdir().expect("a temporary folder");
        let (folder, image) = (whole.path().join("container"), whole.path().join("layers/base"));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/berth-launch-{}-{number}/task/container", std::process::id());
        make_image(&image);
        make_folder(&folder);
        let request = request(&folder, &whole.path().join("layers"), &cgroup, &format!("exec 2>&1; {script}"));
        Container { folder, image, request, cgroup, task_cpu_shares: None, shims: Vec::new(), _whole: whole }
    }

    /// Asks the shim to start it; `prepare` may change how the shim itself is started. Gives the shim's one answer.
    pub fn start_with(&mut self, prepare: impl FnOnce(&mut Command)) -> Value {
        std::fs::write(self.folder.join("request.json"), self.request.to_string()).expect("the request can be written");
        let mut command = Command::new(SHIM);
        command.arg("start").stdout(Stdio::null()).stderr(Stdio::null());
        prepare(&mut command);
        let shares = self.task_cpu_shares.map(|shares| format!("\0{shares}")).unwrap_or_default();
        let request = self.folder.to_str().expect("a plain path").to_owned() + &shares;
        let mut answers = self.talk(command, request.as_bytes());
        let mut line = String::new();
        answers.read_line(&mut line).expect("the shim answers");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no answer: {line:?}"))
    }

    /// Starts it and hangs up before there can be an answer.
    pub fn start_and_leave(&mut self) {
        std::fs::write(self.folder.join("request.json"), self.request.to_string()).expect("the request can be written");
        let mut command = Command::new(SHIM);
        command.arg("start").stdout(Stdio::null()).stderr(Stdio::null());
        let request = self.folder.to_str().expect("a plain path").to_owned();
        drop(self.talk(command, request.as_bytes()));
    }

    pub fn start(&mut self) -> i32 {
        pid_of(&self.start_with(|_| {}))
    }

    /// Why it cannot be started.
    pub fn refusal(&mut self) -> String {
        let answer = self.start_with(|_| {});
        answer["failed"]["text"].as_str().unwrap_or_else(|| panic!("it was started: {answer}")).to_owned()
    }

    /// Runs it to its end; gives the exit code and what it said.
    pub fn run(&mut self) -> (i64, String) {
        self.start();
        (self.exit(), self.output())
    }

    /// Runs a script inside it; gives the last answer and what the script said.
    pub fn exec(&mut self, pid: i32, script: &str, change: impl FnOnce(&mut Value)) -> (Value, String) {
        let output = tempfile::tempfile().expect("a temporary file");
        self.exec_into(pid, script, output.try_clone().expect("a second descriptor").into(), change, move || {
            use std::io::{Read, Seek};
            let (mut output, mut text) = (output, String::new());
            output.rewind().and_then(|()| output.read_to_string(&mut text)).expect("the output can be read");
            text
        })
    }

    /// As [`Container::exec`], with an output of the caller's own.
    pub fn exec_into(
        &mut self,
        pid: i32,
        script: &str,
        output: OwnedFd,
        change: impl FnOnce(&mut Value),
        read: impl FnOnce() -> String,
    ) -> (Value, String) {
        let mut request = json!({
            "pid": pid, "cgroup": self.cgroup, "hierarchies": self.request["hierarchies"],
            "process": {"args": ["sh", "-c", format!("exec 2>&1; {script}")], "env": ["PATH=/bin"]},
            "confinement": self.request["confinement"], "user": "", "working_directory": "/",
        });
        change(&mut request);
        let mut command = Command::new(SHIM);
        command.arg("exec").stdout(Stdio::from(output)).stderr(Stdio::null());
        let answers = self.talk(command, request.to_string().as_bytes());
        let last = answers.lines().map(|line| line.expect("the shim answers")).last().unwrap_or_default();
        (serde_json::from_str(&last).unwrap_or_else(|_| panic!("no answer: {last:?}")), read())
    }

    fn talk(&mut self, mut command: Command, request: &[u8]) -> BufReader<UnixStream> {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let shim = command.env_clear().stdin(OwnedFd::from(theirs)).spawn().expect("the shim runs");
        // The command keeps the other end open, and with it the answer from ending.
        drop(command);
        self.shims.push(shim);
        ours.write_all(request).and_then(|()| ours.shutdown(Shutdown::Write)).expect("the shim takes the request");
        ours.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        BufReader::new(ours)
    }

    /// Waits for the exit file.
    pub fn exit(&self) -> i64 {
        let file = self.folder.join("exit.json");
        patiently("its exit file", || {
            let record: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
            record["code"].as_i64()
        })
    }

    /// Waits until it has said a line.
    pub fn until_said(&self, word: &str) {
        patiently(word, || self.output().lines().any(|line| line == word).then_some(()));
    }

    /// What it has said.
    pub fn output(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("output.log")).unwrap_or_default();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
    }

    pub fn mounts(&mut self) -> &mut Vec<Value> {
        self.request["config"]["mounts"].as_array_mut().expect("mounts are a list")
    }

    /// A file of the container's cgroup; of its parent with `up` 1.
    pub fn cgroup_file(&self, controller: &str, name: &str, up: usize) -> String {
        let folder = cgroup_folders(&self.cgroup).into_iter().find(|folder| {
            let own = |part: &std::ffi::OsStr| part.to_string_lossy().split(',').any(|one| one == controller);
            hierarchies().is_empty() || folder.iter().any(own)
        });
        let folder = folder.unwrap_or_else(|| panic!("controller {controller} is mounted"));
        let folder = folder.ancestors().nth(up).expect("it has parents").join(name);
        std::fs::read_to_string(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for top in cgroup_folders(&self.cgroup) {
            let gone = Instant::now() + PATIENCE;
            while top.exists() && Instant::now() < gone {
                let members = std::fs::read_to_string(top.join("cgroup.procs")).unwrap_or_default();
                for pid in members.lines().filter_map(|line| line.parse::<i32>().ok()) {
                    // SAFETY: a member of this test's own cgroup.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
                let _ = std::fs::remove_dir(&top);
                std::thread::sleep(Duration::from_millis(2));
            }
            for parent in top.ancestors().skip(1).take(2) {
                let _ = std::fs::remove_dir(parent);
            }
        }
        for shim in &mut self.shims {
            let _ = shim.wait();
        }
    }
}

/// The first process's id in the shim's answer.
pub fn pid_of(answer: &Value) -> i32 {
    answer["started"]["pid"].as_i64().unwrap_or_else(|| panic!("not started: {answer}")) as i32
}

/// Asks until there is an answer.
pub fn patiently<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Some(answer) => return answer,
            None if Instant::now() > end => panic!("waited in vain for {what}"),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// The parent of a process: a container's monitor.
pub fn parent_of(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim().parse().expect("a number")
}

fn make_image(image: &Path) {
    for folder in ["bin", "etc", "tmp"] {
        std::fs::create_dir_all(image.join(folder)).expect("the image can be written");
    }
    std::fs::copy(BUSYBOX, image.join("bin/busybox")).expect("busybox can be copied");
    for applet in APPLETS {
        symlink("busybox", image.join("bin").join(applet)).expect("the image can be written");
    }
    std::fs::write(image.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n")
        .expect("the image can be written");
}

fn make_folder(folder: &Path) {
    for name in ["upper", "work", "merged"] {
        std::fs::create_dir_all(folder.join(name)).expect("the folder can be made");
    }
}

fn request(folder: &Path, layers: &Path, cgroup: &str, script: &str) -> Value {
    let mount = |kind: &str, at: &str, options: &[&str]| json!({"type": kind, "source": kind, "destination": at, "options": options});
    let mut namespaces = vec![json!({"type": "pid"}), json!({"type": "mount"}), json!({"type": "ipc"}), json!({"type": "uts"})];
    if hierarchies().is_empty() {
        namespaces.push(json!({"type": "cgroup"}));
    }
    json!({
        "id": "test",
        "config": {
            "root": {"path": folder.join("merged"), "readonly": false},
            "hostname": "test",
            "mounts": [
                mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
                mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
                mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]),
                mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
                mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
                mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
            ],
            "process": {"args": ["sh", "-c", script], "env": ["PATH=/bin"], "rlimits": []},
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": cgroup,
                "resources": {"devices": [{"allow": false, "access": "rwm"}], "cpu": {"shares": 64}},
                "maskedPaths": ["/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/irq"],
            },
        },
        "hierarchies": hierarchies(),
        "layers": layers,
        "lower": ["base"],
        // CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, MKNOD.
        "confinement": {"capabilities": 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 27, "seccomp": null},
        "no_devices": false,
        "user": "",
        "working_directory": "/",
        "monitor": MONITOR,
        "log_limit": 1 << 20,
        "oom_file": "",
    })
}
