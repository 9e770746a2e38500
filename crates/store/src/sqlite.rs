//! The embedded backend: one SQLite file, write-ahead log, synchronous=FULL, held exclusively by one process.

use std::path::Path;

use berth_model::record::Record;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use crate::backend::{Backend, BackendError, Stored, Write};
use crate::transaction::Revision;

/// The newest schema that this code writes; kept in `user_version`.
const SCHEMA: i64 = 1;
/// Bytes that the write-ahead log is given at first idleness. A file that grows costs a journal commit of the file system
/// with every sync, twice the time of one that is there already.
const LOG_BYTES: i64 = 8 * 1024 * 1024;
/// Pages in the write-ahead log at which it is written back even while commits wait: before it would grow.
const CHECKPOINT_PAGES: i64 = 1_800;

/// A store in a file.
pub struct Sqlite {
    connection: Connection,
    log_pages: i64,
    log_is_made: bool,
}

impl Sqlite {
    /// Opens the file, making it if there is none.
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
        let connection = Connection::open_with_flags(path, flags).map_err(error)?;
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
        connection
            .execute_batch(
                "BEGIN IMMEDIATE;
                 CREATE TABLE IF NOT EXISTS records (
                     key TEXT PRIMARY KEY, created INTEGER NOT NULL, modified INTEGER NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL
                 ) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS revision (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), last INTEGER NOT NULL);
                 INSERT OR IGNORE INTO revision VALUES (0, 0);
                 PRAGMA user_version = 1;
                 COMMIT;",
            )
            .map_err(error)?;
        Ok(Self { connection, log_pages: 0, log_is_made: false })
    }

    fn write(&mut self, writes: &[Write], revision: Revision) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO records (key, created, modified, version, body) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (key) DO UPDATE SET created = ?2, modified = ?3, version = ?4, body = ?5",
            )?;
            let mut touch = transaction.prepare_cached("UPDATE records SET modified = ?2, version = ?3 WHERE key = ?1")?;
            let mut delete = transaction.prepare_cached("DELETE FROM records WHERE key = ?1")?;
            for write in writes {
                match write {
                    Write::Put(Stored { record, created, modified, version }) => {
                        let body =
                            serde_json::to_string(record).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
                        put.execute(params![record.key().to_string(), number(created.0), number(modified.0), number(*version), body])?;
                    }
                    Write::Touch { key, modified, version } => {
                        touch.execute(params![key.to_string(), number(modified.0), number(*version)])?;
                    }
                    Write::Delete(key) => {
                        delete.execute(params![key.to_string()])?;
                    }
                }
            }
            // A record that was put or touched carries the revision itself; only a commit of nothing but deletions needs this.
            if !writes.iter().any(|write| write.modified() == Some(revision)) {
                transaction.prepare_cached("UPDATE revision SET last = ?1")?.execute(params![number(revision.0)])?;
            }
        }
        transaction.commit()
    }

    /// Makes the log's file as large as it will get, by a transaction of that size that leaves nothing behind.
    fn make_log(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch("CREATE TABLE ballast (bytes BLOB)")?;
        transaction.execute("INSERT INTO ballast VALUES (zeroblob(?1))", params![LOG_BYTES])?;
        transaction.commit()?;
        self.connection.execute_batch("DROP TABLE ballast")
    }

    /// Writes the log back into the file.
    fn checkpoint(&mut self) {
        let outcome = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1));
        match outcome {
            Ok(_) => self.log_pages = 0,
            // Not fatal: the log keeps everything and the next checkpoint tries again.
            Err(error) => tracing::warn!(%error, "cannot write the store's log back"),
        }
    }
}

/// SQLite's integers are signed; a revision would need centuries to get that far.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Backend for Sqlite {
    fn revision(&mut self) -> Result<Revision, BackendError> {
        let last: i64 = self
            .connection
            .query_row("SELECT max(last, (SELECT coalesce(max(modified), 0) FROM records)) FROM revision", [], |row| row.get(0))
            .map_err(|error| BackendError::Io(error.to_string()))?;
        Ok(Revision(u64::try_from(last).unwrap_or(0)))
    }

    fn load(&mut self, sink: &mut dyn FnMut(Stored)) -> Result<(), BackendError> {
        let io = |error: rusqlite::Error| BackendError::Io(error.to_string());
        let mut select = self.connection.prepare("SELECT key, created, modified, version, body FROM records").map_err(io)?;
        let mut rows = select.query([]).map_err(io)?;
        while let Some(row) = rows.next().map_err(io)? {
            let key: String = row.get(0).map_err(io)?;
            let counter = |column: usize| row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0)).map_err(io);
            let body = row
                .get_ref(4)
                .map_err(io)?
                .as_str()
                .map_err(|error| BackendError::Damaged { at: key.clone(), reason: error.to_string() })?;
            let record: Record =
                serde_json::from_str(body).map_err(|error| BackendError::Damaged { at: key.clone(), reason: error.to_string() })?;
            sink(Stored { record, created: Revision(counter(1)?), modified: Revision(counter(2)?), version: counter(3)? });
        }
        Ok(())
    }

    fn persist(&mut self, writes: &[Write], revision: Revision) -> Result<(), BackendError> {
        self.write(writes, revision).map_err(|error| BackendError::Io(error.to_string()))?;
        // An upper bound: a record takes a page of the table and at times one above it.
        self.log_pages += i64::try_from(writes.len()).unwrap_or(i64::MAX / 4) * 2 + 1;
        if self.log_pages > CHECKPOINT_PAGES {
            self.checkpoint();
        }
        Ok(())
    }

    fn idle(&mut self) {
        if !std::mem::replace(&mut self.log_is_made, true)
            && let Err(error) = self.make_log()
        {
            tracing::warn!(%error, "cannot make room for the store's log; commits take longer");
        }
        self.checkpoint();
    }
}
