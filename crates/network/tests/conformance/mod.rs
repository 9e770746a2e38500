//! What every `Network` must do, whatever it is made of. Each case gets a stage of its own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener as StdTcpListener};
use std::sync::Arc;

use berth_network::port::{Attachment, AttachmentId, AttachmentKind, Network, NetworkError, PortBinding, PortRequest, Protocol};

use crate::traffic::{dial, exchange, held, in_namespace, serve_tcp, serve_udp};

/// Where a network is tried.
pub trait Stage: Send + Sync {
    /// Opens the network; what was opened before has been dropped.
    fn open(&self) -> Arc<dyn Network>;
    /// The machine's address on the network.
    fn gateway(&self) -> Ipv4Addr;
    /// The machine's links, held namespaces and published ports that are there because of attachments.
    fn leftovers(&self) -> Vec<String>;
}

pub fn id(name: &str) -> AttachmentId {
    AttachmentId(name.to_owned())
}

pub fn tcp(container_port: u16, host_port: Option<u16>) -> PortRequest {
    PortRequest { container_port, host_port, protocol: Protocol::Tcp }
}

pub fn udp(container_port: u16, host_port: Option<u16>) -> PortRequest {
    PortRequest { container_port, host_port, protocol: Protocol::Udp }
}

fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

pub async fn bridged(network: &dyn Network, name: &str) -> Attachment {
    network.attach(&id(name), AttachmentKind::Bridge).await.expect("attach")
}

pub async fn publish_one(network: &dyn Network, name: &str, request: PortRequest) -> PortBinding {
    network.publish(&id(name), &[request]).await.expect("publish")[0]
}

/// Waits until detached namespaces are gone: the kernel removes them in its own time.
pub async fn expect_nothing_left(stage: &dyn Stage) {
    for _ in 0..1000 {
        if stage.leftovers().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("left behind: {:?}", stage.leftovers());
}

pub async fn a_published_port_is_reached_from_everywhere(stage: &dyn Stage) {
    let network = stage.open();
    let (web, other) = (bridged(&*network, "web").await, bridged(&*network, "other").await);
    assert_ne!(web.address, other.address);
    let _server = serve_tcp(held(&web), 80, "web").await;
    let port = publish_one(&*network, "web", tcp(80, None)).await.host_port;
    let machine = SocketAddrV4::new(stage.gateway(), port);
    let direct = SocketAddrV4::new(web.address.expect("a bridged attachment has an address"), 80);
    assert_eq!(dial(None, local(port)).await.expect("127.0.0.1"), "web");
    assert_eq!(dial(None, machine).await.expect("the machine's bridge address"), "web");
    assert_eq!(dial(None, direct).await.expect("the container's address"), "web");
    assert_eq!(dial(Some(held(&other)), direct).await.expect("a neighbour, directly"), "web");
    assert_eq!(dial(Some(held(&other)), machine).await.expect("a neighbour, by the published port"), "web");
    assert_eq!(dial(Some(held(&web)), machine).await.expect("the container itself, by its published port"), "web");
}

pub async fn a_bridged_namespace_has_loopback_and_a_default_route(stage: &dyn Stage) {
    let network = stage.open();
    let attachment = bridged(&*network, "web").await;
    let gateway = format!("{:08X}", u32::from_ne_bytes(stage.gateway().octets()));
    let routes = in_namespace(held(&attachment), || std::fs::read_to_string("/proc/thread-self/net/route")).await.expect("routes");
    let default = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|f| f.get(1) == Some(&"00000000"));
    let default = default.unwrap_or_else(|| panic!("no default route in {routes}"));
    assert_eq!((default[0], default[2]), ("eth0", gateway.as_str()));
    let _server = serve_tcp(held(&attachment), 81, "own").await;
    assert_eq!(dial(Some(held(&attachment)), local(81)).await.expect("loopback"), "own");
}

pub async fn an_isolated_namespace_has_loopback_only(stage: &dyn Stage) {
    let network = stage.open();
    let attachment = network.attach(&id("alone"), AttachmentKind::Isolated).await.expect("attach");
    assert_eq!((attachment.address, attachment.kind), (None, AttachmentKind::Isolated));
    let links = in_namespace(held(&attachment), || std::fs::read_to_string("/proc/thread-self/net/dev")).await.expect("links");
    assert!(!links.contains("eth0"), "{links}");
    let server = serve_tcp(held(&attachment), 81, "own").await;
    assert_eq!(dial(Some(held(&attachment)), local(81)).await.expect("loopback"), "own");
    assert!(dial(Some(held(&attachment)), SocketAddrV4::new(stage.gateway(), 81)).await.is_err());
    assert!(matches!(network.publish(&id("alone"), &[tcp(81, None)]).await, Err(NetworkError::System(_))));
    drop(server);
    network.detach(&id("alone")).await.expect("detach");
    expect_nothing_left(stage).await;
}

pub async fn a_port_of_a_process_of_the_machine_is_refused(stage: &dyn Stage) {
    let network = stage.open();
    bridged(&*network, "web").await;
    let process = StdTcpListener::bind(local(0)).expect("listen");
    let port = process.local_addr().expect("its address").port();
    let refused = network.publish(&id("web"), &[tcp(80, None), tcp(81, Some(port))]).await.expect_err("the port is in use");
    assert!(matches!(refused, NetworkError::PortInUse { port: p, protocol: Protocol::Tcp } if p == port), "{refused}");
    assert!(refused.to_string().ends_with(&format!("Bind for 0.0.0.0:{port} failed: port is already allocated")));
    assert_eq!(network.list().await.expect("list")[0].bindings, [], "all or none");
    let other_protocol = publish_one(&*network, "web", udp(81, Some(port))).await;
    assert_eq!(other_protocol.host_port, port, "UDP is another port");
}

pub async fn a_published_port_is_refused_to_others(stage: &dyn Stage) {
    let network = stage.open();
    bridged(&*network, "one").await;
    bridged(&*network, "two").await;
    let binding = publish_one(&*network, "one", tcp(80, Some(18080))).await;
    assert_eq!(binding, PortBinding { container_port: 80, host_port: 18080, protocol: Protocol::Tcp });
    let refused = network.publish(&id("two"), &[tcp(80, Some(18080))]).await;
    assert!(matches!(refused, Err(NetworkError::PortInUse { port: 18080, .. })), "{refused:?}");
    let refused = network.publish(&id("one"), &[tcp(81, Some(18080))]).await;
    assert!(matches!(refused, Err(NetworkError::PortInUse { port: 18080, .. })), "another port of the same container: {refused:?}");
    assert!(StdTcpListener::bind(local(18080)).is_err(), "nor can a process of the machine take it");
    network.unpublish(&id("one")).await.expect("unpublish");
    assert_eq!(publish_one(&*network, "two", tcp(80, Some(18080))).await.host_port, 18080);
}

pub async fn publishing_again_changes_nothing(stage: &dyn Stage) {
    let network = stage.open();
    bridged(&*network, "web").await;
    let wish = [tcp(80, Some(18080)), tcp(80, None), tcp(80, None), udp(80, None)];
    let first = network.publish(&id("web"), &wish).await.expect("publish");
    let ports: BTreeSet<_> = first.iter().map(|binding| (binding.protocol, binding.host_port)).collect();
    assert_eq!(ports.len(), wish.len(), "each request has a port of its own");
    let again: BTreeSet<_> =
        network.publish(&id("web"), &wish).await.expect("publish again").iter().map(|b| (b.protocol, b.host_port)).collect();
    assert_eq!(again, ports);
    assert_eq!(network.list().await.expect("list")[0].bindings.len(), wish.len());
}

pub async fn dynamic_ports_differ_and_come_late_again(stage: &dyn Stage) {
    let network = stage.open();
    bridged(&*network, "web").await;
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let binding = publish_one(&*network, "web", tcp(80, None)).await;
        assert!(seen.insert(binding.host_port), "port {} came again", binding.host_port);
        network.unpublish(&id("web")).await.expect("unpublish");
    }
}

pub async fn an_unpublished_port_is_closed(stage: &dyn Stage) {
    let network = stage.open();
    let web = bridged(&*network, "web").await;
    let _server = serve_tcp(held(&web), 80, "web").await;
    let port = publish_one(&*network, "web", tcp(80, None)).await.host_port;
    assert_eq!(dial(None, local(port)).await.expect("published"), "web");
    network.unpublish(&id("web")).await.expect("unpublish");
    assert!(dial(None, local(port)).await.is_err());
    network.unpublish(&id("web")).await.expect("unpublishing nothing is no error");
}

pub async fn udp_follows_the_port_to_its_next_owner(stage: &dyn Stage) {
    let network = stage.open();
    let (one, two) = (bridged(&*network, "one").await, bridged(&*network, "two").await);
    let _server = serve_udp(held(&one), 53, "one").await;
    let _other_server = serve_udp(held(&two), 53, "two").await;
    publish_one(&*network, "one", udp(53, Some(15353))).await;
    // One socket throughout: for the kernel it is one flow.
    let client = tokio::net::UdpSocket::bind(local(0)).await.expect("a client");
    assert_eq!(exchange(&client, local(15353)).await.expect("an answer"), "one");
    network.unpublish(&id("one")).await.expect("unpublish");
    publish_one(&*network, "two", udp(53, Some(15353))).await;
    assert_eq!(exchange(&client, local(15353)).await.expect("an answer"), "two");
}

pub async fn a_new_life_finds_everything(stage: &dyn Stage) {
    let network = stage.open();
    let web = bridged(&*network, "web").await;
    network.attach(&id("alone"), AttachmentKind::Isolated).await.expect("attach");
    bridged(&*network, "gone").await;
    network.detach(&id("gone")).await.expect("detach");
    let server = serve_tcp(held(&web), 80, "web").await;
    let binding = publish_one(&*network, "web", tcp(80, None)).await;
    let before = network.list().await.expect("list");
    assert_eq!(before.iter().map(|a| a.id.0.as_str()).collect::<Vec<_>>(), ["alone", "web"]);
    assert_eq!(before[1].bindings, [binding]);
    drop(network);
    assert_eq!(dial(None, local(binding.host_port)).await.expect("nobody needs to run"), "web");

    let network = stage.open();
    assert_eq!(network.list().await.expect("list"), before);
    assert_eq!(dial(None, local(binding.host_port)).await.expect("published as before"), "web");
    assert!(StdTcpListener::bind(local(binding.host_port)).is_err(), "reserved as before");
    assert_eq!(bridged(&*network, "web").await, before[1], "attaching again returns it");
    let next = bridged(&*network, "next").await;
    assert_ne!(next.address, before[1].address);
    let other_server = serve_tcp(held(&next), 80, "next").await;
    let other = publish_one(&*network, "next", tcp(80, None)).await;
    assert_ne!(other.host_port, binding.host_port);
    assert_eq!(dial(None, local(other.host_port)).await.expect("a new one"), "next");
    drop((server, other_server));
    for name in ["web", "alone", "next"] {
        network.detach(&id(name)).await.expect("detach");
    }
    expect_nothing_left(stage).await;
}

pub async fn detach_leaves_nothing(stage: &dyn Stage) {
    let network = stage.open();
    bridged(&*network, "web").await;
    let ports = network.publish(&id("web"), &[tcp(80, None), udp(53, None)]).await.expect("publish");
    assert!(!stage.leftovers().is_empty(), "the stage sees an attachment");
    network.detach(&id("web")).await.expect("detach");
    network.detach(&id("web")).await.expect("detaching again is no error");
    network.detach(&id("never-there")).await.expect("nor is an unknown id");
    assert_eq!(network.list().await.expect("list"), []);
    expect_nothing_left(stage).await;
    drop(StdTcpListener::bind(local(ports[0].host_port)).expect("the port is free again"));
    let unknown = network.publish(&id("web"), &[tcp(80, None)]).await;
    assert!(matches!(unknown, Err(NetworkError::NoAttachment(_))), "{unknown:?}");
}

pub async fn many_at_once_do_not_disturb_each_other(stage: &dyn Stage) {
    let network = stage.open();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..32 {
        let network = Arc::clone(&network);
        calls.spawn(async move {
            let name = format!("task-{number}");
            let attachment = bridged(&*network, &name).await;
            let server = serve_tcp(held(&attachment), 80, &name).await;
            let port = publish_one(&*network, &name, tcp(80, None)).await.host_port;
            (name, attachment.address, port, server)
        });
    }
    let made = calls.join_all().await;
    assert_eq!(made.iter().map(|(_, address, ..)| address).collect::<BTreeSet<_>>().len(), 32);
    assert_eq!(made.iter().map(|(_, _, port, _)| port).collect::<BTreeSet<_>>().len(), 32);
    for (name, _, port, _) in &made {
        assert_eq!(&dial(None, local(*port)).await.expect("reached"), name);
    }
    let mut calls = tokio::task::JoinSet::new();
    for (name, ..) in made {
        let network = Arc::clone(&network);
        calls.spawn(async move { network.detach(&id(&name)).await.expect("detach") });
    }
    calls.join_all().await;
    expect_nothing_left(stage).await;
}

pub async fn one_id_at_once_is_one_attachment(stage: &dyn Stage) {
    let network = stage.open();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let network = Arc::clone(&network);
        calls.spawn(async move { bridged(&*network, "same").await });
    }
    let all = calls.join_all().await;
    assert!(all.iter().all(|attachment| *attachment == all[0]), "{all:?}");
    // Attached again before the kernel has removed what was detached.
    for _ in 0..5 {
        network.detach(&id("same")).await.expect("detach");
        let again = bridged(&*network, "same").await;
        let _server = serve_tcp(held(&again), 80, "again").await;
        let port = publish_one(&*network, "same", tcp(80, None)).await.host_port;
        assert_eq!(dial(None, local(port)).await.expect("reached"), "again");
    }
}

pub async fn an_odd_id_is_refused(stage: &dyn Stage) {
    let network = stage.open();
    for odd in ["", "../up", "a/b", "A", "a b", &"x".repeat(65)] {
        let refused = network.attach(&id(odd), AttachmentKind::Bridge).await;
        assert!(matches!(refused, Err(NetworkError::System(_))), "{odd:?}: {refused:?}");
    }
    assert_eq!(stage.leftovers(), Vec::<String>::new());
}

pub async fn shutdown_waits_for_the_last_attachment(stage: &dyn Stage) {
    let network = stage.open();
    let web = bridged(&*network, "web").await;
    let server = serve_tcp(held(&web), 80, "web").await;
    let port = publish_one(&*network, "web", tcp(80, None)).await.host_port;
    network.shutdown().await.expect("nothing to do yet");
    assert_eq!(dial(None, local(port)).await.expect("undisturbed"), "web");
    drop(server);
    network.detach(&id("web")).await.expect("detach");
    network.shutdown().await.expect("shutdown");
    assert!(network.attach(&id("late"), AttachmentKind::Bridge).await.is_err());
    expect_nothing_left(stage).await;
    drop(network);
    bridged(&*stage.open(), "anew").await;
}
