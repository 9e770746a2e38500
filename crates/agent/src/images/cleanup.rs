//! When images go: in cycles, and at once when they take more than they may.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Images, choice};
use crate::config::images::Budget;
use crate::engine::Millis;

impl Images {
    /// Removes what nothing needs, until the agent ends.
    pub async fn clean_up(self: Arc<Self>, stop: CancellationToken) {
        if let Some(why) = self.keeps_all {
            tracing::info!(why, "images are not cleaned up");
            return;
        }
        let interval = millis(self.config.cleanup_interval);
        let mut next = self.clock.now().saturating_add(interval);
        // Another agent may have left more than this one may have.
        self.keep_budget().await;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.came.notified() => self.keep_budget().await,
                () = self.clock.sleep_until(Some(next)) => {}
            }
            if self.clock.now() >= next {
                self.clean().await;
                next = self.clock.now().saturating_add(interval);
            }
        }
    }

    /// One cycle.
    pub(super) async fn clean(&self) {
        let _turn = self.removing.lock().await;
        let Some(images) = self.look().await else { return };
        let rules = choice::Rules {
            minimum_age: millis(self.config.minimum_age),
            foreign_minimum_age: self.config.are_untracked_removed.then(|| millis(self.config.untracked_minimum_age)),
            most: self.config.most_per_cycle,
        };
        self.remove(choice::due(&images, rules, self.clock.now())).await;
    }

    /// Removes what is too much.
    pub(super) async fn keep_budget(&self) {
        let budget = match (self.config.budget, self.runtime.image_space()) {
            (Budget::Bytes(bytes), _) => bytes,
            (Budget::Percent(percent), Some(space)) => space.total / 100 * u64::from(percent),
            // Of an unknown size there is no share.
            (Budget::Percent(_), None) => return,
        };
        let _turn = self.removing.lock().await;
        let Some(images) = self.look().await else { return };
        let removals = choice::over_budget(&images, budget);
        if removals.is_empty() && choice::used(&images) > budget {
            tracing::warn!(used = choice::used(&images), budget, "images take more than they may, and all of them are needed");
        }
        self.remove(removals).await;
    }
}

fn millis(duration: std::time::Duration) -> Millis {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}
