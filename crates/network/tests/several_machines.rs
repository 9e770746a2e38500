//! Tasks of several machines reach each other, over links that the machines share and through VXLAN where they do not. Each machine is a
//! network namespace of its own with threads that live in it.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "one harness for several test programs")]
mod machine;
#[allow(dead_code, reason = "one harness for several test programs")]
mod traffic;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use berth_network::linux::InterfaceNetwork;
use berth_network::port::Attachment;
use berth_network::security_group::{MachineLink, NetworkTable, Overlay, Traffic};
use machine::{Machine, address, attached, become_machine, everything, fresh, group, held, id, ip, is_root, known, rule, table};
use traffic::{dial, dial_briefly, in_namespace, serve_tcp};

/// A machine among several.
struct Host {
    machine: Arc<Machine>,
    runtime: tokio::runtime::Runtime,
    address: Ipv4Addr,
    overlay: Overlay,
}

impl Host {
    /// Does something on threads of the machine.
    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.runtime.spawn(async move { drop(sender.send(work.await)) });
        receiver.recv().expect("the work comes to its end")
    }

    fn open(&self) -> InterfaceNetwork {
        let config = self.machine.config();
        self.run(async move { InterfaceNetwork::open(config).expect("open") })
    }

    fn ip(&self, line: &str) -> bool {
        let line = line.to_owned();
        self.run(async move { ip(&line) })
    }

    fn apply(&self, network: &InterfaceNetwork, table: &NetworkTable) {
        let machine = MachineLink { overlay: self.overlay, ..MachineLink::new(self.address) };
        let (network, table) = (network.clone(), NetworkTable { machine: Some(machine), ..table.clone() });
        self.run(async move { network.apply(&table).await.expect("apply") });
    }

    fn attach(&self, network: &InterfaceNetwork, number: u16, groups: &'static [&'static str]) -> Attachment {
        let network = network.clone();
        self.run(async move { attached(&network, number, groups).await })
    }

    fn serve(&self, task: &Attachment, text: &'static str) -> traffic::Server {
        let task = held(task);
        self.run(async move { serve_tcp(&task, 80, text).await })
    }

    fn reads(&self, from: &Attachment, to: u16) -> Option<String> {
        let (from, to) = (held(from), SocketAddrV4::new(address(to), 80));
        self.run(async move { dial(Some(&from), to).await.ok() })
    }

    fn reaches(&self, from: &Attachment, to: u16) -> bool {
        let (from, to) = (held(from), SocketAddrV4::new(address(to), 80));
        self.run(async move { dial_briefly(Some(&from), to).await.is_ok() })
    }
}

/// Starts machines; each is joined to the one before by what `wire` says. `None`: a test cannot run here.
fn hosts(addresses: &[[u8; 4]], overlay: Overlay) -> Option<Vec<Host>> {
    if !is_root() {
        return None;
    }
    let start = |address: &[u8; 4]| {
        let address = Ipv4Addr::from(*address);
        std::thread::spawn(move || {
            let machine = Arc::new(become_machine());
            // Its threads are made here and now, in the machine's namespaces.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
            Host { machine, runtime, address, overlay }
        })
        .join()
        .expect("a machine")
    };
    Some(addresses.iter().map(start).collect())
}

/// The namespace of a host, by a path that any process of this one can open.
fn namespace_of(host: &Host) -> String {
    let thread = host.run(async { nix::unistd::gettid().as_raw() });
    format!("/proc/{}/task/{thread}/ns/net", std::process::id())
}

/// Joins two hosts by a link of their own. `false`: it cannot be done here.
fn join(one: &Host, other: &Host, names: (&str, &str), addresses: (&str, &str)) -> bool {
    if !one.ip(&format!("link add {} type veth peer name {} netns {}", names.0, names.1, namespace_of(other))) {
        return false;
    }
    for (host, name, address) in [(one, names.0, addresses.0), (other, names.1, addresses.1)] {
        host.ip(&format!("addr add {address} dev {name}"));
        host.ip(&format!("link set {name} up"));
    }
    true
}

/// Two hosts on one link, with a table that both have.
fn pair(overlay: Overlay) -> Option<(Host, Host)> {
    let mut hosts = hosts(&[[192, 0, 2, 1], [192, 0, 2, 2]], overlay)?;
    let (two, one) = (hosts.pop()?, hosts.pop()?);
    join(&one, &two, ("wire", "wire"), ("192.0.2.1/24", "192.0.2.2/24")).then_some((one, two))
}

/// Task 5 is at the first host, 6 at the second; only its clients call a server.
fn placed(one: &Host, two: &Host) -> NetworkTable {
    let mut table = table(&[("sg-c", fresh()), ("sg-s", group(&[rule(Traffic::Tcp(80, 80), "sg-c")], &[]))]);
    table.interfaces =
        [known(5, &["sg-c"], Some(one.address)), known(6, &["sg-s"], Some(two.address)), known(7, &["sg-s"], Some(one.address))].into();
    table
}

fn tasks_reach_each_other(overlay: Overlay) {
    let Some((one, two)) = pair(overlay) else { return };
    let (first, second) = (one.open(), two.open());
    let table = placed(&one, &two);
    one.apply(&first, &table);
    two.apply(&second, &table);
    let (client, server, stranger) =
        (one.attach(&first, 5, &["sg-c"]), two.attach(&second, 6, &["sg-s"]), one.attach(&first, 7, &["sg-s"]));
    let web = two.serve(&server, "far");
    assert_eq!(one.reads(&client, 6).as_deref(), Some("far"), "a member of the group, of another machine");
    assert!(!one.reaches(&stranger, 6), "who is not in the group");
    let back = one.serve(&client, "back");
    assert!(!two.reaches(&server, 5), "nothing comes in to the client");
    // A second table without the server: nothing leads there any more.
    let mut gone = table.clone();
    gone.interfaces.remove("eni-6");
    one.apply(&first, &gone);
    assert!(!one.reaches(&client, 6));
    one.apply(&first, &table);
    assert_eq!(one.reads(&client, 6).as_deref(), Some("far"), "and back");
    // The way survives the agent's restart.
    drop(first);
    let first = one.open();
    assert_eq!(one.reads(&client, 6).as_deref(), Some("far"), "a new life");
    // Their sockets would keep namespaces alive.
    drop((web, back));
    for (host, network, numbers) in [(&one, &first, &[5, 7][..]), (&two, &second, &[6][..])] {
        for number in numbers {
            let (network, number) = (network.clone(), *number);
            host.run(async move { network.detach(&id(number)).await.expect("detach") });
        }
        let network = network.clone();
        host.run(async move { network.shutdown().await.expect("shutdown") });
        let routes = || host.run(async { std::fs::read_to_string("/proc/thread-self/net/route").expect("routes") });
        // The kernel removes namespaces in its own time.
        let is_clean = (0..1000).any(|_| {
            routes().lines().skip(1).count() == 1 || {
                std::thread::sleep(std::time::Duration::from_millis(10));
                false
            }
        });
        assert!(is_clean, "the machines' own link alone is left: {}", routes());
    }
}

#[test]
fn tasks_reach_each_other_over_a_link_that_machines_share() {
    tasks_reach_each_other(Overlay::WhereNeeded);
}

#[test]
fn tasks_reach_each_other_through_the_overlay() {
    tasks_reach_each_other(Overlay::Always);
}

#[test]
fn machines_behind_a_router_use_the_overlay_by_themselves_and_its_mtu_is_told() {
    let Some(hosts) = hosts(&[[192, 0, 2, 1], [203, 0, 113, 254], [198, 51, 100, 1]], Overlay::WhereNeeded) else { return };
    let [one, router, two] = hosts.try_into().unwrap_or_else(|_| panic!("three hosts"));
    if !join(&one, &router, ("wire", "left"), ("192.0.2.1/24", "192.0.2.254/24")) {
        return;
    }
    join(&two, &router, ("wire", "right"), ("198.51.100.1/24", "198.51.100.254/24"));
    one.ip("route add default via 192.0.2.254");
    two.ip("route add default via 198.51.100.254");
    router.run(async { std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forward") });
    let (first, second) = (one.open(), two.open());
    let mut table = table(&[("sg-open", group(&[everything()], &[everything()]))]);
    table.interfaces = [known(5, &["sg-open"], Some(one.address)), known(6, &["sg-open"], Some(two.address))].into();
    one.apply(&first, &table);
    two.apply(&second, &table);
    let (client, server) = (one.attach(&first, 5, &["sg-open"]), two.attach(&second, 6, &["sg-open"]));
    let _web = two.serve(&server, "far");
    assert_eq!(one.reads(&client, 6).as_deref(), Some("far"));
    // A packet that is too large for the way, and may not be taken apart: the sender is told what fits.
    let told = in_task(&one, &client, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
        set(&socket, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO);
        socket.connect((address(6), 9000)).expect("connect");
        let sizes = (0..100).map(|_| {
            drop(socket.send(&[0; 1472]));
            std::thread::sleep(std::time::Duration::from_millis(20));
            get(&socket, libc::IP_MTU)
        });
        sizes.into_iter().find(|mtu| *mtu < 1500)
    });
    assert_eq!(told, Some(1450), "1500 less what VXLAN adds");
    let arrived = in_task(&two, &server, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9001)).expect("bind"));
    arrived.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a timeout");
    in_task(&one, &client, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
        set(&socket, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO);
        socket.send_to(&[7; 1450 - 28], (address(6), 9001)).expect("the largest that fits");
    });
    assert_eq!(arrived.recv_from(&mut [0; 2000]).expect("it arrives whole").0, 1450 - 28);
}

fn in_task<T: Send + 'static>(host: &Host, task: &Attachment, work: impl FnOnce() -> T + Send + 'static) -> T {
    let task: PathBuf = held(task);
    host.run(async move { in_namespace(&task, work).await })
}

fn set(socket: &UdpSocket, option: i32, value: i32) {
    // SAFETY: the descriptor is open, and the option value an int that lives through the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, (&raw const value).cast(), 4) };
    assert_eq!(result, 0, "set a socket option");
}

fn get(socket: &UdpSocket, option: i32) -> i32 {
    let (mut value, mut length) = (0i32, 4);
    // SAFETY: the descriptor is open, and value and length live through the call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, (&raw mut value).cast(), &raw mut length) };
    assert_eq!(result, 0, "get a socket option");
    value
}

#[test]
fn a_host_that_is_cut_off_is_back_with_its_wire() {
    let Some(hosts) = hosts(&[[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]], Overlay::WhereNeeded) else { return };
    let [one, two, switch] = hosts.try_into().unwrap_or_else(|_| panic!("three hosts"));
    if !switch.ip("link add switch type bridge") {
        return;
    }
    for (host, port, address) in [(&one, "left", "192.0.2.1/24"), (&two, "right", "192.0.2.2/24")] {
        switch.ip(&format!("link add {port} type veth peer name wire netns {}", namespace_of(host)));
        switch.ip(&format!("link set {port} master switch up"));
        host.ip(&format!("addr add {address} dev wire"));
        host.ip("link set wire up");
    }
    switch.ip("link set switch up");
    let (first, second) = (one.open(), two.open());
    let table = placed(&one, &two);
    one.apply(&first, &table);
    two.apply(&second, &table);
    let (client, server) = (one.attach(&first, 5, &["sg-c"]), two.attach(&second, 6, &["sg-s"]));
    let _web = two.serve(&server, "far");
    assert_eq!(one.reads(&client, 6).as_deref(), Some("far"), "through the switch");
    switch.ip("link set right down");
    assert!(!one.reaches(&client, 6), "cut off");
    switch.ip("link set right up");
    assert_eq!(one.reads(&client, 6).as_deref(), Some("far"), "back");
    // Its own link was down: the kernel forgot the routes, and the next table brings them back.
    one.ip("link set wire down");
    one.ip("link set wire up");
    one.apply(&first, &table);
    assert_eq!(one.reads(&client, 6).as_deref(), Some("far"), "back again");
}

#[test]
fn a_neighbour_cannot_pretend_to_be_a_task() {
    let Some((one, two)) = pair(Overlay::Always) else { return };
    let first = one.open();
    let table = placed(&two, &one);
    one.apply(&first, &table);
    let server = one.attach(&first, 6, &["sg-s"]);
    // The second machine runs no network of ours: it merely sends.
    two.ip("route add 10.77.0.6/32 via 192.0.2.1");
    two.ip("addr add 10.77.0.5/32 dev lo");
    let inbox = in_task(&one, &server, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 80)).expect("bind"));
    let open = group(&[rule(Traffic::Udp(80, 80), "sg-c"), rule(Traffic::Udp(80, 80), "192.0.2.2/32")], &[]);
    let mut table = table;
    table.groups.insert("sg-s".into(), open);
    one.apply(&first, &table);
    two.run(async {
        for from in [address(5), Ipv4Addr::new(192, 0, 2, 2)] {
            let socket = UdpSocket::bind((from, 0)).expect("bind");
            socket.send_to(b"hello", (address(6), 80)).expect("send");
        }
    });
    inbox.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a timeout");
    let (_, sender) = inbox.recv_from(&mut [0; 16]).expect("one of them");
    // One sender, one wire: when the second is here the first was, too.
    assert_eq!(sender.ip(), Ipv4Addr::new(192, 0, 2, 2), "the task's address came by a way that does not lead to it");
}
