//! The leader has etcd forget its old revisions; otherwise its file grows for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Code;

use super::Common;
use super::members::CallError;
use super::rpc::{self, CompactionRequest, CompactionResponse};

/// How long one compaction may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs for ever.
pub(super) async fn compact(common: Arc<Common>, keep: u64, every: Duration) {
    let mut done = 0;
    loop {
        sleep(every).await;
        if !common.shared.membership.borrow().leads {
            continue;
        }
        let oldest = common.shared.state.read().revision.0.saturating_sub(keep);
        let Ok(revision) = i64::try_from(oldest) else { continue };
        if revision <= done {
            continue;
        }
        let request = CompactionRequest { revision };
        match common.members.call::<_, CompactionResponse>(rpc::COMPACT, request, Instant::now() + PATIENCE).await {
            // Out of range: somebody has compacted beyond it already.
            Ok(_) | Err(CallError::Refused { code: Code::OutOfRange, .. }) => done = revision,
            Err(error) => tracing::warn!(%error, "cannot have etcd forget old revisions"),
        }
    }
}
