//! What bounds the edge: connections, bytes of bodies in memory, requests at work. What goes beyond is refused at once, in
//! AWS's words, so that clients back off; it never waits in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::failure::Failure;

/// Bytes of requests' bodies held in memory, all connections together.
const BODY_BYTES: usize = 64 * 1024 * 1024;
/// Requests worked on at once: what a few milliseconds of one processor can do.
const REQUESTS: usize = 1_024;
/// Backups taken at once: each keeps alive what it has not written yet, however old that has become meanwhile.
const BACKUPS: usize = 2;

/// A number of things of which only so many may be there.
#[derive(Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    most: usize,
}

/// Some of a budget; given back when it is dropped.
pub(crate) struct Share {
    budget: Budget,
    size: usize,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Self {
        Self { used: Arc::default(), most }
    }

    /// Nothing yet of the budget.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), size: 0 }
    }

    /// How much is taken.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Takes more; `false` if there is not that much.
    pub(crate) fn grow(&mut self, by: usize) -> bool {
        let budget = &self.budget;
        let within = |used: usize| used.checked_add(by).filter(|sum| *sum <= budget.most);
        let taken = budget.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, within).is_ok();
        self.size += if taken { by } else { 0 };
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.size, Ordering::AcqRel);
    }
}

/// The edge's budgets.
pub(crate) struct Limits {
    pub(crate) body_bytes: Budget,
    pub(crate) requests: Budget,
    pub(crate) backups: Budget,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: Budget::new(BODY_BYTES), requests: Budget::new(REQUESTS), backups: Budget::new(BACKUPS) }
    }
}

impl Limits {
    /// A request's place among those at work.
    pub(crate) fn start_request(&self) -> Result<Share, Failure> {
        let mut place = self.requests.share();
        if place.grow(1) { Ok(place) } else { Err(throttled()) }
    }
}

/// AWS's answer to more than it wants to serve; SDKs try again, ever more slowly.
pub(crate) fn throttled() -> Failure {
    Failure::common("ThrottlingException", 400, "Rate exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_and_comes_back() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.grow(6) && other.grow(4));
        assert!(!other.grow(1) && !one.grow(usize::MAX));
        assert_eq!(budget.used(), 10);
        drop(one);
        assert!(other.grow(6));
        drop(other);
        assert_eq!(budget.used(), 0);
    }
}
