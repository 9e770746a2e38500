//! What outlives the agent's process: the subnet, and one small file for each attachment.
//!
//! Written by rename and without `fsync`: namespaces end with the machine, so the files need not outlive it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::port::{Attachment, AttachmentId, NetworkError};
use crate::security_group::NetworkTable;
use crate::subnet::Subnet;

/// An attachment and the host end of its veth pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// What the caller sees.
    pub attachment: Attachment,
    /// Name of the host end; none for an isolated one.
    pub link: Option<String>,
}

/// The state directory, locked for this process.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
    _lock: Flock<File>,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// Another process has it.
    #[error("network state directory {0}: another process uses it")]
    Busy(PathBuf),
    /// It cannot be made, read or locked.
    #[error("network state directory {path}: {source}")]
    Unusable {
        /// The file or directory at fault.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Records {
    /// Opens and locks a state directory.
    ///
    /// # Errors
    /// [`RecordsError`].
    pub fn open(directory: &Path) -> Result<Self, RecordsError> {
        let unusable = |source| RecordsError::Unusable { path: directory.to_owned(), source };
        fs::create_dir_all(directory.join("attachments")).map_err(unusable)?;
        let file = File::create(directory.join("lock")).map_err(unusable)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => RecordsError::Busy(directory.to_owned()),
            errno => unusable(errno.into()),
        })?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// All attachments. A file that cannot be read as one is removed: what it told of is then found as a namespace without
    /// record.
    ///
    /// # Errors
    /// The file system's.
    pub fn read(&self) -> Result<Vec<Record>, RecordsError> {
        let directory = self.directory.join("attachments");
        let unusable = |source| RecordsError::Unusable { path: directory.clone(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(&directory).map_err(unusable)? {
            let path = entry.map_err(unusable)?.path();
            match fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?)) {
                Ok(record) if path == self.path(&record.attachment.id) => records.push(record),
                _ => {
                    tracing::warn!(path = %path.display(), "removing an unreadable network record");
                    fs::remove_file(&path).map_err(unusable)?;
                }
            }
        }
        Ok(records)
    }

    /// Writes an attachment.
    ///
    /// # Errors
    /// [`NetworkError::System`]; then the file is as it was.
    pub fn write(&self, record: &Record) -> Result<(), NetworkError> {
        self.replace(&self.path(&record.attachment.id), record)
    }

    /// Removes an attachment's file; that there is none is no error.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    pub fn remove(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        remove_file(&self.path(id))
    }

    /// The subnet chosen before.
    #[must_use]
    pub fn subnet(&self) -> Option<Subnet> {
        serde_json::from_slice(&fs::read(self.directory.join("subnet.json")).ok()?).ok()
    }

    /// Keeps the chosen subnet.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    pub fn write_subnet(&self, subnet: Subnet) -> Result<(), NetworkError> {
        self.replace(&self.directory.join("subnet.json"), &subnet)
    }

    /// Forgets the chosen subnet.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    pub fn remove_subnet(&self) -> Result<(), NetworkError> {
        remove_file(&self.directory.join("subnet.json"))
    }

    /// The table of security groups pushed last; an empty one, of which nothing passes, if there is none.
    #[must_use]
    pub fn table(&self) -> NetworkTable {
        let read = fs::read(self.directory.join("table.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.unwrap_or_default()
    }

    /// Keeps the table.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    pub fn write_table(&self, table: &NetworkTable) -> Result<(), NetworkError> {
        self.replace(&self.directory.join("table.json"), table)
    }

    /// Forgets the table.
    ///
    /// # Errors
    /// [`NetworkError::System`].
    pub fn remove_table(&self) -> Result<(), NetworkError> {
        remove_file(&self.directory.join("table.json"))
    }

    fn path(&self, id: &AttachmentId) -> PathBuf {
        self.directory.join("attachments").join(format!("{id}.json"))
    }

    fn replace(&self, path: &Path, content: &impl Serialize) -> Result<(), NetworkError> {
        // Beside, not in, the directory that is read: a crash leaves no half-written record there. Ids are locked by the
        // caller, so a name is written by one thread at a time.
        let draft = self.directory.join(path.file_name().unwrap_or_default()).with_extension("draft");
        let bytes = serde_json::to_vec(content).expect("a record has no map with odd keys");
        fs::write(&draft, bytes)
            .and_then(|()| fs::rename(&draft, path))
            .map_err(|error| NetworkError::System(format!("write {}: {error}", path.display())))
    }
}

fn remove_file(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NetworkError::System(format!("remove {}: {error}", path.display()))),
        _ => Ok(()),
    }
}
