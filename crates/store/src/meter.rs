//! What the store counts of itself, for whoever shows it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The store's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Meter {
    pub(crate) commits: Counter,
    pub(crate) changes: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) failures: Counter,
    pub(crate) refusals: Counter,
    pub(crate) queue: Gauge,
    pub(crate) sync_seconds: Histogram,
    pub(crate) batch: Histogram,
    pub(crate) revision: Gauge,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            commits: Counter::default(),
            changes: Counter::default(),
            conflicts: Counter::default(),
            failures: Counter::default(),
            refusals: Counter::default(),
            queue: Gauge::default(),
            // From 20 µs to 1.3 s.
            sync_seconds: Histogram::new(exponential_buckets(20e-6, 2.0, 17)),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            revision: Gauge::default(),
        }
    }
}

impl Meter {
    /// Shows them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("berth_store_commits", "Transactions made durable", self.commits.clone());
        registry.register("berth_store_changes", "Records written or removed by them", self.changes.clone());
        registry.register("berth_store_conflicts", "Transactions refused because somebody came between", self.conflicts.clone());
        registry.register("berth_store_failures", "Transactions that the backend could not write", self.failures.clone());
        registry.register("berth_store_refusals", "Transactions refused because too many were waiting", self.refusals.clone());
        registry.register("berth_store_queue", "Transactions that wait for the writer", self.queue.clone());
        registry.register("berth_store_sync_seconds", "Time to make a batch of transactions durable", self.sync_seconds.clone());
        registry.register("berth_store_batch", "Transactions made durable at once", self.batch.clone());
        registry.register("berth_store_revision", "The last durable commit", self.revision.clone());
    }
}
