//! A connection's task that is woken while it runs goes on by itself instead of being queued once more. A request's body comes to its reader
//! by wakes of the very task that both are in, and a queued task has the runtime wake another thread, which finds nothing or takes the
//! connection away to another processor. It must never lose a wake, nor keep its thread from other tasks.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Most polls in a row. Reading a body and answering wants three; whoever is woken again and again waits for his turn as others do.
const MOST: usize = 8;

/// It waits to be woken.
const RESTS: u8 = 0;
/// It is polled, and was not woken since that began.
const RUNS: u8 = 1;
/// It was woken while it was polled.
const AGAIN: u8 = 2;

/// A future with such wakes.
pub(crate) struct PollAgain<F, M> {
    future: Pin<Box<F>>,
    may: M,
    bell: Arc<Bell>,
    /// Rings the bell.
    waker: Waker,
}

/// What the future's wakers ring.
struct Bell {
    state: AtomicU8,
    /// Of the task that it is in.
    task: Mutex<Waker>,
}

impl<F, M> PollAgain<F, M> {
    /// `may`: whether it may go on by itself now, or is to be queued as others are.
    pub(crate) fn new(future: F, may: M) -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(RESTS), task: Mutex::new(Waker::noop().clone()) });
        Self { future: Box::pin(future), may, waker: Waker::from(Arc::clone(&bell)), bell }
    }
}

impl<F: Future, M: Fn() -> bool + Unpin> Future for PollAgain<F, M> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, may, bell, waker } = &mut *self;
        bell.task.lock().clone_from(context.waker());
        for _ in 0..MOST {
            bell.state.store(RUNS, Ordering::SeqCst);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(output);
            }
            if bell.state.compare_exchange(RUNS, RESTS, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return Poll::Pending;
            }
            if !may() {
                bell.state.store(RESTS, Ordering::SeqCst);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        bell.state.store(RESTS, Ordering::SeqCst);
        // Not by a plain wake, which has the runtime wake another thread; this one comes back by itself when it has looked after the others.
        let rest = std::pin::pin!(tokio::task::yield_now());
        rest.poll(context).map(|()| unreachable!("whoever gives way is not done at once"))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.compare_exchange(RUNS, AGAIN, Ordering::SeqCst, Ordering::SeqCst) == Err(RESTS) {
            self.task.lock().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::mpsc;

    use super::*;

    /// How often a task was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls a future that wakes itself so many times, until its task is not woken by it; how often that was, and how often it was polled.
    fn turns(wakes: usize, may: bool) -> (usize, usize) {
        let count = Arc::new(Count::default());
        let (mut polls, mut left) = (0, wakes);
        let wakes_itself = poll_fn(|context| {
            polls += 1;
            if left > 0 {
                left -= 1;
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        let mut future = PollAgain::new(wakes_itself, || may);
        let waker = Waker::from(Arc::clone(&count));
        let mut turns = 0;
        while turns <= count.0.load(Ordering::SeqCst) {
            turns += 1;
            assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        drop(future);
        (turns - 1, polls)
    }

    #[test]
    fn who_is_woken_while_he_runs_goes_on_and_nobody_else_is_woken_for_it() {
        assert_eq!(turns(0, true), (0, 1));
        assert_eq!(turns(1, true), (0, 2));
        assert_eq!(turns(MOST - 1, true), (0, MOST));
    }

    #[test]
    fn who_may_not_is_queued_each_time() {
        assert_eq!(turns(3, false), (3, 4));
    }

    /// Two times as many wakes as are borne in a row.
    #[test]
    fn who_is_woken_again_and_again_gives_others_their_turn() {
        assert_eq!(turns(MOST * 2, true), (2, MOST * 2 + 1));
    }

    #[test]
    fn a_wake_between_two_polls_is_the_tasks() {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let (kept, mut ready) = (Mutex::new(None::<Waker>), false);
        let mut future = PollAgain::new(
            poll_fn(|context| {
                *kept.lock() = Some(context.waker().clone());
                if std::mem::replace(&mut ready, true) { Poll::Ready(()) } else { Poll::Pending }
            }),
            || true,
        );
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&task)).is_pending());
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        let waker = kept.lock().clone().unwrap();
        waker.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        // Polled by another task from here on.
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())).is_ready());
        waker.wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    /// Wakes from other threads, whenever they come: before, while and after it is polled. A lost one would leave it waiting for good.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost() {
        const EACH: usize = 20_000;
        let (to, mut from) = mpsc::channel(1);
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let to = to.clone();
                std::thread::spawn(move || (0..EACH).for_each(|number| to.blocking_send(number).unwrap()))
            })
            .collect();
        drop(to);
        let receive = tokio::spawn(PollAgain::new(
            async move {
                let mut received = 0;
                while from.recv().await.is_some() {
                    received += 1;
                }
                received
            },
            || true,
        ));
        assert_eq!(receive.await.unwrap(), 2 * EACH);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }
}
