//! Each member of a task definition as an agent is told of it, looked for in the very JSON that goes out.

use berth_model::arn::Scope;
use berth_model::ids::{ClusterName, ContainerId, ContainerInstanceId, DefinitionId, Family, TaskId};
use berth_model::needs::TaskNeeds;
use berth_model::tags::Tags;
use berth_model::task::{Container, Task};
use berth_model::task_definition::{TaskDefinition, TaskDefinitionStatus};
use berth_model::time::UnixMillis;
use serde_json::{Value, json};

/// A task of the definition `document`, with `overrides`.
fn render(document: &Value, overrides: Option<Value>) -> Value {
    let id = DefinitionId { family: Family::parse("web").unwrap(), revision: 3 };
    let record = |(at, container): (usize, &Value)| {
        Container::pending(
            ContainerId(at as u128),
            container["name"].as_str().unwrap().into(),
            container["image"].as_str().unwrap_or("image:1").into(),
        )
    };
    let task = Task {
        availability_zone: Some("zone-a".into()),
        containers: document["containerDefinitions"].as_array().unwrap().iter().enumerate().map(record).collect(),
        overrides: overrides.map(|overrides| Box::new(serde_json::from_value(overrides).unwrap())),
        ..Task::placed(TaskId(1), ClusterName::parse("c").unwrap(), id.clone(), "family:web".into(), ContainerInstanceId(1), UnixMillis(0))
    };
    let definition = TaskDefinition {
        id,
        status: TaskDefinitionStatus::Active,
        registered_at: UnixMillis(0),
        registered_by: String::new(),
        deregistered_at: None,
        delete_requested_at: None,
        tags: Tags::new(),
        document: serde_json::from_value(document.clone()).unwrap(),
        needs: TaskNeeds::default(),
    };
    let scope = Scope { region: "eu-west-1".into(), account: "000000000000".into() };
    serde_json::to_value(super::render(&scope, &task, &definition)).unwrap()
}

/// The only container of a task, with these members beside its name.
fn container(mut members: Value) -> Value {
    members["name"] = json!("app");
    render(&json!({"containerDefinitions": [members]}), None)["containers"][0].take()
}

/// The same with `overrides.containerOverrides` of it.
fn overridden(mut members: Value, mut own: Value) -> Value {
    members["name"] = json!("app");
    own["name"] = json!("app");
    let overrides = json!({"containerOverrides": [own]});
    render(&json!({"containerDefinitions": [members]}), Some(overrides))["containers"][0].take()
}

fn docker(container: &Value, which: &str) -> Value {
    serde_json::from_str(container["dockerConfig"][which].as_str().unwrap()).unwrap()
}

fn config(members: Value) -> Value {
    docker(&container(members), "config")
}

fn host(members: Value) -> Value {
    docker(&container(members), "hostConfig")
}

#[test]
fn a_container_that_says_little_sends_little() {
    let sent = container(json!({"image": "box:1"}));
    let fields: Vec<_> = sent.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["containerArn", "cpu", "dockerConfig", "essential", "image", "memory", "name", "overrides"]);
    assert_eq!((&sent["overrides"], &sent["essential"], &sent["memory"]), (&json!("{}"), &json!(true), &json!(0)));
    assert_eq!(docker(&sent, "config"), json!({}));
    assert_eq!(docker(&sent, "hostConfig"), json!({"NetworkMode": "bridge"}));
    assert_eq!(sent["dockerConfig"]["version"], "1.21");
}

#[test]
fn the_task_around_its_containers() {
    let document = json!({"networkMode": "host", "pidMode": "task", "ipcMode": "host", "cpu": "512", "memory": "1024", "enableFaultInjection": true,
        "taskRoleArn": "arn:aws:iam::000000000000:role/t", "executionRoleArn": "arn:aws:iam::000000000000:role/e",
        "proxyConfiguration": {"type": "APPMESH", "containerName": "app", "properties": [{"name": "AppPorts", "value": "80"}]},
        "containerDefinitions": [{"name": "app"}, {"name": "side", "essential": false}]});
    let sent = render(&document, None);
    assert_eq!(sent["arn"], "arn:aws:ecs:eu-west-1:000000000000:task/c/00000000000000000000000000000001");
    let expected = json!({"family": "web", "version": "3", "desiredStatus": "RUNNING", "networkMode": "host", "pidMode": "task", "ipcMode": "host",
        "cpu": 0.5, "memory": 1024, "enableFaultInjection": true, "zone": "zone-a", "group": "family:web", "launchType": "EC2",
        "proxyConfiguration": {"type": "APPMESH", "containerName": "app", "properties": {"AppPorts": "80"}}});
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&sent[member], value, "{member}");
    }
    let names: Vec<_> = sent["containers"].as_array().unwrap().iter().map(|one| (&one["name"], &one["essential"])).collect();
    assert_eq!(names, [(&json!("app"), &json!(true)), (&json!("side"), &json!(false))], "in the definition's order");
    // Credentials are of a moment, and are not rendered.
    assert_eq!((sent.get("roleCredentials"), sent.get("executionRoleCredentials")), (None, None));
    assert_eq!(docker(&sent["containers"][0], "hostConfig"), json!({"NetworkMode": "host"}), "the task says what is shared");
    let own = render(&document, Some(json!({"cpu": "1 vCPU", "memory": "2 GB"})));
    assert_eq!((&own["cpu"], &own["memory"]), (&json!(1.0), &json!(2048)));
}

#[test]
fn members_with_a_field_of_their_own() {
    let sent = container(
        json!({"image": "box:1", "cpu": 64, "memory": 48, "command": ["a", "b"], "entryPoint": ["/e"], "links": ["db:main"],
        "startTimeout": 9, "stopTimeout": 3, "credentialSpecs": ["credentialspec:x"],
        "portMappings": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "udp"}, {"containerPortRange": "9000-9002"}],
        "mountPoints": [{"sourceVolume": "v", "containerPath": "/v", "readOnly": true}],
        "volumesFrom": [{"sourceContainer": "db", "readOnly": true}, {"sourceContainer": "other"}],
        "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}],
        "firelensConfiguration": {"type": "fluentd", "options": {"k": "v"}}}),
    );
    let expected = json!({"cpu": 64, "memory": 48, "command": ["a", "b"], "entryPoint": ["/e"], "links": ["db:main"],
        "startTimeout": 9, "stopTimeout": 3, "credentialSpecs": ["credentialspec:x"],
        "portMappings": [{"containerPort": 80, "hostPort": 8080, "protocol": "tcp"}, {"containerPort": 53, "hostPort": 0, "protocol": "udp"},
            {"containerPortRange": "9000-9002", "hostPort": 0, "protocol": "tcp"}],
        "mountPoints": [{"sourceVolume": "v", "containerPath": "/v", "readOnly": true}],
        "volumesFrom": [{"sourceContainer": "db", "readOnly": true}, {"sourceContainer": "other", "readOnly": false}],
        "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}],
        "firelensConfiguration": {"type": "fluentd", "options": {"k": "v"}}});
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&sent[member], value, "{member}");
    }
}

#[test]
fn a_restart_policy_has_ecss_period_unless_it_says_another() {
    let policy = |policy: Value| container(json!({"restartPolicy": policy}))["restartPolicy"].take();
    let own = json!({"enabled": true, "ignoredExitCodes": [7], "restartAttemptPeriod": 60});
    assert_eq!(policy(own.clone()), own);
    assert_eq!(policy(json!({"enabled": true})), json!({"enabled": true, "restartAttemptPeriod": 300}));
}

#[test]
fn dockers_config() {
    let sent =
        config(json!({"user": "nobody:1", "workingDirectory": "/w", "hostname": "h", "dockerLabels": {"l": "v"}, "pseudoTerminal": true,
        "interactive": true, "disableNetworking": true}));
    assert_eq!(
        sent,
        json!({"User": "nobody:1", "WorkingDir": "/w", "Hostname": "h", "Labels": {"l": "v"}, "Tty": true, "OpenStdin": true, "NetworkDisabled": true})
    );
}

#[test]
fn a_health_check_is_in_nanoseconds_and_its_health_is_asked_for() {
    let sent = container(
        json!({"healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 30, "timeout": 5, "retries": 3, "startPeriod": 10}}),
    );
    let expected = json!({"Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000_i64, "Timeout": 5_000_000_000_i64, "StartPeriod": 10_000_000_000_i64,
        "Retries": 3});
    assert_eq!(docker(&sent, "config")["Healthcheck"], expected);
    assert_eq!((&sent["healthCheckType"], &sent["dockerConfig"]["version"]), (&json!("docker"), &json!("1.29")));
    let none = container(json!({"healthCheck": {"command": ["NONE"]}}));
    assert_eq!(docker(&none, "config")["Healthcheck"], json!({"Test": ["NONE"]}), "an image's own is switched off");
    assert_eq!(none.get("healthCheckType"), None);
}

#[test]
fn dockers_host_config() {
    let sent =
        host(json!({"privileged": true, "readonlyRootFilesystem": true, "dnsServers": ["10.9.9.9"], "dnsSearchDomains": ["x.internal"],
        "extraHosts": [{"hostname": "db", "ipAddress": "fd00::1"}], "dockerSecurityOptions": ["no-new-privileges"], "memoryReservation": 24,
        "systemControls": [{"namespace": "net.core.somaxconn", "value": "200"}],
        "ulimits": [{"name": "nofile", "softLimit": 100, "hardLimit": -1}],
        "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}}}));
    let expected = json!({"NetworkMode": "bridge", "Privileged": true, "ReadonlyRootfs": true, "Dns": ["10.9.9.9"], "DnsSearch": ["x.internal"],
        "ExtraHosts": ["db:fd00::1"], "SecurityOpt": ["no-new-privileges"], "MemoryReservation": 24 * 1024 * 1024,
        "Sysctls": {"net.core.somaxconn": "200"}, "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": -1}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}});
    assert_eq!(sent, expected);
}

#[test]
fn linux_parameters() {
    let sent = host(
        json!({"linuxParameters": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "initProcessEnabled": true, "sharedMemorySize": 16,
        "tmpfs": [{"containerPath": "/run", "size": 8, "mountOptions": ["noexec", "mode=1777"]}],
        "devices": [{"hostPath": "/dev/zero", "containerPath": "/dev/nought", "permissions": ["read", "mknod"]}, {"hostPath": "/dev/null"}]}}),
    );
    let expected = json!({"NetworkMode": "bridge", "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"], "Init": true, "ShmSize": 16 * 1024 * 1024,
        "Tmpfs": {"/run": "noexec,mode=1777,size=8m"},
        "Devices": [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/nought", "CgroupPermissions": "rm"},
            {"PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "rwm"}]});
    assert_eq!(sent, expected);
    assert_eq!(host(json!({"linuxParameters": {"initProcessEnabled": false}})).get("Init"), None, "the daemon's own setting stands");
}

#[test]
fn swap_is_counted_with_memory_and_needs_a_limit_of_memory() {
    let swap = |members: Value| {
        let host = host(members);
        (host.get("MemorySwap").cloned(), host.get("MemorySwappiness").cloned())
    };
    let mib = |mib: i64| Some(json!(mib * 1024 * 1024));
    assert_eq!(swap(json!({"memory": 48, "linuxParameters": {"maxSwap": 16, "swappiness": 0}})), (mib(64), Some(json!(0))));
    assert_eq!(swap(json!({"memory": 48, "linuxParameters": {"maxSwap": 0}})), (mib(48), None), "no swap at all");
    assert_eq!(swap(json!({"memoryReservation": 48, "linuxParameters": {"maxSwap": 16}})), (None, None));
    assert_eq!(swap(json!({"memory": 48, "linuxParameters": {"swappiness": 40}})), (None, None), "ECS ignores it without maxSwap");
}

#[test]
fn the_api_version_is_the_oldest_that_has_all_of_it() {
    let version = |members: Value| container(members)["dockerConfig"]["version"].take();
    assert_eq!(version(json!({"linuxParameters": {"sharedMemorySize": 1}})), "1.22");
    assert_eq!(version(json!({"healthCheck": {"command": ["CMD", "true"]}})), "1.24");
    assert_eq!(version(json!({"linuxParameters": {"initProcessEnabled": true}})), "1.25");
}

#[test]
fn secrets_say_where_they_are_kept() {
    let sent = container(json!({"secrets": [{"name": "A", "valueFrom": "/a/b"},
            {"name": "B", "valueFrom": "arn:aws:ssm:us-east-2:000000000000:parameter/b"},
            {"name": "C", "valueFrom": "arn:aws:secretsmanager:us-east-2:000000000000:secret:c-x:key::"}],
        "logConfiguration": {"logDriver": "splunk", "secretOptions": [{"name": "token", "valueFrom": "/t"}]}}));
    let secret = |name: &str, from: &str, region: &str, provider: &str, kind: &str, target: &str| json!({"name": name, "valueFrom": from, "region": region, "provider": provider, "type": kind, "target": target});
    let variable = ("ENVIRONMENT_VARIABLE", "CONTAINER");
    let expected = json!([
        secret("A", "/a/b", "eu-west-1", "ssm", variable.0, variable.1),
        secret("B", "arn:aws:ssm:us-east-2:000000000000:parameter/b", "us-east-2", "ssm", variable.0, variable.1),
        secret("C", "arn:aws:secretsmanager:us-east-2:000000000000:secret:c-x:key::", "us-east-2", "asm", variable.0, variable.1),
        // Else the official agent makes it an environment variable.
        secret("token", "/t", "eu-west-1", "ssm", "BOOTSTRAP", "LOG_DRIVER"),
    ]);
    assert_eq!(sent["secrets"], expected);
}

#[test]
fn what_only_an_execution_role_could_fetch_is_named() {
    let unmet = |mut members: Value| {
        members["name"] = json!("app");
        let mut sent: berth_acs::messages::Task =
            serde_json::from_value(render(&json!({"containerDefinitions": [{"name": "first"}, members]}), None)).unwrap();
        let reason = super::unmet(&sent);
        sent.execution_role_credentials = Some(Default::default());
        assert_eq!(super::unmet(&sent), None, "with credentials all is well");
        reason
    };
    let file = json!([{"value": "arn:aws:s3:::b/x.env", "type": "s3"}]);
    let cases = [
        ("secrets", json!({"secrets": [{"name": "A", "valueFrom": "/a"}]})),
        ("secrets", json!({"logConfiguration": {"logDriver": "splunk", "secretOptions": [{"name": "A", "valueFrom": "/a"}]}})),
        ("environmentFiles", json!({"environmentFiles": file})),
        ("repositoryCredentials", json!({"repositoryCredentials": {"credentialsParameter": "p"}})),
    ];
    for (member, members) in cases {
        let reason = unmet(members).unwrap();
        assert!(reason.starts_with(&format!("ResourceInitializationError: {member} of container app ")), "{reason}");
    }
    assert_eq!(unmet(json!({"image": "123456789012.dkr.ecr.us-east-2.amazonaws.com/a:1"})), None, "with the instance's own credentials");
}

#[test]
fn registries_that_want_a_login() {
    let login = |members: Value| container(members)["registryAuthentication"].take();
    let parameter = "arn:aws:secretsmanager:us-east-2:000000000000:secret:login";
    let asm = json!({"type": "asm", "asmAuthData": {"credentialsParameter": parameter, "region": "us-east-2"}});
    assert_eq!(login(json!({"image": "registry.example/a:1", "repositoryCredentials": {"credentialsParameter": parameter}})), asm);
    let ecr =
        |region: &str| json!({"type": "ecr", "ecrAuthData": {"registryId": "123456789012", "region": region, "useExecutionRole": false}});
    assert_eq!(login(json!({"image": "123456789012.dkr.ecr.us-east-2.amazonaws.com/a:1"})), ecr("us-east-2"));
    assert_eq!(login(json!({"image": "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a/b@sha256:00"})), ecr("cn-north-1"));
    assert_eq!(login(json!({"image": "123456789012.dkr-ecr.eu-west-1.on.aws/a"})), ecr("eu-west-1"));
    for image in [
        "box:1",
        "public.ecr.aws/a/b:1",
        "host:5000/a",
        "x.dkr.ecr.us-east-2.amazonaws.com/a",
        "123456789012.dkr.ecr.us-east-2.amazonaws.com.evil.example/a",
    ] {
        assert_eq!(login(json!({"image": image})), Value::Null, "{image}");
    }
}

#[test]
fn overrides_are_merged_and_their_environment_files_come_instead() {
    let file = |name: &str| json!({"value": format!("arn:aws:s3:::b/{name}"), "type": "s3"});
    let defined = json!({"cpu": 1, "memory": 10, "memoryReservation": 5, "command": ["a"], "environmentFiles": [file("defined.env")],
        "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}], "linuxParameters": {"maxSwap": 1}});
    let own = json!({"cpu": 2, "memory": 20, "memoryReservation": 15, "command": ["b"], "environmentFiles": [file("own.env")],
        "environment": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]});
    let sent = overridden(defined.clone(), own);
    let expected = json!({"cpu": 2, "memory": 20, "command": ["b"], "environment": {"A": "1", "B": "2", "C": "3"}, "overrides": "{}",
        "environmentFiles": [file("own.env")]});
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&sent[member], value, "{member}");
    }
    let host = docker(&sent, "hostConfig");
    assert_eq!((&host["MemoryReservation"], &host["MemorySwap"]), (&json!(15 << 20), &json!(21 << 20)));
    let sent = overridden(defined, json!({"command": ["c"]}));
    assert_eq!((&sent["environmentFiles"], &sent["cpu"], &sent["memory"]), (&json!([file("defined.env")]), &json!(1), &json!(10)));
}

#[test]
fn volumes_of_each_kind() {
    let volume = |mut volume: Value| {
        volume["name"] = json!("v");
        render(&json!({"containerDefinitions": [{"name": "app"}], "volumes": [volume]}), None)["volumes"][0].take()
    };
    assert_eq!(volume(json!({})), json!({"name": "v", "type": "host", "host": {}}));
    assert_eq!(volume(json!({"host": {"sourcePath": "/h"}})), json!({"name": "v", "type": "host", "host": {"sourcePath": "/h"}}));
    let docker = json!({"scope": "shared", "autoprovision": true, "driver": "x", "driverOpts": {"o": "1"}, "labels": {"k": "v"}});
    let expected = json!({"name": "v", "type": "docker", "dockerVolumeConfiguration": docker});
    assert_eq!(volume(json!({"dockerVolumeConfiguration": docker})), expected);
    let plain = json!({"scope": "task", "autoprovision": false, "driver": "local"});
    assert_eq!(volume(json!({"dockerVolumeConfiguration": {}}))["dockerVolumeConfiguration"], plain);
    let efs = json!({"fileSystemId": "fs-1", "rootDirectory": "/r", "transitEncryption": "ENABLED", "transitEncryptionPort": 2049,
        "authorizationConfig": {"accessPointId": "fsap-1", "iam": "ENABLED"}});
    assert_eq!(volume(json!({"efsVolumeConfiguration": efs})), json!({"name": "v", "type": "efs", "efsVolumeConfiguration": efs}));
    let plain = json!({"fileSystemId": "fs-1", "rootDirectory": "/", "transitEncryption": "DISABLED"});
    assert_eq!(volume(json!({"efsVolumeConfiguration": {"fileSystemId": "fs-1"}}))["efsVolumeConfiguration"], plain);
    let windows =
        json!({"fileSystemId": "fs-1", "rootDirectory": "d", "authorizationConfig": {"credentialsParameter": "p", "domain": "x"}});
    let expected = json!({"name": "v", "type": "fsxWindowsFileServer", "fsxWindowsFileServerVolumeConfiguration": windows});
    assert_eq!(volume(json!({"fsxWindowsFileServerVolumeConfiguration": windows})), expected);
    let files = json!({"fileSystemArn": "arn:aws:s3files:us-east-1:000000000000:file-system/fs-1", "rootDirectory": "/r", "transitEncryptionPort": 2049,
        "accessPointArn": "arn:aws:s3files:us-east-1:000000000000:file-system/fs-1/access-point/fsap-1"});
    let expected = json!({"volumeName": "v", "volumeId": "fs-1", "s3FilesRootDirectory": "/r", "s3FilesTransitEncryptionPort": "2049",
        "s3FilesAccessPointId": "fsap-1"});
    assert_eq!(
        volume(json!({"s3filesVolumeConfiguration": files})),
        json!({"name": "v", "type": "s3files", "s3filesVolumeConfiguration": expected})
    );
}
