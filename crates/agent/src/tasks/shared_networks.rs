//! Networks that several containers of a task have in common: made with the first that needs one, taken back with the last.
//!
//! Knows only who holds what; a container that comes after the last one went gets the network made anew, as it was.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use berth_network::port::{AttachmentId, NetworkError};
use berth_runtime::port::ContainerId;
use parking_lot::Mutex;

type Holders = Arc<tokio::sync::Mutex<HashSet<ContainerId>>>;

/// Who holds which network.
#[derive(Debug, Default)]
pub struct SharedNetworks(Mutex<HashMap<AttachmentId, Holders>>);

impl SharedNetworks {
    /// Makes a network, or finds it made, and holds it for a container. After a failure it is held as before.
    pub async fn join<T>(
        &self,
        network: &AttachmentId,
        container: &ContainerId,
        make: impl Future<Output = Result<T, NetworkError>>,
    ) -> Result<T, NetworkError> {
        let holders = self.of(network);
        let outcome = {
            // Held all the while: the last one's leaving must not take away what this one was just given.
            let mut held = holders.lock().await;
            let made = make.await;
            if made.is_ok() {
                held.insert(container.clone());
            }
            made
        };
        self.forget(network, holders);
        outcome
    }

    /// Lets go for a container; takes the network back if nobody else holds it. After a failure it is nobody's, and taking it back may be
    /// tried again.
    pub async fn leave(
        &self,
        network: &AttachmentId,
        container: &ContainerId,
        take_back: impl Future<Output = Result<(), NetworkError>>,
    ) -> Result<(), NetworkError> {
        let holders = self.of(network);
        let outcome = {
            let mut held = holders.lock().await;
            held.remove(container);
            if held.is_empty() { take_back.await } else { Ok(()) }
        };
        self.forget(network, holders);
        outcome
    }

    /// Holds a network that was made in an earlier life of the agent.
    pub fn found(&self, network: &AttachmentId, container: &ContainerId) {
        let holders = self.of(network);
        holders.try_lock().expect("nothing is driven yet").insert(container.clone());
    }

    fn of(&self, network: &AttachmentId) -> Holders {
        self.0.lock().entry(network.clone()).or_default().clone()
    }

    fn forget(&self, network: &AttachmentId, holders: Holders) {
        drop(holders);
        let mut all = self.0.lock();
        let is_over = |holders: &Holders| Arc::strong_count(holders) == 1 && holders.try_lock().is_ok_and(|held| held.is_empty());
        if all.get(network).is_some_and(is_over) {
            all.remove(network);
        }
    }
}
