//! What time it is, for the edges that may ask. Engines get the time as an argument.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest sleep without another look at the clock, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// Where the clock that nobody can set begins.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A clock: the machine's, or in tests one that follows tokio's (which can be paused).
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's.
    Machine,
    /// Tokio's, beginning with a given Unix time in milliseconds.
    Tokio(tokio::time::Instant, i64),
    /// Tokio's, beginning with a Unix time that can be moved while it runs, as somebody who sets a machine's clock does.
    Steered(tokio::time::Instant, Arc<AtomicI64>),
}

impl Clock {
    /// Unix milliseconds.
    #[must_use]
    pub fn now(&self) -> i64 {
        match self {
            Self::Machine => unix_millis(SystemTime::now()),
            Self::Tokio(origin, start) => start.saturating_add(millis_since(*origin)),
            Self::Steered(origin, start) => start.load(Ordering::Relaxed).saturating_add(millis_since(*origin)),
        }
    }

    /// How far the Unix time is ahead of a clock that nobody can set, in milliseconds. It changes when somebody sets the machine's clock.
    #[must_use]
    pub fn lead(&self) -> i64 {
        match self {
            // In this order: what passes between the two looks makes the clock seem to go back by so much, never forward.
            Self::Machine => {
                let now = unix_millis(SystemTime::now());
                now.saturating_sub(i64::try_from(ORIGIN.elapsed().as_millis()).unwrap_or(i64::MAX))
            }
            Self::Tokio(_, start) => *start,
            Self::Steered(_, start) => start.load(Ordering::Relaxed),
        }
    }

    /// Sleeps until that Unix time, or a while; for ever without one.
    pub async fn sleep_until(&self, at: Option<i64>) {
        match at {
            None => std::future::pending().await,
            Some(at) => {
                let left = Duration::from_millis(u64::try_from(at - self.now()).unwrap_or(0));
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            }
        }
    }
}

fn millis_since(origin: tokio::time::Instant) -> i64 {
    i64::try_from(origin.elapsed().as_millis()).unwrap_or(i64::MAX)
}

/// A time in Unix milliseconds; times before 1970 are 0.
#[must_use]
pub fn unix_millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
