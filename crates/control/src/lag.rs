//! How long a loop lets wait what it has to act on. It measures and changes nothing of what the loop does.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

/// One loop's. A loop that waits is late by the time from being woken to running; one that is busy meanwhile, by no more than the time
/// since it last looked.
pub(crate) struct Lag {
    histogram: Histogram,
    /// When everything there was had been seen.
    looked: Instant,
    /// When what ended the last wait had come, if it was not there before.
    woken: Option<Instant>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    rung: Mutex<Option<Instant>>,
    waker: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.lock().get_or_insert_with(Instant::now);
        self.waker.wake();
    }
}

impl Lag {
    pub(crate) fn new(histogram: Histogram) -> Self {
        Self { histogram, looked: Instant::now(), woken: None, bell: Arc::default() }
    }

    /// Waits, and keeps when whatever ends the wait had come.
    pub(crate) async fn during<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        let bell = &self.bell;
        bell.rung.lock().take();
        let waker = Waker::from(Arc::clone(bell));
        let (woken, outcome) = std::future::poll_fn(|context| {
            bell.waker.register(context.waker());
            // Taken first: what comes during the poll is another wake-up.
            let woken = bell.rung.lock().take();
            wait.as_mut().poll(&mut Context::from_waker(&waker)).map(|outcome| (woken, outcome))
        })
        .await;
        self.woken = woken;
        outcome
    }

    /// There was nothing to act on.
    pub(crate) fn idle(&mut self) {
        self.looked = Instant::now();
    }

    /// Commits are acted on now, which ended the last wait or came while the loop was busy.
    pub(crate) fn acts(&mut self) {
        let now = Instant::now();
        let since = self.woken.take().unwrap_or(self.looked);
        self.observe(now - since);
        self.looked = now;
    }

    /// A wake-up that was due at `due` is acted on now.
    pub(crate) fn acts_on_due(&mut self, due: Instant) {
        self.woken = None;
        self.observe(due.elapsed());
    }

    fn observe(&self, lag: Duration) {
        self.histogram.observe(lag.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use tokio::sync::Notify;

    use super::*;

    fn sum(histogram: &Histogram) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register("lag", "Lag", histogram.clone());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| line.starts_with("lag_sum") || line.starts_with("lag_count")).collect::<Vec<_>>().join(" ")
    }

    /// A clock that is moved by hand.
    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_wakes_a_loop_counts_from_its_coming() {
        let histogram = Histogram::new([1.0]);
        let mut lag = Lag::new(histogram.clone());
        let bell = Notify::new();
        {
            let mut wait = pin!(lag.during(bell.notified()));
            let is_waiting = std::future::poll_fn(|context| Poll::Ready(wait.as_mut().poll(context).is_pending())).await;
            assert!(is_waiting);
            pass(10).await;
            bell.notify_one();
            pass(3).await;
            wait.await;
        }
        lag.acts();
        assert_eq!(sum(&histogram), "lag_sum 3.0 lag_count 1", "the ten seconds of waiting are no lag");
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_while_a_loop_was_busy_counts_from_its_last_look() {
        let histogram = Histogram::new([1.0]);
        let mut lag = Lag::new(histogram.clone());
        lag.idle();
        pass(2).await;
        lag.during(std::future::ready(())).await;
        lag.acts();
        assert_eq!(sum(&histogram), "lag_sum 2.0 lag_count 1");
        let due = Instant::now();
        pass(4).await;
        lag.acts_on_due(due);
        assert_eq!(sum(&histogram), "lag_sum 6.0 lag_count 2");
    }
}
