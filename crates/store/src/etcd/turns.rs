//! Who goes when: a transaction waits for earlier ones that write a record it names; all others go together.
//!
//! etcd answers what comes together in any order. Callers queue up in an order, and the first of two that write the same
//! record must win.

use std::collections::HashMap;

use berth_model::record::Key;
use tokio::sync::watch;

use crate::transaction::{Expect, Transaction};

/// The last transaction under way that writes a record, by record. Its channel closes when it is through.
#[derive(Default)]
pub(super) struct Turns {
    writers: HashMap<Key, watch::Receiver<()>>,
    /// How many entries make a look at which are through worthwhile.
    tidy_at: usize,
}

/// A place behind those that come before.
pub(super) struct Turn {
    before: Vec<watch::Receiver<()>>,
    through: watch::Sender<()>,
}

impl Turns {
    pub(super) fn take(&mut self, transaction: &Transaction) -> Turn {
        if self.writers.len() > self.tidy_at {
            self.writers.retain(|_, writer| writer.has_changed().is_ok());
            self.tidy_at = (self.writers.len() * 2).max(1_024);
        }
        let (through, end) = watch::channel(());
        let named = transaction.expects.iter().map(|expect| match expect {
            Expect::Absent(key) | Expect::Unchanged(key, _) => key,
        });
        let mut before: Vec<_> = named.filter_map(|key| self.writers.get(key).cloned()).collect();
        for change in &transaction.changes {
            before.extend(self.writers.insert(change.key(), end.clone()));
        }
        // A transaction that changes a record twice finds itself.
        before.retain(|writer| !writer.same_channel(&end));
        Turn { before, through }
    }
}

impl Turn {
    /// Waits for all before it. Those behind go when what this gives is dropped.
    pub(super) async fn wait(self) -> watch::Sender<()> {
        for mut writer in self.before {
            // Nothing is ever sent: this ends when the other is through.
            let _ = writer.changed().await;
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
