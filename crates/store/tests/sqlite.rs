//! What only the SQLite backend can show: files of earlier schemas, and what a kill or a lost tail leaves of its two tables
//! and SQLite's own log, at every point of moving records from one table to the other.

use std::collections::BTreeMap;
use std::path::Path;

use berth_model::cluster::ClusterStatus;
use berth_model::ids::{ClusterName, Family, ServiceName};
use berth_model::record::{Key, Record};
use berth_model::task_definition::FamilyCounter;
use berth_store::backend::{Stored, Write};
use berth_store::{Backend, BackendError, Revision, Sqlite, Store, Transaction};

/// `schema-1.db` was written by the first Berth: no log, every record where it belongs.
#[tokio::test]
async fn a_file_of_the_first_schema_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/schema-1.db"), &path).unwrap();
    let next = {
        let store = Store::open(Sqlite::open(&path).unwrap()).unwrap();
        assert_eq!(store.state().revision, Revision(8));
        let name = |text| ClusterName::parse(text).unwrap();
        let statuses: Vec<_> = store.state().clusters().map(|cluster| (cluster.name.to_string(), cluster.status)).collect();
        let (active, inactive) = (ClusterStatus::Active, ClusterStatus::Inactive);
        assert_eq!(statuses, [("default".into(), active), ("gone".into(), inactive), ("old".into(), active)]);
        assert_eq!(store.state().revisions(&Family::parse("web").unwrap()).count(), 2);
        let front = ServiceName::parse("front").unwrap();
        assert_eq!(store.state().service(&name("old"), &front).unwrap().desired_count, 2);
        assert_eq!(store.state().events_of(&name("old"), &front).count(), 1);
        let mut touch = Transaction::new();
        touch.touch(Key::Cluster(name("old")));
        store.commit(touch).await.unwrap()
    };
    assert_eq!(next, Revision(9), "revisions go on");
    let store = Store::open(Sqlite::open(&path).unwrap()).unwrap();
    assert_eq!(store.state().modified(&Key::Cluster(ClusterName::parse("old").unwrap())), Some(next), "and what was touched stays so");
    assert_eq!(store.state().clusters().count(), 3);
}

/// `schema-2.db` was written by the second schema's Berth, which was killed with three commits in its log, none of them compressed.
#[tokio::test]
async fn a_file_of_the_second_schema_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/schema-2.db"), &path).unwrap();
    let version =
        || -> i64 { rusqlite::Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap() };
    assert_eq!(version(), 2);
    let name = |text| ClusterName::parse(text).unwrap();
    let next = {
        let store = Store::open(Sqlite::open(&path).unwrap()).unwrap();
        assert_eq!(store.state().revision, Revision(7));
        let clusters: Vec<_> = store.state().clusters().map(|cluster| (cluster.name.to_string(), cluster.tags.len())).collect();
        assert_eq!(clusters, [("default".into(), 0), ("new".into(), 0), ("old".into(), 1)], "the log is on top of the records");
        assert_eq!(store.state().revisions(&Family::parse("web").unwrap()).count(), 2);
        let mut touch = Transaction::new();
        touch.touch(Key::Cluster(name("old")));
        store.commit(touch).await.unwrap()
    };
    assert_eq!(next, Revision(8), "revisions go on");
    let store = Store::open(Sqlite::open(&path).unwrap()).unwrap();
    assert_eq!(store.state().modified(&Key::Cluster(name("old"))), Some(next), "and what was touched stays so");
    drop(store);
    assert_eq!(version(), 3, "an older Berth is told that it does not know this");
}

/// A batch that is compressed in the log: found again by the next start, before and after it is moved on, and its damage is named.
#[test]
fn a_long_batch_is_kept_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let family = |number: u32| {
        let record = Record::from(FamilyCounter { family: Family::parse(&format!("family-{number}")).unwrap(), last_revision: number });
        Write::Put(Stored { record, created: Revision(1), modified: Revision(1), version: 1 })
    };
    let writes: Vec<_> = (0..1_000).map(family).collect();
    let loaded = || {
        let mut loaded = Vec::new();
        let mut backend = Sqlite::open(&path)?;
        backend.load(&mut |write| loaded.push(write))?;
        backend.revision()?;
        loaded.sort_by_key(|write| write.key().to_string());
        Ok::<_, BackendError>((backend, loaded))
    };
    let mut expected = writes.clone();
    expected.sort_by_key(|write| write.key().to_string());
    Sqlite::open(&path).unwrap().persist(&writes, Revision(1)).unwrap();
    let raw = rusqlite::Connection::open(&path).unwrap();
    let row: Vec<u8> = raw.query_row("SELECT writes FROM log", [], |row| row.get(0)).unwrap();
    assert!(row.len() < 20_000 && std::str::from_utf8(&row).is_err(), "{} bytes", row.len());
    let mut damaged = row.clone();
    damaged[row.len() / 2] ^= 8;
    raw.execute("UPDATE log SET writes = ?1", [damaged]).unwrap();
    drop(raw);
    let Err(BackendError::Damaged { at, .. }) = loaded() else { panic!("it was not seen") };
    assert_eq!(at, "log/1");
    rusqlite::Connection::open(&path).unwrap().execute("UPDATE log SET writes = ?1", [row]).unwrap();
    let (mut backend, found) = loaded().unwrap();
    assert!(found == expected, "{} records are found", found.len());
    while backend.idle() {}
    drop(backend);
    let found = loaded().unwrap().1;
    assert!(found == expected, "{} records are found where they belong", found.len());
}

/// Bits that turned on the disk are found when the store is opened, and it says where.
#[test]
fn a_damaged_record_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let family = |name: &str, last_revision| {
        let family = Family::parse(name).unwrap();
        Write::Put(Stored {
            record: Record::from(FamilyCounter { family, last_revision }),
            created: Revision(1),
            modified: Revision(1),
            version: 1,
        })
    };
    let mut backend = Sqlite::open(&path).unwrap();
    backend.persist(&[family("moved", 1234)], Revision(1)).unwrap();
    while backend.idle() {}
    backend.persist(&[family("logged", 1234)], Revision(2)).unwrap();
    drop(backend);
    let whole = std::fs::read(&path).unwrap();
    let places: Vec<_> = (0..whole.len() - 4).filter(|at| &whole[*at..at + 4] == b"1234").collect();
    assert_eq!(places.len(), 2, "one record in each table");
    let mut named = Vec::new();
    for place in places {
        let mut damaged = whole.clone();
        // Still a number, still legal JSON.
        damaged[place] ^= 8;
        std::fs::write(&path, damaged).unwrap();
        let outcome = Sqlite::open(&path).and_then(|mut backend| backend.load(&mut |_| {}));
        let Err(BackendError::Damaged { at, .. }) = outcome else { panic!("it was not seen: {outcome:?}") };
        named.push(at);
    }
    named.sort();
    assert_eq!(named, ["family/moved", "log/2"]);
}

/// The same records as another store's, counters and all; a store that has something in it is left alone.
#[test]
fn records_are_brought_into_an_empty_store_only() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from.db"), directory.path().join("to.db"));
    let (mut kept, mut dice) = (Kept::new(), Dice(7));
    let mut backend = Sqlite::open(&from).unwrap();
    for revision in 1..=500 {
        let write = write(&mut dice, &kept, Revision(revision));
        apply(&mut kept, write.clone());
        backend.persist(&[write], Revision(revision)).unwrap();
    }
    let mut other = Sqlite::open(&to).unwrap();
    assert_eq!(other.import(kept.values().cloned(), Revision(500)).unwrap(), kept.len() as u64);
    assert!(matches!(other.import(kept.values().cloned(), Revision(500)), Err(BackendError::NotEmpty)));
    drop(other);
    assert_eq!(found(&to), (Revision(500), kept));
}

type Kept = BTreeMap<Key, Stored>;

fn apply(kept: &mut Kept, write: Write) {
    match write {
        Write::Put(stored) => {
            kept.insert(stored.record.key(), stored);
        }
        Write::Touch { key, modified, version } => {
            // In a log whose end is in the table already, a record may be touched that is gone by its end.
            if let Some(stored) = kept.get_mut(&key) {
                (stored.modified, stored.version) = (modified, version);
            }
        }
        Write::Delete(key) => {
            kept.remove(&key);
        }
    }
}

/// What a Berth that starts on this file finds.
fn found(path: &Path) -> (Revision, Kept) {
    let mut backend = Sqlite::open(path).unwrap();
    let mut kept = Kept::new();
    backend.load(&mut |write| apply(&mut kept, write)).unwrap();
    (backend.revision().unwrap(), kept)
}

/// A generator that is the same everywhere (xorshift64*); a failure is found again by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
    }
}

/// One random write of one of a few hundred records, as the store would make it.
fn write(dice: &mut Dice, kept: &Kept, revision: Revision) -> Write {
    let family = Family::parse(&format!("f{}", dice.below(300))).unwrap();
    let key = Key::Family(family.clone());
    match (kept.get(&key), dice.below(10)) {
        (Some(_), 0 | 1) => Write::Delete(key),
        (Some(stored), 2..5) => Write::Touch { key, modified: revision, version: stored.version + 1 },
        (known, number) => {
            let last_revision = u32::try_from(number).unwrap();
            let record = Record::from(FamilyCounter { family, last_revision });
            let (created, version) = known.map_or((revision, 1), |stored| (stored.created, stored.version + 1));
            Write::Put(Stored { record, created, modified: revision, version })
        }
    }
}

fn copy(from: &Path, to: &Path, wal_bytes: Option<u64>) {
    let wal = |path: &Path| path.with_extension("db-wal");
    std::fs::copy(from, to).unwrap();
    let _ = std::fs::remove_file(wal(to));
    if wal(from).exists() {
        std::fs::copy(wal(from), wal(to)).unwrap();
        if let Some(bytes) = wal_bytes {
            std::fs::OpenOptions::new().write(true).open(wal(to)).unwrap().set_len(bytes).unwrap();
        }
    }
}

/// A copy of the files between any two steps is what a kill leaves. What is found there is exactly what was acknowledged.
#[test]
fn nothing_is_lost_by_a_kill_at_any_step() {
    for seed in 1..=4_u64 {
        let directory = tempfile::tempdir().unwrap();
        let (path, left) = (directory.path().join("state.db"), directory.path().join("left.db"));
        let mut backend = Sqlite::open(&path).unwrap();
        let (mut kept, mut dice, mut revision) = (Kept::new(), Dice(seed), Revision(0));
        for step in 0..120 {
            match dice.below(9) {
                // A piece of the move from the log to the records; often the next writes come before it is complete.
                0..3 => drop(backend.idle()),
                3 => backend.lull(),
                _ => {
                    let mut writes = Vec::new();
                    for _ in 0..=dice.below(60) {
                        revision = Revision(revision.0 + 1);
                        let write = write(&mut dice, &kept, revision);
                        apply(&mut kept, write.clone());
                        writes.push(write);
                    }
                    backend.persist(&writes, revision).unwrap();
                }
            }
            copy(&path, &left, None);
            assert_eq!(found(&left), (revision, kept.clone()), "seed {seed}, step {step}");
        }
        while backend.idle() {}
        drop(backend);
        assert_eq!(found(&path), (revision, kept), "seed {seed}, after a clean end");
    }
}

/// A machine that loses power may lose the end of SQLite's log, in the middle of a write. What is found then is what was
/// there after one of the commits, whole: never a part of one, never a mixture.
#[test]
fn a_torn_tail_leaves_the_state_after_some_commit() {
    for seed in 1..=4_u64 {
        let directory = tempfile::tempdir().unwrap();
        let (path, left) = (directory.path().join("state.db"), directory.path().join("left.db"));
        let mut backend = Sqlite::open(&path).unwrap();
        let (mut kept, mut dice, mut revision) = (Kept::new(), Dice(seed), Revision(0));
        let mut after = BTreeMap::from([(revision, kept.clone())]);
        for step in 0..60 {
            for _ in 0..dice.below(4) {
                let mut writes = Vec::new();
                for _ in 0..=dice.below(60) {
                    revision = Revision(revision.0 + 1);
                    let write = write(&mut dice, &kept, revision);
                    apply(&mut kept, write.clone());
                    writes.push(write);
                }
                backend.persist(&writes, revision).unwrap();
                after.insert(revision, kept.clone());
            }
            if dice.below(2) == 0 {
                backend.idle();
            }
            let bytes = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
            copy(&path, &left, Some(dice.below(bytes + 1)));
            let (revision, state) = found(&left);
            assert_eq!(after.get(&revision), Some(&state), "seed {seed}, step {step}");
        }
    }
}

/// Small commits with gaps between them: the write-ahead log is written back long before it is so long that a commit has to wait for that.
#[test]
fn the_log_is_written_back_in_the_first_lull() {
    let directory = tempfile::tempdir().unwrap();
    let (path, alone) = (directory.path().join("state.db"), directory.path().join("alone.db"));
    let mut backend = Sqlite::open(&path).unwrap();
    let (mut kept, mut dice, mut revision) = (Kept::new(), Dice(7), Revision(0));
    for round in 0..3 {
        let mut commits = 0;
        while !backend.wants_lull() {
            commits += 1;
            assert!(commits < 200, "round {round}: it asks for a lull long before a commit would wait");
            revision = Revision(revision.0 + 1);
            let write = write(&mut dice, &kept, revision);
            apply(&mut kept, write.clone());
            backend.persist(&[write], revision).unwrap();
        }
        backend.lull();
        assert!(!backend.wants_lull(), "round {round}: one is enough");
        // Without the write-ahead log beside it: the file alone has everything.
        std::fs::copy(&path, &alone).unwrap();
        let _ = std::fs::remove_file(alone.with_extension("db-wal"));
        assert_eq!(found(&alone), (revision, kept.clone()), "round {round}");
    }
}
