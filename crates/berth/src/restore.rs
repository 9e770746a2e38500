//! `berth restore`: makes a server's data of a backup, in its data directory or in etcd. It never touches a store that has something
//! in it, and touches nothing before the whole backup was read and found good.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use berth_cli::Output;
use berth_store::backend::Stored;
use berth_store::backup::{self, Header, ReadError};
use berth_store::{BackendError, EtcdUrl, Sqlite, etcd};
use serde_json::json;

use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::settings::{account, region};
use crate::store::{self, Place};

/// Settings of `berth restore`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RestoreSettings {
    /// The backup, as `berth backup` wrote it; - is the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the server will keep everything; its store must be empty [default: ~/.berth, for root /var/lib/berth]
    #[arg(long, value_name = "DIR", env = "BERTH_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where the records go: sqlite (in the data directory), or an etcd cluster as `berth server --store` names it, under a prefix under
    /// which there is nothing
    #[arg(long, value_name = "STORE", default_value = "sqlite", env = "BERTH_STORE", hide_env_values = true)]
    store: Place,
    /// AWS region that the server will be
    #[arg(long, value_name = "REGION", default_value = "us-east-1", value_parser = region)]
    region: String,
    /// AWS account that the server will be, twelve digits
    #[arg(long, value_name = "ID", default_value = "000000000000", value_parser = account)]
    account: String,
    /// Restore also where region or account are not the backup's: then every ARN becomes a new one, and whoever knows an old
    /// one (agents, scripts, Terraform) has to be told
    #[arg(long)]
    new_arns: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// Reads the whole backup, then brings it in.
pub(crate) fn restore(settings: &RestoreSettings) -> Result<(), Failure> {
    if let Place::Illegal(reason) = &settings.store {
        return Err(store::illegal(reason));
    }
    // All of it in memory, as the server will have it anyway: so nothing is begun that cannot be ended.
    let (header, records) = read(settings)?;
    agree(settings, &header)?;
    let mut kinds = BTreeMap::new();
    for stored in &records {
        *kinds.entry(backup::kind(&stored.record)).or_insert(0_u64) += 1;
    }
    let data_dir = DataDir::open(settings.data_dir.clone())?;
    let count = match &settings.store {
        Place::Etcd(url) => bring_into_etcd(url, &header, records)?,
        Place::DataDirectory | Place::Illegal(_) => bring_in(&data_dir, &header, records)?,
    };
    print!("{}", render(settings, &data_dir, &header, count, &kinds));
    Ok(())
}

fn read(settings: &RestoreSettings) -> Result<(Header, Vec<Stored>), Failure> {
    let failed = |problem: String| Failure::setting("FILE", format!("{}: {problem}", settings.file.display()));
    let input: Box<dyn Read> = if settings.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&settings.file).map_err(|error| failed(error.to_string()))?)
    };
    let refused = |error: ReadError| match error {
        ReadError::Truncated { .. } | ReadError::Damaged { .. } => failed(format!("{error}; nothing was restored, take another backup")),
        error => failed(error.to_string()),
    };
    let found = backup::read(input).map_err(refused)?;
    let header = found.header.clone();
    Ok((header, found.collect::<Result<_, _>>().map_err(refused)?))
}

/// Region and account are in no record, but in every ARN.
fn agree(settings: &RestoreSettings, header: &Header) -> Result<(), Failure> {
    if settings.new_arns || (settings.region == header.region && settings.account == header.account) {
        return Ok(());
    }
    let (option, theirs) = (format!("--region {} --account {}", settings.region, settings.account), scope_options(header));
    let setting = if settings.region == header.region { "--account" } else { "--region" };
    Err(Failure::setting(
        setting,
        format!(
            "the backup is of a server with {theirs}, and this one would have {option}: every ARN would become another one. \
             Restore and start the server with {theirs}, or, if new ARNs are what you want, add --new-arns"
        ),
    ))
}

fn scope_options(header: &Header) -> String {
    format!("--region {} --account {}", header.region, header.account)
}

fn bring_in(data_dir: &DataDir, header: &Header, records: Vec<Stored>) -> Result<u64, Failure> {
    let path = data_dir.join("state.db");
    let was_there = path.exists();
    let failed = |error: BackendError| match error {
        BackendError::NotEmpty => Failure::setting(
            "--data-dir",
            format!(
                "{0} has a store that is not empty; move it away first (mv {0}/state.db* ELSEWHERE), or give another directory",
                data_dir.path().display()
            ),
        ),
        error => data_dir.store_failure(error),
    };
    let import = || {
        let mut store = Sqlite::open(&path)?;
        let count = store.import(records, header.revision)?;
        drop(store);
        // A file's name is only safe once its folder is.
        File::open(data_dir.path()).and_then(|folder| folder.sync_all()).map_err(|error| BackendError::Io(error.to_string()))?;
        Ok(count)
    };
    import().map_err(|error| {
        if !was_there {
            for name in ["state.db", "state.db-wal"] {
                let _ = std::fs::remove_file(data_dir.join(name));
            }
        }
        failed(error)
    })
}

/// Runs on a thread of its own: it has a runtime of its own.
fn bring_into_etcd(url: &EtcdUrl, header: &Header, records: Vec<Stored>) -> Result<u64, Failure> {
    // Tells this backup from every other, so that only the same one goes on where a restore broke off.
    let name = format!("{} {} {} {}", header.account, header.region, header.revision, header.taken_at.0);
    let import = || etcd::import(url, &name, records);
    let outcome = std::thread::scope(|scope| scope.spawn(import).join());
    let outcome = outcome.map_err(|_| Failure::part("store", "the restore panicked"))?;
    outcome.map_err(|error| match error {
        BackendError::NotEmpty => {
            Failure::setting("--store", format!("{url} is not empty; give another prefix, or remove all keys of this one first"))
        }
        error => Failure::setting("--store", error.to_string()),
    })
}

/// As it may be shown: without a password.
fn place(settings: &RestoreSettings) -> String {
    match &settings.store {
        Place::Etcd(url) => url.to_string(),
        Place::DataDirectory | Place::Illegal(_) => "sqlite".to_owned(),
    }
}

fn render(settings: &RestoreSettings, data_dir: &DataDir, header: &Header, count: u64, kinds: &BTreeMap<&str, u64>) -> String {
    let (registry, credentials) = (data_dir.join("registry"), data_dir.join("credentials"));
    let dir = data_dir.path().display();
    if settings.output == Output::Json {
        let object = json!({
            "dataDir": data_dir.path(), "store": place(settings), "records": count, "kinds": kinds, "revision": header.revision,
            "region": settings.region, "account": settings.account, "takenAt": header.taken_at, "version": header.version,
            "notInBackup": [
                {"what": "images", "path": registry, "present": registry.exists()},
                {"what": "rootKey", "path": credentials, "present": credentials.exists()},
            ],
        });
        return format!("{object}\n");
    }
    let kinds: String = kinds.iter().map(|(kind, count)| format!("  {:<19} {count}\n", words(kind))).collect();
    let there = |present: bool, missing: &'static str| if present { "is there already" } else { missing };
    let scope = if (settings.region.as_str(), settings.account.as_str()) == ("us-east-1", "000000000000") {
        String::new()
    } else {
        format!(" --region {} --account {}", settings.region, settings.account)
    };
    let (into, start) = match &settings.store {
        // Its URL may have a password, which is not shown.
        Place::Etcd(url) => (url.to_string(), format!("`berth server --data-dir {dir} --store ...{scope}`, with the same store")),
        Place::DataDirectory | Place::Illegal(_) => (dir.to_string(), format!("`berth up --data-dir {dir}{scope}`, or `berth server`")),
    };
    format!(
        "Restored {count} {} at revision {} into {into}\n{kinds}\
         Not in a backup:\n  the registry's images: {} {}\n  the root key: {} {}\n\
         Start it with {start}.\n",
        if count == 1 { "record" } else { "records" },
        header.revision,
        registry.display(),
        there(registry.exists(), "is not there; copy it from the old data directory, or load images anew"),
        credentials.display(),
        there(credentials.exists(), "is not there; copy it from the old data directory, or the next start makes a new key"),
    )
}

/// `taskDefinitions` as people write it.
fn words(kind: &str) -> String {
    kind.chars().flat_map(|letter| letter.is_uppercase().then_some(' ').into_iter().chain(letter.to_lowercase())).collect()
}
