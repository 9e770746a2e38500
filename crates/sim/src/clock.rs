//! Clocks that follow tokio's paused time from a fixed day on, each with an error of its own that can jump. Never reads the machine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use berth_control::Clock;
use berth_model::time::UnixMillis;
use tokio::time::Instant;

/// When every simulation begins: 2026-01-01T00:00:00Z.
pub const EPOCH_MILLIS: i64 = 1_767_225_600_000;

/// One machine's clock. Clones share it.
#[derive(Debug, Clone)]
pub struct SimClock {
    origin: Instant,
    start: Arc<AtomicI64>,
}

impl SimClock {
    /// A clock that is right at first.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin, start: Arc::new(AtomicI64::new(EPOCH_MILLIS)) }
    }

    /// Somebody sets the clock; negative: back.
    pub fn jump(&self, millis: i64) {
        self.start.fetch_add(millis, Ordering::Relaxed);
    }

    /// The same clock as an agent reads it.
    #[must_use]
    pub fn for_agent(&self) -> berth_agent::clock::Clock {
        berth_agent::clock::Clock::Steered(self.origin, Arc::clone(&self.start))
    }

    /// Unix milliseconds.
    #[must_use]
    pub fn millis(&self) -> i64 {
        let since = i64::try_from(self.origin.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.start.load(Ordering::Relaxed).saturating_add(since)
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.millis())
    }
}
