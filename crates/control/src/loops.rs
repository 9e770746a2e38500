//! The tasks that a control plane's loops run in, so that all of them can be ended together, and the runtime that they run on. It knows
//! nothing of what they do.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

/// Spawns loops and ends them. Clones share them.
#[derive(Clone)]
pub(crate) struct Loops {
    /// `None` once they were stopped: nothing is begun any more.
    running: Arc<Mutex<Running>>,
    runtime: Handle,
}

struct Running(Option<JoinSet<()>>);

impl Default for Running {
    fn default() -> Self {
        Self(Some(JoinSet::new()))
    }
}

impl Loops {
    /// Those that are to run on a runtime.
    pub(crate) fn on(runtime: Handle) -> Self {
        Self { running: Arc::default(), runtime }
    }

    /// Where they run.
    pub(crate) const fn runtime(&self) -> &Handle {
        &self.runtime
    }
    /// Runs a loop until it returns or [`Loops::stop`]; after that, not at all.
    pub(crate) fn spawn(&self, run: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut running = self.running.lock();
        let Some(set) = &mut running.0 else {
            let never = self.runtime.spawn(async {});
            return never.abort_handle();
        };
        // Those that have returned are let go, so that the set does not grow over the server's life.
        while set.try_join_next().is_some() {}
        set.spawn_on(run, &self.runtime)
    }

    /// Ends all loops where they wait.
    pub(crate) fn stop(&self) {
        // Dropped outside the lock: a loop's own drop may come back here.
        let running = self.running.lock().0.take();
        drop(running);
    }
}
