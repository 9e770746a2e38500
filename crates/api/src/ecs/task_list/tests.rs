//! Tasks of all kinds, written both ways. What is written piece by piece must be what serde writes of the shapes, byte for byte.

use std::sync::Arc;

use berth_model::container_instance::ContainerInstance;
use berth_model::ids::{AttachmentId, CapacityProviderName, ContainerId, ContainerInstanceId, DeploymentId, Family, ServiceName, TaskId};
use berth_model::needs::Demand;
use berth_model::record::Record;
use berth_model::task::{
    ContainerStatus, DesiredStatus, HealthStatus, LaunchType, NetworkBinding, ServiceMembership, StopCode, TaskStatus,
};
use berth_model::task_interface::{AttachmentStatus, TaskInterface};
use berth_model::vpc::network_interface::MacAddress;
use berth_model::vpc::{NetworkInterfaceId, SubnetId};
use berth_store::backend::Memory;
use berth_store::{Store, Transaction};
use serde_json::json;

use super::*;

/// One seed, one list of choices.
struct Dice(u64);

impl Dice {
    /// SplitMix64.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len() as u64);
        of[usize::try_from(at).unwrap()].clone()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flip().then(|| make(self))
    }

    fn some<T>(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..=self.below(most)).map(|_| make(self)).collect()
    }

    fn text(&mut self) -> String {
        let parts = ["web", "", "\"", "\\", "/", "ü", "船", "🛳", "\n", "\t", "\u{1}", "\u{1f}", "\u{7f}", "\u{2028}", "a b", "{}", "<&>"];
        self.some(5, |dice| dice.one(&parts)).concat()
    }

    fn bits(&mut self) -> u128 {
        u128::from(self.roll()) << 64 | u128::from(self.roll())
    }

    fn time(&mut self) -> UnixMillis {
        let zeros = self.one(&[1, 10, 100, 1_000]);
        UnixMillis(i64::try_from(self.below(4_000_000_000_000)).unwrap() / zeros * zeros)
    }

    fn number(&mut self) -> i32 {
        self.one(&[0, 1, 128, 4_096, i32::MAX, -1])
    }
}

const NAMES: [&str; 3] = ["web", "side\"car", "log"];

fn definition(dice: &mut Dice, family: &str) -> TaskDefinition {
    let containers = NAMES.map(|name| {
        json!({
            "name": name, "image": "busybox", "cpu": dice.maybe(Dice::number), "memory": dice.maybe(Dice::number),
            "memoryReservation": dice.maybe(Dice::number), "essential": dice.maybe(Dice::flip),
            "healthCheck": dice.maybe(|_| json!({"command": ["true"]})),
        })
    });
    let document = json!({
        "containerDefinitions": containers,
        "cpu": dice.maybe(|dice| dice.one(&["256", ".5 vCPU", "m\"any"])), "memory": dice.maybe(|dice| dice.one(&["512", "1 GB", "m\\uch"])),
        "runtimePlatform": dice.maybe(|dice| json!({"cpuArchitecture": dice.one(&["ARM64", "X86_64", "RISCV"])})),
    });
    let id = DefinitionId { family: Family(family.into()), revision: u32::try_from(dice.below(10)).unwrap() };
    serde_json::from_value(json!({
        "id": id, "status": "ACTIVE", "registered_at": 0, "registered_by": "me", "deregistered_at": null, "tags": {},
        "document": document,
        "needs": {"demand": {"cpu": 0, "memory": 0}, "task_cpu": null, "task_memory": null, "attributes": []},
    }))
    .unwrap()
}

fn instance(dice: &mut Dice, cluster: &ClusterName) -> ContainerInstance {
    serde_json::from_value(json!({
        "id": ContainerInstanceId(dice.bits()), "cluster": cluster, "ec2_instance_id": null, "status": "ACTIVE", "status_reason": null,
        "agent_connected": dice.flip(), "connection": 0,
        "registered": {"cpu": 1, "memory": 1, "ports_tcp": [], "ports_udp": []}, "attributes": {}, "registered_at": 0,
        "agent": {"agent_version": null, "agent_hash": null, "docker_version": null}, "tags": {},
    }))
    .unwrap()
}

fn container(dice: &mut Dice, name: &str) -> Container {
    Container {
        id: ContainerId(dice.bits()),
        name: name.into(),
        image: dice.text().into(),
        last_status: dice.one(&[ContainerStatus::Pending, ContainerStatus::Running, ContainerStatus::Stopped]),
        exit_code: dice.maybe(Dice::number),
        reason: dice.maybe(Dice::text),
        runtime_id: dice.maybe(Dice::text),
        image_digest: dice.maybe(|dice| dice.text().into()),
        network_bindings: dice.maybe(|dice| dice.some(2, binding)).unwrap_or_default(),
        gpu_ids: dice.maybe(|dice| dice.some(2, Dice::text)).unwrap_or_default(),
        health_status: dice.one(&[HealthStatus::Healthy, HealthStatus::Unhealthy, HealthStatus::Unknown]),
    }
}

fn binding(dice: &mut Dice) -> NetworkBinding {
    let (container_port, host_port) = (dice.one(&[0, 80, u16::MAX]), dice.one(&[0, 8080, u16::MAX]));
    let (following, protocol) = (dice.one(&[0, 0, 10]), dice.one(&["tcp".to_owned(), "udp".to_owned()]));
    NetworkBinding { bind_ip: dice.text(), container_port, host_port, following, protocol }
}

fn overrides(dice: &mut Dice) -> ecs::TaskOverride {
    serde_json::from_value(json!({
        "containerOverrides": dice.maybe(|dice| dice.some(3, |dice| json!({
            "name": dice.one(&NAMES), "command": dice.maybe(|dice| dice.some(2, Dice::text)), "cpu": dice.maybe(Dice::number),
            "environment": dice.maybe(|dice| json!([{"name": dice.text(), "value": dice.text()}])),
            "memory": dice.maybe(Dice::number), "memoryReservation": dice.maybe(Dice::number),
        }))),
        "cpu": dice.maybe(|dice| dice.one(&["512", "1 vcpu"])), "memory": dice.maybe(|dice| dice.one(&["1024", "2GB"])),
        "taskRoleArn": dice.maybe(Dice::text), "ephemeralStorage": dice.maybe(|_| json!({"sizeInGiB": 21})),
    }))
    .unwrap()
}

fn interface(dice: &mut Dice) -> TaskInterface {
    let address = std::net::Ipv4Addr::from(u32::try_from(dice.below(u64::from(u32::MAX))).unwrap());
    let interface = NetworkInterfaceId::from_random(dice.bits());
    TaskInterface {
        attachment: AttachmentId(dice.bits()),
        status: dice.one(&[AttachmentStatus::Precreated, AttachmentStatus::Attached, AttachmentStatus::Deleted]),
        interface,
        subnet: SubnetId::from_random(dice.bits()),
        subnet_cidr: "10.0.0.0/24".parse().unwrap(),
        private_address: address,
        mac_address: MacAddress::of(interface, address),
        private_dns_name: dice.maybe(Dice::text),
        public_address: dice.maybe(|dice| std::net::Ipv4Addr::from(u32::try_from(dice.below(u64::from(u32::MAX))).unwrap())),
        groups: Vec::new(),
    }
}

fn task(dice: &mut Dice, cluster: &ClusterName, definition: DefinitionId, container_instance: ContainerInstanceId) -> Task {
    let last = ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"];
    let of_service =
        |dice: &mut Dice| ServiceMembership { service: ServiceName("web".into()), deployment: DeploymentId(dice.below(u64::MAX)) };
    let containers = dice.below(4);
    Task {
        id: TaskId(dice.bits()),
        cluster: cluster.clone(),
        definition,
        container_instance,
        group: dice.text().into(),
        started_by: dice.maybe(|dice| dice.text().into()),
        service: dice.maybe(of_service),
        launch_type: dice.one(&[LaunchType::Ec2, LaunchType::Fargate, LaunchType::External]),
        capacity_provider: dice.maybe(|dice| CapacityProviderName(dice.text().into())),
        availability_zone: dice.maybe(|dice| dice.text().into()),
        demand: Demand { cpu: u32::MAX, memory: 7, ..Demand::default() },
        interface: dice.maybe(|dice| Box::new(interface(dice))),
        desired_status: dice.one(&[DesiredStatus::Running, DesiredStatus::Stopped]),
        last_status: TaskStatus::parse(dice.one(&last)).unwrap(),
        containers: NAMES.iter().take(usize::try_from(containers).unwrap()).map(|name| container(dice, name)).collect(),
        overrides: dice.maybe(|dice| Box::new(overrides(dice))),
        tags: dice.maybe(|dice| dice.some(3, |dice| (dice.text(), dice.text())).into_iter().collect()).unwrap_or_default(),
        enable_execute_command: dice.flip(),
        client_token: None,
        connected_at: dice.maybe(Dice::time),
        created_at: dice.time(),
        pull_started_at: dice.maybe(Dice::time),
        pull_stopped_at: dice.maybe(Dice::time),
        started_at: dice.maybe(Dice::time),
        stopping_at: dice.maybe(Dice::time),
        execution_stopped_at: dice.maybe(Dice::time),
        stopped_at: dice.maybe(Dice::time),
        protected_until: dice.maybe(Dice::time),
        stop_code: dice.maybe(|dice| dice.one(&[StopCode::TaskFailedToStart, StopCode::UserInitiated, StopCode::SpotInterruption])),
        stopped_reason: dice.maybe(Dice::text),
    }
}

#[test]
fn a_list_is_what_serde_writes_of_the_shapes() {
    for seed in 0..500 {
        let dice = &mut Dice(seed);
        let scope = Scope { region: dice.one(&["us-east-1", "eu\"x"]).into(), account: "000000000000".into() };
        let cluster = ClusterName(dice.one(&["default", "a\"b\\c", ":cluster/"]).into());
        let definitions = [definition(dice, "web"), definition(dice, "ü\"")];
        let instance = instance(dice, &cluster);
        let mut transaction = Transaction::new();
        let tasks = dice.some(6, |dice| {
            let unknown = DefinitionId { family: Family("gone".into()), revision: 1 };
            let definition = dice.one(&[definitions[0].id.clone(), definitions[1].id.clone(), unknown]);
            let on = dice.one(&[instance.id, ContainerInstanceId(7)]);
            task(dice, &cluster, definition, on)
        });
        for task in &tasks {
            transaction.put(Record::Task(Arc::new(task.clone())));
        }
        for definition in definitions {
            transaction.put(Record::TaskDefinition(Arc::new(definition)));
        }
        transaction.put(Record::ContainerInstance(Arc::new(instance)));
        let store = Store::open_inline(Memory).unwrap();
        store.commit_blocking(transaction).unwrap();

        let state = store.state();
        let with_tags = dice.flip();
        let failures = dice.maybe(|dice| vec![render::missing(dice.text())]).unwrap_or_default();
        let mut list = TaskList::begin(&state, &scope, &cluster, with_tags, 1);
        let entries: Vec<_> = tasks.iter().map(|task| state.task(task.id).unwrap()).collect();
        entries.iter().for_each(|entry| list.push(entry).unwrap());
        let written = String::from_utf8(list.end(&failures).unwrap().to_vec()).unwrap();

        let shown = entries.iter().map(|entry| render::task(&state, &scope, entry, with_tags)).collect();
        let expected = ecs::DescribeTasksResponse { tasks: Some(shown), failures: Some(failures) };
        assert_eq!(written, serde_json::to_string(&expected).unwrap(), "seed {seed}");
    }
}

#[test]
fn an_empty_list_is_one_too() {
    let store = Store::open_inline(Memory).unwrap();
    let state = store.state();
    let scope = Scope { region: "us-east-1".into(), account: "000000000000".into() };
    let list = TaskList::begin(&state, &scope, &ClusterName("default".into()), false, 0);
    assert_eq!(&*list.end(&[]).unwrap(), br#"{"tasks":[],"failures":[]}"#);
}
