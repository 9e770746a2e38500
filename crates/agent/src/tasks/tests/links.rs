//! Links: whose address a container is told of.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_container_is_told_of_those_it_links_to() {
    let mut world = World::new();
    let mut task = task("t1", &[("web", "app"), ("db", "app")]);
    task.containers[0].links = vec!["db:data".into()];
    task.containers[0].environment = [("DATA_NAME".to_owned(), "mine".to_owned())].into();
    task.containers[1].port_mappings = vec![acs::PortMapping { container_port: 5432, ..Default::default() }];
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING web=RUNNING db=RUNNING");
    let spec = world.runtime.spec("t1-0");
    let hosts = [("data", "172.30.0.2"), ("db", "172.30.0.2")].map(|(name, address)| (name.to_owned(), address.to_owned()));
    assert_eq!(spec.extra_hosts, hosts);
    assert_eq!(spec.environment["DATA_PORT"], "tcp://172.30.0.2:5432");
    assert_eq!(spec.environment["DATA_NAME"], "mine", "what the task says is stronger");
    let calls = world.runtime.calls.lock().clone();
    let place = |what: &str| calls.iter().position(|call| call == what).unwrap();
    assert!(place("start t1-1") < place("create t1-0"));
}

#[tokio::test(start_paused = true)]
async fn nobody_can_link_to_what_has_ended() {
    let mut world = World::new();
    let mut task = task("t1", &[("web", "app"), ("db", "job.exit=0"), ("slow", "job.exit=0.after=5000")]);
    task.containers[0].links = vec!["db:data".into()];
    task.containers[1].essential = false;
    task.containers[2].essential = false;
    depends(&mut task, 0, "slow", "COMPLETE");
    world.take(&task).await;
    let mut over = world.report().await;
    while over.status.as_deref() != Some("STOPPED") {
        over = world.report().await;
    }
    assert_eq!(reason(&over, 0), "CannotCreateContainerError: Cannot link to a non running container: /db AS /web/data");
}
