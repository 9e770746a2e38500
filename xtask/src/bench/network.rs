//! `bench network`: how long a task's network takes to set up, alone and beside many, and what two tasks move in a second beside a bare veth
//! pair between the same two namespaces, in turn. Everything happens in namespaces of the bench's own, which go with it; it needs root.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use berth_network::interface::{DEFAULT_MTU, MacAddress, TaskInterface};
use berth_network::linux::{InterfaceConfig, InterfaceNetwork};
use berth_network::port::AttachmentId;
use berth_network::security_group::{Cidr, NetworkTable, Peer as Source, Rule, SecurityGroup, Traffic};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpCongestion;

use super::namespace::Network;
use super::scratch::Folder;
use super::{Peer, quantile, row, row_noted};

const GROUP: &str = "sg-measure";
/// Tasks that are there meanwhile, as many as one machine is promised to hold.
const BESIDE: u16 = 500;
/// How long bytes are counted for one measurement.
const MOVING: Duration = Duration::from_millis(400);
/// How long a connection has moved bytes before they are counted: by then what lasts has found its way.
const LASTING: Duration = Duration::from_secs(1);
/// The bare pair's ends.
const BARE: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 99, 1), Ipv4Addr::new(192, 168, 99, 2)];
const PORT: u16 = 5001;

pub(super) fn run(runs: usize) -> Result<(), Box<dyn Error>> {
    // Before any other thread exists, so that all of them are inside.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("namespaces of its own, which need root: {error}"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure(runs))
}

async fn measure(runs: usize) -> Result<(), Box<dyn Error>> {
    let folder = Folder::make("network")?;
    let (state_dir, netns_dir) = (folder.path().join("state"), folder.path().join("netns"));
    let network = InterfaceNetwork::open(InterfaceConfig::new("measure", state_dir, netns_dir))?;
    network.apply(&table(1)).await?;
    lives(&network, runs, "network/attach-p50-ms", "network/detach-p50-ms").await?;
    let mut times = Vec::new();
    for number in beside() {
        let start = Instant::now();
        network.attach(&id(number), &interface(number)).await?;
        times.push(millis(start.elapsed()));
    }
    row("network/attach-500-in-turn-p50-ms", quantile(&times, 0.5), "ms", None);
    lives(&network, runs, "network/attach-beside-500-p50-ms", "network/detach-beside-500-p50-ms").await?;
    let mut changes = Vec::new();
    for rules in (1..=50).cycle().take(runs) {
        let start = Instant::now();
        network.apply(&table(rules)).await?;
        changes.push(millis(start.elapsed()));
    }
    row("network/change-of-groups-beside-500-p50-ms", quantile(&changes, 0.5), "ms", None);
    throughput(&network, runs).await?;
    for number in beside() {
        network.detach(&id(number)).await?;
    }
    Ok(network.shutdown().await?)
}

fn beside() -> std::ops::Range<u16> {
    10_000..10_000 + BESIDE
}

/// Interfaces that come and go one after the other.
async fn lives(network: &InterfaceNetwork, runs: usize, attach: &str, detach: &str) -> Result<(), Box<dyn Error>> {
    let (mut made, mut gone) = (Vec::new(), Vec::new());
    for number in (10..1000).cycle().take(runs) {
        let start = Instant::now();
        network.attach(&id(number), &interface(number)).await?;
        let attached = Instant::now();
        network.detach(&id(number)).await?;
        made.push(millis(attached - start));
        gone.push(millis(attached.elapsed()));
    }
    row_noted(attach, quantile(&made, 0.5), "ms", None, &format!("p90 {:.3}", quantile(&made, 0.9)));
    row(detach, quantile(&gone, 0.5), "ms", None);
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Congestion control that connections are measured with, how long they have lasted, and the row. What the machine is set to is not asked: BBR
/// sends no faster than it has measured that it may, which leaves processors idle and hides what the way costs; CUBIC is what nearly all
/// hosts have.
const CONNECTIONS: [(&str, Duration, &str); 3] = [
    ("cubic", LASTING, "network/throughput-gb-s"),
    ("bbr", LASTING, "network/throughput-bbr-gb-s"),
    ("cubic", Duration::ZERO, "network/throughput-first-gb-s"),
];

/// Between two tasks, and between the two ends of a bare pair: in turn, the median of each.
async fn throughput(network: &InterfaceNetwork, runs: usize) -> Result<(), Box<dyn Error>> {
    let mut tasks = Vec::new();
    for number in [1000, 1001] {
        let attached = network.attach(&id(number), &interface(number)).await?;
        tasks.push((attached.namespace.ok_or("the interface has no namespace")?, number));
    }
    let [(from_path, _), (to_path, to_number)] = &tasks[..] else { return Err("there are not two tasks".into()) };
    let (from, to) = (Network::at(from_path)?, Network::at(to_path)?);
    bare_pair(&from, &to, to_path)?;
    let available = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")?;
    for (control, lasted, name) in CONNECTIONS {
        if !available.split_whitespace().any(|one| one == control) {
            eprintln!("{name} is left out: this kernel has no {control}");
            continue;
        }
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        // One of each to warm up; it is not counted.
        for run in 0..=runs {
            let moved = |to_address| moved(&from, &to, to_address, (control, lasted));
            let (task, pair) = (moved(address(*to_number))?, moved(BARE[1])?);
            if run > 0 {
                ours.push(task);
                bare.push(pair);
            }
        }
        let peer = Peer { name: "a bare veth pair", value: quantile(&bare, 0.5) };
        row(name, quantile(&ours, 0.5), "GB/s", Some(&peer));
    }
    for (_, number) in tasks {
        network.detach(&id(number)).await?;
    }
    Ok(())
}

/// Joins the two namespaces a second time, so that everything but the way is alike.
fn bare_pair(from: &Network, to: &Network, to_path: &Path) -> Result<(), Box<dyn Error>> {
    let ip = |network: &Network, line: &str| -> Result<(), Box<dyn Error>> {
        let status = network.inside(|| Command::new("ip").args(line.split(' ')).status())?;
        if status.success() { Ok(()) } else { Err(format!("ip {line} ended with {status}").into()) }
    };
    ip(from, &format!("link add bare0 type veth peer name bare1 netns {}", to_path.display()))?;
    for (network, link, address) in [(from, "bare0", BARE[0]), (to, "bare1", BARE[1])] {
        ip(network, &format!("addr add {address}/24 dev {link}"))?;
        ip(network, &format!("link set {link} up"))?;
    }
    Ok(())
}

/// Gigabytes a second over one TCP connection, after it has moved bytes for a while.
fn moved(from: &Network, to: &Network, address: Ipv4Addr, (control, lasted): (&str, Duration)) -> Result<f64, Box<dyn Error>> {
    let listener = to.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    let peer = SocketAddrV4::new(address, PORT).into();
    let mut sender = from.inside(|| TcpStream::connect_timeout(&peer, Duration::from_secs(5)))?;
    setsockopt(&sender, TcpCongestion, &control.into())?;
    let (mut receiver, _) = listener.accept()?;
    let sending = thread::spawn(move || {
        let (buffer, end) = (vec![0; 128 << 10], Instant::now() + lasted + MOVING);
        while Instant::now() < end && sender.write_all(&buffer).is_ok() {}
    });
    let (mut buffer, mut total, mut start) = (vec![0; 128 << 10], 0.0, Instant::now());
    let counted_from = start + lasted;
    while let Ok(length @ 1..) = receiver.read(&mut buffer) {
        if start < counted_from {
            start = Instant::now();
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "a buffer's length")]
        let more = length as f64;
        total += more;
    }
    let rate = total / start.elapsed().as_secs_f64() / 1e9;
    sending.join().map_err(|_| "the sender panicked")?;
    Ok(rate)
}

fn id(number: u16) -> AttachmentId {
    AttachmentId(format!("measure-{number}"))
}

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 88, high, low)
}

fn interface(number: u16) -> TaskInterface {
    let [a, b, c, d] = address(number).octets();
    TaskInterface {
        id: format!("eni-{number}"),
        address: address(number),
        prefix: 16,
        ipv6: None,
        mac: MacAddress([2, 0, a, b, c, d]),
        gateway: Ipv4Addr::new(10, 88, 0, 1),
        name_servers: vec![Ipv4Addr::new(10, 88, 0, 2).into()],
        search_domains: Vec::new(),
        private_dns_name: String::new(),
        groups: vec![GROUP.into()],
        mtu: DEFAULT_MTU,
        public_address: None,
    }
}

/// One group of so many rules, whose members may reach each other.
fn table(rules: u16) -> NetworkTable {
    let rule = |traffic, peer| Rule { traffic, peer };
    let mut ingress: Vec<_> = (0..rules).map(|n| rule(Traffic::Tcp(8000 + n, 8000 + n), Source::Group(GROUP.into()))).collect();
    ingress.push(rule(Traffic::All, Source::Group(GROUP.into())));
    let egress = vec![rule(Traffic::All, Source::Range(Cidr::ANY_V4))];
    NetworkTable { groups: [(GROUP.to_owned(), SecurityGroup { ingress, egress })].into(), ..Default::default() }
}
