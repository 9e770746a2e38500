//! Tables on their way to agents: the newest whole, and the last changes that lead to it. A session that was told of one of these is told of
//! the changes since, every other of the whole. It knows nothing of what is in a table.

use std::collections::VecDeque;

use tokio::sync::watch;

/// Most bytes of changes that are kept for sessions that are behind: beyond a frame the whole table is as good.
const MOST_KEPT: usize = berth_acs::messages::MAX_FRAME;
/// Most changes that are kept: several seconds of them at the pace at which tables are made.
const MOST_CHANGES: usize = 256;

/// A table of which one edition follows another.
pub(crate) struct Editions<W, C>(watch::Sender<Shown<W, C>>);

struct Shown<W, C> {
    /// The newest one, with the store's revision that it was made of; none before the first.
    newest: Option<(u64, W)>,
    /// Each one's base is the revision of the one before; the last leads to the newest.
    changes: VecDeque<Changes<C>>,
    /// How many bytes they are.
    size: usize,
}

/// What leads from one edition to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changes<C> {
    /// The revision of the edition before.
    pub(crate) base: u64,
    /// The revision of the edition after.
    pub(crate) revision: u64,
    /// How many bytes they are on the wire.
    pub(crate) size: usize,
    /// What changes.
    pub(crate) content: C,
}

/// What a session is to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News<W, C> {
    /// The table, made of this revision.
    Whole(u64, W),
    /// What changed since the session was told last, in order.
    Changes(Vec<Changes<C>>),
}

impl<W: Clone, C: Clone> Editions<W, C> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Shown { newest: None, changes: VecDeque::new(), size: 0 }))
    }

    /// There is a newer one. Without `changes`, or with such that do not follow the last edition, everybody is told of the whole.
    pub(crate) fn publish(&self, revision: u64, whole: W, changes: Option<Changes<C>>) {
        self.0.send_modify(|shown| {
            let before = shown.newest.replace((revision, whole)).map(|(revision, _)| revision);
            match changes.filter(|changes| Some(changes.base) == before && changes.revision == revision && changes.size <= MOST_KEPT) {
                Some(changes) => {
                    shown.size += changes.size;
                    shown.changes.push_back(changes);
                    while shown.size > MOST_KEPT || shown.changes.len() > MOST_CHANGES {
                        shown.size -= shown.changes.pop_front().map_or(shown.size, |oldest| oldest.size);
                    }
                }
                None => {
                    shown.changes.clear();
                    shown.size = 0;
                }
            }
        });
    }

    /// The editions from now on, beginning with the one that there is. Who does not take changes gets each whole.
    pub(crate) fn subscribe(&self, takes_changes: bool) -> Subscription<W, C> {
        let mut shown = self.0.subscribe();
        shown.mark_changed();
        Subscription { shown, told: None, takes_changes }
    }
}

/// The editions that one session sends.
pub(crate) struct Subscription<W, C> {
    shown: watch::Receiver<Shown<W, C>>,
    /// The revision of the edition that it took last.
    told: Option<u64>,
    takes_changes: bool,
}

impl<W: Clone, C: Clone> Subscription<W, C> {
    /// Waits for an edition that was not yet taken; those that another overtook come as changes or not at all. Cancel-safe.
    pub(crate) async fn next(&mut self) -> News<W, C> {
        loop {
            if self.shown.changed().await.is_err() {
                // The control plane is ending, and its sessions with it.
                return std::future::pending().await;
            }
            let shown = self.shown.borrow_and_update();
            let Some((revision, whole)) = &shown.newest else { continue };
            let told = self.told.replace(*revision).filter(|_| self.takes_changes);
            if told == Some(*revision) {
                continue;
            }
            let first = told.and_then(|told| shown.changes.iter().position(|changes| changes.base == told));
            return match first {
                Some(first) => News::Changes(shown.changes.range(first..).cloned().collect()),
                None => News::Whole(*revision, whole.clone()),
            };
        }
    }

    /// The other side misses something: next comes the whole.
    pub(crate) fn forget(&mut self) {
        self.told = None;
        self.shown.mark_changed();
    }

    /// What was taken last cannot be sent: the next edition comes whole.
    pub(crate) fn withhold(&mut self) {
        self.told = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    type Texts = Editions<&'static str, &'static str>;

    fn changes(base: u64, revision: u64, content: &'static str) -> Option<Changes<&'static str>> {
        Some(Changes { base, revision, size: 1, content })
    }

    fn told(subscription: &mut Subscription<&'static str, &'static str>) -> Option<News<&'static str, &'static str>> {
        subscription.next().now_or_never()
    }

    #[test]
    fn a_session_begins_with_the_whole_and_goes_on_with_what_changes() {
        let editions = Texts::new();
        let mut ours = editions.subscribe(true);
        assert_eq!(told(&mut ours), None, "there is none yet");
        editions.publish(0, "a", None);
        assert_eq!(told(&mut ours), Some(News::Whole(0, "a")), "a store may have no commit yet");
        editions.publish(3, "ab", changes(0, 3, "+b"));
        editions.publish(5, "abc", changes(3, 5, "+c"));
        let both = [changes(0, 3, "+b"), changes(3, 5, "+c")].into_iter().flatten().collect();
        assert_eq!(told(&mut ours), Some(News::Changes(both)), "one that was overtaken is not left out");
        assert_eq!(told(&mut ours), None);
        let mut late = editions.subscribe(true);
        assert_eq!(told(&mut late), Some(News::Whole(5, "abc")));
        ours.forget();
        assert_eq!(told(&mut ours), Some(News::Whole(5, "abc")), "it misses something");
        assert_eq!((told(&mut ours), told(&mut late)), (None, None));
        late.withhold();
        assert_eq!(told(&mut late), None, "it waits for the next");
        editions.publish(6, "abcd", changes(5, 6, "+d"));
        assert_eq!(told(&mut late), Some(News::Whole(6, "abcd")));
    }

    #[test]
    fn who_takes_no_changes_gets_each_whole() {
        let editions = Texts::new();
        let mut older = editions.subscribe(false);
        editions.publish(1, "a", None);
        assert_eq!(told(&mut older), Some(News::Whole(1, "a")));
        editions.publish(2, "b", changes(1, 2, "b"));
        editions.publish(3, "c", changes(2, 3, "c"));
        assert_eq!(told(&mut older), Some(News::Whole(3, "c")), "one that was overtaken is passed over");
    }

    #[test]
    fn a_gap_is_bridged_by_the_whole() {
        let editions = Texts::new();
        let mut ours = editions.subscribe(true);
        editions.publish(1, "a", None);
        assert!(told(&mut ours).is_some());
        editions.publish(2, "b", None);
        editions.publish(3, "c", changes(2, 3, "c"));
        assert_eq!(told(&mut ours), Some(News::Whole(3, "c")), "how 2 came of 1 was not said");
        editions.publish(9, "d", changes(7, 9, "d"));
        assert_eq!(told(&mut ours), Some(News::Whole(9, "d")), "nobody has 7");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let editions = Texts::new();
        let mut behind = editions.subscribe(true);
        editions.publish(0, "0", None);
        assert!(told(&mut behind).is_some());
        let large = |base, size| Some(Changes { base, revision: base + 1, size, content: "" });
        editions.publish(1, "1", large(0, MOST_KEPT / 2));
        editions.publish(2, "2", large(1, MOST_KEPT / 2));
        assert!(matches!(told(&mut behind), Some(News::Changes(changes)) if changes.len() == 2));
        for base in 2..5 {
            editions.publish(base + 1, "x", large(base, MOST_KEPT / 2));
        }
        assert_eq!(told(&mut behind), Some(News::Whole(5, "x")), "it is further behind than is kept");
        for base in 5..6 + MOST_CHANGES as u64 {
            editions.publish(base + 1, "y", large(base, 0));
        }
        assert!(matches!(told(&mut behind), Some(News::Whole(_, "y"))), "so are very many small ones");
        editions.publish(900, "z", Some(Changes { base: 6 + MOST_CHANGES as u64, revision: 900, size: MOST_KEPT + 1, content: "" }));
        assert!(matches!(told(&mut behind), Some(News::Whole(900, "z"))), "as large as a table");
    }
}
