//! Forgets the connections of tasks that are over, beside everything else: the kernel takes milliseconds to look through its table, whether one
//! task is over or a hundred.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::conntrack;

/// Addresses whose connections are still to be forgotten.
#[derive(Debug, Default)]
pub struct Forgetting {
    state: Mutex<State>,
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    spent: BTreeSet<IpAddr>,
    is_running: bool,
}

impl Forgetting {
    /// Has the connections of addresses forgotten soon. The calling thread must be in the machine's own namespace.
    pub fn spend(self: &Arc<Self>, addresses: impl Iterator<Item = IpAddr>) {
        let mut state = self.state.lock();
        state.spent.extend(addresses);
        if state.is_running {
            return;
        }
        let own = Arc::clone(self);
        let started = thread::Builder::new().name("berth-forget".into()).stack_size(256 << 10).spawn(move || own.run());
        match started {
            Ok(_) => state.is_running = true,
            Err(error) => {
                tracing::warn!(%error, "connections of tasks that are over stay known for now");
                state.spent.clear();
            }
        }
    }

    /// Waits until nothing of what these addresses had before is known: who was let in to one task must not be let in to the next one that
    /// gets its address.
    pub fn settle(&self, addresses: &BTreeSet<IpAddr>) {
        let mut state = self.state.lock();
        while !state.spent.is_disjoint(addresses) {
            self.progress.wait(&mut state);
        }
    }

    fn run(&self) {
        loop {
            let batch = {
                let mut state = self.state.lock();
                if state.spent.is_empty() {
                    state.is_running = false;
                    return;
                }
                state.spent.clone()
            };
            if let Err(error) = conntrack::forget_addresses(&batch) {
                tracing::warn!(%error, "connections of tasks that are over are still known");
            }
            self.state.lock().spent.retain(|address| !batch.contains(address));
            self.progress.notify_all();
        }
    }
}
