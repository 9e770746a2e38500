//! The bridge network under the conformance suite, and what is its own.
//!
//! Each test runs on a thread in a network and mount namespace of its own, which stands for the machine: nothing outside
//! is touched, and tests do not see each other.
#![cfg(target_os = "linux")]

mod conformance;
#[allow(dead_code, reason = "one harness for several test programs")]
mod traffic;

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use berth_network::linux::{BridgeConfig, BridgeNetwork, OpenError};
use berth_network::port::Network;
use conformance::{Stage, bridged, expect_nothing_left, id, publish_one, tcp};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use traffic::{dial, dial_briefly, held, in_namespace, serve_tcp};

/// A machine with one network on it.
struct Machine {
    directory: tempfile::TempDir,
    name: &'static str,
}

impl Machine {
    fn config(&self, name: &str) -> BridgeConfig {
        let directory = self.directory.path().join(name);
        let mut config = BridgeConfig::new(name, directory.join("state"), directory.join("netns"));
        config.subnet_lock = self.directory.path().join("subnet.lock");
        config
    }

    fn open_named(&self, name: &str) -> BridgeNetwork {
        BridgeNetwork::open(self.config(name)).expect("open")
    }

    fn netns_dir(&self) -> PathBuf {
        self.config(self.name).netns_dir
    }
}

impl Drop for Machine {
    /// Held namespaces, of a failed test too, would keep the folder from being removed.
    fn drop(&mut self) {
        for network in fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
            for held in fs::read_dir(network.path().join("netns")).into_iter().flatten().flatten() {
                let _ = nix::mount::umount2(&held.path(), nix::mount::MntFlags::MNT_DETACH);
            }
        }
    }
}

impl Stage for Machine {
    fn open(&self) -> Arc<dyn Network> {
        Arc::new(self.open_named(self.name))
    }

    fn gateway(&self) -> Ipv4Addr {
        let state = self.config(self.name).state_dir.join("subnet.json");
        let text = fs::read_to_string(state).expect("the chosen subnet");
        text.trim_matches('"').parse::<berth_network::subnet::Subnet>().expect("a subnet").gateway()
    }

    fn leftovers(&self) -> Vec<String> {
        let links = fs::read_to_string("/proc/thread-self/net/dev").expect("links");
        let links = links.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
        let links = links.filter(|name| name.starts_with('v'));
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
        let root = self.directory.path().to_str().expect("a plain path").to_owned();
        let mounts: Vec<_> = mounts.lines().filter(|line| line.contains(&root)).map(str::to_owned).collect();
        let files = fs::read_dir(self.netns_dir()).into_iter().flatten().flatten().map(|entry| entry.path().display().to_string());
        let records = self.config(self.name).state_dir.join("attachments");
        let records = fs::read_dir(records).into_iter().flatten().flatten().map(|entry| entry.path().display().to_string());
        let elements = nft(&["list", "ruleset"]).unwrap_or_default();
        let elements = elements.lines().filter(|line| line.contains(" : ") && !line.contains("type ")).map(str::to_owned);
        links.chain(mounts).chain(files).chain(records).chain(elements).collect()
    }
}

/// What `nft` prints; nothing where it is not installed.
fn nft(arguments: &[&str]) -> Option<String> {
    let Ok(output) = Command::new("nft").args(arguments).stderr(Stdio::inherit()).output() else {
        eprintln!("SKIPPED (needs the nft program): what the kernel holds is not looked at");
        return None;
    };
    assert!(output.status.success(), "nft {arguments:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a test on a machine of its own. All threads started from there inherit its namespaces.
fn on_machine<F: Future<Output = ()>>(name: &'static str, test: impl FnOnce(Arc<Machine>) -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED (needs root): {}", std::thread::current().name().unwrap_or(name));
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("a network and mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private mounts");
        raise_loopback();
        let machine = Arc::new(Machine { directory: tempfile::tempdir().expect("a folder"), name });
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

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        $(#[test]
        fn $case() {
            on_machine("t1", |machine| async move { conformance::$case(&*machine).await });
        })*
    };
}

conformance! {
    a_published_port_is_reached_from_everywhere,
    a_bridged_namespace_has_loopback_and_a_default_route,
    an_isolated_namespace_has_loopback_only,
    a_port_of_a_process_of_the_machine_is_refused,
    a_published_port_is_refused_to_others,
    publishing_again_changes_nothing,
    dynamic_ports_differ_and_come_late_again,
    an_unpublished_port_is_closed,
    udp_follows_the_port_to_its_next_owner,
    a_new_life_finds_everything,
    detach_leaves_nothing,
    many_at_once_do_not_disturb_each_other,
    one_id_at_once_is_one_attachment,
    an_odd_id_is_refused,
    shutdown_waits_for_the_last_attachment,
}

#[test]
fn networks_opened_at_once_choose_different_subnets() {
    on_machine("a", |machine| async move {
        let opened: Vec<_> = ["a", "b", "c", "d"]
            .map(|name| {
                let machine = Arc::clone(&machine);
                std::thread::spawn(move || machine.open_named(name))
            })
            .into_iter()
            .map(|thread| thread.join().expect("open"))
            .collect();
        for (index, one) in opened.iter().enumerate() {
            for other in &opened[index + 1..] {
                assert!(!one.subnet().overlaps(other.subnet().network(), other.subnet().prefix()));
            }
        }
        let before = opened[2].subnet();
        drop(opened);
        assert_eq!(machine.open_named("c").subnet(), before, "a chosen subnet is kept");
    });
}

#[test]
fn another_network_reaches_published_ports_only() {
    on_machine("a", |machine| async move {
        let (ours, theirs) = (machine.open_named("a"), machine.open_named("b"));
        let web = bridged(&ours, "web").await;
        let _server = serve_tcp(held(&web), 80, "web").await;
        let port = publish_one(&ours, "web", tcp(80, None)).await.host_port;
        let stranger = bridged(&theirs, "stranger").await;
        let published = SocketAddrV4::new(ours.gateway(), port);
        assert_eq!(dial(Some(held(&stranger)), published).await.expect("by the published port"), "web");
        let direct = SocketAddrV4::new(web.address.expect("an address"), 80);
        assert!(dial_briefly(Some(held(&stranger)), direct).await.is_err(), "the port itself is not published");
        theirs.detach(&id("stranger")).await.expect("detach");
    });
}

#[test]
fn what_leaves_the_subnet_has_the_machines_address() {
    on_machine("a", |machine| async move {
        let (ours, theirs) = (machine.open_named("a"), machine.open_named("b"));
        let client = bridged(&ours, "client").await;
        let world = bridged(&theirs, "world").await;
        let _server = serve_tcp(held(&world), 80, "world").await;
        let port = publish_one(&theirs, "world", tcp(80, None)).await.host_port;
        // Now it can answer nobody but its own subnet, as the world cannot answer private addresses.
        let unrouted = in_namespace(held(&world), || Command::new("ip").args(["route", "delete", "default"]).status()).await;
        if unrouted.is_ok_and(|status| status.success()) {
            let published = SocketAddrV4::new(theirs.gateway(), port);
            assert_eq!(dial(Some(held(&client)), published).await.expect("answered"), "world");
        } else {
            eprintln!("SKIPPED (needs the ip program): masquerading of what leaves the subnet");
        }
        theirs.detach(&id("world")).await.expect("detach");
    });
}

#[test]
fn a_port_whose_server_just_ended_is_free() {
    on_machine("a", |machine| async move {
        let network = machine.open_named("a");
        let web = bridged(&network, "web").await;
        let _server = serve_tcp(held(&web), 80, "web").await;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 18080)).expect("listen");
        let mut client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, 18080)).expect("connect");
        // The server closes first, so its end stays in TIME_WAIT.
        drop(listener.accept().expect("accept"));
        drop(listener);
        std::io::copy(&mut client, &mut std::io::sink()).expect("the end");
        drop(client);
        publish_one(&network, "web", tcp(80, Some(18080))).await;
        assert_eq!(dial(None, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 18080)).await.expect("reached"), "web");
        assert!(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 18080)).is_err(), "and excludes others as any");
    });
}

#[test]
fn a_container_cannot_reach_what_listens_on_loopback() {
    on_machine("a", |machine| async move {
        let network = machine.open_named("a");
        let prisoner = bridged(&network, "prisoner").await;
        let secret = UdpSocket::bind((Ipv4Addr::LOCALHOST, 9999)).expect("bind");
        secret.set_nonblocking(true).expect("non-blocking");
        let open = tokio::net::UdpSocket::bind((network.gateway(), 9999)).await.expect("bind");
        let gateway = network.gateway();
        in_namespace(held(&prisoner), move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
            // Bound to eth0, the kernel sends 127.0.0.1 to the gateway instead of its own loopback.
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::BindToDevice, &"eth0".into()).expect("bind to eth0");
            for target in [Ipv4Addr::LOCALHOST, gateway] {
                socket.send_to(b"hello", (target, 9999)).expect("send");
            }
        })
        .await;
        // One sender, one wire: when the second datagram is here the first was, too.
        let mut buffer = [0; 16];
        open.recv_from(&mut buffer).await.expect("the machine's bridge address is open");
        let got = secret.recv_from(&mut buffer);
        assert!(got.is_err(), "127.0.0.1 of the machine was reached: {got:?}");
    });
}

#[test]
fn the_kernel_holds_the_ruleset_that_is_meant() {
    on_machine("a", |machine| async move {
        let mut config = machine.config("a");
        config.subnet = Some("10.9.0.0/16".parse().expect("a subnet"));
        let network = BridgeNetwork::open(config).expect("open");
        bridged(&network, "web").await;
        publish_one(&network, "web", tcp(80, Some(18080))).await;
        let Some(ruleset) = nft(&["list", "ruleset"]) else { return };
        // A machine without /etc/protocols has no names for them.
        let ruleset = ruleset.replace("{ 6 . ", "{ tcp . ");
        let lines: Vec<_> = ruleset.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        for expected in [
            "table ip berth_a {",
            "type inet_proto . inet_service : ipv4_addr . inet_service",
            "type filter hook prerouting priority raw; policy accept;",
            "type nat hook prerouting priority dstnat; policy accept;",
            "type nat hook output priority -100; policy accept;",
            "type filter hook forward priority filter; policy accept;",
            "type nat hook postrouting priority srcnat; policy accept;",
            "iifname \"br-a\" ip daddr 127.0.0.0/8 drop",
            "fib daddr type local dnat ip to meta l4proto . th dport map @ports",
            "iifname \"br-a\" accept",
            "oifname \"br-a\" ct state established,related accept",
            "oifname \"br-a\" ct status dnat accept",
            "oifname \"br-a\" drop",
            "oifname \"br-a\" ip saddr 127.0.0.0/8 masquerade",
            "ip saddr 10.9.0.0/16 ip daddr 10.9.0.0/16 ct status dnat masquerade",
            "ip saddr 10.9.0.0/16 oifname != \"br-a\" masquerade",
            "elements = { tcp . 18080 : 10.9.0.2 . 80 }",
        ] {
            assert!(lines.contains(&expected), "no {expected:?} in\n{ruleset}");
        }
    });
}

#[test]
fn a_flushed_ruleset_heals_with_the_next_change() {
    on_machine("a", |machine| async move {
        let network = machine.open_named("a");
        let web = bridged(&network, "web").await;
        let server = serve_tcp(held(&web), 80, "web").await;
        let first = publish_one(&network, "web", tcp(80, None)).await.host_port;
        if nft(&["flush", "ruleset"]).is_none() {
            return;
        }
        let second = publish_one(&network, "web", tcp(80, Some(18080))).await.host_port;
        for port in [first, second] {
            assert_eq!(dial(None, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).await.expect("reached"), "web");
        }
        nft(&["flush", "ruleset"]);
        drop(server);
        network.detach(&id("web")).await.expect("detach");
        expect_nothing_left(&*machine).await;
    });
}

#[test]
fn what_a_crash_leaves_is_cleaned_at_opening() {
    on_machine("a", |machine| async move {
        let network = machine.open_named("a");
        for name in ["whole", "no-record", "no-namespace", "torn"] {
            bridged(&network, name).await;
            publish_one(&network, name, tcp(80, None)).await;
        }
        drop(network);
        let records = machine.config("a").state_dir.join("attachments");
        fs::remove_file(records.join("no-record.json")).expect("remove");
        fs::write(records.join("torn.json"), "{\"attachment\":").expect("write");
        let namespace = machine.netns_dir().join("no-namespace");
        nix::mount::umount2(&namespace, nix::mount::MntFlags::MNT_DETACH).expect("unmount");
        fs::write(machine.netns_dir().join("half-made"), "").expect("write");

        let network = machine.open_named("a");
        let listed = network.list().await.expect("list");
        assert_eq!(listed.iter().map(|attachment| attachment.id.0.as_str()).collect::<Vec<_>>(), ["whole"]);
        let left = |directory: &Path| fs::read_dir(directory).expect("read").count();
        assert_eq!((left(&machine.netns_dir()), left(&records)), (1, 1));
        network.detach(&id("whole")).await.expect("detach");
        expect_nothing_left(&*machine).await;
    });
}

#[test]
fn a_deleted_bridge_comes_back_with_its_containers() {
    on_machine("a", |machine| async move {
        let network = machine.open_named("a");
        let web = bridged(&network, "web").await;
        let _server = serve_tcp(held(&web), 80, "web").await;
        let port = publish_one(&network, "web", tcp(80, None)).await.host_port;
        let deleted = Command::new("ip").args(["link", "delete", network.bridge()]).status();
        drop(network);
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED (needs the ip program): a deleted bridge");
            return;
        }
        let network = machine.open_named("a");
        assert_eq!(dial(None, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).await.expect("reached"), "web");
        drop(network);
    });
}

#[test]
fn a_state_directory_has_one_user() {
    on_machine("a", |machine| async move {
        let network = machine.open_named("a");
        let second = BridgeNetwork::open(machine.config("a")).expect_err("it is in use");
        assert!(second.to_string().ends_with("another process uses it"), "{second}");
        drop(network);
        machine.open_named("a");
    });
}

#[test]
fn settings_at_fault_are_named() {
    on_machine("a", |machine| async move {
        let refused = |change: &dyn Fn(&mut BridgeConfig)| {
            let mut config = machine.config("a");
            change(&mut config);
            BridgeNetwork::open(config).expect_err("refused")
        };
        assert!(matches!(refused(&|config| config.name = "Too Long And Odd".into()), OpenError::Name(_)));
        assert!(matches!(refused(&|config| config.dynamic_ports = 0..=9), OpenError::DynamicPorts(0, 9)));
        let loopback = refused(&|config| config.subnet = Some("127.0.0.0/16".parse().expect("a subnet")));
        assert!(matches!(loopback, OpenError::SubnetInUse { .. }), "{loopback}");
        let network = machine.open_named("a");
        bridged(&network, "web").await;
        drop(network);
        let changed = refused(&|config| config.subnet = Some("10.9.0.0/16".parse().expect("a subnet")));
        assert!(matches!(changed, OpenError::SubnetChanged { attachments: 1, .. }), "{changed}");
    });
}

#[test]
fn ports_and_addresses_run_out_with_an_error() {
    on_machine("a", |machine| async move {
        let mut config = machine.config("a");
        config.subnet = Some("10.9.0.0/29".parse().expect("a subnet"));
        config.dynamic_ports = 40000..=40001;
        let network = BridgeNetwork::open(config).expect("open");
        for number in 0..5 {
            bridged(&network, &format!("task-{number}")).await;
        }
        let full = network.attach(&id("one-more"), berth_network::port::AttachmentKind::Bridge).await.expect_err("no address");
        assert_eq!(full.to_string(), "no free address in 10.9.0.0/29");
        let full = network.publish(&id("task-0"), &[tcp(80, None), tcp(81, None), tcp(82, None)]).await.expect_err("no port");
        assert_eq!(full.to_string(), "no free port in the dynamic host port range 40000-40001");
        network.publish(&id("task-1"), &[tcp(80, None), tcp(81, None)]).await.expect("none was kept");
    });
}

#[test]
fn the_bridge_passes_dockers_forward_chain() {
    on_machine("a", |machine| async move {
        let docker = "add table ip filter; add chain ip filter DOCKER-USER; add rule ip filter DOCKER-USER return; \
                      add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
                      add rule ip filter FORWARD jump DOCKER-USER";
        if nft(&[docker]).is_none() {
            return;
        }
        let network = machine.open_named("a");
        let (web, other) = (bridged(&network, "web").await, bridged(&network, "other").await);
        let _server = serve_tcp(held(&web), 80, "web").await;
        let port = publish_one(&network, "web", tcp(80, None)).await.host_port;
        let published = SocketAddrV4::new(network.gateway(), port);
        assert_eq!(dial(Some(held(&other)), published).await.expect("reached"), "web");
        drop(network);
        let network = machine.open_named("a");
        let rules = nft(&["list", "chain", "ip", "filter", "DOCKER-USER"]).expect("nft was there");
        assert_eq!(rules.matches("\"br-a\" accept").count(), 2, "{rules}");
        for name in ["web", "other"] {
            network.detach(&id(name)).await.expect("detach");
        }
        network.shutdown().await.expect("shutdown");
        let rules = nft(&["list", "ruleset"]).expect("nft was there");
        assert!(!rules.contains("berth") && !rules.contains("br-a") && rules.contains("return"), "{rules}");
    });
}
