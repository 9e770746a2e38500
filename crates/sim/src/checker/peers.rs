//! Servers that share a state: what each of them sees has to be what there is, in the same order, without a gap.

use std::sync::Arc;

use berth_model::record::Key;
use berth_store::{Change, Commit, Store, Watcher};

use super::{Checker, Verdict, broken};

/// The records that a commit names, in an order of their own.
pub(super) fn keys(commit: &Commit) -> Vec<Key> {
    let mut keys: Vec<_> = commit.changes.iter().map(Change::key).collect();
    keys.sort();
    keys
}

impl Checker {
    /// Follows a server's watch and compares it with what was committed.
    pub async fn follow_peer(self: Arc<Self>, server: u64, store: Store, mut watcher: Watcher) {
        loop {
            let before = watcher.position().0;
            let Ok(commits) = watcher.next().await else {
                // It was away for so long that etcd has forgotten what it missed, and has read everything again.
                let state = store.state();
                watcher.resume_from(state.revision);
                drop(state);
                self.trace.line(format_args!("server {server}: its watch begins anew after {before}"));
                continue;
            };
            let mut position = before;
            for commit in commits {
                self.judge(self.is_next(server, position, &commit));
                position = commit.revision.0;
            }
        }
    }

    /// Is this what was committed next after a position?
    pub fn is_next(&self, server: u64, position: u64, commit: &Commit) -> Verdict {
        let model = self.model.lock();
        let next = model.commits.range(position + 1..).next();
        match next {
            Some((revision, named)) if *revision == commit.revision.0 && *named == keys(commit) => Ok(()),
            next => {
                let is = next.map(|(revision, keys)| format!("{revision} {keys:?}"));
                let text =
                    format!("server {server} shows {} {:?} after {position}, and the next was {is:?}", commit.revision, keys(commit));
                broken("gapless watch", text)
            }
        }
    }
}
