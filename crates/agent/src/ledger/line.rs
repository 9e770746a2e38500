//! The form of the tasks' file: one change a line, a record separator, the CRC-32 of the rest in hex, a space and JSON
//! (`\x1e0123abcd {"id":"…","entry":{…}}\n`). JSON never holds either of the two control characters, so a reader finds the next whole line
//! behind any damage. Reads and writes memory alone.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::TaskEntry;

/// Before each line, as in JSON text sequences (RFC 7464).
const MARK: u8 = 0x1e;
/// The checksum's digits and the space behind them.
const PREFIX: usize = 9;
/// What this form is called in a file's first line; a later one that an earlier Berth could not read has another number.
pub const VERSION: u32 = 1;

#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    First { version: u32 },
    Kept { id: &'a str, entry: &'a TaskEntry },
    Forgotten { id: &'a str },
}

/// What a line says, but for the entry itself.
#[derive(Debug, Deserialize)]
pub struct Head<'a> {
    /// The task's id; none in the first line.
    #[serde(borrow, default)]
    pub id: Option<Cow<'a, str>>,
    /// Whether the task is kept, and not forgotten.
    #[serde(default)]
    pub entry: Option<IgnoredAny>,
    /// Of the first line.
    #[serde(default)]
    pub version: Option<u32>,
}

#[derive(Deserialize)]
struct Body {
    entry: TaskEntry,
}

/// What the bytes of a file are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Whole lines, in order.
    pub lines: Vec<Range<usize>>,
    /// What lies between whole lines and is none.
    pub damaged: Vec<Range<usize>>,
    /// Behind the last whole line; what follows is a write that was cut off.
    pub end: usize,
}

/// A file's first line.
pub fn first() -> serde_json::Result<Vec<u8>> {
    line(&Written::First { version: VERSION })
}

/// The line by which a task is kept.
pub fn kept(id: &str, entry: &TaskEntry) -> serde_json::Result<Vec<u8>> {
    line(&Written::Kept { id, entry })
}

/// The line by which a task is forgotten.
pub fn forgotten(id: &str) -> serde_json::Result<Vec<u8>> {
    line(&Written::Forgotten { id })
}

fn line(written: &Written<'_>) -> serde_json::Result<Vec<u8>> {
    let mut line = vec![b' '; 1 + PREFIX];
    serde_json::to_writer(&mut line, written)?;
    let checksum = format!("{:08x}", crc32fast::hash(&line[1 + PREFIX..]));
    line[0] = MARK;
    line[1..PREFIX].copy_from_slice(checksum.as_bytes());
    line.push(b'\n');
    Ok(line)
}

/// What a whole line says.
pub fn head(line: &[u8]) -> serde_json::Result<Head<'_>> {
    serde_json::from_slice(json(line))
}

/// The entry in a whole line.
pub fn entry(line: &[u8]) -> serde_json::Result<TaskEntry> {
    serde_json::from_slice::<Body>(json(line)).map(|body| body.entry)
}

fn json(line: &[u8]) -> &[u8] {
    line.get(1 + PREFIX..).unwrap_or_default().trim_ascii_end()
}

/// Finds the lines.
#[must_use]
pub fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut at = 0;
    while let Some(begin) = (at..bytes.len()).find(|begin| bytes[*begin] == MARK) {
        match whole(&bytes[begin..]) {
            Some(length) => {
                if begin > scan.end {
                    scan.damaged.push(scan.end..begin);
                }
                scan.lines.push(begin..begin + length);
                scan.end = begin + length;
                at = scan.end;
            }
            None => at = begin + 1,
        }
    }
    scan
}

/// The length of the line that the bytes begin with; `None` if it is not whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let next = bytes.iter().skip(1).position(|byte| *byte == b'\n' || *byte == MARK)? + 1;
    if bytes[next] == MARK {
        return None;
    }
    let checksum = std::str::from_utf8(bytes.get(1..PREFIX)?).ok()?;
    let json = bytes.get(1 + PREFIX..next)?;
    let same = bytes[PREFIX] == b' ' && u32::from_str_radix(checksum, 16).ok()? == crc32fast::hash(json);
    same.then_some(next + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::TaskState;
    use berth_acs::messages as acs;

    fn entry_of(arn: &str) -> TaskEntry {
        TaskEntry {
            task: acs::Task { arn: arn.into(), ..Default::default() },
            state: TaskState::new(1),
            retired_at: None,
            endpoint_ids: Default::default(),
        }
    }

    #[test]
    fn a_line_says_what_it_was_given() {
        let given = entry_of("control characters: \u{1e} \n");
        let line = kept("t", &given).unwrap();
        assert_eq!((scan(&line).lines.len(), scan(&line).end), (1, line.len()));
        assert_eq!(entry(&line).unwrap(), given);
        let head = head(&line).unwrap();
        assert_eq!((head.id.as_deref(), head.entry.is_some(), head.version), (Some("t"), true, None));
        let gone = forgotten("t").unwrap();
        let head = super::head(&gone).unwrap();
        assert_eq!((head.id.as_deref(), head.entry.is_some()), (Some("t"), false));
        assert_eq!(super::head(&first().unwrap()).unwrap().version, Some(VERSION));
    }

    #[test]
    fn no_changed_byte_goes_unnoticed() {
        let line = kept("t", &entry_of("arn")).unwrap();
        for at in 0..line.len() {
            let mut changed = line.clone();
            changed[at] ^= 1;
            assert!(scan(&changed).lines.is_empty(), "byte {at}");
        }
    }

    #[test]
    fn damage_ends_where_the_next_line_begins() {
        let (one, two) = (kept("1", &entry_of("a")).unwrap(), kept("2", &entry_of("b")).unwrap());
        let bytes = [&one[..], &[0; 5000], &two[..], &one[..one.len() - 1]].concat();
        let scan = scan(&bytes);
        let second = one.len() + 5000;
        assert_eq!(scan.lines, [0..one.len(), second..second + two.len()]);
        assert_eq!((scan.damaged.len(), scan.damaged[0].clone()), (1, one.len()..second));
        assert_eq!(scan.end, second + two.len());
        assert_eq!(super::scan(b"").end, 0);
        assert_eq!(super::scan(&[0; 100]).end, 0);
    }
}
