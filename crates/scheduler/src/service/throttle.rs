//! How long a deployment waits before it starts tasks again after some failed. Derived from the tasks themselves, so that
//! there is no counter to lose or to reset.
//!
//! As on ECS it is attempts that come ever more seldom, so the wait begins where the last one began: whoever plans also told that time. What
//! a task ended at was told by whichever peer its agent was connected to, and the clocks of two may be far apart. Which attempt is the last
//! their commits say, since another peer may have planned before.

use berth_model::task::TaskStatus;
use berth_model::time::UnixMillis;

use super::TaskView;
use super::believed::believed;

/// ECS's longest delay between starts of tasks that never run: 27 minutes.
const NEVER_RAN_MAX_MILLIS: i64 = 27 * 60 * 1000;
/// The delay after the first round of tasks that never ran; it doubles with each further round.
const NEVER_RAN_FIRST_MILLIS: i64 = 1000;
/// A task that ran for less than this counts as crashing at start.
const SHORT_RUN_MILLIS: i64 = 10_000;
/// The longest delay for tasks that crash at start. ECS has no such throttle because its own launch takes many seconds;
/// ours takes milliseconds, and a crash loop at that speed would help nobody.
const SHORT_RUN_MAX_MILLIS: i64 = 10_000;
const SHORT_RUN_FIRST_MILLIS: i64 = 500;

/// What the ended tasks of a deployment say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Throttle {
    /// Tasks that ended without ever running since the last that ran.
    pub(super) never_ran: u32,
    /// Tasks that ended soon after their start since the last that ran for longer.
    short_runs: u32,
    /// No start before this.
    pub(super) not_before: Option<UnixMillis>,
}

impl Throttle {
    /// What is waited for, in words.
    pub(super) fn cause(&self) -> String {
        if self.never_ran > 0 {
            format!("{} tasks in a row failed to start", self.never_ran)
        } else {
            format!("{} tasks in a row ended soon after their start", self.short_runs)
        }
    }

    /// The last task that ended was a failure.
    pub(super) const fn has_failed(&self) -> bool {
        self.never_ran > 0 || self.short_runs > 0
    }
}

/// Where a wait begins, in the order of attempts and not of times: the newest may be of a peer whose clock is behind that of the one before.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Failure {
    commit: u64,
    at: UnixMillis,
}

/// Failures in a row, and how many attempts they were: tasks that are started together are one.
#[derive(Default)]
struct Row {
    failures: u32,
    attempts: u32,
    last: Option<UnixMillis>,
}

impl Row {
    fn add(&mut self, created_at: UnixMillis) {
        self.failures += 1;
        self.attempts += u32::from(self.last != Some(created_at));
        self.last = Some(created_at);
    }

    /// Each of the desired tasks failed so often, or one of them. A desired count that is lowered makes no more attempts of what failed before,
    /// and a round that comes in several attempts, for want of room, is one.
    fn rounds(&self, desired: u32) -> u32 {
        self.failures.div_ceil(desired.max(1)).min(self.attempts)
    }
}

pub(super) fn throttle<'a>(tasks: impl Iterator<Item = &'a TaskView>, desired: u32, now: UnixMillis) -> Throttle {
    let mut tasks: Vec<_> = tasks.collect();
    tasks.sort_by_key(|task| task.came());
    let (mut never_ran, mut short_runs) = (Row::default(), Row::default());
    let mut last_failure: Option<Failure> = None;
    for task in tasks {
        let ended = (task.last == TaskStatus::Stopped).then_some(task.stopped_at).flatten();
        match (task.started_at, ended) {
            (None, Some(_)) if task.stop_code == Some(berth_model::task::StopCode::TaskFailedToStart) => {
                never_ran.add(task.created_at);
                last_failure = last_failure.max(Some(Failure { commit: task.commit, at: task.created_at }));
            }
            (Some(start), Some(end)) => {
                never_ran = Row::default();
                let by_itself = task.stop_code == Some(berth_model::task::StopCode::EssentialContainerExited);
                let ran = end.since(start);
                if by_itself && ran < SHORT_RUN_MILLIS {
                    short_runs.add(task.created_at);
                    last_failure = last_failure.max(Some(Failure { commit: task.commit, at: task.created_at.plus_millis(ran) }));
                } else {
                    short_runs = Row::default();
                }
            }
            (Some(_), None) => never_ran = Row::default(),
            _ => {}
        }
    }
    let delay = |rounds: u32, first: i64, most: i64| match rounds {
        0 => 0,
        rounds => first.saturating_mul(1_i64.checked_shl(rounds - 1).unwrap_or(i64::MAX)).min(most),
    };
    // One crash may happen to anybody: its replacement starts at once. The second in a row waits.
    let wait = delay(never_ran.rounds(desired), NEVER_RAN_FIRST_MILLIS, NEVER_RAN_MAX_MILLIS).max(delay(
        short_runs.rounds(desired).saturating_sub(1),
        SHORT_RUN_FIRST_MILLIS,
        SHORT_RUN_MAX_MILLIS,
    ));
    let at = last_failure.filter(|_| wait > 0).and_then(|failure| believed([failure.at], now));
    let not_before = at.map(|at| at.plus_millis(wait));
    Throttle { never_ran: never_ran.failures, short_runs: short_runs.failures, not_before }
}
