//! Restart policies of driven tasks.

use super::*;
use crate::engine::Phase;

fn policy(task: &mut acs::Task, index: usize, ignored: &[i32], period: i64) {
    let policy = acs::RestartPolicy { enabled: true, ignored_exit_codes: ignored.to_vec(), restart_attempt_period: period };
    task.containers[index].restart_policy = Some(policy);
}

impl World {
    /// How often the first container of the only task was started again.
    fn restarts(&self) -> u32 {
        let records = self.tasks.records();
        let state = records[0].state.lock();
        state.containers[0].run().map(|run| run.restarts).unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_essential_container_is_started_again_and_nobody_is_told() {
    let mut world = World::new();
    let mut task = task("t1", &[("main", "app.exit=1.after=500.lives=2")]);
    task.containers[0].port_mappings = vec![acs::PortMapping { container_port: 80, ..Default::default() }];
    policy(&mut task, 0, &[0], 60);
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING");
    assert!(world.is_quiet().await && world.is_quiet().await);
    assert_eq!((world.restarts(), world.runtime.called("start t1-0"), world.runtime.called("create")), (2, 3, 1));
    assert_eq!(world.network.ids(), ["t1-0"], "its network is the same");
    let records = world.tasks.records();
    assert!(matches!(&records[0].state.lock().containers[0], Phase::Running(run) if run.bindings.len() == 1));
    world.take(&stopped(&task)).await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED(143)");
    assert!(world.network.ids().is_empty());
    assert_eq!(world.runtime.called("start t1-0"), 3, "not when the task is to stop");
}

#[tokio::test(start_paused = true)]
async fn ignored_codes_and_short_lives_are_ends() {
    for (ignored, period) in [(&[0, 1][..], 60), (&[], 1001)] {
        let mut world = World::new();
        let mut task = task("t1", &[("main", "app.exit=1.after=500")]);
        policy(&mut task, 0, ignored, period);
        world.take(&task).await;
        assert_eq!(world.word().await, "RUNNING main=RUNNING");
        assert_eq!(world.word().await, "STOPPED main=STOPPED(1)");
        assert_eq!(world.runtime.called("start"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_another_essential_container_is_the_end() {
    let mut world = World::new();
    let mut task = task("t1", &[("main", "app"), ("job", "job.exit=3.after=500")]);
    policy(&mut task, 0, &[], 60);
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING job=RUNNING");
    assert_eq!(world.word().await, "STOPPED main=STOPPED(143) job=STOPPED(3)");
    assert_eq!(world.runtime.called("start t1-0"), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_started_again_says_why() {
    let mut world = World::new();
    let mut task = task("t1", &[("main", "app.exit=1.after=500.start=once")]);
    policy(&mut task, 0, &[], 60);
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING");
    let over = world.report().await;
    assert_eq!(summary(&over), "STOPPED main=STOPPED");
    assert!(reason(&over, 0).starts_with("CannotStartContainerError: exec: "), "{}", reason(&over, 0));
    assert!(world.network.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_end_while_the_agent_was_away_is_followed_by_a_start() {
    let mut world = World::new();
    let mut task = task("t1", &[("main", "app")]);
    policy(&mut task, 0, &[], 60);
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING");
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.stop.cancel();
    world.tasks.ended().await;
    world.runtime.end("t1-0", 4);
    world.restart().await;
    assert!(world.is_quiet().await);
    assert_eq!((world.restarts(), world.runtime.called("start t1-0")), (1, 2));
    assert_eq!(world.network.ids(), ["t1-0"], "its network was kept");
    // And it is known as started again after one more restart of the agent.
    world.restart().await;
    assert_eq!(world.restarts(), 1);
    world.take(&stopped(&task)).await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED(143)");
}
