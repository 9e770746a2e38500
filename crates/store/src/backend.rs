//! What keeps commits durable.

use berth_model::record::{Key, Record};

use crate::transaction::Revision;

/// Why a backend cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Another process has this store open.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// What it holds cannot be read.
    #[error("the store is damaged at {at}: {reason}")]
    Damaged {
        /// Which record.
        at: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It was written by a newer Berth.
    #[error("the store has schema {found}, this Berth knows {known} at most; start a newer Berth")]
    NewerSchema {
        /// The file's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The disk is full. A store that is open writes again as soon as there is room.
    #[error("the disk is full; free some space")]
    NoSpace,
    /// Records can only be brought into a store that never had any.
    #[error("the store is not empty")]
    NotEmpty,
    /// A restore into it was begun and has not ended: what is there is not whole, and nothing of it is served.
    #[error("{0} holds a part of a backup whose restore did not end; run it again with the same backup, or remove all keys of the prefix")]
    HalfRestored(String),
    /// A record is too large for it.
    #[error("{key} has {bytes} bytes, the store takes {most}")]
    TooLarge {
        /// Which record.
        key: String,
        /// As it would be written.
        bytes: usize,
        /// What is taken.
        most: usize,
    },
    /// Input or output failed.
    #[error("{0}")]
    Io(String),
}

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// The commit that created it.
    pub created: Revision,
    /// The commit that changed it last.
    pub modified: Revision,
    /// How often it was written since it was created.
    pub version: u64,
}

/// A change as it is to be kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// The whole record.
    Put(Stored),
    /// Only the counters of an existing record.
    Touch {
        /// Which.
        key: Key,
        /// The commit.
        modified: Revision,
        /// The new version.
        version: u64,
    },
    /// Nothing is left of it.
    Delete(Key),
}

impl Write {
    /// Which record it writes.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put(stored) => stored.record.key(),
            Self::Touch { key, .. } | Self::Delete(key) => key.clone(),
        }
    }
}

/// Keeps commits. One caller at a time; conditions are checked before.
pub trait Backend: Send + 'static {
    /// The last durable revision.
    ///
    /// # Errors
    /// [`BackendError`].
    fn revision(&mut self) -> Result<Revision, BackendError>;

    /// Gives all that was written, so that the last write of a record is what it is now.
    ///
    /// # Errors
    /// [`BackendError`].
    fn load(&mut self, sink: &mut dyn FnMut(Write)) -> Result<(), BackendError>;

    /// Makes a batch of commits durable, all or none; `revision` is that of the last.
    ///
    /// # Errors
    /// [`BackendError`]; then nothing of the batch was kept.
    fn persist(&mut self, writes: &[Write], revision: Revision) -> Result<(), BackendError>;

    /// Nothing waits to be written: a good moment for a short piece of housekeeping. Whether there is more to do.
    fn idle(&mut self) -> bool {
        false
    }

    /// There is something that would hold up one of the next commits and could be done before: [`Backend::lull`] does it.
    fn wants_lull(&self) -> bool {
        false
    }

    /// Nothing waits to be written at this moment, though it may in the next: what [`Backend::wants_lull`] said is done, in about a
    /// millisecond.
    fn lull(&mut self) {}
}

/// Keeps nothing beyond the process's life. For tests and simulation.
#[derive(Debug, Default)]
pub struct Memory;

impl Backend for Memory {
    fn revision(&mut self) -> Result<Revision, BackendError> {
        Ok(Revision(0))
    }

    fn load(&mut self, _sink: &mut dyn FnMut(Write)) -> Result<(), BackendError> {
        Ok(())
    }

    fn persist(&mut self, _writes: &[Write], _revision: Revision) -> Result<(), BackendError> {
        Ok(())
    }
}
