//! The disk below the data directory: room, and how long a durable write takes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::finding::{Finding, size};

/// Less than this and images do not fit.
const LEAST: u64 = 1 << 30;
/// Less than this and somebody should look after it.
const SCARCE: u64 = 5 << 30;
/// Durable writes that the median is of.
const WRITES: usize = 11;
/// Every acknowledged change waits for one durable write; more than this and people notice.
const SLOW: Duration = Duration::from_millis(20);

/// The folder itself, or what there is of its path.
pub(super) fn existing(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Room and speed of the disk that `folder` is or will be on.
pub(super) fn look(folder: &Path) -> Vec<Finding> {
    vec![room(folder), speed(folder)]
}

fn room(folder: &Path) -> Finding {
    const CHECK: &str = "disk room";
    match rustix::fs::statvfs(folder) {
        Ok(found) => judge_room(found.f_bavail.saturating_mul(found.f_frsize), folder),
        Err(error) => Finding::warning(CHECK, format!("{}: {error}", folder.display()), "name another folder with --data-dir"),
    }
}

fn judge_room(free: u64, folder: &Path) -> Finding {
    const CHECK: &str = "disk room";
    let found = format!("{} free at {}", size(free), folder.display());
    let mend = "make room, or name a folder on another disk with --data-dir";
    if free < LEAST {
        Finding::bad(CHECK, found, mend)
    } else if free < SCARCE {
        Finding::warning(CHECK, found, mend)
    } else {
        Finding::good(CHECK, found)
    }
}

fn speed(folder: &Path) -> Finding {
    const CHECK: &str = "disk speed";
    match durable_write(folder) {
        Ok(median) => judge_speed(median),
        Err(error) => Finding::bad(
            CHECK,
            format!("nothing can be written to {}: {error}", folder.display()),
            "name a folder that can be written with --data-dir, or run as root",
        ),
    }
}

fn judge_speed(median: Duration) -> Finding {
    const CHECK: &str = "disk speed";
    let found = format!("a durable write takes {:.1} ms", median.as_secs_f64() * 1000.0);
    if median > SLOW {
        return Finding::warning(CHECK, found, "keep the data directory on an SSD; every acknowledged change waits for one durable write");
    }
    Finding::good(CHECK, found)
}

/// The median time of a write that reaches the disk.
fn durable_write(folder: &Path) -> io::Result<Duration> {
    let path = folder.join(format!(".berth-doctor-{}.tmp", std::process::id()));
    let outcome = timed_writes(&path);
    let _ = std::fs::remove_file(&path);
    let mut times = outcome?;
    times.sort();
    Ok(times[times.len() / 2])
}

fn timed_writes(path: &Path) -> io::Result<Vec<Duration>> {
    let mut file = File::create_new(path)?;
    (0..WRITES)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            Ok(begun.elapsed())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_is_there_of_a_path() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existing(&folder.path().join("a/b/c")), folder.path());
        assert_eq!(existing(folder.path()), folder.path());
    }

    #[test]
    fn room_and_speed() {
        let here = Path::new("/x");
        assert_eq!(judge_room(100 << 20, here).verdict, Verdict::Bad);
        assert_eq!(judge_room(2 << 30, here).verdict, Verdict::Warning);
        assert!(judge_room(50 << 30, here).found.contains("50.0 GiB"));
        assert_eq!(judge_speed(Duration::from_millis(1)).verdict, Verdict::Good);
        assert_eq!(judge_speed(Duration::from_millis(80)).verdict, Verdict::Warning);
        let folder = tempfile::tempdir().unwrap();
        assert!(durable_write(folder.path()).unwrap() > Duration::ZERO);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        assert_eq!(speed(Path::new("/proc")).verdict, Verdict::Bad);
    }
}
