//! How a caller waits for what a cluster's owner answers, who runs on other threads. A caller that is alone, call after call, waits awake for
//! a moment: to be woken by another thread costs as much as placing a task, and a processor that sleeps while the disk syncs hears of the
//! sync's end late. It must never keep a thread from other callers' work for longer than that moment, nor do so for a disk that is slow.

use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// How long to wait awake: several syncs of a quick disk. Not on the runtime's clock, which somebody may have stopped.
const AWAKE: Duration = Duration::from_micros(400);
/// Calls that must have come one by one, each answered within that moment, before the next is waited for awake. So a slow disk, or one that
/// has become slow, costs at most one such moment in so many calls.
const STREAK: u32 = 8;

/// Whether a caller may wait awake.
#[derive(Debug)]
pub(crate) struct Awake {
    /// Calls that wait now.
    waiting: AtomicU32,
    /// Calls that came alone and were answered soon, one after the other; at most [`STREAK`].
    streak: AtomicU32,
    /// Owners have threads of their own, and there is a processor for them.
    may: bool,
    /// How long to wait awake.
    moment: Duration,
}

impl Awake {
    /// `owners_apart`: owners run on other threads than those who call.
    pub(crate) fn new(owners_apart: bool) -> Self {
        let may = owners_apart && std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        Self { waiting: AtomicU32::new(0), streak: AtomicU32::new(0), may, moment: AWAKE }
    }

    /// Waits for the answer; none if nobody is left who could answer.
    pub(crate) async fn outcome<T>(&self, mut answer: oneshot::Receiver<T>) -> Option<T> {
        let waiting = Waiting::begin(self);
        if self.may
            && waiting.has_streak()
            && let Poll::Ready(outcome) = waiting.look_for(&mut answer)
        {
            return outcome;
        }
        let outcome = answer.await;
        waiting.is_answered();
        outcome.ok()
    }
}

/// One call that waits; it is counted until it is dropped, also where its caller has gone.
struct Waiting<'a> {
    awake: &'a Awake,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn begin(awake: &'a Awake) -> Self {
        awake.waiting.fetch_add(1, Ordering::Relaxed);
        Self { awake, since: Instant::now() }
    }

    fn is_alone(&self) -> bool {
        self.awake.waiting.load(Ordering::Relaxed) == 1
    }

    fn has_streak(&self) -> bool {
        self.is_alone() && self.awake.streak.load(Ordering::Relaxed) >= STREAK
    }

    /// Looks for the answer until it is there, the moment is over or somebody else calls; between two looks whatever else wants the processor
    /// has it, the owner above all. Pending if it is to be waited for asleep.
    fn look_for<T>(&self, answer: &mut oneshot::Receiver<T>) -> Poll<Option<T>> {
        while self.is_alone() && self.since.elapsed() < self.awake.moment {
            match answer.try_recv() {
                Ok(answer) => return Poll::Ready(Some(answer)),
                Err(TryRecvError::Empty) => std::thread::yield_now(),
                Err(TryRecvError::Closed) => return Poll::Ready(None),
            }
        }
        Poll::Pending
    }

    fn is_answered(&self) {
        let streak = &self.awake.streak;
        // Another call may be answered between; then one of them is not counted, which does no harm.
        let next =
            if self.is_alone() && self.since.elapsed() < self.awake.moment { (streak.load(Ordering::Relaxed) + 1).min(STREAK) } else { 0 };
        streak.store(next, Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.awake.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awake(moment: Duration) -> Awake {
        Awake { may: true, moment, ..Awake::new(true) }
    }

    /// Longer than any machine takes to do next to nothing.
    const LONG: Duration = Duration::from_secs(60);

    /// A call that was answered before it was waited for.
    async fn quick(awake: &Awake, times: u32) {
        for call in 0..times {
            let (reply, answer) = oneshot::channel();
            reply.send(call).unwrap();
            assert_eq!(awake.outcome(answer).await, Some(call));
        }
    }

    #[tokio::test]
    async fn only_who_is_alone_again_and_again_waits_awake() {
        let awake = awake(LONG);
        let has_streak = || Waiting::begin(&awake).has_streak();
        quick(&awake, STREAK - 1).await;
        assert!(!has_streak());
        quick(&awake, 1).await;
        assert!(has_streak());
        let other = Waiting::begin(&awake);
        assert!(!has_streak(), "somebody else waits");
        quick(&awake, 1).await;
        drop(other);
        assert!(!has_streak(), "it begins anew after somebody else");
    }

    /// Nobody answers: it is looked for awake, in vain, then waited for asleep, and that was too long.
    #[tokio::test]
    async fn after_a_call_that_takes_long_it_begins_anew() {
        let awake = awake(Duration::from_millis(1));
        awake.streak.store(STREAK, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let late = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            reply.send(()).unwrap();
        };
        assert_eq!(tokio::join!(awake.outcome(answer), late).0, Some(()));
        assert_eq!((awake.waiting.into_inner(), awake.streak.into_inner()), (0, 0));
    }

    #[tokio::test]
    async fn who_gives_up_is_not_counted() {
        let awake = awake(LONG);
        let (_reply, answer) = oneshot::channel::<()>();
        let gave_up = tokio::time::timeout(Duration::from_millis(1), awake.outcome(answer)).await;
        assert!(gave_up.is_err());
        assert_eq!(awake.waiting.load(Ordering::Relaxed), 0);
        quick(&awake, STREAK).await;
        let (reply, answer) = oneshot::channel::<()>();
        drop(reply);
        assert!(awake.outcome(answer).await.is_none(), "nobody is left who could answer");
    }

    /// Answers from another thread, some sooner and some later than the moment, to one caller and then to two at once: each gets its own.
    #[tokio::test]
    async fn each_gets_its_answer_however_it_waits() {
        let awake = awake(AWAKE);
        let (ask, asked) = std::sync::mpsc::channel::<(u32, oneshot::Sender<u32>)>();
        let owner = std::thread::spawn(move || {
            for (question, reply) in asked {
                if question % 50 == 0 {
                    std::thread::sleep(AWAKE * 2);
                }
                reply.send(question + 1).unwrap();
            }
        });
        let call = |question| {
            let (reply, answer) = oneshot::channel();
            ask.send((question, reply)).unwrap();
            awake.outcome(answer)
        };
        for question in 0..500 {
            assert_eq!(call(question).await, Some(question + 1));
        }
        for question in 0..200 {
            assert_eq!(tokio::join!(call(question), call(1_000 + question)), (Some(question + 1), Some(1_001 + question)));
        }
        drop(ask);
        owner.join().unwrap();
    }
}
