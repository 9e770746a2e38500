//! A clock that somebody sets while tasks run.

use std::sync::atomic::{AtomicI64, Ordering};

use berth_acs::messages::{ContainerConfig, DockerConfig, HealthCheck, HealthStatus, HostConfig};

use super::*;
use crate::telemetry::health_of;

const DAY: i64 = 86_400_000;

/// A world whose clock can be set, beginning on a day that leaves room on both sides.
fn steered() -> (World, Arc<AtomicI64>) {
    let start = Arc::new(AtomicI64::new(100 * DAY));
    (World::with(Clock::Steered(tokio::time::Instant::now(), start.clone())), start)
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_its_time_whatever_the_clock_does_meanwhile() {
    for by in [-DAY, DAY] {
        let (mut world, start) = steered();
        let deaf = task("t1", &[("main", "deaf")]);
        world.take(&deaf).await;
        world.report().await;
        world.take(&stopped(&deaf)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        start.fetch_add(by, Ordering::Relaxed);
        // Something else wakes the task, and it looks at the clock.
        world.take(&stopped(&deaf)).await;
        let asked = tokio::time::Instant::now();
        assert_eq!(world.word().await, "STOPPED main=STOPPED(137)", "{by}");
        assert_eq!(asked.elapsed().as_secs(), 20, "its stopTimeout is 30 s, of which 10 had passed; {by}");
    }
}

#[tokio::test(start_paused = true)]
async fn health_checks_go_on_at_their_interval() {
    for by in [-DAY, DAY] {
        let (mut world, start) = steered();
        let mut checked = task("t1", &[("main", "app")]);
        let test = vec!["CMD".to_owned(), "true".to_owned()];
        let healthcheck = Some(HealthCheck { test, interval: 10_000_000_000, timeout: 3_000_000_000, retries: 2, start_period: 0 });
        let config = ContainerConfig { healthcheck, ..Default::default() };
        checked.containers[0].docker_config = Some(DockerConfig::render(&config, &HostConfig::default()));
        world.take(&checked).await;
        world.report().await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let before = world.runtime.called("exec");
        start.fetch_add(by, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.runtime.called("exec") - before, 6, "{by}");
        let health = health_of(&world.tasks.records()[0].plan, &world.tasks.records()[0].state.lock());
        assert!(health.is_some_and(|task| task.containers[0].health_status == HealthStatus::Healthy), "{by}");
    }
}
