//! What EC2's actions make of network interfaces, which nobody makes through them: interfaces are put into the store as the control
//! plane does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_control::{Clock, Control, Entropy, Environment};
use berth_identity::StaticKeys;
use berth_model::arn::Scope;
use berth_model::ids::TaskId;
use berth_model::time::UnixMillis;
use berth_model::vpc::network_interface::{AttachmentStatus, InterfaceAttachment};
use berth_model::vpc::{NetworkInterface, NetworkInterfaceId, SecurityGroupId, SubnetId};
use berth_registry::Registry;
use berth_shapes::ec2::{
    CreateSecurityGroupRequest, DeleteSecurityGroupRequest, DeleteSubnetRequest, DeleteVpcRequest, DescribeNetworkInterfacesRequest,
    DescribeSubnetsRequest, Filter,
};
use berth_store::{Memory, Store, Transaction};

use super::{make_default_vpc, network_interfaces, security_groups, subnets, vpcs};
use crate::context::{Api, ApiConfig, ApiParts};
use crate::failure::Failure;

/// Every call gives another number; the time stands.
#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn bits(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed)) << 32 | 0xabc
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }
}

/// An API over a store in memory, with the default VPC.
struct World {
    api: Api,
    /// The image registry's.
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scope = Scope { region: "us-east-1".into(), account: "000000000000".into() };
        let environment = Environment { clock: Arc::new(Still), entropy: Arc::new(Counting::default()), scope };
        let store = Store::open_inline(Memory).unwrap();
        make_default_vpc(&store, &environment.scope).await.unwrap();
        let before = store.state().revision;
        make_default_vpc(&store, &environment.scope).await.unwrap();
        assert_eq!(store.state().revision, before, "there is one: nothing is written");
        let control = Control::start(store.clone(), environment.clone(), Default::default()).await.unwrap();
        let api = Api::new(ApiParts {
            store,
            control,
            environment,
            keys: StaticKeys::new([]),
            registry: Registry::open(folder.path().join("registry")).unwrap(),
            config: ApiConfig { endpoint: "http://server".to_owned(), max_connections: 1, throttles: Vec::new() },
            metrics: Default::default(),
        });
        Self { api, _folder: folder }
    }

    fn subnet(&self) -> SubnetId {
        self.api.store.state().vpc_resources().subnets().next().unwrap().id
    }

    /// A task's interface.
    async fn add(&self, number: u128, groups: &[SecurityGroupId]) -> NetworkInterface {
        let (mut transaction, subnet) = (Transaction::new(), self.subnet());
        let attach = |interface: &mut NetworkInterface| {
            interface.attachment = Some(InterfaceAttachment {
                id: "eni-attach-0000000000000000a".to_owned(),
                instance: Some("i-0123".to_owned()),
                task: Some(TaskId(7)),
                device_index: 1,
                status: AttachmentStatus::Attached,
                attached_at: UnixMillis(1_700_000_000_000),
                delete_on_termination: true,
            });
        };
        let id = NetworkInterfaceId::from_random(number);
        let made = self.api.store.state().vpc_resources().add_interface(&mut transaction, id, subnet, groups, "of a task", attach).unwrap();
        self.api.store.commit(transaction).await.unwrap();
        made
    }

    async fn remove(&self, interface: &NetworkInterface) {
        let mut transaction = Transaction::new();
        self.api.store.state().vpc_resources().remove_interface(&mut transaction, interface.id);
        self.api.store.commit(transaction).await.unwrap();
    }

    async fn group(&self, name: &str) -> SecurityGroupId {
        let (group_name, description) = (Some(name.to_owned()), Some("a group".to_owned()));
        let request = CreateSecurityGroupRequest { group_name, description, ..Default::default() };
        security_groups::create(&self.api, request).await.unwrap().group_id.unwrap().parse().unwrap()
    }

    async fn delete_group(&self, id: SecurityGroupId) -> Result<(), Failure> {
        let request = DeleteSecurityGroupRequest { group_id: Some(id.to_string()), ..Default::default() };
        security_groups::delete(&self.api, request).await.map(drop)
    }

    async fn found(&self, name: &str, value: &str) -> Vec<String> {
        let filter = Filter { name: Some(name.to_owned()), values: Some(vec![value.to_owned()]) };
        let request = DescribeNetworkInterfacesRequest { filters: Some(vec![filter]), ..Default::default() };
        let found = network_interfaces::describe(&self.api, request).await.unwrap();
        found.network_interfaces.unwrap().into_iter().map(|one| one.network_interface_id.unwrap()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.api.control.stop();
    }
}

#[tokio::test]
async fn a_tasks_interface_is_shown_with_all_that_clients_read() {
    let world = World::new().await;
    let group = world.group("web").await;
    let made = world.add(1, &[group]).await;
    let other = world.add(2, &[]).await;
    let request = DescribeNetworkInterfacesRequest { network_interface_ids: Some(vec![made.id.to_string()]), ..Default::default() };
    let [shown] = network_interfaces::describe(&world.api, request).await.unwrap().network_interfaces.unwrap().try_into().unwrap();
    assert_eq!(shown.private_ip_address, Some(made.private_address.to_string()));
    assert_eq!(shown.mac_address, Some(made.mac_address.to_string()));
    assert_eq!((shown.status.unwrap().as_str(), shown.interface_type.unwrap().as_str()), ("in-use", "interface"));
    assert_eq!(shown.groups.unwrap()[0].group_name.as_deref(), Some("web"));
    let [a, b, c, d] = made.private_address.octets();
    assert_eq!(shown.private_dns_name, Some(format!("ip-{a}-{b}-{c}-{d}.ec2.internal")));
    let attachment = shown.attachment.unwrap();
    assert_eq!((attachment.instance_id.as_deref(), attachment.device_index), (Some("i-0123"), Some(1)));
    assert_eq!(attachment.status.unwrap().as_str(), "attached");
    for (name, value) in [
        ("group-id", group.to_string()),
        ("group-name", "web".to_owned()),
        ("private-ip-address", made.private_address.to_string()),
        ("addresses.private-ip-address", made.private_address.to_string()),
        ("mac-address", made.mac_address.to_string()),
        ("network-interface-id", made.id.to_string()),
    ] {
        assert_eq!(world.found(name, &value).await, [made.id.to_string()], "{name}");
    }
    let both = [made.id.to_string(), other.id.to_string()];
    let default_vpc = made.vpc.to_string();
    for (name, value) in [
        ("attachment.instance-id", "i-0123"),
        ("attachment.status", "attached"),
        ("attachment.device-index", "1"),
        ("description", "of a task"),
        ("status", "in-use"),
        ("vpc-id", &default_vpc),
        ("requester-managed", "false"),
    ] {
        assert_eq!(world.found(name, value).await, both, "{name}");
    }
    assert!(world.found("status", "available").await.is_empty());
}

#[tokio::test]
async fn what_an_interface_has_is_not_deleted_and_its_address_is_counted() {
    let world = World::new().await;
    let (group, subnet) = (world.group("web").await, world.subnet());
    let free = async || {
        let request = DescribeSubnetsRequest { subnet_ids: Some(vec![subnet.to_string()]), ..Default::default() };
        subnets::describe(&world.api, request).await.unwrap().subnets.unwrap()[0].available_ip_address_count
    };
    assert_eq!(free().await, Some(4_091));
    let interface = world.add(1, &[group]).await;
    assert_eq!(free().await, Some(4_090));
    let before = world.api.store.state().revision;
    let code = |outcome: Result<(), Failure>| outcome.unwrap_err().code;
    assert_eq!(code(world.delete_group(group).await), "DependencyViolation");
    let delete_subnet = async || {
        let request = DeleteSubnetRequest { subnet_id: Some(subnet.to_string()), ..Default::default() };
        subnets::delete(&world.api, request).await.map(drop)
    };
    assert_eq!(code(delete_subnet().await), "DependencyViolation");
    let request = DeleteVpcRequest { vpc_id: Some(interface.vpc.to_string()), ..Default::default() };
    assert_eq!(code(vpcs::delete(&world.api, request).await.map(drop)), "DependencyViolation");
    assert_eq!(world.api.store.state().revision, before, "a refusal changes nothing");
    world.remove(&interface).await;
    assert_eq!(free().await, Some(4_091));
    world.delete_group(group).await.unwrap();
    delete_subnet().await.unwrap();
}
