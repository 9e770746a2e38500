//! One place for each attachment: calls for one id follow one another, calls for different ids run at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::interface::is_plain;
use crate::port::{AttachmentId, NetworkError};

/// The place of one id; locked while something is done for it.
type Slot<E> = Arc<Mutex<Option<E>>>;

/// The places of all ids that have something, or for which something is being done.
#[derive(Debug)]
pub struct Slots<E>(Mutex<BTreeMap<AttachmentId, Slot<E>>>);

impl<E> Slots<E> {
    /// Places that are taken.
    pub fn new(entries: impl IntoIterator<Item = (AttachmentId, E)>) -> Self {
        Self(Mutex::new(entries.into_iter().map(|(id, entry)| (id, Arc::new(Mutex::new(Some(entry))))).collect()))
    }

    /// Does something at the place of an id, alone.
    pub fn at<T>(&self, id: &AttachmentId, work: impl FnOnce(&mut Option<E>) -> T) -> T {
        let slot = Arc::clone(self.0.lock().entry(id.clone()).or_default());
        let outcome = work(&mut slot.lock());
        drop(slot);
        let mut slots = self.0.lock();
        // While another call holds the place, that call will remove it at its end.
        if slots.get(id).is_some_and(|slot| Arc::strong_count(slot) == 1 && slot.lock().is_none()) {
            slots.remove(id);
        }
        outcome
    }

    /// Looks at every place that is taken, in order of ids.
    pub fn map<T>(&self, look: impl Fn(&E) -> T) -> Vec<T> {
        let slots: Vec<Slot<E>> = {
            let mut slots = self.0.lock();
            // A place that was looked at here while its last call ended has nobody else to remove it.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.lock().is_some());
            slots.values().cloned().collect()
        };
        slots.iter().filter_map(|slot| slot.lock().as_ref().map(&look)).collect()
    }

    /// Sets `closed`, unless a place is taken. Whoever takes a place must look at it with the place locked.
    pub fn close(&self, closed: &AtomicBool) -> bool {
        let slots = self.0.lock();
        closed.store(true, Ordering::SeqCst);
        if slots.values().any(|slot| slot.lock().is_some()) {
            closed.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }
}

/// Says whether an id can be part of paths.
///
/// # Errors
/// [`NetworkError::System`].
pub fn check(id: &AttachmentId) -> Result<(), NetworkError> {
    if is_plain(&id.0) {
        return Ok(());
    }
    let shown: String = id.0.chars().take(80).collect();
    Err(NetworkError::System(format!("attachment id {shown:?}: expected 1 to 64 of a-z, 0-9 and -")))
}
