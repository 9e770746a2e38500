//! What must survive the agent: its identity and its tasks, each a JSON file that is replaced as a whole. No fsync: what a
//! power cut takes, the runtime and the control plane know too.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_acs::messages as acs;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::{Millis, TaskState};
use crate::images::book::ImageRecord;
use crate::names::KeptTable;

/// Who the agent is to the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// The cluster as it was configured when the instance was registered.
    pub cluster: String,
    /// The container instance's ARN; empty before it is registered.
    pub container_instance_arn: String,
    /// The largest manifest number seen.
    pub timeline: i64,
    /// The boot of the machine in which this was written; empty if nobody knew.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
}

impl Identity {
    /// Whether the machine was started anew since this was written; `boot_id` is that of now. What is not known on either side counts as
    /// no restart: then tasks are found again, or not, by what is seen of them.
    #[must_use]
    pub fn is_of_earlier_boot(&self, boot_id: &str) -> bool {
        !self.boot_id.is_empty() && !boot_id.is_empty() && self.boot_id != boot_id
    }
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskEntry {
    /// As it was sent, without credentials.
    pub task: acs::Task,
    /// Where it is.
    pub state: TaskState,
    /// What its containers are called towards the task metadata endpoint, in their order; empty of a task that was taken on without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoint_ids: Vec<String>,
    /// When it was over and accepted as such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Millis>,
}

/// A file that cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct LedgerError {
    /// Which.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// The files below the data directory. Clones share them.
#[derive(Debug, Clone)]
pub struct Ledger {
    identity: PathBuf,
    images: PathBuf,
    names: PathBuf,
    tasks: PathBuf,
    place: Place,
}

/// Where the files are.
#[derive(Debug, Clone)]
enum Place {
    Disk,
    /// They outlive an agent, but not the process: for simulations.
    Memory(Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>),
}

impl Ledger {
    /// Opens the ledger below `data_dir`, which is made if it is missing. Half-written files of an earlier life are removed.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(data_dir: &Path) -> Result<Self, LedgerError> {
        let tasks = data_dir.join("tasks");
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| LedgerError { path, source }
        };
        // Tasks' environments often hold secrets.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&tasks).map_err(fail(&tasks))?;
        for file in fs::read_dir(&tasks).map_err(fail(&tasks))? {
            let path = file.map_err(fail(&tasks))?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(&path).map_err(fail(&path))?;
            }
        }
        let file = |name: &str| data_dir.join(name);
        Ok(Self { identity: file("agent.json"), images: file("images.json"), names: file("dns.json"), tasks, place: Place::Disk })
    }

    /// A ledger whose files are in memory: an agent that is given a clone of an earlier one's finds what that one kept.
    #[must_use]
    pub fn in_memory() -> Self {
        let place = Place::Memory(Arc::default());
        Self { identity: "agent.json".into(), images: "images.json".into(), names: "dns.json".into(), tasks: "tasks".into(), place }
    }

    /// Who the agent was; the default if it never was.
    ///
    /// # Errors
    /// [`LedgerError`], also if the file holds something else.
    pub fn identity(&self) -> Result<Identity, LedgerError> {
        Ok(self.place.read(&self.identity)?.unwrap_or_default())
    }

    /// Keeps who the agent is.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn keep_identity(&self, identity: &Identity) -> Result<(), LedgerError> {
        self.place.replace(&self.identity, identity)
    }

    /// The images that tasks brought, by digest. A file that cannot be read is as good as none: the machine knows what it has.
    ///
    /// # Errors
    /// [`LedgerError`] if the system refuses.
    pub fn images(&self) -> Result<BTreeMap<String, ImageRecord>, LedgerError> {
        match self.place.read(&self.images) {
            Err(error) if error.source.kind() == io::ErrorKind::InvalidData || error.source.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::warn!(%error, "the records of images cannot be read and are begun anew");
                Ok(BTreeMap::new())
            }
            read => Ok(read?.unwrap_or_default()),
        }
    }

    /// Keeps the images that tasks brought.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn keep_images(&self, images: &BTreeMap<String, ImageRecord>) -> Result<(), LedgerError> {
        self.place.replace(&self.images, images)
    }

    /// The names that the control plane sent last; none if it never did.
    ///
    /// # Errors
    /// [`LedgerError`], also if the file holds something else.
    pub fn names(&self) -> Result<KeptTable, LedgerError> {
        Ok(self.place.read(&self.names)?.unwrap_or_default())
    }

    /// Keeps the names that the control plane sent.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn keep_names(&self, table: &KeptTable) -> Result<(), LedgerError> {
        self.place.replace(&self.names, table)
    }

    /// All tasks, and the files that are none (which are left where they are).
    ///
    /// # Errors
    /// [`LedgerError`] if the directory cannot be read.
    pub fn tasks(&self) -> Result<(Vec<TaskEntry>, Vec<LedgerError>), LedgerError> {
        let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
        for path in self.place.list(&self.tasks)? {
            if path.extension().is_some_and(|extension| extension == "json") {
                match self.place.read(&path) {
                    Ok(entry) => entries.extend(entry),
                    Err(error) => unreadable.push(error),
                }
            }
        }
        Ok((entries, unreadable))
    }

    /// Keeps a task under its id.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn keep_task(&self, id: &str, entry: &TaskEntry) -> Result<(), LedgerError> {
        self.place.replace(&self.task_path(id), entry)
    }

    /// Forgets a task; one that is not there is no error.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn forget_task(&self, id: &str) -> Result<(), LedgerError> {
        let path = self.task_path(id);
        match self.place.remove(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LedgerError { path, source }),
            _ => Ok(()),
        }
    }

    fn task_path(&self, id: &str) -> PathBuf {
        self.tasks.join(format!("{id}.json"))
    }
}

impl Place {
    /// The files of a directory, in order: an agent takes its tasks up again in the same order each time.
    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>, LedgerError> {
        let mut paths = match self {
            Self::Disk => {
                let files = fs::read_dir(directory).and_then(|files| files.map(|file| Ok(file?.path())).collect::<io::Result<Vec<_>>>());
                files.map_err(|source| LedgerError { path: directory.to_owned(), source })?
            }
            Self::Memory(files) => files.lock().keys().filter(|path| path.parent() == Some(directory)).cloned().collect(),
        };
        paths.sort_unstable();
        Ok(paths)
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, LedgerError> {
        let fail = |source| LedgerError { path: path.to_owned(), source };
        let bytes = match self {
            Self::Disk => fs::read(path),
            Self::Memory(files) => files.lock().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into()),
        };
        match bytes {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| fail(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    fn replace(&self, path: &Path, value: &impl Serialize) -> Result<(), LedgerError> {
        let fail = |source| LedgerError { path: path.to_owned(), source };
        let bytes = serde_json::to_vec(value).map_err(|error| fail(error.into()))?;
        match self {
            Self::Disk => {
                let new = path.with_extension("new");
                fs::write(&new, bytes).and_then(|()| fs::rename(&new, path)).map_err(fail)
            }
            Self::Memory(files) => {
                files.lock().insert(path.to_owned(), bytes);
                Ok(())
            }
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Disk => fs::remove_file(path),
            Self::Memory(files) => files.lock().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.identity().unwrap(), Identity::default());
        let identity = Identity { cluster: "c".into(), container_instance_arn: "arn".into(), timeline: 7, boot_id: "b".into() };
        ledger.keep_identity(&identity).unwrap();
        let task = acs::Task { arn: "arn:x/t1".into(), ..Default::default() };
        let endpoint_ids = vec!["a".to_owned(), "b".to_owned()];
        let entry = TaskEntry { task, state: TaskState::new(2), endpoint_ids, retired_at: Some(3) };
        ledger.keep_task("t1", &entry).unwrap();
        fs::write(dir.path().join("tasks/t2.new"), "half").unwrap();
        fs::write(dir.path().join("tasks/t3.json"), "{").unwrap();

        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.identity().unwrap(), identity);
        let (entries, unreadable) = ledger.tasks().unwrap();
        assert_eq!(entries, [entry]);
        assert_eq!(unreadable.len(), 1);
        assert!(!dir.path().join("tasks/t2.new").exists());
        ledger.forget_task("t1").unwrap();
        ledger.forget_task("t1").unwrap();
        assert!(ledger.tasks().unwrap().0.is_empty());
    }

    #[test]
    fn a_restart_of_the_machine_is_another_boot_id() {
        let of = |boot_id: &str| Identity { boot_id: boot_id.into(), ..Default::default() };
        assert!(of("a").is_of_earlier_boot("b"));
        for (kept, now) in [("a", "a"), ("", "a"), ("a", ""), ("", "")] {
            assert!(!of(kept).is_of_earlier_boot(now), "{kept} {now}");
        }
        let before = serde_json::from_str::<Identity>(r#"{"cluster":"c","containerInstanceArn":"arn","timeline":1}"#).unwrap();
        assert_eq!(before.boot_id, "", "written by an earlier version");
    }
}
