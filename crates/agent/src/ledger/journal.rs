//! The tasks' file: changes are appended, what was superseded is left out when the file is written anew in the background.
//!
//! One write(2) for all changes that came while the last was being written; whoever asked for a change waits for that write, so a killed
//! agent loses nothing that it was told is kept. A write that was cut off is a line that is not whole: the next opening takes it away.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::line;
use super::{LedgerError, TaskEntry};

/// The file is written anew when more than this, and more than half of it, was superseded: rarely enough that it costs nothing beside the
/// changes themselves, and the file is never much more than twice what it must hold.
const WORTH_COMPACTING: u64 = 256 << 10;
/// How much is copied at once.
const COPIED_AT_ONCE: usize = 256 << 10;

/// Where a task's last line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    offset: u64,
    length: usize,
}

/// The file as it is.
#[derive(Debug)]
struct Book {
    file: Arc<File>,
    end: u64,
    places: BTreeMap<String, Place>,
    /// Bytes of the lines in `places`.
    live: u64,
    compacting: bool,
    /// No compaction before the file is this long: the last one failed.
    not_before: u64,
}

/// Changes that nobody has written yet.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Change>,
    outcome: Arc<OnceLock<Result<(), Refusal>>>,
}

#[derive(Debug)]
struct Change {
    id: String,
    /// Where in the batch.
    at: usize,
    length: usize,
    keeps: bool,
}

/// An error for everybody whose change was in the batch.
#[derive(Debug, Clone)]
struct Refusal {
    code: Option<i32>,
    kind: io::ErrorKind,
    text: String,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { code: error.raw_os_error(), kind: error.kind(), text: error.to_string() }
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        refusal.code.map_or_else(|| Self::new(refusal.kind, refusal.text), Self::from_raw_os_error)
    }
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    waiting: Mutex<Batch>,
    book: Mutex<Book>,
    /// Something was written that may not be on the disk.
    unsettled: AtomicBool,
    changed: Notify,
    /// What was found when the file was opened.
    damage: Vec<String>,
}

/// The tasks' file, open.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    compaction: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the file, or makes it. A write that was cut off is taken away, as is a compaction that did not come to its end.
    ///
    /// # Errors
    /// Of the system; `InvalidData` if a later version of Berth wrote it.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::remove_file(unfinished(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Tasks' environments often hold secrets.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let bytes = fs::read(path)?;
        let scan = line::scan(&bytes);
        let mut damage: Vec<String> =
            scan.damaged.iter().map(|range| format!("bytes {} to {} are damaged", range.start, range.end)).collect();
        let mut book =
            Book { file: Arc::new(file), end: scan.end as u64, places: BTreeMap::new(), live: 0, compacting: false, not_before: 0 };
        for range in scan.lines {
            match line::head(&bytes[range.clone()]) {
                Ok(line::Head { version: Some(version), .. }) if version > line::VERSION => {
                    let text = format!("a later version of Berth wrote it (form {version}; this one knows {})", line::VERSION);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                Ok(line::Head { id: Some(id), entry, .. }) => {
                    let place = Place { offset: range.start as u64, length: range.len() };
                    book.note(&id, entry.is_some().then_some(place));
                }
                Ok(_) => {}
                Err(error) => damage.push(format!("bytes {} to {}: {error}", range.start, range.end)),
            }
        }
        if bytes.len() as u64 > book.end {
            tracing::warn!(path = %path.display(), bytes = bytes.len() as u64 - book.end, "a write that was cut off is taken away");
            book.file.set_len(book.end)?;
        }
        if book.end == 0 {
            let first = line::first()?;
            book.file.write_all_at(&first, 0)?;
            book.end = first.len() as u64;
        }
        let shared = Shared {
            path: path.to_owned(),
            waiting: Mutex::default(),
            book: Mutex::new(book),
            unsettled: AtomicBool::new(false),
            changed: Notify::new(),
            damage,
        };
        Ok(Self { shared: Arc::new(shared), compaction: Mutex::default() })
    }

    /// Keeps tasks under their ids, in one write.
    ///
    /// # Errors
    /// Of the system; then the file is as it was.
    pub fn keep<'a>(&self, entries: impl IntoIterator<Item = (&'a str, &'a TaskEntry)>) -> io::Result<()> {
        let lines = entries.into_iter().map(|(id, entry)| Ok((id, line::kept(id, entry)?, true)));
        self.append(lines.collect::<io::Result<Vec<_>>>()?)
    }

    /// Forgets a task; one that is not kept is no error.
    ///
    /// # Errors
    /// Of the system.
    pub fn forget(&self, id: &str) -> io::Result<()> {
        if !self.shared.book.lock().places.contains_key(id) {
            return Ok(());
        }
        self.append(vec![(id, line::forgotten(id)?, false)])
    }

    /// All tasks, in order of their ids, and what cannot be read.
    ///
    /// # Errors
    /// Of the system.
    pub fn entries(&self) -> io::Result<(Vec<TaskEntry>, Vec<LedgerError>)> {
        let fail = |text: String| LedgerError { path: self.shared.path.clone(), source: io::Error::new(io::ErrorKind::InvalidData, text) };
        let mut unreadable: Vec<_> = self.shared.damage.iter().cloned().map(fail).collect();
        let mut entries = Vec::new();
        let book = self.shared.book.lock();
        for (id, place) in &book.places {
            match line::entry(&book.read(*place)?) {
                Ok(entry) => entries.push(entry),
                Err(error) => unreadable.push(fail(format!("task {id}: {error}"))),
            }
        }
        Ok((entries, unreadable))
    }

    /// Has every change refused, or taken again.
    #[cfg(test)]
    pub fn refuse(&self, refuse: bool) {
        let file = OpenOptions::new().read(true).write(!refuse).open(&self.shared.path).unwrap();
        self.shared.book.lock().file = Arc::new(file);
    }

    fn append(&self, lines: Vec<(&str, Vec<u8>, bool)>) -> io::Result<()> {
        let outcome = {
            let mut waiting = self.shared.waiting.lock();
            for (id, line, keeps) in lines {
                let change = Change { id: id.to_owned(), at: waiting.bytes.len(), length: line.len(), keeps };
                waiting.bytes.extend_from_slice(&line);
                waiting.changes.push(change);
            }
            Arc::clone(&waiting.outcome)
        };
        let due = {
            let mut book = self.shared.book.lock();
            // Whoever held the book before may have written this batch with his own. If not, it is still the one that waits: a batch is
            // taken away only by somebody who has the book, and its outcome is known before he lets go of that.
            if outcome.get().is_none() {
                let batch = std::mem::take(&mut *self.shared.waiting.lock());
                let written = book.write(&batch).map_err(Refusal::from);
                let _ = batch.outcome.set(written);
            }
            book.is_worth_compacting() && !std::mem::replace(&mut book.compacting, true)
        };
        if !self.shared.unsettled.swap(true, Ordering::Relaxed) {
            self.shared.changed.notify_one();
        }
        if due {
            self.compact_aside();
        }
        match outcome.get() {
            Some(Err(refusal)) => Err(refusal.clone().into()),
            _ => Ok(()),
        }
    }

    /// Waits until something was written since the last [`Journal::settle`]; for one listener.
    pub async fn changed(&self) {
        while !self.shared.unsettled.load(Ordering::Relaxed) {
            self.shared.changed.notified().await;
        }
    }

    /// Waits until all that was written is on the disk.
    ///
    /// # Errors
    /// Of the system.
    pub fn settle(&self) -> io::Result<()> {
        if !self.shared.unsettled.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let file = Arc::clone(&self.shared.book.lock().file);
        file.sync_data()
    }

    fn compact_aside(&self) {
        let shared = Arc::clone(&self.shared);
        let work = move || shared.compact_or_say();
        match std::thread::Builder::new().name("ledger".into()).spawn(work) {
            Ok(thread) => drop(self.compaction.lock().replace(thread)),
            Err(error) => {
                tracing::warn!(%error, "no thread for writing the tasks' file anew; later");
                self.shared.give_up_compaction();
            }
        }
    }
}

impl Drop for Journal {
    /// Whoever opens the file next must not have it replaced by what it was before.
    fn drop(&mut self) {
        if let Some(thread) = self.compaction.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Book {
    fn note(&mut self, id: &str, place: Option<Place>) {
        let before = match place {
            Some(place) => {
                self.live += place.length as u64;
                self.places.insert(id.to_owned(), place)
            }
            None => self.places.remove(id),
        };
        self.live -= before.map_or(0, |before| before.length as u64);
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        if let Err(error) = self.file.write_all_at(&batch.bytes, self.end) {
            // What of it came through would be read as damage one day; if that cannot be undone, the next write covers it.
            let _ = self.file.set_len(self.end);
            return Err(error);
        }
        let begin = self.end;
        self.end += batch.bytes.len() as u64;
        for Change { id, at, length, keeps } in &batch.changes {
            self.note(id, keeps.then_some(Place { offset: begin + *at as u64, length: *length }));
        }
        Ok(())
    }

    fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut line = vec![0; place.length];
        self.file.read_exact_at(&mut line, place.offset).map(|()| line)
    }

    fn is_worth_compacting(&self) -> bool {
        let superseded = self.end - self.live;
        !self.compacting && superseded > self.live.max(WORTH_COMPACTING) && self.end >= self.not_before
    }
}

impl Shared {
    fn compact_or_say(&self) {
        if let Err(error) = self.compact() {
            tracing::warn!(path = %self.path.display(), %error, "the tasks' file cannot be written anew; it goes on growing");
            let _ = fs::remove_file(unfinished(&self.path));
            self.give_up_compaction();
        }
    }

    fn give_up_compaction(&self) {
        let mut book = self.book.lock();
        book.compacting = false;
        book.not_before = book.end + WORTH_COMPACTING;
    }

    /// Writes what holds into a new file while changes go on in the old one; then, with the book in hand, what came meanwhile.
    fn compact(&self) -> io::Result<()> {
        let (old, from, mut kept) = {
            let book = self.book.lock();
            (Arc::clone(&book.file), book.end, book.places.clone().into_iter().collect::<Vec<_>>())
        };
        // In the order in which they came: so is the disk read, and so would the file have been without what was superseded.
        kept.sort_unstable_by_key(|(_, place)| place.offset);
        let path = unfinished(&self.path);
        let new = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let mut end = 0;
        let mut moved = BTreeMap::new();
        let mut buffer = line::first()?;
        for (id, place) in kept {
            let begin = buffer.len();
            buffer.resize(begin + place.length, 0);
            old.read_exact_at(&mut buffer[begin..], place.offset)?;
            moved.insert(id, Place { offset: end + begin as u64, ..place });
            if buffer.len() >= COPIED_AT_ONCE {
                new.write_all_at(&buffer, end)?;
                end += buffer.len() as u64;
                buffer.clear();
            }
        }
        new.write_all_at(&buffer, end)?;
        end += buffer.len() as u64;
        // On the disk before it takes the other's place: a power cut must not leave the name with nothing in it.
        new.sync_data()?;
        let mut book = self.book.lock();
        let mut tail = vec![0; usize::try_from(book.end - from).map_err(io::Error::other)?];
        old.read_exact_at(&mut tail, from)?;
        new.write_all_at(&tail, end)?;
        fs::rename(&path, &self.path)?;
        for (id, place) in &mut book.places {
            *place = match moved.get(id) {
                Some(moved) if place.offset < from => *moved,
                _ => Place { offset: place.offset - from + end, ..*place },
            };
        }
        book.file = Arc::new(new);
        book.end = end + tail.len() as u64;
        book.compacting = false;
        self.unsettled.store(true, Ordering::Relaxed);
        self.changed.notify_one();
        Ok(())
    }
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
