//! A task's life on this machine as plain values: what is wanted and what was seen in, at most one step out.
//! Never waits, never reads a clock, never touches a container.

mod dependency;
mod health;
mod phase;
mod report;
mod restart;
mod state;
mod step;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use dependency::Gate;
pub use health::{Health, Verdict};
pub use phase::{Ended, ExitRecord, Phase, Prepared, Reached, Run};
pub use report::{ContainerReport, ContainerWord, Report, TaskWord, Told, next_report};
pub use state::{Desired, Fact, LaunchFailure, NextLife, TaskState};
pub use step::{Step, next_step, wake_at};

/// Unix milliseconds.
pub type Millis = i64;
