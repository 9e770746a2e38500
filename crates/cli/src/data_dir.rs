//! The data directory as seen from outside: where it is by default, and `endpoint.json`, by which commands find the running
//! Berth of this machine. It must never look at anything else the server keeps there.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::environment::Environment;

/// Where root's Berth keeps its data.
const OF_ROOT: &str = "/var/lib/berth";
/// A file of four short members has no business being larger.
const MAX_BYTES: u64 = 64 * 1024;

/// Neither root nor anybody with a home: there is no place to look at.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no default data directory, since HOME is not set")]
pub struct NoHome;

/// The data directory that is used where none is named: `/var/lib/berth` for root, `~/.berth` for anybody else.
///
/// # Errors
/// [`NoHome`] for a user other than root without `HOME`.
pub fn default_data_dir(environment: &Environment) -> Result<PathBuf, NoHome> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(OF_ROOT));
    }
    environment.get("HOME").map(|home| Path::new(home).join(".berth")).ok_or(NoHome)
}

/// Where the agent of a data directory keeps the containers' folders, each with the container's output: below `agent` beside a server, right
/// there in the directory of an agent that is a process of its own (`ECS_DATADIR`).
#[must_use]
pub fn containers_folder(data_dir: &Path) -> PathBuf {
    let (beside, own) = (data_dir.join("agent").join("containers"), data_dir.join("containers"));
    if own.is_dir() && !beside.is_dir() { own } else { beside }
}

/// The root credentials of a data directory, in the AWS shared-credentials format.
#[must_use]
pub fn credentials_file(data_dir: &Path) -> PathBuf {
    data_dir.join("credentials")
}

/// `endpoint.json`: how to reach the Berth that runs with a data directory. Whoever serves writes it once it listens, and
/// removes it when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// URL of the AWS APIs, such as `http://127.0.0.1:4566`.
    pub endpoint: String,
    /// The region that is served.
    pub region: String,
    /// The account that is served, twelve digits.
    pub account: String,
    /// Process id of the server.
    pub pid: i32,
}

/// Why `endpoint.json` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The system refuses.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Endpoint {
    /// The file of a data directory.
    #[must_use]
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("endpoint.json")
    }

    /// Reads the file of a data directory; `None` if there is none. That there is one does not mean that the server still runs.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn read(data_dir: &Path) -> Result<Option<Self>, EndpointError> {
        let path = Self::path(data_dir);
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EndpointError::Unreadable { path, error }),
        };
        if length > MAX_BYTES {
            return Err(EndpointError::Damaged { path, problem: format!("{length} bytes are too many") });
        }
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EndpointError::Unreadable { path, error }),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| EndpointError::Damaged { path, problem: error.to_string() })
    }

    /// Writes the file of a data directory, readable by everybody; a reader sees the old file or the new one, nothing between.
    ///
    /// # Errors
    /// The system's; then the old file is as it was.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let fresh = data_dir.join(format!("endpoint.json.{}", self.pid));
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&fresh, Self::path(data_dir)));
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint { endpoint: "http://127.0.0.1:4566".into(), region: "us-east-1".into(), account: "000000000000".into(), pid: 123 }
    }

    #[test]
    fn the_file_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Endpoint::read(folder.path()).unwrap(), None);
        endpoint().write(folder.path()).unwrap();
        assert_eq!(Endpoint::read(folder.path()).unwrap(), Some(endpoint()));
        assert_eq!(
            fs::read_to_string(folder.path().join("endpoint.json")).unwrap(),
            "{\"endpoint\":\"http://127.0.0.1:4566\",\"region\":\"us-east-1\",\"account\":\"000000000000\",\"pid\":123}\n"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(Endpoint::path(folder.path()), "{\"endpoint\":\"x\"}").unwrap();
        let text = Endpoint::read(folder.path()).unwrap_err().to_string();
        assert!(text.contains("endpoint.json is damaged: missing field `region`"), "{text}");
        fs::write(Endpoint::path(folder.path()), vec![b' '; 70_000]).unwrap();
        assert!(Endpoint::read(folder.path()).unwrap_err().to_string().contains("70000 bytes are too many"));
    }

    #[test]
    fn containers_are_found_beside_a_server_and_of_an_agent_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(containers_folder(folder.path()), folder.path().join("agent/containers"), "where they will be");
        fs::create_dir(folder.path().join("containers")).unwrap();
        assert_eq!(containers_folder(folder.path()), folder.path().join("containers"));
        fs::create_dir_all(folder.path().join("agent/containers")).unwrap();
        assert_eq!(containers_folder(folder.path()), folder.path().join("agent/containers"));
    }

    #[test]
    fn the_default_is_of_the_user() {
        let environment: Environment = [("HOME", "/home/me")].into_iter().collect();
        let expected = if rustix::process::geteuid().is_root() { OF_ROOT } else { "/home/me/.berth" };
        assert_eq!(default_data_dir(&environment), Ok(PathBuf::from(expected)));
    }
}
