"""How `berth agent` is told what to do: environment, files, an object in S3; what it then announces, logs and shows of itself; and what it
says of tasks after its host was restarted."""

import json
import logging
import os
import subprocess

import boto3
import pytest
from moto.server import ThreadedMotoServer

import leftovers
from berth import Berth, binary, clean_environment, fresh_folder, http_text, until, with_images
from containers import IDLE, ended, output, said, shell, start
from ecs_calls import describe, until_status
from machine_agent import MachineAgent
from ports import free_port

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="SKIPPED (needs root): the agent's containers need namespaces, mounts and cgroups"
)
ENOUGH = {"ECS_BACKEND_HOST": "http://127.0.0.1:9", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


# -- what cannot be read -------------------------------------------------------------------------------------------------------


def refused(*arguments, files=(), **environment):
    """Runs the agent with settings that it must refuse; gives what it says. Nothing may have been changed."""
    folder = fresh_folder("refused")
    for name, text in files:
        (folder / name).write_text(text)
    data = folder / "data"
    variables = {**ENOUGH, "ECS_DATADIR": str(data), "ECS_LOGFILE": str(folder / "agent.log"), **environment}
    variables = {name: value.replace("FOLDER", str(folder)) for name, value in variables.items()}
    done = subprocess.run(
        [str(binary()), "agent", *(argument.replace("FOLDER", str(folder)) for argument in arguments)],
        env=clean_environment(**variables), capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 2, done
    assert not data.exists() and not (folder / "agent.log").exists()
    return done.stderr.replace(str(folder), "FOLDER")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ECS_CLUSTER=c\n\nECS_RESERVED_MEMORY=much\n", ["ECS_RESERVED_MEMORY", "'much'", "FOLDER/ecs.config, line 3"]),
        ("ECS_CLUSTER=c\nwhat is this\n", ["FOLDER/ecs.config, line 2", "NAME=VALUE"]),
        ("export ECS_CLUSTER=c\n", ["FOLDER/ecs.config, line 1", "name of a variable"]),
        ("ECS_LOG_ROLLOVER_TYPE=daily\n", ["ECS_LOG_ROLLOVER_TYPE", "line 1", "size, hourly"]),
        ("ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={\"r\": \"hidden\"}\n", ["ECS_ENGINE_AUTH_DATA", "line 2"]),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_line_and_variable(text, words):
    said = refused("--config", "FOLDER/ecs.config", files=[("ecs.config", text)])
    assert all(word in said for word in words), said
    assert "hidden" not in said


def test_a_json_file_that_cannot_be_read_is_named_with_line_and_member():
    said = refused(files=[("c.json", '{\n"Cluster": "c",\n"ReservedPorts": 22\n}')], ECS_AGENT_CONFIG_FILE_PATH="FOLDER/c.json")
    assert all(word in said for word in ("ECS_RESERVED_PORTS", "FOLDER/c.json, line 3", "ReservedPorts")), said
    said = refused(files=[("c.json", '{\n"Cluster": ')], ECS_AGENT_CONFIG_FILE_PATH="FOLDER/c.json")
    assert "FOLDER/c.json, line 2" in said


def test_what_is_not_there_or_missing_is_named():
    assert "--config: FOLDER/none" in refused("--config", "FOLDER/none")
    assert "ECS_AGENT_CONFIG_FILE_PATH: FOLDER/none" in refused(ECS_AGENT_CONFIG_FILE_PATH="FOLDER/none")
    assert refused(ECS_BACKEND_HOST="").startswith("berth: ECS_BACKEND_HOST: is not set")
    assert "AWS_ENDPOINT_URL_S3" in refused("--config", "s3://settings/ecs.config")
    assert "s3://BUCKET/KEY" in refused("--config", "s3://settings", AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")


def test_the_help_names_the_variables_and_shows_an_example():
    done = subprocess.run([str(binary()), "agent", "--help"], env=clean_environment(), capture_output=True, text=True, timeout=60, check=True)
    for word in ("ECS_CLUSTER", "ECS_BACKEND_HOST", "ECS_DATADIR", "ECS_LOGFILE", "ECS_ENGINE_AUTH_DATA", "--config", "Examples:"):
        assert word in done.stdout, word


# -- what is read --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3():
    """S3 on loopback: its endpoint, and what puts an object there."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    client.create_bucket(Bucket="settings")
    yield endpoint, lambda key, text: client.put_object(Bucket="settings", Key=key, Body=text.encode())
    server.stop()


def test_an_object_that_is_not_there_or_is_none_is_named(s3):
    endpoint, put = s3
    said = refused("--config", "s3://settings/none", AWS_ENDPOINT_URL_S3=endpoint)
    assert "s3://settings/none" in said and "NoSuchKey" in said
    put("bad.config", "ECS_CLUSTER=c\nECS_DISABLE_METRICS=perhaps\n")
    said = refused("--config", "s3://settings/bad.config", AWS_ENDPOINT_URL_S3=endpoint)
    assert "ECS_DISABLE_METRICS" in said and "s3://settings/bad.config, line 2" in said


@pytest.fixture
def machine(server):
    """Makes agents of this machine: `machine(cluster, NAME=value)`."""
    made = []

    def make(cluster, **environment):
        agent = MachineAgent(server, cluster=cluster, **environment)
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.end()


def described(server, cluster, arn, **members):
    found = server.ecs.describe_container_instances(cluster=cluster, containerInstances=[arn], **members)
    return found["containerInstances"][0]


@needs_root
def test_files_and_environment_make_one_configuration(server, cluster, machine, s3):
    endpoint, put = s3
    put(
        "team/ecs.config",
        "# of the team\n"
        "ECS_CLUSTER=not-this-one\n"
        'ECS_INSTANCE_ATTRIBUTES={"stack": "prod", "plain": ""}\n'
        'ECS_CONTAINER_INSTANCE_TAGS={"team": "a"}\n'
        "ECS_RESERVED_PORTS=[22, 8022]\n"
        "ECS_RESERVED_PORTS_UDP=[53]\n"
        'ECS_AVAILABLE_LOGGING_DRIVERS=["json-file","syslog"]\n'
        "ECS_DISABLE_PRIVILEGED=true\n"
        "ECS_SELINUX_CAPABLE=false\n"
        "ECS_DETAILED_OS_FAMILY=plan9_4\n"
        "ECS_ENABLE_TASK_ENI=true\n"
        "ECS_CLUSTRE=typo\n",
    )
    port = free_port()
    agent = machine(
        cluster,
        BERTH_AGENT_CONFIG="s3://settings/team/ecs.config",
        AWS_ENDPOINT_URL_S3=endpoint,
        BERTH_INTROSPECTION=f"127.0.0.1:{port}",
        ECS_LOGLEVEL_ON_INSTANCE="debug",
    )
    config = agent.folder / "config.json"
    config.write_text(json.dumps({"ReservedMemory": 100, "ReservedPorts": [1], "PauseContainerTag": "1"}))
    agent.environment["ECS_AGENT_CONFIG_FILE_PATH"] = str(config)
    arn = agent.start().until_connected()

    instance = described(server, cluster, arn, include=["TAGS"])
    attributes = {one["name"]: one.get("value") for one in instance["attributes"]}
    wanted = {
        "stack": "prod", "plain": None, "ecs.os-type": "linux", "ecs.os-family": "LINUX", "ecs.os-type-detailed": "plan9_4",
        "ecs.cpu-architecture": {"x86_64": "x86_64", "aarch64": "arm64"}[os.uname().machine], "ecs.availability-zone": "us-east-1a",
        "com.amazonaws.ecs.capability.logging-driver.json-file": None, "ecs.capability.external": None,
        "ecs.capability.increased-task-cpu-limit": None, "ecs.capability.container-health-check": None,
    }
    assert {name: attributes[name] or None for name in wanted} == wanted
    kept_back = ("logging-driver.awslogs", "logging-driver.none", "logging-driver.syslog", "privileged-container", "selinux")
    assert not {f"com.amazonaws.ecs.capability.{name}" for name in kept_back} & attributes.keys()
    assert instance["tags"] == [{"key": "team", "value": "a"}]
    resources = {one["name"]: one for one in instance["registeredResources"]}
    assert resources["PORTS"]["stringSetValue"] == ["22", "8022"], "of the lines, which are stronger than the JSON file"
    assert resources["PORTS_UDP"]["stringSetValue"] == ["53"]
    total = int(next(line for line in open("/proc/meminfo") if line.startswith("MemTotal:")).split()[1]) // 1024
    assert resources["MEMORY"]["integerValue"] == total - 100, "of the JSON file, which alone has it"

    # What has no effect is said once, in the log file as well.
    log = (agent.folder / "ecs-agent.log").read_text()
    for line in (
        "ECS_ENABLE_TASK_ENI is ignored: interfaces of tasks are Berth's own, not EC2's (s3://settings/team/ecs.config, line 11)",
        "ECS_CLUSTRE is ignored: this agent knows no such variable (s3://settings/team/ecs.config, line 12)",
        f"{config}, member PauseContainerTag is ignored: this agent knows no such member",
        "ECS_AVAILABLE_LOGGING_DRIVERS: syslog is not announced: this agent has no such driver",
    ):
        assert log.count(line) == 1 and line in agent.tail(200), line
    assert all(line.startswith("level=") and " time=" in line and ' msg="' in line for line in log.splitlines()), log

    # Introspection, in the official agent's shapes.
    def shown(path):
        return http_text(f"http://127.0.0.1:{port}{path}")

    metadata = json.loads(shown("/v1/metadata"))
    assert metadata.keys() == {"Cluster", "ContainerInstanceArn", "Version"}
    assert (metadata["Cluster"], metadata["ContainerInstanceArn"]) == (cluster, arn)
    assert json.loads(shown("/v1/tasks")) == {"Tasks": []}
    assert "Apache License" in shown("/license")
    assert json.loads(shown("/")) == {"AvailableCommands": ["/v1/metadata", "/v1/tasks", "/license"]}


@needs_root
def test_a_login_of_the_configuration_and_tasks_of_a_host_that_is_restarted(server, cluster, machine, new_berth, shell_archive):
    registry = new_berth("server").start()
    registry.run("image", "load", str(shell_archive), "private:1")
    host = registry.endpoint.removeprefix("http://")
    key, secret = registry.credentials
    port = free_port()
    agent = machine(
        cluster,
        ECS_ENGINE_AUTH_TYPE="docker",
        ECS_ENGINE_AUTH_DATA=json.dumps({f"http://{host}": {"username": key, "password": secret}}),
        ECS_DYNAMIC_HOST_PORT_RANGE="41000-41063",
        ECS_LOG_OUTPUT_FORMAT="json",
        BERTH_INTROSPECTION=f"127.0.0.1:{port}",
    )
    arn = agent.start().until_connected()
    idle = shell(IDLE, image=f"{host}/private:1", portMappings=[{"containerPort": 80}])
    task = start(server, idle, cluster=cluster)
    running = until_status(server.ecs, cluster, task, "RUNNING")
    bound = [binding["hostPort"] for binding in running["containers"][0]["networkBindings"]]
    assert len(bound) == 1 and 41000 <= bound[0] <= 41063
    runtime_id = running["containers"][0]["runtimeId"]
    for query in (f"taskarn={task}", f"dockerid={runtime_id}", f"dockerid={runtime_id[:12]}"):
        one = json.loads(http_text(f"http://127.0.0.1:{port}/v1/tasks?{query}"))
        assert (one["Arn"], one["KnownStatus"], one["DesiredStatus"]) == (task, "RUNNING", "RUNNING"), query
        assert one["Containers"][0]["Ports"] == [{"ContainerPort": 80, "Protocol": "tcp", "HostPort": bound[0]}]
        assert {"DockerId", "DockerName", "Name", "Image", "ImageID", "StartedAt"} <= one["Containers"][0].keys()
    assert all(json.loads(line)["level"] for line in (agent.folder / "ecs-agent.log").read_text().splitlines())
    over = ended(server, start(server, shell("exit 4", image=f"{host}/private:1"), cluster=cluster), cluster)
    assert over["containers"][0]["exitCode"] == 4

    # The host goes down: the agent and all that ran, and what the kernel held; the files stay.
    agent.kill()
    leftovers.remove_all_of(agent.data_dir)
    ledger = agent.data_dir / "agent.json"
    identity = json.loads(ledger.read_text())
    with open("/proc/sys/kernel/random/boot_id") as boot_id:
        assert identity["bootId"] == boot_id.read().strip()
    ledger.write_text(json.dumps({**identity, "bootId": "00000000-0000-0000-0000-000000000000"}))
    agent.start()
    gone = until_status(server.ecs, cluster, task, "STOPPED")
    assert gone["containers"][0]["reason"] == "ContainerVanishedError: the host was restarted while the container ran"
    assert "exitCode" not in gone["containers"][0]
    assert gone["stopCode"] == "EssentialContainerExited"
    assert gone["stoppedReason"] == "Essential container in task exited: the host was restarted while the task ran"
    assert describe(server.ecs, cluster, over["taskArn"])["containers"][0]["exitCode"] == 4, "what had ended stays as it was"
    assert agent.until_connected() == arn, "it is the same container instance"
    assert json.loads(ledger.read_text())["bootId"] == identity["bootId"]
    # And it works as before.
    until_status(server.ecs, cluster, start(server, idle, cluster=cluster), "RUNNING")
    until("the restart to be in the log", lambda: "the host was restarted" in agent.tail(200))


@needs_root
def test_the_containers_of_a_task_have_their_limit_of_processes_together(shell_archive):
    six = "i=0; while [ $i -lt 6 ]; do i=$((i+1)); sleep 1000 & done; echo all six; wait"
    with with_images(Berth("up", environment={"ECS_TASK_PIDS_LIMIT": "12"}), {"shell:1": shell_archive}) as up:
        alone = start(up, shell(six))
        said(up, alone, "all six")
        # Two shells with six each are two too many; which of them finds no room is theirs to settle.
        over = ended(up, start(up, shell(six, name="one"), shell(six, name="two")))
        assert over["stopCode"] == "EssentialContainerExited", over
        assert "Cannot fork" in output(up, over["taskArn"])
        assert describe(up.ecs, "default", alone)["lastStatus"] == "RUNNING", "another task has a count of its own"
