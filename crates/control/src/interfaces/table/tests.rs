//! The table is kept up at the cost of what changes, and is what it would be if it were made anew.

use std::net::Ipv4Addr;

use berth_model::arn::Scope;
use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus, HOST_IPV4};
use berth_model::ids::{AttachmentId, ClusterName, ContainerInstanceId, DefinitionId, Family, TaskId};
use berth_model::task::Task;
use berth_model::task_interface::{AttachmentStatus, TaskInterface};
use berth_model::time::UnixMillis;
use berth_model::vpc::Subnet;
use berth_model::vpc::default_vpc::default_vpc;
use berth_model::vpc::network_interface::{AttachmentStatus as InterfaceStatus, InterfaceAttachment, MacAddress};
use berth_model::vpc::security_group::SecurityGroupRule;
use berth_model::vpc::{Ipv4Cidr, SecurityGroupRuleId};
use berth_store::Transaction;
use berth_store::backend::Memory;
use proptest::prelude::*;

use super::*;

fn cluster() -> ClusterName {
    ClusterName::parse("c").expect("a name")
}

pub(in crate::interfaces) fn instance(number: u8, address: u8) -> ContainerInstance {
    ContainerInstance {
        id: ContainerInstanceId(number.into()),
        cluster: cluster(),
        ec2_instance_id: None,
        private_address: None,
        status: ContainerInstanceStatus::Active,
        status_reason: None,
        agent_connected: true,
        connection: 0,
        away: None,
        registered: Default::default(),
        attributes: [(HOST_IPV4.into(), Some(format!("192.0.2.{address}")))].into_iter().collect(),
        registered_at: UnixMillis(0),
        agent: Default::default(),
        tags: Default::default(),
    }
}

fn group_id(number: u8) -> SecurityGroupId {
    SecurityGroupId::from_random(u128::from(number))
}

fn group(subnet: &Subnet, number: u8, port: u8) -> SecurityGroup {
    let traffic = Traffic::parse("tcp", Some(port.into()), Some(port.into())).expect("a protocol");
    let peer = Peer::Ipv4(Ipv4Cidr::containing(Ipv4Addr::UNSPECIFIED, 0).expect("all of them"));
    let permission = Permission { direction: Direction::Ingress, traffic, peer };
    let rule = SecurityGroupRule { id: SecurityGroupRuleId::from_random(1), permission, description: None, tags: Default::default() };
    let (id, name) = (group_id(number), format!("g{number}"));
    SecurityGroup { id, vpc: subnet.vpc, name, description: String::new(), rules: vec![rule], tags: Default::default() }
}

fn interface_id(number: u8) -> NetworkInterfaceId {
    NetworkInterfaceId::from_random(u128::from(number))
}

/// An interface of a task of its own, on this container instance.
fn interface(subnet: &Subnet, number: u8, on: u8, groups: &[u8]) -> (Task, NetworkInterface) {
    let (id, task) = (interface_id(number), TaskId(number.into()));
    let private_address = Ipv4Addr::from(u32::from(subnet.cidr.first()) + 10 + u32::from(number));
    let groups: Vec<_> = groups.iter().copied().map(group_id).collect();
    let mac_address = MacAddress::of(id, private_address);
    let one = NetworkInterface {
        id,
        vpc: subnet.vpc,
        subnet: subnet.id,
        private_address,
        public_address: None,
        mac_address,
        groups: groups.clone(),
        description: String::new(),
        interface_type: "interface".into(),
        requester: None,
        requester_managed: true,
        attachment: Some(InterfaceAttachment {
            id: String::new(),
            instance: None,
            task: Some(task),
            device_index: 1,
            status: InterfaceStatus::Attached,
            attached_at: UnixMillis(1),
            delete_on_termination: true,
        }),
        tags: Default::default(),
    };
    let definition = DefinitionId { family: Family::parse("web").expect("a family"), revision: 1 };
    let placed = Task::placed(task, cluster(), definition, "family:web".into(), ContainerInstanceId(on.into()), UnixMillis(1));
    let own = TaskInterface {
        attachment: AttachmentId(1),
        status: AttachmentStatus::Precreated,
        interface: id,
        subnet: subnet.id,
        subnet_cidr: subnet.cidr,
        private_address,
        mac_address,
        private_dns_name: None,
        public_address: None,
        groups,
    };
    (Task { interface: Some(Box::new(own)), ..placed }, one)
}

/// What may happen in a commit.
#[derive(Debug, Clone)]
enum Step {
    Give(u8, u8, Vec<u8>),
    TakeBack(u8),
    SetGroup(u8, u8),
    RemoveGroup(u8),
    Register(u8, u8),
    Deregister(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8, 0..3_u8, prop::collection::vec(0..4_u8, 0..3)).prop_map(|(number, on, groups)| Step::Give(number, on, groups)),
        2 => (0..6_u8).prop_map(Step::TakeBack),
        2 => (0..4_u8, 0..3_u8).prop_map(|(number, port)| Step::SetGroup(number, port)),
        1 => (0..4_u8).prop_map(Step::RemoveGroup),
        2 => (0..3_u8, 1..4_u8).prop_map(|(number, address)| Step::Register(number, address)),
        1 => (0..3_u8).prop_map(Step::Deregister),
    ]
}

fn commit(store: &Store, steps: &[Step]) {
    let subnet = Subnet::clone(&store.state().vpc_resources().subnets().next().expect("the default VPC has some").value);
    let vpc_resource = |id: ResourceId| Key::VpcResource(id);
    let mut transaction = Transaction::new();
    for step in steps {
        match step {
            Step::Give(number, on, groups) => {
                let (task, one) = interface(&subnet, *number, *on, groups);
                transaction.put(task).put(one);
            }
            Step::TakeBack(number) => drop(transaction.delete(vpc_resource(ResourceId::NetworkInterface(interface_id(*number))))),
            Step::SetGroup(number, port) => drop(transaction.put(group(&subnet, *number, *port))),
            Step::RemoveGroup(number) => drop(transaction.delete(vpc_resource(ResourceId::SecurityGroup(group_id(*number))))),
            Step::Register(number, address) => drop(transaction.put(instance(*number, *address))),
            Step::Deregister(number) => drop(transaction.delete(Key::ContainerInstance(ContainerInstanceId((*number).into())))),
        }
    }
    store.commit_blocking(transaction).expect("it is taken");
}

fn store() -> Store {
    let store = Store::open_inline(Memory).expect("a store in memory");
    let mut transaction = Transaction::new();
    for resource in default_vpc(&Scope { region: "us-east-1".into(), account: "000000000000".into() }) {
        transaction.put(Record::VpcResource(resource));
    }
    store.commit_blocking(transaction).expect("it is taken");
    store
}

fn from_nothing(state: &State) -> Known {
    let mut known = Known::default();
    let dirty = Dirty::all(state, &known);
    drop(known.update(state, dirty));
    known
}

/// As an agent does it.
fn merge(table: &mut Value, changes: &Value) {
    for (kind, changes) in changes.as_object().expect("an object") {
        let table = table[kind].as_object_mut().expect("an object");
        for (id, change) in changes.as_object().expect("an object") {
            match change {
                Value::Null => assert!(table.remove(id).is_some(), "{id} was never there"),
                value => assert_ne!(table.insert(id.clone(), value.clone()).as_ref(), Some(value), "{id} is as it was"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_kept_up_is_what_would_be_made_anew_and_changes_lead_to_it(
        commits in prop::collection::vec(prop::collection::vec(step(), 1..4), 0..24),
    ) {
        let store = store();
        let mut watcher = store.watch(store.state().revision);
        let mut known = Known::default();
        let mut told = known.table();
        for (number, steps) in commits.iter().enumerate() {
            commit(&store, steps);
            // Now and then several are looked at together.
            if number % 3 == 1 {
                continue;
            }
            let mut dirty = Dirty::default();
            let state = store.state();
            for seen in watcher.poll().expect("it is not behind") {
                seen.changes.iter().for_each(|change| dirty.note(change, &state, &known));
            }
            let changes = known.update(&state, dirty);
            prop_assert_eq!(&known, &from_nothing(&state));
            changes.iter().for_each(|changes| merge(&mut told, changes));
            prop_assert_eq!(&told, &known.table());
            let again = Dirty::all(&state, &known);
            prop_assert_eq!(known.update(&state, again), None, "a look at everything finds nothing more");
        }
    }
}

#[test]
fn one_interface_of_many_is_told_alone() {
    let store = store();
    commit(&store, &[Step::Register(1, 1), Step::SetGroup(1, 80), Step::SetGroup(2, 81)]);
    let all: Vec<_> = (0..100).map(|number| Step::Give(number, 1, vec![1])).collect();
    commit(&store, &all);
    let mut known = from_nothing(&store.state());
    assert_eq!((known.interfaces.len(), known.groups.len()), (100, 1), "a group that nobody has judges nobody");
    let mut watcher = store.watch(store.state().revision);
    commit(&store, &[Step::Give(100, 1, vec![1])]);
    let mut dirty = Dirty::default();
    let seen = watcher.poll().expect("it is not behind");
    seen[0].changes.iter().for_each(|change| dirty.note(change, &store.state(), &known));
    let changes = known.update(&store.state(), dirty).expect("one came");
    assert_eq!(changes["interfaces"].as_object().map(Map::len), Some(1));
    assert_eq!(changes["groups"], json!({}));
    assert_eq!(changes["interfaces"][interface_id(100).to_string()]["instance"], "192.0.2.1");
}

#[test]
fn traffic_is_told_as_machines_read_it() {
    let told = |protocol: &str, from: i32, to: i32| traffic(Traffic::parse(protocol, Some(from), Some(to)).expect("a protocol"));
    assert_eq!(told("-1", 0, 0), json!("all"));
    assert_eq!(told("tcp", 80, 90), json!({"tcp": [80, 90]}));
    assert_eq!(told("udp", 53, 53), json!({"udp": [53, 53]}));
    assert_eq!(told("icmp", 8, -1), json!({"icmp": {"kind": 8, "code": null}}));
    assert_eq!(told("icmpv6", -1, -1), json!({"icmpv6": {"kind": null, "code": null}}));
    assert_eq!(told("47", 1, 1), json!({"other": 47}));
}
