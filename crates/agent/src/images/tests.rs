//! Pulls and clean-up over a runtime in memory.

use std::time::Duration;

use berth_runtime::port::PullBehavior;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::images::Budget;
use crate::fakes::FakeRuntime;

struct World {
    runtime: Arc<FakeRuntime>,
    ledger: Ledger,
    images: Arc<Images>,
}

impl World {
    fn new(set: impl FnOnce(&mut AgentConfig)) -> Self {
        let mut config = AgentConfig::default();
        set(&mut config);
        let runtime = Arc::new(FakeRuntime::default());
        let clock = Clock::Tokio(tokio::time::Instant::now(), 10_000_000);
        let ledger = Ledger::in_memory();
        let images = Images::open(&config, runtime.clone(), ledger.clone(), clock).unwrap();
        Self { runtime, ledger, images: Arc::new(images) }
    }

    async fn pull(&self, reference: &str) -> Result<String, PullError> {
        self.pull_for(reference, None).await
    }

    async fn pull_for(&self, reference: &str, holder: Option<&ContainerId>) -> Result<String, PullError> {
        let behavior = PullBehavior::Default;
        let request = PullRequest { reference: reference.to_owned(), behavior, credentials: None, login: None };
        self.images.pull(request, holder).await.map(|image| image.digest)
    }

    fn here(&self) -> Vec<String> {
        self.runtime.images.lock().keys().map(|digest| digest.trim_start_matches("sha256:").to_owned()).collect()
    }
}

fn holder() -> ContainerId {
    ContainerId("t1-0".to_owned())
}

#[tokio::test(start_paused = true)]
async fn cycles_take_what_was_not_used_and_leave_what_is_held() {
    let world = World::new(|config| config.images.excluded = vec!["kept:latest".to_owned()]);
    let stop = CancellationToken::new();
    let cleaning = tokio::spawn(world.images.clone().clean_up(stop.clone()));
    for name in ["old", "kept"] {
        world.pull(name).await.unwrap();
    }
    world.pull_for("held", Some(&holder())).await.unwrap();
    // The first cycle comes when they are half an hour old, the third when they are old enough.
    tokio::time::sleep(Duration::from_secs(3700)).await;
    assert_eq!(world.here(), ["held", "kept", "old"]);
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!(world.here(), ["held", "kept"]);
    world.images.let_go(&holder());
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!(world.here(), ["kept"]);
    stop.cancel();
    cleaning.await.unwrap();
    assert_eq!(world.ledger.images().unwrap().into_keys().collect::<Vec<_>>(), ["sha256:kept"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_where_that_is_said_or_where_what_is_here_may_be_nowhere_else() {
    for set in [(|config| config.images.is_cleaned_up = false) as fn(&mut AgentConfig), |config| {
        config.pull_behavior = PullBehavior::PreferCached;
    }] {
        let world = World::new(|config| {
            config.images.budget = Budget::Bytes(1);
            set(config);
        });
        *world.runtime.room.lock() = Some(10);
        world.pull("a.size=6").await.unwrap();
        let refused = world.pull("b.size=6").await.unwrap_err();
        assert!(matches!(refused, PullError::NoSpace { needed: 6, free: 4 }), "{refused}");
        world.images.clone().clean_up(CancellationToken::new()).await;
        assert_eq!(world.here(), ["a.size=6"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_kept_at_once() {
    let world = World::new(|config| config.images.budget = Budget::Percent(50));
    *world.runtime.room.lock() = Some(200);
    let stop = CancellationToken::new();
    tokio::spawn(world.images.clone().clean_up(stop.clone()));
    for name in ["a.size=40", "b.size=40", "c.size=40"] {
        world.pull(name).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.here(), ["b.size=40", "c.size=40"], "long before they are an hour old");
    world.pull("b.size=40").await.unwrap();
    world.pull("d.size=40").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.here(), ["b.size=40", "d.size=40"], "by last use, not by age");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_does_not_fit_makes_room_or_says_why_not() {
    let world = World::new(|_| {});
    *world.runtime.room.lock() = Some(100);
    world.pull("a.size=60").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.pull_for("b.size=30", Some(&holder())).await.unwrap();
    assert_eq!(world.pull("c.size=50").await.unwrap(), "sha256:c.size=50");
    assert_eq!(world.here(), ["b.size=30", "c.size=50"]);
    let error = world.pull("d.size=80").await.unwrap_err();
    assert_eq!(error.to_string(), "no space left for the image: it needs at least 80 bytes more, and 20 bytes are free");
    assert_eq!(world.here(), ["b.size=30", "c.size=50"], "nothing goes in vain");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_goes_while_it_is_asked_for_is_asked_for_again() {
    let world = World::new(|config| config.images.budget = Budget::Bytes(1));
    world.pull("app").await.unwrap();
    let removing = world.images.book.remove("sha256:app").unwrap();
    let again = tokio::spawn({
        let images = world.images.clone();
        async move {
            let request = PullRequest { reference: "app".to_owned(), behavior: PullBehavior::Default, credentials: None, login: None };
            images.pull(request, Some(&holder())).await
        }
    });
    // It waits for the removal's end, however often it could have asked by then.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!again.is_finished());
    world.runtime.remove_image("sha256:app").await.unwrap();
    removing.is_gone();
    again.await.unwrap().unwrap();
    assert_eq!(world.here(), ["app"]);
    assert!(world.images.book.remove("sha256:app").is_none(), "it is held now");
}
