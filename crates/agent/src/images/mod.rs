//! Images on this machine: pulling them for tasks, and removing those that nothing needs.
//!
//! Which ones go is pure ([`choice`]); what is remembered of them survives the agent ([`book`]).

pub mod book;
pub mod choice;
mod cleanup;
mod prepull;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_runtime::port::{ContainerId, Image, PullBehavior, PullError, PullRequest, RemoveImageError, Runtime};
use tokio::sync::Notify;

use self::book::{Book, Brought, spelling};
use self::choice::{ImageView, Removal};
use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::config::images::ImageConfig;
use crate::ledger::{Ledger, LedgerError};

/// How often a pull is made whose image is removed each time before anybody could hold it. Each removal would need an image that nothing
/// wanted a moment ago; more than one in a row is not bad luck.
const MOST_ROUNDS: u32 = 5;

/// The images of an agent.
pub struct Images {
    runtime: Arc<dyn Runtime>,
    book: Book,
    clock: Clock,
    config: ImageConfig,
    /// Nothing may be removed: the setting says so, or the pull behaviour needs what is here.
    keeps_all: Option<&'static str>,
    /// References, in one spelling, of images that stay.
    kept: BTreeSet<String>,
    came: Notify,
    /// One removes at a time: two that look at the same images would remove too many.
    removing: tokio::sync::Mutex<()>,
}

impl Images {
    /// The images of `runtime`, with the records of an earlier life.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(config: &AgentConfig, runtime: Arc<dyn Runtime>, ledger: Ledger, clock: Clock) -> Result<Self, LedgerError> {
        let settings = config.images.clone();
        let keeps_all = match config.pull_behavior {
            _ if !settings.is_cleaned_up => Some("ECS_DISABLE_IMAGE_CLEANUP says so"),
            // What is here may be nowhere else.
            PullBehavior::PreferCached => Some("ECS_IMAGE_PULL_BEHAVIOR is prefer-cached"),
            PullBehavior::Default | PullBehavior::Always | PullBehavior::Once => None,
        };
        let kept = settings.excluded.iter().chain(&settings.prepulled).map(|reference| spelling(reference)).collect();
        let book = Book::open(ledger)?;
        Ok(Self { runtime, book, clock, config: settings, keeps_all, kept, came: Notify::new(), removing: Default::default() })
    }

    /// Has an image here, and keeps it until [`Images::let_go`] of `holder`. Where there is no room for it, images that nothing uses make
    /// some.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn pull(self: &Arc<Self>, request: PullRequest, holder: Option<&ContainerId>) -> Result<Image, PullError> {
        let mut outcome = PullError::Storage("it is removed each time that it comes".to_owned());
        for _ in 0..MOST_ROUNDS {
            let pulling = self.book.begin(&request.reference);
            let image = match self.runtime.pull(request.clone()).await {
                // How much an image takes only its unpacking shows, so this may come again.
                Err(PullError::NoSpace { needed, free }) => {
                    outcome = PullError::NoSpace { needed, free };
                    // Apart from the pull, which may be given up at any moment: a removal is not to be.
                    let images = Arc::clone(self);
                    let room = tokio::spawn(async move { images.make_room(needed.saturating_sub(free)).await });
                    if !room.await.unwrap_or(false) {
                        break;
                    }
                    continue;
                }
                other => other?,
            };
            match pulling.brought(&image.digest, holder, self.clock.now()) {
                Brought::Gone => {
                    tracing::debug!(reference = request.reference, "an image went while it was asked for; asking again");
                    self.book.until_removed(&image.digest).await;
                }
                brought => {
                    if brought == Brought::New {
                        self.came.notify_one();
                    }
                    return Ok(image);
                }
            }
        }
        Err(outcome)
    }

    /// The container that an image was held for is there, or will not be.
    pub fn let_go(&self, holder: &ContainerId) {
        self.book.let_go(holder);
    }

    /// A container with this image was here until now.
    pub fn touch(&self, reference: &str) {
        self.book.touch(reference, self.clock.now());
    }

    /// What is on the machine now.
    async fn look(&self) -> Option<Vec<ImageView>> {
        let looked_at = self.clock.now();
        match self.runtime.images().await {
            Ok(seen) => Some(self.book.observe(seen, looked_at, |name| self.kept.contains(name))),
            Err(error) => {
                tracing::warn!(%error, "images cannot be looked at, so none is removed");
                None
            }
        }
    }

    /// Makes room for a pull; `false` if it cannot be made.
    async fn make_room(&self, needed: u64) -> bool {
        if self.keeps_all.is_some() {
            return false;
        }
        let _turn = self.removing.lock().await;
        let Some(images) = self.look().await else { return false };
        let Some(removals) = choice::room(&images, needed) else { return false };
        self.remove(removals).await
    }

    /// Removes images, the first first; whether each is gone.
    async fn remove(&self, removals: Vec<Removal>) -> bool {
        let mut all = true;
        for Removal { digest, reason } in removals {
            // Wanted since it was looked at.
            let Some(removing) = self.book.remove(&digest) else {
                all = false;
                continue;
            };
            match self.runtime.remove_image(&digest).await {
                Ok(()) => {
                    tracing::info!(image = digest, %reason, "an image is removed");
                    removing.is_gone();
                }
                Err(RemoveImageError::InUse(_)) => all = false,
                Err(error) => {
                    tracing::warn!(image = digest, %error, "an image cannot be removed");
                    all = false;
                }
            }
        }
        all
    }
}
