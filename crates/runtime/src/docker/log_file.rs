//! A container's output on disk: two files in CRI format, bounded, and the place in Docker's log up to which they go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// `2000-01-01T00:00:00.000000000Z`: Docker pads its times, so that they compare as text.
const TIME_LENGTH: usize = 30;

/// Docker cuts longer lines into pieces of this many bytes; a piece without a line end that is shorter is the end of the output.
const PIECE: usize = 16 << 10;

/// Seconds that are read again after a pause. The two streams are written down side by side by Docker, so that a line of one can be a
/// little older than the last of the other.
const OVERLAP_SECONDS: i64 = 10;

/// Older file, newer file.
const NAMES: [&str; 2] = ["output.log.1", "output.log"];

/// One of the two streams of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; a terminal's output too.
    Out,
    /// Standard error.
    Err,
}

/// Up to where one stream is written: within a stream Docker's times never go back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Place {
    time: String,
    /// Records of exactly that time.
    count: usize,
    /// How many of those have been seen since the log is read again.
    seen: usize,
}

/// A container's log.
#[derive(Debug)]
pub struct LogFile {
    folder: PathBuf,
    half: u64,
    file: File,
    size: u64,
    places: [Place; 2],
}

/// The files that are there, oldest first.
#[must_use]
pub fn files(folder: &Path) -> Vec<PathBuf> {
    NAMES.iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect()
}

impl LogFile {
    /// Opens or makes the log in `folder`, which keeps at most `limit` bytes.
    ///
    /// # Errors
    /// Of the system.
    pub fn open(folder: &Path, limit: u64) -> io::Result<LogFile> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(NAMES[1]);
        let file = OpenOptions::new().append(true).create(true).read(true).open(&path)?;
        let mut places = [Place::default(), Place::default()];
        let mut size = 0;
        for path in files(folder) {
            let content = std::fs::read(&path)?;
            // A write that a crash cut off is told again by Docker.
            let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            content[..whole].split(|byte| *byte == b'\n').for_each(|line| remember(&mut places, line));
            size = whole as u64;
        }
        file.set_len(size)?;
        Ok(LogFile { folder: folder.to_owned(), half: limit / 2, file, size, places })
    }

    /// Begins anew from what stands in the files, after a write that failed.
    ///
    /// # Errors
    /// Of the system.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = LogFile::open(&self.folder, self.half * 2)?;
        Ok(())
    }

    /// From which second on (Unix time) Docker is to be asked, before a reading begins; 0: all there is.
    pub fn begin(&mut self) -> i64 {
        self.places.iter_mut().for_each(|place| place.seen = 0);
        let last = self.places.iter().map(|place| place.time.as_str()).max().unwrap_or_default();
        last.parse::<jiff::Timestamp>().map_or(0, |time| (time.as_second() - OVERLAP_SECONDS).max(0))
    }

    /// Writes down what Docker told, but for what is written already.
    ///
    /// # Errors
    /// Of the system.
    pub fn write<'a>(&mut self, told: impl IntoIterator<Item = (Stream, &'a [u8])>) -> io::Result<()> {
        let mut lines = Vec::new();
        for (stream, message) in told {
            for (time, text) in split(message) {
                if self.is_new(stream, time) {
                    let line = self.record(stream, time, text);
                    if self.size + (lines.len() + line.len()) as u64 > self.half {
                        self.append(&mut lines)?;
                        if self.size > 0 {
                            self.turn()?;
                        }
                    }
                    lines.extend_from_slice(&line);
                }
            }
        }
        self.append(&mut lines)
    }

    fn is_new(&mut self, stream: Stream, time: &str) -> bool {
        let place = &mut self.places[stream as usize];
        if time < place.time.as_str() {
            return false;
        }
        if time > place.time.as_str() {
            *place = Place { time: time.to_owned(), count: 0, seen: 0 };
        }
        place.seen += 1;
        let new = place.seen > place.count;
        place.count = place.count.max(place.seen);
        new
    }

    fn record(&self, stream: Stream, time: &str, text: &[u8]) -> Vec<u8> {
        let name = match stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        };
        let (tag, text) = match text.strip_suffix(b"\n") {
            Some(line) => ('F', line),
            None if text.len() >= PIECE => ('P', text),
            None => ('F', text),
        };
        let mut line = format!("{time} {name} {tag} ").into_bytes();
        // With a very small limit, a long line is cut rather than the limit broken.
        let room = usize::try_from(self.half).unwrap_or(usize::MAX).saturating_sub(line.len() + 1);
        line.extend_from_slice(&text[..text.len().min(room)]);
        line.push(b'\n');
        line
    }

    fn append(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.size += lines.len() as u64;
        lines.clear();
        Ok(())
    }

    /// The newer file becomes the older one.
    fn turn(&mut self) -> io::Result<()> {
        std::fs::rename(self.folder.join(NAMES[1]), self.folder.join(NAMES[0]))?;
        self.file = OpenOptions::new().append(true).create(true).open(self.folder.join(NAMES[1]))?;
        self.size = 0;
        Ok(())
    }
}

fn remember(places: &mut [Place; 2], line: &[u8]) {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (Some(time), Some(stream)) = (words.next(), words.next()) else { return };
    let Ok(time) = std::str::from_utf8(time) else { return };
    let place = &mut places[usize::from(stream == b"stderr")];
    if place.time == time {
        place.count += 1;
    } else {
        *place = Place { time: time.to_owned(), count: 1, seen: 0 };
    }
}

/// The times and texts in one message. There is one, but for a terminal's: there the pieces of a long line follow each other without
/// anything between them.
fn split(mut message: &[u8]) -> Vec<(&str, &[u8])> {
    let mut found = Vec::new();
    while let Some((time, text)) = stamped(message) {
        let next = PIECE.min(text.len());
        if text.len() > PIECE && stamped(&text[next..]).is_some() {
            found.push((time, &text[..next]));
            message = &text[next..];
        } else {
            found.push((time, text));
            break;
        }
    }
    found
}

fn stamped(message: &[u8]) -> Option<(&str, &[u8])> {
    let (time, rest) = message.split_at_checked(TIME_LENGTH)?;
    let time = std::str::from_utf8(time).ok().filter(|time| time.ends_with('Z') && time.as_bytes()[10] == b'T')?;
    Some((time, rest.strip_prefix(b" ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u32, text: &str) -> Vec<u8> {
        format!("2026-01-01T00:00:00.{nanos:09}Z {text}").into_bytes()
    }

    fn told(messages: &[(Stream, Vec<u8>)]) -> impl Iterator<Item = (Stream, &[u8])> {
        messages.iter().map(|(stream, message)| (*stream, message.as_slice()))
    }

    fn lines(folder: &Path) -> Vec<String> {
        files(folder)
            .iter()
            .flat_map(|file| std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn nothing_is_lost_or_told_twice_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let all = [
            (Stream::Out, at(5, "a\n")),
            // Older than the line before, of the other stream.
            (Stream::Err, at(4, "b\n")),
            (Stream::Out, at(5, "c\n")),
            (Stream::Out, at(5, "d\n")),
            (Stream::Err, at(9, "e\n")),
        ];
        for known in 0..=all.len() {
            let own = folder.path().join(known.to_string());
            let mut log = LogFile::open(&own, 1 << 20).unwrap();
            assert_eq!(log.begin(), 0);
            log.write(told(&all[..known])).unwrap();
            drop(log);
            // A write that was cut off.
            let mut file = OpenOptions::new().append(true).open(own.join("output.log")).unwrap();
            file.write_all(b"2026-01-01T00:00:00.00").unwrap();
            let mut log = LogFile::open(&own, 1 << 20).unwrap();
            for _ in 0..2 {
                assert!(log.begin() <= 1_767_225_600);
                log.write(told(&all)).unwrap();
            }
            let texts: Vec<String> = lines(&own).iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
            assert_eq!(texts, ["a", "b", "c", "d", "e"], "after {known}");
        }
    }

    #[test]
    fn pieces_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(PIECE);
        let messages = [(Stream::Out, at(1, &long)), (Stream::Out, at(1, "rest\n")), (Stream::Err, at(2, "unfinished"))];
        LogFile::open(folder.path(), 1 << 20).unwrap().write(told(&messages)).unwrap();
        let tags: Vec<String> =
            lines(folder.path()).iter().map(|line| line.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(tags, ["stdout P", "stdout F", "stderr F"]);
        let joined = [at(1, &long), at(1, "rest\r\n")].concat();
        assert_eq!(split(&joined).iter().map(|(_, text)| text.len()).collect::<Vec<_>>(), [PIECE, 6]);
    }

    #[test]
    fn the_files_stay_below_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(folder.path(), 1000).unwrap();
        for number in 0..200 {
            log.write([(Stream::Out, at(number, &format!("line {number}\n")).as_slice())]).unwrap();
            let size: u64 = files(folder.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
            assert!(size <= 1000, "{size}");
        }
        assert!(lines(folder.path()).last().unwrap().ends_with("line 199"));
        log.write([(Stream::Out, at(300, &"y".repeat(5000)).as_slice())]).unwrap();
        let size: u64 = files(folder.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(size <= 1000, "{size}");
    }
}
