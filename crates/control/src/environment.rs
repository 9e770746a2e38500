//! What logic must not take from the machine by itself: the time, randomness, and who we are.

use std::sync::Arc;

use berth_model::arn::Scope;
use berth_model::time::UnixMillis;

/// A clock.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> UnixMillis;
}

/// A source of random bits, for ids.
pub trait Entropy: Send + Sync {
    /// 128 fresh random bits.
    fn bits(&self) -> u128;
}

/// Handed to everything that acts.
#[derive(Clone)]
pub struct Environment {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Region and account.
    pub scope: Scope,
}

impl Environment {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// 64 fresh random bits.
    #[must_use]
    pub fn bits64(&self) -> u64 {
        // The lower half is as random as the whole.
        self.entropy.bits() as u64
    }
}
