//! Tells sessions which of their tasks changed. The commit itself is the message: this follows the store's watch and
//! marks task ids; a session reads what they are now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::record::Record;
use berth_store::{Change, Store};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::lag::Lag;
use crate::loops::Loops;
use crate::meter::Meter;
use crate::peers::is_over;

/// What a session has to look at. Bounded by the number of tasks on its instance.
#[derive(Default)]
pub(crate) struct Inbox {
    tasks: Mutex<Pending>,
    wake: Notify,
    /// The session's connection.
    connection: u64,
}

#[derive(Default)]
pub(crate) struct Pending {
    /// These changed.
    pub(crate) tasks: BTreeSet<TaskId>,
    /// Look at all of them.
    pub(crate) everything: bool,
    /// Another connection took over, or the instance was deregistered: end.
    pub(crate) end: bool,
    /// Something says that the agent may be away.
    pub(crate) pulse: bool,
}

impl Inbox {
    /// Waits until there is something, and takes it.
    pub(crate) async fn next(&self) -> Pending {
        loop {
            let woken = self.wake.notified();
            let pending = std::mem::take(&mut *self.tasks.lock());
            if pending.end || pending.everything || pending.pulse || !pending.tasks.is_empty() {
                return pending;
            }
            woken.await;
        }
    }

    /// The session is to end.
    pub(crate) fn end(&self) {
        self.mark(|pending| pending.end = true);
    }

    fn mark(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.tasks.lock());
        self.wake.notify_one();
    }
}

// Ordered, so that sessions are always woken in the same order.
type Sessions = Mutex<BTreeMap<ContainerInstanceId, Arc<Inbox>>>;

/// The open sessions by container instance.
#[derive(Clone)]
pub(crate) struct Dispatch {
    sessions: Arc<Sessions>,
}

impl Dispatch {
    pub(crate) fn start(store: Store, loops: &Loops, meter: &Meter) -> Self {
        let sessions = Arc::new(Sessions::default());
        loops.spawn(follow(store, Arc::clone(&sessions), Lag::new(meter.lag_of("dispatch"))));
        Self { sessions }
    }

    /// Opens an instance's inbox; an older session of the same instance is told to end.
    pub(crate) fn open(&self, instance: ContainerInstanceId, connection: u64) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox { connection, ..Inbox::default() });
        if let Some(older) = self.sessions.lock().insert(instance, Arc::clone(&inbox)) {
            older.mark(|pending| pending.end = true);
        }
        inbox
    }

    /// Has an instance's session ask its agent for its pulse now, if one is open.
    pub(crate) fn ask_pulse(&self, instance: ContainerInstanceId) {
        if let Some(inbox) = self.sessions.lock().get(&instance) {
            inbox.mark(|pending| pending.pulse = true);
        }
    }

    /// Closes an inbox, unless a newer session has taken its place.
    pub(crate) fn close(&self, instance: ContainerInstanceId, inbox: &Arc<Inbox>) {
        let mut sessions = self.sessions.lock();
        if sessions.get(&instance).is_some_and(|open| Arc::ptr_eq(open, inbox)) {
            sessions.remove(&instance);
        }
    }
}

async fn follow(store: Store, sessions: Arc<Sessions>, mut lag: Lag) {
    let from = store.state().revision;
    let mut watcher = store.watch(from);
    loop {
        match lag.during(watcher.next()).await {
            Ok(commits) => {
                lag.acts();
                let sessions = sessions.lock();
                for change in commits.iter().flat_map(|commit| &commit.changes) {
                    match change {
                        Change::Put(Record::Task(task)) => {
                            if let Some(inbox) = sessions.get(&task.container_instance) {
                                inbox.mark(|pending| {
                                    pending.tasks.insert(task.id);
                                });
                            }
                        }
                        Change::Put(Record::ContainerInstance(instance)) => {
                            if let Some(inbox) = sessions.get(&instance.id).filter(|inbox| is_over(instance, inbox.connection)) {
                                inbox.mark(|pending| pending.end = true);
                            }
                        }
                        _ => {}
                    }
                }
            }
            Err(_) => {
                let state = store.state();
                watcher.resume_from(state.revision);
                for (id, inbox) in sessions.lock().iter() {
                    let end = state.instance(*id).is_none_or(|instance| is_over(instance, inbox.connection));
                    inbox.mark(|pending| {
                        pending.everything = true;
                        pending.end |= end;
                    });
                }
            }
        }
    }
}
