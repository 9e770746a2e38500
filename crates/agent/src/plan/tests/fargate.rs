//! A Fargate task: what it is confined to, and what of the machine it cannot ask for.

use super::*;

fn fargate(change: impl FnOnce(&mut acs::Task)) -> Result<Box<Blueprint>, String> {
    one(|task| {
        task.launch_type = "FARGATE".into();
        task.network_mode = "awsvpc".into();
        (task.cpu, task.memory) = (Some(0.5), Some(1024));
        task.elastic_network_interfaces = vec![acs::ElasticNetworkInterface {
            ec2_id: "eni-1".into(),
            mac_address: "02:00:0a:00:00:05".into(),
            ipv4_addresses: vec![acs::Ipv4Address { primary: true, private_address: "10.0.0.5".into() }],
            subnet_gateway_ipv4_address: "10.0.0.1/24".into(),
            ..Default::default()
        }];
        change(task);
    })
    .blueprint
}

fn storage(blueprint: &Blueprint) -> (u64, bool) {
    match &blueprint.volumes[0] {
        VolumePlan::Sized { bytes, required, .. } => (*bytes >> 30, *required),
        other => panic!("{other:?}"),
    }
}

#[test]
fn its_size_is_a_limit_of_the_whole() {
    let spec = fargate(|_| ()).unwrap().spec;
    assert!(spec.kept_apart);
    assert_eq!((spec.task_cpu_limit_millis, spec.cpu_limit_millis), (Some(500), None));
    assert_eq!(spec.task_memory_limit, Some(1024 << 20));
    assert_eq!(spec.task_pids_limit, Some(77), "as the agent is told");
    let ec2 = one(|_| ()).blueprint.unwrap().spec;
    assert!(!ec2.kept_apart && ec2.task_cpu_limit_millis.is_none() && ec2.task_memory_limit.is_none());
}

#[test]
fn it_has_twenty_gib_unless_its_definition_says_otherwise() {
    assert_eq!(storage(&fargate(|_| ()).unwrap()), (20, false));
    assert_eq!(storage(&fargate(|task| task.ephemeral_storage_gib = 30).unwrap()), (30, false));
    let named = |task: &mut acs::Task| task.ephemeral_storage = Some(acs::EphemeralStorage { size_in_gib: 200 });
    assert_eq!(storage(&fargate(named).unwrap()), (200, false));
}

#[test]
fn nothing_of_the_machine_can_be_asked_for() {
    let volume = |volume: acs::Volume| move |task: &mut acs::Task| task.volumes = vec![acs::Volume { name: "v".into(), ..volume }];
    let docker = || acs::Volume { docker_volume_configuration: Some(acs::DockerVolumeConfiguration::default()), ..Default::default() };
    let host = || acs::Volume { host: Some(acs::HostVolume { source_path: "/etc".into() }), ..Default::default() };
    let security = HostConfig { security_opt: vec!["no-new-privileges".into()], ..Default::default() };
    let refused = [
        ("sourcePath", fargate(volume(host()))),
        ("dockerVolumeConfiguration", fargate(volume(docker()))),
        (
            "dockerSecurityOptions",
            fargate(|task| task.containers[0].docker_config = Some(DockerConfig::render(&Default::default(), &security))),
        ),
        ("cpu and memory", fargate(|task| task.memory = None)),
        ("network mode bridge", fargate(|task| (task.network_mode, task.elastic_network_interfaces) = (String::new(), Vec::new()))),
    ];
    for (member, outcome) in refused {
        assert!(outcome.as_ref().is_err_and(|text| text.contains(member)), "{member}: {outcome:?}");
    }
}
