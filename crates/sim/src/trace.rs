//! What happened, in order: a hash over all of it, and the last lines for people. It decides nothing.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines kept for a report.
const KEPT: usize = 4_000;

/// A trace. Clones share it.
#[derive(Clone)]
pub struct Trace {
    origin: Instant,
    aloud: bool,
    /// Lines alone are hashed.
    is_terse: bool,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    hash: Fnv,
    lines: u64,
    kept: VecDeque<String>,
}

/// FNV-1a, fed by formatting.
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text.bytes().fold(self.0, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(())
    }
}

impl Trace {
    /// An empty trace; `aloud` also prints each line to stderr.
    #[must_use]
    pub fn new(origin: Instant, aloud: bool) -> Self {
        Self::made(origin, aloud, false)
    }

    /// One that leaves out of the hash what is too long to read: what a line tells of each change has to do.
    #[must_use]
    pub fn terse(origin: Instant, aloud: bool) -> Self {
        Self::made(origin, aloud, true)
    }

    fn made(origin: Instant, aloud: bool, is_terse: bool) -> Self {
        let inner = Inner { hash: Fnv(0xcbf2_9ce4_8422_2325), lines: 0, kept: VecDeque::new() };
        Self { origin, aloud, is_terse, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Adds a line.
    pub fn line(&self, what: fmt::Arguments<'_>) {
        let millis = self.origin.elapsed().as_millis();
        let line = format!("{:>4}.{:03} {what}", millis / 1000, millis % 1000);
        if self.aloud {
            eprintln!("{line}");
        }
        let mut inner = self.inner.lock();
        let _ = writeln!(inner.hash, "{line}");
        inner.lines += 1;
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(line);
    }

    /// Adds something to the hash that is too long to read.
    pub fn detail(&self, what: &dyn fmt::Debug) {
        if self.is_terse {
            return;
        }
        let _ = write!(self.inner.lock().hash, "{what:?}");
    }

    /// The hash over all of it.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.inner.lock().hash.0
    }

    /// How many lines there were.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.inner.lock().lines
    }

    /// The last lines that hold one of the words, and the very last ones; at most `most`.
    #[must_use]
    pub fn last(&self, words: &[String], most: usize) -> Vec<String> {
        let inner = self.inner.lock();
        let total = inner.kept.len();
        let tells = |index: usize, line: &str| index + 12 >= total || words.iter().any(|word| line.contains(word.as_str()));
        let mut lines: Vec<_> =
            inner.kept.iter().enumerate().filter(|(index, line)| tells(*index, line)).map(|(_, line)| line.clone()).collect();
        let surplus = lines.len().saturating_sub(most);
        lines.drain(..surplus);
        lines
    }
}
