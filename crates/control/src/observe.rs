//! Folds agents' reports into the state. At-least-once and out of order is normal: `lifecycle::apply` is monotonic.

use berth_model::container_instance::Parting;
use berth_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use berth_model::lifecycle::{self, TaskObservation};
use berth_model::record::Key;
use berth_model::task::{HealthStatus, Task};
use berth_model::time::UnixMillis;
use berth_store::{CommitError, Store, Transaction};

use crate::environment::Environment;
use crate::meter::{Folded, Meter};
use crate::peers;

/// How often a change is tried again when somebody else changes the same record.
pub(crate) const TRIES: usize = 16;

/// Changes a task by a function that says whether it changed anything; tries again on conflicts. `None`: no such task.
///
/// # Errors
/// [`CommitError`].
pub(crate) async fn change_task(
    store: &Store,
    cluster: &ClusterName,
    id: TaskId,
    mut change: impl FnMut(&mut Task, &berth_store::State) -> bool,
) -> Result<Option<std::sync::Arc<Task>>, CommitError> {
    for _ in 0..TRIES {
        if store.state().task(id).is_none() && peers::is_absent(store, Key::Task(id)).await? {
            return Ok(None);
        }
        let mut transaction = Transaction::new();
        let after = {
            let state = store.state();
            let Some(entry) = state.task(id).filter(|task| task.cluster == *cluster) else { return Ok(None) };
            let mut task = (*entry.value).clone();
            if !change(&mut task, &state) {
                return Ok(Some(std::sync::Arc::clone(&entry.value)));
            }
            transaction.expect(Key::Task(id), entry.modified);
            let task = std::sync::Arc::new(task);
            transaction.put(berth_model::record::Record::Task(std::sync::Arc::clone(&task)));
            task
        };
        match store.commit(transaction).await {
            Ok(_) => return Ok(Some(after)),
            Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(CommitError::Overloaded)
}

/// Folds a `SubmitTaskStateChange` in. `false`: there is no such task.
///
/// # Errors
/// [`CommitError`]; the agent sends it again.
pub(crate) async fn task_state(
    store: &Store,
    environment: &Environment,
    meter: &Meter,
    cluster: &ClusterName,
    id: TaskId,
    seen: &TaskObservation,
) -> Result<bool, CommitError> {
    let now = environment.now();
    let (mut has_changed, mut has_started) = (false, false);
    let outcome = change_task(store, cluster, id, |task, state| {
        let definition = state.definition(&task.definition).map(|d| std::sync::Arc::clone(&d.value));
        let is_essential = |name: &str| {
            let containers = definition.as_ref().and_then(|d| d.document.container_definitions.as_deref()).unwrap_or_default();
            containers.iter().find(|c| c.name.as_deref() == Some(name)).is_none_or(|c| c.essential != Some(false))
        };
        let had_run = task.has_run();
        has_changed = lifecycle::apply(task, seen, is_essential, now);
        has_started = task.has_run() && !had_run;
        has_changed
    })
    .await?;
    tracing::debug!(
        task = environment.scope.task(cluster, id),
        status = seen.status.map(|status| status.as_str()),
        known = outcome.is_some(),
        changed = has_changed,
        "an agent reports on a task"
    );
    meter.reported(match &outcome {
        None => Folded::Unknown,
        Some(_) if has_changed => Folded::Changed,
        Some(_) => Folded::Repeated,
    });
    if let Some(task) = outcome.as_deref().filter(|_| has_started) {
        meter.launched(task);
    }
    Ok(outcome.is_some())
}

/// Folds container health, as TCS brings it, in. Commits only what changed.
///
/// # Errors
/// [`CommitError`].
pub(crate) async fn container_health(
    store: &Store,
    cluster: &ClusterName,
    id: TaskId,
    health: &[(String, HealthStatus)],
) -> Result<(), CommitError> {
    change_task(store, cluster, id, |task, _| {
        let mut changed = false;
        for container in &mut task.containers {
            let Some((_, seen)) = health.iter().find(|(name, _)| **name == *container.name) else { continue };
            changed |= container.health_status != *seen;
            container.health_status = *seen;
        }
        changed && !task.is_stopped()
    })
    .await
    .map(drop)
}

/// Notes that an agent's connection opened, and gives it a number larger than that of any before.
///
/// # Errors
/// [`CommitError`]; `Ok(None)` if there is no such active instance.
pub(crate) async fn connected(
    store: &Store,
    id: ContainerInstanceId,
    version: berth_model::container_instance::AgentVersion,
) -> Result<Option<u64>, CommitError> {
    for _ in 0..TRIES {
        let mut transaction = Transaction::new();
        let me = store.membership().borrow().me;
        let connection = {
            let state = store.state();
            let Some(entry) = state.instance(id) else { return Ok(None) };
            if entry.status == berth_model::container_instance::ContainerInstanceStatus::Inactive {
                return Ok(None);
            }
            let mut instance = (*entry.value).clone();
            instance.join(peers::connection_number(state.revision, me));
            instance.agent = version.clone();
            transaction.expect(Key::ContainerInstance(id), entry.modified);
            let connection = instance.connection;
            transaction.put(instance);
            connection
        };
        match store.commit(transaction).await {
            Ok(_) => return Ok(Some(connection)),
            Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(CommitError::Overloaded)
}

/// Notes that a connection closed, unless a newer one is open.
///
/// # Errors
/// [`CommitError`].
pub(crate) async fn disconnected(
    store: &Store,
    id: ContainerInstanceId,
    connection: u64,
    parting: Parting,
    now: UnixMillis,
) -> Result<(), CommitError> {
    for _ in 0..TRIES {
        let mut transaction = Transaction::new();
        {
            let state = store.state();
            let Some(entry) = state.instance(id).filter(|i| i.agent_connected && i.connection == connection) else { return Ok(()) };
            let mut instance = (*entry.value).clone();
            instance.part(parting, now);
            transaction.expect(Key::ContainerInstance(id), entry.modified);
            transaction.put(instance);
        }
        match store.commit(transaction).await {
            Err(CommitError::Conflict(_)) => {}
            outcome => return outcome.map(drop),
        }
    }
    Err(CommitError::Overloaded)
}
