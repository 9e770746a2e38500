//! Tasks in Cloud Map: the loop that registers and deregisters them, the table that DNS servers read, and old operations that may go.
//!
//! It decides nothing of a task. What a task's instance is to be stands in `berth_scheduler::discovery`.

mod reach;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_model::arn::Scope;
use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::discovery::{DiscoveryInstance, DiscoveryServiceId};
use berth_model::dns::DnsTable;
use berth_model::ids::uuid;
use berth_model::lifecycle;
use berth_model::namespace::{KEEP_OPERATIONS_MILLIS, MAX_OPERATIONS};
use berth_model::record::Key;
use berth_model::service::{MAX_EVENTS, Service, ServiceEvent, ServiceStatus};
use berth_model::task::{LaunchType, Task};
use berth_model::time::UnixMillis;
use berth_scheduler::discovery::{
    DiscoveryServiceView, NamespaceView, Plan, Refused, Registry, TaskView, View, dns_table as table_of, is_ending, plan,
};
use berth_shapes::ecs;
use berth_store::{Commit, CommitError, Entry, State, Store, Transaction, Watcher};

pub(crate) use reach::reach;

use crate::environment::Environment;
use crate::services::is_checked_essential;

/// Most instances registered or deregistered in one commit.
const BATCH: usize = 250;
/// How often it looks even if nothing changes: another peer may have led before, or the store may have refused a write.
const EVERY: Duration = Duration::from_secs(60);
/// How long it gathers changes before it looks: tasks come and go in swarms, and a look at a fleet is a walk through its services. What ends
/// is not found in the meantime, and what begins is found soon enough.
const GATHER: Duration = Duration::from_millis(10);
/// How long it waits after the store refused a write.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// As long ECS suppresses a repeated event.
const REPEAT_AFTER_MILLIS: i64 = 6 * 60 * 60 * 1000;

/// Runs for ever; works while this peer leads.
pub(crate) async fn run(store: Store, environment: Environment) {
    let mut watcher = store.watch(store.state().revision);
    loop {
        if store.leads() {
            match step(&store, &environment).await {
                Ok(true) => continue,
                // What came between is a change, and looked at as such.
                Ok(false) | Err(CommitError::Conflict(_)) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot note which tasks are registered in Cloud Map");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
        if until_something_changes(&store, &mut watcher).await {
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Registers and deregisters a batch, or tells of what cannot be registered; `false` if there was nothing to do. Where no service names a
/// registry and nothing is registered it costs nothing.
async fn step(store: &Store, environment: &Environment) -> Result<bool, CommitError> {
    let now = environment.now();
    let (found, transaction) = {
        let state = store.state();
        let Some(view) = view(&state, &environment.scope) else { return Ok(false) };
        let found = plan(&view, now);
        let transaction = transaction(&state, &found, BATCH.min(store.max_changes() / 4));
        (found, transaction)
    };
    if !transaction.is_empty() {
        store.commit(transaction).await?;
        tracing::debug!(put = found.put.len(), removed = found.remove.len(), "tasks in Cloud Map");
        return Ok(true);
    }
    let news = {
        let state = store.state();
        let told = |refused: &Refused| event(&state, environment, refused, now);
        found.refused.iter().find_map(told)
    };
    match news {
        Some(transaction) => store.commit(transaction).await.map(|_| true),
        None => Ok(false),
    }
}

/// What the plan changes, as far as one commit may hold it. Its conditions make a change of the same things at this moment, by a user or by
/// another peer, come first.
fn transaction(state: &State, plan: &Plan, most: usize) -> Transaction {
    let mut transaction = Transaction::new();
    let mut touched: BTreeSet<&DiscoveryServiceId> = BTreeSet::new();
    let removed = plan.remove.iter().map(|(service, id)| (service, id.as_str(), None));
    let put = plan.put.iter().map(|instance| (&instance.service, instance.id.as_str(), Some(instance)));
    // Those that end go first: somebody might be sent to one.
    for (service, id, instance) in removed.chain(put).take(most.max(1)) {
        let key = Key::DiscoveryInstance(service.clone(), id.to_owned());
        let known = state.discovery_instance(service, id);
        match known {
            Some(known) => transaction.expect(key.clone(), known.modified),
            None => transaction.expect_absent(key.clone()),
        };
        match instance {
            Some(instance) => transaction.put(instance.clone()),
            None => transaction.delete(key),
        };
        // Health alone is no new revision of the service's instances.
        let is_new_revision = !matches!((known, instance), (Some(known), Some(instance)) if known.attributes == instance.attributes);
        if is_new_revision
            && touched.insert(service)
            && let Some(entry) = state.discovery_service(service)
        {
            let key = Key::DiscoveryService(service.clone());
            transaction.expect(key.clone(), entry.modified).touch(key);
        }
    }
    transaction
}

/// What the planner is to see; `None` if no service has a registry and no task is registered.
fn view<'a>(state: &'a State, scope: &'a Scope) -> Option<View<'a>> {
    let mut view = View { region: &scope.region, ..View::default() };
    if state.registers_nothing() {
        return None;
    }
    for service in state.registering_services().filter(|service| service.status != ServiceStatus::Inactive) {
        if has_registry(state, service) {
            let tasks = state.tasks_of_service(&service.cluster, &service.name);
            view.tasks.extend(tasks.filter_map(|task| seen(state, scope, service, task)));
        }
    }
    let mut named: BTreeSet<_> = view.tasks.iter().map(|task| task.registry.service.clone()).collect();
    named.extend(state.discovery_services_of_tasks().cloned());
    if named.is_empty() {
        return None;
    }
    for id in named {
        let instances = state.discovery_instances_of(&id);
        view.instances.extend(instances.map(|instance| ((id.clone(), instance.id.clone()), &*instance.value)));
        view.services.extend(state.discovery_service(&id).map(|service| (id, &*service.value)));
    }
    Some(view)
}

/// Is a task of the service to be registered, by what it is set to or by a revision that still has tasks?
fn has_registry(state: &State, service: &Service) -> bool {
    let revisions = service.deployments.iter().filter_map(|deployment| deployment.revision);
    let mut revisions = revisions.filter_map(|revision| state.service_revision(&service.cluster, &service.name, revision));
    service.names_registries() || revisions.any(|revision| !revision.settings.service_registries.is_empty())
}

/// A task as the planner sees it; `None` if it has no registry.
fn seen<'a>(state: &'a State, scope: &Scope, service: &'a Service, task: &'a Entry<Task>) -> Option<TaskView<'a>> {
    let deployment = task.service.as_ref()?.deployment;
    // Each revision keeps the registry that it was brought out with.
    let revision = service.deployments.iter().find(|one| one.owns(deployment)).and_then(|one| one.revision);
    let revision = revision.and_then(|revision| state.service_revision(&service.cluster, &service.name, revision));
    let registries = match service.task_sets.iter().find(|set| set.id == deployment) {
        Some(set) => &set.service_registries,
        None => &revision.map_or(&service.settings, |revision| &revision.settings).service_registries,
    };
    let registry = registry(scope, registries)?;
    let definition = state.definition(&task.definition).map(|definition| &*definition.value);
    let mode = definition.and_then(|definition| definition.document.network_mode.as_ref());
    let has_own_interface = mode.is_some_and(|mode| mode.as_str() == "awsvpc");
    let instance = state.instance(task.container_instance).map(|instance| &*instance.value);
    let machine = instance.filter(|instance| instance.status != ContainerInstanceStatus::Inactive && !instance.is_lost());
    let is_checked = |name: &str| definition.is_some_and(|definition| is_checked_essential(definition, name));
    let has_check = task.containers.iter().any(|container| is_checked(&container.name));
    Some(TaskView {
        task: &task.value,
        service: &service.name,
        registry,
        address: match &task.interface {
            Some(interface) => machine.map(|_| interface.private_address),
            None => machine.filter(|_| !has_own_interface).and_then(|machine| machine.host_ipv4()),
        },
        has_own_interface,
        health: has_check.then(|| lifecycle::health(task, is_checked)),
        // The machine of a Fargate task is no instance of the account's.
        ec2_instance_id: instance
            .filter(|_| task.launch_type != LaunchType::Fargate)
            .and_then(|instance| instance.ec2_instance_id.as_deref()),
        is_reachable: machine.is_some(),
    })
}

/// The registry that a service or a task set is set to, if it has one.
fn registry(scope: &Scope, registries: &[ecs::ServiceRegistry]) -> Option<Registry> {
    let given = registries.first()?;
    let id = scope.strip_cloud_map(given.registry_arn.as_deref()?)?.strip_prefix("service/")?;
    let port = |number: Option<i32>| number.and_then(|number| u16::try_from(number).ok());
    Some(Registry {
        service: DiscoveryServiceId::parse(id)?,
        port: port(given.port),
        container: given.container_name.clone().zip(port(given.container_port)),
    })
}

/// The event that tells why tasks are not registered; `None` if it was told not long ago.
fn event(state: &State, environment: &Environment, refused: &Refused, now: UnixMillis) -> Option<Transaction> {
    let (cluster, name) = (&refused.cluster, &refused.service);
    let service = state.service(cluster, name)?;
    let arn = environment.scope.discovery_service(&refused.registry);
    let reason = refused.refusal.in_words();
    let message = format!("(service {name}) was unable to register tasks in (service-registry {arn}) because {reason}.");
    let is_recent = |event: &&Entry<ServiceEvent>| now.since(event.created_at) < REPEAT_AFTER_MILLIS;
    if state.events_of(cluster, name).rev().take_while(is_recent).any(|event| event.message == message) {
        return None;
    }
    let mut transaction = Transaction::new();
    let number = service.next_event;
    if number >= MAX_EVENTS {
        transaction.delete(Key::ServiceEvent(cluster.clone(), name.clone(), number - MAX_EVENTS));
    }
    let id = uuid(environment.entropy.bits());
    transaction.put(ServiceEvent { cluster: cluster.clone(), service: name.clone(), number, id, created_at: now, message });
    transaction.expect(Key::Service(cluster.clone(), name.clone()), service.modified);
    transaction.put(Service { next_event: number + 1, ..(*service.value).clone() });
    Some(transaction)
}

/// Waits for a change of what this loop looks at, or for its time; `false`: nothing changed.
async fn until_something_changes(store: &Store, watcher: &mut Watcher) -> bool {
    let concerns = |commits: &[Arc<Commit>]| {
        let mut changes = commits.iter().flat_map(|commit| &commit.changes);
        changes.any(|change| reach(change).registrations) && !store.state().registers_nothing()
    };
    let change = async {
        loop {
            match watcher.next().await {
                Ok(commits) if !concerns(&commits) => {}
                Ok(_) => return,
                Err(_) => {
                    // Too far behind to be told; it looks at everything anyway.
                    watcher.resume_from(store.state().revision);
                    return;
                }
            }
        }
    };
    tokio::time::timeout(EVERY, change).await.is_ok()
}

/// What DNS servers answer, as of this state. An instance whose task is to stop is no longer in it, also before it is deregistered.
#[must_use]
pub fn dns_table(state: &State) -> DnsTable {
    let task = |instance: &DiscoveryInstance| instance.owner.as_ref().and_then(|owner| state.task(owner.task)).map(|task| &*task.value);
    let mut services: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for service in state.discovery_services() {
        let instances = state.discovery_instances_of(&service.id).map(|instance| &*instance.value);
        let instances = instances.filter(|instance| !is_ending(instance, task(instance))).collect();
        services.entry(&service.namespace).or_default().push(DiscoveryServiceView { service: &service.value, instances });
    }
    let mut views = Vec::new();
    for namespace in state.namespaces() {
        views.push(NamespaceView { services: services.remove(&namespace.id).unwrap_or_default(), namespace: &namespace.value });
    }
    table_of(state.revision.0, &views)
}

/// Operations that nobody is shown any more: after 30 days, and the oldest beyond so many. Pure.
pub(crate) fn forgettable_operations(state: &State, now: UnixMillis) -> Vec<Key> {
    let mut operations: Vec<_> = state.discovery_operations().map(|operation| (operation.created_at, &operation.id)).collect();
    operations.sort_unstable();
    let surplus = operations.len().saturating_sub(MAX_OPERATIONS);
    let is_old = |number: usize, at: UnixMillis| number < surplus || now.since(at) > KEEP_OPERATIONS_MILLIS;
    let old = operations.into_iter().enumerate().filter(|(number, (at, _))| is_old(*number, *at));
    old.map(|(_, (_, id))| Key::DiscoveryOperation(id.clone())).collect()
}

#[cfg(test)]
mod tests {
    use berth_model::discovery::{DiscoveryService, DnsSettings, InstanceOwner, RecordSetting, RecordType};
    use berth_model::dns::{DnsAnswer, Routing};
    use berth_model::ids::{ClusterName, ContainerInstanceId, DefinitionId, Family, ServiceName, TaskId};
    use berth_model::namespace::{HostedZone, Namespace, NamespaceId, NamespaceKind, Operation, OperationId, OperationType};
    use berth_model::task::{DesiredStatus, TaskStatus};
    use berth_store::backend::Memory;

    use super::*;

    fn cluster() -> ClusterName {
        ClusterName::parse("c").expect("a name")
    }

    fn task(number: u128, desired_status: DesiredStatus) -> Task {
        let definition = DefinitionId { family: Family::parse("web").expect("a family"), revision: 1 };
        let placed = Task::placed(TaskId(number), cluster(), definition, "service:web".into(), ContainerInstanceId(1), UnixMillis(1));
        Task { desired_status, last_status: TaskStatus::Running, ..placed }
    }

    fn instance(service: &DiscoveryServiceId, number: u128) -> DiscoveryInstance {
        let owner = InstanceOwner { cluster: cluster(), service: ServiceName::parse("web").expect("a name"), task: TaskId(number) };
        DiscoveryInstance {
            id: TaskId(number).to_string(),
            service: service.clone(),
            attributes: BTreeMap::from([("AWS_INSTANCE_IPV4".to_owned(), format!("10.0.0.{number}"))]),
            health: None,
            owner: Some(owner),
            creator_request_id: None,
            operation: None,
            created_at: UnixMillis(1),
        }
    }

    async fn store(transaction: Transaction) -> Store {
        let store = Store::open_inline(Memory).expect("a store in memory");
        store.commit(transaction).await.expect("it is taken");
        store
    }

    #[tokio::test]
    async fn a_name_answers_no_task_that_is_to_stop_also_before_it_is_deregistered() {
        let namespace = NamespaceId::from_bits(1);
        let service = DiscoveryService {
            id: DiscoveryServiceId::of(&namespace, "api", true),
            name: "api".to_owned(),
            namespace: namespace.clone(),
            description: None,
            dns: Some(DnsSettings { routing: Routing::Multivalue, records: vec![RecordSetting { kind: RecordType::A, ttl_seconds: 10 }] }),
            has_custom_health: false,
            attributes: BTreeMap::new(),
            creator_request_id: None,
            tags: BTreeMap::new(),
            created_at: UnixMillis(1),
        };
        let mut transaction = Transaction::new();
        transaction.put(task(1, DesiredStatus::Running)).put(task(2, DesiredStatus::Stopped));
        for number in 1..=3 {
            transaction.put(instance(&service.id, number));
        }
        transaction.put(service).put(Namespace {
            id: namespace,
            name: "home.local".to_owned(),
            kind: NamespaceKind::Private { vpc: "vpc-1".to_owned(), zone: HostedZone::from_random(1, 15) },
            description: None,
            creator_request_id: None,
            operation: OperationId::from_random(1, 2),
            tags: BTreeMap::new(),
            created_at: UnixMillis(1),
        });
        let store = store(transaction).await;
        let table = dns_table(&store.state());
        assert_eq!((table.revision, table.zones.len(), table.zones[0].name.as_str()), (1, 1, "home.local"));
        let answers: Vec<_> = table.zones[0].records.iter().map(|record| (record.name.as_str(), &record.answers[..])).collect();
        assert_eq!(answers, [("api", &[DnsAnswer::A([10, 0, 0, 1].into())][..])], "the third has no task at all");
    }

    #[tokio::test]
    async fn operations_go_after_thirty_days_and_the_oldest_beyond_so_many() {
        let id = |number: usize| OperationId::from_random(number as u128, 0);
        let mut transaction = Transaction::new();
        for number in 0..MAX_OPERATIONS + 2 {
            let created_at = UnixMillis(i64::try_from(number).expect("a small number"));
            transaction.put(Operation { id: id(number), kind: OperationType::CreateNamespace, targets: Vec::new(), created_at });
        }
        let store = store(transaction).await;
        let doomed = |now| forgettable_operations(&store.state(), UnixMillis(now));
        assert_eq!(doomed(0), [Key::DiscoveryOperation(id(0)), Key::DiscoveryOperation(id(1))]);
        assert_eq!(doomed(KEEP_OPERATIONS_MILLIS + 5).len(), 5);
    }
}
