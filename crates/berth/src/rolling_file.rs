//! A file that is written line by line and rotated by size or by the hour, as amazon-ecs-agent's log is (its `ecs-agent/logger`). It never
//! grows beyond what it was told, and old files are removed; what cannot be written is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use berth_agent::config::log::Rollover;

const HOUR: u64 = 3600;

/// The file.
pub(crate) struct RollingFile {
    path: PathBuf,
    rollover: Rollover,
    most_rolls: usize,
    state: Mutex<State>,
}

struct State {
    file: File,
    size: u64,
    /// Hours since 1970 (UTC) of what is in the file.
    hour: u64,
}

impl RollingFile {
    /// Opens the file, which is gone on with if it is there; its folder is made. `now` is for a file that is new.
    ///
    /// # Errors
    /// Of the system.
    pub(crate) fn open(path: PathBuf, rollover: Rollover, most_rolls: usize, now: SystemTime) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let file = append(&path)?;
        let there = file.metadata()?;
        let hour = if there.len() == 0 { hour_of(now) } else { hour_of(there.modified().unwrap_or(now)) };
        let opened = Self { state: Mutex::new(State { size: there.len(), file, hour }), path, rollover, most_rolls };
        // A count that is lower than before holds from now on, not from the next full file on.
        opened.remove_surplus()?;
        Ok(opened)
    }

    /// Writes a line, into a new file if its time has come.
    pub(crate) fn write(&self, line: &[u8], now: SystemTime) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_due(&state, line, now) {
            // Without a new file the old one is not written either: it must not grow.
            let Ok(file) = self.roll(state.hour).and_then(|()| append(&self.path)) else { return };
            *state = State { file, size: 0, hour: hour_of(now) };
        }
        if state.file.write_all(line).is_ok() {
            state.size += line.len() as u64;
        }
    }

    fn is_due(&self, state: &State, line: &[u8], now: SystemTime) -> bool {
        match self.rollover {
            Rollover::Size(most) => state.size > 0 && state.size + line.len() as u64 > most,
            // A clock that goes back does not begin a file.
            Rollover::Hourly => state.size > 0 && hour_of(now) > state.hour,
        }
    }

    /// The file becomes the newest of those that are kept.
    fn roll(&self, hour: u64) -> io::Result<()> {
        let suffix = match self.rollover {
            Rollover::Size(_) => {
                let numbers = self.suffixes()?.into_iter().filter_map(|suffix| number(&suffix));
                numbers.max().map_or(1, |last| last.saturating_add(1)).to_string()
            }
            Rollover::Hourly => stamp(hour),
        };
        std::fs::rename(&self.path, self.with_suffix(&suffix))?;
        self.remove_surplus()
    }

    /// Removes the oldest of the rotated files, as many as there are too many. Those of the other way of rotating are from before the
    /// configuration was changed, and nobody else would ever remove them.
    fn remove_surplus(&self) -> io::Result<()> {
        let (mut numbers, mut stamps) = (Vec::new(), Vec::new());
        for suffix in self.suffixes()? {
            match number(&suffix) {
                Some(number) => numbers.push(number),
                None if is_stamp(&suffix) => stamps.push(suffix),
                None => {}
            }
        }
        numbers.sort_unstable();
        // Stamps are in the order of time.
        stamps.sort_unstable();
        let numbers = numbers.into_iter().map(|number| number.to_string());
        let oldest_first: Vec<String> = match self.rollover {
            Rollover::Size(_) => stamps.into_iter().chain(numbers).collect(),
            Rollover::Hourly => numbers.chain(stamps).collect(),
        };
        let surplus = oldest_first.len().saturating_sub(self.most_rolls);
        oldest_first[..surplus].iter().try_for_each(|suffix| std::fs::remove_file(self.with_suffix(suffix)))
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{suffix}"));
        name.into()
    }

    /// What follows the file's name and a dot in the names beside it.
    fn suffixes(&self) -> io::Result<Vec<String>> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let own = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
        let names = std::fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_prefix(&own).map(str::to_owned)).collect())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn hour_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / HOUR)
}

/// `2026-01-31-14`.
fn stamp(hour: u64) -> String {
    let seconds = i64::try_from(hour.saturating_mul(HOUR)).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y-%m-%d-%H").to_string()
}

/// The number of a file that was rotated by size, as it was written: `01` is somebody else's.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

fn is_stamp(text: &str) -> bool {
    text.len() == 13
        && text.bytes().enumerate().all(|(at, byte)| if [4, 7, 10].contains(&at) { byte == b'-' } else { byte.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn by_size_the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/agent.log");
        let folder = path.parent().unwrap();
        let open = |most| RollingFile::open(path.clone(), Rollover::Size(10), most, at(0)).unwrap();
        let file = open(2);
        std::fs::write(folder.join("agent.log.other"), "left alone").unwrap();
        for line in ["one--\n", "two--\n", "three\n"] {
            file.write(line.as_bytes(), at(0));
        }
        assert_eq!(names(folder), ["agent.log", "agent.log.1", "agent.log.2", "agent.log.other"]);
        drop(file);
        let file = open(2);
        file.write(b"4\n", at(0));
        file.write(b"five-\n", at(0));
        assert_eq!(names(folder), ["agent.log", "agent.log.2", "agent.log.3", "agent.log.other"]);
        assert_eq!(std::fs::read_to_string(folder.join("agent.log.3")).unwrap(), "three\n4\n", "an earlier life's file is gone on with");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "five-\n");
        file.write(b"a line that alone is longer than the limit\n", at(0));
        drop(file);
        open(0).write(b"6\n", at(0));
        assert_eq!(names(folder), ["agent.log", "agent.log.other"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "6\n");
    }

    #[test]
    fn by_the_hour() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let file = RollingFile::open(path.clone(), Rollover::Hourly, 2, at(0)).unwrap();
        for hour in [0, 0, 1, 26, 25, 27] {
            file.write(format!("{hour}\n").as_bytes(), at(hour * HOUR + 5));
        }
        assert_eq!(names(dir.path()), ["agent.log", "agent.log.1970-01-01-01", "agent.log.1970-01-02-02"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("agent.log.1970-01-02-02")).unwrap(), "26\n25\n", "a clock that went back");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "27\n");
    }
    #[test]
    fn many_hours_and_a_changed_configuration_keep_the_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let open = |rollover, most, hour| RollingFile::open(path.clone(), rollover, most, at(hour * HOUR)).unwrap();
        let file = open(Rollover::Hourly, 3, 0);
        for hour in 0..50 {
            file.write(format!("{hour}\n").as_bytes(), at(hour * HOUR));
        }
        let newest = ["agent.log", "agent.log.1970-01-02-22", "agent.log.1970-01-02-23", "agent.log.1970-01-03-00"];
        assert_eq!(names(dir.path()), newest);
        drop(file);
        std::fs::write(dir.path().join("agent.log.01"), "left alone").unwrap();
        // Now by size, and one less: what was rotated by the hour goes first.
        let file = open(Rollover::Size(3), 2, 50);
        assert_eq!(names(dir.path()), ["agent.log", "agent.log.01", "agent.log.1970-01-02-23", "agent.log.1970-01-03-00"]);
        file.write(b"a\n", at(50 * HOUR));
        assert_eq!(names(dir.path()), ["agent.log", "agent.log.01", "agent.log.1", "agent.log.1970-01-03-00"]);
        file.write(b"b\n", at(50 * HOUR));
        file.write(b"c\n", at(50 * HOUR));
        assert_eq!(names(dir.path()), ["agent.log", "agent.log.01", "agent.log.2", "agent.log.3"]);
        drop(file);
        // And by the hour again.
        let later = SystemTime::now() + Duration::from_secs(2 * HOUR);
        open(Rollover::Hourly, 2, 50).write(b"d\n", later);
        let by_hour = names(dir.path());
        assert_eq!(by_hour.len(), 4, "{by_hour:?}");
        assert!(by_hour.contains(&"agent.log.3".to_owned()) && !by_hour.contains(&"agent.log.2".to_owned()), "{by_hour:?}");
    }
}
