//! What removal takes from the disk and what it leaves; unpacking needs root.

use serde_json::json;

use super::*;
use crate::conformance::fixture::{Layer as Tar, Packing, TestRegistry};

struct World {
    folder: tempfile::TempDir,
    registry: TestRegistry,
    images: Images,
}

impl World {
    /// Two images that share their lower layer. `None` without root.
    async fn new() -> Option<(World, [String; 2])> {
        // SAFETY: no memory arguments.
        if unsafe { libc::geteuid() } != 0 {
            println!("SKIPPED (needs root): removing images: unpacking");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let registry = TestRegistry::start().await;
        let base = Tar::default().file("base", 0o644, "base").finish();
        for name in ["one", "two"] {
            let top = Tar::default().file(name, 0o644, name).finish();
            registry.put_image(name, "1", &[(base.clone(), Packing::Gzip), (top, Packing::Gzip)], json!({}));
        }
        let images = Images::open(folder.path(), None, super::PULL_INACTIVITY).unwrap();
        let world = World { folder, registry, images };
        let digests = [world.pull("one").await, world.pull("two").await];
        Some((world, digests))
    }

    async fn pull(&self, name: &str) -> String {
        let reference = format!("{}/{name}:1", self.registry.host());
        let request = PullRequest { reference, behavior: PullBehavior::Default, credentials: None, login: None };
        self.images.pull(request).await.unwrap().digest
    }

    /// How many layers, links, references and temporary files there are.
    fn counts(&self) -> [usize; 4] {
        ["layers", "links", "references", "tmp"].map(|name| std::fs::read_dir(self.folder.path().join(name)).unwrap().count())
    }
}

#[tokio::test]
async fn layers_go_with_the_last_image_that_has_them() {
    let Some((world, [one, two])) = World::new().await else { return };
    assert_eq!(world.counts(), [3, 3, 2, 0]);
    world.images.remove(&one, || false).unwrap();
    assert_eq!(world.counts(), [2, 2, 1, 0]);
    assert_eq!(world.images.layers(&world.images.hold(&two).unwrap()).unwrap().1.len(), 2);
    world.images.remove(&two, || false).unwrap();
    assert_eq!(world.counts(), [0, 0, 0, 0]);
    assert_eq!(world.pull("one").await, one);
    assert_eq!(world.counts(), [2, 2, 1, 0]);
}

#[tokio::test]
async fn what_is_held_or_used_stays_as_it_is() {
    let Some((world, [one, _])) = World::new().await else { return };
    let held = world.images.hold(&one).unwrap();
    assert!(matches!(world.images.remove(&one, || false), Err(RemoveImageError::InUse(_))));
    drop(held);
    assert!(matches!(world.images.remove(&one, || true), Err(RemoveImageError::InUse(_))));
    assert_eq!(world.counts(), [3, 3, 2, 0]);
    world.images.remove(&one, || false).unwrap();
    assert!(world.images.hold(&one).is_none());
}

#[tokio::test]
async fn layers_that_a_pull_is_at_work_on_are_left_to_it() {
    let Some((world, [one, two])) = World::new().await else { return };
    let shared = world.images.hold(&one).unwrap().diff_ids[0].clone();
    let turn = world.images.turns.wait(&shared).await;
    for digest in [&one, &two] {
        world.images.remove(digest, || false).unwrap();
    }
    assert_eq!(world.counts(), [1, 1, 0, 0]);
    drop(turn);
    // Had that pull failed: the next start takes it.
    let World { folder, registry, images } = world;
    drop(images);
    let world = World { images: Images::open(folder.path(), None, super::PULL_INACTIVITY).unwrap(), folder, registry };
    assert_eq!(world.counts(), [0, 0, 0, 0]);
}

#[tokio::test]
async fn while_a_record_cannot_be_read_no_layer_is_nobodys() {
    let Some((world, [one, two])) = World::new().await else { return };
    let record = world.folder.path().join("images").join(two.trim_start_matches("sha256:"));
    std::fs::write(&record, "{").unwrap();
    let error = world.images.remove(&one, || false).unwrap_err().to_string();
    assert!(error.contains(record.to_str().unwrap()), "{error}");
    assert_eq!(world.counts()[0], 3);
}
