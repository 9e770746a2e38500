//! etcd clusters of a test's own, on free loopback ports, and a wire to them that can be cut. Nothing outlives the test.

mod ports;

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use berth_store::{EtcdAddress, EtcdSettings, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use ports::Port;

/// The server program, or a loud line that says that it is missing.
pub fn etcd_program() -> Option<PathBuf> {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/etcd/usr/bin/etcd").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|folder| folder.join("etcd")).chain([PathBuf::from(unpacked)]);
    let found = places.into_iter().find(|program| program.is_file());
    if found.is_none() {
        println!("SKIPPED (needs etcd): the program etcd is not installed; `make test` as root fetches Debian's etcd-server");
    }
    found
}

struct Process {
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An etcd cluster.
pub struct Cluster {
    program: PathBuf,
    folder: tempfile::TempDir,
    /// Client and peer port of each member.
    ports: Vec<(Port, Port)>,
    members: Vec<Option<Process>>,
}

impl Cluster {
    /// `None` if there is no etcd here. Call it on the test's own thread: members die with the thread that starts them.
    pub fn start(size: usize) -> Option<Self> {
        let program = etcd_program()?;
        let ports = (0..size).map(|_| (Port::free(), Port::free())).collect();
        let mut cluster = Self { program, folder: tempfile::tempdir().unwrap(), ports, members: Vec::new() };
        for number in 0..size {
            let process = cluster.spawn(number);
            cluster.members.push(Some(process));
        }
        Some(cluster)
    }

    fn spawn(&self, number: usize) -> Process {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<_> = self.ports.iter().enumerate().map(|(number, (_, peer))| format!("m{number}={}", url(peer.number))).collect();
        let (client, peer) = (self.ports[number].0.number, self.ports[number].1.number);
        let mut command = Command::new(&self.program);
        command.args(["--name", &format!("m{number}"), "--logger", "zap", "--log-level", "error"]);
        command.arg("--data-dir").arg(self.folder.path().join(number.to_string()));
        command.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
        command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
        command.args(["--initial-cluster", &peers.join(","), "--initial-cluster-token", &format!("t{}", self.ports[0].0.number)]);
        let log = std::fs::File::create(self.folder.path().join(format!("{number}.log"))).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // SAFETY: prctl is async-signal-safe, and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        Process { child: command.spawn().unwrap() }
    }

    /// kill -9.
    pub fn kill(&mut self, member: usize) {
        self.members[member] = None;
    }

    /// It stands still.
    pub fn pause(&self, member: usize) {
        self.send(member, libc::SIGSTOP);
    }

    /// It goes on.
    pub fn resume(&self, member: usize) {
        self.send(member, libc::SIGCONT);
    }

    fn send(&self, member: usize, signal: libc::c_int) {
        let process = self.members[member].as_ref().expect("it runs");
        let pid = libc::pid_t::try_from(process.child.id()).unwrap();
        // SAFETY: a signal to a child of ours that was not waited for yet, so the number is still its.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Starts a killed member again, on its data.
    pub fn revive(&mut self, member: usize) {
        self.members[member] = Some(self.spawn(member));
    }

    pub fn endpoint(&self, member: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[member].0.number))
    }

    pub fn settings(&self, prefix: &str) -> EtcdSettings {
        let endpoints: Vec<_> = (0..self.ports.len()).map(|member| self.endpoint(member).to_string()).collect();
        settings(&endpoints.join(","), prefix)
    }

    pub fn open(&self, prefix: &str) -> Store {
        Store::open_etcd(self.settings(prefix)).unwrap()
    }
}

pub fn settings(endpoints: &str, prefix: &str) -> EtcdSettings {
    let address: EtcdAddress = format!("etcd://{endpoints}/{prefix}").parse().unwrap();
    EtcdSettings::new(address)
}

const WHOLE: u8 = 0;
const NO_ANSWERS: u8 = 1;
const CUT: u8 = 2;

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for number in 0..self.ports.len() {
                let said = std::fs::read_to_string(self.folder.path().join(format!("{number}.log"))).unwrap_or_default();
                eprintln!("what member {number} of etcd said:\n{said}");
            }
        }
    }
}

/// A wire to one member.
pub struct Wire {
    pub address: SocketAddr,
    mode: Arc<AtomicU8>,
    cut: watch::Sender<()>,
}

impl Wire {
    pub async fn to(member: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, cut) = (Arc::new(AtomicU8::new(WHOLE)), watch::Sender::new(()));
        let (shared, cuts) = (Arc::clone(&mode), cut.subscribe());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if shared.load(Ordering::SeqCst) == CUT {
                    continue;
                }
                let Ok(far) = TcpStream::connect(member).await else { continue };
                let (mode, mut cut) = (Arc::clone(&shared), cuts.clone());
                cut.mark_unchanged();
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                let whole = Arc::new(AtomicU8::new(WHOLE));
                tokio::spawn(async move {
                    tokio::select! {
                        () = pump(near_in, far_out, whole) => {}
                        () = pump(far_in, near_out, mode) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, mode, cut }
    }

    /// What the member answers is lost from now on; requests still reach it.
    pub fn lose_answers(&self) {
        self.mode.store(NO_ANSWERS, Ordering::SeqCst);
    }

    /// Breaks what is open, and refuses what is new.
    pub fn cut(&self) {
        self.mode.store(CUT, Ordering::SeqCst);
        self.cut.send_replace(());
    }

    /// Breaks what is open; new connections work.
    pub fn mend(&self) {
        self.mode.store(WHOLE, Ordering::SeqCst);
        self.cut.send_replace(());
    }
}

async fn pump(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, mode: Arc<AtomicU8>) {
    let mut buffer = vec![0; 64 * 1024];
    // A stream that has a hole carries nothing any more.
    let mut broken = false;
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        broken |= mode.load(Ordering::SeqCst) != WHOLE;
        if !broken && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
