//! The only right to work on something, by its name: two pulls that want the same thing follow each other.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Rights that are out or waited for. Names that nobody wants are forgotten.
#[derive(Default)]
pub(crate) struct Turns {
    known: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits for the only right to work on `name`.
    pub(crate) async fn wait(&self, name: &str) -> OwnedMutexGuard<()> {
        self.turn(name).lock_owned().await
    }

    /// The right to work on `name`, unless somebody has it.
    pub(crate) fn try_take(&self, name: &str) -> Option<OwnedMutexGuard<()>> {
        self.turn(name).try_lock_owned().ok()
    }

    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut known = self.known.lock();
        known.retain(|_, turn| turn.strong_count() > 0);
        known.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turn = Arc::new(tokio::sync::Mutex::new(()));
            known.insert(name.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }
}
