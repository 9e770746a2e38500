//! Forgets what ended long ago: stopped tasks, inactive services (Express ones too) and container instances, deleted clusters. ECS shows
//! stopped tasks for at least an hour; Berth keeps them for a day, and no more than a number of them, since users want to know why
//! something died.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_model::cluster::ClusterStatus;
use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::ids::TaskId;
use berth_model::record::Key;
use berth_model::service::{Service, ServiceStatus};
use berth_model::service_deployment::KEEP_SERVICE_DEPLOYMENTS_MILLIS;
use berth_model::task_definition::TaskDefinitionStatus;
use berth_model::time::UnixMillis;
use berth_store::{ClusterIndex, CommitError, Entry, Revision, State, Store, Transaction};

use crate::discovery::forgettable_operations;
use crate::environment::Environment;
use crate::service_history::forgettable_history;

/// How long ended things stay visible.
const KEEP_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// ECS's promise: stopped tasks are visible for an hour at least.
const KEEP_AT_LEAST_MILLIS: i64 = 60 * 60 * 1000;
/// Most stopped tasks kept beyond that hour.
const KEEP_TASKS: usize = 100_000;
/// Most records forgotten in one commit.
const BATCH: usize = 500;
/// How often it asks itself whether to look.
const EVERY: Duration = Duration::from_secs(60);
/// After how many of these it looks whatever happened: time alone makes things old, and a day is not told from a day and ten minutes.
const LOOKS_AFTER: u32 = 10;
/// After how many commits it looks before: each may leave something to forget, and what waits is bounded. A walk through a large fleet
/// costs as much as some hundred commits.
const LOOKS_AFTER_COMMITS: u64 = 1_000;

/// Whether to look: so often it has asked itself since it looked last, and so many commits came meanwhile.
const fn is_due(asked: u32, commits: u64) -> bool {
    commits >= LOOKS_AFTER_COMMITS || asked >= LOOKS_AFTER
}

/// What may be forgotten now. Pure.
#[must_use]
pub fn forgettable(state: &State, now: UnixMillis) -> Vec<Key> {
    forgettable_since(state, now, None)
}

/// What may be forgotten now, where all that could be forgotten at `looked_at` is: then of a service that has not changed since nothing is too
/// much, and only time can have made something of it old.
fn forgettable_since(state: &State, now: UnixMillis, looked_at: Option<Revision>) -> Vec<Key> {
    let mut keys: Vec<_> = forgettable_tasks(state, now, KEEP_TASKS).into_iter().map(Key::Task).collect();
    keys.extend(deleted_definitions(state));
    keys.extend(deleted_capacity(state, now));
    keys.extend(forgettable_operations(state, now));
    let ongoing = state.services().filter(|service| service.status != ServiceStatus::Inactive);
    let may_have_some = |service: &&Entry<Service>| {
        looked_at.is_none_or(|revision| service.modified > revision) || now.since(service.created_at) > KEEP_SERVICE_DEPLOYMENTS_MILLIS
    };
    keys.extend(ongoing.filter(may_have_some).flat_map(|service| forgettable_history(state, service, now, 0)));
    for service in state.services().filter(|service| service.status == ServiceStatus::Inactive) {
        // A service has no time of its end; its last change is one of its tasks' or of its events'.
        let last = state.events_of(&service.cluster, &service.name).next_back().map_or(service.created_at, |event| event.created_at);
        if now.since(last) > KEEP_MILLIS {
            keys.extend(
                state.events_of(&service.cluster, &service.name).map(|e| Key::ServiceEvent(e.cluster.clone(), e.service.clone(), e.number)),
            );
            keys.push(Key::Service(service.cluster.clone(), service.name.clone()));
        }
    }
    for service in state.express_services().filter(|service| service.status == ServiceStatus::Inactive) {
        if now.since(service.updated_at) > KEEP_MILLIS {
            keys.push(Key::ExpressService(service.cluster.clone(), service.name.clone()));
        }
    }
    for instance in state.instances().filter(|instance| instance.status == ContainerInstanceStatus::Inactive) {
        let used = state.tasks_of_machine(&instance.cluster, instance.id).next().is_some();
        if !used && now.since(instance.registered_at) > KEEP_MILLIS {
            keys.push(Key::ContainerInstance(instance.id));
        }
    }
    for cluster in state.clusters().filter(|cluster| cluster.status == ClusterStatus::Inactive) {
        let empty = state
            .index(&cluster.name)
            .is_none_or(|i| i.desired_running.is_empty() && i.desired_stopped.is_empty() && i.instances.is_empty());
        let has_services = state.services_of(&cluster.name).next().is_some() || state.express_services_of(&cluster.name).next().is_some();
        if empty && !has_services && now.since(cluster.created_at) > KEEP_MILLIS {
            keys.push(Key::Cluster(cluster.name.clone()));
        }
    }
    keys
}

/// Tasks that stopped long ago, the oldest first; after an hour if there are more than `most`.
fn forgettable_tasks(state: &State, now: UnixMillis, most: usize) -> Vec<TaskId> {
    let all: usize = state.indexes().map(|index| index.stopped.len()).sum();
    let surplus = all.saturating_sub(most);
    // What is younger than the youngest that may go need not be looked at.
    let longest = if surplus == 0 { KEEP_MILLIS } else { KEEP_AT_LEAST_MILLIS };
    let old = |index: &ClusterIndex| index.stopped.iter().take_while(|(at, _)| now.since(*at) > longest).copied().collect::<Vec<_>>();
    let mut stopped: Vec<_> = state.indexes().flat_map(old).collect();
    stopped.sort_unstable();
    let is_old = |number: usize, at: UnixMillis| number < surplus || now.since(at) > KEEP_MILLIS;
    stopped.into_iter().enumerate().filter(|(number, (at, _))| is_old(*number, *at)).map(|(_, (_, id))| id).collect()
}

/// Revisions whose deletion was asked for and that nothing shows any more: no task, ended ones too, no deployment, no task set, no
/// Express service.
fn deleted_definitions(state: &State) -> Vec<Key> {
    let mut doomed: BTreeSet<_> = state
        .definitions()
        .filter(|definition| definition.status == TaskDefinitionStatus::DeleteInProgress)
        .map(|definition| definition.id.clone())
        .collect();
    if !doomed.is_empty() {
        for service in state.services() {
            let deployed = service.deployments.iter().map(|deployment| &deployment.definition);
            let completed = service.completed_revision.and_then(|id| state.service_revision(&service.cluster, &service.name, id));
            // A rollback may go to the last revision that came out.
            let completed = completed.map(|revision| &revision.definition);
            for definition in deployed.chain(service.task_sets.iter().map(|set| &set.definition)).chain(completed) {
                doomed.remove(definition);
            }
        }
        for revision in state.express_services().flat_map(|service| service.revisions.iter()) {
            doomed.remove(&revision.definition);
        }
        for task in state.tasks() {
            doomed.remove(&task.definition);
        }
    }
    doomed.into_iter().map(Key::TaskDefinition).collect()
}

/// Capacity providers, daemons and daemon task definitions that were deleted long ago.
fn deleted_capacity(state: &State, now: UnixMillis) -> Vec<Key> {
    let is_old = |at: Option<UnixMillis>| at.is_some_and(|at| now.since(at) > KEEP_MILLIS);
    let providers = state.capacity_providers().filter(|provider| is_old(provider.deleted_at));
    let daemons = state.daemons().filter(|daemon| is_old(daemon.deleted_at));
    let definitions = state.daemon_definitions().filter(|definition| is_old(definition.delete_requested_at));
    providers
        .map(|provider| Key::CapacityProvider(provider.name.clone()))
        .chain(daemons.map(|daemon| Key::Daemon(daemon.cluster.clone(), daemon.name.clone())))
        .chain(definitions.filter(|one| !state.is_run_by_daemon(&one.id)).map(|one| Key::DaemonTaskDefinition(one.id.clone())))
        .collect()
}

/// Runs for ever; works while this peer leads.
pub(crate) async fn run(store: Store, environment: Environment) {
    // The first time soon, or a server that is started often would never look.
    let (mut looked_at, mut asked) = (store.state().revision, LOOKS_AFTER - 1);
    // When nothing was left that could be forgotten.
    let mut swept_at = None;
    loop {
        tokio::time::sleep(EVERY).await;
        asked += 1;
        let revision = store.state().revision;
        if !store.leads() || !is_due(asked, revision.0.saturating_sub(looked_at.0)) {
            continue;
        }
        (looked_at, asked) = (revision, 0);
        let keys: Vec<_> = {
            let (state, now) = (store.state(), environment.now());
            let found = forgettable_since(&state, now, swept_at.replace(state.revision));
            debug_assert_eq!(found, forgettable(&state, now), "what has not changed is looked at in vain");
            found.into_iter().filter_map(|key| Some((state.modified(&key)?, key))).collect()
        };
        for batch in keys.chunks(BATCH.min(store.max_changes())) {
            let mut transaction = Transaction::new();
            for (modified, key) in batch {
                // A cluster or a service may be made anew under its old name meanwhile.
                transaction.expect(key.clone(), *modified).delete(key.clone());
            }
            match store.commit(transaction).await {
                Ok(_) => {}
                // What came between is looked at the next time.
                Err(CommitError::Conflict(_)) => swept_at = None,
                Err(error) => {
                    tracing::warn!(%error, "cannot forget what ended long ago");
                    swept_at = None;
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_model::capacity_provider::{Capacity, CapacityProvider, CapacityProviderStatus, CapacityProviderUpdateStatus};
    use berth_model::cluster::Cluster;
    use berth_model::daemon::{Daemon, DaemonDeployment, DaemonRevision, DaemonTaskDefinition};
    use berth_model::express_service::{ExpressRevision, ExpressService};
    use berth_model::ids::{
        ClusterName, ContainerInstanceId, DaemonDeploymentId, DaemonName, DaemonRevisionId, DefinitionId, Family, ServiceName,
    };
    use berth_model::service::ServiceSettings;
    use berth_model::service_deployment::{ServiceRevision, ServiceRevisionId};
    use berth_model::task::{DesiredStatus, LaunchType, Task, TaskStatus};
    use berth_model::task_definition::TaskDefinition;
    use berth_store::backend::Memory;

    use super::*;

    fn revision(revision: u32) -> DefinitionId {
        DefinitionId { family: Family::parse("web").expect("a family"), revision }
    }

    fn definition(number: u32, status: TaskDefinitionStatus) -> TaskDefinition {
        TaskDefinition {
            id: revision(number),
            status,
            registered_at: UnixMillis(0),
            registered_by: String::new(),
            deregistered_at: None,
            delete_requested_at: None,
            tags: Default::default(),
            document: Default::default(),
            needs: Default::default(),
        }
    }

    fn task(id: u128, definition: DefinitionId, stopped_at: Option<i64>) -> Task {
        Task {
            desired_status: DesiredStatus::Stopped,
            last_status: if stopped_at.is_some() { TaskStatus::Stopped } else { TaskStatus::Running },
            stopped_at: stopped_at.map(UnixMillis),
            ..Task::placed(
                TaskId(id),
                ClusterName::parse("c").expect("a name"),
                definition,
                "family:web".into(),
                ContainerInstanceId(1),
                UnixMillis(0),
            )
        }
    }

    #[test]
    fn it_looks_when_time_has_passed_or_much_has_changed() {
        assert!(!is_due(LOOKS_AFTER - 1, LOOKS_AFTER_COMMITS - 1) && is_due(LOOKS_AFTER, 0) && is_due(1, LOOKS_AFTER_COMMITS));
    }

    #[tokio::test]
    async fn of_services_that_have_not_changed_only_the_old_are_looked_at() {
        let (cluster, name) = (ClusterName::parse("c").expect("a name"), ServiceName::parse("web").expect("a name"));
        let service: Service = serde_json::from_value(serde_json::json!({
            "name": "web", "cluster": "c", "status": "ACTIVE", "desired_count": 1, "launch_type": "EC2",
            "percentages": {"minimum_healthy": 100, "maximum": 200}, "deployments": [], "settings": ServiceSettings::default(),
            "tags": {}, "created_at": 1_000, "created_by": "", "next_event": 0, "announced_steady": false, "announced_failure": null,
            "client_token": null,
        }))
        .expect("a service");
        let unnamed = ServiceRevision {
            id: ServiceRevisionId(1),
            cluster: cluster.clone(),
            service: name.clone(),
            definition: revision(1),
            launch_type: LaunchType::Ec2,
            capacity_provider_strategy: Vec::new(),
            settings: ServiceSettings::default(),
            images: Vec::new(),
            created_at: UnixMillis(1_000),
        };
        let store = Store::open_inline(Memory).expect("a store in memory");
        let mut transaction = Transaction::new();
        transaction.put(service).put(unnamed);
        store.commit(transaction).await.expect("it is taken");
        let key = [Key::ServiceRevision(cluster, name, ServiceRevisionId(1))];
        let at = |millis: i64, since| forgettable_since(&store.state(), UnixMillis(millis), since);
        assert_eq!(at(2_000, None), key);
        assert_eq!(at(2_000, Some(Revision(0))), key, "it has changed since");
        assert_eq!(at(2_000, Some(Revision(1))), [], "it was looked at");
        assert_eq!(at(1_001 + KEEP_SERVICE_DEPLOYMENTS_MILLIS, Some(Revision(1))), key, "time has passed");
    }

    #[tokio::test]
    async fn too_many_ended_tasks_go_after_an_hour_the_oldest_of_all_clusters_first() {
        let in_cluster = |cluster: &str, id: u128, at: i64| Task {
            cluster: ClusterName::parse(cluster).expect("a name"),
            ..task(id, revision(1), Some(at))
        };
        let store = Store::open_inline(Memory).expect("a store in memory");
        let mut transaction = Transaction::new();
        transaction.put(in_cluster("b", 1, 1)).put(in_cluster("a", 2, 2)).put(in_cluster("a", 3, 2)).put(in_cluster("b", 4, 4));
        store.commit(transaction).await.expect("it is taken");
        let at = |millis: i64, most| forgettable_tasks(&store.state(), UnixMillis(millis), most);
        let ids = |numbers: &[u128]| numbers.iter().copied().map(TaskId).collect::<Vec<_>>();
        assert_eq!(at(5 + KEEP_AT_LEAST_MILLIS, 4), []);
        assert_eq!(at(5 + KEEP_AT_LEAST_MILLIS, 2), ids(&[1, 2]));
        assert_eq!(at(5 + KEEP_AT_LEAST_MILLIS, 0), ids(&[1, 2, 3, 4]));
        assert_eq!(at(4 + KEEP_AT_LEAST_MILLIS, 0), ids(&[1, 2, 3]), "an hour is promised");
        assert_eq!(at(3 + KEEP_MILLIS, 4), ids(&[1, 2, 3]));
    }

    #[tokio::test]
    async fn ended_tasks_go_after_a_day_and_deleted_revisions_with_their_last_task() {
        let store = Store::open_inline(Memory).expect("a store in memory");
        let mut transaction = Transaction::new();
        transaction.put(definition(1, TaskDefinitionStatus::DeleteInProgress));
        transaction.put(definition(2, TaskDefinitionStatus::DeleteInProgress));
        transaction.put(definition(3, TaskDefinitionStatus::Inactive));
        transaction.put(task(1, revision(1), Some(1_000)));
        transaction.put(task(2, revision(3), None));
        store.commit(transaction).await.expect("it is taken");
        let at = |millis: i64| forgettable(&store.state(), UnixMillis(millis));
        assert_eq!(at(1_000 + KEEP_MILLIS), [Key::TaskDefinition(revision(2))], "a revision that an ended task still shows stays");
        assert_eq!(at(1_001 + KEEP_MILLIS), [Key::Task(TaskId(1)), Key::TaskDefinition(revision(2))]);
        let mut transaction = Transaction::new();
        transaction.delete(Key::Task(TaskId(1)));
        store.commit(transaction).await.expect("it is taken");
        assert_eq!(at(0), [Key::TaskDefinition(revision(1)), Key::TaskDefinition(revision(2))]);
    }

    #[tokio::test]
    async fn express_services_keep_their_cluster_and_definition_until_a_day_after_their_end() {
        let (cluster, name) = (ClusterName::parse("c").expect("a name"), ServiceName::parse("web").expect("a name"));
        let service = |status| ExpressService {
            name: name.clone(),
            cluster: cluster.clone(),
            status,
            infrastructure_role_arn: String::new(),
            revisions: vec![ExpressRevision {
                number: 1,
                definition: revision(1),
                is_definition_given: false,
                configuration: Default::default(),
                created_at: UnixMillis(0),
            }],
            tags: Default::default(),
            created_at: UnixMillis(0),
            updated_at: UnixMillis(1_000),
        };
        let store = Store::open_inline(Memory).expect("a store in memory");
        let mut transaction = Transaction::new();
        transaction.put(definition(1, TaskDefinitionStatus::DeleteInProgress)).put(service(ServiceStatus::Active));
        transaction.put(Cluster {
            name: cluster.clone(),
            status: ClusterStatus::Inactive,
            created_at: UnixMillis(0),
            tags: Default::default(),
            settings: Vec::new(),
            configuration: None,
            service_connect_defaults: None,
            capacity_providers: Vec::new(),
            default_capacity_provider_strategy: Vec::new(),
            gateways: Vec::new(),
        });
        store.commit(transaction).await.expect("it is taken");
        let at = |millis: i64| forgettable(&store.state(), UnixMillis(millis));
        assert_eq!(at(1_001 + KEEP_MILLIS), [], "it is ACTIVE");
        let mut transaction = Transaction::new();
        transaction.put(service(ServiceStatus::Inactive));
        store.commit(transaction).await.expect("it is taken");
        assert_eq!(at(1_000 + KEEP_MILLIS), []);
        let key = Key::ExpressService(cluster.clone(), name.clone());
        assert_eq!(at(1_001 + KEEP_MILLIS), std::slice::from_ref(&key));
        let mut transaction = Transaction::new();
        transaction.delete(key);
        store.commit(transaction).await.expect("it is taken");
        assert_eq!(at(1_001 + KEEP_MILLIS), [Key::TaskDefinition(revision(1)), Key::Cluster(cluster.clone())]);
    }

    #[tokio::test]
    async fn deleted_capacity_goes_after_a_day() {
        let store = Store::open_inline(Memory).expect("a store in memory");
        let name = |text: &str| berth_model::ids::CapacityProviderName::parse(text).expect("a name");
        let provider = |text: &str, deleted_at: Option<i64>| CapacityProvider {
            name: name(text),
            status: CapacityProviderStatus::Active,
            update_status: CapacityProviderUpdateStatus::Created,
            capacity: Capacity::AutoScalingGroup(Default::default()),
            tags: Default::default(),
            created_at: UnixMillis(0),
            deleted_at: deleted_at.map(UnixMillis),
        };
        let daemon_definition = |number: u32, deleted_at: Option<i64>| DaemonTaskDefinition {
            id: revision(number),
            registered_at: UnixMillis(0),
            registered_by: String::new(),
            delete_requested_at: deleted_at.map(UnixMillis),
            tags: Default::default(),
            document: Default::default(),
        };
        let run = DaemonRevision {
            id: DaemonRevisionId(1),
            created_at: UnixMillis(0),
            definition: revision(2),
            images: Vec::new(),
            capacity_providers: Vec::new(),
            propagates_tags: false,
            enable_ecs_managed_tags: false,
            enable_execute_command: false,
            critical: true,
        };
        let daemon = Daemon {
            cluster: ClusterName::parse("c").expect("a name"),
            name: DaemonName::parse("d").expect("a name"),
            created_at: UnixMillis(0),
            updated_at: UnixMillis(0),
            deleted_at: None,
            tags: Default::default(),
            client_token: None,
            deployments: vec![DaemonDeployment {
                id: DaemonDeploymentId(1),
                number: 0,
                created_at: UnixMillis(0),
                finished_at: UnixMillis(0),
                stopped_at: None,
                target: Some(run),
                source: None,
                configuration: Default::default(),
            }],
        };
        let mut transaction = Transaction::new();
        transaction.put(provider("gone", Some(1_000))).put(provider("there", None));
        transaction.put(daemon_definition(1, Some(1_000))).put(daemon_definition(2, Some(1_000))).put(daemon_definition(3, None));
        transaction.put(daemon.clone());
        store.commit(transaction).await.expect("it is taken");
        let at = |millis: i64| forgettable(&store.state(), UnixMillis(millis));
        assert_eq!(at(1_000 + KEEP_MILLIS), []);
        let gone = [Key::CapacityProvider(name("gone")), Key::DaemonTaskDefinition(revision(1))];
        assert_eq!(at(1_001 + KEEP_MILLIS), gone, "a revision that a daemon runs stays");
        let mut transaction = Transaction::new();
        transaction.put(Daemon { deleted_at: Some(UnixMillis(2_000)), ..daemon });
        store.commit(transaction).await.expect("it is taken");
        assert!(
            at(2_001 + KEEP_MILLIS)
                .contains(&Key::Daemon(ClusterName::parse("c").expect("a name"), DaemonName::parse("d").expect("a name")))
        );
    }
}
