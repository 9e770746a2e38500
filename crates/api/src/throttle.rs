//! Buckets of tokens that hold an action back, as AWS does with each of its own: a call takes a token, tokens come back at a rate, and
//! a call that finds none is refused. Berth has none unless it is told to; people who test how a client behaves want AWS's.

use std::collections::HashMap;
use std::str::FromStr;

use berth_model::time::UnixMillis;
use berth_shapes::ecs::Operation;
use parking_lot::Mutex;

/// How often an action may be called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttle {
    /// Which action.
    pub action: Operation,
    /// Calls a second in the long run.
    pub rate: f64,
    /// Calls at once after a while without any.
    pub burst: u32,
}

impl FromStr for Throttle {
    type Err = String;

    /// `RegisterTaskDefinition=1/20`: one call a second, twenty at once.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "a throttle is ACTION=RATE/BURST, like RegisterTaskDefinition=1/20".to_owned();
        let (action, numbers) = text.split_once('=').ok_or_else(form)?;
        let (rate, burst) = numbers.split_once('/').ok_or_else(form)?;
        let action = Operation::from_name(action).ok_or_else(|| format!("Amazon ECS has no action {action}"))?;
        let rate = rate.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
        let rate = rate.ok_or_else(|| "the rate is calls a second, above 0".to_owned())?;
        let burst = burst.parse().ok().filter(|burst| *burst > 0).ok_or_else(|| "the burst is a number of calls, 1 at least".to_owned())?;
        Ok(Self { action, rate, burst })
    }
}

struct Bucket {
    throttle: Throttle,
    /// Tokens, and when that was so.
    level: Mutex<(f64, Option<UnixMillis>)>,
}

/// The buckets of all throttled actions.
#[derive(Default)]
pub(crate) struct Buckets(HashMap<Operation, Bucket>);

impl Buckets {
    /// Full buckets. Of two for one action the later holds.
    pub(crate) fn new(throttles: &[Throttle]) -> Self {
        let full = |throttle: &Throttle| Bucket { throttle: *throttle, level: Mutex::new((f64::from(throttle.burst), None)) };
        Self(throttles.iter().map(|throttle| (throttle.action, full(throttle))).collect())
    }

    /// Takes a token; `false` if there is none.
    pub(crate) fn take(&self, action: Operation, now: UnixMillis) -> bool {
        let Some(bucket) = self.0.get(&action) else { return true };
        let mut level = bucket.level.lock();
        let (tokens, since) = *level;
        // A clock that was set back brings nothing, and takes nothing away.
        let passed = since.map_or(0, |since| now.since(since).max(0)) as f64 / 1000.0;
        let tokens = (tokens + passed * bucket.throttle.rate).min(f64::from(bucket.throttle.burst));
        let is_there = tokens >= 1.0;
        *level = (if is_there { tokens - 1.0 } else { tokens }, Some(now));
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(buckets: &Buckets, action: Operation, at: i64) -> usize {
        (0..100).take_while(|_| buckets.take(action, UnixMillis(at))).count()
    }

    #[test]
    fn a_burst_then_the_rate_and_never_more_than_the_burst() {
        let buckets = Buckets::new(&["RunTask=2/5".parse().unwrap()]);
        assert_eq!(taken(&buckets, Operation::RunTask, 1_000), 5);
        assert_eq!(taken(&buckets, Operation::RunTask, 1_499), 0);
        assert_eq!(taken(&buckets, Operation::RunTask, 2_000), 2, "what came by halves counts");
        assert_eq!(taken(&buckets, Operation::RunTask, 60_000), 5);
        assert_eq!(taken(&buckets, Operation::RunTask, 10_000), 0, "a clock set back brings nothing");
        assert_eq!(taken(&buckets, Operation::StopTask, 1_000), 100, "others are free");
    }

    #[test]
    fn bad_throttles_are_refused() {
        for text in ["", "RunTask", "RunTask=1", "Lamp=1/1", "RunTask=0/1", "RunTask=-1/1", "RunTask=1/0", "RunTask=inf/1", "RunTask=a/b"] {
            assert!(text.parse::<Throttle>().is_err(), "{text}");
        }
    }
}
