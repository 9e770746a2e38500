//! Tasks that are not taken on: it is said why, and that settles them.

use super::*;

#[tokio::test(start_paused = true)]
async fn too_many_tasks_are_refused_and_acknowledged() {
    let mut world = World::new();
    world.config.most_tasks = 1;
    (world.tasks, world.inbox) = tasks((&world.runtime, &world.network), &world.config, world.clock.clone(), &world.stop);
    world.take(&task("t1", &[("main", "app")])).await;
    world.report().await;
    world.take(&task("t2", &[("main", "app")])).await;
    assert!(world.report().await.reason.unwrap().contains("already has 1 tasks"));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_cannot_be_kept_is_refused_and_the_next_is_taken() {
    let mut world = World::new();
    world.tasks.means.ledger.refuse_tasks(true);
    world.take(&task("t1", &[("main", "app")])).await;
    let refusal = world.report().await;
    assert_eq!(refusal.status.as_deref(), Some("STOPPED"));
    let reason = refusal.reason.unwrap();
    assert!(reason.starts_with("ResourceInitializationError: ") && reason.contains("Bad file descriptor"), "{reason}");
    assert!(world.runtime.ids().is_empty(), "nothing of it is begun");
    world.tasks.means.ledger.refuse_tasks(false);
    world.take(&task("t2", &[("main", "app")])).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING");
}

#[tokio::test(start_paused = true)]
async fn a_port_in_use_is_said_in_dockers_words() {
    let mut world = World::new();
    for id in ["t1", "t2"] {
        let mut task = task(id, &[("main", "app")]);
        task.containers[0].port_mappings = vec![acs::PortMapping { container_port: 80, host_port: 8080, ..Default::default() }];
        world.take(&task).await;
        let report = world.report().await;
        if id == "t2" {
            assert_eq!(summary(&report), "STOPPED main=STOPPED");
            let text = "CannotStartContainerError: driver failed programming external connectivity: Bind for 0.0.0.0:8080 failed: port is already allocated";
            assert_eq!(reason(&report, 0), text);
        }
    }
    assert_eq!((world.runtime.ids(), world.network.ids()), (vec!["t1-0".to_owned()], vec!["t1-0".to_owned()]));
}
