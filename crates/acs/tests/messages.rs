//! Every message in the form in which it travels: read from what the official agent sends or accepts, written back the same.

#![recursion_limit = "512"]

use berth_acs::messages::*;
use berth_acs::{AgentFrame, FrameError, MAX_FRAME, ServerFrame, TelemetryAnswer, TelemetryFrame};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CLUSTER: &str = "arn:aws:ecs:us-east-1:000000000000:cluster/default";
const INSTANCE: &str = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/0123";
const TASK: &str = "arn:aws:ecs:us-east-1:000000000000:task/default/4567";

macro_rules! round_trip {
    ($frames:ident, $kind:literal, $message:tt) => {{
        let wire = json!({"type": $kind, "message": $message});
        let frame = $frames::decode(&wire.to_string()).expect($kind);
        assert!(!matches!(frame, $frames::Unknown { .. }), "{} is not known", $kind);
        assert_eq!(frame.kind(), $kind);
        let again: Value = serde_json::from_str(&frame.encode().unwrap()).unwrap();
        assert_eq!(again, wire, "{}", $kind);
        frame
    }};
}

fn interface() -> Value {
    json!({
        "name": "eth1", "attachmentArn": "arn:aws:ecs:us-east-1:0:attachment/1", "ec2Id": "eni-1", "macAddress": "02:00:00:00:00:01", "index": 1,
        "interfaceAssociationProtocol": "vlan", "interfaceVlanProperties": {"vlanId": "7", "trunkInterfaceMacAddress": "02:00:00:00:00:02"},
        "ipv4Addresses": [{"primary": true, "privateAddress": "10.0.0.5"}], "ipv6Addresses": [{"primary": true, "address": "fd00::5"}],
        "subnetGatewayIpv4Address": "10.0.0.1/24", "domainName": ["example"], "domainNameServers": ["10.0.0.2"], "privateDnsName": "ip-10-0-0-5"
    })
}

#[test]
fn acs_downwards() {
    round_trip!(ServerFrame, "HeartbeatMessage", {"healthy": true, "messageId": "m"});
    round_trip!(ServerFrame, "TaskManifestMessage", {
        "clusterArn": CLUSTER, "containerInstanceArn": INSTANCE, "messageId": "m", "generatedAt": 1795233600000_i64, "timeline": 9,
        "tasks": [{"taskArn": TASK, "taskClusterArn": CLUSTER, "desiredStatus": "RUNNING"}]
    });
    // An empty list is an order to stop everything, so it must be there.
    round_trip!(ServerFrame, "TaskManifestMessage", {"clusterArn": CLUSTER, "containerInstanceArn": INSTANCE, "messageId": "m", "timeline": 9, "tasks": []});
    round_trip!(ServerFrame, "TaskStopVerificationAck", {
        "messageId": "m", "generatedAt": 1, "stopTasks": [{"taskArn": TASK, "taskClusterArn": CLUSTER, "desiredStatus": "STOPPED"}]
    });
    round_trip!(ServerFrame, "IAMRoleCredentialsMessage", {
        "messageId": "m", "taskArn": TASK, "taskClusterArn": CLUSTER, "roleType": "TaskExecution",
        "roleCredentials": {"credentialsId": "c", "roleArn": "arn:aws:iam::0:role/r", "accessKeyId": "ASIA", "secretAccessKey": "s",
                            "sessionToken": "t", "expiration": "2026-11-21T04:00:00Z", "credentialScope": "TASK_SCOPED"}
    });
    round_trip!(ServerFrame, "AttachTaskNetworkInterfacesMessage", {
        "messageId": "m", "clusterArn": CLUSTER, "containerInstanceArn": INSTANCE, "taskArn": TASK, "taskClusterArn": CLUSTER,
        "generatedAt": 1, "waitTimeoutMs": 300000, "elasticNetworkInterfaces": [interface()]
    });
    round_trip!(ServerFrame, "BerthNetworkTableMessage", {
        "messageId": "m", "clusterArn": CLUSTER, "containerInstanceArn": INSTANCE, "generatedAt": 1, "table": {"groups": {}, "interfaces": {}}
    });
    round_trip!(ServerFrame, "BerthNetworkTableMessage", {
        "messageId": "m", "clusterArn": CLUSTER, "containerInstanceArn": INSTANCE, "generatedAt": 1, "revision": 9, "base": 7,
        "table": {"groups": {"sg-1": null}, "interfaces": {}}
    });
    round_trip!(ServerFrame, "BerthDnsTableMessage", {"revision": 9, "part": 0, "parts": 1, "zones": [{"name": "ns.local", "records": []}]});
    round_trip!(ServerFrame, "BerthDnsTableMessage", {
        "revision": 9, "part": 0, "parts": 1, "base": 7, "zones": [], "gone": [{"zone": "a.local"}, {"zone": "b.local", "names": ["api"]}]
    });
    round_trip!(ServerFrame, "AttachInstanceNetworkInterfacesMessage", {
        "messageId": "m", "clusterArn": CLUSTER, "containerInstanceArn": INSTANCE, "generatedAt": 1, "waitTimeoutMs": 300000,
        "elasticNetworkInterfaces": [interface()]
    });
    round_trip!(ServerFrame, "ConfirmAttachmentMessage", {
        "messageId": "m", "clusterArn": CLUSTER, "containerInstanceArn": INSTANCE, "taskArn": TASK, "taskClusterArn": CLUSTER,
        "waitTimeoutMs": 300000,
        "attachment": {"attachmentArn": "a", "attachmentType": "amazonebs", "attachmentProperties": [{"name": "volumeId", "value": "vol-1"}]}
    });
    for kind in ["StageUpdateMessage", "PerformUpdateMessage"] {
        let wire = json!({"type": kind, "message": {"messageId": "m", "clusterArn": CLUSTER, "containerInstanceArn": INSTANCE,
                          "updateInfo": {"location": "https://example/agent.tar", "signature": "00ff"}}});
        let frame = ServerFrame::decode(&wire.to_string()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&frame.encode().unwrap()).unwrap(), wire);
    }
    for kind in [
        "CloseMessage",
        "ErrorMessage",
        "ServerException",
        "BadRequestException",
        "InvalidClusterException",
        "InvalidInstanceException",
        "AccessDeniedException",
        "InactiveInstanceException",
    ] {
        let wire = json!({"type": kind, "message": {"message": "why"}});
        let frame = ServerFrame::decode(&wire.to_string()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&frame.encode().unwrap()).unwrap(), wire);
        assert!(!matches!(frame, ServerFrame::Unknown { .. }), "{kind}");
    }
}

#[test]
fn acs_upwards() {
    round_trip!(AgentFrame, "HeartbeatAckRequest", {"messageId": "m"});
    round_trip!(AgentFrame, "AckRequest", {"cluster": "default", "containerInstance": INSTANCE, "messageId": "m"});
    round_trip!(AgentFrame, "NackRequest", {"cluster": "default", "containerInstance": INSTANCE, "messageId": "m", "reason": "Updates are disabled"});
    round_trip!(AgentFrame, "IAMRoleCredentialsAckRequest", {"messageId": "m", "expiration": "2026-11-21T04:00:00Z", "credentialsId": "c"});
    round_trip!(AgentFrame, "BerthTableRequest", {"table": "names"});
    round_trip!(AgentFrame, "BerthTableRequest", {"table": "network"});
    round_trip!(AgentFrame, "TaskStopVerificationMessage", {
        "messageId": "m", "stopCandidates": [{"taskArn": TASK, "taskClusterArn": CLUSTER, "desiredStatus": "STOPPED"}]
    });
}

#[test]
fn a_payload_with_everything() {
    let frame = round_trip!(ServerFrame, "PayloadMessage", {
        "clusterArn": CLUSTER, "containerInstanceArn": INSTANCE, "messageId": "m", "generatedAt": 1795233600000_i64, "seqNum": 42,
        "tasks": [{
            "arn": TASK, "taskClusterArn": CLUSTER, "desiredStatus": "RUNNING", "family": "web", "version": "3", "overrides": "{}",
            "taskDefinitionAccountId": "000000000000", "group": "service:web", "serviceName": "web", "launchType": "EXTERNAL",
            "networkMode": "bridge", "cpu": 0.25, "memory": 512, "pidMode": "task", "ipcMode": "task",
            "volumes": [
                {"name": "h", "type": "host", "host": {"sourcePath": "/srv"}},
                {"name": "d", "type": "docker", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true, "driver": "local",
                    "driverOpts": {"type": "tmpfs"}, "labels": {"a": "b"}}},
                {"name": "e", "type": "efs", "efsVolumeConfiguration": {"fileSystemId": "fs-1", "rootDirectory": "/", "transitEncryption": "ENABLED",
                    "transitEncryptionPort": 2999, "authorizationConfig": {"accessPointId": "fsap-1", "iam": "ENABLED"}}}
            ],
            "roleCredentials": {"credentialsId": "c", "roleArn": "r", "accessKeyId": "ASIA", "secretAccessKey": "s", "sessionToken": "t",
                                "expiration": "2026-11-21T04:00:00Z"},
            "executionRoleCredentials": {"credentialsId": "x", "roleArn": "r", "accessKeyId": "ASIA", "secretAccessKey": "s",
                                         "sessionToken": "t", "expiration": "2026-11-21T04:00:00Z"},
            "elasticNetworkInterfaces": [interface()],
            "associations": [{"name": "gpu-0", "type": "gpu", "containers": ["app"], "content": {"value": "", "encoding": "base64"}}],
            "proxyConfiguration": {"type": "APPMESH", "containerName": "envoy", "properties": {"ProxyIngressPort": "15000"}},
            "attachments": [{"attachmentArn": "a", "attachmentType": "serviceconnectdetail", "attachmentProperties": [{"name": "n", "value": "v"}]}],
            "zone": "us-east-1a", "agentConfiguration": {"k": "v"}, "enableFaultInjection": true, "trustedExecutionConfiguration": {},
            "containers": [{
                "name": "app", "image": "web:1", "essential": true, "cpu": 256, "memory": 512, "command": ["serve"], "entryPoint": ["/bin/sh"],
                "environment": {"A": "1"}, "environmentFiles": [{"value": "arn:aws:s3:::b/k", "type": "s3"}], "links": ["db:database"],
                "portMappings": [{"containerPort": 80, "hostPort": 8080, "protocol": "tcp"},
                                 {"hostPort": 0, "protocol": "udp", "containerPortRange": "8000-8010"}],
                "mountPoints": [{"sourceVolume": "h", "containerPath": "/data", "readOnly": true}],
                "volumesFrom": [{"sourceContainer": "db", "readOnly": false}],
                "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}], "startTimeout": 30, "stopTimeout": 10,
                "healthCheckType": "docker",
                "registryAuthentication": {"type": "ecr", "ecrAuthData": {"registryId": "0", "region": "us-east-1", "endpointOverride": "http://h",
                                           "useExecutionRole": true}},
                "logsAuthStrategy": "ExecutionRole",
                "secrets": [{"name": "S", "valueFrom": "arn", "region": "us-east-1", "provider": "asm", "type": "MOUNT_POINT",
                             "target": "CONTAINER", "containerPath": "/run/s"}],
                "firelensConfiguration": {"type": "fluentbit", "options": {"enable-ecs-log-metadata": "true"}},
                "managedAgents": [{"name": "ExecuteCommandAgent", "properties": {"sessionLimit": "2"}}],
                "restartPolicy": {"enabled": true, "ignoredExitCodes": [0], "restartAttemptPeriod": 300},
                "containerArn": "arn:c", "networkInterfaceNames": ["eth1"], "credentialSpecs": ["spec"],
                "dockerConfig": {"version": "1.21", "config": "{\"User\":\"1000\"}", "hostConfig": "{\"NetworkMode\":\"bridge\"}"},
                "overrides": "{\"command\":[\"serve\"]}"
            }]
        }]
    });
    let ServerFrame::Payload(payload) = frame else { panic!("a payload") };
    let container = &payload.tasks[0].containers[0];
    let docker = container.docker_config.as_ref().unwrap();
    assert_eq!(docker.container_config().unwrap().user, "1000");
    assert_eq!(docker.host_config().unwrap().network_mode, "bridge");
    let shown = format!("{payload:?}");
    assert!(!shown.contains("secret_access_key") && !shown.contains("session_token"), "{shown}");
}

#[test]
fn a_stop_is_short() {
    let frame = ServerFrame::decode(
        &json!({"type": "PayloadMessage", "message": {"messageId": "m", "tasks": [{"arn": TASK, "desiredStatus": "STOPPED"}]}}).to_string(),
    );
    let ServerFrame::Payload(payload) = frame.unwrap() else { panic!("a payload") };
    assert_eq!(payload.tasks[0], Task { arn: TASK.into(), desired_status: DesiredStatus::Stopped, ..Task::default() });
}

#[test]
fn docker_config_strings() {
    let config = ContainerConfig {
        user: "1000:1000".into(),
        working_dir: "/srv".into(),
        hostname: "web".into(),
        labels: BTreeMap::from([("a".into(), "b".into())]),
        tty: true,
        open_stdin: true,
        network_disabled: true,
        healthcheck: Some(HealthCheck {
            test: vec!["CMD-SHELL".into(), "true".into()],
            interval: 30_000_000_000,
            timeout: 5_000_000_000,
            start_period: 1,
            retries: 3,
        }),
    };
    let host = HostConfig {
        network_mode: "bridge".into(),
        log_config: Some(LogConfig { kind: "awslogs".into(), config: BTreeMap::from([("awslogs-group".into(), "g".into())]) }),
        privileged: true,
        readonly_rootfs: true,
        cap_add: vec!["NET_ADMIN".into()],
        cap_drop: vec!["ALL".into()],
        devices: vec![Device { path_on_host: "/dev/fuse".into(), path_in_container: "/dev/fuse".into(), cgroup_permissions: "rwm".into() }],
        init: Some(true),
        shm_size: 67_108_864,
        tmpfs: BTreeMap::from([("/tmp".into(), "size=1m".into())]),
        sysctls: BTreeMap::from([("net.core.somaxconn".into(), "1024".into())]),
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 1024, hard: 4096 }],
        dns: vec!["10.0.0.2".into()],
        dns_search: vec!["example".into()],
        extra_hosts: vec!["db:10.0.0.3".into()],
        security_opt: vec!["no-new-privileges".into()],
        memory_reservation: 1,
        memory_swap: -1,
        memory_swappiness: Some(0),
        pid_mode: "host".into(),
        ipc_mode: "host".into(),
    };
    let rendered = DockerConfig::render(&config, &host);
    let keys = |text: &Option<String>| match serde_json::from_str(text.as_deref().unwrap()).unwrap() {
        Value::Object(fields) => fields.keys().cloned().collect::<Vec<_>>().join(" "),
        other => panic!("{other}"),
    };
    assert_eq!(keys(&rendered.config), "Healthcheck Hostname Labels NetworkDisabled OpenStdin Tty User WorkingDir");
    assert_eq!(
        keys(&rendered.host_config),
        "CapAdd CapDrop Devices Dns DnsSearch ExtraHosts Init IpcMode LogConfig MemoryReservation MemorySwap MemorySwappiness NetworkMode \
         PidMode Privileged ReadonlyRootfs SecurityOpt ShmSize Sysctls Tmpfs Ulimits"
    );
    let host_json: Value = serde_json::from_str(rendered.host_config.as_deref().unwrap()).unwrap();
    assert_eq!(host_json["LogConfig"], json!({"Type": "awslogs", "Config": {"awslogs-group": "g"}}));
    assert_eq!(host_json["Ulimits"], json!([{"Name": "nofile", "Soft": 1024, "Hard": 4096}]));
    assert_eq!(host_json["Devices"], json!([{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}]));
    assert_eq!((rendered.container_config().unwrap(), rendered.host_config().unwrap()), (config, host));

    let plain = DockerConfig::render(&ContainerConfig::default(), &HostConfig::default());
    assert_eq!((plain.config.as_deref(), plain.host_config.as_deref()), (Some("{}"), Some("{}")));
    let nulls = DockerConfig {
        version: String::new(),
        config: Some(String::new()),
        host_config: Some(r#"{"CapAdd":null,"Binds":["/a:/b"],"Dns":["1.1.1.1"]}"#.into()),
    };
    assert_eq!(nulls.container_config().unwrap(), ContainerConfig::default());
    assert_eq!(nulls.host_config().unwrap().dns, ["1.1.1.1"]);
    let broken = DockerConfig { host_config: Some(r#"{"Privileged":"yes"}"#.into()), ..DockerConfig::default() };
    assert!(broken.host_config().unwrap_err().to_string().starts_with("dockerConfig.hostConfig is not Docker API JSON"));
}

#[test]
fn tcs_upwards() {
    let count = json!({"min": 1, "max": 2, "sum": 3, "sampleCount": 2, "overflowSum": 1});
    let stats = json!({"min": 0.5, "max": 1.5, "sum": 2.0, "sampleCount": 2});
    round_trip!(TelemetryFrame, "PublishMetricsRequest", {
        "metadata": {"cluster": "default", "containerInstance": INSTANCE, "messageId": "m", "idle": false, "fin": true},
        "taskMetrics": [{
            "taskArn": TASK, "taskDefinitionFamily": "web", "taskDefinitionVersion": "3", "clusterArn": CLUSTER,
            "containerMetrics": [{
                "containerName": "app", "cpuStatsSet": stats, "memoryStatsSet": stats,
                "storageStatsSet": {"readSizeBytes": count, "writeSizeBytes": count},
                "networkStatsSet": {"rxBytes": count, "txBytes": count, "rxPackets": count, "txPackets": count, "rxDropped": count,
                    "txDropped": count, "rxErrors": count, "txErrors": count, "rxBytesPerSecond": stats, "txBytesPerSecond": stats},
                "restartStatsSet": {"restartCount": 1}
            }],
            "volumeMetrics": [{}], "ephemeralStorageMetrics": {}, "serviceConnectMetricsWrapper": []
        }],
        "timestamp": 1795233600.123
    });
    // With no tasks at all, as seen on the wire.
    round_trip!(TelemetryFrame, "PublishMetricsRequest", {
        "metadata": {"cluster": "default", "containerInstance": INSTANCE, "messageId": "m", "idle": true, "fin": true},
        "timestamp": 1795233600.5
    });
    let health = round_trip!(TelemetryFrame, "PublishHealthRequest", {
        "metadata": {"cluster": "default", "containerInstance": INSTANCE, "messageId": "m", "fin": true},
        "tasks": [{"taskArn": TASK, "taskDefinitionFamily": "web", "taskDefinitionVersion": "3",
                   "containers": [{"containerName": "app", "healthStatus": "UNHEALTHY", "statusSince": 1795233600.25}]}],
        "timestamp": 1795233600.5
    });
    let TelemetryFrame::Health(health) = health else { panic!("health") };
    assert_eq!(health.tasks[0].containers[0].health_status, HealthStatus::Unhealthy);
    round_trip!(TelemetryFrame, "PublishInstanceStatusRequest", {
        "metadata": {"cluster": "default", "containerInstance": INSTANCE, "requestId": "r"},
        "statuses": [{"type": "ContainerRuntime", "status": "IMPAIRED", "lastUpdated": 1.5, "lastStatusChange": 0.5, "statusReason": "no docker"}],
        "timestamp": 1795233600.5
    });
    // Go writes whole seconds without a fraction.
    assert!(TelemetryFrame::decode(r#"{"type":"PublishHealthRequest","message":{"timestamp":1795233600}}"#).is_ok());
}

#[test]
fn tcs_downwards() {
    for (kind, frame) in [
        ("AckPublishMetric", r#"{"type":"PublishMetricsRequest","message":{}}"#),
        ("AckPublishHealth", r#"{"type":"PublishHealthRequest","message":{}}"#),
        ("AckPublishInstanceStatus", r#"{"type":"PublishInstanceStatusRequest","message":{}}"#),
    ] {
        let answer = TelemetryFrame::decode(frame).unwrap().answer().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&answer.encode().unwrap()).unwrap(), json!({"type": kind, "message": {"message": ""}}));
        assert_eq!(TelemetryAnswer::decode(&answer.encode().unwrap()).unwrap(), answer);
    }
    assert!(TelemetryFrame::Unknown { kind: "X".into() }.answer().is_none());
    round_trip!(TelemetryAnswer, "HeartbeatMessage", {"healthy": true});
    round_trip!(TelemetryAnswer, "StopTelemetrySessionMessage", {"message": "enough"});
}

#[test]
fn what_is_not_known_is_passed_over() {
    let frame = ServerFrame::decode(r#"{"type":"FutureMessage","message":{"a":[1,{"b":null}]},"more":1}"#).unwrap();
    assert_eq!(frame, ServerFrame::Unknown { kind: "FutureMessage".into() });
    let frame = AgentFrame::decode(r#"{"message":{"messageId":"m","new":{"x":1}},"type":"HeartbeatAckRequest"}"#).unwrap();
    assert_eq!(frame, AgentFrame::HeartbeatAck(HeartbeatAckRequest { message_id: "m".into() }));
    assert_eq!(ServerFrame::decode(r#"{"type":"CloseMessage"}"#).unwrap(), ServerFrame::Close(ExceptionMessage::default()));
    assert_eq!(ServerFrame::decode(r#"{"type":"CloseMessage","message":null}"#).unwrap(), ServerFrame::Close(ExceptionMessage::default()));
    let ServerFrame::TaskManifest(manifest) =
        ServerFrame::decode(r#"{"type":"TaskManifestMessage","message":{"tasks":[{"taskArn":"t","desiredStatus":"PAUSED"}]}}"#).unwrap()
    else {
        panic!("a manifest")
    };
    assert_eq!(manifest.tasks[0].desired_status, DesiredStatus::Unspecified);
}

#[test]
fn nulls_and_objects_where_gos_decoder_takes_them() {
    let ServerFrame::Payload(payload) = ServerFrame::decode(
        r#"{"type":"PayloadMessage","message":{"messageId":"m","seqNum":null,"tasks":[{"arn":"t","volumes":null,"family":null,
            "containers":[{"name":"c","command":null,"environment":null,"overrides":{"command":["a"]}},null]}]}}"#,
    )
    .unwrap() else {
        panic!("a payload")
    };
    let container = &payload.tasks[0].containers[0];
    assert_eq!(container.overrides, JsonText(r#"{"command":["a"]}"#.into()));
    assert_eq!((payload.seq_num, payload.tasks[0].containers.len()), (0, 1));
    assert_eq!(Container::default().overrides, JsonText("{}".into()));
}

#[test]
fn what_is_no_frame_says_why() {
    assert!(matches!(ServerFrame::decode("nonsense"), Err(FrameError::Envelope { .. })));
    assert!(matches!(ServerFrame::decode("[]"), Err(FrameError::Envelope { .. })));
    let error = ServerFrame::decode(r#"{"type":"HeartbeatMessage","message":{"healthy":"yes"}}"#).unwrap_err();
    assert!(error.to_string().starts_with("the message of a HeartbeatMessage cannot be read"), "{error}");
    let large = " ".repeat(MAX_FRAME + 1);
    assert!(matches!(AgentFrame::decode(&large), Err(FrameError::TooLarge { size }) if size == MAX_FRAME + 1));
    let nack = AgentFrame::Nack(NackRequest { reason: large, ..NackRequest::default() });
    assert!(matches!(nack.encode(), Err(FrameError::TooLarge { .. })));
}
