//! The embedded backend: one SQLite file, write-ahead log, synchronous=FULL, held exclusively by one process.
//!
//! A batch of commits becomes one row of the table `log`, next to the one before it: a page or two to sync, wherever its
//! records belong. The table `records`, by key, gets the newest of each record later, when nothing waits or when the log
//! has become long; then the log's rows go. What is there is the records with the log's writes on top.

mod load;
mod log_row;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_model::record::Key;
use foldhash::fast::RandomState;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use self::load::Parsed;
use self::log_row::RowWriter;
use crate::backend::{Backend, BackendError, Stored, Write};
use crate::transaction::Revision;

/// The newest schema that this code writes; kept in `user_version`.
const SCHEMA: i64 = 3;
/// Bytes that SQLite's write-ahead log is given at first idleness. A file that grows costs a journal commit of the file
/// system with every sync, twice the time of one that is there already.
const WAL_BYTES: i64 = 8 * 1024 * 1024;
/// Pages in the write-ahead log at which it is written back even while commits wait: before it would grow.
const CHECKPOINT_PAGES: usize = 1_800;
/// Pages in the write-ahead log from which on it is written back as soon as nothing waits for a moment. To write all of
/// [`CHECKPOINT_PAGES`] back takes tens of milliseconds, for which a commit would wait; so few take one.
const LULL_PAGES: usize = 128;
/// Bytes of JSON in the table `log`, however few they take compressed, from which on every commit also moves some records on: a start
/// parses all of it.
const LONG_LOG: usize = 64 * 1024 * 1024;
/// Records moved on at once: about a millisecond.
const FOLD: usize = 128;
/// Records moved on for each that is written while the log is long, so that it gets shorter however much is written.
const FASTER: usize = 2;
/// Bytes of a file up to which its whole structure is checked at every start: a few hundredths of a second. Beyond, a start
/// rests on the sums, which are checked with every record that is read.
const CHECKED: u64 = 64 * 1024 * 1024;
/// What is wrong with a row whose CRC-32 is not the one beside it.
const WRONG_SUM: &str = "its checksum is wrong";
/// Rows of the log taken out at once.
const DROP: i64 = 128;

/// A store in a file.
pub struct Sqlite {
    connection: Connection,
    /// The newest write of each record that is in the log only.
    fresh: HashMap<Key, Write, RandomState>,
    /// What is being moved on.
    folding: Option<Folding>,
    /// The newest revision in the log.
    last: Revision,
    /// Bytes of JSON in the log's rows.
    log_bytes: usize,
    /// Pages in the write-ahead log since it was last written back; SQLite tells it at each of its commits.
    wal_pages: Arc<AtomicUsize>,
    wal_is_made: bool,
    /// Housekeeping failed when it was last tried, and that was said.
    housekeeping_fails: bool,
    row: RowWriter,
}

/// The move of the log's content, up to a revision, into the table of records.
struct Folding {
    upto: Revision,
    writes: Vec<Write>,
    bytes: usize,
}

impl Sqlite {
    /// Opens the file, making it if there is none, and brings an older schema up to date.
    ///
    /// # Errors
    /// [`BackendError::InUse`] if another process has it open; [`BackendError`] if it cannot be read.
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let name = path.display().to_string();
        let error = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => BackendError::InUse(name.clone()),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                BackendError::Damaged { at: name.clone(), reason: error.to_string() }
            }
            _ => BackendError::Io(format!("{name}: {error}")),
        };
        let mut connection = Connection::open_with_flags(path, flags).map_err(error)?;
        // Only one process may have the file: waiting for another to let go of it would only delay the error.
        connection.busy_timeout(std::time::Duration::ZERO).map_err(error)?;
        // Exclusive locking before the first access keeps the log's index in memory and other processes out.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(error)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(error)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(error)?;
        // Written back by `idle` and `persist`, not by whichever commit happens to cross a limit.
        connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(error)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(error)?;
        if found > SCHEMA {
            return Err(BackendError::NewerSchema { found, known: SCHEMA });
        }
        migrate(&mut connection, found).map_err(error)?;
        let wal_pages = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&wal_pages);
        let hook = move |_: &mut Wal, pages| {
            told.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        connection.wal_hook(Some(hook)).map_err(error)?;
        check(&connection, path)?;
        Ok(Self {
            connection,
            fresh: HashMap::default(),
            folding: None,
            last: Revision(0),
            log_bytes: 0,
            wal_pages,
            wal_is_made: false,
            housekeeping_fails: false,
            row: RowWriter::new()?,
        })
    }

    /// Fills an empty store with records as they were, counters included; `revision` is that of the last commit among them.
    ///
    /// # Errors
    /// [`BackendError`] if the store is not empty or cannot be written; then nothing of it was kept.
    pub fn import(&mut self, records: impl IntoIterator<Item = Stored>, revision: Revision) -> Result<u64, BackendError> {
        if self.revision()? != Revision(0) {
            return Err(BackendError::NotEmpty);
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(refused)?;
        let mut count = 0;
        for stored in records {
            write_record(&transaction, &Write::Put(stored)).map_err(refused)?;
            count += 1;
        }
        transaction.execute("UPDATE revision SET last = ?1", params![number(revision.0)]).map_err(refused)?;
        transaction.commit().map_err(refused)?;
        self.last = revision;
        Ok(count)
    }

    /// Pages in the write-ahead log.
    fn wal_pages(&self) -> usize {
        self.wal_pages.load(Ordering::Relaxed)
    }

    /// Appends a row to the log: the bytes of its JSON.
    fn append(&mut self, writes: &[Write], revision: Revision) -> rusqlite::Result<usize> {
        let (row, json) = self.row.write(writes).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        // A statement of its own is a transaction of its own.
        let mut append = self.connection.prepare_cached("INSERT INTO log (revision, writes, sum) VALUES (?1, ?2, ?3)")?;
        append.execute(params![number(revision.0), row, crc32fast::hash(row)])?;
        Ok(json)
    }

    /// Moves some of the log's content on into the table of records; whether there is more.
    fn fold(&mut self) -> rusqlite::Result<bool> {
        let Self { connection, fresh, folding, last, log_bytes, .. } = self;
        let fold = match folding {
            Some(fold) => fold,
            None if fresh.is_empty() && *log_bytes == 0 => return Ok(false),
            // What is written from here on is for the next time.
            None => folding.insert(Folding { upto: *last, writes: in_order(fresh), bytes: *log_bytes }),
        };
        // Not worth a sync of its own: should it be lost, the log still has everything. It cannot be lost in part.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let outcome = fold.step(connection);
        connection.pragma_update(None, "synchronous", "FULL")?;
        let done = outcome?;
        if done {
            *log_bytes -= fold.bytes;
            *folding = None;
        }
        Ok(!(done && fresh.is_empty()))
    }

    /// Makes SQLite's log file as large as it will get, by a transaction of that size that leaves nothing behind.
    fn make_wal(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // A full disk or a kill may have left one before.
        transaction.execute_batch("DROP TABLE IF EXISTS ballast; CREATE TABLE ballast (bytes BLOB)")?;
        transaction.execute("INSERT INTO ballast VALUES (zeroblob(?1))", params![WAL_BYTES])?;
        transaction.commit()?;
        self.connection.execute_batch("DROP TABLE ballast")
    }

    /// Writes SQLite's log back into the file.
    fn checkpoint(&mut self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1))?;
        self.wal_pages.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// While the log is long: moves more records on than are written.
    fn keep_log_short(&mut self, written: usize) -> rusqlite::Result<()> {
        let mut left = written * FASTER;
        while self.log_bytes > LONG_LOG {
            self.fold()?;
            if self.wal_pages() > CHECKPOINT_PAGES {
                self.checkpoint()?;
            }
            left = left.saturating_sub(FOLD);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// A piece of what is done when nothing waits; whether there is more.
    fn tidy(&mut self) -> rusqlite::Result<bool> {
        if !self.wal_is_made {
            self.make_wal()?;
            self.wal_is_made = true;
        }
        let more = self.fold()?;
        if !more || self.wal_pages() > CHECKPOINT_PAGES {
            self.checkpoint()?;
        }
        Ok(more)
    }

    /// Says that housekeeping fails, and that it goes on: each once, not at every try of what may be hours on a full disk. It is never
    /// fatal: the log keeps everything, and the next try comes.
    fn heed(&mut self, outcome: rusqlite::Result<bool>) -> bool {
        let failed = outcome.as_ref().err().map(ToString::to_string);
        match (std::mem::replace(&mut self.housekeeping_fails, failed.is_some()), failed) {
            (false, Some(error)) => tracing::warn!(%error, "cannot move the store's log to where it belongs; it is tried again"),
            (true, None) => tracing::info!("the store's log is moved to where it belongs again"),
            _ => {}
        }
        outcome.unwrap_or(false)
    }

    fn last_revision(&self) -> rusqlite::Result<Revision> {
        let newest = "SELECT max(last, (SELECT coalesce(max(revision), 0) FROM log)) FROM revision";
        let mut last: i64 = self.connection.query_row(newest, [], |row| row.get(0))?;
        if last == 0 {
            // A file of the first schema says it in the records alone; to look through all of them takes half a second a million.
            last = self.connection.query_row("SELECT coalesce(max(modified), 0) FROM records", [], |row| row.get(0))?;
        }
        Ok(Revision(u64::try_from(last).unwrap_or(0)))
    }
}

impl Folding {
    /// One transaction's worth; whether all is done.
    fn step(&mut self, connection: &mut Connection) -> rusqlite::Result<bool> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let first = self.writes.len().saturating_sub(FOLD);
        for write in &self.writes[first..] {
            write_record(&transaction, write)?;
        }
        let mut dropped = 0;
        if first == 0 {
            // Oldest first, so that the rows that are left still end with the newest of each record.
            let delete = "DELETE FROM log WHERE revision IN (SELECT revision FROM log WHERE revision <= ?1 ORDER BY revision LIMIT ?2)";
            dropped = transaction.prepare_cached(delete)?.execute(params![number(self.upto.0), DROP])?;
            transaction.prepare_cached("UPDATE revision SET last = ?1")?.execute(params![number(self.upto.0)])?;
        }
        transaction.commit()?;
        self.writes.truncate(first);
        Ok(first == 0 && i64::try_from(dropped).is_ok_and(|dropped| dropped < DROP))
    }
}

/// All that is fresh, ordered by key, so that what is written in one transaction is on few pages of the table.
fn in_order(fresh: &mut HashMap<Key, Write, RandomState>) -> Vec<Write> {
    let mut writes: Vec<(Key, Write)> = fresh.drain().collect();
    writes.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    writes.into_iter().map(|(_, write)| write).collect()
}

fn write_record(transaction: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Put(Stored { record, created, modified, version }) => {
            let body = serde_json::to_string(record).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            transaction
                .prepare_cached(
                    "INSERT INTO records (key, created, modified, version, body, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (key) DO UPDATE SET created = ?2, modified = ?3, version = ?4, body = ?5, sum = ?6",
                )?
                .execute(params![
                    record.key().to_string(),
                    number(created.0),
                    number(modified.0),
                    number(*version),
                    body,
                    crc32fast::hash(body.as_bytes())
                ])?;
        }
        Write::Touch { key, modified, version } => {
            transaction.prepare_cached("UPDATE records SET modified = ?2, version = ?3 WHERE key = ?1")?.execute(params![
                key.to_string(),
                number(modified.0),
                number(*version)
            ])?;
        }
        Write::Delete(key) => {
            transaction.prepare_cached("DELETE FROM records WHERE key = ?1")?.execute(params![key.to_string()])?;
        }
    }
    Ok(())
}

/// Keeps the newest write of a record.
fn remember(fresh: &mut HashMap<Key, Write, RandomState>, write: Write) {
    match (fresh.get_mut(&write.key()), write) {
        (Some(Write::Put(stored)), Write::Touch { modified, version, .. }) => {
            stored.modified = modified;
            stored.version = version;
        }
        (Some(known), write) => *known = write,
        (None, write) => {
            fresh.insert(write.key(), write);
        }
    }
}

/// Makes what the newest schema has and the file of schema `found` has not. 0 is an empty file; 1 had no log and no sums; 2 has no
/// compressed rows in its log, which only those who would read them need to be told.
fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    if found == SCHEMA {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if found < 2 {
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS records (
                 key TEXT PRIMARY KEY, created INTEGER NOT NULL, modified INTEGER NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL
             ) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS log (revision INTEGER PRIMARY KEY, writes BLOB NOT NULL, sum INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS revision (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), last INTEGER NOT NULL);
             INSERT OR IGNORE INTO revision VALUES (0, 0);",
        )?;
        // Records of the first schema have none until they are written again.
        transaction.execute_batch("ALTER TABLE records ADD COLUMN sum INTEGER")?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}

/// Looks for damage in the file's structure.
fn check(connection: &Connection, path: &Path) -> Result<(), BackendError> {
    let at = || path.display().to_string();
    if std::fs::metadata(path).map_err(|error| BackendError::Io(format!("{}: {error}", at())))?.len() > CHECKED {
        return Ok(());
    }
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(reason) => Err(BackendError::Damaged { at: at(), reason }),
        Err(error) => Err(BackendError::Damaged { at: at(), reason: error.to_string() }),
    }
}

/// Why a write failed.
fn refused(error: rusqlite::Error) -> BackendError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => BackendError::NoSpace,
        _ => BackendError::Io(error.to_string()),
    }
}

/// SQLite's integers are signed; a revision would need centuries to get that far.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Backend for Sqlite {
    fn revision(&mut self) -> Result<Revision, BackendError> {
        self.last = self.last_revision().map_err(|error| BackendError::Io(error.to_string()))?;
        Ok(self.last)
    }

    fn load(&mut self, sink: &mut dyn FnMut(Write)) -> Result<(), BackendError> {
        let Self { connection, fresh, log_bytes, .. } = self;
        load::load(connection, &mut |parsed| match parsed {
            Parsed::Records(writes) => writes.into_iter().for_each(&mut *sink),
            Parsed::Log { writes, bytes } => {
                *log_bytes += bytes;
                for write in writes {
                    sink(write.clone());
                    remember(fresh, write);
                }
            }
        })
    }

    fn persist(&mut self, writes: &[Write], revision: Revision) -> Result<(), BackendError> {
        self.log_bytes += self.append(writes, revision).map_err(refused)?;
        self.last = revision;
        for write in writes {
            remember(&mut self.fresh, write.clone());
        }
        let mut outcome = self.keep_log_short(writes.len());
        if outcome.is_ok() && self.wal_pages() > CHECKPOINT_PAGES {
            outcome = self.checkpoint();
        }
        // Whatever came of it: the commit stands.
        if outcome.is_err() || self.log_bytes > LONG_LOG {
            self.heed(outcome.map(|()| false));
        }
        Ok(())
    }

    fn idle(&mut self) -> bool {
        // A store that was only opened, and has no log, needs nothing.
        if self.log_bytes == 0 && self.wal_pages() == 0 {
            return false;
        }
        let outcome = self.tidy();
        self.heed(outcome)
    }

    fn wants_lull(&self) -> bool {
        self.wal_pages() > LULL_PAGES
    }

    fn lull(&mut self) {
        let outcome = self.checkpoint();
        self.heed(outcome.map(|()| false));
    }
}
