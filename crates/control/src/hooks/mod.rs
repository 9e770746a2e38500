//! Calls lifecycle hooks. Which are due stands in the records of service deployments, and what they answer is committed there: a hook is
//! called at least once, by the peer that runs the loops, and by nobody who decides anything. It keeps only which calls are under way.

mod call;
mod event;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_model::ids::{ClusterName, ServiceName};
use berth_model::record::{Key, Record};
use berth_model::rollout::{HookKind, HookRun};
use berth_model::service_deployment::{ServiceDeployment, ServiceDeploymentId};
use berth_model::time::UnixMillis;
use berth_store::{Change, CommitError, State, Store, Transaction};
use tokio::task::{Id, JoinSet};

pub use target::{HookTarget, Hooks, NamedHook, TargetError};

use crate::environment::Environment;
use crate::observe::TRIES;

/// Most calls at once; others wait.
const MOST_CALLS: usize = 32;
/// Longest call: as long as Lambda lets a function run.
const LONGEST_CALL: Duration = Duration::from_secs(15 * 60);
/// How long it waits where an answer could not be committed, before the hook is called again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where a service deployment is.
type Place = (ClusterName, ServiceName, ServiceDeploymentId);

/// Calls what is due, for ever.
pub(crate) async fn run(store: Store, environment: Environment, hooks: Hooks) {
    let mut membership = store.membership();
    let mut watcher = store.watch(store.state().revision);
    let mut open = all_open(&store.state());
    let mut calls: JoinSet<()> = JoinSet::new();
    let mut under_way: BTreeMap<Id, String> = BTreeMap::new();
    loop {
        let leads = membership.borrow_and_update().leads;
        let mut next = None;
        if leads {
            for due in due(&store.state(), &mut open, environment.now(), &mut next) {
                if under_way.len() < MOST_CALLS && !under_way.values().any(|id| *id == due.id) {
                    let id = due.id.clone();
                    let call = answer(store.clone(), environment.clone(), hooks.clone(), due);
                    under_way.insert(calls.spawn(call).id(), id);
                }
            }
        }
        let sleep = next.map(|at: UnixMillis| Duration::from_millis(u64::try_from(at.since(environment.now())).unwrap_or(0)));
        tokio::select! {
            biased;
            ended = calls.join_next_with_id(), if !calls.is_empty() => {
                let id = ended.map(|ended| ended.map_or_else(|error| error.id(), |(id, ())| id));
                id.into_iter().for_each(|id| drop(under_way.remove(&id)));
            }
            commits = watcher.next() => match commits {
                Ok(commits) => open.extend(commits.iter().flat_map(|commit| &commit.changes).filter_map(|change| match change {
                    Change::Put(Record::ServiceDeployment(one)) => place_if_open(one),
                    _ => None,
                })),
                Err(_) => {
                    let state = store.state();
                    watcher.resume_from(state.revision);
                    open = all_open(&state);
                }
            },
            // Fails only without a store.
            _ = membership.changed() => {}
            () = pause(sleep) => {}
        }
    }
}

async fn pause(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn is_callable(run: &&HookRun) -> bool {
    run.kind == HookKind::Lambda && run.is_open()
}

fn place_if_open(one: &ServiceDeployment) -> Option<Place> {
    let is_open = one.rollout.iter().flat_map(|rollout| &rollout.hooks).any(|run| is_callable(&run));
    is_open.then(|| (one.cluster.clone(), one.service.clone(), one.id))
}

fn all_open(state: &State) -> BTreeSet<Place> {
    let of = |service: &berth_model::service::Service| {
        let id = service.primary()?.service_deployment?;
        place_if_open(state.service_deployment(&service.cluster, &service.name, id)?)
    };
    state.services().filter_map(|service| of(service)).collect()
}

/// A hook to call now.
struct Due {
    place: Place,
    id: String,
}

/// The hooks that are due, by the records that `open` names; those that have nothing open are dropped from it. `next`: when another is.
fn due(state: &State, open: &mut BTreeSet<Place>, now: UnixMillis, next: &mut Option<UnixMillis>) -> Vec<Due> {
    let mut found = Vec::new();
    open.retain(|place| {
        let Some(record) = state.service_deployment(&place.0, &place.1, place.2) else { return false };
        let mut is_open = false;
        for run in record.rollout.iter().flat_map(|rollout| &rollout.hooks).filter(is_callable) {
            is_open = true;
            match run.call_at {
                Some(at) if at > now => *next = Some(next.map_or(at, |known| known.min(at))),
                // The stages are about to say so.
                _ if run.expires_at <= now => {}
                _ => found.push(Due { place: place.clone(), id: run.id.clone() }),
            }
        }
        is_open
    });
    found
}

/// What a call needs of its record.
struct Call {
    target: String,
    event: Vec<u8>,
    expires_at: UnixMillis,
}

fn read(state: &State, environment: &Environment, Due { place, id }: &Due) -> Option<Call> {
    let record = state.service_deployment(&place.0, &place.1, place.2)?;
    let run = record.rollout.as_ref()?.hooks.iter().filter(is_callable).find(|run| run.id == *id)?;
    let hook = record.configuration.lifecycle_hooks.as_ref().and_then(|hooks| hooks.get(run.hook));
    Some(Call {
        target: hook.and_then(|hook| hook.hook_target_arn.clone()).unwrap_or_default(),
        event: event::event(&environment.scope, record, run).to_string().into_bytes(),
        expires_at: run.expires_at,
    })
}

/// Calls a hook and commits what it answers. One that takes longer than its timeout is left to the stages, which know what that means.
async fn answer(store: Store, environment: Environment, hooks: Hooks, due: Due) {
    let Some(call) = read(&store.state(), &environment, &due) else { return };
    let left = Duration::from_millis(u64::try_from(call.expires_at.since(environment.now())).unwrap_or(0));
    let answered = match hooks.resolve(&call.target) {
        Err(error) => Err(error.to_string()),
        Ok(target) => match tokio::time::timeout(left.min(LONGEST_CALL), call::call(&target, call.event)).await {
            Ok(answered) => answered.map_err(|error| error.to_string()),
            Err(_) if left <= LONGEST_CALL => return,
            Err(_) => Err(format!("{target} did not answer within {} s", LONGEST_CALL.as_secs())),
        },
    };
    if let Err(error) = commit(&store, &environment, &due, &answered).await {
        tracing::warn!(%error, hook = due.id, service = %due.place.1, cluster = %due.place.0, "cannot commit a lifecycle hook's answer");
        tokio::time::sleep(AGAIN).await;
    }
}

async fn commit(
    store: &Store,
    environment: &Environment,
    Due { place, id }: &Due,
    answered: &Result<Vec<u8>, String>,
) -> Result<(), CommitError> {
    for _ in 0..TRIES {
        let mut transaction = Transaction::new();
        {
            let state = store.state();
            let Some(entry) = state.service_deployment(&place.0, &place.1, place.2) else { return Ok(()) };
            let mut record = (*entry.value).clone();
            let run = record.rollout.iter_mut().flat_map(|rollout| &mut rollout.hooks).find(|run| run.id == *id && run.is_open());
            // Nobody waits for it any more.
            let Some(run) = run else { return Ok(()) };
            let now = environment.now();
            event::settle(run, answered.as_deref().map_err(Clone::clone), now);
            record.updated_at = now;
            transaction.expect(Key::ServiceDeployment(place.0.clone(), place.1.clone(), place.2), entry.modified);
            transaction.put(record);
        }
        match store.commit(transaction).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(CommitError::Overloaded)
}
