//! A machine for tests: a network and mount namespace of its own, with threads that live in it.

use std::fs;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use berth_network::interface::{DEFAULT_MTU, MacAddress, TaskInterface};
use berth_network::linux::{InterfaceConfig, InterfaceNetwork};
use berth_network::port::{Attachment, AttachmentId};
use berth_network::security_group::{KnownInterface, NetworkTable, Peer, Rule, SecurityGroup, Traffic};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// A machine with one network of tasks' interfaces on it.
pub struct Machine {
    pub directory: tempfile::TempDir,
}

impl Machine {
    pub fn config(&self) -> InterfaceConfig {
        InterfaceConfig::new("t1", self.directory.path().join("state"), self.directory.path().join("netns"))
    }

    pub fn open(&self) -> InterfaceNetwork {
        InterfaceNetwork::open(self.config()).expect("open")
    }

    /// What is there because of attachments: links, routes, mounts, files, elements of sets that tell of one.
    pub fn leftovers(&self) -> Vec<String> {
        let links = fs::read_to_string("/proc/thread-self/net/dev").expect("links");
        let links = links.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
        let links = links.filter(|name| name.starts_with('t') && name.len() == 13);
        let routes = fs::read_to_string("/proc/thread-self/net/route").expect("routes");
        let routes = routes.lines().filter(|line| line.starts_with('t') && !line.starts_with("tunl")).map(str::to_owned);
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
        let root = self.directory.path().to_str().expect("a plain path").to_owned();
        let mounts = mounts.lines().filter(|line| line.contains(&root)).map(str::to_owned);
        let files = [self.config().netns_dir, self.config().state_dir.join("attachments")];
        let files = files.iter().flat_map(|path| fs::read_dir(path).into_iter().flatten().flatten());
        let files = files.map(|entry| entry.path().display().to_string());
        let held = nft_elements().into_iter().map(|(set, count)| format!("{count} elements of {set}"));
        links.chain(routes).chain(mounts).chain(files).chain(held).collect()
    }
}

impl Drop for Machine {
    /// Held namespaces, of a failed test too, would keep the folder from being removed.
    fn drop(&mut self) {
        let folders = [self.directory.path().join("bare"), self.config().netns_dir];
        for held in folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten()) {
            let _ = umount2(&held.path(), MntFlags::MNT_DETACH);
        }
    }
}

/// How many elements each set of the machine has; sets without any are left out.
pub fn nft_elements() -> Vec<(String, usize)> {
    let listed = nft(&["-j", "list", "ruleset"]).unwrap_or_default();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
    let objects = listed["nftables"].as_array().cloned().unwrap_or_default();
    let sets = objects.iter().filter_map(|object| object.get("set").or_else(|| object.get("map")));
    let counted = sets.map(|set| (set["name"].as_str().unwrap_or_default().to_owned(), set["elem"].as_array().map_or(0, Vec::len)));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// What `nft` prints; nothing where it is not installed.
pub fn nft(arguments: &[&str]) -> Option<String> {
    let Ok(output) = Command::new("nft").args(arguments).stderr(Stdio::inherit()).output() else {
        eprintln!("SKIPPED (needs the nft program): what the kernel holds is not looked at");
        return None;
    };
    assert!(output.status.success(), "nft {arguments:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `ip`, in the namespace of the calling thread. `false`: it is not installed.
pub fn ip(line: &str) -> bool {
    match Command::new("ip").args(line.split_whitespace()).status() {
        Ok(status) => {
            assert!(status.success(), "ip {line}");
            true
        }
        Err(_) => {
            eprintln!("SKIPPED (needs the ip program): ip {line}");
            false
        }
    }
}

pub fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED (needs root): {}", std::thread::current().name().unwrap_or("a test"));
    }
    is_root
}

/// An empty namespace that is nobody's, for what is beyond the machine.
pub fn bare_namespace(machine: &Machine, name: &str) -> PathBuf {
    let folder = machine.directory.path().join("bare");
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    let held = path.clone();
    let made = std::thread::spawn(move || {
        fs::File::create_new(&held).expect("a file");
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        mount(Some("/proc/thread-self/ns/net"), &held, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("hold it");
    });
    made.join().expect("a namespace");
    path
}

/// Moves the calling thread, and those that it starts, into a machine of their own.
pub fn become_machine() -> Machine {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("a network and mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private mounts");
    raise_loopback();
    Machine { directory: tempfile::tempdir().expect("a folder") }
}

/// Runs a test on a machine of its own.
pub fn on_machine<F: Future<Output = ()>>(test: impl FnOnce(Arc<Machine>) -> F + Send + 'static) {
    if !is_root() {
        return;
    }
    let thread = std::thread::spawn(move || {
        let machine = Arc::new(become_machine());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(test(machine));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn raise_loopback() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    // SAFETY: `ifreq` is plain data for which zero is valid; both calls only read and write it during the call.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw mut request);
        assert_eq!(result, 0, "bring lo up");
    }
}

pub fn id(number: u16) -> AttachmentId {
    AttachmentId(format!("task-{number}"))
}

pub fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

/// The interface of the task of a number, in 10.77.0.0/16.
pub fn interface(number: u16, groups: &[&str]) -> TaskInterface {
    let [a, b, c, d] = address(number).octets();
    TaskInterface {
        id: format!("eni-{number}"),
        address: address(number),
        prefix: 16,
        ipv6: None,
        mac: MacAddress([2, 0, a, b, c, d]),
        gateway: Ipv4Addr::new(10, 77, 0, 1),
        name_servers: vec![Ipv4Addr::new(10, 77, 0, 2).into()],
        search_domains: Vec::new(),
        private_dns_name: String::new(),
        groups: groups.iter().map(ToString::to_string).collect(),
        mtu: DEFAULT_MTU,
        public_address: None,
    }
}

pub async fn attached(network: &InterfaceNetwork, number: u16, groups: &[&str]) -> Attachment {
    network.attach(&id(number), &interface(number, groups)).await.expect("attach")
}

/// A rule: traffic, and `sg-..` or a range.
pub fn rule(traffic: Traffic, peer: &str) -> Rule {
    let peer = match peer.parse() {
        Ok(range) => Peer::Range(range),
        Err(_) => Peer::Group(peer.to_owned()),
    };
    Rule { traffic, peer }
}

pub fn group(ingress: &[Rule], egress: &[Rule]) -> SecurityGroup {
    SecurityGroup { ingress: ingress.to_vec(), egress: egress.to_vec() }
}

pub fn everything() -> Rule {
    rule(Traffic::All, "0.0.0.0/0")
}

/// A group as EC2 makes it: nothing comes in, everything goes out.
pub fn fresh() -> SecurityGroup {
    group(&[], &[everything()])
}

pub fn table(groups: &[(&str, SecurityGroup)]) -> NetworkTable {
    let groups = groups.iter().map(|(id, group)| ((*id).to_owned(), group.clone())).collect();
    NetworkTable { groups, ..Default::default() }
}

pub fn known(number: u16, groups: &[&str], instance: Option<Ipv4Addr>) -> (String, KnownInterface) {
    let groups = groups.iter().map(ToString::to_string).collect();
    (format!("eni-{number}"), KnownInterface { addresses: vec![IpAddr::V4(address(number))], groups, instance })
}

/// The namespace of an attachment.
pub fn held(attachment: &Attachment) -> PathBuf {
    attachment.namespace.clone().expect("a namespace")
}

/// Waits until detached namespaces are gone: the kernel removes them in its own time.
pub async fn expect_nothing_left(machine: &Machine) {
    for _ in 0..2000 {
        if machine.leftovers().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("left behind: {:?}", machine.leftovers());
}

/// Runs `ip` inside a namespace.
pub async fn ip_inside(namespace: &Path, line: &str) -> bool {
    let line = line.to_owned();
    crate::traffic::in_namespace(namespace, move || ip(&line)).await
}
