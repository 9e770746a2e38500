//! Where this server's records are: in its data directory, or in an etcd cluster that it shares with other servers.

use std::str::FromStr;
use std::time::Duration;

use berth_identity::AccessKey;
use berth_store::{EtcdSettings, EtcdUrl, Sqlite, Store};

use crate::data_dir::DataDir;
use crate::failure::Failure;

/// How long the last commits may take at the server's end.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// `--store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `sqlite`.
    DataDirectory,
    /// `etcd://...`, `etcds://...`.
    Etcd(EtcdUrl),
    /// None of them, and why. Not an error of parsing: that would be shown with the text, in which a password may be.
    Illegal(String),
}

/// What is wrong with a `--store`.
pub(crate) fn illegal(reason: &str) -> Failure {
    Failure::setting("--store", reason.to_owned())
}

impl FromStr for Place {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "sqlite" {
            return Ok(Self::DataDirectory);
        }
        Ok(text.parse().map_or_else(|error| Self::Illegal(format!("it is not 'sqlite', and {error}")), Self::Etcd))
    }
}

/// An open store.
pub(crate) struct Opened {
    pub(crate) store: Store,
    /// Held while the server runs, where the store itself does not keep a second server out of the data directory.
    pub(crate) lock: Option<std::fs::File>,
}

/// Opens the store.
pub(crate) async fn open(place: &Place, data_dir: &DataDir) -> Result<Opened, Failure> {
    match place {
        Place::DataDirectory => {
            let opened = Sqlite::open(&data_dir.join("state.db")).and_then(Store::open);
            Ok(Opened { store: opened.map_err(|error| data_dir.store_failure(error))?, lock: None })
        }
        Place::Illegal(reason) => Err(illegal(reason)),
        Place::Etcd(url) => {
            let lock = data_dir.lock()?;
            let settings = EtcdSettings::at(url.clone());
            // It waits for etcd.
            let opened = tokio::task::spawn_blocking(move || Store::open_etcd(settings)).await;
            let opened = opened.map_err(|error| Failure::part("store", error))?;
            let store = opened.map_err(|error| Failure::setting("--store", error.to_string()))?;
            Ok(Opened { store, lock: Some(lock) })
        }
    }
}

/// Root credentials, the same on all servers of a store: those of the first that started on it.
pub(crate) async fn root_credentials(store: &Store, data_dir: &DataDir, principal: &str) -> Result<AccessKey, Failure> {
    // Made if there are none yet.
    data_dir.root_credentials(principal)?;
    let own = data_dir.credentials_text()?;
    let agreed = store.agree("root-credentials", own.clone()).await.map_err(|error| Failure::part("store", error))?;
    if agreed != own {
        data_dir.adopt_credentials(&agreed)?;
    }
    data_dir.root_credentials(principal)
}

/// The server ends: another one may lead at once.
pub(crate) async fn leave(store: &Store) {
    let _ = tokio::time::timeout(LEAVE_PATIENCE, store.leave()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!("sqlite".parse(), Ok(Place::DataDirectory));
        let etcd: Place = "etcd://a:1,b:2/cell".parse().unwrap();
        assert!(matches!(etcd, Place::Etcd(url) if url.to_string() == "etcd://a:1,b:2/cell"));
        let illegal: Place = "postgres://u:hunter2@a".parse().unwrap();
        let Place::Illegal(reason) = illegal else { panic!("it was taken") };
        assert!(reason.contains("HOST:PORT") && reason.contains("sqlite") && !reason.contains("hunter2"), "{reason}");
    }
}
