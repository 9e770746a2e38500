//! How far the machine's clock may be off, as the kernel knows it from whoever steers it. (adjtimex(2))

use berth_shapes::timestamp::Timestamp;
use serde_json::{Value, json};

/// The state in which the kernel says that nobody steers its clock.
const UNSYNCHRONIZED: i32 = libc::STA_UNSYNC;

/// What the kernel says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDrift {
    /// By how much it may be off at most, in microseconds; grows until it is steered again.
    pub most_micros: i64,
    /// Whether somebody steers it.
    pub is_synchronized: bool,
}

impl ClockDrift {
    /// Asks the kernel; `None` if it does not say.
    #[must_use]
    pub fn read() -> Option<Self> {
        // SAFETY: zero is a valid value for this plain structure; without modes nothing is set.
        let mut state: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: `state` has room for what the kernel writes.
        let result = unsafe { libc::adjtimex(&raw mut state) };
        (result >= 0).then_some(Self { most_micros: state.maxerror, is_synchronized: state.status & UNSYNCHRONIZED == 0 })
    }

    /// As Fargate has it: the bound in milliseconds. The kernel bounds the error as of now, so that is the time it refers to.
    #[must_use]
    pub fn render(self, now: i64) -> Value {
        json!({
            "ClockErrorBound": self.most_micros as f64 / 1000.0,
            "ReferenceTimestamp": Timestamp::from_millis(now).render_iso8601(),
            "ClockSynchronizationStatus": if self.is_synchronized { "SYNCHRONIZED" } else { "NOT_SYNCHRONIZED" },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_something() {
        let read = ClockDrift::read().expect("this kernel has a clock");
        assert!(read.most_micros >= 0);
        let shown = ClockDrift { most_micros: 545_823, is_synchronized: true }.render(1_631_033_864_000);
        let expected = json!({
            "ClockErrorBound": 545.823,
            "ReferenceTimestamp": "2021-09-07T16:57:44Z",
            "ClockSynchronizationStatus": "SYNCHRONIZED",
        });
        assert_eq!(shown, expected);
        assert_eq!(ClockDrift { most_micros: 1, is_synchronized: false }.render(0)["ClockSynchronizationStatus"], "NOT_SYNCHRONIZED");
    }
}
