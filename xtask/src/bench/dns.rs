//! `bench dns`: answers a second that one core gives, over real UDP sockets on loopback, beside dnsmasq if it is installed. By the processor
//! time of the server alone, so that the client beside it does not count; a container's server has nothing else to share its core with.

use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use berth_network::dns::{Answer, CurrentTable, Record, Routing, Server, ServerConfig, Table, Upstreams, Zone};

use super::dns_visible;
use super::scratch::{self, Folder, Process};
use super::{Peer, row_noted};

/// Questions under way at once, as of many containers.
const WINDOW: usize = 64;
/// Names in the table, so that looking one up is not looking at one.
const NAMES: usize = 10_000;
/// How long one measurement takes.
const ROUND: Duration = Duration::from_secs(2);
/// An answer that is not there by then was lost.
const LOST: Duration = Duration::from_millis(500);

pub(super) fn run(runs: usize) -> Result<(), Box<dyn Error>> {
    scratch::prepare()?;
    let rounds = runs.clamp(1, 5);
    let ours = best(rounds, Ours::start()?)?;
    let peer = match Dnsmasq::start()? {
        Some(dnsmasq) => Some(Peer { name: "dnsmasq", value: best(rounds, dnsmasq)?.a_core }),
        None => {
            eprintln!("dnsmasq is not installed: there is no peer");
            None
        }
    };
    let note = format!("{NAMES} names, {WINDOW} questions under way; {:.0} answers a second by the clock", ours.by_clock);
    row_noted("dns/answers-per-s-core", ours.a_core, "answers/s", peer.as_ref(), &note);
    dns_visible::run(runs)
}

/// What one measurement found.
#[derive(Clone, Copy)]
struct Rate {
    a_core: f64,
    by_clock: f64,
}

/// A server that can say what processor time it has used, in seconds.
trait Measured {
    fn address(&self) -> SocketAddr;
    fn used(&self) -> Result<f64, Box<dyn Error>>;
}

/// The best of some rounds: others on the machine only ever make it slower.
fn best(rounds: usize, server: impl Measured) -> Result<Rate, Box<dyn Error>> {
    let mut best = Rate { a_core: 0.0, by_clock: 0.0 };
    for _ in 0..rounds {
        let (before, since) = (server.used()?, Instant::now());
        let answers = ask(server.address())?;
        let rate = Rate { a_core: answers / (server.used()? - before), by_clock: answers / since.elapsed().as_secs_f64() };
        if rate.a_core > best.a_core {
            best = rate;
        }
    }
    Ok(best)
}

/// Asks for a round, and counts answers.
fn ask(server: SocketAddr) -> Result<f64, Box<dyn Error>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(LOST))?;
    let questions: Vec<Vec<u8>> = (0..NAMES).map(question).collect();
    let mut next = questions.iter().cycle();
    let until = Instant::now() + ROUND;
    let (mut answers, mut under_way) = (0.0, 0);
    let mut buffer = [0; 2048];
    while Instant::now() < until {
        while under_way < WINDOW {
            socket.send(next.next().expect("there is always another"))?;
            under_way += 1;
        }
        match socket.recv(&mut buffer) {
            // One address, and no error.
            Ok(length) if length > 12 && buffer[3] & 0x0f == 0 && buffer[7] == 1 => {
                answers += 1.0;
                under_way -= 1;
            }
            Ok(length) => return Err(format!("{server} answered {:02x?}", &buffer[..length.min(12)]).into()),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => under_way = 0,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answers)
}

fn name(number: usize) -> String {
    format!("service-{number}")
}

fn question(number: usize) -> Vec<u8> {
    ask_for(number, &[&name(number), "ns", "local"])
}

/// A question for the A records of a name.
pub(super) fn ask_for(number: usize, labels: &[&str]) -> Vec<u8> {
    let mut bytes = vec![(number >> 8) as u8, number as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Our server on a thread of its own.
struct Ours {
    address: SocketAddr,
    ask: tokio::sync::mpsc::UnboundedSender<mpsc::Sender<std::io::Result<f64>>>,
}

impl Ours {
    fn start() -> Result<Self, Box<dyn Error>> {
        let record = |number| Record {
            name: name(number),
            ttl_seconds: 10,
            routing: Routing::Multivalue,
            answers: vec![Answer::A(Ipv4Addr::new(10, 0, (number >> 8) as u8, number as u8))],
        };
        let zone = Zone { name: "ns.local".into(), records: (0..NAMES).map(record).collect() };
        let tables = CurrentTable::default();
        tables.replace(Table::new(1, &[zone]).0);
        let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel::<mpsc::Sender<std::io::Result<f64>>>();
        let (started, start) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listen = (Ipv4Addr::LOCALHOST, 0).into();
                let server = Server::start(ServerConfig { listen, upstreams: Upstreams::fixed(Vec::new()) }, tables).await;
                let server = match server {
                    Ok(server) => server,
                    Err(error) => return drop(started.send(Err(error))),
                };
                drop(started.send(Ok(server.address())));
                // On this thread, which does nothing else than to serve.
                while let Some(answer) = asked.recv().await {
                    drop(answer.send(processor_seconds("/proc/thread-self/schedstat")));
                }
            });
        });
        Ok(Self { address: start.recv()??, ask })
    }
}

impl Measured for Ours {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn used(&self) -> Result<f64, Box<dyn Error>> {
        let (answer, answered) = mpsc::channel();
        self.ask.send(answer)?;
        Ok(answered.recv()??)
    }
}

/// dnsmasq with the same names.
struct Dnsmasq {
    process: Process,
    address: SocketAddr,
    _folder: Folder,
}

impl Dnsmasq {
    /// `None` if it is not installed.
    fn start() -> Result<Option<Self>, Box<dyn Error>> {
        if !is_installed() {
            return Ok(None);
        }
        let folder = Folder::make("dns")?;
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let hosts: String = (0..NAMES).map(|number| format!("10.0.{}.{} {}.ns.local\n", number >> 8, number & 255, name(number))).collect();
        let file = folder.path().join("hosts");
        fs::write(&file, hosts)?;
        let mut command = Command::new("dnsmasq");
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file="])
            .args(["--local=/ns.local/", "--local-ttl=10", "--log-facility=/dev/null", "--user=root"])
            .arg(format!("--addn-hosts={}", file.display()))
            .arg(format!("--listen-address={}", address.ip()))
            .arg(format!("--port={}", address.port()))
            .stdin(Stdio::null());
        let dnsmasq = Self { process: Process::spawn(&mut command)?, address, _folder: folder };
        dnsmasq.wait()?;
        Ok(Some(dnsmasq))
    }

    fn wait(&self) -> Result<(), Box<dyn Error>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(self.address)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        for _ in 0..100 {
            // Refused for as long as nobody listens.
            if socket.send(&question(1)).is_ok() && socket.recv(&mut [0; 512]).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err("dnsmasq does not answer".into())
    }
}

impl Measured for Dnsmasq {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn used(&self) -> Result<f64, Box<dyn Error>> {
        // It has one thread.
        Ok(processor_seconds(&format!("/proc/{}/schedstat", self.process.child.id()))?)
    }
}

fn is_installed() -> bool {
    let version = Command::new("dnsmasq").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// A thread's processor time: the first number of its schedstat, in nanoseconds.
fn processor_seconds(path: &str) -> std::io::Result<f64> {
    let text = fs::read_to_string(path)?;
    let nanos = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    let nanos = nanos.ok_or_else(|| std::io::Error::other(format!("{path}: {text:?} has no processor time")))?;
    Ok(Duration::from_nanos(nanos).as_secs_f64())
}
