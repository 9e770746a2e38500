//! What the machine's owner says of pulls: how long one may take, and whether images come before dependencies are met.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pull_that_takes_too_long_is_given_up() {
    let mut world = World::new();
    world.config.pull_timeout = Duration::from_secs(60);
    (world.tasks, world.inbox) = tasks((&world.runtime, &world.network), &world.config, world.clock.clone(), &world.stop);
    world.take(&task("t1", &[("main", "app.pull=slow")])).await;
    let report = world.report().await;
    assert_eq!(summary(&report), "STOPPED main=STOPPED");
    assert_eq!(reason(&report, 0), "DockerTimeoutError: Could not transition to pulled; timed out after waiting 60s");
}

#[tokio::test(start_paused = true)]
async fn images_wait_for_dependencies_if_that_is_wanted() {
    for upfront in [true, false] {
        let mut world = World::new();
        world.config.pull_dependent_upfront = upfront;
        (world.tasks, world.inbox) = tasks((&world.runtime, &world.network), &world.config, world.clock.clone(), &world.stop);
        let mut task = task("t1", &[("first", "app"), ("second", "other")]);
        depends(&mut task, 1, "first", "COMPLETE");
        task.containers[0].essential = false;
        world.take(&task).await;
        assert!(world.is_quiet().await);
        assert_eq!(world.runtime.called("pull other"), usize::from(upfront));
        world.runtime.end("t1-0", 0);
        assert_eq!(world.word().await, "RUNNING first=RUNNING second=RUNNING first=STOPPED(0)");
        assert_eq!(world.runtime.called("pull other"), 1);
    }
}
