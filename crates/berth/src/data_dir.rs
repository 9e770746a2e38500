//! The data directory: where everything is kept, and how commands of the same machine find the server.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use berth_cli::data_dir::{Endpoint, default_data_dir};
use berth_cli::environment::Environment;
use berth_identity::AccessKey;
use berth_identity::credentials_file::{Profile, parse, render};
use berth_identity::keys::{KeyKind, access_key_id, secret_access_key};
use berth_store::BackendError;
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::machine::random;

/// The data directory.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Makes it if it is not there; only its owner may look inside.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self, Failure> {
        let path = Self::place(path)?;
        let failed = |error: std::io::Error| Failure::setting("--data-dir", format!("{}: {error}", path.display()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let path = fs::canonicalize(&path).map_err(failed)?;
        Ok(Self(path))
    }

    /// Where it is or would be: what is wished, or this user's default.
    pub(crate) fn place(wished: Option<PathBuf>) -> Result<PathBuf, Failure> {
        let default =
            || default_data_dir(&Environment::of_process()).map_err(|error| Failure::setting("HOME", format!("{error}; give --data-dir")));
        wished.map_or_else(default, Ok)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Eight letters and digits that tell this data directory's bridge, table and cgroups from another's on the same machine.
    pub(crate) fn short_name(&self) -> String {
        Sha256::digest(self.0.as_os_str().as_encoded_bytes())[..4].iter().fold(String::new(), |name, byte| format!("{name}{byte:02x}"))
    }

    /// Root credentials: made at the first start, read at every other.
    pub(crate) fn root_credentials(&self, principal: &str) -> Result<AccessKey, Failure> {
        let path = self.join("credentials");
        let failed = |what: String| Failure::setting("--data-dir", format!("{}: {what}", path.display()));
        match fs::read_to_string(&path) {
            Ok(text) => {
                let profiles = parse(&text).map_err(|error| failed(error.to_string()))?;
                let profile = profiles.into_iter().find(|profile| profile.name == "default");
                let profile = profile.ok_or_else(|| failed("has no profile 'default'".to_owned()))?;
                Ok(AccessKey::long_term(profile.access_key_id, profile.secret.expose(), principal))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let id = access_key_id(KeyKind::LongTerm, &random());
                let secret = secret_access_key(&random());
                let key = AccessKey::long_term(id.clone(), secret.expose(), principal);
                let profile = Profile { name: "default".to_owned(), access_key_id: id, secret, session_token: None };
                self.write_whole("credentials", render(&[profile]).as_bytes(), 0o600)?;
                Ok(key)
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The credentials file.
    pub(crate) fn credentials_text(&self) -> Result<Vec<u8>, Failure> {
        let path = self.join("credentials");
        fs::read(&path).map_err(|error| Failure::setting("--data-dir", format!("{}: {error}", path.display())))
    }

    /// Takes other credentials over, if that is what they are.
    pub(crate) fn adopt_credentials(&self, text: &[u8]) -> Result<(), Failure> {
        let legal = std::str::from_utf8(text).is_ok_and(|text| parse(text).is_ok());
        if !legal {
            return Err(Failure::part("store", "the root credentials in it cannot be read"));
        }
        self.write_whole("credentials", text, 0o600)
    }

    /// Keeps other servers out of this data directory as long as the file is open.
    pub(crate) fn lock(&self) -> Result<fs::File, Failure> {
        let path = self.join("server.lock");
        let failed = |error: std::io::Error| Failure::setting("--data-dir", format!("{}: {error}", path.display()));
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(self.store_failure(BackendError::InUse(path.display().to_string()))),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Why the store in here cannot be used, and what to do.
    pub(crate) fn store_failure(&self, error: BackendError) -> Failure {
        let dir = self.0.display();
        match error {
            BackendError::InUse(_) => Failure::setting(
                "--data-dir",
                format!("{dir} is in use by another Berth; stop it with `berth down`, or give another directory"),
            ),
            BackendError::Damaged { .. } => Failure::part(
                "store",
                format!(
                    "{error}. Move it away (mv {dir}/state.db* ELSEWHERE), then bring the newest backup in: \
                     berth restore FILE --data-dir {dir}"
                ),
            ),
            error => Failure::part("store", error),
        }
    }

    /// Tells commands of this machine where the server is; `false` if the disk is full.
    pub(crate) fn announce(&self, endpoint: &str, region: &str, account: &str) -> Result<bool, Failure> {
        let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        let known = Endpoint { endpoint: endpoint.to_owned(), region: region.to_owned(), account: account.to_owned(), pid };
        match known.write(&self.0) {
            Ok(()) => Ok(true),
            // An earlier life's file has room that is taken already.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(overwrite(&Endpoint::path(&self.0), &known).is_ok()),
            Err(error) => Err(Failure::setting("--data-dir", format!("{}: {error}", Endpoint::path(&self.0).display()))),
        }
    }

    /// The server is gone.
    pub(crate) fn withdraw(&self) {
        let _ = fs::remove_file(Endpoint::path(&self.0));
    }

    /// Writes a file so that readers see the old or the new one, never a part.
    fn write_whole(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), Failure> {
        let (path, fresh) = (self.join(name), self.join(&format!(".{name}.new")));
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|error| Failure::setting("--data-dir", format!("{}: {error}", path.display())))
    }
}

/// Writes over a file that is there, without asking the disk for room.
fn overwrite(path: &Path, known: &Endpoint) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let mut text = serde_json::to_vec(known)?;
    // Blanks after JSON mean nothing, and a reader never sees the end of the old text after the new one.
    text.resize(text.len().max(usize::try_from(file.metadata()?.len()).unwrap_or(0)), b'\n');
    file.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_written_over_a_longer_and_a_shorter_one() {
        let folder = std::env::temp_dir().join(format!("berth-endpoint-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let known = |port: &str| Endpoint {
            endpoint: format!("http://127.0.0.1:{port}"),
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            pid: i32::try_from(std::process::id()).unwrap(),
        };
        let path = Endpoint::path(&folder);
        assert!(overwrite(&path, &known("4566")).is_err(), "what is not there has no room");
        known("4566").write(&folder).unwrap();
        for port in ["80", "45660"] {
            overwrite(&path, &known(port)).unwrap();
            let text = fs::read(&path).unwrap();
            let found: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(found["endpoint"], format!("http://127.0.0.1:{port}"));
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
