//! Gives addresses back: the interface of a task that has stopped, however it stopped, or that is no longer known, is deleted, and its
//! task's attachment says so. It never touches the interface of a task that lives.

use std::sync::Arc;
use std::time::Duration;

use berth_model::record::{Key, Record};
use berth_model::task_interface::AttachmentStatus;
use berth_model::vpc::{NetworkInterface, ResourceId};
use berth_store::{Change, CommitError, Entry, State, Store, Transaction, Watcher};

/// Most interfaces of one commit; each is two changes.
const BATCH: usize = 100;
/// How often it looks even if nothing changes: another peer may have led before, or the store may have refused a write.
const EVERY: Duration = Duration::from_secs(60);

/// Interfaces whose task has stopped or is gone. Pure.
pub(super) fn released(state: &State) -> Vec<&Entry<NetworkInterface>> {
    let is_free = |one: &&Entry<NetworkInterface>| {
        let task = one.attachment.as_ref().and_then(|attachment| attachment.task);
        task.is_some_and(|id| state.task(id).is_none_or(|task| task.is_stopped()))
    };
    state.vpc_resources().interfaces().filter(is_free).collect()
}

/// What gives one of them back.
pub(super) fn write(state: &State, one: &Entry<NetworkInterface>, transaction: &mut Transaction) {
    let key = Key::VpcResource(ResourceId::NetworkInterface(one.id));
    transaction.expect(key.clone(), one.modified).delete(key);
    let task = one.attachment.as_ref().and_then(|attachment| attachment.task).and_then(|id| state.task(id));
    if let Some(entry) = task {
        let mut task = (*entry.value).clone();
        transaction.expect(Key::Task(task.id), entry.modified);
        if let Some(interface) = &mut task.interface {
            interface.advance(AttachmentStatus::Deleted);
        }
        transaction.put(Record::Task(Arc::new(task)));
    }
}

/// Runs for ever; works while this peer leads.
pub(crate) async fn run(store: Store) {
    let mut watcher = store.watch(store.state().revision);
    loop {
        let mut wait = EVERY;
        if store.leads() {
            let mut transaction = Transaction::new();
            let is_more = {
                let state = store.state();
                let found = released(&state);
                let most = BATCH.min(store.max_changes() / 2).max(1);
                found.iter().take(most).for_each(|one| write(&state, one, &mut transaction));
                found.len() > most
            };
            if !transaction.is_empty() {
                match store.commit(transaction).await {
                    Ok(_) if is_more => continue,
                    // What came between is looked at at once: it is a change as well.
                    Ok(_) => {}
                    Err(CommitError::Conflict(_)) => continue,
                    Err(CommitError::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "cannot give the addresses of stopped tasks back");
                        wait = Duration::from_secs(1);
                    }
                }
            }
        }
        let _ = tokio::time::timeout(wait, until_something_changes(&store, &mut watcher)).await;
    }
}

/// Waits for a task with an interface that stopped, or that is forgotten.
async fn until_something_changes(store: &Store, watcher: &mut Watcher) {
    let concerns = |change: &Change| match change {
        Change::Put(Record::Task(task)) => task.is_stopped() && task.interface.is_some(),
        Change::Delete(Key::Task(_)) => true,
        _ => false,
    };
    loop {
        match watcher.next().await {
            Ok(commits) if !commits.iter().flat_map(|commit| &commit.changes).any(concerns) => {}
            Ok(_) => return,
            Err(_) => {
                // Too far behind to be told; it looks at everything anyway.
                watcher.resume_from(store.state().revision);
                return;
            }
        }
    }
}
