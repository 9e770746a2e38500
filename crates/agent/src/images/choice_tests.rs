//! The choice keeps its promises for any images and any rules.

use proptest::prelude::*;

use super::*;

fn image(digest: &str, last_used: Millis, layers: &[(&str, u64)]) -> ImageView {
    let layers = layers.iter().map(|(id, bytes)| ImageLayer { id: (*id).to_owned(), bytes: *bytes }).collect();
    ImageView { digest: digest.to_owned(), layers, pulled_at: last_used, last_used, is_foreign: false, is_busy: false, is_kept: false }
}

fn digests(removals: &[Removal]) -> Vec<&str> {
    removals.iter().map(|removal| removal.digest.as_str()).collect()
}

const RULES: Rules = Rules { minimum_age: 100, foreign_minimum_age: None, most: 5 };

#[test]
fn the_least_recently_used_go_first_and_no_more_than_so_many() {
    let images: Vec<ImageView> = (0..8).map(|number| image(&format!("i{number}"), 80 - number * 10, &[])).collect();
    assert_eq!(digests(&due(&images, RULES, 1000)), ["i7", "i6", "i5", "i4", "i3"]);
    assert_eq!(digests(&due(&images, RULES, 115)), ["i7"], "older than the minimum age, not as old");
    assert!(due(&images, Rules { most: 0, ..RULES }, 1000).is_empty());
}

#[test]
fn what_no_task_brought_goes_last_and_only_when_asked_for() {
    let mut small = image("small", 0, &[("a", 1)]);
    let mut large = image("large", 0, &[("b", 2)]);
    (small.is_foreign, large.is_foreign) = (true, true);
    let images = [large, small, image("ours", 500, &[])];
    assert_eq!(digests(&due(&images, RULES, 1000)), ["ours"]);
    let rules = Rules { foreign_minimum_age: Some(100), ..RULES };
    assert_eq!(digests(&due(&images, rules, 1000)), ["ours", "small", "large"]);
    assert_eq!(digests(&due(&images, Rules { most: 2, ..rules }, 1000)), ["ours", "small"]);
}

#[test]
fn layers_that_are_shared_count_once_and_go_with_the_last() {
    let images = [image("a", 1, &[("base", 100), ("a", 10)]), image("b", 2, &[("base", 100), ("b", 20)]), image("c", 3, &[("c", 30)])];
    assert_eq!(used(&images), 160);
    assert_eq!(digests(&over_budget(&images, 160)), Vec::<&str>::new());
    assert_eq!(digests(&over_budget(&images, 150)), ["a"]);
    assert_eq!(digests(&over_budget(&images, 149)), ["a", "b"]);
    assert_eq!(room(&images, 130).map(|removals| removals.len()), Some(2));
    assert_eq!(room(&images, 161), None, "nothing goes in vain");
}

fn any_image() -> impl Strategy<Value = ImageView> {
    let layers = proptest::collection::vec((0..12u8, 1..1000u64), 0..4);
    (0..10_000u32, layers, 0..1000i64, 0..1000i64, any::<[bool; 3]>()).prop_map(|(name, layers, pulled_at, last_used, flags)| {
        let mut layers: Vec<ImageLayer> =
            // A layer's size is its own, whatever image has it.
            layers.into_iter().map(|(id, _)| ImageLayer { id: id.to_string(), bytes: u64::from(id) * 37 + 5 }).collect();
        layers.sort_by(|a, b| a.id.cmp(&b.id));
        layers.dedup();
        let [is_foreign, is_busy, is_kept] = flags;
        ImageView { digest: format!("i{name}"), layers, pulled_at, last_used, is_foreign, is_busy, is_kept }
    })
}

fn any_images() -> impl Strategy<Value = Vec<ImageView>> {
    proptest::collection::vec(any_image(), 0..20).prop_map(|mut images| {
        images.sort_by(|a, b| a.digest.cmp(&b.digest));
        images.dedup_by(|a, b| a.digest == b.digest);
        images
    })
}

fn without(images: &[ImageView], removals: &[Removal]) -> Vec<ImageView> {
    images.iter().filter(|image| !removals.iter().any(|removal| removal.digest == image.digest)).cloned().collect()
}

/// What no choice may ever do.
fn audit(images: &[ImageView], removals: &[Removal]) {
    for (index, removal) in removals.iter().enumerate() {
        let gone = images.iter().find(|image| image.digest == removal.digest).expect("only what is there goes");
        assert!(!gone.is_busy, "what runs, or is about to, or is being brought stays: {gone:?}");
        assert!(!gone.is_kept, "what is to be kept stays: {gone:?}");
        assert!(!gone.is_foreign || removal.reason == Reason::Untracked, "{gone:?}");
        assert!(!removals[..index].iter().any(|other| other.digest == removal.digest), "twice");
    }
    // Of what tasks brought, nothing that was used longer ago is passed over.
    let order = |digest: &str| images.iter().find(|image| image.digest == digest).map(|image| image.last_used);
    let ours: Vec<_> =
        removals.iter().filter(|removal| removal.reason != Reason::Untracked).map(|removal| order(&removal.digest)).collect();
    assert!(ours.is_sorted());
}

proptest! {
    #[test]
    fn a_cycle_removes_only_what_it_may(
        images in any_images(), minimum_age in 0..500i64, foreign in proptest::option::of(0..500i64), most in 0..8usize, now in 0..2000i64,
    ) {
        let rules = Rules { minimum_age, foreign_minimum_age: foreign, most };
        let removals = due(&images, rules, now);
        audit(&images, &removals);
        prop_assert!(removals.len() <= most);
        for removal in &removals {
            let gone = images.iter().find(|image| image.digest == removal.digest).unwrap();
            let age = if gone.is_foreign { foreign.expect("foreign images stay unless asked for") } else { minimum_age };
            prop_assert!(now - gone.pulled_at > age);
        }
        // Whoever is left and could have gone was kept by the number alone.
        if removals.len() < most {
            prop_assert!(due(&without(&images, &removals), rules, now).is_empty());
        }
    }

    #[test]
    fn the_budget_takes_no_more_than_it_must(images in any_images(), budget in 0..2000u64) {
        let removals = over_budget(&images, budget);
        audit(&images, &removals);
        let left = without(&images, &removals);
        let may_go = left.iter().any(|image| !image.is_busy && !image.is_kept && !image.is_foreign);
        prop_assert!(used(&left) <= budget || !may_go);
        if let Some((_, but_the_last)) = removals.split_last() {
            prop_assert!(used(&without(&images, but_the_last)) > budget, "the last one was needed");
        }
    }

    #[test]
    fn room_is_made_or_nothing_goes(images in any_images(), needed in 0..2000u64) {
        let bytes = |images: &[ImageView]| Layers::of(images).bytes();
        match room(&images, needed) {
            Some(removals) => {
                audit(&images, &removals);
                prop_assert!(bytes(&images) - bytes(&without(&images, &removals)) >= needed);
            }
            None => {
                let all: Vec<Removal> = oldest_first(&images)
                    .into_iter()
                    .map(|image| Removal { digest: image.digest.clone(), reason: Reason::Room { needed } })
                    .collect();
                prop_assert!(bytes(&images) - bytes(&without(&images, &all)) < needed);
            }
        }
    }
}
