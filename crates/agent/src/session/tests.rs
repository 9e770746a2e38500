//! The whole agent against a control plane over loopback: registration, both connections, what is answered to each message.

use std::path::Path;

use berth_acs::messages as acs;
use berth_acs::messages::{DesiredStatus, HeartbeatMessage, PayloadMessage, RoleCredentials, TaskIdentifier, TaskManifestMessage};
use berth_acs::{AgentFrame, Refusal, RefusalKind, ServerFrame, TelemetryFrame};
use berth_identity::AccessKey;
use tempfile::TempDir;

use super::backend::{AcsSocket, Backend, CLUSTER, KEY, frame, instance_arn, send};
use crate::config::DnsSettings;
use crate::fakes::{FakeNetwork, FakeRuntime, arn, machine, stopped, task};
use crate::names::tests::{ask, free_address, hello};
use crate::{Agent, AgentConfig, StartError};
use std::sync::Arc;

fn config(backend: &Backend, dir: &Path) -> AgentConfig {
    AgentConfig {
        backend: backend.url(),
        region: "us-east-1".into(),
        access_key: AccessKey::long_term(KEY.0, KEY.1, ""),
        data_dir: dir.to_owned(),
        introspection: None,
        ..Default::default()
    }
}

struct World {
    backend: Backend,
    dir: TempDir,
    runtime: Arc<FakeRuntime>,
    network: Arc<FakeNetwork>,
}

impl World {
    async fn new() -> Self {
        let (runtime, network) = machine();
        Self { backend: Backend::start().await, dir: tempfile::tempdir().unwrap(), runtime, network }
    }

    async fn start(&self) -> Agent {
        self.start_with(|_| {}).await.unwrap()
    }

    async fn start_with(&self, change: impl FnOnce(&mut AgentConfig)) -> Result<Agent, StartError> {
        let mut config = config(&self.backend, self.dir.path());
        change(&mut config);
        Agent::start(config, self.runtime.clone(), self.network.clone()).await
    }

    async fn socket(&mut self) -> AcsSocket {
        self.backend.acs.recv().await.unwrap().1
    }
}

fn payload(id: &str, number: i64, tasks: &[acs::Task]) -> ServerFrame {
    ServerFrame::Payload(Arc::new(PayloadMessage {
        cluster_arn: CLUSTER.into(),
        container_instance_arn: instance_arn(1),
        message_id: id.into(),
        seq_num: number,
        tasks: tasks.to_vec(),
        ..Default::default()
    }))
}

fn ack_of(frame: AgentFrame) -> String {
    match frame {
        AgentFrame::Ack(ack) => {
            assert_eq!((ack.cluster.as_str(), ack.container_instance), (CLUSTER, instance_arn(1)));
            ack.message_id
        }
        other => panic!("no acknowledgement: {other:?}"),
    }
}

#[tokio::test]
async fn a_task_from_payload_to_stopped() {
    let mut world = World::new().await;
    let agent = world.start().await;
    assert_eq!(agent.container_instance_arn(), instance_arn(1));
    let register = world.backend.call("RegisterContainerInstance").await;
    assert_eq!((register["cluster"].as_str(), register["containerInstanceArn"].as_str()), (Some("default"), None));
    assert!(register["clientToken"].as_str().is_some());
    let (query, mut socket) = world.backend.acs.recv().await.unwrap();
    agent.connected().await;
    assert_eq!((query.cluster.as_str(), query.container_instance_arn.clone()), ("default", instance_arn(1)));
    assert!(query.send_credentials && query.protocol_version == 2 && query.seq_num == 1);

    let task = task("t1", &[("main", "app")]);
    send(&mut socket, payload("m1", 1, std::slice::from_ref(&task))).await;
    assert_eq!(ack_of(frame(&mut socket).await), "m1");
    assert_eq!(world.backend.report().await, "RUNNING t1");
    send(&mut socket, ServerFrame::Heartbeat(HeartbeatMessage { healthy: true, message_id: "h1".into() })).await;
    assert!(matches!(frame(&mut socket).await, AgentFrame::HeartbeatAck(ack) if ack.message_id == "h1"));
    send(&mut socket, payload("m2", 2, &[stopped(&task)])).await;
    assert_eq!(ack_of(frame(&mut socket).await), "m2");
    assert_eq!(world.backend.report().await, "STOPPED t1");
    agent.shutdown().await;
    assert!(socket.next().await.is_none_or(|frame| frame.is_err()), "the socket is closed");
    assert_eq!(world.runtime.ids(), ["t1-0"]);
}

#[tokio::test]
async fn names_that_the_control_plane_sends_are_answered() {
    let mut world = World::new().await;
    let address = free_address();
    let dns = DnsSettings { also: Some(address), upstreams: Some(Vec::new()), ..Default::default() };
    let agent = world.start_with(|config| config.dns = dns.clone()).await.unwrap();
    let (query, mut socket) = world.backend.acs.recv().await.unwrap();
    assert!(query.berth_dns && query.berth_differences);
    let part = |part, zones| ServerFrame::BerthDnsTable(acs::DnsTableMessage { revision: 3, part, parts: 2, zones, ..Default::default() });
    send(&mut socket, part(0, hello(7))).await;
    send(&mut socket, part(1, Vec::new())).await;
    // It is read after the table, which nobody acknowledges.
    send(&mut socket, ServerFrame::Heartbeat(HeartbeatMessage { healthy: true, message_id: "h1".into() })).await;
    assert!(matches!(frame(&mut socket).await, AgentFrame::HeartbeatAck(_)));
    assert_eq!(ask(address).await, Some([10, 0, 0, 7].into()));
    // What changes of it counts at once; what changes of another table does not, and the whole is asked for.
    let changes = |base, revision, last| {
        let changes = acs::NameChanges { zones: hello(last), gone: Vec::new() };
        ServerFrame::BerthDnsTable(acs::DnsTableMessage::of_changes(base, revision, changes).unwrap().0)
    };
    send(&mut socket, changes(3, 5, 8)).await;
    send(&mut socket, changes(6, 7, 9)).await;
    send(&mut socket, changes(7, 8, 10)).await;
    send(&mut socket, ServerFrame::Heartbeat(HeartbeatMessage { healthy: true, message_id: "h2".into() })).await;
    let AgentFrame::TableRequest(asked) = frame(&mut socket).await else { panic!("no question") };
    assert_eq!(asked.table, acs::TableKind::Names);
    assert!(matches!(frame(&mut socket).await, AgentFrame::HeartbeatAck(_)), "it asks once");
    assert_eq!(ask(address).await, Some([10, 0, 0, 8].into()));
    agent.shutdown().await;

    let agent = world.start_with(|config| config.dns = dns).await.unwrap();
    assert_eq!(ask(address).await, Some([10, 0, 0, 8].into()), "what it was told last, before anybody says anything");
    agent.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_answers_nowhere_asks_for_no_names() {
    let mut world = World::new().await;
    let agent = world.start().await;
    assert!(!world.backend.acs.recv().await.unwrap().0.berth_dns);
    agent.shutdown().await;
}

#[tokio::test]
async fn shutting_down_leaves_containers_and_a_new_agent_is_the_same_instance() {
    let mut world = World::new().await;
    let agent = world.start_with(|config| config.attributes = [("stack".to_owned(), Some("x".to_owned()))].into()).await.unwrap();
    let mut socket = world.socket().await;
    send(&mut socket, payload("m1", 1, &[task("t1", &[("main", "app")])])).await;
    assert_eq!(world.backend.report().await, "RUNNING t1");
    agent.shutdown().await;
    assert_eq!(world.runtime.called("signal") + world.runtime.called("remove"), 0);

    world.backend.calls.close();
    while world.backend.calls.try_recv().is_ok() {}
    let mut second = Backend::start().await;
    let mut config = config(&second, world.dir.path());
    config.attributes = [("stack".to_owned(), Some("x".to_owned()))].into();
    let agent = Agent::start(config, world.runtime.clone(), world.network.clone()).await.unwrap();
    let again = second.call("RegisterContainerInstance").await;
    assert_eq!(again["containerInstanceArn"].as_str(), Some(instance_arn(1).as_str()));
    assert!(!again["attributes"].to_string().contains("stack"));
    let mut socket = second.acs.recv().await.unwrap().1;
    send(&mut socket, payload("m2", 2, &[stopped(&task("t1", &[("main", "app")]))])).await;
    assert_eq!(second.report().await, "STOPPED t1");
    agent.purge().await.unwrap();
    assert!(world.runtime.ids().is_empty());
}

#[tokio::test]
async fn an_instance_that_the_server_forgot_registers_anew() {
    let mut world = World::new().await;
    world.start().await.shutdown().await;
    for exception in ["ClientException", "InvalidParameterException"] {
        world.backend.fail_next("RegisterContainerInstance", exception, 400);
    }
    // The second error comes to a registration without an ARN, where it is final.
    assert!(matches!(world.start_with(|_| {}).await, Err(StartError::Register(_))));
    world.backend.fail_next("RegisterContainerInstance", "ClientException", 400);
    let agent = world.start().await;
    assert_eq!(agent.container_instance_arn(), instance_arn(2));
    let other = world.start_with(|config| config.cluster = "other".into()).await;
    assert!(matches!(other, Err(StartError::OtherCluster { kept, .. }) if kept == "default"));
    agent.shutdown().await;
    world.backend.call("RegisterContainerInstance").await;
}

#[tokio::test]
async fn a_deregistered_instance_comes_back_as_a_new_one() {
    let mut world = World::new().await;
    world.backend.refuse_next(Refusal::new(RefusalKind::InactiveInstanceException, "gone"));
    let agent = world.start().await;
    agent.connected().await;
    let (query, _socket) = world.backend.acs.recv().await.unwrap();
    assert_eq!(query.container_instance_arn, instance_arn(2));
    assert_eq!(agent.container_instance_arn(), instance_arn(2));
    agent.shutdown().await;
}

#[tokio::test]
async fn a_cluster_that_nobody_named_is_made() {
    let mut world = World::new().await;
    world.backend.fail_next("RegisterContainerInstance", "ClusterNotFoundException", 400);
    let agent = world.start().await;
    assert_eq!(world.backend.call("CreateCluster").await["clusterName"].as_str(), Some("default"));
    agent.shutdown().await;

    let world = World::new().await;
    world.backend.fail_next("RegisterContainerInstance", "ClusterNotFoundException", 400);
    let named = world.start_with(|config| config.create_cluster = false).await;
    assert!(matches!(named, Err(StartError::Register(_))));
}

#[tokio::test]
async fn settings_that_are_missing_are_named() {
    let world = World::new().await;
    for (change, name) in [
        ((|config| config.backend = String::new()) as fn(&mut AgentConfig), "ECS_BACKEND_HOST"),
        (|config| config.region = String::new(), "AWS_DEFAULT_REGION"),
        (|config| config.access_key.id = String::new(), "AWS_ACCESS_KEY_ID"),
        (|config| config.data_dir = "relative".into(), "ECS_DATADIR"),
    ] {
        match world.start_with(change).await {
            Err(StartError::Config(error)) => assert_eq!(error.name, name),
            _ => panic!("the agent starts without {name}"),
        }
    }
}

#[tokio::test]
async fn only_what_the_verdict_names_is_stopped_and_a_stale_manifest_is_ignored() {
    let mut world = World::new().await;
    let agent = world.start().await;
    let mut socket = world.socket().await;
    let tasks: Vec<_> = ["t1", "t2", "t3"].iter().map(|id| task(id, &[("main", "app")])).collect();
    send(&mut socket, payload("m1", 5, &tasks)).await;
    assert_eq!(ack_of(frame(&mut socket).await), "m1");
    for _ in 0..3 {
        assert!(world.backend.report().await.starts_with("RUNNING"));
    }
    let identifier = |id: &str, desired_status| TaskIdentifier { task_arn: arn(id), task_cluster_arn: CLUSTER.into(), desired_status };
    let manifest = |id: &str, timeline| {
        ServerFrame::TaskManifest(TaskManifestMessage {
            cluster_arn: CLUSTER.into(),
            message_id: id.into(),
            timeline,
            tasks: vec![identifier("t1", DesiredStatus::Running)],
            ..Default::default()
        })
    };
    send(&mut socket, manifest("f1", 6)).await;
    assert_eq!(ack_of(frame(&mut socket).await), "f1");
    let AgentFrame::TaskStopVerification(question) = frame(&mut socket).await else { panic!("no question") };
    assert_eq!(question.message_id, "f1");
    assert_eq!(question.stop_candidates, [identifier("t2", DesiredStatus::Stopped), identifier("t3", DesiredStatus::Stopped)]);
    send(&mut socket, manifest("f0", 6)).await;
    // t1 was never asked about; the second verdict comes too late.
    for named in ["t1", "t3"] {
        let stop_tasks = vec![identifier("t2", DesiredStatus::Stopped), identifier(named, DesiredStatus::Stopped)];
        let stop_tasks = if named == "t1" { stop_tasks } else { stop_tasks[1..].to_vec() };
        send(
            &mut socket,
            ServerFrame::TaskStopVerificationAck(acs::TaskStopVerificationAck {
                message_id: "f1".into(),
                stop_tasks,
                ..Default::default()
            }),
        )
        .await;
    }
    assert_eq!(world.backend.report().await, "STOPPED t2");
    send(&mut socket, ServerFrame::Heartbeat(HeartbeatMessage { healthy: true, message_id: "h".into() })).await;
    assert!(matches!(frame(&mut socket).await, AgentFrame::HeartbeatAck(_)), "the stale manifest was not answered");
    assert_eq!(world.runtime.called("signal t1") + world.runtime.called("signal t3"), 0);
    agent.shutdown().await;
}

#[tokio::test]
async fn credentials_are_acknowledged_and_never_written() {
    let mut world = World::new().await;
    let agent = world.start().await;
    let mut socket = world.socket().await;
    let credentials = |id: &str| RoleCredentials {
        credentials_id: id.into(),
        expiration: "2030-01-01T00:00:00Z".into(),
        secret_access_key: "hush".to_owned().into(),
        ..Default::default()
    };
    let mut first = task("t1", &[("main", "app")]);
    first.role_credentials = Some(credentials("c1"));
    first.execution_role_credentials = Some(credentials("c2"));
    send(&mut socket, payload("m1", 1, &[first])).await;
    for id in ["c1", "c2"] {
        let AgentFrame::CredentialsAck(ack) = frame(&mut socket).await else { panic!("no acknowledgement") };
        assert_eq!((ack.message_id.as_str(), ack.credentials_id.as_str(), ack.expiration.as_str()), ("m1", id, "2030-01-01T00:00:00Z"));
    }
    assert_eq!(ack_of(frame(&mut socket).await), "m1");
    for (task_arn, answered) in [(arn("nobody"), false), (arn("t1"), true)] {
        let message =
            acs::IamRoleCredentialsMessage { message_id: "m2".into(), task_arn, role_credentials: credentials("c3"), ..Default::default() };
        send(&mut socket, ServerFrame::IamRoleCredentials(message)).await;
        if answered {
            assert!(matches!(frame(&mut socket).await, AgentFrame::CredentialsAck(ack) if ack.credentials_id == "c3"));
        }
    }
    assert_eq!(world.backend.report().await, "RUNNING t1");
    agent.shutdown().await;
    let kept = std::fs::read_to_string(world.dir.path().join("tasks.log")).unwrap();
    assert!(kept.contains("t1") && !kept.contains("hush"));
    assert!(kept.contains(r#""credentialsId":"c1""#), "containers were told it");
    assert!(!kept.contains(r#""credentialsId":"c2""#) && !kept.contains(r#""credentialsId":"c3""#));
}

#[tokio::test]
async fn what_is_not_understood_is_refused_or_passed_over() {
    let mut world = World::new().await;
    let agent = world.start().await;
    let mut socket = world.socket().await;
    send(&mut socket, ServerFrame::Unknown { kind: "TomorrowsMessage".into() }).await;
    send(&mut socket, payload("", 1, &[task("t0", &[("main", "app")])])).await;
    let mut bad = task("t1", &[("main", "app")]);
    bad.containers.clear();
    send(&mut socket, payload("m1", 2, &[bad, task("t2", &[("main", "app")])])).await;
    send(&mut socket, ServerFrame::PerformUpdate(acs::UpdateMessage { message_id: "u".into(), ..Default::default() })).await;
    let AgentFrame::Nack(nack) = frame(&mut socket).await else { panic!("the payload was acknowledged") };
    assert_eq!((nack.message_id.as_str(), nack.reason.as_str()), ("u", "Updates are disabled"));
    let mut reports = [world.backend.report().await, world.backend.report().await];
    reports.sort();
    assert_eq!(reports, ["RUNNING t2", "STOPPED t1"]);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_report_is_sent_until_it_is_accepted() {
    let mut world = World::new().await;
    let agent = world.start().await;
    let mut socket = world.socket().await;
    world.backend.fail_next("SubmitTaskStateChange", "ServerException", 500);
    world.backend.fail_next("SubmitTaskStateChange", "ClientException", 400);
    world.backend.fail_next("SubmitTaskStateChange", "InvalidParameterException", 400);
    send(&mut socket, payload("m1", 1, &[task("t1", &[("main", "job.exit=0")])])).await;
    let mut reports = Vec::new();
    for _ in 0..4 {
        reports.push(world.backend.report().await);
    }
    assert_eq!(reports, ["RUNNING t1", "RUNNING t1", "RUNNING t1", "STOPPED t1"], "twice again, then dropped for good");
    agent.shutdown().await;
}

#[tokio::test]
async fn telemetry_is_signed_and_says_idle() {
    let mut world = World::new().await;
    let agent = world.start().await;
    let (path, mut socket) = world.backend.tcs.recv().await.unwrap();
    assert!(path.contains("cluster=default") && path.contains("containerInstance=arn%3Aaws"), "{path}");
    let metrics = world.backend.telemetry(&path, &mut socket).await;
    let TelemetryFrame::Metrics(metrics) = metrics.frame else { panic!("no metrics") };
    assert_eq!((metrics.metadata.idle, metrics.metadata.fin, metrics.task_metrics.len()), (Some(true), Some(true), 0));
    let TelemetryFrame::InstanceStatus(status) = world.backend.telemetry(&path, &mut socket).await.frame else { panic!("no status") };
    assert_eq!((status.statuses[0].kind.as_str(), status.statuses[0].status.as_str()), ("ContainerRuntime", "OK"));
    agent.shutdown().await;
}

/// A container that is started again after its end, and is looked at once in an hour; the first time is due at once, since fakes began
/// long ago.
fn looked_after(task: &mut acs::Task) {
    let healthcheck = acs::HealthCheck { test: vec!["CMD".into(), "check".into()], interval: 3_600_000_000_000, ..Default::default() };
    let config = acs::ContainerConfig { healthcheck: Some(healthcheck), ..Default::default() };
    task.containers[0].docker_config = Some(acs::DockerConfig::render(&config, &acs::HostConfig::default()));
    task.containers[0].restart_policy = Some(acs::RestartPolicy { enabled: true, ..Default::default() });
}

#[tokio::test]
async fn a_change_of_health_is_published_before_the_next_round() {
    let mut world = World::new().await;
    let agent = world.start().await;
    let (path, mut telemetry) = world.backend.tcs.recv().await.unwrap();
    for _ in 0..2 {
        world.backend.telemetry(&path, &mut telemetry).await;
    }
    let mut socket = world.socket().await;
    let mut wanted = task("t1", &[("main", "app.probe=0"), ("side", "app")]);
    looked_after(&mut wanted);
    send(&mut socket, payload("m1", 1, &[wanted])).await;
    assert_eq!(world.backend.report().await, "RUNNING t1");
    let frame = world.backend.telemetry(&path, &mut telemetry).await.frame;
    let TelemetryFrame::Health(health) = frame else { panic!("first came {frame:?}") };
    assert_eq!((health.metadata.fin, health.tasks.len()), (Some(true), 1));
    let told: Vec<_> =
        health.tasks[0].containers.iter().map(|container| (container.container_name.as_str(), container.health_status)).collect();
    assert_eq!((health.tasks[0].task_arn.clone(), told), (arn("t1"), vec![("main", acs::HealthStatus::Healthy)]));
    agent.shutdown().await;
}

#[tokio::test]
async fn introspection_tells_who_and_what() {
    let mut world = World::new().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let agent = world.start_with(|config| config.introspection = Some(free)).await.unwrap();
    let mut socket = world.socket().await;
    let mut wanted = task("t1", &[("main", "app")]);
    wanted.containers[0].port_mappings = vec![acs::PortMapping { container_port: 80, host_port: 8080, ..Default::default() }];
    looked_after(&mut wanted);
    send(&mut socket, payload("m1", 1, &[wanted])).await;
    assert_eq!(world.backend.report().await, "RUNNING t1");
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let get = async |path: &str| {
        let response = http.get(format!("http://{free}{path}")).send().await.unwrap();
        (response.status().as_u16(), serde_json::from_str::<serde_json::Value>(&response.text().await.unwrap()).unwrap())
    };
    let (_, metadata) = get("/v1/metadata").await;
    assert_eq!(
        (metadata["Cluster"].as_str(), metadata["ContainerInstanceArn"].as_str()),
        (Some("default"), Some(instance_arn(1).as_str()))
    );
    let (_, all) = get("/v1/tasks").await;
    assert_eq!(all["Tasks"][0]["KnownStatus"].as_str(), Some("RUNNING"));
    let (_, one) = get(&format!("/v1/tasks?taskarn={}", arn("t1"))).await;
    assert_eq!((one["Family"].as_str(), one["Containers"][0]["Ports"][0]["HostPort"].as_u64()), (Some("web"), Some(8080)));
    assert_eq!(one["Containers"][0]["RestartCount"].as_u64(), Some(0));
    assert!(one["Containers"][0]["StartedAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(one["Containers"][0]["ImageID"].as_str(), Some("sha256:app"));
    assert_eq!(get("/v1/tasks?dockerid=t1-0").await.1["Arn"].as_str(), Some(arn("t1").as_str()));
    assert_eq!(get("/v1/tasks?taskarn=nobody").await.0, 404);
    assert_eq!(get("/v1/tasks?taskarn=nobody&dockerid=none").await.0, 400);
    agent.shutdown().await;
}
