//! When an agent dials again and when it gives a silent connection up. Pure: time and chance are arguments, and nothing sleeps.
//!
//! The official agent redials at once after every ordinary close, however short the connection was, which turns a server that
//! accepts and drops into a hot loop. Here only a connection that lived for a while earns an immediate redial.

use crate::refusal::RefusalKind;
use std::time::Duration;

/// The first delay.
const FIRST: Duration = Duration::from_millis(250);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(120);
/// The delay after the server said that the container instance is deregistered.
const INACTIVE: Duration = Duration::from_secs(3600);
/// A connection that lived this long was a good one: the delays start over, and the next dial is at once.
const HEALTHY: Duration = Duration::from_secs(60);
/// A connection that lived this long may be redialled at once, though the delays do not start over.
const SETTLED: Duration = Duration::from_secs(5);

/// How a dial or a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// No connection came about.
    Unreachable,
    /// The handshake was refused.
    Refused(RefusalKind),
    /// The connection was closed in an ordinary way (1000, 1001, 1011) or the peer vanished, after this long.
    Closed {
        /// How long it lived.
        lived: Duration,
    },
    /// The server was silent for too long, or broke the protocol, after this long.
    Faulty {
        /// How long it lived.
        lived: Duration,
    },
}

/// The delays between dials: 250 ms, growing by half up to two minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait before dialling again. `jitter` is a random number from 0 to 1; a fifth of the delay is left to it, so
    /// that a fleet does not come back in step.
    pub fn after(&mut self, ending: &Ending, jitter: f64) -> Duration {
        match ending {
            Ending::Refused(RefusalKind::InactiveInstanceException) => {
                self.reset();
                INACTIVE
            }
            Ending::Closed { lived } if *lived >= HEALTHY => {
                self.reset();
                Duration::ZERO
            }
            Ending::Closed { lived } if *lived >= SETTLED => Duration::ZERO,
            Ending::Faulty { lived } if *lived >= HEALTHY => {
                self.reset();
                self.grow(jitter)
            }
            _ => self.grow(jitter),
        }
    }

    /// Starts over with the shortest delay.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    fn grow(&mut self, jitter: f64) -> Duration {
        let delay = self.next;
        self.next = delay.mul_f64(1.5).min(LONGEST);
        delay.mul_f64(1.0 + 0.2 * jitter.clamp(0.0, 1.0)).min(LONGEST)
    }
}

/// Notices that a server has gone silent. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleTimer {
    limit: i64,
    deadline: i64,
}

impl IdleTimer {
    /// A timer for a connection opened at `now`. `jitter` is a random number from 0 to 1. With the official heartbeat the limit
    /// is 60 to 120 seconds, as the official agent's; with Berth's brisk one, 10 to 20.
    pub fn new(now: i64, brisk: bool, jitter: f64) -> Self {
        let least = if brisk { 10_000.0 } else { 60_000.0 };
        let limit = (least * (1.0 + jitter.clamp(0.0, 1.0))) as i64;
        Self { limit, deadline: now + limit }
    }

    /// A frame of any type has come.
    pub fn on_frame(&mut self, now: i64) {
        self.deadline = now + self.limit;
    }

    /// When to look again.
    pub fn wake_at(&self) -> i64 {
        self.deadline
    }

    /// Whether the connection is to be given up.
    pub fn expired(&self, now: i64) -> bool {
        now >= self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_by_half_up_to_two_minutes() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..20).map(|_| backoff.after(&Ending::Unreachable, 0.0).as_millis()).collect();
        assert_eq!(delays[..4], [250, 375, 562, 843]);
        assert_eq!(delays[19], 120_000);
        assert_eq!(backoff.after(&Ending::Unreachable, 1.0), LONGEST);
        backoff.reset();
        assert_eq!(backoff.after(&Ending::Unreachable, 1.0).as_millis(), 300);
    }

    #[test]
    fn only_a_connection_that_lived_is_redialled_at_once() {
        let mut backoff = Backoff::default();
        let closed = |seconds| Ending::Closed { lived: Duration::from_secs(seconds) };
        assert_eq!(backoff.after(&closed(0), 0.0).as_millis(), 250);
        assert_eq!(backoff.after(&closed(4), 0.0).as_millis(), 375);
        assert_eq!(backoff.after(&closed(5), 0.0), Duration::ZERO);
        assert_eq!(backoff.after(&closed(0), 0.0).as_millis(), 562);
        assert_eq!(backoff.after(&closed(60), 0.0), Duration::ZERO);
        assert_eq!(backoff.after(&closed(0), 0.0).as_millis(), 250);
        assert_eq!(backoff.after(&Ending::Faulty { lived: Duration::from_secs(120) }, 0.0).as_millis(), 250);
    }

    #[test]
    fn a_deregistered_instance_waits_an_hour() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(&Ending::Refused(RefusalKind::InactiveInstanceException), 0.5), INACTIVE);
        assert_eq!(backoff.after(&Ending::Refused(RefusalKind::ServerException), 0.0).as_millis(), 250);
    }

    #[test]
    fn silence_is_noticed_and_any_frame_breaks_it() {
        let mut timer = IdleTimer::new(1000, false, 0.5);
        assert_eq!(timer.wake_at(), 91_000);
        assert!(!timer.expired(90_999) && timer.expired(91_000));
        timer.on_frame(90_000);
        assert!(!timer.expired(179_999) && timer.expired(180_000));
        assert_eq!(IdleTimer::new(0, true, 1.0).wake_at(), 20_000);
    }
}
