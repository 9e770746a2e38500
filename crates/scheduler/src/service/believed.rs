//! Recorded times that a clock told which is ahead of this one: peers' clocks differ, and a server's may have been set back since. Whoever
//! waited for such a time would wait for as long as the clocks are apart, be it half an hour or a year.

use berth_model::time::UnixMillis;

use super::TaskView;

/// How far ahead a recorded time may be and still be believed, in milliseconds: far more than clocks differ that are looked after.
const AHEAD_MILLIS: i64 = 10_000;

/// The first of them that is not far ahead of `now`; `None`: as far as anybody can say it was long ago.
pub(super) fn believed(times: impl IntoIterator<Item = UnixMillis>, now: UnixMillis) -> Option<UnixMillis> {
    times.into_iter().find(|at| at.since(now) <= AHEAD_MILLIS)
}

/// When something became of a task, as far as the clock that told it can be believed: not before it was created.
pub(super) fn of_task(task: &TaskView, at: UnixMillis, now: UnixMillis) -> UnixMillis {
    believed([at], now).unwrap_or(task.created_at).max(task.created_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_far_ahead_gives_way_to_the_next_one() {
        let (now, near, far) = (UnixMillis(100_000), UnixMillis(110_000), UnixMillis(110_001));
        assert_eq!(believed([near, now], now), Some(near));
        assert_eq!(believed([far, UnixMillis(7)], now), Some(UnixMillis(7)));
        assert_eq!(believed([far, far], now), None);
    }
}
