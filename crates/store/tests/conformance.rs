//! The conformance suite on each backend, and what only SQLite can show.

use berth_store::conformance::{Kind, run_all};
use berth_store::{BackendError, Memory, Sqlite, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    run_all(Kind::Volatile, |_| Store::open(Memory).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    run_all(Kind::Durable, |number| Store::open(Sqlite::open(&directory.path().join(format!("{number}.db"))).unwrap()).unwrap()).await;
}

#[test]
fn a_file_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let first = Store::open(Sqlite::open(&path).unwrap()).unwrap();
    assert!(matches!(Sqlite::open(&path), Err(BackendError::InUse(_))), "a second owner is refused");
    drop(first);
    Sqlite::open(&path).unwrap();
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    std::fs::write(&path, vec![7_u8; 8192]).unwrap();
    assert!(matches!(Sqlite::open(&path), Err(BackendError::Damaged { .. })));
}

#[test]
fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    drop(Sqlite::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Sqlite::open(&path), Err(BackendError::NewerSchema { found: 99, .. })));
}

/// A process killed between commits: what was acknowledged is there, bit for bit, without a clean close.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_process() {
    use berth_model::record::Record;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let store = Store::open(Sqlite::open(&path).unwrap()).unwrap();
    for revision in 0..50_u32 {
        let family = berth_model::ids::Family::parse(&format!("f{revision}")).unwrap();
        let mut transaction = berth_store::Transaction::new();
        transaction.put(Record::from(berth_model::task_definition::FamilyCounter { family, last_revision: revision }));
        store.commit(transaction).await.unwrap();
    }
    // A copy of the files as they are on disk now is what a kill -9 would leave behind.
    let copy = directory.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(directory.path().join("state.db-wal"), directory.path().join("copy.db-wal")).unwrap();
    let found = Store::open(Sqlite::open(&copy).unwrap()).unwrap();
    assert_eq!(found.state().families().count(), 50);
}
