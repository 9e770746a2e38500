//! Which server peers share the store, and which of them runs the loops.

use std::collections::BTreeSet;

/// A peer's number: no two living peers have the same. A store that one process has alone gives it 0.
pub type PeerNumber = u16;

/// The peers, as this one last heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// This peer.
    pub me: PeerNumber,
    /// This peer runs the loops. At most one does, but for the moment in which one that was cut off has not noticed yet:
    /// conditional commits make that harmless.
    pub leads: bool,
    /// All peers that are alive, this one too.
    pub living: BTreeSet<PeerNumber>,
}

impl Membership {
    /// A process that has its store for itself.
    #[must_use]
    pub fn alone() -> Self {
        Self { me: 0, leads: true, living: BTreeSet::from([0]) }
    }
}
