//! What the book of images says after pulls, removals and restarts.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn seen(digest: &str) -> ImageObservation {
    let arrived_at = UNIX_EPOCH + Duration::from_secs(1);
    ImageObservation { digest: digest.to_owned(), layers: Vec::new(), arrived_at, is_used: false, foreign_names: None }
}

fn book() -> Book {
    Book::open(Ledger::in_memory()).unwrap()
}

fn view<'a>(views: &'a [ImageView], digest: &str) -> &'a ImageView {
    views.iter().find(|view| view.digest == digest).unwrap()
}

#[test]
fn records_survive_the_agent() {
    let ledger = Ledger::in_memory();
    let book = Book::open(ledger.clone()).unwrap();
    assert_eq!(book.begin("app").brought("sha256:1", None, 5_000), Brought::New);
    assert_eq!(book.begin("app:latest").brought("sha256:1", None, 500_000), Brought::Known);
    let record = ImageRecord { references: ["app@latest".to_owned()].into(), pulled_at: 5_000, last_used: 500_000 };
    let book = Book::open(ledger.clone()).unwrap();
    assert_eq!(book.images(), [("sha256:1".to_owned(), record)].into());
    book.remove("sha256:1").unwrap().is_gone();
    assert!(Book::open(ledger).unwrap().images().is_empty());
}

#[test]
fn a_reference_leads_to_the_newest_image() {
    let book = book();
    for digest in ["sha256:1", "sha256:2"] {
        book.begin("app:1").brought(digest, None, 1);
    }
    let views = book.observe(vec![seen("sha256:1"), seen("sha256:2")], 2, |name| name == "app@1");
    assert!(!view(&views, "sha256:1").is_kept && view(&views, "sha256:2").is_kept);
}

#[test]
fn what_a_container_is_about_to_be_made_of_is_held_until_it_is_let_go() {
    let book = book();
    let holder = ContainerId("c".to_owned());
    book.begin("app").brought("sha256:1", Some(&holder), 1);
    assert!(view(&book.observe(vec![seen("sha256:1")], 2, |_| false), "sha256:1").is_busy);
    assert!(book.remove("sha256:1").is_none());
    book.let_go(&holder);
    assert!(!view(&book.observe(vec![seen("sha256:1")], 3, |_| false), "sha256:1").is_busy);
    assert!(book.remove("sha256:1").is_some());
}

#[test]
fn an_image_whose_reference_is_being_pulled_stays() {
    let book = book();
    book.begin("app").brought("sha256:1", None, 1);
    let pull = book.begin("app:latest");
    assert!(book.remove("sha256:1").is_none());
    drop(pull);
    assert!(book.remove("sha256:1").is_some());
}

#[test]
fn a_pull_that_a_removal_overtook_is_made_again() {
    let book = book();
    book.begin("app").brought("sha256:1", None, 1);
    // By another name: nobody knows yet that it leads to the same image.
    let during = book.begin("alias");
    let removing = book.remove("sha256:1").unwrap();
    assert!(book.remove("sha256:1").is_none(), "one removal is enough");
    assert_eq!(during.brought("sha256:1", None, 2), Brought::Gone);
    let after = book.begin("alias");
    removing.is_gone();
    assert_eq!(after.brought("sha256:1", None, 3), Brought::Gone, "it may have been looked at before it went");
    assert_eq!(book.begin("alias").brought("sha256:1", None, 4), Brought::New);
    assert!(book.pages.lock().removed.is_empty(), "nothing is remembered for nobody");
}

#[test]
fn what_is_gone_is_forgotten_but_not_what_came_after_the_look() {
    let book = book();
    book.begin("old").brought("sha256:1", None, 1);
    book.begin("new").brought("sha256:2", None, 10);
    assert!(book.observe(Vec::new(), 5, |_| false).is_empty());
    assert_eq!(book.images().into_keys().collect::<Vec<_>>(), ["sha256:2"]);
}

#[test]
fn what_is_in_use_was_used_now_and_what_nobody_recorded_has_the_machines_date() {
    let book = book();
    book.begin("app").brought("sha256:1", None, 1);
    let views = book.observe(vec![ImageObservation { is_used: true, ..seen("sha256:1") }, seen("sha256:2")], 90_000, |_| false);
    assert_eq!((view(&views, "sha256:1").last_used, view(&views, "sha256:1").pulled_at), (90_000, 1));
    assert_eq!((view(&views, "sha256:2").last_used, view(&views, "sha256:2").pulled_at), (1_000, 1_000));
    book.touch("app", 95_000);
    assert_eq!(book.images()["sha256:1"].last_used, 95_000);
}
