"""The unmodified amazon-ecs-agent joins Berth and runs tasks with a real dockerd. See official_agent.py for what it needs."""

import socket

import pytest

import official_agent
from berth import Berth, until
from containers import IDLE, shell
from ecs_calls import describe, register, run, service, until_status, until_steady

LACKING = official_agent.missing()
if LACKING:
    pytest.skip(f"SKIPPED (needs {LACKING}): test_official_agent.py", allow_module_level=True)


@pytest.fixture(scope="module")
def site():
    """Berth, dockerd and the agent, in a namespace of their own; the tests are in it, too."""
    with official_agent.Namespace():
        berth, docker = Berth("server"), official_agent.Docker()
        agent = None
        try:
            berth.start()
            docker.start()
            agent = official_agent.OfficialAgent(berth, docker).start()
            yield agent
        finally:
            if agent:
                agent.end()
            docker.end()
            berth.end()


@pytest.fixture
def ecs(site):
    return site.berth.ecs


def start(ecs, *containers, **members):
    return run(ecs, "default", register(ecs, containers=list(containers), **members))[0]


def finished(ecs, *containers, **members):
    arn = start(ecs, *containers, **members)
    until("the task to end", lambda: describe(ecs, "default", arn)["lastStatus"] == "STOPPED")
    return describe(ecs, "default", arn)


def stop(ecs, arn):
    ecs.stop_task(cluster="default", task=arn)
    return until("the task to end", lambda: (task := describe(ecs, "default", arn))["lastStatus"] == "STOPPED" and task)


def test_it_is_registered_with_its_capabilities_and_version(site):
    (instance,) = site.instances()
    names = {attribute["name"] for attribute in instance["attributes"]}
    assert {"ecs.capability.external", "com.amazonaws.ecs.capability.docker-remote-api.1.21", "ecs.capability.full-sync"} <= names
    assert instance["versionInfo"]["agentVersion"] and instance["versionInfo"]["dockerVersion"].startswith("DockerVersion: ")
    assert {r["name"] for r in instance["registeredResources"]} >= {"CPU", "MEMORY", "PORTS", "PORTS_UDP"}


def test_three_containers_in_their_order_and_their_stop(ecs):
    first = shell("exit 0", name="first", essential=False)
    second = shell(IDLE, name="second", dependsOn=[{"containerName": "first", "condition": "SUCCESS"}])
    arn = start(ecs, first, second, shell("sleep 1000", name="third", stopTimeout=2))
    task = until_status(ecs, "default", arn, "RUNNING")
    assert {c["name"]: (c["lastStatus"], c.get("exitCode")) for c in task["containers"]} == {
        "first": ("STOPPED", 0),
        "second": ("RUNNING", None),
        "third": ("RUNNING", None),
    }
    task = stop(ecs, arn)
    assert (task["stopCode"], {c["name"]: c["exitCode"] for c in task["containers"]}) == ("UserInitiated", {"first": 0, "second": 0, "third": 137})


def test_docker_is_given_every_member(site, ecs, tmp_path):
    """Except `privileged`, which a machine may not be able to give."""
    linux = {
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["MKNOD"]},
        "devices": [{"hostPath": "/dev/zero", "containerPath": "/dev/nought", "permissions": ["read"]}],
        "initProcessEnabled": True,
        "sharedMemorySize": 16,
        "tmpfs": [{"containerPath": "/run", "size": 8, "mountOptions": ["noexec"]}],
        "maxSwap": 16,
        "swappiness": 40,
    }
    everything = shell(
        IDLE,
        cpu=64,
        memory=48,
        memoryReservation=24,
        environment=[{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
        user="nobody",
        workingDirectory="/tmp",
        hostname="box-host",
        extraHosts=[{"hostname": "db", "ipAddress": "10.1.2.3"}],
        dnsServers=["10.9.9.9"],
        dnsSearchDomains=["x.internal"],
        ulimits=[{"name": "nofile", "softLimit": 100, "hardLimit": 200}],
        linuxParameters=linux,
        readonlyRootFilesystem=True,
        systemControls=[{"namespace": "net.core.somaxconn", "value": "200"}],
        dockerLabels={"l": "v"},
        dockerSecurityOptions=["no-new-privileges"],
        interactive=True,
        pseudoTerminal=True,
        healthCheck={"command": ["CMD-SHELL", "true"], "interval": 5, "timeout": 2, "retries": 2, "startPeriod": 1},
        logConfiguration={"logDriver": "json-file", "options": {"max-size": "1m"}},
        portMappings=[{"containerPort": 8080, "hostPort": 18080}, {"containerPort": 53, "protocol": "udp"}],
        mountPoints=[
            {"sourceVolume": "host", "containerPath": "/h"},
            {"sourceVolume": "task", "containerPath": "/t", "readOnly": True},
            {"sourceVolume": "docker", "containerPath": "/d"},
        ],
    )
    beside = shell(
        IDLE,
        name="beside",
        links=["app:main"],
        volumesFrom=[{"sourceContainer": "app", "readOnly": True}],
        dependsOn=[{"containerName": "app", "condition": "HEALTHY"}],
    )
    docker_volume = {"scope": "task", "driver": "local", "labels": {"k": "v"}}
    volumes = [{"name": "host", "host": {"sourcePath": str(tmp_path)}}, {"name": "task"}, {"name": "docker", "dockerVolumeConfiguration": docker_volume}]
    own = {"name": "app", "environment": [{"name": "B", "value": "2"}], "cpu": 128, "memory": 56}
    definition = register(ecs, containers=[everything, beside], volumes=volumes)
    (arn,) = run(ecs, "default", definition, overrides={"containerOverrides": [own]})
    task = until_status(ecs, "default", arn, "RUNNING")
    ids = {container["name"]: container["runtimeId"] for container in task["containers"]}
    shown = site.docker.inspect(ids["app"])
    config, host, mib = shown["Config"], shown["HostConfig"], 1024 * 1024
    assert {"A=1", "B=2"} <= set(config["Env"])
    assert (config["User"], config["WorkingDir"], config["Hostname"], config["Tty"], config["OpenStdin"]) == ("nobody", "/tmp", "box-host", True, True)
    assert config["Labels"]["l"] == "v" and config["Labels"]["com.amazonaws.ecs.task-arn"] == arn
    second = 1_000_000_000
    check = {"Test": ["CMD-SHELL", "true"], "Interval": 5 * second, "Timeout": 2 * second, "StartPeriod": second, "Retries": 2}
    assert check.items() <= config["Healthcheck"].items()
    expected = {
        "CpuShares": 128,
        "Memory": 56 * mib,
        "MemoryReservation": 24 * mib,
        "MemorySwap": 72 * mib,
        "MemorySwappiness": 40,
        "ShmSize": 16 * mib,
        "Init": True,
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["MKNOD"],
        "Devices": [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/nought", "CgroupPermissions": "r"}],
        "Tmpfs": {"/run": "noexec,size=8m"},
        "Sysctls": {"net.core.somaxconn": "200"},
        "Ulimits": [{"Name": "nofile", "Hard": 200, "Soft": 100}],
        "Dns": ["10.9.9.9"],
        "DnsSearch": ["x.internal"],
        "ExtraHosts": ["db:10.1.2.3"],
        "SecurityOpt": ["no-new-privileges"],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "NetworkMode": "bridge",
    }
    assert {name: host[name] for name in expected} == expected
    mounts = {mount["Destination"]: (mount["Type"], mount["RW"]) for mount in shown["Mounts"]}
    assert mounts == {"/h": ("bind", True), "/t": ("volume", False), "/d": ("volume", True)}
    bindings = {(b["containerPort"], b["protocol"]): b["hostPort"] for b in task["containers"][0]["networkBindings"]}
    assert bindings[(8080, "tcp")] == 18080 and bindings[(53, "udp")] > 0
    other = site.docker.inspect(ids["beside"])["HostConfig"]
    assert other["Links"][0].endswith("/main") and other["VolumesFrom"][0].endswith(":ro")
    until("health to come by TCS", lambda: describe(ecs, "default", arn)["healthStatus"] == "HEALTHY")
    assert stop(ecs, arn)["containers"][0]["exitCode"] == 0


def test_exit_codes_and_reasons_are_its_own(ecs):
    task = finished(ecs, shell("exit 7"))
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == ("EssentialContainerExited", 7)
    for network in ("host", "none"):
        assert finished(ecs, shell("exit 3"), networkMode=network)["containers"][0]["exitCode"] == 3
    task = finished(ecs, {"name": "app", "image": "127.0.0.1:9/none:1", "memory": 16})
    assert task["stopCode"] == "TaskFailedToStart" and task["containers"][0]["reason"].startswith("CannotPull")
    task = finished(ecs, shell("exit 0", entryPoint=["/none"]))
    assert task["containers"][0]["reason"].startswith("CannotStartContainerError")
    with socket.create_server(("0.0.0.0", 0)) as taken:
        mapping = {"containerPort": 80, "hostPort": taken.getsockname()[1]}
        task = finished(ecs, shell(IDLE, portMappings=[mapping]))
    assert task["stopCode"] == "TaskFailedToStart" and "address already in use" in task["stoppedReason"]


def test_a_container_is_restarted_by_its_policy(site, ecs):
    """One that has run for the period, of which 60 s is the shortest, is started again; one that ended sooner is not. Nothing is reported."""
    policy = {"enabled": True, "restartAttemptPeriod": 60}
    early = shell("exit 5", name="early", essential=False, restartPolicy=policy)
    late = shell("sleep 61; exit 6", name="late", restartPolicy=policy)
    arn = start(ecs, early, late)
    task = until_status(ecs, "default", arn, "RUNNING")
    ids = {container["name"]: container["runtimeId"] for container in task["containers"]}
    started = {name: site.docker.inspect(runtime_id)["State"]["StartedAt"] for name, runtime_id in ids.items()}
    until("the second life", lambda: site.docker.inspect(ids["late"])["State"]["StartedAt"] != started["late"])
    assert describe(ecs, "default", arn)["lastStatus"] == "RUNNING"
    ended = site.docker.inspect(ids["early"])["State"]
    assert (ended["StartedAt"], ended["ExitCode"]) == (started["early"], 5)
    stop(ecs, arn)


def test_an_image_comes_out_of_berths_own_registry(site, ecs, hello_archive):
    site.berth.run("image", "load", str(hello_archive), "hello:latest")
    registry = site.berth.endpoint.removeprefix("http://")
    arn = start(ecs, {"name": "web", "image": f"{registry}/hello:latest", "memory": 32})
    task = until_status(ecs, "default", arn, "RUNNING")
    assert task["containers"][0]["imageDigest"].startswith("sha256:")
    stop(ecs, arn)


def test_a_service_rolls_over(ecs):
    check = {"command": ["CMD-SHELL", "true"], "interval": 5}
    definitions = [register(ecs, "rolls", [shell(IDLE, environment=[{"name": "V", "value": v}], healthCheck=check)]) for v in "12"]
    ecs.create_service(cluster="default", serviceName="rolls", taskDefinition=definitions[0], desiredCount=2)
    until_steady(ecs, "default", "rolls", patience=180)
    ecs.update_service(cluster="default", service="rolls", taskDefinition=definitions[1])
    until("one deployment", lambda: len(service(ecs, "default", "rolls")["deployments"]) == 1)
    assert until_steady(ecs, "default", "rolls")["taskDefinition"] == definitions[1]
    ecs.delete_service(cluster="default", service="rolls", force=True)


def test_what_ends_while_the_agent_or_berth_is_away_is_reported(site, ecs):
    stays, ends = start(ecs, shell(IDLE)), start(ecs, shell("sleep 4; exit 9"))
    for arn in (stays, ends):
        until_status(ecs, "default", arn, "RUNNING")
    site.end()
    until("the agent to be away", lambda: not any(i["agentConnected"] for i in site.instances()))
    runtime_id = describe(ecs, "default", ends)["containers"][0]["runtimeId"]
    until("the container to end", lambda: not site.docker.inspect(runtime_id)["State"]["Running"])
    site.start()
    task = until("its end to be told", lambda: (t := describe(ecs, "default", ends))["lastStatus"] == "STOPPED" and t)
    assert task["containers"][0]["exitCode"] == 9
    ends = start(ecs, shell("sleep 4; exit 8"))
    until_status(ecs, "default", ends, "RUNNING")
    runtime_id = describe(ecs, "default", ends)["containers"][0]["runtimeId"]
    site.berth.kill()
    until("the container to end", lambda: not site.docker.inspect(runtime_id)["State"]["Running"])
    site.berth.start()
    ecs = site.berth.ecs
    task = until("its end to be told", lambda: (t := describe(ecs, "default", ends))["lastStatus"] == "STOPPED" and t)
    assert task["containers"][0]["exitCode"] == 8
    assert describe(ecs, "default", stays)["lastStatus"] == "RUNNING"
    assert len(site.instances()) == 1
    stop(ecs, stays)


def test_a_deregistered_instance_is_let_go(site):
    """Last: the agent then waits for an hour before it asks again."""
    (instance,) = site.instances()
    site.berth.ecs.deregister_container_instance(cluster="default", containerInstance=instance["containerInstanceArn"], force=True)
    until("the agent to hear of it", lambda: "Container instance is deregistered" in site.log.read_text(errors="replace"))
    assert site.process.poll() is None
