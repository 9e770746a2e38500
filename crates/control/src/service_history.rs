//! Keeps a service's history true while its plans are carried out: how far each service deployment is, what digests the tasks told of,
//! rollbacks that begin, and that it ends with the service. What is to become of it is decided by the scheduler.

use std::collections::BTreeSet;

use berth_model::ids::DeploymentId;
use berth_model::record::Key;
use berth_model::rollout::LifecycleStage;
use berth_model::service::{RolloutState, Service, ServiceStatus};
use berth_model::service_deployment::{
    KEEP_SERVICE_DEPLOYMENTS_MILLIS, MAX_SERVICE_DEPLOYMENTS, RevisionTally, ServiceDeployment, ServiceRevisionId,
};
use berth_model::time::UnixMillis;
use berth_scheduler::service::history::{self, Return};
use berth_store::{Entry, State, Transaction};

use crate::shifts;

/// How many tasks a service's revision has now.
#[must_use]
pub fn tally_revision(state: &State, service: &Service, revision: ServiceRevisionId) -> RevisionTally {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let count = |deployment| {
        let tally = state.tally(&service.cluster, &service.name, deployment);
        (number(tally.running), number(tally.pending))
    };
    let tally = history::tally(service, count, revision);
    // Both of a deployment's revisions are wanted whole until its last stage.
    let rollout = shifts::ongoing(state, service).and_then(|record| record.rollout.as_ref());
    let is_kept = rollout
        .filter(|rollout| rollout.stage < LifecycleStage::CleanUp)
        .and_then(|rollout| rollout.blue)
        .is_some_and(|blue| service.deployments.iter().any(|deployment| deployment.id == blue && deployment.revision == Some(revision)));
    RevisionTally { requested: if is_kept { service.desired_count } else { tally.requested }, ..tally }
}

/// What of a service's history may go: finished deployments after 90 days, the oldest ones beyond [`MAX_SERVICE_DEPLOYMENTS`] when room
/// is made for `more`, and the revisions that then nothing names. The current deployment stays.
#[must_use]
pub fn forgettable_history(state: &State, service: &Service, now: UnixMillis, more: usize) -> Vec<Key> {
    let (cluster, name) = (&service.cluster, &service.name);
    let current = service.primary().and_then(|primary| primary.service_deployment);
    let mut records: Vec<_> = state.service_deployments_of(cluster, name).collect();
    records.sort_by_key(|record| (record.created_at, record.id));
    let surplus = (records.len() + more).saturating_sub(MAX_SERVICE_DEPLOYMENTS);
    let is_old = |at: Option<UnixMillis>| at.is_some_and(|at| now.since(at) > KEEP_SERVICE_DEPLOYMENTS_MILLIS);
    let (doomed, kept): (Vec<_>, Vec<_>) = records
        .into_iter()
        .enumerate()
        .partition(|(number, record)| Some(record.id) != current && (*number < surplus || is_old(record.finished_at)));
    let mut named: BTreeSet<_> = kept.iter().flat_map(|(_, record)| record.revisions()).collect();
    named.extend(service.deployments.iter().filter_map(|deployment| deployment.revision));
    named.extend(service.completed_revision);
    let revisions = state.revisions_of(cluster, name).filter(|revision| !named.contains(&revision.id));
    let revisions = revisions.map(|revision| Key::ServiceRevision(cluster.clone(), name.clone(), revision.id));
    doomed.iter().map(|(_, record)| Key::ServiceDeployment(cluster.clone(), name.clone(), record.id)).chain(revisions).collect()
}

/// The rollback that begins now, if one was asked for: its records are in the transaction, the service is not.
pub(crate) fn begin_rollback(
    state: &State,
    service: &Entry<Service>,
    fresh: DeploymentId,
    now: UnixMillis,
    transaction: &mut Transaction,
) -> Option<Return> {
    // A deleted service goes nowhere any more.
    let id = service.primary().filter(|_| service.status == ServiceStatus::Active)?.service_deployment?;
    let record = state.service_deployment(&service.cluster, &service.name, id)?;
    let to = record.candidate.and_then(|revision| state.service_revision(&service.cluster, &service.name, revision));
    let back = history::roll_back(service, record, to.map(|revision| &*revision.value), fresh, now)?;
    transaction.expect(Key::ServiceDeployment(service.cluster.clone(), service.name.clone(), id), record.modified);
    transaction.put(back.record.clone());
    Some(back)
}

/// Notes what the plan, after which the service is `after`, makes of its history. `rollback`: its circuit breaker wants it to go back. `staged`
/// is what the stages made of the current deployment.
pub(crate) fn follow(
    state: &State,
    before: &Service,
    after: &mut Service,
    rollback: Option<&str>,
    staged: Option<&ServiceDeployment>,
    now: UnixMillis,
    transaction: &mut Transaction,
) {
    let (cluster, name) = (&before.cluster, &before.name);
    if let Some(primary) = after.primary().filter(|primary| primary.rollout_state == RolloutState::Completed) {
        after.completed_revision = primary.revision.or(after.completed_revision);
    }
    let mut ids: Vec<_> = before.deployments.iter().filter_map(|deployment| deployment.service_deployment).collect();
    ids.sort_unstable();
    ids.dedup();
    for record in ids.into_iter().filter_map(|id| state.service_deployment(cluster, name, id)) {
        let tally = |revision| tally_revision(state, after, revision);
        let staged = staged.filter(|staged| staged.id == record.id);
        let next = history::advance(staged.unwrap_or(record), after, rollback, tally, now).or_else(|| staged.cloned());
        // The time alone is no news: written each time that the service is planned, it would have it planned again.
        let is_news = |next: &ServiceDeployment| ServiceDeployment { updated_at: record.updated_at, ..next.clone() } != *record.value;
        if let Some(next) = next.filter(is_news) {
            transaction.expect(Key::ServiceDeployment(cluster.clone(), name.clone(), record.id), record.modified);
            transaction.put(next);
        }
    }
    let Some((primary, revision)) = before.primary().and_then(|primary| Some((primary, primary.revision?))) else { return };
    let Some(revision) = state.service_revision(cluster, name, revision) else { return };
    let tasks = state.tasks_of_service(cluster, name).filter(|task| task.service.as_ref().is_some_and(|m| primary.owns(m.deployment)));
    if let Some(next) = history::with_digests(revision, tasks.flat_map(|task| &task.containers)) {
        transaction.expect(Key::ServiceRevision(cluster.clone(), name.clone(), revision.id), revision.modified);
        transaction.put(next);
    }
}

/// Deletes up to `most` records of an ended service's history; `true`: none is left after that.
pub(crate) fn forget(state: &State, service: &Service, most: usize, transaction: &mut Transaction) -> bool {
    let (cluster, name) = (&service.cluster, &service.name);
    let deployments = state.service_deployments_of(cluster, name).map(|one| Key::ServiceDeployment(cluster.clone(), name.clone(), one.id));
    let revisions = state.revisions_of(cluster, name).map(|one| Key::ServiceRevision(cluster.clone(), name.clone(), one.id));
    let mut doomed = deployments.chain(revisions);
    doomed.by_ref().take(most).for_each(|key| {
        transaction.delete(key);
    });
    doomed.next().is_none()
}

#[cfg(test)]
mod tests {
    use berth_model::ids::{ClusterName, DefinitionId, Family, ServiceName};
    use berth_model::service::{Deployment, DeploymentStatus, Percentages};
    use berth_model::service_deployment::{ServiceDeploymentId, ServiceDeploymentStatus, ServiceRevision};
    use berth_model::task::LaunchType;
    use berth_store::Store;
    use berth_store::backend::Memory;

    use super::*;

    fn cluster() -> ClusterName {
        ClusterName::parse("c").expect("a name")
    }

    fn name() -> ServiceName {
        ServiceName::parse("web").expect("a name")
    }

    fn id(number: u128) -> ServiceDeploymentId {
        ServiceDeploymentId::from_random(number << 2)
    }

    fn definition() -> DefinitionId {
        DefinitionId { family: Family::parse("web").expect("a family"), revision: 1 }
    }

    fn record(number: u64) -> ServiceDeployment {
        let at = UnixMillis(i64::try_from(number).expect("a small number"));
        ServiceDeployment {
            id: id(number.into()),
            cluster: cluster(),
            service: name(),
            status: ServiceDeploymentStatus::Successful,
            status_reason: None,
            sources: Vec::new(),
            target: RevisionTally::none(ServiceRevisionId(number)),
            candidate: number.checked_sub(1).map(ServiceRevisionId),
            configuration: Default::default(),
            rollback: None,
            breaker: None,
            triggered_alarms: Vec::new(),
            rollout: None,
            created_at: at,
            started_at: Some(at),
            finished_at: Some(at),
            stopped_at: None,
            updated_at: at,
        }
    }

    fn revision(number: u64) -> ServiceRevision {
        ServiceRevision {
            id: ServiceRevisionId(number),
            cluster: cluster(),
            service: name(),
            definition: definition(),
            launch_type: LaunchType::Ec2,
            capacity_provider_strategy: Vec::new(),
            settings: Default::default(),
            images: Vec::new(),
            created_at: UnixMillis(0),
        }
    }

    /// A service whose current deployment has this number.
    fn service(current: u64) -> Service {
        Service {
            name: name(),
            cluster: cluster(),
            status: ServiceStatus::Active,
            desired_count: 0,
            launch_type: LaunchType::Ec2,
            percentages: Percentages { minimum_healthy: 100, maximum: 200 },
            deployments: vec![Deployment {
                id: DeploymentId(1),
                status: DeploymentStatus::Primary,
                definition: definition(),
                created_at: UnixMillis(0),
                updated_at: UnixMillis(0),
                rollout_state: RolloutState::Completed,
                rollout_state_reason: String::new(),
                capacity_provider_strategy: Vec::new(),
                revision: Some(ServiceRevisionId(current)),
                service_deployment: Some(id(current.into())),
                progress: Default::default(),
            }],
            settings: Default::default(),
            tags: Default::default(),
            created_at: UnixMillis(0),
            created_by: String::new(),
            next_event: 0,
            announced_steady: false,
            announced_failure: None,
            client_token: None,
            controller: Default::default(),
            task_sets: Vec::new(),
            scheduling_strategy: Default::default(),
            completed_revision: Some(ServiceRevisionId(current)),
        }
    }

    async fn store(deployments: std::ops::Range<u64>) -> Store {
        let store = Store::open_inline(Memory).expect("a store in memory");
        let mut transaction = Transaction::new();
        for number in deployments {
            transaction.put(record(number));
            transaction.put(revision(number));
        }
        store.commit(transaction).await.expect("it is taken");
        store
    }

    fn deployment_key(number: u64) -> Key {
        Key::ServiceDeployment(cluster(), name(), id(number.into()))
    }

    fn revision_key(number: u64) -> Key {
        Key::ServiceRevision(cluster(), name(), ServiceRevisionId(number))
    }

    #[tokio::test]
    async fn the_oldest_makes_room_for_one_more_and_its_revision_stays_while_another_names_it() {
        let most = u64::try_from(MAX_SERVICE_DEPLOYMENTS).expect("a small number");
        let store = store(0..most).await;
        let service = service(most - 1);
        let state = store.state();
        assert_eq!(forgettable_history(&state, &service, UnixMillis(0), 0), []);
        assert_eq!(forgettable_history(&state, &service, UnixMillis(0), 1), [deployment_key(0)], "1 would go back to revision 0");
        let two = [deployment_key(0), deployment_key(1), revision_key(0)];
        assert_eq!(forgettable_history(&state, &service, UnixMillis(0), 2), two);
    }

    #[tokio::test]
    async fn after_ninety_days_all_but_the_current_one_go() {
        let store = store(0..3).await;
        let at = |millis: i64| forgettable_history(&store.state(), &service(1), UnixMillis(KEEP_SERVICE_DEPLOYMENTS_MILLIS + millis), 0);
        assert_eq!(at(0), []);
        assert_eq!(at(1), [deployment_key(0)], "1 is the current one, and would go back to revision 0");
        assert_eq!(at(100), [deployment_key(0), deployment_key(2), revision_key(2)]);
    }

    #[tokio::test]
    async fn an_ended_service_forgets_in_steps() {
        let store = store(0..3).await;
        let mut transaction = Transaction::new();
        assert!(!forget(&store.state(), &service(2), 5, &mut transaction));
        assert_eq!(transaction.changes.len(), 5);
        store.commit(transaction).await.expect("it is taken");
        let mut transaction = Transaction::new();
        assert!(forget(&store.state(), &service(2), 5, &mut transaction));
        assert_eq!(transaction.changes.len(), 1);
    }
}
