//! What must survive the agent: its identity, its images' records and the names it was told, each a JSON file that is replaced as a whole;
//! and its tasks, in one file to which changes are appended. Nobody waits for the disk: what a power cut takes, the runtime and the control
//! plane know too.

mod journal;
mod line;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_acs::messages as acs;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::journal::Journal;
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
    /// As it was sent, with no more of its roles' credentials than the task role's name and by which they are asked for.
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

/// A task's changes are on the disk at the latest so much later.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

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
    Disk(Arc<Journal>),
    /// They outlive an agent, but not the process: for simulations.
    Memory(Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>),
}

impl Ledger {
    /// Opens the ledger below `data_dir`, which is made if it is missing. Half-written files of an earlier life are removed; tasks that an
    /// earlier version of Berth kept in a file each are taken over.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(data_dir: &Path) -> Result<Self, LedgerError> {
        // Tasks' environments often hold secrets.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
        made.map_err(|source| LedgerError { path: data_dir.to_owned(), source })?;
        let file = |name: &str| data_dir.join(name);
        let tasks = file("tasks.log");
        let journal = Journal::open(&tasks).map_err(|source| LedgerError { path: tasks.clone(), source })?;
        take_over(&file("tasks"), &journal)?;
        let place = Place::Disk(Arc::new(journal));
        Ok(Self { identity: file("agent.json"), images: file("images.json"), names: file("dns.json"), tasks, place })
    }

    /// A ledger whose files are in memory: an agent that is given a clone of an earlier one's finds what that one kept.
    #[must_use]
    pub fn in_memory() -> Self {
        let place = Place::Memory(Arc::default());
        Self { identity: "agent.json".into(), images: "images.json".into(), names: "dns.json".into(), tasks: "tasks".into(), place }
    }

    /// Has tasks' changes put on the disk, once for all of some seconds. What was not is lost with the machine's power, never with the
    /// agent. Runs until the agent ends.
    pub async fn settle(self, stop: CancellationToken) {
        let Place::Disk(journal) = self.place else { return };
        loop {
            let changed = async {
                journal.changed().await;
                tokio::time::sleep(SETTLED_AFTER).await;
            };
            let is_last = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                () = changed => false,
            };
            let (journal, path) = (journal.clone(), self.tasks.clone());
            // A disk may take its time.
            let settled = tokio::task::spawn_blocking(move || journal.settle()).await;
            if let Err(error) = settled.unwrap_or_else(|error| Err(io::Error::other(error))) {
                tracing::warn!(path = %path.display(), %error, "tasks' progress may not be on the disk");
            }
            if is_last {
                return;
            }
        }
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

    /// All tasks, in order of their ids, and what cannot be read as one.
    ///
    /// # Errors
    /// [`LedgerError`] if the system refuses.
    pub fn tasks(&self) -> Result<(Vec<TaskEntry>, Vec<LedgerError>), LedgerError> {
        let files = match &self.place {
            Place::Disk(journal) => return journal.entries().map_err(|source| self.of_tasks(source)),
            Place::Memory(files) => files,
        };
        let paths: Vec<_> = files.lock().keys().filter(|path| path.parent() == Some(&self.tasks)).cloned().collect();
        let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
        for path in paths {
            match self.place.read(&path) {
                Ok(entry) => entries.extend(entry),
                Err(error) => unreadable.push(error),
            }
        }
        Ok((entries, unreadable))
    }

    /// Keeps a task under its id.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn keep_task(&self, id: &str, entry: &TaskEntry) -> Result<(), LedgerError> {
        self.keep_tasks([(id, entry)])
    }

    /// Keeps tasks under their ids, in one write.
    ///
    /// # Errors
    /// [`LedgerError`]; then none of them is.
    pub fn keep_tasks<'a>(&self, entries: impl IntoIterator<Item = (&'a str, &'a TaskEntry)>) -> Result<(), LedgerError> {
        match &self.place {
            Place::Disk(journal) => journal.keep(entries).map_err(|source| self.of_tasks(source)),
            Place::Memory(_) => entries.into_iter().try_for_each(|(id, entry)| self.place.replace(&self.task_path(id), entry)),
        }
    }

    /// Forgets a task; one that is not there is no error.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn forget_task(&self, id: &str) -> Result<(), LedgerError> {
        match &self.place {
            Place::Disk(journal) => journal.forget(id).map_err(|source| self.of_tasks(source)),
            Place::Memory(files) => {
                files.lock().remove(&self.task_path(id));
                Ok(())
            }
        }
    }

    /// Has every change of tasks on the disk refused, or taken again.
    #[cfg(test)]
    pub(crate) fn refuse_tasks(&self, refuse: bool) {
        if let Place::Disk(journal) = &self.place {
            journal.refuse(refuse);
        }
    }

    fn of_tasks(&self, source: io::Error) -> LedgerError {
        LedgerError { path: self.tasks.clone(), source }
    }

    fn task_path(&self, id: &str) -> PathBuf {
        self.tasks.join(format!("{id}.json"))
    }
}

impl Place {
    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, LedgerError> {
        let fail = |source| LedgerError { path: path.to_owned(), source };
        let bytes = match self {
            Self::Disk(_) => fs::read(path),
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
            Self::Disk(_) => {
                let new = path.with_extension("new");
                fs::write(&new, bytes).and_then(|()| fs::rename(&new, path)).map_err(fail)
            }
            Self::Memory(files) => {
                files.lock().insert(path.to_owned(), bytes);
                Ok(())
            }
        }
    }
}

/// Takes over tasks that an earlier version of Berth kept in a file each. A file that is no task's is left where it is, and said.
fn take_over(folder: &Path, journal: &Journal) -> Result<(), LedgerError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| LedgerError { path, source }
    };
    let files = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files.map_err(fail(folder))?,
    };
    let (mut entries, mut done) = (Vec::new(), Vec::new());
    for file in files {
        let path = file.map_err(fail(folder))?.path();
        let of = |extension: &str| path.extension().is_some_and(|found| found == extension);
        if of("json") {
            let entry = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<TaskEntry>(&bytes)?));
            match (entry, path.file_stem().and_then(|stem| stem.to_str())) {
                (Ok(entry), Some(id)) => entries.push((id.to_owned(), entry)),
                (Err(error), _) => {
                    tracing::error!(path = %path.display(), %error, "a task's file of an earlier version cannot be read; its containers are removed");
                    continue;
                }
                (Ok(_), None) => continue,
            }
        } else if !of("new") {
            continue;
        }
        done.push(path);
    }
    tracing::info!(tasks = entries.len(), "the ledger of an earlier version is taken over");
    journal.keep(entries.iter().map(|(id, entry)| (id.as_str(), entry))).and_then(|()| journal.settle()).map_err(fail(folder))?;
    for path in done {
        fs::remove_file(&path).map_err(fail(&path))?;
    }
    // Stays if something is in it that was not taken over.
    let _ = fs::remove_dir(folder);
    Ok(())
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
        drop(ledger);

        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.identity().unwrap(), identity);
        let (entries, unreadable) = ledger.tasks().unwrap();
        assert_eq!(entries, [entry]);
        assert!(unreadable.is_empty());
        ledger.forget_task("t1").unwrap();
        ledger.forget_task("t1").unwrap();
        assert!(ledger.tasks().unwrap().0.is_empty());
    }

    #[test]
    fn tasks_of_an_earlier_version_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("tasks");
        fs::create_dir(&old).unwrap();
        let entry = TaskEntry {
            task: acs::Task { arn: "arn:x/t1".into(), ..Default::default() },
            state: TaskState::new(1),
            retired_at: None,
            endpoint_ids: Default::default(),
        };
        fs::write(old.join("t1.json"), serde_json::to_vec(&entry).unwrap()).unwrap();
        fs::write(old.join("t2.new"), "half").unwrap();
        fs::write(old.join("t3.json"), "{").unwrap();
        for _ in 0..2 {
            let (entries, unreadable) = Ledger::open(dir.path()).unwrap().tasks().unwrap();
            assert_eq!(entries, std::slice::from_ref(&entry));
            assert!(unreadable.is_empty());
        }
        let left: Vec<_> = fs::read_dir(&old).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["t3.json"], "what is no task's is left where it is");
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
