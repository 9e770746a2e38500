//! A backup: every record of a store at one revision, as JSON lines compressed by zstd. It knows no backend, so that what one
//! kept can be brought into another, and it must never give out less than was put in without an error.
//!
//! The first line says what the file is, the last one how many records there are, every line between is a record with its
//! counters. zstd's checksum is over all of it: `zstd --test FILE` and `zstd -dc FILE | jq` work as well.

use std::io::{self, BufRead, BufReader, Read, Write};

use berth_model::record::Record;
use berth_model::time::UnixMillis;
use berth_model::vpc::Resource;
use serde::{Deserialize, Serialize};

use crate::backend::Stored;
use crate::transaction::Revision;

/// The newest format that this code reads and writes.
pub const FORMAT: u64 = 1;
/// What the first line's member `berth` says.
const KIND: &str = "backup";
/// How a file of zstd's begins (RFC 8878).
const MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";
/// How hard zstd tries: faster than records become JSON, and JSON becomes an eighth.
const LEVEL: i32 = 3;
/// Longest line that is read: 64 times a definition at ECS's limit. A file that claims more would only eat the memory.
const MAX_LINE: u64 = 16 * 1024 * 1024;
/// How the last line begins; no record's does.
const END: &[u8] = b"{\"records\":";

/// The first line: where the records are from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The version of the Berth that wrote it.
    pub version: String,
    /// The last commit that it holds.
    pub revision: Revision,
    /// The region of the server, which is part of every ARN but of no record.
    pub region: String,
    /// The account of the server, twelve digits; the same holds for it.
    pub account: String,
    /// When, in milliseconds since 1970.
    pub taken_at: UnixMillis,
}

#[derive(Serialize)]
struct FirstLine<'a> {
    berth: &'static str,
    format: u64,
    #[serde(flatten)]
    header: &'a Header,
}

/// Of the first line, what every format has.
#[derive(Deserialize)]
struct Announcement {
    berth: String,
    format: u64,
}

#[derive(Serialize)]
struct RecordLine<'a> {
    created: Revision,
    modified: Revision,
    version: u64,
    record: &'a Record,
}

#[derive(Deserialize)]
struct FoundRecord {
    created: Revision,
    modified: Revision,
    version: u64,
    record: Record,
}

#[derive(Serialize, Deserialize)]
struct LastLine {
    records: u64,
}

/// Writes a backup; how many records it has. It flushes nothing of `out`.
///
/// # Errors
/// Those of `out`. What was written until then is refused by [`read`].
pub fn write(header: &Header, records: impl IntoIterator<Item = Stored>, out: impl Write) -> io::Result<u64> {
    let mut out = zstd::Encoder::new(out, LEVEL)?;
    out.include_checksum(true)?;
    let mut line = Vec::new();
    let mut send = |line: &mut Vec<u8>| {
        line.push(b'\n');
        let sent = out.write_all(line);
        line.clear();
        sent
    };
    serde_json::to_writer(&mut line, &FirstLine { berth: KIND, format: FORMAT, header })?;
    send(&mut line)?;
    let mut count = 0;
    for Stored { record, created, modified, version } in records {
        serde_json::to_writer(&mut line, &RecordLine { created, modified, version, record: &record })?;
        send(&mut line)?;
        count += 1;
    }
    serde_json::to_writer(&mut line, &LastLine { records: count })?;
    send(&mut line)?;
    out.finish()?;
    Ok(count)
}

/// Why a file cannot be restored from.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("this is not a backup of Berth's: {0}")]
    NotABackup(String),
    /// A newer Berth wrote it.
    #[error("the backup has format {found}, this Berth knows {FORMAT} at most; restore it with a newer Berth")]
    Newer {
        /// The file's.
        found: u64,
    },
    /// Its end is missing.
    #[error("the backup is truncated: it ends in line {line}, before its end")]
    Truncated {
        /// The first line that is not there, or not whole.
        line: u64,
    },
    /// It is not as it was written.
    #[error("the backup is damaged at line {line}: {reason}")]
    Damaged {
        /// The first line that is wrong, or up to which some line is.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be read.
    #[error("{0}")]
    Io(io::Error),
}

/// A backup that is being read: the records as [`read`] finds them. They are good only when the last `next` gave `None`: the
/// checksum and the number of records come last.
pub struct Backup<R: Read> {
    /// Where the records are from.
    pub header: Header,
    lines: Lines<R>,
    records: u64,
    over: bool,
}

/// Reads a backup's first line; the rest comes record by record.
///
/// # Errors
/// [`ReadError`].
pub fn read<R: Read>(mut input: R) -> Result<Backup<R>, ReadError> {
    let strange = |reason: &dyn std::fmt::Display| ReadError::NotABackup(reason.to_string());
    let mut magic = Vec::new();
    input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(ReadError::Io)?;
    if magic.is_empty() {
        return Err(strange(&"it is empty"));
    }
    if !MAGIC.starts_with(&magic) {
        return Err(strange(&"it is not compressed by zstd"));
    }
    let input = zstd::Decoder::new(io::Cursor::new(magic).chain(input)).map_err(ReadError::Io)?;
    let mut lines = Lines { input: BufReader::new(input), line: Vec::new(), number: 0 };
    if !lines.next()? {
        return Err(strange(&"it holds nothing"));
    }
    let announcement: Announcement =
        serde_json::from_slice(&lines.line).map_err(|error| strange(&format_args!("its first line does not say so: {error}")))?;
    if announcement.berth != KIND {
        return Err(strange(&format_args!("its first line says {:?}", announcement.berth)));
    }
    if announcement.format > FORMAT {
        return Err(ReadError::Newer { found: announcement.format });
    }
    let header = serde_json::from_slice(&lines.line).map_err(|error| lines.damaged(&error))?;
    Ok(Backup { header, lines, records: 0, over: false })
}

impl<R: Read> Backup<R> {
    fn next_record(&mut self) -> Result<Option<Stored>, ReadError> {
        if !self.lines.next()? {
            return Err(ReadError::Truncated { line: self.lines.number });
        }
        let line = &self.lines.line;
        if line.starts_with(END) {
            let last: LastLine = serde_json::from_slice(line).map_err(|error| self.lines.damaged(&error))?;
            if last.records != self.records {
                return Err(self.lines.damaged(&format_args!("there should be {} records, and {} are", last.records, self.records)));
            }
            // Only here does zstd compare its checksum.
            return if self.lines.next()? { Err(self.lines.damaged(&"something follows the end")) } else { Ok(None) };
        }
        let FoundRecord { created, modified, version, record } =
            serde_json::from_slice(line).map_err(|error| self.lines.damaged(&error))?;
        if created > modified || modified > self.header.revision {
            return Err(self.lines.damaged(&"a record that is newer than the backup"));
        }
        self.records += 1;
        Ok(Some(Stored { record, created, modified, version }))
    }
}

impl<R: Read> Iterator for Backup<R> {
    type Item = Result<Stored, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.next_record().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// An input whose first bytes were looked at.
type Whole<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

struct Lines<R: Read> {
    input: BufReader<zstd::Decoder<'static, BufReader<Whole<R>>>>,
    line: Vec<u8>,
    /// Of the line read last, counted from 1.
    number: u64,
}

impl<R: Read> Lines<R> {
    /// Reads the next line; `false` if there is none.
    fn next(&mut self) -> Result<bool, ReadError> {
        self.line.clear();
        self.number += 1;
        let got = (&mut self.input).take(MAX_LINE).read_until(b'\n', &mut self.line).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Truncated { line: self.number },
            // zstd's own errors have no number of the system's.
            _ if error.raw_os_error().is_none() => self.damaged(&error),
            _ => ReadError::Io(error),
        })?;
        match self.line.last() {
            None => Ok(false),
            Some(b'\n') => Ok(true),
            Some(_) if got as u64 == MAX_LINE => Err(self.damaged(&"the line is too long")),
            Some(_) => Err(ReadError::Truncated { line: self.number }),
        }
    }

    fn damaged(&self, reason: &dyn std::fmt::Display) -> ReadError {
        ReadError::Damaged { line: self.number, reason: reason.to_string() }
    }
}

/// What a record is, in the plural, as people and programs are told how many there are.
#[must_use]
pub fn kind(record: &Record) -> &'static str {
    match record {
        Record::Cluster(_) => "clusters",
        Record::Family(_) => "families",
        Record::TaskDefinition(_) => "taskDefinitions",
        Record::Task(_) => "tasks",
        Record::Service(_) => "services",
        Record::ServiceEvent(_) => "serviceEvents",
        Record::ServiceRevision(_) => "serviceRevisions",
        Record::ServiceDeployment(_) => "serviceDeployments",
        Record::ContainerInstance(_) => "containerInstances",
        Record::CapacityProvider(_) => "capacityProviders",
        Record::Daemon(_) => "daemons",
        Record::DaemonFamily(_) => "daemonFamilies",
        Record::DaemonTaskDefinition(_) => "daemonTaskDefinitions",
        Record::AccountSetting(_) => "accountSettings",
        Record::Gateway(_) => "gateways",
        Record::ExpressService(_) => "expressServices",
        Record::Alarm(_) => "alarms",
        Record::Namespace(_) => "namespaces",
        Record::DiscoveryService(_) => "Cloud Map services",
        Record::DiscoveryInstance(_) => "Cloud Map instances",
        Record::DiscoveryOperation(_) => "Cloud Map operations",
        Record::VpcResource(Resource::Vpc(_)) => "vpcs",
        Record::VpcResource(Resource::Subnet(_)) => "subnets",
        Record::VpcResource(Resource::SecurityGroup(_)) => "securityGroups",
        Record::VpcResource(Resource::NetworkInterface(_)) => "networkInterfaces",
        Record::VpcResource(Resource::RouteTable(_)) => "routeTables",
        Record::VpcResource(Resource::InternetGateway(_)) => "internetGateways",
    }
}
