//! Addresses that stand for a task outside, with real traffic. Each test runs on a machine of its own.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "one harness for several test programs")]
mod machine;
#[allow(dead_code, reason = "one harness for several test programs")]
mod traffic;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::time::Duration;

use berth_network::interface::TaskInterface;
use berth_network::port::NetworkError;
use berth_network::security_group::Traffic;
use machine::{
    attached, bare_namespace, everything, expect_nothing_left, group, held, id, interface, ip, ip_inside, on_machine, rule, table,
};
use traffic::{dial, dial_briefly, in_namespace, serve_tcp};

const WEB: Traffic = Traffic::Tcp(80, 80);

#[test]
fn what_leaves_has_the_machines_address_and_a_public_one_stands_for_its_task() {
    on_machine(|machine| async move {
        let network = machine.open();
        // The world answers addresses of the machine's own link only.
        let world = bare_namespace(&machine, "world");
        if !ip(&format!("link add wan type veth peer name world netns {}", world.display())) {
            return;
        }
        ["addr add 198.51.100.1/24 dev wan", "link set wan up"].iter().for_each(|line| assert!(ip(line)));
        for line in ["addr add 198.51.100.2/24 dev world", "addr add 169.254.169.254/32 dev world", "link set world up"] {
            assert!(ip_inside(&world, line).await);
        }
        assert!(ip("route add 169.254.169.254/32 dev wan"));
        let beyond = in_namespace(&world, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).expect("bind")).await;
        beyond.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let open = group(&[rule(WEB, "198.51.100.0/24"), rule(WEB, "10.77.0.5/32")], &[everything()]);
        network.apply(&table(&[("sg-open", open)])).await.expect("apply");
        let private = attached(&network, 5, &["sg-open"]).await;
        let seen = TaskInterface { public_address: Some(Ipv4Addr::new(198, 51, 100, 7)), ..interface(6, &["sg-open"]) };
        let public = network.attach(&id(6), &seen).await.expect("attach");
        let mut buffer = [0; 16];
        for (task, expected) in [(&private, [198, 51, 100, 1]), (&public, [198, 51, 100, 7])] {
            in_namespace(&held(task), || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
                socket.send_to(b"secrets", (Ipv4Addr::new(169, 254, 169, 254), 9000)).expect("send");
                socket.send_to(b"hello", (Ipv4Addr::new(198, 51, 100, 2), 9000)).expect("send");
            })
            .await;
            let (length, sender) = beyond.recv_from(&mut buffer).expect("it arrives");
            assert_eq!(sender.ip(), IpAddr::from(expected));
            // One sender, one wire: when the second is here the first was, too.
            assert_eq!(&buffer[..length], b"hello", "services of the machine's own link are not the task's");
        }
        let _web = serve_tcp(&held(&public), 80, "web").await;
        let outside = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 80);
        assert_eq!(dial(Some(&world), outside).await.expect("by its public address"), "web");
        assert_eq!(dial(None, outside).await.expect("from the machine itself"), "web");
        assert_eq!(dial(Some(&held(&private)), outside).await.expect("from a task beside it"), "web");
        let taken = TaskInterface { public_address: seen.public_address, ..interface(7, &[]) };
        let refused = network.attach(&id(7), &taken).await;
        assert!(matches!(refused, Err(NetworkError::AddressInUse { .. })), "{refused:?}");
        network.detach(&id(6)).await.expect("detach");
        assert!(dial_briefly(Some(&world), outside).await.is_err(), "it stands for nobody now");
        assert_eq!(answered_for(), "");
        let next = TaskInterface { public_address: seen.public_address, ..interface(8, &["sg-open"]) };
        let next = network.attach(&id(8), &next).await.expect("attach");
        let _web = serve_tcp(&held(&next), 80, "the next").await;
        assert_eq!(dial(Some(&world), outside).await.expect("by its public address"), "the next");
    });
}

/// Public addresses that the machine answers for, as `ip` lists them.
fn answered_for() -> String {
    let listed = Command::new("ip").args(["-4", "route", "show", "table", "local", "proto", "190"]).output().expect("ip was there before");
    String::from_utf8_lossy(&listed.stdout).split_whitespace().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_public_address_is_answered_for_as_long_as_its_task_is_there() {
    on_machine(|machine| async move {
        if !ip("addr add 198.51.100.9/32 dev lo") {
            return;
        }
        let network = machine.open();
        let public = |last: u8| TaskInterface { public_address: Some(Ipv4Addr::new(198, 51, 100, last)), ..interface(last.into(), &[]) };
        network.attach(&id(7), &public(7)).await.expect("attach");
        assert_eq!(answered_for(), "198.51.100.7");
        drop(network);
        // Somebody took it away while no agent was there.
        assert!(ip("route del local 198.51.100.7 dev lo table local proto 190"));
        let network = machine.open();
        assert_eq!(answered_for(), "198.51.100.7");
        network.detach(&id(7)).await.expect("detach");
        assert_eq!(answered_for(), "");
        // One that its owner gave the machine stays the machine's.
        network.attach(&id(9), &public(9)).await.expect("attach");
        network.detach(&id(9)).await.expect("detach");
        let own = Command::new("ip").args(["-4", "addr", "show", "dev", "lo"]).output().expect("ip");
        assert!(String::from_utf8_lossy(&own.stdout).contains("198.51.100.9/32"));
        network.shutdown().await.expect("shutdown");
        assert_eq!(answered_for(), "");
        expect_nothing_left(&machine).await;
    });
}
