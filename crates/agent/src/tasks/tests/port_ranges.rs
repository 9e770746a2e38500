//! Ranges of ports: what is published, what is told of it, and what happens where there are not enough.

use berth_shapes::ecs::NetworkBinding;

use super::*;

fn ranged(id: &str, range: &str, host_ports: &[u16]) -> acs::Task {
    let mut task = task(id, &[("main", "app")]);
    let one = |port: &u16| acs::PortMapping { container_port: 7, host_port: (*port).into(), ..Default::default() };
    task.containers[0].port_mappings = host_ports.iter().map(one).collect();
    task.containers[0].port_mappings.push(acs::PortMapping { container_port_range: range.into(), ..Default::default() });
    task
}

/// A machine whose dynamic range is 41000 to 41009.
fn world() -> World {
    let mut world = World::new();
    world.config.dynamic_host_ports = Some(41_000..=41_009);
    (world.tasks, world.inbox) = tasks((&world.runtime, &world.network), &world.config, world.clock.clone(), &world.stop);
    world
}

fn bindings(report: &SubmitTaskStateChangeRequest) -> Vec<NetworkBinding> {
    report.containers.as_ref().unwrap()[0].network_bindings.clone().unwrap_or_default()
}

fn host_ranges(report: &SubmitTaskStateChangeRequest) -> Vec<String> {
    bindings(report).into_iter().filter_map(|binding| binding.host_port_range).collect()
}

#[tokio::test(start_paused = true)]
async fn a_range_gets_ports_that_follow_each_other_and_is_one_binding() {
    let mut world = world();
    world.network.of_processes.lock().insert(41_004);
    let first = ranged("t1", "80-83", &[41_002, 0]);
    world.take(&first).await;
    let running = world.report().await;
    let [fixed, open, range] = bindings(&running).try_into().unwrap();
    assert_eq!((fixed.container_port, fixed.host_port), (Some(7), Some(41_002)));
    assert!(open.host_port.is_some_and(|port| !(41_005..=41_008).contains(&port)), "{open:?}");
    assert_eq!((range.container_port, range.host_port), (None, None));
    assert_eq!((range.container_port_range.as_deref(), range.host_port_range.as_deref()), (Some("80-83"), Some("41005-41008")));
    assert_eq!((range.bind_ip.as_deref(), range.protocol.unwrap().as_str()), (Some("0.0.0.0"), "tcp"));
    world.restart().await;
    world.take(&stopped(&first)).await;
    assert_eq!(host_ranges(&world.report().await), ["41005-41008"], "another life of the agent tells the same");
}

#[tokio::test(start_paused = true)]
async fn without_enough_ports_a_task_does_not_start_and_nothing_is_left() {
    let mut world = world();
    let first = ranged("t1", "80-85", &[]);
    world.take(&first).await;
    assert_eq!(host_ranges(&world.report().await), ["41000-41005"]);
    world.take(&ranged("t2", "80-84", &[])).await;
    let over = world.report().await;
    assert_eq!(summary(&over), "STOPPED main=STOPPED");
    let why = "HostConfigError: error retrieving docker port map: 5 contiguous host ports are unavailable in the dynamic host port range 41000-41009";
    assert_eq!(reason(&over, 0), why);
    assert_eq!(world.network.ids(), ["t1-0"]);
    world.take(&stopped(&first)).await;
    world.report().await;
    world.take(&ranged("t3", "80-84", &[])).await;
    assert_eq!(host_ranges(&world.report().await), ["41000-41004"]);
}
