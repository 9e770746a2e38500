//! Registration plans and DNS tables: what they are in cases, and what holds of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use berth_model::discovery::{
    CNAME, CustomHealth, DiscoveryInstance, DiscoveryService, DiscoveryServiceId, DnsSettings, INIT_HEALTH, IPV4, MAX_INSTANCES, PORT,
    RecordSetting, RecordType,
};
use berth_model::dns::{DnsAnswer, DnsRecord, Routing};
use berth_model::ids::{ClusterName, ContainerId, ContainerInstanceId, DefinitionId, Family, ServiceName, TaskId};
use berth_model::namespace::{HostedZone, Namespace, NamespaceId, NamespaceKind, OperationId};
use berth_model::task::{Container, DesiredStatus, HealthStatus, NetworkBinding, Task, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::discovery::{
    DiscoveryServiceView, NamespaceView, Plan, Refusal, Registry, TaskView, View, dns_table, is_ending, plan,
};
use proptest::prelude::*;

const NOW: UnixMillis = UnixMillis(1_000);

fn registry_id(number: u128) -> DiscoveryServiceId {
    DiscoveryServiceId::from_bits(number)
}

fn discovery_service(number: u128, kinds: &[RecordType], has_custom_health: bool) -> DiscoveryService {
    let records = kinds.iter().map(|kind| RecordSetting { kind: *kind, ttl_seconds: 10 }).collect();
    DiscoveryService {
        id: registry_id(number),
        name: format!("Api{number}"),
        namespace: NamespaceId::from_bits(1),
        description: None,
        dns: (!kinds.is_empty()).then_some(DnsSettings { routing: Routing::Multivalue, records }),
        has_custom_health,
        attributes: BTreeMap::new(),
        creator_request_id: None,
        tags: BTreeMap::new(),
        created_at: UnixMillis(1),
    }
}

fn task(number: u128, desired: DesiredStatus, last: TaskStatus) -> Task {
    let cluster = ClusterName::parse("home").unwrap();
    let definition = DefinitionId { family: Family::parse("web").unwrap(), revision: 1 };
    let mut container = Container::pending(ContainerId(number), "main".into(), "web".into());
    let host_port = 32_768 + u16::try_from(number).unwrap();
    let bind = |protocol: &str, host_port| NetworkBinding {
        bind_ip: "0.0.0.0".into(),
        container_port: 80,
        host_port,
        protocol: protocol.into(),
        following: 0,
    };
    container.network_bindings = vec![bind("udp", 9), bind("tcp", host_port)];
    let placed = Task::placed(TaskId(number), cluster, definition, "service:web".into(), ContainerInstanceId(1), UnixMillis(1));
    Task { containers: vec![container], desired_status: desired, last_status: last, availability_zone: Some("a".into()), ..placed }
}

fn running(number: u128) -> Task {
    task(number, DesiredStatus::Running, TaskStatus::Running)
}

fn name() -> ServiceName {
    ServiceName::parse("web").unwrap()
}

fn seen<'a>(task: &'a Task, service: &'a ServiceName, registry: u128) -> TaskView<'a> {
    TaskView {
        task,
        service,
        registry: Registry { service: registry_id(registry), port: None, container: Some(("main".into(), 80)) },
        address: Some(Ipv4Addr::new(10, 0, 0, 7)),
        has_own_interface: false,
        health: None,
        ec2_instance_id: Some("i-1"),
        is_reachable: true,
    }
}

type Instances = BTreeMap<(DiscoveryServiceId, String), DiscoveryInstance>;

fn view<'a>(tasks: Vec<TaskView<'a>>, services: &'a [DiscoveryService], instances: &'a Instances) -> View<'a> {
    View {
        tasks,
        services: services.iter().map(|service| (service.id.clone(), service)).collect(),
        instances: instances.iter().map(|(key, instance)| (key.clone(), instance)).collect(),
        region: "eu-west-1",
    }
}

fn apply(instances: &mut Instances, plan: &Plan) {
    for key in &plan.remove {
        assert!(instances.remove(key).is_some(), "{key:?} is removed and was not there");
    }
    for instance in &plan.put {
        instances.insert((instance.service.clone(), instance.id.clone()), instance.clone());
    }
}

#[test]
fn a_running_task_is_registered_with_ecs_attributes_until_it_is_to_stop() {
    let (services, service) = ([discovery_service(1, &[RecordType::Srv], true)], name());
    let (mut instances, mut task) = (Instances::new(), task(3, DesiredStatus::Running, TaskStatus::Pending));
    assert_eq!(plan(&view(vec![seen(&task, &service, 1)], &services, &instances), NOW), Plan::default(), "it does not run yet");
    task.last_status = TaskStatus::Running;
    let first = plan(&view(vec![seen(&task, &service, 1)], &services, &instances), NOW);
    let [made] = &first.put[..] else { panic!("{first:?}") };
    assert_eq!((made.id.as_str(), made.health), ("00000000000000000000000000000003", Some(CustomHealth::Healthy)));
    let expected = [
        ("AVAILABILITY_ZONE", "a"),
        (INIT_HEALTH, "HEALTHY"),
        (IPV4, "10.0.0.7"),
        (PORT, "32771"),
        ("EC2_INSTANCE_ID", "i-1"),
        ("ECS_CLUSTER_NAME", "home"),
        ("ECS_SERVICE_NAME", "web"),
        ("ECS_TASK_DEFINITION_FAMILY", "web"),
        ("REGION", "eu-west-1"),
    ];
    let attributes: Vec<_> = made.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(attributes, expected);
    apply(&mut instances, &first);
    assert!(!is_ending(&first.put[0], Some(&task)));
    task.desired_status = DesiredStatus::Stopped;
    assert!(is_ending(&first.put[0], Some(&task)) && is_ending(&first.put[0], None));
    let last = plan(&view(vec![seen(&task, &service, 1)], &services, &instances), NOW);
    assert_eq!((last.put.len(), last.remove.len()), (0, 1), "it still runs, and is gone from Cloud Map");
    assert_eq!(plan(&view(Vec::new(), &services, &instances), NOW).remove, last.remove, "so it is when nobody knows the task any more");
}

#[test]
fn health_follows_the_containers_and_is_somebody_elses_without_checks() {
    let (services, service, task) = ([discovery_service(1, &[RecordType::Srv], true)], name(), running(1));
    let mut instances = Instances::new();
    for (health, expected) in [
        (Some(HealthStatus::Unknown), CustomHealth::Unhealthy),
        (Some(HealthStatus::Healthy), CustomHealth::Healthy),
        (Some(HealthStatus::Unhealthy), CustomHealth::Unhealthy),
        (None, CustomHealth::Unhealthy),
    ] {
        let plan = plan(&view(vec![TaskView { health, ..seen(&task, &service, 1) }], &services, &instances), NOW);
        apply(&mut instances, &plan);
        let instance = instances.values().next().unwrap();
        assert_eq!((instance.health, instance.attributes[INIT_HEALTH].as_str()), (Some(expected), "UNHEALTHY"), "{health:?}");
    }
}

#[test]
fn what_cannot_be_registered_is_said_once_for_all_its_tasks() {
    let (services, service) = ([discovery_service(1, &[RecordType::Srv], false), discovery_service(2, &[], false)], name());
    let (one, other) = (running(1), running(2));
    let instances = Instances::new();
    let refusals = |change: &dyn Fn(TaskView<'_>) -> TaskView<'_>, registry| -> Vec<Refusal> {
        let tasks = [&one, &other].map(|task| change(seen(task, &service, registry))).to_vec();
        plan(&view(tasks, &services, &instances), NOW).refused.into_iter().map(|refused| refused.refusal).collect()
    };
    assert_eq!(refusals(&|task| task, 1), []);
    assert_eq!(refusals(&|task| TaskView { address: None, ..task }, 1), [Refusal::NoAddress]);
    assert_eq!(refusals(&|task| task, 9), [Refusal::NoService]);
    let elsewhere = Registry { service: registry_id(1), port: None, container: Some(("main".into(), 81)) };
    assert_eq!(refusals(&|task| TaskView { registry: elsewhere.clone(), ..task }, 1), [Refusal::NoPort]);
    assert_eq!(refusals(&|task| TaskView { registry: elsewhere.clone(), has_own_interface: true, ..task }, 1), []);
    let without = |id| Registry { service: registry_id(id), port: None, container: None };
    assert_eq!(refusals(&|task| TaskView { registry: without(1), ..task }, 1), [Refusal::NoPort]);
    assert_eq!(refusals(&|task| TaskView { registry: without(2), ..task }, 2), [], "where nobody asks for a port");
    assert_eq!(refusals(&|task| TaskView { is_reachable: false, ..task }, 1), []);
}

#[test]
fn a_registry_takes_no_more_than_it_can_hold() {
    let (services, service) = ([discovery_service(1, &[RecordType::Srv], false)], name());
    let tasks: Vec<_> = (0..u128::try_from(MAX_INSTANCES).unwrap() + 2).map(running).collect();
    let mut instances = Instances::new();
    let first = plan(&view(tasks.iter().map(|task| seen(task, &service, 1)).collect(), &services, &instances), NOW);
    assert_eq!((first.put.len(), first.refused.len()), (MAX_INSTANCES, 1));
    apply(&mut instances, &first);
    assert!(plan(&view(tasks.iter().map(|task| seen(task, &service, 1)).collect(), &services, &instances), NOW).is_empty());
}

/// Registry, whether it is to run, how far it is, whether its machine can be reached, whether it has an address, its health.
type AnyTask = (u128, bool, u8, bool, bool, Option<u8>);

prop_compose! {
    fn any_task()(
        registry in 1..4_u128, desired in any::<bool>(), last in 0..3_u8, reachable in any::<bool>(), address in any::<bool>(),
        health in prop::option::of(0..3_u8),
    ) -> AnyTask {
        (registry, desired, last, reachable, address, health)
    }
}

proptest! {
    /// Whatever is there: after the plan exactly the tasks that are to be found are instances, others' instances are as they were, and there
    /// is nothing more to do.
    #[test]
    fn after_a_plan_the_tasks_that_run_are_the_instances_and_nothing_is_left_to_do(
        tasks in prop::collection::vec(any_task(), 0..12),
        known in prop::collection::btree_map((1..4_u128, 0..16_u128), (any::<bool>(), any::<bool>()), 0..16),
    ) {
        let services = [discovery_service(1, &[RecordType::Srv], true), discovery_service(2, &[RecordType::A], false)];
        let service = name();
        let records: Vec<Task> = (0..).zip(&tasks).map(|(number, (_, desired, last, ..))| {
            let desired = if *desired { DesiredStatus::Running } else { DesiredStatus::Stopped };
            task(number, desired, [TaskStatus::Pending, TaskStatus::Running, TaskStatus::Stopped][usize::from(*last)])
        }).collect();
        let seen_as = |(task, (registry, _, _, reachable, address, health)): (&'_ Task, &AnyTask)| {
            let all = [HealthStatus::Healthy, HealthStatus::Unhealthy, HealthStatus::Unknown];
            (task.id, *registry, *reachable, *address, health.map(|at| all[usize::from(at)]))
        };
        let shown: Vec<_> = records.iter().zip(&tasks).map(seen_as).collect();
        let views = || records.iter().zip(&shown).map(|(task, (_, registry, reachable, address, health))| TaskView {
            is_reachable: *reachable,
            address: address.then_some(Ipv4Addr::new(10, 0, 0, 7)),
            health: *health,
            ..seen(task, &service, *registry)
        }).collect::<Vec<_>>();
        // Instances of tasks, of those there are and of others, with old attributes; and of strangers, with ids that no task has.
        let mut instances: Instances = known.iter().map(|((registry, number), (is_owned, is_well))| {
            let id = if *is_owned { TaskId(*number).to_string() } else { format!("mine-{number}") };
            let instance = DiscoveryInstance {
                id: id.clone(),
                service: registry_id(*registry),
                attributes: BTreeMap::from([(IPV4.to_owned(), "10.9.9.9".to_owned())]),
                health: Some(if *is_well { CustomHealth::Healthy } else { CustomHealth::Unhealthy }),
                owner: is_owned.then(|| berth_model::discovery::InstanceOwner {
                    cluster: ClusterName::parse("home").unwrap(), service: name(), task: TaskId(*number),
                }),
                creator_request_id: None,
                operation: None,
                created_at: UnixMillis(5),
            };
            ((registry_id(*registry), id), instance)
        }).collect();
        let strangers: Instances = instances.iter().filter(|(_, one)| one.owner.is_none()).map(|(k, v)| (k.clone(), v.clone())).collect();
        let first = plan(&view(views(), &services, &instances), NOW);
        apply(&mut instances, &first);
        let expected: BTreeSet<_> = records.iter().zip(&shown).filter(|(task, (_, registry, reachable, address, _))| {
            let runs = (task.desired_status, task.last_status) == (DesiredStatus::Running, TaskStatus::Running);
            runs && *reachable && *address && *registry < 3
        }).map(|(task, (_, registry, ..))| (registry_id(*registry), task.id.to_string())).collect();
        let owned: BTreeSet<_> = instances.iter().filter(|(_, one)| one.owner.is_some()).map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(&owned, &expected);
        prop_assert!(strangers.iter().all(|(key, one)| instances.get(key) == Some(one)));
        let ports = instances.iter().filter(|(key, _)| owned.contains(*key)).all(|(_, one)| one.port().is_some() && one.ipv4().is_some());
        prop_assert!(ports);
        let second = plan(&view(views(), &services, &instances), UnixMillis(2_000));
        prop_assert!(second.is_empty(), "{second:?}");
        prop_assert_eq!(second.refused, first.refused);
    }
}

// -- DNS ---------------------------------------------------------------------------------------------------------------

fn namespace(name: &str, kind: NamespaceKind) -> Namespace {
    Namespace {
        id: NamespaceId::from_bits(1),
        name: name.to_owned(),
        kind,
        description: None,
        creator_request_id: None,
        operation: OperationId::from_random(1, 2),
        tags: BTreeMap::new(),
        created_at: UnixMillis(1),
    }
}

fn private(name: &str) -> Namespace {
    namespace(name, NamespaceKind::Private { vpc: "vpc-1".to_owned(), zone: HostedZone::from_random(1, 15) })
}

fn registered(id: &str, health: Option<CustomHealth>, attributes: &[(&str, &str)]) -> DiscoveryInstance {
    DiscoveryInstance {
        id: id.to_owned(),
        service: registry_id(1),
        attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        health,
        owner: None,
        creator_request_id: None,
        operation: None,
        created_at: UnixMillis(0),
    }
}

fn records(namespace: &Namespace, service: &DiscoveryService, instances: &[DiscoveryInstance]) -> Vec<DnsRecord> {
    let services = vec![DiscoveryServiceView { service, instances: instances.iter().collect() }];
    let mut table = dns_table(7, &[NamespaceView { namespace, services }]);
    assert_eq!((table.revision, table.zones.len()), (7, 1));
    table.zones.remove(0).records
}

#[test]
fn only_healthy_instances_are_answered_unless_none_is() {
    use CustomHealth::{Healthy, Unhealthy};
    let service = discovery_service(1, &[RecordType::A], true);
    let found = |health: [CustomHealth; 3]| -> Vec<DnsAnswer> {
        let instances: Vec<_> =
            (1..).zip(health).map(|(n, health)| registered(&format!("i{n}"), Some(health), &[(IPV4, &format!("10.0.0.{n}"))])).collect();
        let mut records = records(&private("Home.Local"), &service, &instances);
        assert_eq!((records.len(), records[0].name.as_str(), records[0].ttl_seconds), (1, "api1", 10));
        records.remove(0).answers
    };
    let a = |last| DnsAnswer::A(Ipv4Addr::new(10, 0, 0, last));
    assert_eq!(found([Healthy, Unhealthy, Healthy]), [a(1), a(3)]);
    assert_eq!(found([Unhealthy, Unhealthy, Unhealthy]), [a(1), a(2), a(3)]);
}

#[test]
fn srv_points_at_the_instances_own_names() {
    let service = discovery_service(1, &[RecordType::Srv, RecordType::A], true);
    let instances = [
        registered("I1", Some(CustomHealth::Healthy), &[(IPV4, "10.0.0.1"), (PORT, "8080")]),
        registered("i2", Some(CustomHealth::Unhealthy), &[(IPV4, "10.0.0.2"), ("AWS_INSTANCE_IPV6", "fd00::2"), (PORT, "8081")]),
    ];
    let records = records(&private("Home.Local"), &service, &instances);
    let names: Vec<_> = records.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(names, ["api1", "i1.api1", "i2.api1"]);
    let target = "i1.api1.home.local".to_owned();
    let srv = DnsAnswer::Srv { priority: 1, weight: 1, port: 8080, target };
    assert_eq!(records[0].answers, [DnsAnswer::A(Ipv4Addr::new(10, 0, 0, 1)), srv]);
    assert_eq!(records[2].answers, [DnsAnswer::A(Ipv4Addr::new(10, 0, 0, 2)), DnsAnswer::Aaaa("fd00::2".parse().unwrap())]);
}

#[test]
fn names_without_answers_and_namespaces_without_dns_are_not_there() {
    let service = discovery_service(1, &[RecordType::A], false);
    assert_eq!(records(&private("n"), &service, &[]), []);
    let of = |namespace: &Namespace| dns_table(1, &[NamespaceView { namespace, services: Vec::new() }]).zones.len();
    assert_eq!(of(&namespace("n", NamespaceKind::Http)), 0);
    assert_eq!(of(&namespace("n", NamespaceKind::Public { zone: HostedZone::from_random(1, 15) })), 1);
    let api_only = discovery_service(1, &[], false);
    assert_eq!(records(&private("n"), &api_only, &[registered("i", None, &[(IPV4, "10.0.0.1")])]), []);
}

#[test]
fn a_cname_is_one_of_them_at_random_and_the_dot_is_the_zone_itself() {
    let mut service = discovery_service(1, &[RecordType::Cname], false);
    service.dns = service.dns.map(|dns| DnsSettings { routing: Routing::Weighted, ..dns });
    ".".clone_into(&mut service.name);
    let instances = [registered("i", None, &[(CNAME, "Db.Example")])];
    let found = records(&private("n"), &service, &instances);
    assert_eq!((found[0].name.as_str(), found[0].routing), ("", Routing::Weighted));
    assert_eq!(found[0].answers, [DnsAnswer::Cname("db.example".to_owned())]);
}
