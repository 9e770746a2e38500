//! How many images are pulled at a time. Containers of one image count once: the runtime lets them share the work.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// Beyond this many names, those nobody pulls are forgotten.
const REMEMBERED: usize = 64;

/// A permit that all who pull one image share; it is given back when the last lets go.
pub type Turn = Arc<OnceCell<OwnedSemaphorePermit>>;

/// Bounds concurrent pulls.
#[derive(Debug)]
pub struct PullGate {
    permits: Arc<Semaphore>,
    images: Mutex<HashMap<String, Weak<OnceCell<OwnedSemaphorePermit>>>>,
}

impl PullGate {
    /// Lets that many images through at a time.
    #[must_use]
    pub fn new(images: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(images.max(1))), images: Mutex::default() }
    }

    /// Waits for the image's turn.
    pub async fn enter(&self, image: &str) -> Turn {
        let turn = self.turn(image);
        turn.get_or_init(|| async { self.permits.clone().acquire_owned().await.expect("the semaphore is never closed") }).await;
        turn
    }

    fn turn(&self, image: &str) -> Turn {
        let mut images = self.images.lock();
        if let Some(turn) = images.get(image).and_then(Weak::upgrade) {
            return turn;
        }
        if images.len() >= REMEMBERED {
            images.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Turn::default();
        images.insert(image.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_image_is_one_pull() {
        let gate = Arc::new(PullGate::new(1));
        let first = gate.enter("a").await;
        let second = gate.enter("a").await;
        let other = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter("b").await }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(gate.permits.available_permits(), 0);
        assert!(!other.is_finished());
        drop(second);
        drop(other.await.unwrap());
        assert_eq!(gate.permits.available_permits(), 1);
    }
}
