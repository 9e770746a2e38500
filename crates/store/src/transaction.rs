//! What a commit is made of.

use std::fmt;

use berth_model::record::{Key, Record};
use serde::{Deserialize, Serialize};

/// The number of a commit: greater than that of every earlier one, never reused. Where others use the same etcd, or with
/// changes that are no commits, numbers are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A condition of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// There is no such record.
    Absent(Key),
    /// The record's last change was this commit.
    Unchanged(Key, Revision),
}

/// A change of one record.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Writes a record.
    Put(Record),
    /// Counts a record's version up without changing it, so that other commits conditional on it conflict.
    Touch(Key),
    /// Removes a record; no error if there is none.
    Delete(Key),
}

impl Change {
    /// Which record it changes.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put(record) => record.key(),
            Self::Touch(key) | Self::Delete(key) => key.clone(),
        }
    }
}

/// An atomic conditional change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transaction {
    /// All must hold.
    pub expects: Vec<Expect>,
    /// All happen, in this order.
    pub changes: Vec<Change>,
}

impl Transaction {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition: the record was last changed by `revision`.
    pub fn expect(&mut self, key: Key, revision: Revision) -> &mut Self {
        self.expects.push(Expect::Unchanged(key, revision));
        self
    }

    /// Adds a condition: there is no such record.
    pub fn expect_absent(&mut self, key: Key) -> &mut Self {
        self.expects.push(Expect::Absent(key));
        self
    }

    /// Writes a record.
    pub fn put(&mut self, record: impl Into<Record>) -> &mut Self {
        self.changes.push(Change::Put(record.into()));
        self
    }

    /// Counts a record's version up.
    pub fn touch(&mut self, key: Key) -> &mut Self {
        self.changes.push(Change::Touch(key));
        self
    }

    /// Removes a record.
    pub fn delete(&mut self, key: Key) -> &mut Self {
        self.changes.push(Change::Delete(key));
        self
    }

    /// It changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Why a commit did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A condition does not hold: somebody changed the record meanwhile. Read again, decide again.
    #[error("{0} was changed meanwhile")]
    Conflict(Key),
    /// The queue of commits is full.
    #[error("too many commits are waiting")]
    Overloaded,
    /// The backend cannot write (disk full, I/O error, etcd away, too large for etcd).
    #[error("the store cannot write: {0}")]
    Backend(String),
    /// No answer came, and what became of the commit could not be found out: it may have happened, or still happen.
    #[error("it is unknown whether the store has written: {0}")]
    Unknown(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}
