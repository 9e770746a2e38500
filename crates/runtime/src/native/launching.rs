//! Starting a container's process: by a shim that is ready, or by a new one.

use std::sync::Arc;

use super::container::Container;
use super::shim::{Shim, StartError};
use super::{NativeRuntime, holders};
use crate::port::{RunError, Started};

impl NativeRuntime {
    /// The shim that is ready, or a new one.
    fn take_shim(&self) -> Result<Shim, RunError> {
        if let Some(ready) = self.ready.lock().take() {
            return Ok(ready);
        }
        Shim::prepare(&self.shim).map_err(|e| RunError::System(e.to_string()))
    }

    /// Has one ready for the next start: loading the program is a good part of what a start takes.
    pub(super) fn prepare_next(&self) {
        let (ready, program) = (Arc::clone(&self.ready), Arc::clone(&self.shim));
        tokio::spawn(async move {
            if ready.lock().is_none()
                && let Ok(shim) = Shim::prepare(&program)
            {
                *ready.lock() = Some(shim);
            }
        });
    }

    /// Starts the container's process, again if it ran before. Whoever calls has the container's turn.
    pub(super) async fn launch(&self, container: &Container, again: bool) -> Result<Started, RunError> {
        if holders::is_wanted_by(&container.record.spec) {
            self.holders.ensure(&container.record.spec.cgroup_parent, container.record.ids, &self.shim).await?;
        }
        let shares = self.task_cpu_shares(&container.record.spec.cgroup_parent);
        let mark = |shim: &Shim| {
            container.mark_started(shim.starter(), again).map_err(|e| RunError::System(format!("mark the container started: {e}")))
        };
        let shim = self.take_shim()?;
        mark(&shim)?;
        match shim.start(&container.folder, shares).await {
            Ok(started) => Ok(started),
            Err(StartError::Failed(error)) => Err(error),
            // The one kept ready had been killed; nothing has happened yet, so another may try.
            Err(StartError::Vanished) => {
                let shim = Shim::prepare(&self.shim).map_err(|e| RunError::System(e.to_string()))?;
                mark(&shim)?;
                match shim.start(&container.folder, shares).await {
                    Ok(started) => Ok(started),
                    Err(StartError::Failed(error)) => Err(error),
                    Err(StartError::Vanished) => Err(RunError::System("the shim ended before it began".into())),
                }
            }
        }
    }
}
