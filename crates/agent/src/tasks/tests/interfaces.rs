//! Tasks with interfaces of their own (`networkMode: awsvpc`).

use berth_runtime::port::ContainerNetwork;

use super::*;
use crate::tasks::TableFailure;

fn interface() -> acs::ElasticNetworkInterface {
    acs::ElasticNetworkInterface {
        attachment_arn: "arn:aws:ecs:us-east-1:000000000000:attachment/a1".into(),
        ec2_id: "eni-0a".into(),
        mac_address: "02:00:0a:00:01:05".into(),
        ipv4_addresses: vec![acs::Ipv4Address { primary: true, private_address: "10.0.1.5".into() }],
        subnet_gateway_ipv4_address: "10.0.1.1/24".into(),
        domain_name: vec!["eu-west-1.compute.internal".into()],
        domain_name_servers: vec!["10.0.0.2".into()],
        private_dns_name: "ip-10-0-1-5.eu-west-1.compute.internal".into(),
        security_groups: vec!["sg-1".into()],
        ..Default::default()
    }
}

fn awsvpc(id: &str, containers: &[(&str, &str)]) -> acs::Task {
    acs::Task { network_mode: "awsvpc".into(), elastic_network_interfaces: vec![interface()], ..task(id, containers) }
}

#[tokio::test(start_paused = true)]
async fn all_containers_share_the_interface_until_the_last_one_ends() {
    let mut world = World::new();
    let mut task = awsvpc("t1", &[("main", "app"), ("side", "job.exit=0.after=50")]);
    task.containers[0].port_mappings = vec![acs::PortMapping { container_port: 80, host_port: 80, ..Default::default() }];
    task.containers[1].essential = false;
    world.take(&task).await;
    let running = world.report().await;
    assert_eq!(summary(&running), "RUNNING main=RUNNING side=RUNNING");
    assert!(running.containers.as_ref().unwrap()[0].network_bindings.is_none(), "nothing is published");
    let (main, side) = (world.runtime.spec("t1-0"), world.runtime.spec("t1-1"));
    assert_eq!(main.network, ContainerNetwork::Namespace("/run/netns/t1-eni".into()));
    assert_eq!(side.network, main.network);
    assert_eq!(main.hostname.as_deref(), Some("ip-10-0-1-5.eu-west-1.compute.internal"));
    assert_eq!(main.address, Some(std::net::IpAddr::from([10, 0, 1, 5])));
    assert_eq!((main.dns_servers, main.dns_search), (vec!["10.0.0.2".to_owned()], vec!["eu-west-1.compute.internal".to_owned()]));
    assert_eq!(world.word().await, "RUNNING main=RUNNING side=RUNNING side=STOPPED(0)");
    assert!(world.is_quiet().await);
    assert_eq!(world.network.ids(), ["t1-eni"], "the other one still has it");
    world.take(&stopped(&task)).await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED(143) side=STOPPED(0)");
    assert!(world.network.ids().is_empty(), "the address is free before anybody is told of the end");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_goes_on_with_the_interface() {
    let mut world = World::new();
    let mut task = awsvpc("t1", &[("main", "app"), ("side", "app")]);
    task.containers[1].essential = false;
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING side=RUNNING");
    assert!(world.is_quiet().await);
    world.restart().await;
    assert_eq!(world.network.ids(), ["t1-eni"]);
    world.runtime.end("t1-1", 0);
    assert_eq!(world.word().await, "RUNNING main=RUNNING side=RUNNING side=STOPPED(0)");
    assert!(world.is_quiet().await);
    assert_eq!(world.network.ids(), ["t1-eni"], "it is known who else has it");
    world.runtime.end("t1-0", 0);
    assert_eq!(world.word().await, "STOPPED main=STOPPED(0) side=STOPPED(0)");
    assert!(world.network.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_comes_after_the_others_have_ended_gets_the_interface_anew() {
    let mut world = World::new();
    let mut task = awsvpc("t1", &[("main", "app"), ("first", "job.exit=0.after=50")]);
    task.containers[1].essential = false;
    depends(&mut task, 0, "first", "SUCCESS");
    world.take(&task).await;
    let mut told = world.word().await;
    while told != "RUNNING main=RUNNING first=STOPPED(0)" && !told.starts_with("RUNNING main=RUNNING first=") {
        told = world.word().await;
    }
    assert_eq!(world.runtime.spec("t1-0").network, ContainerNetwork::Namespace("/run/netns/t1-eni".into()));
    assert_eq!(world.network.ids(), ["t1-eni"]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_leaves_no_interface() {
    let mut world = World::new();
    world.take(&awsvpc("t1", &[("main", "x.pull=error")])).await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED");
    assert!(world.network.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_honoured_is_named() {
    let refused = |change: fn(&mut acs::Task)| async move {
        let mut world = World::new();
        let mut task = awsvpc("t1", &[("main", "app")]);
        change(&mut task);
        world.take(&task).await;
        reason(&world.report().await, 0)
    };
    for (change, member) in [
        ((|task| task.elastic_network_interfaces.clear()) as fn(&mut acs::Task), "elasticNetworkInterfaces: network mode awsvpc needs one"),
        (|task| task.elastic_network_interfaces.push(interface()), "elasticNetworkInterfaces: 2 of them"),
        (|task| task.elastic_network_interfaces[0].interface_association_protocol = "vlan".into(), "interfaceAssociationProtocol vlan"),
        (|task| task.elastic_network_interfaces[0].mac_address = "x".into(), "macAddress \"x\""),
        (|task| task.elastic_network_interfaces[0].ipv4_addresses.clear(), "ipv4Addresses"),
        (|task| task.elastic_network_interfaces[0].subnet_gateway_ipv4_address = "10.0.1.1".into(), "subnetGatewayIpv4Address"),
        (|task| task.elastic_network_interfaces[0].subnet_gateway_ipv4_address = "10.0.2.1/24".into(), "subnetGatewayIpv4Address"),
    ] {
        let reason = refused(change).await;
        assert!(reason.contains(member), "{member}: {reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_metadata_file_describes_the_interface() {
    let mut world = World::new();
    world.config.container_metadata = true;
    (world.tasks, world.inbox) = tasks((&world.runtime, &world.network), &world.config, world.clock.clone(), &world.stop);
    world.take(&awsvpc("t1", &[("main", "app")])).await;
    world.report().await;
    let spec = world.runtime.spec("t1-0");
    let file = std::fs::read(spec.mounts.last().unwrap().source.join("ecs-container-metadata.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let expected = serde_json::json!([{
        "NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.1.5"], "AttachmentIndex": 0, "MACAddress": "02:00:0a:00:01:05",
        "IPv4SubnetCIDRBlock": "10.0.1.0/24", "SubnetGatewayIpv4Address": "10.0.1.1/24", "DomainNameServers": ["10.0.0.2"],
        "DomainNameSearchList": ["eu-west-1.compute.internal"], "PrivateDNSName": "ip-10-0-1-5.eu-west-1.compute.internal"
    }]);
    assert_eq!(file["Networks"], expected);
}

#[tokio::test(start_paused = true)]
async fn an_announced_interface_is_said_to_be_attached() {
    let mut world = World::new();
    let message = acs::AttachTaskNetworkInterfacesMessage {
        task_arn: arn("t1"),
        wait_timeout_ms: 300_000,
        elastic_network_interfaces: vec![interface()],
        ..Default::default()
    };
    world.tasks.confirm_interfaces(&message).await.unwrap();
    let told = world.report().await;
    assert_eq!((told.task.as_deref(), told.status), (Some(arn("t1").as_str()), None));
    let attachment = &told.attachments.unwrap()[0];
    assert_eq!(attachment.attachment_arn.as_deref(), Some("arn:aws:ecs:us-east-1:000000000000:attachment/a1"));
    assert_eq!(attachment.status.as_deref(), Some("ATTACHED"));
    let mut odd = message.clone();
    odd.elastic_network_interfaces[0].mac_address.clear();
    assert!(world.tasks.confirm_interfaces(&odd).await.unwrap_err().starts_with("macAddress"));
    let late = acs::AttachTaskNetworkInterfacesMessage { wait_timeout_ms: 0, ..message };
    assert!(world.tasks.confirm_interfaces(&late).await.is_err());
    assert!(world.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn a_pushed_table_reaches_the_network() {
    let world = World::new();
    let push = |table| world.tasks.apply_network_table(acs::NetworkTableMessage { table, ..Default::default() });
    let group = serde_json::json!({
        "ingress": [{"traffic": {"tcp": [80, 80]}, "peer": {"group": "sg-1"}}],
        "egress": [{"traffic": "all", "peer": {"range": "0.0.0.0/0"}}]
    });
    let known = serde_json::json!({"addresses": ["10.0.1.5"], "groups": ["sg-1"], "instance": "192.0.2.1"});
    push(serde_json::json!({"groups": {"sg-1": group}, "interfaces": {"eni-1": known}})).await.unwrap();
    assert_eq!(world.network.table().interfaces["eni-1"].groups, ["sg-1"]);
    assert!(push(serde_json::json!({"groups": 7})).await.unwrap_err().to_string().starts_with("table: "));
    assert_eq!(world.network.table().groups.len(), 1, "the one before stays");
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_table_that_is_here_are_enforced_and_of_another_the_whole_is_wanted() {
    let world = World::new();
    let push =
        |revision, base, table| world.tasks.apply_network_table(acs::NetworkTableMessage { revision, base, table, ..Default::default() });
    let known = |last: u8| serde_json::json!({"addresses": [format!("10.0.1.{last}")], "groups": ["sg-1"], "instance": "192.0.2.1"});
    let interfaces = || world.network.table().interfaces.into_keys().collect::<Vec<_>>().join(" ");
    let one = |id: &str, known: serde_json::Value| serde_json::json!({"groups": {}, "interfaces": {id: known}});
    assert_eq!(push(3, Some(2), one("eni-1", known(1))).await, Err(TableFailure::Missing), "there is none yet");
    assert_eq!(push(4, Some(3), one("eni-1", known(1))).await, Err(TableFailure::Awaited), "it is asked for once");
    push(5, None, one("eni-1", known(1))).await.unwrap();
    push(6, Some(5), one("eni-2", known(2))).await.unwrap();
    push(9, Some(6), one("eni-1", serde_json::Value::Null)).await.unwrap();
    assert_eq!(interfaces(), "eni-2");
    assert_eq!(push(12, Some(11), one("eni-3", known(3))).await, Err(TableFailure::Missing), "one between was lost");
    assert_eq!(push(13, Some(9), one("eni-3", known(3))).await, Err(TableFailure::Awaited), "nothing is built on it any more");
    assert_eq!(interfaces(), "eni-2", "what was there stays");
    push(13, None, one("eni-3", known(3))).await.unwrap();
    assert_eq!(interfaces(), "eni-3");
    assert!(matches!(push(14, Some(13), serde_json::json!({"groups": 7})).await, Err(TableFailure::Refused(_))));
    assert_eq!(push(15, Some(14), one("eni-4", known(4))).await, Err(TableFailure::Missing), "it follows what could not be read");
}
