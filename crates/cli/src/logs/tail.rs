//! The log of one container, read from its oldest byte on while the monitor beside the container appends and rotates.
//!
//! There are at most two files: `output.log` is appended to; when it is full it is renamed to `output.log.1`, over the one
//! that was there. It must never write, lock or slow down anything of the container's.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cri::{Joiner, Line};

const CURRENT: &str = "output.log";
const OLDER: &str = "output.log.1";
const CHUNK: usize = 64 * 1024;
/// Records have at most 16 KiB of text. What is longer without a newline is no log.
const LONGEST_RECORD: usize = 1024 * 1024;

/// A reader at some place of a container's log.
#[derive(Debug)]
pub(super) struct LogTail {
    folder: PathBuf,
    /// The open file and its inode. While it is open the inode cannot become another file's.
    open: Option<(File, u64)>,
    /// The beginning of a record whose end is not written yet.
    rest: Vec<u8>,
    joiner: Joiner,
    /// How many bytes may still be read.
    budget: u64,
}

impl LogTail {
    /// The log of the container in this folder, from its beginning; `snapshot`: only what is there now, so that a container that
    /// writes faster than somebody reads does not go on for ever.
    pub fn new(folder: PathBuf, snapshot: bool) -> Self {
        let length = |name| fs::metadata(folder.join(name)).map_or(0, |metadata| metadata.len());
        let budget = if snapshot { length(CURRENT) + length(OLDER) } else { u64::MAX };
        Self { folder, open: None, rest: Vec::new(), joiner: Joiner::default(), budget }
    }

    /// Reads one chunk and adds the lines that end in it. False when there is nothing more to read for now.
    pub fn read(&mut self, lines: &mut VecDeque<Line>) -> io::Result<bool> {
        let Some((file, inode)) = &mut self.open else {
            self.open = match open(&self.folder.join(OLDER))? {
                Some(older) => Some(older),
                None => open(&self.folder.join(CURRENT))?,
            };
            return Ok(self.open.is_some());
        };
        let mut chunk = [0; CHUNK];
        let most = usize::try_from(self.budget).unwrap_or(CHUNK).min(CHUNK);
        if most == 0 {
            return Ok(false);
        }
        let mut count = file.read(&mut chunk[..most])?;
        if count == 0 {
            let Some(next) = successor(&self.folder, *inode)? else { return Ok(false) };
            // Records may have been added between the read and the renaming; after it there can be none.
            count = file.read(&mut chunk[..most])?;
            if count == 0 {
                self.open = Some(next);
                return Ok(true);
            }
        }
        self.budget -= count as u64;
        self.split(&chunk[..count], lines);
        Ok(true)
    }

    /// What has begun and not ended, once nothing more can come.
    pub fn finish(&mut self, lines: &mut VecDeque<Line>) {
        lines.extend(self.joiner.finish());
    }

    fn split(&mut self, mut chunk: &[u8], lines: &mut VecDeque<Line>) {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            let (record, after) = chunk.split_at(end);
            chunk = &after[1..];
            if self.rest.is_empty() {
                lines.extend(self.joiner.take(record));
            } else {
                self.rest.extend_from_slice(record);
                lines.extend(self.joiner.take(&self.rest));
                self.rest.clear();
            }
        }
        self.rest.extend_from_slice(chunk);
        if self.rest.len() > LONGEST_RECORD {
            lines.extend(self.joiner.take(&self.rest));
            self.rest.clear();
        }
    }
}

fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some((file, inode)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file that follows the one with this inode, if that one is not the file that is appended to.
fn successor(folder: &Path, inode: u64) -> io::Result<Option<(File, u64)>> {
    let found = |name| match fs::metadata(folder.join(name)) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    if found(CURRENT)? == Some(inode) {
        return Ok(None);
    }
    match found(OLDER)? {
        Some(older) if older != inode => open(&folder.join(OLDER)),
        _ => open(&folder.join(CURRENT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn append(folder: &Path, from: usize, to: usize) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(folder.join(CURRENT)).unwrap();
        for number in from..to {
            writeln!(file, "2026-11-21T04:00:00.{number:09}Z stdout F {number}").unwrap();
        }
    }

    fn rotate(folder: &Path) {
        fs::rename(folder.join(CURRENT), folder.join(OLDER)).unwrap();
    }

    fn read(tail: &mut LogTail) -> Vec<usize> {
        let mut lines = VecDeque::new();
        while tail.read(&mut lines).unwrap() {}
        lines.into_iter().map(|line| String::from_utf8(line.text).unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn the_older_file_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        append(folder.path(), 0, 5000);
        rotate(folder.path());
        append(folder.path(), 5000, 9000);
        let mut tail = LogTail::new(folder.path().to_owned(), true);
        assert_eq!(read(&mut tail), (0..9000).collect::<Vec<_>>());
    }

    #[test]
    fn appending_and_rotating_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut tail = LogTail::new(folder.path().to_owned(), false);
        assert_eq!(read(&mut tail), [0; 0], "no file yet");
        append(folder.path(), 0, 2);
        assert_eq!(read(&mut tail), [0, 1]);
        append(folder.path(), 2, 4);
        rotate(folder.path());
        assert_eq!(read(&mut tail), [2, 3], "between the renaming and the new file");
        append(folder.path(), 4, 6);
        assert_eq!(read(&mut tail), [4, 5]);
        append(folder.path(), 6, 7);
        rotate(folder.path());
        append(folder.path(), 7, 8);
        rotate(folder.path());
        append(folder.path(), 8, 9);
        assert_eq!(read(&mut tail), [6, 7, 8], "two rotations between two looks");
        fs::remove_dir_all(folder.path()).unwrap();
        assert_eq!(read(&mut tail), [0; 0], "removed with its container");
    }

    #[test]
    fn a_record_in_halves() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(folder.path().join(CURRENT)).unwrap();
        let mut tail = LogTail::new(folder.path().to_owned(), false);
        file.write_all(b"2026-11-21T04:00:00.000000000Z std").unwrap();
        assert_eq!(read(&mut tail), [0; 0]);
        file.write_all(b"out F 7\n").unwrap();
        assert_eq!(read(&mut tail), [7]);
    }

    #[test]
    fn a_snapshot_ends_where_the_log_ended() {
        let folder = tempfile::tempdir().unwrap();
        append(folder.path(), 0, 3);
        let mut tail = LogTail::new(folder.path().to_owned(), true);
        append(folder.path(), 3, 6);
        assert_eq!(read(&mut tail), [0, 1, 2]);
    }
}
