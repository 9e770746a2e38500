//! Who goes when: a transaction waits for earlier ones that write a record it names; all others go together.
//!
//! etcd answers what comes together in any order. Callers queue up in an order, and the first of two that write the same
//! record must win.

use std::collections::HashMap;
use std::sync::Arc;

use berth_model::record::Key;
use tokio::sync::Semaphore;

use crate::transaction::{Expect, Transaction};

/// The last transaction under way that writes a record, by record.
#[derive(Default)]
pub(super) struct Turns {
    writers: HashMap<Key, Gate>,
    /// How many entries make a look at which are through worthwhile.
    tidy_at: usize,
}

/// A place behind those that come before.
pub(super) struct Turn {
    before: Vec<Gate>,
    through: Through,
}

/// Never lets anybody in; it closes when its transaction is through, and tells those that wait in the order in which they came.
type Gate = Arc<Semaphore>;

/// A transaction that is under way until this is dropped.
pub(super) struct Through(Gate);

impl Drop for Through {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Turns {
    pub(super) fn take(&mut self, transaction: &Transaction) -> Turn {
        if self.writers.len() > self.tidy_at {
            self.writers.retain(|_, writer| !writer.is_closed());
            self.tidy_at = (self.writers.len() * 2).max(1_024);
        }
        let end = Arc::new(Semaphore::new(0));
        let named = transaction.expects.iter().map(|expect| match expect {
            Expect::Absent(key) | Expect::Unchanged(key, _) => key,
        });
        let mut before: Vec<_> = named.filter_map(|key| self.writers.get(key).cloned()).collect();
        for change in &transaction.changes {
            before.extend(self.writers.insert(change.key(), Arc::clone(&end)));
        }
        // A transaction that changes a record twice finds itself.
        before.retain(|writer| !Arc::ptr_eq(writer, &end));
        Turn { before, through: Through(end) }
    }
}

impl Turn {
    /// Waits for all before it. Those behind go when what this gives is dropped.
    pub(super) async fn wait(self) -> Through {
        for writer in self.before {
            // There is no permit: this ends when the other is through.
            let _ = writer.acquire().await;
        }
        self.through
    }
}

#[cfg(test)]
mod tests {
    use berth_model::ids::ClusterName;
    use futures_util::FutureExt;

    use super::*;

    fn touching(names: &[&str]) -> Transaction {
        let mut transaction = Transaction::new();
        for name in names {
            transaction.touch(Key::Cluster(ClusterName((*name).into())));
        }
        transaction
    }

    #[test]
    fn writers_of_one_record_go_in_order_and_others_together() {
        let mut turns = Turns::default();
        let first = turns.take(&touching(&["a", "a", "b"])).wait().now_or_never().expect("nobody is before the first");
        let mut second = Box::pin(turns.take(&touching(&["b"])).wait());
        let mut reader = Transaction::new();
        reader.expect_absent(Key::Cluster(ClusterName("a".into())));
        let mut reading = Box::pin(turns.take(&reader).wait());
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut reading).now_or_never().is_none());
        assert!(turns.take(&touching(&["c"])).wait().now_or_never().is_some(), "another record does not wait");
        drop(first);
        assert!(reading.now_or_never().is_some());
        let second = second.now_or_never().expect("the first is through");
        let mut third = Box::pin(turns.take(&touching(&["b"])).wait());
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[test]
    fn what_is_through_is_forgotten() {
        let mut turns = Turns::default();
        for number in 0..5_000 {
            turns.take(&touching(&[&format!("c{number}")])).wait().now_or_never().unwrap();
        }
        assert!(turns.writers.len() <= 1_025);
    }
}
