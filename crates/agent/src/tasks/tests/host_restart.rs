//! What becomes of tasks when the machine was started anew: another boot id than the ledger's.

use super::super::recovery::HOST_RESTARTED;
use super::*;

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_host_is_reported_as_such() {
    let mut world = World::new();
    world.tasks.recover("first boot").await.unwrap();
    let ran = task("t1", &[("main", "app"), ("side", "job.exit=3")]);
    let mut two = task("t2", &[("main", "app"), ("after", "app")]);
    depends(&mut two, 0, "after", "SUCCESS");
    let waiting = task("t3", &[("main", "app.pull=slow")]);
    let over = task("t4", &[("main", "job.exit=0")]);
    let mut ran = ran;
    ran.containers[1].essential = false;
    world.take(&ran).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING side=RUNNING");
    assert_eq!(world.word().await, "RUNNING main=RUNNING side=RUNNING side=STOPPED(3)");
    world.take(&over).await;
    world.report().await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED(0)");
    // One of its containers runs, so nothing is reported yet.
    world.take(&two).await;
    world.take(&waiting).await;
    assert!(world.is_quiet().await);
    world.restart_in("second boot").await;

    let mut reports = [world.report().await, world.report().await, world.report().await];
    reports.sort_by_key(|report| (report.task.clone(), report.status.clone()));
    assert_eq!(summary(&reports[0]), "STOPPED main=STOPPED side=STOPPED(3)");
    assert_eq!(reason(&reports[0], 0), "ContainerVanishedError: the host was restarted while the container ran");
    assert_eq!(reports[0].reason.as_deref(), Some("the host was restarted while the task ran"));
    assert_eq!(reports[0].execution_stopped_at.map(|at| at.as_millis() > 0), Some(true), "it had run");
    assert_eq!(summary(&reports[1]), "STOPPED main=STOPPED after=STOPPED", "what waited is not started any more");
    assert_eq!((reason(&reports[1], 0).as_str(), reason(&reports[1], 1).as_str()), ("", HOST_RESTARTED));
    assert_eq!(reports[1].reason, reports[0].reason);
    assert_eq!(summary(&reports[2]), "RUNNING main=RUNNING", "what had not begun begins now");
    assert_eq!(reports[2].reason.as_deref(), Some(""));
    // Whatever bears their names now is none of theirs: it is not watched.
    world.runtime.end("t1-0", 9);
    world.runtime.end("t2-1", 9);
    assert!(world.is_quiet().await);

    // The same boot again: what was started since is found.
    world.restart_in("second boot").await;
    assert!(world.is_quiet().await);
    assert_eq!(world.tasks.records().iter().filter(|record| record.state.lock().is_over()).count(), 3);
}
