//! The server's disk: outlives the server, gives back what was made durable (read through JSON, as from a file), and at times refuses
//! to write. It also tells when somebody writes whose life is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::record::{Key, Record};
use berth_store::Revision;
use berth_store::backend::{Backend, BackendError, Stored, Write};
use parking_lot::Mutex;

/// A disk. Clones share it.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Platters>>);

#[derive(Default)]
struct Platters {
    records: BTreeMap<Key, Stored>,
    revision: u64,
    life: u64,
    full: bool,
    /// Sabotage: writes of this task are not done; `Some(None)` means the next task that is written.
    loses: Option<Option<Key>>,
    written_by_the_dead: u64,
}

impl Disk {
    /// The backend of a new life of the server; what an older one still writes is refused and counted.
    #[must_use]
    pub fn mount(&self) -> impl Backend {
        let mut platters = self.0.lock();
        platters.life += 1;
        Mounted { disk: self.clone(), life: platters.life }
    }

    /// Nobody writes any more until the next [`Disk::mount`].
    pub fn unmount(&self) {
        self.0.lock().life += 1;
    }

    /// Whether writing fails from now on.
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// Sabotage, to see whether somebody notices: from now on the writes of one task are acknowledged and not done.
    pub fn lose_a_task(&self) {
        self.0.lock().loses = Some(None);
    }

    /// How often a server wrote that was dead.
    #[must_use]
    pub fn written_by_the_dead(&self) -> u64 {
        self.0.lock().written_by_the_dead
    }
}

struct Mounted {
    disk: Disk,
    life: u64,
}

impl Backend for Mounted {
    fn revision(&mut self) -> Result<Revision, BackendError> {
        Ok(Revision(self.disk.0.lock().revision))
    }

    fn load(&mut self, sink: &mut dyn FnMut(Write)) -> Result<(), BackendError> {
        for (key, stored) in &self.disk.0.lock().records {
            let damaged = |error: serde_json::Error| BackendError::Damaged { at: key.to_string(), reason: error.to_string() };
            let json = serde_json::to_string(&stored.record).map_err(damaged)?;
            let record: Record = serde_json::from_str(&json).map_err(damaged)?;
            sink(Write::Put(Stored { record, ..stored.clone() }));
        }
        Ok(())
    }

    fn persist(&mut self, writes: &[Write], revision: Revision) -> Result<(), BackendError> {
        let mut platters = self.disk.0.lock();
        if platters.life != self.life {
            platters.written_by_the_dead += 1;
            return Err(BackendError::Io("this server is dead".to_owned()));
        }
        if platters.full {
            return Err(BackendError::Io("no space left on the disk".to_owned()));
        }
        for write in writes {
            match write {
                Write::Put(stored) => {
                    let key = stored.record.key();
                    if platters.loses == Some(None) && matches!(stored.record, Record::Task(_)) {
                        platters.loses = Some(Some(key.clone()));
                    }
                    if platters.loses.as_ref().and_then(Option::as_ref) != Some(&key) {
                        platters.records.insert(key, stored.clone());
                    }
                }
                Write::Touch { key, modified, version } => {
                    if let Some(stored) = platters.records.get_mut(key) {
                        (stored.modified, stored.version) = (*modified, *version);
                    }
                }
                Write::Delete(key) => {
                    platters.records.remove(key);
                }
            }
        }
        platters.revision = revision.0;
        Ok(())
    }
}
