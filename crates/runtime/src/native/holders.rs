//! The processes that keep the pid and ipc namespaces which a task's containers share: one per task that wants any, from the first start
//! until the last removal, whatever becomes of the agent and of each container meanwhile.

use std::io;
use std::path::{Path, PathBuf};

use crate::native::ids::Ids;
use crate::native::shim::{self, Program};
use crate::native::starter::Starter;
use crate::port::{ContainerSpec, RunError, Sharing};

/// Whether a container shares any namespace with the others of its task.
pub fn is_wanted_by(spec: &ContainerSpec) -> bool {
    spec.pid == Sharing::Task || spec.ipc == Sharing::Task
}

/// All tasks' holders; a folder each, in which the holder's process is written down.
#[derive(Debug)]
pub struct Holders {
    folder: PathBuf,
    /// One is made or ended at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Holders {
    /// Opens the folder and ends the holders of tasks that no container wants any more: an earlier life of the agent may have died between
    /// a removal and this.
    ///
    /// # Errors
    /// Of the system.
    pub fn open(folder: PathBuf, is_wanted: impl Fn(&str) -> bool) -> io::Result<Holders> {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if !is_wanted(&entry.file_name().to_string_lossy()) {
                end(&entry.path())?;
            }
        }
        Ok(Holders { folder, turn: tokio::sync::Mutex::default() })
    }

    /// The file that says which process a task's holder is; for the shim.
    pub fn file(&self, task: &str) -> PathBuf {
        self.folder.join(task).join("holder")
    }

    /// Makes a task's holder unless it lives; `ids`: what the task's users are on the machine. One that died took a shared pid namespace's processes with it; what is started from then on
    /// shares new namespaces.
    ///
    /// # Errors
    /// [`RunError::System`].
    pub async fn ensure(&self, task: &str, ids: Option<Ids>, program: &Program) -> Result<(), RunError> {
        let _turn = self.turn.lock().await;
        let folder = self.folder.join(task);
        if read(&folder).is_some_and(Starter::is_alive) {
            return Ok(());
        }
        std::fs::create_dir_all(&folder).map_err(|e| RunError::System(format!("make {}: {e}", folder.display())))?;
        shim::hold(program, &folder, ids).await
    }

    /// Ends a task's holder unless a container still wants it.
    ///
    /// # Errors
    /// Of the system; calling again goes on.
    pub async fn release(&self, task: &str, is_wanted: impl Fn() -> bool) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        if is_wanted() { Ok(()) } else { end(&self.folder.join(task)) }
    }
}

fn read(folder: &Path) -> Option<Starter> {
    Starter::parse(&std::fs::read_to_string(folder.join("holder")).ok()?)
}

fn end(folder: &Path) -> io::Result<()> {
    if let Some(holder) = read(folder) {
        holder.kill();
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
