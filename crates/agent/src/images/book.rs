//! What the agent remembers of images: by which references tasks asked for each, when it came, when it was last used; and, in memory
//! alone, who is about to make a container of it. Decides nothing.
//!
//! An image is brought by one call and a container made of it by another. Between the two nothing on the machine says that it is wanted:
//! that is what holds are for. A pull does not wait for a removal, nor a removal for a pull; one that was overtaken is told to begin anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;

use berth_runtime::images::reference::Reference;
use berth_runtime::port::{ContainerId, ImageObservation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::choice::ImageView;
use crate::clock::unix_millis;
use crate::engine::Millis;
use crate::ledger::{Ledger, LedgerError};

/// A change of nothing but the time of last use is written down when it is this much: the order of clean-up needs no more.
const WORTH_WRITING: Millis = 60_000;

/// What is kept of an image that a task, or the list of images to have here, brought.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRecord {
    /// What led to it when it was last asked for, in one spelling.
    pub references: BTreeSet<String>,
    /// When it came here.
    pub pulled_at: Millis,
    /// When a task last wanted or had it.
    pub last_used: Millis,
}

#[derive(Default)]
struct Pages {
    images: BTreeMap<String, ImageRecord>,
    /// As they were last written.
    written: BTreeMap<String, ImageRecord>,
    holds: HashMap<ContainerId, String>,
    /// Pulls underway: since when, and of which reference.
    pulls: BTreeMap<u64, String>,
    removing: HashSet<String>,
    /// Images that went while pulls were underway, and when.
    removed: Vec<(u64, String)>,
    next: u64,
}

/// The records of one agent.
pub struct Book {
    ledger: Ledger,
    pages: Mutex<Pages>,
    /// A removal is over.
    removed: Notify,
}

/// One spelling for all references that mean the same.
#[must_use]
pub fn spelling(reference: &str) -> String {
    Reference::parse(reference).map_or_else(|_| reference.to_owned(), |reference| reference.key())
}

/// A pull underway.
pub struct Pulling<'a> {
    book: &'a Book,
    number: u64,
    reference: String,
}

/// An image being removed; no pull counts on it.
pub struct Removing<'a> {
    book: &'a Book,
    digest: String,
}

impl Book {
    /// Opens the records of an earlier life.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(ledger: Ledger) -> Result<Self, LedgerError> {
        let images = ledger.images()?;
        let pages = Pages { written: images.clone(), images, ..Default::default() };
        Ok(Self { ledger, pages: Mutex::new(pages), removed: Notify::new() })
    }

    /// A pull begins.
    pub fn begin(&self, reference: &str) -> Pulling<'_> {
        let mut pages = self.pages.lock();
        let number = pages.tick();
        let reference = spelling(reference);
        pages.pulls.insert(number, reference.clone());
        Pulling { book: self, number, reference }
    }

    /// A container that was to be made of an image has been, or will not be.
    pub fn let_go(&self, container: &ContainerId) {
        self.pages.lock().holds.remove(container);
    }

    /// The image of a reference was in use until now.
    pub fn touch(&self, reference: &str, now: Millis) {
        let reference = spelling(reference);
        let mut pages = self.pages.lock();
        for record in pages.images.values_mut().filter(|record| record.references.contains(&reference)) {
            record.last_used = now;
        }
        self.write(&mut pages);
    }

    /// The removal of an image begins. `None`: somebody is about to make a container of it, or is removing it.
    pub fn remove(&self, digest: &str) -> Option<Removing<'_>> {
        let mut pages = self.pages.lock();
        if pages.is_wanted(digest) || !pages.removing.insert(digest.to_owned()) {
            return None;
        }
        Some(Removing { book: self, digest: digest.to_owned() })
    }

    /// Waits until nobody is removing an image.
    pub async fn until_removed(&self, digest: &str) {
        loop {
            let mut removed = pin!(self.removed.notified());
            removed.as_mut().enable();
            if !self.pages.lock().removing.contains(digest) {
                return;
            }
            removed.await;
        }
    }

    /// Takes in what is on the machine, looked at at `looked_at` or later, and gives the choice's view of it. `is_kept` is asked of every
    /// name of an image.
    pub fn observe(&self, seen: Vec<ImageObservation>, looked_at: Millis, is_kept: impl Fn(&str) -> bool) -> Vec<ImageView> {
        let mut pages = self.pages.lock();
        let here: HashSet<&str> = seen.iter().map(|image| image.digest.as_str()).collect();
        // One that came after the look is missing from it.
        pages.images.retain(|digest, record| here.contains(digest.as_str()) || record.last_used >= looked_at);
        let view = |image: ImageObservation| {
            let arrived_at = unix_millis(image.arrived_at);
            if let Some(names) = image.foreign_names {
                return ImageView {
                    digest: image.digest,
                    layers: image.layers,
                    pulled_at: arrived_at,
                    last_used: arrived_at,
                    is_foreign: true,
                    is_busy: image.is_used,
                    is_kept: names.iter().any(|name| is_kept(&spelling(name))),
                };
            }
            let unknown = || ImageRecord { references: BTreeSet::new(), pulled_at: arrived_at, last_used: arrived_at };
            let record = pages.images.entry(image.digest.clone()).or_insert_with(unknown);
            if image.is_used {
                record.last_used = record.last_used.max(looked_at);
            }
            let (pulled_at, last_used) = (record.pulled_at, record.last_used);
            let is_kept = record.references.iter().any(|reference| is_kept(reference));
            let is_busy = image.is_used || pages.is_wanted(&image.digest);
            ImageView { digest: image.digest, layers: image.layers, pulled_at, last_used, is_foreign: false, is_busy, is_kept }
        };
        let views = seen.into_iter().map(view).collect();
        self.write(&mut pages);
        views
    }

    /// The records, for whoever wants to look.
    #[must_use]
    pub fn images(&self) -> BTreeMap<String, ImageRecord> {
        self.pages.lock().images.clone()
    }

    fn write(&self, pages: &mut Pages) {
        let is_like = |(a, b): (&ImageRecord, &ImageRecord)| {
            a.references == b.references && a.pulled_at == b.pulled_at && a.last_used.abs_diff(b.last_used) < WORTH_WRITING.unsigned_abs()
        };
        let same = pages.images.keys().eq(pages.written.keys()) && pages.images.values().zip(pages.written.values()).all(is_like);
        if same {
            return;
        }
        match self.ledger.keep_images(&pages.images) {
            Ok(()) => pages.written = pages.images.clone(),
            // The machine's own dates do for clean-up; a full disk must not keep it from being emptied.
            Err(error) => tracing::warn!(%error, "the records of images cannot be kept"),
        }
    }
}

impl Pages {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether a container is about to be made of an image, or a pull may be about to say that it is here.
    fn is_wanted(&self, digest: &str) -> bool {
        let underway = || {
            let record = self.images.get(digest)?;
            self.pulls.values().any(|reference| record.references.contains(reference)).then_some(())
        };
        self.holds.values().any(|held| held == digest) || underway().is_some()
    }
}

impl Pulling<'_> {
    /// The pull has brought an image; `holder` is about to make a container of it. `false`: the image is being removed or was, so the
    /// pull has to be made again. `true` also says whether the image is new to the agent.
    pub fn brought(self, digest: &str, holder: Option<&ContainerId>, now: Millis) -> Brought {
        let mut pages = self.book.pages.lock();
        let overtaken = |(at, removed): &(u64, String)| *at > self.number && removed == digest;
        if pages.removing.contains(digest) || pages.removed.iter().any(overtaken) {
            return Brought::Gone;
        }
        if let Some(holder) = holder {
            pages.holds.insert(holder.clone(), digest.to_owned());
        }
        // One without references was seen on the machine before its pull had come to its end.
        let is_new = pages.images.get(digest).is_none_or(|record| record.references.is_empty());
        for (other, record) in &mut pages.images {
            // A reference leads to one image: the newest.
            if other != digest {
                record.references.remove(&self.reference);
            }
        }
        let fresh = || ImageRecord { references: BTreeSet::new(), pulled_at: now, last_used: now };
        let record = pages.images.entry(digest.to_owned()).or_insert_with(fresh);
        record.references.insert(self.reference.clone());
        record.last_used = now;
        self.book.write(&mut pages);
        if is_new { Brought::New } else { Brought::Known }
    }
}

/// What became of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// An image that was not here before.
    New,
    /// One that was.
    Known,
    /// One that was removed meanwhile.
    Gone,
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        let mut pages = self.book.pages.lock();
        pages.pulls.remove(&self.number);
        let oldest = pages.pulls.keys().next().copied();
        pages.removed.retain(|(at, _)| oldest.is_some_and(|oldest| *at > oldest));
    }
}

impl Removing<'_> {
    /// The image is gone.
    pub fn is_gone(self) {
        let mut pages = self.book.pages.lock();
        pages.images.remove(&self.digest);
        self.book.write(&mut pages);
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        let mut pages = self.book.pages.lock();
        pages.removing.remove(&self.digest);
        let at = pages.tick();
        // Also when it failed: nobody knows how far it came.
        if !pages.pulls.is_empty() {
            pages.removed.push((at, self.digest.clone()));
        }
        drop(pages);
        self.book.removed.notify_waiters();
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
