//! A row of the table `log`: a batch of commits as JSON, a list of writes. A long one is compressed. Records of one batch are much
//! alike, so that it becomes a fraction, and each page of it would be written, synced, written back, and read again to be dropped.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write as _};

use berth_model::record::{KeyError, Record};
use serde::Deserialize;
use zstd::bulk::Compressor;

use crate::backend::{BackendError, Stored, Write};
use crate::transaction::Revision;

/// Bytes of JSON from which on a row is compressed: four pages of content. Below, it would save a page or two, which cost about what compressing does.
const LONG: usize = 16_000;
/// How hard zstd tries: what is written must not wait for it. Of a batch of 64 tasks an eighth is left at a gigabyte a second; level 1
/// leaves a fourteenth, which is as many pages but one, and takes nearly three times as long.
const LEVEL: i32 = -1;
/// How a row that is compressed begins (RFC 8878). JSON begins with `[`.
const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// Writes rows; what it needs for that it keeps.
pub(super) struct RowWriter {
    json: Vec<u8>,
    compressed: Vec<u8>,
    compressor: Compressor<'static>,
}

impl RowWriter {
    pub(super) fn new() -> Result<Self, BackendError> {
        let compressor = Compressor::new(LEVEL).map_err(|error| BackendError::Io(format!("cannot start to compress: {error}")))?;
        Ok(Self { json: Vec::new(), compressed: Vec::new(), compressor })
    }

    /// The row, and how many bytes of JSON it has.
    pub(super) fn write(&mut self, writes: &[Write]) -> io::Result<(&[u8], usize)> {
        self.json.clear();
        write_json(&mut self.json, writes)?;
        let json = self.json.len();
        if json < LONG {
            return Ok((&self.json, json));
        }
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(json));
        self.compressor.compress_to_buffer(&self.json, &mut self.compressed)?;
        Ok((&self.compressed, json))
    }
}

/// A row's JSON.
pub(super) fn json(row: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    Ok(if row.starts_with(&MAGIC) { Cow::Owned(zstd::decode_all(row)?) } else { Cow::Borrowed(row) })
}

/// A write in a row of the log, as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Found {
    Put { record: Record, created: Revision, modified: Revision, version: u64 },
    Touch { key: String, modified: Revision, version: u64 },
    Delete { key: String },
}

impl Found {
    pub(super) fn write(self) -> Result<Write, KeyError> {
        Ok(match self {
            Self::Put { record, created, modified, version } => Write::Put(Stored { record, created, modified, version }),
            Self::Touch { key, modified, version } => Write::Touch { key: key.parse()?, modified, version },
            Self::Delete { key } => Write::Delete(key.parse()?),
        })
    }
}

/// A list of writes, as [`Found`] is read.
fn write_json(row: &mut Vec<u8>, writes: &[Write]) -> serde_json::Result<()> {
    let rest = |row: &mut Vec<u8>, text: fmt::Arguments<'_>| row.write_fmt(text).map_err(serde_json::Error::io);
    row.push(b'[');
    for (at, write) in writes.iter().enumerate() {
        if at > 0 {
            row.push(b',');
        }
        match write {
            Write::Put(Stored { record, created, modified, version }) => {
                row.extend_from_slice(b"{\"put\":{\"record\":");
                serde_json::to_writer(&mut *row, record)?;
                rest(row, format_args!(",\"created\":{created},\"modified\":{modified},\"version\":{version}}}}}"))?;
            }
            Write::Touch { key, modified, version } => {
                // A key has no character that JSON would escape.
                rest(row, format_args!("{{\"touch\":{{\"key\":\"{key}\",\"modified\":{modified},\"version\":{version}}}}}"))?;
            }
            Write::Delete(key) => rest(row, format_args!("{{\"delete\":{{\"key\":\"{key}\"}}}}"))?,
        }
    }
    row.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use berth_model::ids::Family;
    use berth_model::task_definition::FamilyCounter;

    use super::*;

    fn writes(count: u32) -> Vec<Write> {
        let put = |last_revision| {
            let family = Family::parse(&format!("family-{last_revision}")).unwrap();
            let record = Record::from(FamilyCounter { family, last_revision });
            Write::Put(Stored { record, created: Revision(1), modified: Revision(2), version: 3 })
        };
        (0..count).map(put).collect()
    }

    /// Short and long rows in turn, through one writer: nothing of a row is in the next.
    #[test]
    fn a_row_reads_back_compressed_or_not() {
        let mut writer = RowWriter::new().unwrap();
        for count in [1, 2_000, 2, 500, 3, 0, 1_000] {
            let writes = writes(count);
            let (row, bytes) = writer.write(&writes).unwrap();
            assert_eq!(row.starts_with(&MAGIC), bytes >= LONG, "{count} writes, {bytes} bytes");
            assert!(bytes < LONG || row.len() < bytes / 4, "{} of {bytes} bytes", row.len());
            let read = json(row).unwrap();
            assert_eq!(read.len(), bytes);
            let found: Vec<Found> = serde_json::from_slice(&read).unwrap();
            assert_eq!(found.into_iter().map(|found| found.write().unwrap()).collect::<Vec<_>>(), writes);
        }
    }

    #[test]
    fn half_a_row_is_an_error() {
        let mut writer = RowWriter::new().unwrap();
        let (row, _) = writer.write(&writes(1_000)).unwrap();
        assert!(json(&row[..row.len() / 2]).is_err());
    }
}
