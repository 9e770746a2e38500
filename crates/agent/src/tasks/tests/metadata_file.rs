//! The file that describes a container to what runs in it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_container_is_described_to_itself_if_that_is_wanted() {
    let mut world = World::new();
    world.config.container_metadata = true;
    (world.tasks, world.inbox) = tasks((&world.runtime, &world.network), &world.config, world.clock.clone(), &world.stop);
    tokio::spawn(world.tasks.clone().sweep());
    let mut task = task("t1", &[("main", "app")]);
    task.containers[0].port_mappings = vec![acs::PortMapping { container_port: 80, host_port: 8080, ..Default::default() }];
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING");
    let spec = world.runtime.spec("t1-0");
    assert_eq!(spec.environment["ECS_CONTAINER_METADATA_FILE"], "/opt/ecs/metadata/t1-0/ecs-container-metadata.json");
    let mount = spec.mounts.last().unwrap();
    assert!(mount.read_only && mount.destination.ends_with("metadata/t1-0"));
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(mount.source.join("ecs-container-metadata.json")).unwrap()).unwrap();
    let text = |name: &str| file[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((text("Cluster"), text("TaskARN"), text("ContainerName")), ("default".into(), arn("t1"), "main".into()));
    assert_eq!((text("ContainerID"), text("ImageName"), text("ImageID")), ("t1-0".into(), "app".into(), "sha256:app".into()));
    assert_eq!(text("MetadataFileStatus"), "READY");
    assert_eq!(file["PortMappings"][0]["HostPort"], 8080);
    let source = mount.source.clone();
    world.take(&stopped(&task)).await;
    world.report().await;
    tokio::time::sleep(Duration::from_secs(3 * 3600 + 10)).await;
    assert!(!source.exists(), "it goes with the task");
}

#[tokio::test(start_paused = true)]
async fn and_not_otherwise() {
    let mut world = World::new();
    world.take(&task("t1", &[("main", "app")])).await;
    world.report().await;
    let spec = world.runtime.spec("t1-0");
    assert!(spec.mounts.is_empty() && !spec.environment.contains_key("ECS_CONTAINER_METADATA_FILE"));
}
