//! Heartbeats of one session: when the next is due, and since when none has been answered.

use crate::messages::{HeartbeatMessage, ServerFrame};

pub(super) struct Heartbeat {
    every: i64,
    /// How long the agent may be silent after a heartbeat; for ever, if `None`.
    patience: Option<i64>,
    next: i64,
    /// When the first heartbeat was sent that nothing has come after.
    unanswered_since: Option<i64>,
}

impl Heartbeat {
    /// The first is due at once, so that a new connection shows within one round trip whether it carries anything.
    pub(super) fn new(every: i64, patience: Option<i64>, now: i64) -> Self {
        Self { every, patience, next: now, unanswered_since: None }
    }

    /// The next is due now.
    pub(super) fn hurry(&mut self, now: i64) {
        self.next = self.next.min(now);
    }

    pub(super) fn due(&self, now: i64) -> bool {
        self.next <= now
    }

    pub(super) fn beat(&mut self, message_id: String, now: i64) -> ServerFrame {
        // By the clock, not by when this one went out: what goes out late together would stay together for ever, and thousands of agents
        // would answer at once.
        let due = self.next + self.every;
        self.next = if due > now { due } else { now + self.every };
        self.unanswered_since.get_or_insert(now);
        ServerFrame::Heartbeat(HeartbeatMessage { healthy: true, message_id })
    }

    pub(super) fn on_frame(&mut self) {
        self.unanswered_since = None;
    }

    /// For how long the agent has been silent, if that is too long.
    pub(super) fn silent_for(&self, now: i64) -> Option<i64> {
        let silent = now - self.unanswered_since?;
        (silent >= self.patience?).then_some(silent)
    }

    pub(super) fn wake_at(&self) -> i64 {
        let deadline = self.unanswered_since.zip(self.patience).map(|(since, patience)| since + patience);
        deadline.map_or(self.next, |deadline| deadline.min(self.next))
    }
}
