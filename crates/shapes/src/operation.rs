//! What a service model says about an operation besides its shapes: paging and waiting. Facts only, no behaviour.

use std::time::Duration;

/// How an operation's results are paged, from the model's `paginators-1.json`. Names are wire names; a token or result
/// that spans several members lists each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paginator {
    /// Request members that carry the token of the page to read.
    pub input_token: &'static [&'static str],
    /// Response members that carry the next token.
    pub output_token: &'static [&'static str],
    /// Request member that bounds the page, where the caller may choose.
    pub limit_key: Option<&'static str>,
    /// Response members that hold the page.
    pub result_key: &'static [&'static str],
}

/// A waiter every SDK ships, from the model's `waiters-2.json`: how often and how long clients poll an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// The waiter's name, for example `ServicesStable`.
    pub name: &'static str,
    /// The operation that is polled.
    pub operation: &'static str,
    /// Seconds between two polls.
    pub delay: u32,
    /// Polls before the client gives up.
    pub max_attempts: u32,
}

impl Waiter {
    /// The longest time a client waits before it gives up.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.delay) * u64::from(self.max_attempts))
    }
}
