//! Interfaces of tasks and what security groups let through, with real traffic. Each test runs on a machine of its own.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "one harness for several test programs")]
mod machine;
#[allow(dead_code, reason = "one harness for several test programs")]
mod traffic;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use berth_network::interface::TaskInterface;
use berth_network::linux::InterfaceNetwork;
use berth_network::port::{Attachment, NetworkError};
use berth_network::security_group::{MachineLink, NetworkTable, SecurityGroup, Traffic};
use machine::{
    address, attached, everything, expect_nothing_left, fresh, group, held, id, interface, ip, ip_inside, known, nft, nft_elements,
    on_machine, rule, table,
};
use traffic::{dial, dial_briefly, in_namespace, ping, serve_tcp, serve_udp, udp_arrives};

const WEB: Traffic = Traffic::Tcp(80, 80);

fn at(number: u16, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address(number), port)
}

async fn applied(network: &InterfaceNetwork, groups: &[(&str, SecurityGroup)]) -> NetworkTable {
    let table = table(groups);
    network.apply(&table).await.expect("apply");
    table
}

async fn reaches(from: &Attachment, to: SocketAddrV4) -> bool {
    dial_briefly(Some(&held(from)), to).await.is_ok()
}

#[test]
fn a_task_has_eth0_with_its_address_and_a_default_route() {
    on_machine(|machine| async move {
        let network = machine.open();
        let task = attached(&network, 5, &[]).await;
        assert_eq!(task.address, Some(address(5)));
        let namespace = held(&task);
        let read = |path: &'static str| in_namespace(&namespace, move || std::fs::read_to_string(path).expect("a file of /proc"));
        let routes = read("/proc/thread-self/net/route").await;
        let routes: Vec<Vec<&str>> = routes.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        let hex = |address: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(address.octets()));
        let gateway = hex(Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!((routes[0][0], routes[0][1], routes[0][2]), ("eth0", "00000000", gateway.as_str()), "the default route");
        assert_eq!((routes[1][0], routes[1][1], routes[1][7]), ("eth0", gateway.as_str(), "FFFFFFFF"), "the gateway alone is on the link");
        assert_eq!(routes.len(), 2);
        // Loopback and the own address always pass, whatever groups say.
        let _server = serve_tcp(&held(&task), 80, "own").await;
        assert_eq!(dial(Some(&held(&task)), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)).await.expect("loopback"), "own");
        assert_eq!(dial(Some(&held(&task)), at(5, 80)).await.expect("its own address"), "own");
        assert_eq!(attached(&network, 5, &["sg-x"]).await, task, "attaching again returns it");
    });
}

#[test]
fn what_no_rule_allows_does_not_pass_in_either_direction() {
    on_machine(|machine| async move {
        let network = machine.open();
        let (client, server) = (attached(&network, 5, &["sg-c"]).await, attached(&network, 6, &["sg-s"]).await);
        let _web = serve_tcp(&held(&server), 80, "web").await;
        let _admin = serve_tcp(&held(&server), 81, "admin").await;
        assert!(!reaches(&client, at(6, 80)).await, "groups that nobody has told of pass nothing");
        applied(&network, &[("sg-c", fresh()), ("sg-s", fresh())]).await;
        assert!(!reaches(&client, at(6, 80)).await, "nothing comes in");
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(WEB, "10.77.0.5/32")], &[]))]).await;
        assert_eq!(dial(Some(&held(&client)), at(6, 80)).await.expect("the rule's port, and its answer"), "web");
        assert!(!reaches(&client, at(6, 81)).await, "another port");
        let third = attached(&network, 7, &["sg-c"]).await;
        assert!(!reaches(&third, at(6, 80)).await, "another address");
        let _back = serve_tcp(&held(&client), 80, "back").await;
        assert!(!reaches(&server, at(5, 80)).await, "the other way round");
        applied(&network, &[("sg-c", group(&[], &[rule(Traffic::Tcp(81, 90), "0.0.0.0/0")])), ("sg-s", group(&[everything()], &[]))]).await;
        assert!(!reaches(&client, at(6, 80)).await, "what may not go out");
        assert!(reaches(&client, at(6, 81)).await, "what may");
    });
}

#[test]
fn udp_and_icmp_pass_by_their_own_rules() {
    on_machine(|machine| async move {
        let network = machine.open();
        let (client, server) = (attached(&network, 5, &["sg-c"]).await, attached(&network, 6, &["sg-s"]).await);
        let _dns = serve_udp(&held(&server), 5353, "udp").await;
        let asks = |task: &Attachment| udp_arrives(held(task), at(6, 5353));
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(Traffic::Tcp(0, 65535), "0.0.0.0/0")], &[]))]).await;
        assert!(!asks(&client).await && !ping(&held(&client), address(6)).await, "TCP alone is allowed");
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(Traffic::Udp(5000, 6000), "10.77.0.0/16")], &[]))]).await;
        assert!(asks(&client).await, "a port of the range");
        assert!(!ping(&held(&client), address(6)).await);
        let echo = Traffic::Icmp { kind: Some(8), code: Some(0) };
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(echo, "0.0.0.0/0")], &[]))]).await;
        assert!(ping(&held(&client), address(6)).await, "an echo, and its reply");
        let unreachable = Traffic::Icmp { kind: Some(3), code: None };
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(unreachable, "0.0.0.0/0")], &[]))]).await;
        // A new identifier is a new connection to the kernel.
        assert!(!ping(&held(&client), address(6)).await, "another type of ICMP");
    });
}

#[test]
fn a_group_is_named_by_a_rule_and_its_members_pass() {
    on_machine(|machine| async move {
        let network = machine.open();
        let server = attached(&network, 6, &["sg-s"]).await;
        let _web = serve_tcp(&held(&server), 80, "web").await;
        let mut pushed = applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(WEB, "sg-c")], &[]))]).await;
        let (member, stranger) = (attached(&network, 5, &["sg-c"]).await, attached(&network, 7, &["sg-s"]).await);
        assert!(reaches(&member, at(6, 80)).await, "an interface that came later");
        assert!(!reaches(&stranger, at(6, 80)).await, "who is not in the group");
        // The table says otherwise than what the interfaces came with.
        pushed.interfaces = [known(5, &["sg-s"], None), known(7, &["sg-c"], None)].into();
        network.apply(&pushed).await.expect("apply");
        assert!(!reaches(&member, at(6, 80)).await && reaches(&stranger, at(6, 80)).await, "they changed places");
        pushed.interfaces.clear();
        network.apply(&pushed).await.expect("apply");
        network.detach(&id(5)).await.expect("detach");
        let heir = attached(&network, 5, &["sg-s"]).await;
        assert!(!reaches(&heir, at(6, 80)).await, "the address alone is no membership");
    });
}

#[test]
fn a_connection_goes_on_when_its_rule_goes() {
    on_machine(|machine| async move {
        let network = machine.open();
        let (client, server) = (attached(&network, 5, &["sg-c"]).await, attached(&network, 6, &["sg-s"]).await);
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(WEB, "sg-c")], &[]))]).await;
        let listener = in_namespace(&held(&server), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).expect("listen")).await;
        let mut sent =
            in_namespace(&held(&client), || TcpStream::connect_timeout(&at(6, 80).into(), Duration::from_secs(20)).expect("connect")).await;
        let (mut got, _) = listener.accept().expect("accept");
        applied(&network, &[("sg-c", group(&[], &[])), ("sg-s", group(&[], &[]))]).await;
        assert!(!reaches(&client, at(6, 80)).await, "nobody new");
        let echo = std::thread::spawn(move || {
            use std::io::{Read, Write};
            got.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            sent.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            let mut buffer = [0; 5];
            sent.write_all(b"hello").expect("send");
            got.read_exact(&mut buffer).expect("it arrives");
            got.write_all(&buffer).expect("answer");
            sent.read_exact(&mut buffer).expect("the answer arrives");
            buffer
        });
        assert_eq!(&echo.join().expect("the connection goes on"), b"hello");
    });
}

#[test]
fn who_was_let_in_to_a_task_is_not_let_in_to_the_next_one_of_its_address() {
    on_machine(|machine| async move {
        let network = machine.open();
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(Traffic::Udp(53, 53), "sg-c")], &[])), ("sg-n", group(&[], &[]))])
            .await;
        let (client, server) = (attached(&network, 5, &["sg-c"]).await, attached(&network, 6, &["sg-s"]).await);
        let caller = in_namespace(&held(&client), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind")).await;
        let inbox = |task: &Attachment| {
            let task = held(task);
            async move { in_namespace(&task, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).expect("bind")).await }
        };
        let (first, mut buffer) = (inbox(&server).await, [0; 16]);
        first.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        caller.send_to(b"one", at(6, 53)).expect("send");
        let (_, sender) = first.recv_from(&mut buffer).expect("by the rule");
        first.send_to(b"two", sender).expect("answer");
        caller.recv_from(&mut buffer).expect("the answer, with which the connection is established");
        network.detach(&id(6)).await.expect("detach");
        let heir = attached(&network, 6, &["sg-n"]).await;
        let second = inbox(&heir).await;
        second.set_read_timeout(Some(Duration::from_millis(400))).expect("a timeout");
        caller.send_to(b"three", at(6, 53)).expect("send");
        assert!(second.recv_from(&mut buffer).is_err(), "by the rule of the one before");
    });
}

#[test]
fn the_machine_itself_passes_by_the_same_rules() {
    on_machine(|machine| async move {
        let network = machine.open();
        if !ip("addr add 192.0.2.1/32 dev lo") {
            return;
        }
        let task = attached(&network, 6, &["sg-s"]).await;
        let _web = serve_tcp(&held(&task), 80, "web").await;
        applied(&network, &[("sg-s", fresh())]).await;
        assert!(dial_briefly(None, at(6, 80)).await.is_err(), "the machine has no rights of its own");
        applied(&network, &[("sg-s", group(&[rule(WEB, "192.0.2.0/24")], &[]))]).await;
        assert_eq!(dial(None, at(6, 80)).await.expect("by its address"), "web");
        let listener = TcpListener::bind((Ipv4Addr::new(192, 0, 2, 1), 8080)).expect("listen");
        let machine = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 8080);
        assert!(!connects(&task, machine).await, "nor does a task have any to the machine");
        applied(&network, &[("sg-s", group(&[], &[rule(Traffic::Tcp(8080, 8080), "192.0.2.1/32")]))]).await;
        assert!(connects(&task, machine).await, "by a rule");
        drop(listener);
    });
}

/// Whether a connection comes about, whatever is said on it.
async fn connects(from: &Attachment, to: SocketAddrV4) -> bool {
    in_namespace(&held(from), move || TcpStream::connect_timeout(&to.into(), Duration::from_millis(400)).is_ok()).await
}

#[test]
fn the_instances_services_and_name_servers_are_always_reached() {
    on_machine(|machine| async move {
        let network = machine.open();
        if !ip("addr add 169.254.170.2/32 dev lo") || !ip("addr add 10.77.0.2/32 dev lo") {
            return;
        }
        let task = attached(&network, 5, &[]).await;
        let _credentials = TcpListener::bind((Ipv4Addr::new(169, 254, 170, 2), 80)).expect("listen");
        let _names = TcpListener::bind((Ipv4Addr::new(10, 77, 0, 2), 53)).expect("listen");
        let _other = TcpListener::bind((Ipv4Addr::new(10, 77, 0, 2), 54)).expect("listen");
        assert!(connects(&task, SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80)).await, "the metadata address");
        assert!(connects(&task, at(2, 53)).await, "its name server");
        assert!(!connects(&task, at(2, 54)).await, "another port of that machine");
    });
}

#[test]
fn forged_addresses_do_not_pass() {
    on_machine(|machine| async move {
        let network = machine.open();
        applied(&network, &[("sg-open", group(&[everything()], &[everything()]))]).await;
        let (forger, victim) = (attached(&network, 5, &["sg-open"]).await, attached(&network, 6, &["sg-open"]).await);
        if !ip_inside(&held(&forger), "addr add 10.77.0.9/32 dev eth0").await {
            return;
        }
        let inbox = in_namespace(&held(&victim), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).expect("bind")).await;
        inbox.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let forge = held(&forger);
        let says = |from: [u8; 4], text: &'static [u8]| {
            in_namespace(&forge, move || {
                let socket = UdpSocket::bind((Ipv4Addr::from(from), 0)).expect("bind");
                socket.send_to(text, at(6, 9000)).expect("send");
            })
        };
        says([10, 77, 0, 9], b"forged").await;
        says([10, 77, 0, 5], b"honest").await;
        let mut buffer = [0; 16];
        let (length, sender) = inbox.recv_from(&mut buffer).expect("one of them");
        // One sender, one wire: when the second is here the first was, too.
        assert_eq!((&buffer[..length], sender.ip()), (&b"honest"[..], IpAddr::V4(address(5))));
        // With its hardware address the kernel forgets who the gateway is.
        let gateway = "neigh replace 10.77.0.1 lladdr 02:be:00:00:00:01 nud permanent dev eth0";
        for line in ["link set eth0 address 02:00:00:00:00:99", gateway] {
            assert!(ip_inside(&forge, line).await);
        }
        says([10, 77, 0, 5], b"masked").await;
        for line in ["link set eth0 address 02:00:0a:4d:00:05", gateway] {
            assert!(ip_inside(&forge, line).await);
        }
        says([10, 77, 0, 5], b"again").await;
        let (length, _) = inbox.recv_from(&mut buffer).expect("one of them");
        assert_eq!(&buffer[..length], b"again", "another hardware address");
    });
}

#[test]
fn ipv6_passes_by_rules_of_its_own() {
    on_machine(|machine| async move {
        let network = machine.open();
        let own = |number: u16| Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, number);
        let both = |number: u16| TaskInterface { ipv6: Some(own(number)), ..interface(number, &["sg-6"]) };
        let client = network.attach(&id(5), &both(5)).await.expect("attach");
        let server = network.attach(&id(6), &both(6)).await.expect("attach");
        let listener = in_namespace(&held(&server), || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).expect("listen")).await;
        let from = held(&client);
        let connects = || {
            let to = (own(6), 80).into();
            in_namespace(&from, move || TcpStream::connect_timeout(&to, Duration::from_millis(400)).is_ok())
        };
        applied(&network, &[("sg-6", group(&[everything()], &[everything(), rule(Traffic::All, "::/0")]))]).await;
        assert!(!connects().await, "a rule of IPv4 is none of IPv6");
        applied(&network, &[("sg-6", group(&[rule(WEB, "fd00:77::/32")], &[rule(Traffic::All, "::/0")]))]).await;
        assert!(connects().await, "a range");
        applied(&network, &[("sg-6", group(&[rule(WEB, "sg-6")], &[rule(Traffic::All, "sg-6")]))]).await;
        assert!(connects().await, "a group");
        drop(listener);
    });
}

#[test]
fn a_new_life_finds_interfaces_and_rules() {
    on_machine(|machine| async move {
        let network = machine.open();
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(WEB, "sg-c")], &[]))]).await;
        let (client, server) = (attached(&network, 5, &["sg-c"]).await, attached(&network, 6, &["sg-s"]).await);
        attached(&network, 7, &["sg-c"]).await;
        network.detach(&id(7)).await.expect("detach");
        let _web = serve_tcp(&held(&server), 80, "web").await;
        let _admin = serve_tcp(&held(&server), 81, "admin").await;
        let before = network.list().await.expect("list");
        assert_eq!(before, [client.clone(), server.clone()]);
        drop(network);
        assert!(reaches(&client, at(6, 80)).await && !reaches(&client, at(6, 81)).await, "nobody needs to run");
        let network = machine.open();
        assert_eq!(network.list().await.expect("list"), before);
        assert!(reaches(&client, at(6, 80)).await && !reaches(&client, at(6, 81)).await, "as before");
        assert_eq!(attached(&network, 5, &["sg-c"]).await, client);
        let same = network.attach(&id(8), &interface(5, &[])).await;
        assert!(matches!(same, Err(NetworkError::AddressInUse { .. })), "{same:?}");
        for number in [5, 6] {
            network.detach(&id(number)).await.expect("detach");
            network.detach(&id(number)).await.expect("detaching again is no error");
        }
    });
}

#[test]
fn a_ruleset_that_somebody_flushed_is_made_again() {
    on_machine(|machine| async move {
        let network = machine.open();
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(WEB, "sg-c")], &[]))]).await;
        let (client, server) = (attached(&network, 5, &["sg-c"]).await, attached(&network, 6, &["sg-s"]).await);
        let (_web, _admin) = (serve_tcp(&held(&server), 80, "web").await, serve_tcp(&held(&server), 81, "admin").await);
        if nft(&["flush", "ruleset"]).is_none() {
            return;
        }
        let third = attached(&network, 7, &["sg-c"]).await;
        for task in [&client, &third] {
            assert!(reaches(task, at(6, 80)).await && !reaches(task, at(6, 81)).await);
        }
    });
}

#[test]
fn the_kernel_holds_the_ruleset_that_is_meant() {
    on_machine(|machine| async move {
        let network = machine.open();
        let mut ingress = vec![rule(Traffic::Tcp(80, 90), "sg-c"), rule(Traffic::Udp(53, 53), "10.0.0.0/8")];
        ingress.extend([rule(Traffic::Icmp { kind: Some(8), code: None }, "192.0.2.1/32"), rule(Traffic::Tcp(22, 22), "2001:db8::/32")]);
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&ingress, &[]))]).await;
        attached(&network, 5, &["sg-s", "sg-c"]).await;
        let Some(ruleset) = nft(&["-n", "list", "ruleset"]) else { return };
        // A machine without /etc/protocols and /etc/services has no names for them, and versions of nft differ in what they name.
        let lines: Vec<_> = ruleset.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        for expected in [
            "table inet berth_t1_tasks {",
            "type ifname . ipv4_addr . ether_addr",
            "type filter hook prerouting priority -450; policy accept;",
            "type filter hook prerouting priority -150; policy accept;",
            "type filter hook postrouting priority 150; policy accept;",
            "ip daddr 169.254.0.0/16 drop",
            "iifname vmap @from",
            "oifname vmap @to",
            "dnat ip to ip daddr map @public",
            "chain all-in/sg-c/sg-s {",
            "jump in/sg-c",
            "jump in/sg-s",
            "tcp dport 80-90 ip saddr @members4/sg-c accept",
            "tcp dport 80-90 ip6 saddr @members6/sg-c accept",
            "udp dport 53 ip saddr 10.0.0.0/8 accept",
            "icmp type 8 ip saddr 192.0.2.1 accept",
            "tcp dport 22 ip6 saddr 2001:db8::/32 accept",
            "meta nfproto 2 accept",
        ] {
            assert!(lines.contains(&expected), "{expected:?} is missing in\n{ruleset}");
        }
    });
}

#[test]
fn a_large_table_is_taken_in_one_step_and_taken_back() {
    on_machine(|machine| async move {
        let network = machine.open();
        if !ip("link add wire type veth peer name other") || !ip("addr add 192.0.2.1/24 dev wire") {
            return;
        }
        ["link set wire up", "link set other up"].iter().for_each(|line| assert!(ip(line)));
        let rules: Vec<_> = (0..200).map(|port| rule(Traffic::Tcp(port, port), "sg-0")).collect();
        let groups: Vec<(String, SecurityGroup)> = (0..30).map(|number| (format!("sg-{number}"), group(&rules, &[everything()]))).collect();
        let (own, other) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let interfaces = (1000..5000).map(|number| known(number, &["sg-0"], Some(other)));
        let machine_link = Some(MachineLink::new(own));
        let large = NetworkTable { groups: groups.into_iter().collect(), interfaces: interfaces.collect(), machine: machine_link };
        network.apply(&large).await.expect("apply");
        let routes = || std::fs::read_to_string("/proc/thread-self/net/route").expect("routes").lines().count() - 2;
        assert_eq!(routes(), 4000, "to each of them");
        if let Some(listed) = nft(&["list", "chain", "inet", "berth_t1_tasks", "in/sg-29"]) {
            assert_eq!(listed.lines().filter(|line| line.contains("accept")).count(), 400, "of both families");
        }
        drop(network);
        let network = machine.open();
        assert_eq!(routes(), 4000, "a new life finds them");
        network.apply(&NetworkTable::default()).await.expect("apply");
        assert_eq!((routes(), machine.leftovers()), (0, Vec::new()));
    });
}

#[test]
fn five_hundred_come_and_go_without_a_trace() {
    on_machine(|machine| async move {
        let network = machine.open();
        applied(&network, &[("sg-c", fresh()), ("sg-s", group(&[rule(WEB, "sg-c")], &[everything()]))]).await;
        let empty = machine.leftovers();
        assert_eq!(empty, Vec::<String>::new());
        let mut calls = tokio::task::JoinSet::new();
        for number in 10..510 {
            let network = network.clone();
            calls.spawn(async move { attached(&network, number, &["sg-c", "sg-s"]).await });
        }
        let all = calls.join_all().await;
        assert_eq!(all.len(), 500);
        assert_eq!(network.list().await.expect("list").len(), 500);
        let elements = nft_elements();
        if !elements.is_empty() {
            let count = |set: &str| elements.iter().find(|(name, _)| name == set).map_or(0, |(_, count)| *count);
            assert_eq!((count("from"), count("to"), count("owned4"), count("members4/sg-c")), (500, 500, 500, 500));
        }
        let (first, last) = (&all[0], &all[499]);
        let _web = serve_tcp(&held(last), 80, "web").await;
        let to = SocketAddrV4::new(last.address.expect("an address"), 80);
        assert_eq!(dial(Some(&held(first)), to).await.expect("one of five hundred"), "web");
        let mut calls = tokio::task::JoinSet::new();
        for attachment in all {
            let network = network.clone();
            calls.spawn(async move { network.detach(&attachment.id).await.expect("detach") });
        }
        calls.join_all().await;
        drop(_web);
        assert_eq!(network.list().await.expect("list"), []);
        expect_nothing_left(&machine).await;
        network.shutdown().await.expect("shutdown");
        assert_eq!(nft(&["list", "ruleset"]).unwrap_or_default(), "");
    });
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    on_machine(|machine| async move {
        let network = machine.open();
        let odd = TaskInterface { prefix: 31, ..interface(5, &[]) };
        assert!(matches!(network.attach(&id(5), &odd).await, Err(NetworkError::Interface(_))));
        attached(&network, 5, &[]).await;
        let refused =
            network.attach(&id(6), &TaskInterface { id: "eni-6".into(), ..interface(5, &[]) }).await.expect_err("the address is taken");
        assert_eq!(refused.to_string(), "address 10.77.0.5 of network interface eni-6: attachment task-5 has it");
        assert_eq!(network.list().await.expect("list").len(), 1);
        let bad = table(&[("sg bad", fresh())]);
        assert!(matches!(network.apply(&bad).await, Err(NetworkError::Table(_))));
        network.shutdown().await.expect("nothing to do yet");
        network.detach(&id(5)).await.expect("detach");
        expect_nothing_left(&machine).await;
        network.shutdown().await.expect("shutdown");
        assert!(network.attach(&id(7), &interface(7, &[])).await.is_err(), "it is shut down");
    });
}
