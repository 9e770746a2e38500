//! Health checks of driven tasks, and who waits for them.

use berth_acs::messages::{ContainerConfig, DockerConfig, HealthCheck, HealthStatus, HostConfig};

use super::*;
use crate::telemetry::health_of;

/// The container gets a check every ten seconds that two failures in a row make unhealthy.
fn check(task: &mut acs::Task, index: usize) {
    let second = 1_000_000_000;
    let test = vec!["CMD-SHELL".to_owned(), "is it well".to_owned()];
    let healthcheck = Some(HealthCheck { test, interval: 10 * second, timeout: 3 * second, retries: 2, start_period: 0 });
    let config = ContainerConfig { healthcheck, ..Default::default() };
    task.containers[index].docker_config = Some(DockerConfig::render(&config, &HostConfig::default()));
}

impl World {
    fn health(&self) -> Vec<HealthStatus> {
        let records = self.tasks.records();
        let health = records.iter().filter_map(|record| health_of(&record.plan, &record.state.lock()));
        health.flat_map(|task| task.containers.into_iter().map(|container| container.health_status)).collect()
    }

    /// The health after the next change of it.
    async fn health_changed(&self) -> Vec<HealthStatus> {
        tokio::time::timeout(Duration::from_secs(3600), self.tasks.health_changed()).await.expect("nothing changed");
        self.health()
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_is_told_and_nobody_is_stopped_for_it() {
    let mut world = World::new();
    let mut task = task("t1", &[("main", "app.probe=0-1-x-slow-0")]);
    check(&mut task, 0);
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING");
    assert_eq!(world.health(), [HealthStatus::Unknown]);
    assert_eq!(world.health_changed().await, [HealthStatus::Healthy]);
    assert_eq!(world.runtime.called("exec t1-0 /bin/sh -c is it well"), 1);
    // One failure is none.
    assert_eq!(world.health_changed().await, [HealthStatus::Unhealthy]);
    assert_eq!(world.runtime.called("exec"), 3, "a check that cannot be run has failed");
    assert_eq!(world.health_changed().await, [HealthStatus::Healthy]);
    assert_eq!(world.runtime.called("exec"), 5, "and so has one that takes too long");
    assert!(world.is_quiet().await, "health is no state");
    world.take(&stopped(&task)).await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED(143)");
    assert!(world.health().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_check_that_never_ends_has_failed_and_ends_with_its_container() {
    let mut world = World::new();
    let mut hung = task("t1", &[("main", "app.probe=hung")]);
    check(&mut hung, 0);
    world.take(&hung).await;
    world.report().await;
    assert_eq!(world.health_changed().await, [HealthStatus::Unhealthy]);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let probes = world.runtime.called("exec");
    world.take(&stopped(&hung)).await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED(143)");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.runtime.called("exec"), probes, "what has ended is not looked at");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_health_starts_when_it_is_there() {
    let mut world = World::new();
    let mut task = task("t1", &[("app", "app"), ("db", "app.probe=1-0")]);
    check(&mut task, 1);
    depends(&mut task, 0, "db", "HEALTHY");
    world.take(&task).await;
    assert_eq!(world.health_changed().await, [HealthStatus::Healthy]);
    assert_eq!(world.word().await, "RUNNING app=RUNNING db=RUNNING");
    assert_eq!(world.runtime.called("exec"), 2);
    world.take(&stopped(&task)).await;
    assert_eq!(world.word().await, "STOPPED app=STOPPED(143) db=STOPPED(143)");
    let calls = world.runtime.calls.lock().clone();
    let place = |what: &str| calls.iter().position(|call| call == what).unwrap();
    assert!(place("start t1-1") < place("start t1-0") && place("signal t1-0 15") < place("signal t1-1 15"));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_health_does_not_wait_for_ever() {
    for (image, text) in [
        ("app.probe=1", "dependency db did not become HEALTHY within its startTimeout"),
        ("app.exit=0.after=2000", "dependency db ended, and HEALTHY was required"),
    ] {
        let mut world = World::new();
        let mut task = task("t1", &[("app", "app"), ("db", image)]);
        check(&mut task, 1);
        task.containers[1].start_timeout = 45;
        task.containers[1].essential = false;
        depends(&mut task, 0, "db", "HEALTHY");
        world.take(&task).await;
        let mut report = world.report().await;
        while report.status.as_deref() != Some("STOPPED") {
            report = world.report().await;
        }
        assert_eq!(reason(&report, 0), text);
        assert_eq!(world.runtime.called("start t1-0"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_finds_health_out_again() {
    let mut world = World::new();
    let mut task = task("t1", &[("main", "app.probe=0")]);
    check(&mut task, 0);
    world.take(&task).await;
    world.report().await;
    assert_eq!(world.health_changed().await, [HealthStatus::Healthy]);
    world.restart().await;
    assert_eq!(world.health(), [HealthStatus::Unknown]);
    assert_eq!(world.health_changed().await, [HealthStatus::Healthy]);
}
