//! What the outside tells a running Berth to do.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// End, and leave tasks running (SIGTERM, Ctrl-C).
    Leave,
    /// Stop all tasks, then end (SIGUSR1, which `berth down` sends).
    Down,
}

/// The signals Berth listens to.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    down: Signal,
}

impl Signals {
    /// Starts listening. From here on none of them kills the process.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            down: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for an order.
    pub(crate) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Leave,
            _ = self.interrupt.recv() => Order::Leave,
            _ = self.down.recv() => Order::Down,
        }
    }
}
