//! Reading a whole file: one thread takes the rows out, several check and parse them, the caller gets them in the rows' order.
//! Parsing takes most of a start's time, and the file has only one connection.

use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use berth_model::record::Record;
use berth_model::shared_text::Sharing;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, Row};

use super::WRONG_SUM;
use super::log_row::{self, Found};
use crate::backend::{BackendError, Stored, Write};
use crate::transaction::Revision;

/// Bytes of rows handed over at once: worth the handing over, which wakes a thread, and little beside the state.
const CHUNK: usize = 256 * 1024;
/// Chunks that wait for each thread, and parsed ones for the caller.
const AHEAD: usize = 4;
/// Most threads that parse; more than these one reader cannot feed.
const PARSERS: usize = 8;
/// Bytes of the file that are mapped while it is read, as far as it has them; SQLite maps 2 GiB at most. To ask the kernel for each page
/// of 4 KiB on its own takes a fifth of all the work of a start. Not while the store is open: there a disk that cannot be read must be an
/// error, and not a signal.
const MAPPED: i64 = 2 * 1024 * 1024 * 1024;

/// Rows of one table, as they were read.
enum Rows {
    Records(Chunk<Counters>),
    Log(Chunk<i64>),
}

/// Keys, bodies and what else a row has; the texts of all rows in one buffer.
struct Chunk<T> {
    bytes: Vec<u8>,
    rows: Vec<Span<T>>,
}

struct Span<T> {
    /// Where in the buffer the row's key ends; it begins where the row before ends.
    key_end: usize,
    body_end: usize,
    sum: Option<u32>,
    rest: T,
}

struct Counters {
    created: Revision,
    modified: Revision,
    version: u64,
}

/// What a chunk holds.
pub(super) enum Parsed {
    /// Each of them another record.
    Records(Vec<Write>),
    /// What was written later, in the order in which it was.
    Log {
        writes: Vec<Write>,
        /// Of its rows' JSON.
        bytes: usize,
    },
}

type Outcome = Result<Parsed, BackendError>;

/// Gives all rows, first those of the records, then those of the log.
pub(super) fn load(connection: &mut Connection, sink: &mut dyn FnMut(Parsed)) -> Result<(), BackendError> {
    let io = |error: rusqlite::Error| BackendError::Io(error.to_string());
    connection.pragma_update(None, "mmap_size", MAPPED).map_err(io)?;
    let outcome = load_mapped(connection, sink);
    outcome.and(connection.pragma_update(None, "mmap_size", 0).map_err(io))
}

fn load_mapped(connection: &mut Connection, sink: &mut dyn FnMut(Parsed)) -> Result<(), BackendError> {
    let parsers = thread::available_parallelism().map_or(1, NonZero::get).min(PARSERS);
    thread::scope(|scope| {
        let failed = |error: std::io::Error| BackendError::Io(format!("cannot start a thread that reads the store: {error}"));
        let (mut to, mut from) = (Vec::new(), Vec::new());
        for _ in 0..parsers {
            let (rows, taken) = sync_channel(AHEAD);
            let (done, parsed) = sync_channel(AHEAD);
            let parse = move || parse_all(&taken, &done);
            thread::Builder::new().name("store-parser".into()).spawn_scoped(scope, parse).map_err(failed)?;
            to.push(rows);
            from.push(parsed);
        }
        let read = move || read_all(connection, to);
        let reader = thread::Builder::new().name("store-reader".into()).spawn_scoped(scope, read).map_err(failed)?;
        // The reader deals chunks out in turn, so in turn they come back in the rows' order. It ends with the first that has none.
        for parsed in from.iter().cycle() {
            let Ok(outcome) = parsed.recv() else { break };
            sink(outcome?);
        }
        // Receivers that go away end all threads.
        drop(from);
        reader.join().unwrap_or_else(|_| Err(BackendError::Io("the thread that reads the store panicked".to_owned())))
    })
}

fn parse_all(rows: &Receiver<Rows>, done: &SyncSender<Outcome>) {
    let _sharing = Sharing::begin();
    for rows in rows {
        if done.send(rows.parse()).is_err() {
            return;
        }
    }
}

/// Reads until the end, or until nobody wants more: then that has its own reason.
fn read_all(connection: &Connection, to: Vec<SyncSender<Rows>>) -> Result<(), BackendError> {
    let mut turn = to.iter().cycle();
    let mut hand_over = |rows: Rows| turn.next().is_some_and(|to| to.send(rows).is_ok());
    let io = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => BackendError::Damaged { at: "the records".to_owned(), reason: error.to_string() },
        _ => BackendError::Io(error.to_string()),
    };
    let records = "SELECT key, body, sum, created, modified, version FROM records";
    let counters = |row: &Row<'_>| {
        let counter = |column: usize| row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0));
        Ok(Counters { created: Revision(counter(3)?), modified: Revision(counter(4)?), version: counter(5)? })
    };
    if read_table(connection, records, counters, |chunk| hand_over(Rows::Records(chunk))).map_err(io)? {
        let log = "SELECT NULL, writes, sum, revision FROM log ORDER BY revision";
        read_table(connection, log, |row| row.get(3), |chunk| hand_over(Rows::Log(chunk))).map_err(io)?;
    }
    Ok(())
}

/// Reads a table whose rows begin with key, body and sum; `false` if it was broken off.
fn read_table<T>(
    connection: &Connection,
    select: &str,
    rest: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    mut hand_over: impl FnMut(Chunk<T>) -> bool,
) -> rusqlite::Result<bool> {
    let bytes = |value: ValueRef<'_>, to: &mut Vec<u8>| {
        if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = value {
            to.extend_from_slice(bytes);
        }
        to.len()
    };
    let mut chunk = Chunk::new();
    let mut select = connection.prepare(select)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let key_end = bytes(row.get_ref(0)?, &mut chunk.bytes);
        let body_end = bytes(row.get_ref(1)?, &mut chunk.bytes);
        chunk.rows.push(Span { key_end, body_end, sum: row.get(2)?, rest: rest(row)? });
        if chunk.bytes.len() >= CHUNK && !hand_over(std::mem::replace(&mut chunk, Chunk::new())) {
            return Ok(false);
        }
    }
    Ok(chunk.rows.is_empty() || hand_over(chunk))
}

impl<T> Chunk<T> {
    fn new() -> Self {
        // The last row goes beyond it.
        Self { bytes: Vec::with_capacity(CHUNK + CHUNK / 4), rows: Vec::new() }
    }

    /// Every row's key, body, and what else it has, if its sum is right.
    fn rows(&self) -> impl Iterator<Item = (&[u8], Result<&[u8], &'static str>, &T)> {
        let mut begin = 0;
        self.rows.iter().map(move |row| {
            let (key, body) = (&self.bytes[begin..row.key_end], &self.bytes[row.key_end..row.body_end]);
            begin = row.body_end;
            // A record of the first schema has no sum.
            let wrong = row.sum.is_some_and(|sum| sum != crc32fast::hash(body));
            (key, if wrong { Err(WRONG_SUM) } else { Ok(body) }, &row.rest)
        })
    }
}

impl Rows {
    fn parse(&self) -> Outcome {
        fn damaged(at: &impl ToString, reason: &impl ToString) -> BackendError {
            BackendError::Damaged { at: at.to_string(), reason: reason.to_string() }
        }
        match self {
            Self::Records(chunk) => {
                let parse = |(key, body, counters): (&[u8], Result<&[u8], _>, &Counters)| {
                    let at = || String::from_utf8_lossy(key);
                    let text = std::str::from_utf8(body.map_err(|reason| damaged(&at(), &reason))?);
                    let text = text.map_err(|error| damaged(&at(), &error))?;
                    let record: Record = serde_json::from_str(text).map_err(|error| damaged(&at(), &error))?;
                    let Counters { created, modified, version } = *counters;
                    Ok(Write::Put(Stored { record, created, modified, version }))
                };
                Ok(Parsed::Records(chunk.rows().map(parse).collect::<Result<_, _>>()?))
            }
            Self::Log(chunk) => {
                let (mut writes, mut bytes) = (Vec::new(), 0);
                for (_, body, revision) in chunk.rows() {
                    let at = format!("log/{revision}");
                    let json = log_row::json(body.map_err(|reason| damaged(&at, &reason))?).map_err(|error| damaged(&at, &error))?;
                    bytes += json.len();
                    let found: Vec<Found> = serde_json::from_slice(&json).map_err(|error| damaged(&at, &error))?;
                    for write in found {
                        writes.push(write.write().map_err(|error| damaged(&at, &error))?);
                    }
                }
                Ok(Parsed::Log { writes, bytes })
            }
        }
    }
}
