//! Disks whose syncs take long: what waits, what is refused, and what a kill in the middle of a sync leaves.

mod slow;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use berth_model::ids::Family;
use berth_model::record::Record;
use berth_model::task_definition::FamilyCounter;
use berth_store::backend::Write;
use berth_store::conformance::{SlowDisk, a_slow_disk_holds_commits_back};
use berth_store::{Backend, BackendError, Memory, Revision, Sqlite, Store, Transaction};

use slow::Gate;

/// A backend that keeps nothing, slowly.
#[derive(Clone, Default)]
struct Slow(Arc<(Mutex<bool>, Condvar)>);

impl Backend for Slow {
    fn revision(&mut self) -> Result<Revision, BackendError> {
        Memory.revision()
    }

    fn load(&mut self, sink: &mut dyn FnMut(Write)) -> Result<(), BackendError> {
        Memory.load(sink)
    }

    fn persist(&mut self, writes: &[Write], revision: Revision) -> Result<(), BackendError> {
        let (shut, changed) = &*self.0;
        drop(changed.wait_while(shut.lock().unwrap(), |shut| *shut).unwrap());
        Memory.persist(writes, revision)
    }
}

impl SlowDisk for Slow {
    fn hold(&self) {
        *self.0.0.lock().unwrap() = true;
    }

    fn release(&self) {
        *self.0.0.lock().unwrap() = false;
        self.0.1.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_holds_commits_back() {
    let disk = Slow::default();
    a_slow_disk_holds_commits_back(&Store::open(disk.clone()).unwrap(), &disk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_holds_commits_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let gate = Gate::before(&path);
    a_slow_disk_holds_commits_back(&Store::open(Sqlite::open(&path).unwrap()).unwrap(), &*gate).await;
}

fn put(number: u32) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.put(FamilyCounter { family: Family::parse(&format!("f{number}")).unwrap(), last_revision: number });
    transaction
}

/// What a Berth finds that starts on a copy of the files: how many of the families 0, 1, 2 ... are there, without a gap.
fn found(from: &Path, to: &Path, wal_bytes: Option<u64>) -> u32 {
    let wal = |path: &Path| path.with_extension("db-wal");
    std::fs::copy(from, to).unwrap();
    let _ = std::fs::remove_file(wal(to));
    if wal(from).exists() {
        std::fs::copy(wal(from), wal(to)).unwrap();
    }
    if let Some(bytes) = wal_bytes {
        std::fs::OpenOptions::new().write(true).open(wal(to)).unwrap().set_len(bytes).unwrap();
    }
    let mut numbers = Vec::new();
    Sqlite::open(to)
        .unwrap()
        .load(&mut |write| match write {
            Write::Put(stored) => match stored.record {
                Record::Family(family) => numbers.push(family.last_revision),
                other => panic!("{other:?} was never written"),
            },
            other => panic!("{other:?} was never written"),
        })
        .unwrap();
    numbers.sort_unstable();
    let count = u32::try_from(numbers.len()).unwrap();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "commits are there in their order, without a gap");
    count
}

/// Killed, or without power, while a sync does not end: what was acknowledged is there; of what waits, some first part may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_sync_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (path, left) = (directory.path().join("state.db"), directory.path().join("left.db"));
    let gate = Gate::before(&path);
    let store = Store::open(Sqlite::open(&path).unwrap()).unwrap();
    let mut number = 0;
    let wal = || std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
    for round in 0..12 {
        for _ in 0..=round {
            store.commit(put(number)).await.unwrap();
            number += 1;
        }
        let (acknowledged, safe) = (number, wal());
        gate.hold();
        let mut waiting = Vec::new();
        for _ in 0..20 {
            waiting.push(store.enqueue(put(number)).unwrap());
            number += 1;
        }
        tokio::task::block_in_place(|| gate.until_a_sync_waits());
        let found_by_kill = found(&path, &left, None);
        assert!((acknowledged..=number).contains(&found_by_kill), "round {round}: {found_by_kill} of {acknowledged} to {number}");
        // Without power, any part of what is not synced may be missing.
        for cut in [safe, (safe + wal()) / 2, wal() - 1] {
            let found_by_cut = found(&path, &left, Some(cut.max(safe)));
            assert!((acknowledged..=number).contains(&found_by_cut), "round {round}, cut at {cut}: {found_by_cut} of {acknowledged}");
        }
        gate.release();
        for outcome in waiting {
            outcome.await.unwrap().unwrap();
        }
    }
    drop(store);
    assert_eq!(found(&path, &left, None), number);
}
