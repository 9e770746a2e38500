//! Which images go. Pure: what is here in, removals with their reasons out. What a container has, what a pull is bringing and what is to be
//! kept is never among them.
//!
//! The rules of a cycle are those of amazon-ecs-agent (`agent/engine/docker_image_manager.go`); budget and room are Berth's own.

use std::collections::HashMap;

use berth_runtime::port::ImageLayer;

use crate::engine::Millis;

/// An image as the choice sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageView {
    /// What the runtime calls it.
    pub digest: String,
    /// What it takes on the disk.
    pub layers: Vec<ImageLayer>,
    /// When it came here; of an image that no task brought, when it was built.
    pub pulled_at: Millis,
    /// When a task last wanted or had it.
    pub last_used: Millis,
    /// No task of this agent brought it.
    pub is_foreign: bool,
    /// A container has it, or is about to, or a pull may be bringing it.
    pub is_busy: bool,
    /// It is not to be removed, whoever asks.
    pub is_kept: bool,
}

impl ImageView {
    fn may_go(&self) -> bool {
        !self.is_busy && !self.is_kept && !self.is_foreign
    }
}

/// The rules of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long an image stays at least after its pull.
    pub minimum_age: Millis,
    /// The same for images that no task brought; `None`: they stay.
    pub foreign_minimum_age: Option<Millis>,
    /// How many may go.
    pub most: usize,
}

/// Why an image goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing has it, and it is old enough.
    Unused,
    /// No task brought it, and such images are to go.
    Untracked,
    /// All images together take more than they may.
    Budget {
        /// Bytes they take.
        used: u64,
        /// Bytes they may.
        budget: u64,
    },
    /// An image is coming that does not fit otherwise.
    Room {
        /// Bytes it needs.
        needed: u64,
    },
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unused => f.write_str("nothing has used it for long enough"),
            Self::Untracked => f.write_str("no task brought it"),
            Self::Budget { used, budget } => write!(f, "images take {used} bytes and may take {budget}"),
            Self::Room { needed } => write!(f, "a pull needs {needed} bytes more than are free"),
        }
    }
}

/// An image that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Which.
    pub digest: String,
    /// Why.
    pub reason: Reason,
}

/// How often each layer is there.
struct Layers<'a>(HashMap<&'a str, (usize, u64)>);

impl<'a> Layers<'a> {
    fn of(images: impl IntoIterator<Item = &'a ImageView>) -> Self {
        let mut layers = HashMap::new();
        for layer in images.into_iter().flat_map(|image| &image.layers) {
            layers.entry(layer.id.as_str()).or_insert((0, layer.bytes)).0 += 1;
        }
        Self(layers)
    }

    fn bytes(&self) -> u64 {
        self.0.values().filter(|(count, _)| *count > 0).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes that go with an image: those of layers that no other image has.
    fn take(&mut self, image: &ImageView) -> u64 {
        let mut freed = 0;
        for layer in &image.layers {
            if let Some((count, bytes)) = self.0.get_mut(layer.id.as_str())
                && *count > 0
            {
                *count -= 1;
                freed += if *count == 0 { *bytes } else { 0 };
            }
        }
        freed
    }
}

/// Bytes that the images which tasks brought take together; a layer that several have counts once.
#[must_use]
pub fn used(images: &[ImageView]) -> u64 {
    Layers::of(images.iter().filter(|image| !image.is_foreign)).bytes()
}

/// Those that may go, the one that was not used for longest first.
fn oldest_first(images: &[ImageView]) -> Vec<&ImageView> {
    let mut candidates: Vec<&ImageView> = images.iter().filter(|image| image.may_go()).collect();
    candidates.sort_by(|a, b| (a.last_used, &a.digest).cmp(&(b.last_used, &b.digest)));
    candidates
}

/// What goes in a cycle: first what tasks brought and nothing uses, the least recently used first; then, where that is wanted, what no
/// task brought, the smallest first.
#[must_use]
pub fn due(images: &[ImageView], rules: Rules, now: Millis) -> Vec<Removal> {
    let is_older = |image: &ImageView, age: Millis| now.saturating_sub(image.pulled_at) > age;
    let removal = |reason: Reason| move |image: &ImageView| Removal { digest: image.digest.clone(), reason };
    let ours = oldest_first(images).into_iter().filter(|image| is_older(image, rules.minimum_age)).map(removal(Reason::Unused));
    let mut foreign: Vec<&ImageView> = match rules.foreign_minimum_age {
        Some(age) => {
            let may_go = |image: &&ImageView| image.is_foreign && !image.is_busy && !image.is_kept && is_older(image, age);
            images.iter().filter(may_go).collect()
        }
        None => Vec::new(),
    };
    let bytes = |image: &ImageView| image.layers.iter().map(|layer| layer.bytes).sum::<u64>();
    foreign.sort_by(|a, b| (bytes(a), &a.digest).cmp(&(bytes(b), &b.digest)));
    ours.chain(foreign.into_iter().map(removal(Reason::Untracked))).take(rules.most).collect()
}

/// What goes at once because images take more than `budget` bytes, whatever their age: until they do not, or nothing more may go.
#[must_use]
pub fn over_budget(images: &[ImageView], budget: u64) -> Vec<Removal> {
    let mut layers = Layers::of(images.iter().filter(|image| !image.is_foreign));
    let used = layers.bytes();
    let mut left = used;
    let mut removals = Vec::new();
    for image in oldest_first(images) {
        if left <= budget {
            break;
        }
        left = left.saturating_sub(layers.take(image));
        removals.push(Removal { digest: image.digest.clone(), reason: Reason::Budget { used, budget } });
    }
    removals
}

/// What goes so that at least `needed` bytes are freed. `None`: that many cannot be, so nothing is to go in vain.
#[must_use]
pub fn room(images: &[ImageView], needed: u64) -> Option<Vec<Removal>> {
    // Foreign images count as holders of their layers: what they keep is not freed.
    let mut layers = Layers::of(images);
    let mut freed = 0;
    let mut removals = Vec::new();
    for image in oldest_first(images) {
        if freed >= needed {
            break;
        }
        freed = freed.saturating_add(layers.take(image));
        removals.push(Removal { digest: image.digest.clone(), reason: Reason::Room { needed } });
    }
    (freed >= needed).then_some(removals)
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
