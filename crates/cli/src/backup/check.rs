//! Whether what came is a whole backup: looked at while it comes, since a backup that cannot be restored is found out too late.

use std::io::{self, BufRead, BufReader, Read};

use bytes::{Buf, Bytes};
use serde::Deserialize;
use tokio::sync::mpsc;

/// The newest format that this code knows.
const FORMAT: u64 = 1;
/// Longest line that is read; the server's longest records are far below.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// The last commit in it.
    pub(super) revision: u64,
    /// Region and account of the server.
    pub(super) region: String,
    pub(super) account: String,
    pub(super) records: u64,
}

#[derive(Deserialize)]
struct FirstLine {
    berth: String,
    format: u64,
    revision: u64,
    region: String,
    account: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LastLine {
    records: u64,
}

/// Reads a backup to its end.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(input: impl Read) -> Result<Content, String> {
    let text = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "it broke off before its end".to_owned(),
        _ => error.to_string(),
    };
    let mut input = BufReader::new(zstd::Decoder::new(input).map_err(text)?);
    let mut line = Vec::new();
    let mut next = |line: &mut Vec<u8>| {
        line.clear();
        (&mut input).take(MAX_LINE).read_until(b'\n', line).map_err(text)
    };
    next(&mut line)?;
    let first: FirstLine = serde_json::from_slice(&line).map_err(|error| format!("its first line is not a backup's: {error}"))?;
    if first.berth != "backup" || first.format > FORMAT {
        return Err(format!("its first line says {:?}, format {}", first.berth, first.format));
    }
    let mut last = Vec::new();
    let mut lines = 0;
    while next(&mut line)? > 0 {
        std::mem::swap(&mut last, &mut line);
        lines += 1;
    }
    let LastLine { records } = serde_json::from_slice(&last).map_err(|_| "its last line is missing".to_owned())?;
    if records + 1 != lines {
        return Err(format!("there should be {records} records, and {} lines are there", lines - 1));
    }
    Ok(Content { revision: first.revision, region: first.region, account: first.account, records })
}

/// Pieces as a reader, for a thread of its own.
pub(super) struct Pieces {
    pub(super) coming: mpsc::Receiver<Bytes>,
    pub(super) piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.coming.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(text: &str) -> Vec<u8> {
        let mut out = zstd::Encoder::new(Vec::new(), 3).unwrap();
        out.include_checksum(true).unwrap();
        io::Write::write_all(&mut out, text.as_bytes()).unwrap();
        out.finish().unwrap()
    }

    const WHOLE: &str = "{\"berth\":\"backup\",\"format\":1,\"version\":\"1\",\"revision\":7,\"region\":\"us-east-1\",\"account\":\"000000000000\",\"takenAt\":1}\n\
        {\"created\":1,\"modified\":1,\"version\":1,\"record\":{}}\n{\"records\":1}\n";

    #[test]
    fn a_whole_one_is_good_and_no_part_of_it() {
        let file = packed(WHOLE);
        let content = Content { revision: 7, region: "us-east-1".into(), account: "000000000000".into(), records: 1 };
        assert_eq!(check(&file[..]), Ok(content));
        for length in 0..file.len() {
            assert!(check(&file[..length]).is_err(), "{length} bytes of {}", file.len());
        }
        for (at, _) in WHOLE.match_indices('\n').take(2) {
            assert!(check(&packed(&WHOLE[..=at])[..]).is_err());
        }
        assert!(check(&packed(&WHOLE.replace("{\"records\":1}", "{\"records\":2}"))[..]).is_err());
        assert!(check(&packed(&WHOLE.replace("\"backup\"", "\"log\""))[..]).is_err());
        assert!(check(&packed("<html>")[..]).is_err());
    }
}
