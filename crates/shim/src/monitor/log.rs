//! The container's output on disk, in the CRI log format (`<RFC 3339 nanoseconds> <stream> <P|F> <text>`), two files long.
//!
//! Never makes the container wait for anybody but this machine's disk; when that fails, output is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::time::Duration;

/// Longer lines are written in pieces, all but the last marked `P`; 16 KiB is what Docker and containerd do.
const MAX_PIECE: usize = 16 * 1024;

/// More than it takes to empty a terminal: the kernel keeps 64 KiB of what was written to one.
const TERMINAL_READS: usize = 64;

/// Room for time, stream, tag and newline.
const MAX_PREFIX: usize = 48;

/// The log's files; the container's folder is the working directory.
const CURRENT: &str = "output.log";
const OLDER: &str = "output.log.1";

/// The two log files as one.
pub struct Log {
    file: Option<File>,
    written: u64,
    /// Most bytes per file.
    half: u64,
    piece: usize,
    pending: Vec<u8>,
}

impl Log {
    /// Goes on with what is there. `limit` is in bytes, for both files together.
    pub fn open(limit: u64) -> Log {
        let half = limit / 2;
        let file = OpenOptions::new().append(true).create(true).open(CURRENT).ok();
        let written = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        let piece = usize::try_from(half).unwrap_or(usize::MAX).saturating_sub(MAX_PREFIX).min(MAX_PIECE);
        Log { file, written, half, piece, pending: Vec::new() }
    }

    fn append(&mut self, at: &str, stream: &str, tag: char, text: &[u8]) {
        if self.piece == 0 {
            return;
        }
        let length = (at.len() + stream.len() + text.len() + 5) as u64;
        if self.written + self.pending.len() as u64 + length > self.half {
            self.flush();
            self.rotate();
        }
        let _ = write!(self.pending, "{at} {stream} {tag} ");
        self.pending.extend_from_slice(text);
        self.pending.push(b'\n');
    }

    fn rotate(&mut self) {
        let _ = std::fs::rename(CURRENT, OLDER);
        self.file = OpenOptions::new().append(true).create(true).open(CURRENT).ok();
        self.written = 0;
    }

    /// Writes what has been gathered.
    pub fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let wanted = self.pending.len() as u64;
        match self.file.as_mut().map(|file| file.write_all(&self.pending)) {
            Some(Err(_)) => {
                // What fitted is taken back: the next record must not begin in the middle of this one's line.
                if let Some(file) = &self.file {
                    let _ = file.set_len(self.written);
                }
            }
            _ => self.written += wanted,
        }
        self.pending.clear();
    }
}

/// One output pipe and the line that has not ended yet.
pub struct Stream {
    pipe: ManuallyDrop<File>,
    fd: i32,
    name: &'static str,
    open: bool,
    line: Vec<u8>,
}

impl Stream {
    /// A pipe's reading end by number; it stays open until the process ends.
    pub fn new(fd: i32, name: &'static str) -> Stream {
        // SAFETY: the shim left this descriptor open for the monitor alone, and ManuallyDrop never closes it.
        let pipe = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        Stream { pipe, fd, name, open: true, line: Vec::new() }
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// Whether anybody can still write.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Takes one buffer full from the pipe; the other pipe gets its turn before the next.
    pub fn copy(&mut self, log: &mut Log, now: &Duration) -> bool {
        let mut buffer = [0u8; MAX_PIECE];
        match (&*self.pipe).read(&mut buffer) {
            Ok(0) => self.open = false,
            Ok(count) => {
                self.take(&buffer[..count], log, now);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.open = false,
        }
        false
    }

    /// Takes all that is left, and the last line even if it does not end. Not what comes meanwhile: a pipe can have been handed out
    /// of the container, to somebody who writes for ever.
    pub fn finish(&mut self, log: &mut Log, now: &Duration) {
        let mut left: libc::c_int = 0;
        // SAFETY: `left` has room for what the kernel writes.
        unsafe { libc::ioctl(self.fd, libc::FIONREAD, &raw mut left) };
        // A terminal tells less than it holds, and gives at most a page at a time.
        // SAFETY: no memory arguments.
        let more = if unsafe { libc::isatty(self.fd) } == 1 { TERMINAL_READS } else { 1 };
        let reads = usize::try_from(left).unwrap_or(0).div_ceil(MAX_PIECE) + more;
        for _ in 0..reads {
            if !self.open || !self.copy(log, now) {
                break;
            }
        }
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            log.append(&timestamp(now), self.name, 'F', &line);
        }
    }

    fn take(&mut self, mut bytes: &[u8], log: &mut Log, now: &Duration) {
        let at = timestamp(now);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (text, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            self.grow(text, log, &at);
            log.append(&at, self.name, 'F', &self.line);
            self.line.clear();
        }
        self.grow(bytes, log, &at);
    }

    /// Adds to the line; what is more than a piece goes out as `P`.
    fn grow(&mut self, mut text: &[u8], log: &mut Log, at: &str) {
        if log.piece == 0 {
            return;
        }
        while self.line.len() + text.len() > log.piece {
            let (now, later) = text.split_at(log.piece - self.line.len());
            self.line.extend_from_slice(now);
            text = later;
            log.append(at, self.name, 'P', &self.line);
            self.line.clear();
        }
        self.line.extend_from_slice(text);
    }
}

/// A time since 1970 as RFC 3339 with nanoseconds, UTC.
fn timestamp(since: &Duration) -> String {
    let seconds = since.as_secs();
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Days to civil date by eras of 400 years that begin in March, so that the leap day is a year's last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z", of_day / 3_600, of_day / 60 % 60, of_day % 60, since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        assert_eq!(timestamp(&Duration::ZERO), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(&Duration::new(951_782_400, 5)), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(timestamp(&Duration::new(1_735_689_599, 999_999_999)), "2024-12-31T23:59:59.999999999Z");
        assert_eq!(timestamp(&Duration::new(4_107_542_400, 0)), "2100-03-01T00:00:00.000000000Z");
    }

    fn memory_log(half: u64) -> Log {
        Log { file: None, written: 0, half, piece: MAX_PIECE, pending: Vec::new() }
    }

    fn stream() -> Stream {
        // SAFETY: descriptor -1 is never used by these tests, and never closed.
        Stream { pipe: ManuallyDrop::new(unsafe { File::from_raw_fd(0) }), fd: 0, name: "stdout", open: true, line: Vec::new() }
    }

    #[test]
    fn lines_are_kept_whole_across_reads() {
        let (mut log, mut stream) = (memory_log(u64::MAX), stream());
        stream.take(b"one\ntw", &mut log, &Duration::ZERO);
        stream.take(b"o\n\n", &mut log, &Duration::ZERO);
        let text = String::from_utf8(log.pending.clone()).unwrap();
        let texts: Vec<&str> = text.lines().map(|line| line.split_once(" stdout F ").unwrap().1).collect();
        assert_eq!(texts, ["one", "two", ""]);
    }

    #[test]
    fn long_lines_are_split() {
        let (mut log, mut stream) = (memory_log(u64::MAX), stream());
        let mut line = vec![b'x'; MAX_PIECE * 2 + 1];
        line.push(b'\n');
        stream.take(&line, &mut log, &Duration::ZERO);
        let text = String::from_utf8(log.pending.clone()).unwrap();
        let shape: Vec<(&str, usize)> = text
            .lines()
            .map(|line| {
                let mut parts = line.splitn(4, ' ').skip(2);
                (parts.next().unwrap(), parts.next().unwrap().len())
            })
            .collect();
        assert_eq!(shape, [("P", MAX_PIECE), ("P", MAX_PIECE), ("F", 1)]);
    }
}
