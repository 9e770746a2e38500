//! One transaction at etcd: what is sent, what its answer means, and what is done when no answer comes.
//!
//! Every transaction that writes is conditional on at least one record that it writes; where the caller gave no such
//! condition one is added. So it can be sent again without happening twice: a second one finds the first's work and is
//! refused, and then the commits of this peer's own watch tell whose work it was.

use std::collections::{HashMap, HashSet};

use berth_model::record::Key;
use prost::Message;
use tokio::time::{Duration, Instant};

use super::members::{CallError, Pauses};
use super::rpc::{self, Compare, DeleteRangeRequest, PutRequest, RangeRequest, Request, Response, TxnRequest, TxnResponse};
use super::{Common, MAX_BYTES, MAX_OPERATIONS, Outcome};
use crate::state::State;
use crate::transaction::{Change, CommitError, Expect, Revision, Transaction};
use crate::watch::Commit;

/// How often a transaction is planned again because a record changed on which only the store's own condition lay.
const TRIES: usize = 64;
/// How long the watch may take to show what etcd has already answered.
const WATCH_PATIENCE: Duration = Duration::from_secs(10);

/// A transaction as it is sent.
struct Plan {
    request: TxnRequest,
    /// The records on which conditions lie, in the order in which a refusal tells of them.
    compared: Vec<Key>,
    /// At most one change a record.
    changes: Vec<Change>,
    /// Records that were to be put and that this peer's state already showed as they are put.
    same: HashSet<Key>,
    /// This peer's state when it was planned.
    before: Revision,
}

/// How a commit relates to what a plan does; of several changes the worst counts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    Same,
    Perhaps,
    Other,
}

/// What a refusal comes to.
enum Refusal {
    /// The caller's condition does not hold, or the transaction had happened before.
    Final(Outcome),
    /// Only a condition of the store's own does not hold.
    Again,
}

/// Commits; returns once this peer's state shows what etcd did.
pub(super) async fn commit(common: &Common, transaction: Transaction, deadline: Instant) -> Outcome {
    for _ in 0..TRIES {
        let plan = match Plan::make(common, &transaction) {
            Ok(plan) => plan,
            Err(outcome) => return outcome,
        };
        match send(common, &transaction, plan, deadline).await {
            Refusal::Final(outcome) => return outcome,
            Refusal::Again => {}
        }
    }
    Err(CommitError::Overloaded)
}

impl Plan {
    /// `Err`: the outcome is known without asking etcd.
    fn make(common: &Common, transaction: &Transaction) -> Result<Self, Outcome> {
        let (address, state) = (&common.address, common.shared.state.read());
        if let Some(key) = known_conflict(&state, transaction) {
            return Err(Err(CommitError::Conflict(key)));
        }
        if transaction.is_empty() && transaction.expects.is_empty() {
            return Err(Ok(state.revision));
        }
        let mut compared = Vec::new();
        let mut request = TxnRequest::default();
        for expect in &transaction.expects {
            let (key, compare) = match expect {
                Expect::Absent(key) => (key, Compare::absent(address.record(key))),
                Expect::Unchanged(key, revision) => (key, Compare::unchanged(address.record(key), number(*revision))),
            };
            compared.push(key.clone());
            request.compare.push(compare);
        }
        let mut changes = one_a_record(&transaction.changes);
        // Nothing is touched that is not there, and etcd refuses to.
        changes.retain(|change| !matches!(change, Change::Touch(key) if state.counters(key).is_none() && !compared.contains(key)));
        let mut guarded = changes.iter().any(|change| compared.contains(&change.key()));
        for change in &changes {
            let key = change.key();
            let alone = matches!(change, Change::Touch(_)) && !compared.contains(&key);
            if alone || !guarded {
                request.compare.push(match state.counters(&key) {
                    Some((_, modified, _)) => Compare::unchanged(address.record(&key), number(modified)),
                    None => Compare::absent(address.record(&key)),
                });
                compared.push(key.clone());
                guarded = true;
            }
            request.success.push(operation(address.record(&key), change).map_err(|reason| Err(CommitError::Backend(reason)))?.into());
        }
        let get = |key| Request::Range(RangeRequest { key: address.record(key), keys_only: true, ..Default::default() }).into();
        request.failure = compared.iter().map(get).collect();
        check_size(&request)?;
        let same = changes.iter().filter(|change| matches!(change, Change::Put(record) if state.holds(record))).map(Change::key).collect();
        Ok(Self { request, compared, changes, same, before: state.revision })
    }

    /// Is this commit what the plan does?
    fn likeness(&self, commit: &Commit) -> Likeness {
        let mine: HashMap<Key, &Change> = self.changes.iter().map(|change| (change.key(), change)).collect();
        let writes = self.changes.iter().filter(|change| !matches!(change, Change::Delete(_))).count();
        let theirs = commit.changes.iter().filter(|change| !matches!(change, Change::Delete(_))).count();
        if writes != theirs || commit.changes.is_empty() {
            return Likeness::Other;
        }
        let same = |change: &Change| match (mine.get(&change.key()), change) {
            (Some(Change::Put(mine)), Change::Put(theirs)) if mine == theirs => Likeness::Same,
            (Some(Change::Touch(_)), Change::Touch(_)) | (Some(Change::Delete(_)), Change::Delete(_)) => Likeness::Same,
            // A record put as it was before shows as a touch. If it was another before, it is somebody else who touched it; without a
            // condition on it nobody knows what it was.
            (Some(Change::Put(mine)), Change::Touch(key)) if self.same.contains(&mine.key()) && self.compared.contains(key) => {
                Likeness::Same
            }
            (Some(Change::Put(_)), Change::Touch(key)) if !self.compared.contains(key) => Likeness::Perhaps,
            _ => Likeness::Other,
        };
        commit.changes.iter().map(same).max().unwrap_or(Likeness::Other)
    }
}

/// A condition that this peer's state shows to be broken. What the state does not show yet is etcd's to say.
fn known_conflict(state: &State, transaction: &Transaction) -> Option<Key> {
    transaction.expects.iter().find_map(|expect| match expect {
        Expect::Absent(key) => state.counters(key).is_some().then(|| key.clone()),
        Expect::Unchanged(key, revision) => {
            let holds = state.counters(key).is_some_and(|(_, modified, _)| modified == *revision);
            (!holds && *revision <= state.revision).then(|| key.clone())
        }
    })
}

/// etcd takes one change a record in a transaction: the last one, unless that is a touch of what was just written.
fn one_a_record(changes: &[Change]) -> Vec<Change> {
    let mut places: HashMap<Key, usize> = HashMap::new();
    let mut last: Vec<Change> = Vec::with_capacity(changes.len());
    for change in changes {
        match (places.get(&change.key()), change) {
            (Some(_), Change::Touch(_)) => {}
            (Some(place), change) => last[*place] = change.clone(),
            (None, change) => {
                places.insert(change.key(), last.len());
                last.push(change.clone());
            }
        }
    }
    last
}

fn operation(key: Vec<u8>, change: &Change) -> Result<Request, String> {
    Ok(match change {
        Change::Put(record) => {
            let value = serde_json::to_vec(record).map_err(|error| format!("{} cannot be written: {error}", record.key()))?;
            Request::Put(PutRequest { key, value, ..Default::default() })
        }
        Change::Touch(_) => Request::Put(PutRequest { key, ignore_value: true, ..Default::default() }),
        Change::Delete(_) => Request::Delete(DeleteRangeRequest { key }),
    })
}

fn check_size(request: &TxnRequest) -> Result<(), Outcome> {
    let refuse = |what: String| Err(Err(CommitError::Backend(what)));
    let operations = request.compare.len().max(request.success.len());
    if operations > MAX_OPERATIONS {
        return refuse(format!("the commit has {operations} changes or conditions, etcd takes {MAX_OPERATIONS}"));
    }
    let bytes = request.encoded_len();
    if bytes > MAX_BYTES {
        return refuse(format!("the commit has {bytes} bytes, etcd takes {MAX_BYTES}"));
    }
    Ok(())
}

/// Sends a plan until it is answered.
async fn send(common: &Common, transaction: &Transaction, plan: Plan, deadline: Instant) -> Refusal {
    let mut pauses = Pauses::default();
    let mut last = "etcd has answered nothing for too long".to_owned();
    // An earlier try may have happened.
    let mut doubt = false;
    while Instant::now() < deadline {
        match common.members.once::<_, TxnResponse>(rpc::TXN, plan.request.clone()).await {
            Ok(answer) if answer.succeeded => return Refusal::Final(done(common, &answer).await),
            Ok(answer) => return refused(common, transaction, &plan, &answer, doubt).await,
            Err(error) => {
                if let CallError::Refused { .. } = error {
                    return Refusal::Final(Err(failure(doubt, error.to_string())));
                }
                doubt |= matches!(error, CallError::Unanswered { .. });
                last = error.to_string();
            }
        }
        pauses.pause().await;
    }
    Refusal::Final(Err(failure(doubt, last)))
}

fn failure(doubt: bool, what: String) -> CommitError {
    if doubt { CommitError::Unknown(what) } else { CommitError::Backend(what) }
}

async fn done(common: &Common, answer: &TxnResponse) -> Outcome {
    let wrote = answer.responses.iter().any(|response| match &response.response {
        Some(Response::Put(_)) => true,
        Some(Response::Delete(delete)) => delete.deleted > 0,
        _ => false,
    });
    if !wrote {
        return Ok(common.shared.state.read().revision);
    }
    let revision = super::replica::revision(answer.revision());
    if super::shown(&common.shared, revision, Instant::now() + WATCH_PATIENCE).await {
        return Ok(revision);
    }
    Err(CommitError::Unknown(format!("it is etcd's revision {revision}, but etcd's watch does not show it")))
}

/// A condition does not hold. Waits until this peer's state shows why, since callers decide again by that state.
async fn refused(common: &Common, transaction: &Transaction, plan: &Plan, answer: &TxnResponse, doubt: bool) -> Refusal {
    let found = answer.responses.iter().map(|response| match &response.response {
        Some(Response::Range(range)) => range.kvs.first().map(|kv| super::replica::revision(kv.mod_revision)),
        _ => None,
    });
    let found: HashMap<&Key, Option<Revision>> = plan.compared.iter().zip(found).collect();
    if !caught_up(common, &found, super::replica::revision(answer.revision())).await {
        return Refusal::Final(Err(failure(doubt, "etcd's watch does not show what etcd has".to_owned())));
    }
    if doubt {
        let mut perhaps = false;
        let found = common.shared.log.find(plan.before, |commit| {
            let likeness = plan.likeness(commit);
            perhaps |= likeness == Likeness::Perhaps;
            likeness == Likeness::Same
        });
        match found {
            Ok(Some(revision)) => return Refusal::Final(Ok(revision)),
            Ok(None) if perhaps => return Refusal::Final(Err(failure(true, "another commit looks like it".to_owned()))),
            Ok(None) => {}
            Err(compacted) => return Refusal::Final(Err(failure(true, compacted.to_string()))),
        }
    }
    let broken = transaction.expects.iter().find_map(|expect| {
        let (key, holds) = match expect {
            Expect::Absent(key) => (key, found.get(key).is_some_and(Option::is_none)),
            Expect::Unchanged(key, revision) => (key, found.get(key) == Some(&Some(*revision))),
        };
        (!holds).then(|| key.clone())
    });
    match broken {
        Some(key) => Refusal::Final(Err(CommitError::Conflict(key))),
        None => Refusal::Again,
    }
}

/// Waits until the state shows the records as etcd had them at a revision, or as they were later.
async fn caught_up(common: &Common, found: &HashMap<&Key, Option<Revision>>, at: Revision) -> bool {
    let shows = || {
        let state = common.shared.state.read();
        found.iter().all(|(key, modified)| match modified {
            Some(modified) => state.revision >= *modified,
            None => state.counters(key).is_none() || state.revision >= at,
        })
    };
    tokio::time::timeout(WATCH_PATIENCE, common.shared.log.until(shows)).await.is_ok()
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
