//! Starting a container's process: by a shim that is ready, or by a new one.

use std::sync::Arc;

use super::container::Container;
use super::shim::{Shim, StartError};
use super::{NativeRuntime, holders};
use crate::port::{RunError, Started};

/// The shim that waits for the next start.
#[derive(Debug, Default)]
pub(super) enum Ready {
    /// There is none.
    #[default]
    None,
    /// One is about to be: two that are made at the same time would be one too many.
    Soon,
    /// Here it is.
    Here(Shim),
}

impl NativeRuntime {
    /// The shim that is ready, or a new one.
    fn take_shim(&self) -> Result<Shim, RunError> {
        {
            let mut ready = self.ready.lock();
            match std::mem::take(&mut *ready) {
                Ready::Here(shim) => return Ok(shim),
                other => *ready = other,
            }
        }
        Shim::prepare(&self.shim).map_err(|e| RunError::System(e.to_string()))
    }

    /// Has one ready for the next start: loading the program is a good part of what a start takes.
    pub(super) fn prepare_next(&self) {
        {
            let mut ready = self.ready.lock();
            if !matches!(*ready, Ready::None) {
                return;
            }
            *ready = Ready::Soon;
        }
        let (ready, program) = (Arc::clone(&self.ready), Arc::clone(&self.shim));
        tokio::spawn(async move {
            // One that cannot be made now is made by the start that wants it, which says why not.
            let made = Shim::prepare(&program).map_or(Ready::None, Ready::Here);
            *ready.lock() = made;
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
