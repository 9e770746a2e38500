//! What containers ask at 169.254.170.2 arrives at their own network's agent, with their own addresses as senders, though two networks share a
//! machine. With real traffic; the test runs on a machine of its own.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "one harness for several test programs")]
mod machine;
#[allow(dead_code, reason = "one harness for several test programs")]
mod traffic;

use std::net::SocketAddrV4;
use std::sync::Arc;

use berth_network::linux::{BridgeConfig, BridgeNetwork, InterfaceConfig, InterfaceNetwork, MachineNetwork};
use berth_network::metadata::ASKED;
use berth_network::port::{AttachmentKind, Network};
use machine::{Machine, held, id, interface, nft, on_machine, table};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use traffic::{dial, dial_briefly};

fn open(machine: &Machine, name: &str) -> MachineNetwork {
    let folder = machine.directory.path().join(name);
    let mut bridge = BridgeConfig::new(name, folder.join("network"), folder.join("netns"));
    bridge.subnet_lock = machine.directory.path().join("subnet.lock");
    let bridge = BridgeNetwork::open(bridge).expect("the bridge opens");
    let interfaces = InterfaceConfig::new(name, folder.join("interfaces"), folder.join("interfaces-netns"));
    let interfaces = InterfaceConfig { metadata: bridge.metadata(), ..interfaces };
    MachineNetwork::new(bridge, Some(InterfaceNetwork::open(interfaces).expect("interfaces open")))
}

/// Answers with its name and the sender's address.
async fn answer(place: SocketAddrV4, name: &'static str) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(place).await.expect("the place is free");
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let text = format!("{name} {}", peer.ip());
            tokio::spawn(async move { stream.write_all(text.as_bytes()).await });
        }
    })
}

#[test]
fn each_network_leads_it_to_its_own_agent() {
    on_machine(|machine| async move {
        let mut networks: Vec<Arc<MachineNetwork>> = Vec::new();
        let mut servers = Vec::new();
        for name in ["m1", "m2"] {
            let network = Arc::new(open(&machine, name));
            servers.push(answer(network.metadata().expect("a bridge has a place"), name).await);
            // Of a group that lets nothing out.
            network.apply_table(&table(&[("sg-none", machine::group(&[], &[]))])).await.expect("apply");
            networks.push(network);
        }
        assert_ne!(networks[0].metadata(), networks[1].metadata());
        let mut attachments = Vec::new();
        for (number, (network, name)) in networks.iter().zip(["m1", "m2"]).enumerate() {
            let number = u16::try_from(number).expect("few") + 5;
            let bridged = network.attach(&id(number), AttachmentKind::Bridge).await.expect("attach");
            let task = network.attach_interface(&id(number + 100), &interface(number, &["sg-none"])).await.expect("attach");
            for attachment in [&bridged, &task] {
                let address = attachment.address.expect("an address");
                let told = dial(Some(&held(attachment)), ASKED).await.expect("an answer");
                assert_eq!(told, format!("{name} {address}"), "by {:?}", attachment.kind);
            }
            // Its other ports lead nowhere, nor does the machine itself have the address.
            let other_port = SocketAddrV4::new(*ASKED.ip(), 81);
            assert!(dial_briefly(Some(&held(&task)), other_port).await.is_err());
            attachments.extend([bridged.id, task.id]);
        }
        assert!(dial_briefly(None, ASKED).await.is_err(), "the machine's own programs are nobody's");
        for (network, name) in networks.iter().zip(["m1", "m2"]) {
            let place = network.metadata().expect("a bridge has a place");
            assert_eq!(dial(None, place).await.expect("an answer"), format!("{name} {}", place.ip()), "they ask at the place itself");
        }

        // After a restart, and after somebody flushed the ruleset and something changed, it is as before.
        nft(&["flush", "ruleset"]);
        drop(networks);
        let network = open(&machine, "m1");
        let listed = network.list().await.expect("list");
        assert_eq!(listed.len(), 2);
        for attachment in &listed {
            let told = dial(Some(&held(attachment)), ASKED).await.expect("an answer");
            assert_eq!(told, format!("m1 {}", attachment.address.expect("an address")));
        }
        for network in [network, open(&machine, "m2")] {
            for id in &attachments {
                network.detach(id).await.expect("detach");
            }
            network.shutdown().await.expect("nothing is left");
        }
        let left = nft(&["list", "ruleset"]).unwrap_or_default();
        assert!(!left.contains("169.254.170.2"), "{left}");
        servers.iter().for_each(tokio::task::JoinHandle::abort);
    });
}
