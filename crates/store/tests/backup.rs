//! Backups read back as they were written, and whatever happened to a file is noticed.

use berth_model::cluster::{Cluster, ClusterStatus};
use berth_model::ids::{ClusterName, Family};
use berth_model::record::Record;
use berth_model::tags::Tags;
use berth_model::task_definition::FamilyCounter;
use berth_model::time::UnixMillis;
use berth_store::backend::Stored;
use berth_store::backup::{Header, ReadError, read, write};
use berth_store::{Backend, Revision, Sqlite, Store};
use proptest::prelude::*;

fn header(revision: u64) -> Header {
    let (version, region, account) = ("1.2.3".to_owned(), "eu-west-3".to_owned(), "123456789012".to_owned());
    Header { version, revision: Revision(revision), region, account, taken_at: UnixMillis(1_700_000_000_000) }
}

fn family(name: &str, last_revision: u32, modified: u64) -> Stored {
    let record = Record::from(FamilyCounter { family: Family::parse(name).unwrap(), last_revision });
    Stored { record, created: Revision(1), modified: Revision(modified), version: modified }
}

fn cluster(name: &str, at: i64) -> Stored {
    let cluster = Cluster {
        name: ClusterName::parse(name).unwrap(),
        status: ClusterStatus::Active,
        created_at: UnixMillis(at),
        tags: Tags::new(),
        settings: Vec::new(),
        configuration: None,
        service_connect_defaults: None,
        capacity_providers: Vec::new(),
        default_capacity_provider_strategy: Vec::new(),
        gateways: Vec::new(),
    };
    Stored { record: Record::from(cluster), created: Revision(1), modified: Revision(1), version: 1 }
}

fn written(header: &Header, records: &[Stored]) -> Vec<u8> {
    let mut file = Vec::new();
    assert_eq!(write(header, records.iter().cloned(), &mut file).unwrap(), records.len() as u64);
    file
}

fn found(file: &[u8]) -> Result<(Header, Vec<Stored>), ReadError> {
    let backup = read(file)?;
    let header = backup.header.clone();
    Ok((header, backup.collect::<Result<_, _>>()?))
}

/// A file of these lines, compressed as a backup is.
fn of_lines(text: &str) -> Vec<u8> {
    let mut out = zstd::Encoder::new(Vec::new(), 3).unwrap();
    out.include_checksum(true).unwrap();
    std::io::Write::write_all(&mut out, text.as_bytes()).unwrap();
    out.finish().unwrap()
}

fn lines(file: &[u8]) -> String {
    String::from_utf8(zstd::decode_all(file).unwrap()).unwrap()
}

fn sample() -> Vec<Stored> {
    vec![cluster("default", 5), cluster("blue", -7), family("web", 12, 3), family("api", 1, 9)]
}

#[test]
fn the_lines_are_those_of_the_description() {
    let file = written(&header(9), &[family("web", 12, 3)]);
    assert_eq!(
        lines(&file),
        "{\"berth\":\"backup\",\"format\":1,\"version\":\"1.2.3\",\"revision\":9,\"region\":\"eu-west-3\",\"account\":\"123456789012\",\"takenAt\":1700000000000}\n\
         {\"created\":1,\"modified\":3,\"version\":3,\"record\":{\"kind\":\"Family\",\"value\":{\"family\":\"web\",\"last_revision\":12}}}\n\
         {\"records\":1}\n"
    );
}

#[test]
fn an_empty_store_has_a_backup() {
    let (found_header, records) = found(&written(&header(0), &[])).unwrap();
    assert_eq!((found_header, records), (header(0), Vec::new()));
}

#[test]
fn every_truncation_is_refused() {
    let file = written(&header(9), &sample());
    for length in 0..file.len() {
        let error = found(&file[..length]).unwrap_err();
        let cut = matches!(error, ReadError::Truncated { .. }) || (length == 0 && matches!(error, ReadError::NotABackup(_)));
        assert!(cut, "cut to {length} of {}: {error}", file.len());
    }
    // Whole lines that are missing, in a file that zstd takes for whole.
    let text = lines(&file);
    for (at, _) in text.match_indices('\n').filter(|(at, _)| at + 1 < text.len()) {
        let error = found(&of_lines(&text[..=at])).unwrap_err();
        assert!(matches!(error, ReadError::Truncated { .. }), "{error}");
    }
    let error = found(&of_lines(&text[..text.len() - 1])).unwrap_err();
    assert_eq!(error.to_string(), "the backup is truncated: it ends in line 6, before its end");
}

/// A few of zstd's bits mean nothing for the content, such as the size of the window: then it reads back as it was.
#[test]
fn every_flipped_bit_and_byte_is_refused_or_changes_nothing() {
    let records = sample();
    let file = written(&header(9), &records);
    let mut harmless = 0;
    for at in 0..file.len() {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut damaged = file.clone();
            damaged[at] ^= flip;
            if let Ok(same) = found(&damaged) {
                assert_eq!(same, (header(9), records.clone()), "byte {at} by {flip}");
                harmless += 1;
            }
        }
    }
    assert!(harmless * 20 < file.len(), "{harmless} flips were not noticed");
}

#[test]
fn what_is_wrong_is_said() {
    let text = lines(&written(&header(9), &sample()));
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        found(&of_lines(&text.replacen(from, to, 1))).unwrap_err().to_string()
    };
    assert_eq!(with("\"format\":1", "\"format\":2"), "the backup has format 2, this Berth knows 1 at most; restore it with a newer Berth");
    assert_eq!(with("\"backup\"", "\"log\""), "this is not a backup of Berth's: its first line says \"log\"");
    assert_eq!(with("{\"records\":4}", "{\"records\":5}"), "the backup is damaged at line 6: there should be 5 records, and 4 are");
    assert_eq!(with("\"modified\":3", "\"modified\":10"), "the backup is damaged at line 4: a record that is newer than the backup");
    assert!(with("\"kind\":\"Family\"", "\"kind\":\"Pet\"").starts_with("the backup is damaged at line 4: unknown variant `Pet`"));
    assert!(with("\"region\"", "\"religion\"").starts_with("the backup is damaged at line 1: missing field `region`"));
    let error = found(&of_lines(&format!("{text}more\n"))).unwrap_err();
    assert_eq!(error.to_string(), "the backup is damaged at line 7: something follows the end");
    for other in [&b""[..], b"x", b"SQLite format 3\0", b"{\"berth\":\"backup\"}\n", &[0; 4096]] {
        let error = found(other).unwrap_err();
        assert!(matches!(error, ReadError::NotABackup(_)), "{error}");
    }
    assert!(matches!(found(&of_lines("hello\n")), Err(ReadError::NotABackup(_))));
}

#[test]
fn a_line_without_end_does_not_eat_the_memory() {
    let text = lines(&written(&header(9), &sample()));
    let bomb = format!("{}{}", text.split_inclusive('\n').next().unwrap(), " ".repeat(64 * 1024 * 1024));
    assert_eq!(found(&of_lines(&bomb)).unwrap_err().to_string(), "the backup is damaged at line 2: the line is too long");
}

#[test]
fn a_disk_that_cannot_be_read_is_no_damage() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(5))
        }
    }
    assert!(matches!(read(Broken).map(drop), Err(ReadError::Io(_))));
}

/// The whole way: a store's records, a file, another store.
#[tokio::test]
async fn a_store_is_moved_by_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.db"), folder.path().join("to.db"));
    let mut backend = Sqlite::open(&from).unwrap();
    let writes: Vec<_> = sample().into_iter().map(berth_store::backend::Write::Put).collect();
    backend.persist(&writes, Revision(9)).unwrap();
    drop(backend);
    let kept = |store: &Store| {
        let state = store.state();
        let mut all: Vec<_> = state.records().collect();
        all.sort_by_key(|stored| stored.record.key());
        (state.revision, all)
    };
    let store = Store::open(Sqlite::open(&from).unwrap()).unwrap();
    let before = kept(&store);
    let file = written(&header(before.0.0), &before.1);
    let (header, records) = found(&file).unwrap();
    assert_eq!(Sqlite::open(&to).unwrap().import(records, header.revision).unwrap(), 4);
    assert_eq!(kept(&Store::open(Sqlite::open(&to).unwrap()).unwrap()), before);
}

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![
        ("[a-z][a-zA-Z0-9_-]{0,40}", any::<u32>(), 1..1_000_u64).prop_map(|(name, last, modified)| family(&name, last, modified)),
        ("[a-z][a-zA-Z0-9_-]{0,40}", any::<i64>()).prop_map(|(name, at)| cluster(&name, at)),
    ]
}

proptest! {
    #[test]
    fn whatever_is_written_reads_back(records in prop::collection::vec(stored(), 0..60)) {
        prop_assert_eq!(found(&written(&header(1_000), &records)).unwrap(), (header(1_000), records));
    }

    #[test]
    fn whatever_is_cut_off_is_missed(records in prop::collection::vec(stored(), 0..60), at in any::<prop::sample::Index>()) {
        let file = written(&header(1_000), &records);
        prop_assert!(found(&file[..at.index(file.len())]).is_err());
    }

    #[test]
    fn whatever_is_overwritten_is_seen(
        records in prop::collection::vec(stored(), 0..60), at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        let mut file = written(&header(1_000), &records);
        let at = at.index(file.len());
        let until = file.len().min(at + with.len());
        file[at..until].copy_from_slice(&with[..until - at]);
        if let Ok(same) = found(&file) {
            prop_assert_eq!(same, (header(1_000), records));
        }
    }
}
