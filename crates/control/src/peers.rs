//! Which server peer holds an agent's connection, and forgetting the connections of peers that are gone.
//!
//! A connection's number says both when it was opened and by whom, so that a later one is larger wherever it was opened.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus, Parting};
use berth_model::record::Key;
use berth_store::{CommitError, Entry, Membership, PeerNumber, Revision, State, Store, Transaction};

use crate::environment::Environment;
use crate::observe::TRIES;

/// How often the leader looks even if no peer came or went: one that is cut off may still note a connection after its end, and
/// what could not be forgotten is tried again.
const EVERY: Duration = Duration::from_secs(5);

/// How often it is tried again to forget connections while the store cannot write.
const AGAIN: Duration = Duration::from_secs(1);

/// The number of a connection that this peer opens, seeing this revision.
pub(crate) fn connection_number(seen: Revision, me: PeerNumber) -> u64 {
    (seen.0 + 1) << PeerNumber::BITS | u64::from(me)
}

/// The peer that opened a connection.
pub(crate) fn holder(connection: u64) -> PeerNumber {
    // The lower bits; the rest is the revision.
    connection as PeerNumber
}

/// Is a connection that this peer opened no longer the instance's? A later one was opened, or another peer took this one for dead.
pub(crate) fn is_over(instance: &ContainerInstance, connection: u64) -> bool {
    instance.status == ContainerInstanceStatus::Inactive
        || instance.connection > connection
        || (instance.connection == connection && !instance.agent_connected)
}

/// Is there really no such record? Another peer may have made it a moment ago, and this one not have seen it yet; if so it has
/// afterwards. Costs nothing where there are no peers.
///
/// # Errors
/// [`CommitError`].
pub(crate) async fn is_absent(store: &Store, key: Key) -> Result<bool, CommitError> {
    let mut transaction = Transaction::new();
    transaction.expect_absent(key);
    match store.commit(transaction).await {
        Ok(_) => Ok(true),
        Err(CommitError::Conflict(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Notes that agents are away whose connection, by its number, is gone.
///
/// # Errors
/// [`CommitError`].
pub(crate) async fn forget_connections(store: &Store, environment: &Environment, is_gone: impl Fn(u64) -> bool) -> Result<(), CommitError> {
    for _ in 0..TRIES {
        match forget_once(store, environment, &is_gone).await {
            // An agent is registered or connects meanwhile.
            Err(CommitError::Conflict(_)) => {}
            outcome => return outcome,
        }
    }
    Err(CommitError::Overloaded)
}

/// [`forget_connections`], again and again until the store writes: a server also starts on a full disk.
pub(crate) async fn forget_later(store: Store, environment: Environment, is_gone: impl Fn(u64) -> bool) {
    loop {
        tokio::time::sleep(AGAIN).await;
        match forget_connections(&store, &environment, &is_gone).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "cannot forget the connections of an earlier life yet"),
        }
    }
}

async fn forget_once(store: &Store, environment: &Environment, is_gone: &impl Fn(u64) -> bool) -> Result<(), CommitError> {
    let gone: Vec<_> = orphans(&store.state(), is_gone).into_values().collect();
    for batch in gone.chunks(store.max_changes()) {
        let mut transaction = Transaction::new();
        for entry in batch {
            let mut instance = (*entry.value).clone();
            instance.part(Parting::ServerEnded, environment.now());
            transaction.expect(Key::ContainerInstance(instance.id), entry.modified);
            transaction.put(instance);
        }
        store.commit(transaction).await?;
    }
    Ok(())
}

/// In an order of its own: the same state gives the same commits.
fn orphans(state: &State, is_gone: &impl Fn(u64) -> bool) -> BTreeMap<berth_model::ids::ContainerInstanceId, Entry<ContainerInstance>> {
    let orphaned = state.instances().filter(|instance| instance.agent_connected && is_gone(instance.connection));
    orphaned.map(|entry| (entry.id, entry.clone())).collect()
}

/// The leader forgets the connections of peers that die. Runs for ever where there are peers, else not at all.
pub(crate) async fn run(store: Store, environment: Environment) {
    let mut membership = store.membership();
    if *membership.borrow() == Membership::alone() {
        return;
    }
    loop {
        let now = membership.borrow_and_update().clone();
        let is_gone = |connection| !now.living.contains(&holder(connection));
        if now.leads
            && let Err(error) = forget_connections(&store, &environment, is_gone).await
        {
            tracing::warn!(%error, "cannot forget the connections of peers that are gone");
        }
        // Without a change it ends by the time; without a store, with the loops.
        let _ = tokio::time::timeout(EVERY, membership.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connections_number_grows_whoever_opens_it_and_names_its_peer() {
        assert_eq!(holder(connection_number(Revision(9), 700)), 700);
        assert!(connection_number(Revision(10), 0) > connection_number(Revision(9), PeerNumber::MAX));
    }
}
