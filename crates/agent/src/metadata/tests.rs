//! What containers are told, held against the examples of AWS's documentation.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate-examples.html>

use std::net::Ipv4Addr;
use std::sync::Arc;

use berth_acs::messages as acs;
use berth_network::port::{PortBinding, Protocol};
use berth_shapes::timestamp::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::clock_drift::ClockDrift;
use super::container::container;
use super::endpoint::Endpoint;
use super::request::Version;
use super::task::{Surroundings, task};
use crate::engine::{Ended, ExitRecord, Health, Phase, Prepared, Reached, Run, TaskState, Verdict};
use crate::entropy::Chance;
use crate::plan::{PlanContext, plan};
use crate::sources::Fetched;
use crate::tasks::TaskRecord;

const ID: &str = "cd189a933e5849daa93386466019ab50";
const IMAGE: &str = "111122223333.dkr.ecr.us-west-2.amazonaws.com/curltest:latest";
const DIGEST: &str = "sha256:25f3695bedfb454a50f12d127839a68ad3caf91e451c1da073db34c542c4d2cb";

fn arn(kind: &str, rest: &str) -> String {
    format!("arn:aws:ecs:us-west-2:111122223333:{kind}/default{rest}")
}

fn at(text: &str) -> i64 {
    Timestamp::parse(text).expect("a time").as_millis()
}

fn record(change: impl FnOnce(&mut acs::Task)) -> TaskRecord {
    let log = acs::LogConfig {
        kind: "awslogs".into(),
        config: [("awslogs-group", "/ecs/containerlogs"), ("awslogs-region", "us-west-2"), ("awslogs-stream", "ecs/curl/cd18")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    };
    let host = acs::HostConfig { log_config: Some(log), ..Default::default() };
    let curl = acs::Container {
        name: "curl".into(),
        image: IMAGE.into(),
        essential: true,
        cpu: 10,
        memory: 128,
        container_arn: arn("container", "/0206b271"),
        docker_config: Some(acs::DockerConfig::render(&acs::ContainerConfig::default(), &host)),
        ..Default::default()
    };
    let mut task = acs::Task {
        arn: arn("task", &format!("/{ID}")),
        task_cluster_arn: arn("cluster", ""),
        desired_status: acs::DesiredStatus::Running,
        family: "curltest".into(),
        version: "3".into(),
        launch_type: "FARGATE".into(),
        network_mode: "awsvpc".into(),
        cpu: Some(0.25),
        memory: Some(512),
        ephemeral_storage_gib: 20,
        elastic_network_interfaces: vec![acs::ElasticNetworkInterface {
            attachment_arn: arn("attachment", "/a1"),
            ec2_id: "eni-0a".into(),
            mac_address: "0a:de:f6:10:51:e5".into(),
            ipv4_addresses: vec![acs::Ipv4Address { primary: true, private_address: "192.0.2.13".into() }],
            subnet_gateway_ipv4_address: "192.0.2.1/24".into(),
            domain_name: vec!["us-west-2.compute.internal".into()],
            domain_name_servers: vec!["192.0.2.2".into()],
            private_dns_name: "ip-192-0-2-13.us-west-2.compute.internal".into(),
            ..Default::default()
        }],
        containers: vec![curl],
        ..Default::default()
    };
    change(&mut task);
    let context = PlanContext {
        region: "us-west-2".into(),
        volumes_dir: "/data/volumes".into(),
        efs: Default::default(),
        stop_timeout: 30_000,
        log_limit: 1000,
        pull_upfront: true,
        task_pids_limit: None,
    };
    let plan = plan(&task, &context).expect("a plan");
    let mut state = TaskState::new(plan.containers.len());
    state.pull_started_at = Some(at("2020-10-08T20:47:16.053Z"));
    state.pull_stopped_at = Some(at("2020-10-08T20:47:19.592Z"));
    state.containers.fill(Phase::Running(run()));
    TaskRecord { task, plan, state: Mutex::new(state), credentials: Mutex::default() }
}

fn run() -> Run {
    Run {
        image_digest: Some(DIGEST.into()),
        bindings: Vec::new(),
        address: None,
        created_at: at("2020-10-08T20:47:20.567Z"),
        started_at: at("2020-10-08T20:47:20.567Z"),
        restarts: 0,
        health: Health::default(),
    }
}

fn fargates_container() -> Value {
    json!({
        "DockerId": format!("{ID}-0"),
        "Name": "curl",
        "DockerName": "curl",
        "Image": IMAGE,
        "ImageID": DIGEST,
        "Labels": {
            "com.amazonaws.ecs.cluster": arn("cluster", ""),
            "com.amazonaws.ecs.container-name": "curl",
            "com.amazonaws.ecs.task-arn": arn("task", &format!("/{ID}")),
            "com.amazonaws.ecs.task-definition-family": "curltest",
            "com.amazonaws.ecs.task-definition-version": "3"
        },
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "Limits": {"CPU": 10, "Memory": 128},
        "CreatedAt": "2020-10-08T20:47:20.567Z",
        "StartedAt": "2020-10-08T20:47:20.567Z",
        "Type": "NORMAL",
        "LogDriver": "awslogs",
        "LogOptions": {
            "awslogs-group": "/ecs/containerlogs",
            "awslogs-region": "us-west-2",
            "awslogs-stream": "ecs/curl/cd18"
        },
        "ContainerARN": arn("container", "/0206b271"),
        "Networks": [{
            "NetworkMode": "awsvpc",
            "IPv4Addresses": ["192.0.2.13"],
            "AttachmentIndex": 0,
            "MACAddress": "0a:de:f6:10:51:e5",
            "IPv4SubnetCIDRBlock": "192.0.2.0/24",
            "DomainNameServers": ["192.0.2.2"],
            "DomainNameSearchList": ["us-west-2.compute.internal"],
            "PrivateDNSName": "ip-192-0-2-13.us-west-2.compute.internal",
            "SubnetGatewayIpv4Address": "192.0.2.1/24"
        }],
        "Snapshotter": "overlayfs"
    })
}

fn shown(version: Version, record: &TaskRecord, around: Surroundings) -> Value {
    task(version, record, &record.state.lock(), around).into()
}

#[test]
fn a_task_on_fargate_as_documented() {
    let record = record(|_| {});
    assert_eq!(container(Version::V4, &record, &record.state.lock(), 0), fargates_container());
    let clock = ClockDrift { most_micros: 545, is_synchronized: true }.render(at("2021-09-07T16:57:44Z"));
    let storage = json!({"Utilized": 261, "Reserved": 20_480});
    let around = Surroundings { zone: "us-west-2d".into(), vpc: "vpc-1".into(), clock, storage };
    let expected = json!({
        "Cluster": arn("cluster", ""),
        "TaskARN": arn("task", &format!("/{ID}")),
        "Family": "curltest",
        "Revision": "3",
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "Limits": {"CPU": 0.25, "Memory": 512},
        "PullStartedAt": "2020-10-08T20:47:16.053Z",
        "PullStoppedAt": "2020-10-08T20:47:19.592Z",
        "AvailabilityZone": "us-west-2d",
        "Containers": [fargates_container()],
        "LaunchType": "FARGATE",
        "ClockDrift": {
            "ClockErrorBound": 0.545,
            "ReferenceTimestamp": "2021-09-07T16:57:44Z",
            "ClockSynchronizationStatus": "SYNCHRONIZED"
        },
        "EphemeralStorageMetrics": {"Utilized": 261, "Reserved": 20_480},
        "FaultInjectionEnabled": false
    });
    assert_eq!(shown(Version::V4, &record, around), expected);
}

#[test]
fn on_fargate_a_container_without_a_limit_of_its_own_and_where_volumes_are() {
    let record = record(|task| {
        task.service_name = "web".into();
        task.containers[0].memory = 0;
        task.containers[0].cpu = 0;
        task.volumes =
            vec![acs::Volume { name: "scratch".into(), kind: "host".into(), host: Some(acs::HostVolume::default()), ..Default::default() }];
        task.containers[0].mount_points =
            vec![acs::MountPoint { source_volume: "scratch".into(), container_path: "/scratch".into(), read_only: false }];
    });
    let told = shown(Version::V4, &record, Surroundings::default());
    assert_eq!(told["ServiceName"], "web");
    assert_eq!(told["Containers"][0]["Limits"], json!({"CPU": 2}));
    assert_eq!(told["Containers"][0]["Volumes"], json!([{"DockerName": "scratch", "Destination": "/scratch"}]));
    assert!(!told.to_string().contains("/data/volumes"), "no path of the machine's");
}

fn on_ec2(task: &mut acs::Task) {
    task.launch_type = "EC2".into();
    task.network_mode = "bridge".into();
    task.elastic_network_interfaces.clear();
    (task.cpu, task.memory) = (None, None);
}

#[test]
fn a_task_on_a_container_instance_by_both_versions() {
    let record = record(on_ec2);
    let bindings = vec![PortBinding { container_port: 80, host_port: 32_768, protocol: Protocol::Tcp }];
    let address = Some(Ipv4Addr::new(172, 20, 0, 2));
    record.state.lock().containers[0] = Phase::Running(Run { bindings, address, ..run() });
    let around = Surroundings { zone: "us-west-2a".into(), vpc: "vpc-1".into(), ..Default::default() };
    let new = shown(Version::V4, &record, around.clone());
    assert_eq!((&new["LaunchType"], &new["VPCID"]), (&json!("EC2"), &json!("vpc-1")));
    for name in ["Limits", "ClockDrift", "EphemeralStorageMetrics", "ServiceName"] {
        assert!(new.get(name).is_none(), "{name}");
    }
    let one = &new["Containers"][0];
    assert_eq!(one["DockerName"], format!("{ID}-0"));
    assert_eq!(one["Networks"], json!([{"NetworkMode": "bridge", "IPv4Addresses": ["172.20.0.2"]}]));
    assert_eq!(one["Ports"], json!([{"ContainerPort": 80, "Protocol": "tcp", "HostPort": 32_768, "HostIp": "0.0.0.0"}]));
    assert!(one.get("Snapshotter").is_none());

    let old = shown(Version::V3, &record, around);
    for name in ["VPCID", "FaultInjectionEnabled", "ServiceName"] {
        assert!(old.get(name).is_none(), "{name}");
    }
    let one = &old["Containers"][0];
    assert_eq!(one["Ports"], json!([{"ContainerPort": 80, "Protocol": "tcp", "HostPort": 32_768}]));
    for name in ["LogDriver", "LogOptions", "ContainerARN", "RestartCount"] {
        assert!(one.get(name).is_none(), "{name}");
    }
}

#[test]
fn what_a_container_has_come_to() {
    let record = record(|task| {
        on_ec2(task);
        let side = acs::Container { name: "side".into(), essential: false, ..task.containers[0].clone() };
        task.containers.push(acs::Container { name: "last".into(), ..side.clone() });
        task.containers.push(side);
    });
    let exit = ExitRecord { code: 3, oom_killed: false, at: at("2020-10-08T20:50:00Z") };
    let states = |phases: [Phase; 3]| {
        record.state.lock().containers = phases.into();
        let told = shown(Version::V4, &record, Surroundings::default());
        let one = |one: &Value| format!("{} {}", one["Name"].as_str().unwrap(), one["KnownStatus"].as_str().unwrap());
        let containers: Vec<_> = told["Containers"].as_array().into_iter().flatten().map(one).collect();
        (told["KnownStatus"].as_str().unwrap().to_owned(), containers.join(", "), told)
    };
    let prepared = Phase::Prepared(Prepared { image_digest: DIGEST.into(), attachment: None, fetched: Fetched::default() });
    let launching = Phase::Launching { image_digest: DIGEST.into() };
    let (task, containers, told) = states([launching, Phase::Waiting, prepared]);
    assert_eq!((task.as_str(), containers.as_str()), ("NONE", "curl CREATED, side PULLED"));
    assert_eq!(told["Containers"][1]["ImageID"], DIGEST);
    let ended = Phase::Stopped(Ended::Exited { run: run(), exit });
    let never = Phase::Stopped(Ended::NeverStarted { reached: Reached::Nothing, reason: Some("why".into()) });
    let (task, containers, told) = states([Phase::Running(run()), ended, never]);
    assert_eq!((task.as_str(), containers.as_str()), ("RUNNING", "curl RUNNING, last STOPPED, side STOPPED"));
    assert_eq!((&told["Containers"][1]["ExitCode"], &told["Containers"][1]["FinishedAt"]), (&json!(3), &json!("2020-10-08T20:50:00Z")));
    assert!(told["Containers"][2].get("StartedAt").is_none() && told["Containers"][2].get("ExitCode").is_none());
    assert_eq!(told["DesiredStatus"], "RUNNING");
    let over = || Phase::Stopped(Ended::Exited { run: run(), exit });
    record.state.lock().execution_stopped_at = Some(exit.at);
    let (task, _, told) = states([over(), over(), over()]);
    assert_eq!((task.as_str(), &told["DesiredStatus"]), ("STOPPED", &json!("STOPPED")));
    assert_eq!(told["ExecutionStoppedAt"], "2020-10-08T20:50:00Z");
}

#[test]
fn health_and_restarts_of_those_that_have_them() {
    let record = record(|task| {
        let check = acs::HealthCheck { test: vec!["CMD".into(), "true".into()], ..Default::default() };
        let config = acs::ContainerConfig { healthcheck: Some(check), ..Default::default() };
        task.containers[0].health_check_type = "docker".into();
        task.containers[0].docker_config = Some(acs::DockerConfig::render(&config, &acs::HostConfig::default()));
        task.containers[0].restart_policy = Some(acs::RestartPolicy { enabled: true, restart_attempt_period: 60, ..Default::default() });
    });
    let told = |health: Health, restarts| {
        record.state.lock().containers[0] = Phase::Running(Run { health, restarts, ..run() });
        container(Version::V4, &record, &record.state.lock(), 0)
    };
    let unknown = told(Health::default(), 0);
    assert!(unknown.get("Health").is_none());
    assert_eq!(unknown["RestartCount"], 0);
    let since = at("2020-10-08T20:48:00Z");
    let well = told(Health { verdict: Verdict::Healthy, since, ..Default::default() }, 2);
    assert_eq!(well["Health"], json!({"status": "HEALTHY", "statusSince": "2020-10-08T20:48:00Z"}));
    assert_eq!(well["RestartCount"], 2);
    let ill = told(Health { verdict: Verdict::Unhealthy, ..Default::default() }, 2);
    assert_eq!(ill["Health"], json!({"status": "UNHEALTHY", "statusSince": "2020-10-08T20:47:20.567Z"}));
}

#[test]
fn names_are_drawn_and_told_by_network_mode() {
    let bits = Arc::new(|| 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128);
    let endpoint = Endpoint::new(Some("172.20.0.1:51679".parse().unwrap()), Chance::Given(bits));
    assert_eq!(endpoint.draw(), "0123456789ab4def8123456789abcdef-2309737967");
    assert_ne!(Endpoint::new(Some("172.20.0.1:51679".parse().unwrap()), Chance::Machine).draw(), endpoint.draw());
    assert_eq!(Endpoint::default().draw(), "");
    let told = |mode: &str, role: Option<&str>| {
        let record = record(|task| {
            if mode != "awsvpc" {
                on_ec2(task);
                task.network_mode = mode.into();
            }
            task.role_credentials = role.map(|id| acs::RoleCredentials { credentials_id: id.into(), ..Default::default() });
            task.execution_role_credentials = Some(acs::RoleCredentials { credentials_id: "c-2".into(), ..Default::default() });
        });
        let mut container = record.plan.containers[0].clone();
        assert!(endpoint.variables(&container).is_empty(), "a container without a name");
        container.endpoint_id = "a-1".into();
        endpoint.variables(&container)
    };
    for (mode, place) in [("awsvpc", "169.254.170.2"), ("bridge", "169.254.170.2"), ("host", "172.20.0.1:51679")] {
        let expected = [
            ("ECS_CONTAINER_METADATA_URI", format!("http://{place}/v3/a-1")),
            ("ECS_CONTAINER_METADATA_URI_V4", format!("http://{place}/v4/a-1")),
            ("ECS_AGENT_URI", format!("http://{place}/api/a-1")),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(told(mode, None), expected, "{mode}");
        let role = match mode {
            "host" => ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.20.0.1:51679/v2/credentials/c-1"),
            _ => ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/c-1"),
        };
        let told = told(mode, Some("c-1"));
        assert_eq!((&told[..3], &told[3..]), (&expected[..], &[(role.0.to_owned(), role.1.to_owned())][..]), "{mode}");
    }
    assert!(told("none", Some("c-1")).is_empty());
}
