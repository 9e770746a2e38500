//! Restart policies: whether a container whose program has ended is started again. Follows
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/container-restart-policy.html> and the official agent's
//! `restart` package.

use super::{Ended, TaskState};
use crate::plan::TaskPlan;

/// Whether container `index`, which came to this end, is to be started again in its place.
pub fn is_restarted(plan: &TaskPlan, state: &TaskState, index: usize, ended: &Ended) -> bool {
    let Some(policy) = &plan.containers[index].restart else { return false };
    let Ended::Exited { run, exit } = ended else { return false };
    // A container that ends again at once would be started for ever.
    let lived = exit.at.saturating_sub(run.started_at);
    !state.is_ending(plan) && !policy.ignored_exit_codes.contains(&exit.code) && lived >= policy.attempt_period
}
