//! A container's health check, as Docker has it: what a probe's end makes of a container, and when the next one is due. Follows
//! `daemon/health.go` of moby and
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html>.

use serde::{Deserialize, Serialize};

use super::Millis;
use crate::plan::HealthCheck;

/// From one probe to the next while a container starts, so that a long interval does not hold up those who wait for it. Docker's
/// default of `start-interval`.
pub const START_INTERVAL: Millis = 5_000;

/// What is said of a container that has a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Verdict {
    /// Too few probes have ended (Docker's `starting`).
    #[default]
    Unknown,
    /// The last probe succeeded, or too few have failed since one did.
    Healthy,
    /// As many probes in a row have failed as may.
    Unhealthy,
}

/// How a container is. One that is started again begins anew, and so does what a new life of the agent knows, which saw no probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// What is said.
    pub verdict: Verdict,
    /// Since when; 0: since the container was started.
    pub since: Millis,
    /// Probes in a row that failed and count.
    pub failures: u32,
    /// When the last probe ended.
    pub probed_at: Option<Millis>,
    /// When the probe began that is under way.
    pub probing_since: Option<Millis>,
}

impl Health {
    /// When the next probe is due of a container that was started at `started_at`; none while one is under way.
    #[must_use]
    pub fn due(&self, check: &HealthCheck, started_at: Millis) -> Option<Millis> {
        if self.probing_since.is_some() {
            return None;
        }
        let from = self.probed_at.unwrap_or(started_at);
        let is_starting = self.verdict == Verdict::Unknown && from < started_at.saturating_add(check.start_period);
        let interval = if is_starting { check.interval.min(START_INTERVAL) } else { check.interval };
        Some(from.saturating_add(interval))
    }

    /// Notes that a probe begins.
    pub const fn begin(&mut self, now: Millis) {
        self.probing_since = Some(now);
    }

    /// Moves the times along when somebody sets the clock.
    pub fn clock_was_set(&mut self, by: Millis) {
        let since = Some(&mut self.since).filter(|since| **since != 0);
        let times = since.into_iter().chain(&mut self.probed_at).chain(&mut self.probing_since);
        times.for_each(|at| *at = at.saturating_add(by));
    }

    /// Since when the verdict stands, of a container that was started at `started_at`.
    #[must_use]
    pub const fn stands_since(&self, started_at: Millis) -> Millis {
        if self.since == 0 { started_at } else { self.since }
    }

    /// Folds a probe's end in.
    pub fn probed(&mut self, check: &HealthCheck, started_at: Millis, succeeded: bool, now: Millis) {
        let Some(began) = self.probing_since.take() else { return };
        self.probed_at = Some(now);
        let verdict = if succeeded {
            self.failures = 0;
            Verdict::Healthy
        } else {
            // In the start period failures do not count, unless it was healthy already.
            let counts = self.verdict != Verdict::Unknown || began >= started_at.saturating_add(check.start_period);
            self.failures = self.failures.saturating_add(u32::from(counts));
            if counts && self.failures >= check.retries { Verdict::Unhealthy } else { self.verdict }
        };
        if verdict != self.verdict {
            (self.verdict, self.since) = (verdict, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start_period: Millis) -> HealthCheck {
        HealthCheck { command: vec!["true".into()], interval: 30_000, timeout: 5_000, retries: 3, start_period }
    }

    /// The verdicts after probes that begin where they are due and take a second.
    fn verdicts(check: &HealthCheck, outcomes: &[bool]) -> Vec<(Millis, Verdict)> {
        let mut health = Health::default();
        let mut seen = Vec::new();
        for succeeded in outcomes {
            let due = health.due(check, 1_000).unwrap();
            health.begin(due);
            assert_eq!(health.due(check, 1_000), None, "one at a time");
            health.probed(check, 1_000, *succeeded, due + 1_000);
            seen.push((due, health.verdict));
        }
        seen
    }

    #[test]
    fn it_takes_retries_in_a_row_to_be_unhealthy_and_one_success_to_be_healthy() {
        use Verdict::{Healthy, Unhealthy, Unknown};
        let seen = verdicts(&check(0), &[false, false, true, false, false, true, false, false, false, true]);
        let only: Vec<_> = seen.iter().map(|(_, verdict)| *verdict).collect();
        assert_eq!(only, [Unknown, Unknown, Healthy, Healthy, Healthy, Healthy, Healthy, Healthy, Unhealthy, Healthy]);
        assert_eq!(seen[0].0, 31_000, "the first probe comes an interval after the start");
        assert_eq!(seen[1].0, 62_000, "the next an interval after the end of the last");
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_but_a_success_does() {
        use Verdict::{Healthy, Unhealthy, Unknown};
        let seen = verdicts(&check(15_000), &[false, false, false, false, false, false]);
        // At 6, 12 and 18 seconds (of which the last is past the period), then every 30 s.
        assert_eq!(seen.iter().map(|(due, _)| *due).collect::<Vec<_>>(), [6_000, 12_000, 18_000, 49_000, 80_000, 111_000]);
        assert_eq!(seen[3].1, Unknown);
        assert_eq!(seen[4].1, Unhealthy, "those at 18, 49 and 80 seconds count");
        assert_eq!(verdicts(&check(600_000), &[false, true])[1].1, Healthy);
        let after_success = verdicts(&check(600_000), &[true, false, false, false]);
        assert_eq!(after_success[3].1, Unhealthy, "once it was healthy, failures count though the period is not over");
    }

    #[test]
    fn since_changes_with_the_verdict_alone() {
        let check = check(0);
        let mut health = Health::default();
        for (at, succeeded, since) in [(40_000, true, 40_000), (70_000, true, 40_000), (100_000, false, 40_000)] {
            health.begin(at - 1);
            health.probed(&check, 0, succeeded, at);
            assert_eq!(health.since, since);
        }
        health.probed(&check, 0, false, 200_000);
        assert_eq!(health.failures, 1, "an end without a beginning is nobody's");
    }
}
