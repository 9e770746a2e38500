"""The task metadata endpoint and the agent's endpoint of task protection, asked from inside real containers in each network mode."""

import json
import subprocess
from datetime import datetime

import pytest

from berth import load_images, until
from containers import IDLE, finished, output, pids_of, running, said, shell, skip_unless_root, stop
from ecs_calls import describe, register, run, tasks_of, until_status, until_steady
from images import pack_shell

skip_unless_root(__file__)
DEFAULT = "default"
ADDRESS = "169.254.170.2"
# What a container asks of itself as programs do: by its own variables, with nothing but HTTP.
ASKING = """
for path in "" /task /stats /task/stats; do
    /bin/busybox wget -q -O - "$ECS_CONTAINER_METADATA_URI_V4$path" && echo
done
/bin/busybox wget -q -O - "$ECS_CONTAINER_METADATA_URI/task" && echo
echo asked
""" + IDLE
# Reads a script of bytes to send, sends it, and prints all that comes until the other end closes.
CONVERSATION = """
import socket, sys
host, port, patience = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
s = socket.create_connection((host, port), timeout=patience)
s.sendall(sys.stdin.buffer.read())
while chunk := s.recv(65536):
    sys.stdout.buffer.write(chunk)
"""
# Opens connections, asks something over each of them, says how many were answered, and keeps them all until its input ends.
CROWD = """
import socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
crowd = [socket.create_connection((host, port), timeout=60) for _ in range(count)]
def answers(s):
    try:
        s.sendall(b"GET /x HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        return bool(s.recv(4096))
    except OSError:
        return False
print(sum([answers(s) for s in crowd]), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def asker(up, tmp_path_factory):
    """An image with a shell and busybox; its name."""
    load_images(up, {"asker:1": pack_shell(tmp_path_factory.mktemp("asker") / "asker.tar", {"busybox": "bin/busybox"})})
    return "asker:1"


@pytest.fixture
def subnet(up):
    """The default VPC's subnet in the zone of the machine."""
    filters = [{"Name": "default-for-az", "Values": ["true"]}, {"Name": "availability-zone", "Values": ["us-east-1a"]}]
    [found] = up.client("ec2").describe_subnets(Filters=filters)["Subnets"]
    return found["SubnetId"]


def in_mode(up, mode, subnet, *containers, **members):
    """A task that runs in a network mode."""
    if mode != "awsvpc":
        return running(up, *containers, networkMode=mode, **members)
    definition = register(up.ecs, containers=list(containers), networkMode=mode, **members)
    on = {"awsvpcConfiguration": {"subnets": [subnet]}}
    [arn] = run(up.ecs, DEFAULT, definition, networkConfiguration=on)
    return until_status(up.ecs, DEFAULT, arn, "RUNNING")


def variables(task, index=0):
    """The environment of a container's first process."""
    [pid, *_] = pids_of(task["containers"][index])
    with open(f"/proc/{pid}/environ", "rb") as file:
        return dict(pair.split("=", 1) for pair in file.read().decode().split("\0") if "=" in pair)


def inside(task, *command, **options):
    """A program of this machine in the task's network namespace."""
    [pid, *_] = pids_of(task["containers"][0])
    return subprocess.run(["nsenter", "-t", str(pid), "-n", *command], capture_output=True, timeout=120, check=False, **options)


def asked(task, url, method="GET", body=None):
    """Status and body of an answer to somebody in the task's network namespace."""
    data = ["--data-binary", body] if body is not None else []
    done = inside(task, "curl", "--noproxy", "*", "-s", "-m", "60", "-X", method, "-w", "\\n%{http_code}", *data, url, text=True)
    text, status = done.stdout.rsplit("\n", 1)
    return int(status), text


def sent(task, url, text, patience=60):
    """All that is answered to raw bytes, until the other end closes."""
    host, _, port = url.removeprefix("http://").split("/", 1)[0].partition(":")
    done = inside(task, "python3", "-c", CONVERSATION, host, port or "80", str(patience), input=text)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def seconds(text):
    """A time of the endpoint's as Unix seconds."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def metadata(task, path="", index=0):
    """A JSON answer to a container."""
    status, text = asked(task, variables(task, index)["ECS_CONTAINER_METADATA_URI_V4"] + path)
    assert status == 200, text
    return json.loads(text)


@pytest.mark.parametrize("mode", ["awsvpc", "bridge", "host"])
def test_a_container_is_told_of_itself_and_its_task(up, asker, subnet, mode):
    options = {"logDriver": "awslogs", "options": {"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}}
    main = {**shell(ASKING, cpu=10, logConfiguration=options, dockerLabels={"team": "a"}), "image": asker}
    task = in_mode(up, mode, subnet, main, shell(IDLE, name="side", essential=False), cpu="256", memory="256")
    arn = task["taskArn"]
    lines = said(up, arn, "asked").splitlines()
    answers = [json.loads(line[line.index("{"):]) for line in lines if "{" in line]
    own, of_task, stats, of_all, old = answers
    shown = {one["name"]: one for one in task["containers"]}["app"]
    told = variables(task)
    assert told["AWS_EXECUTION_ENV"] == "AWS_ECS_EC2"
    place, version, name = told["ECS_CONTAINER_METADATA_URI_V4"].removeprefix("http://").split("/")
    assert version == "v4" and len(name) == 43 and task["taskArn"].rsplit("/", 1)[1] not in name
    assert told["ECS_CONTAINER_METADATA_URI"] == f"http://{place}/v3/{name}" and told["ECS_AGENT_URI"] == f"http://{place}/api/{name}"
    assert (place == ADDRESS) == (mode != "host")

    assert (own["DockerId"], own["Name"], own["Image"]) == (shown["runtimeId"], "app", asker)
    assert own["ImageID"] == shown["imageDigest"] and own["ContainerARN"] == shown["containerArn"]
    assert (own["DesiredStatus"], own["KnownStatus"], own["Type"]) == ("RUNNING", "RUNNING", "NORMAL")
    assert own["Limits"] == {"CPU": 10, "Memory": 64}
    assert own["Labels"]["com.amazonaws.ecs.task-arn"] == arn and own["Labels"]["team"] == "a"
    assert own["Labels"]["com.amazonaws.ecs.container-name"] == "app"
    assert (own["LogDriver"], own["LogOptions"]) == ("awslogs", options["options"])
    assert seconds(own["CreatedAt"]) <= seconds(own["StartedAt"])
    assert not {"ExitCode", "FinishedAt", "Health", "RestartCount", "Snapshotter"} & set(own)
    [network] = own["Networks"]
    assert network["NetworkMode"] == mode
    if mode == "awsvpc":
        details = {pair["name"]: pair["value"] for pair in task["attachments"][0]["details"]}
        assert network["IPv4Addresses"] == [details["privateIPv4Address"]] and network["MACAddress"] == details["macAddress"]
        assert network["PrivateDNSName"] == details["privateDnsName"] and network["AttachmentIndex"] == 0
        assert network["IPv4SubnetCIDRBlock"].endswith("/20") and network["SubnetGatewayIpv4Address"].endswith("/20")
    if mode == "bridge":
        assert network["IPv4Addresses"][0].count(".") == 3

    assert (of_task["TaskARN"], of_task["Cluster"]) == (arn, task["clusterArn"])
    assert f"{of_task['Family']}:{of_task['Revision']}" == task["taskDefinitionArn"].rsplit("/", 1)[1]
    assert of_task["Limits"] == {"CPU": 0.25, "Memory": 256}
    assert (of_task["DesiredStatus"], of_task["LaunchType"], of_task["AvailabilityZone"]) == ("RUNNING", "EC2", task["availabilityZone"])
    assert seconds(of_task["PullStartedAt"]) <= seconds(of_task["PullStoppedAt"])
    assert not {"ServiceName", "TaskTags", "ClockDrift", "EphemeralStorageMetrics", "ExecutionStoppedAt"} & set(of_task)
    assert next(one for one in of_task["Containers"] if one["Name"] == "app")["DockerId"] == own["DockerId"]
    assert metadata(task, "/task")["KnownStatus"] == "RUNNING"
    assert [one["Name"] for one in metadata(task, "/task")["Containers"]] == ["app", "side"]
    assert "ContainerARN" not in old["Containers"][0] and old["TaskARN"] == arn

    assert stats["id"] == shown["runtimeId"] and seconds(stats["preread"]) < seconds(stats["read"])
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] >= stats["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert stats["cpu_stats"]["system_cpu_usage"] > stats["precpu_stats"]["system_cpu_usage"]
    assert 0 < stats["memory_stats"]["usage"] <= stats["memory_stats"]["limit"] == 64 << 20
    assert stats["pids_stats"]["current"] >= 1
    assert set(of_all) <= {one["runtimeId"] for one in task["containers"]} and of_all[own["DockerId"]]["id"] == own["DockerId"]
    if mode == "host":
        assert "networks" not in stats and "network_rate_stats" not in stats
    else:
        # The answers themselves went over it.
        assert stats["networks"]["eth0"]["tx_bytes"] > 0 and stats["networks"]["eth0"]["rx_bytes"] > 0
        assert set(stats["network_rate_stats"]) == {"rx_bytes_per_sec", "tx_bytes_per_sec"}
    stop(up, arn)


def test_without_a_network_there_is_nothing_to_ask(up):
    task = finished(up, shell("env; echo shown"), networkMode="none")
    shown = output(up, task["taskArn"])
    assert "shown" in shown and "ECS_CONTAINER_METADATA_URI" not in shown and "ECS_AGENT_URI" not in shown


@pytest.mark.parametrize("mode", ["awsvpc", "bridge"])
def test_who_is_not_the_task_itself_is_told_nothing(up, subnet, mode):
    one, other = (in_mode(up, mode, subnet, shell(IDLE)) for _ in range(2))
    host = running(up, shell(IDLE), networkMode="host")
    own = variables(one)["ECS_CONTAINER_METADATA_URI_V4"]
    name, gateway = own.rsplit("/", 1)[1], variables(host)["ECS_CONTAINER_METADATA_URI_V4"].split("/")[2]
    unknown = "unable to get container ID from request: unable to get docker ID from v3 endpoint ID"
    assert asked(one, own)[0] == 200
    status, text = asked(other, own)
    assert (status, json.loads(text)) == (404, f"V4 container metadata handler: {unknown}: {name}"), "the name of another task's container"
    # By the machine's own address, which a container knows as its gateway, it is the same.
    assert asked(one, f"http://{gateway}/v4/{name}")[0] == 200
    for way in ("", "/task", "/taskWithTags", "/stats", "/task/stats"):
        assert asked(host, f"http://{gateway}/v4/{name}{way}")[0] == 404, "a program in the machine's own network"
        assert asked(other, f"http://{gateway}/v3/{name}{way}")[0] == 404
    assert asked(other, variables(host)["ECS_CONTAINER_METADATA_URI_V4"])[0] == 404, "the other way round"
    status, text = asked(other, f"{variables(one)['ECS_AGENT_URI']}/task-protection/v1/state", "PUT", '{"ProtectionEnabled":true}')
    assert status == 404
    assert json.loads(text) == {"error": {"Code": "ResourceNotFoundException", "Message": "Failed to find a task for the request"}}
    for task in (one, other, host):
        stop(up, task["taskArn"])


def test_what_is_not_there_is_refused(up):
    task = running(up, shell(IDLE))
    own = variables(task)["ECS_CONTAINER_METADATA_URI_V4"]
    base = own.rsplit("/", 1)[0]
    nobody = "0" * 32 + "-0000000000"
    handler = "unable to get task arn from request: unable to get task Arn from v3 endpoint ID"
    assert asked(task, f"{base}/{nobody}/task") == (404, json.dumps(f"V4 task metadata handler: {handler}: {nobody}"))
    assert asked(task, f"{base}/{nobody}/stats") == (404, json.dumps(f"V4 container stats handler: {handler}: {nobody}"))
    assert asked(task, f"http://{ADDRESS}/") == (404, "404 page not found")
    assert asked(task, f"{own}/tasks")[0] == asked(task, f"http://{ADDRESS}/v2/metadata")[0] == 404
    assert asked(task, own, "POST", "{}")[0] == asked(task, f"{own}/task", "DELETE")[0] == 405
    assert asked(task, f"{variables(task)['ECS_AGENT_URI']}/task-protection/v1/state", "POST", "{}")[0] == 405
    stop(up, task["taskArn"])


def test_tags_of_the_task_and_its_container_instance(up):
    definition = register(up.ecs, containers=[shell(IDLE)])
    [arn] = run(up.ecs, DEFAULT, definition, tags=[{"key": "stage", "value": "test"}])
    task = until_status(up.ecs, DEFAULT, arn, "RUNNING")
    assert metadata(task, "/taskWithTags")["TaskTags"] == {"stage": "test"}
    instance = task["containerInstanceArn"]
    up.ecs.tag_resource(resourceArn=instance, tags=[{"key": "rack", "value": "7"}])
    told = metadata(task, "/taskWithTags")
    assert (told["ContainerInstanceTags"], told["TaskTags"], told["TaskARN"]) == ({"rack": "7"}, {"stage": "test"}, arn)
    assert "Errors" not in told
    up.ecs.untag_resource(resourceArn=instance, tagKeys=["rack"])
    assert "ContainerInstanceTags" not in metadata(task, "/taskWithTags")
    stop(up, arn)


def test_a_task_protects_itself(up):
    ecs = up.ecs
    ecs.create_service(cluster=DEFAULT, serviceName="guarded", taskDefinition=register(ecs, containers=[shell(IDLE)]), desiredCount=1)
    until_steady(ecs, DEFAULT, "guarded")
    [arn] = tasks_of(ecs, DEFAULT, serviceName="guarded")
    task = describe(ecs, DEFAULT, arn)
    assert metadata(task, "/task")["ServiceName"] == "guarded"
    state = f"{variables(task)['ECS_AGENT_URI']}/task-protection/v1/state"
    without = {"protection": {"ExpirationDate": None, "ProtectionEnabled": False, "TaskArn": arn}}
    status, text = asked(task, state)
    assert (status, json.loads(text)) == (200, without)
    status, text = asked(task, state, "PUT", '{"ProtectionEnabled":true,"ExpiresInMinutes":60}')
    protection = json.loads(text)["protection"]
    assert status == 200 and protection["ProtectionEnabled"] is True and protection["TaskArn"] == arn
    [seen] = ecs.get_task_protection(cluster=DEFAULT, tasks=[arn])["protectedTasks"]
    assert seen["protectionEnabled"] is True
    assert abs(seen["expirationDate"].timestamp() - seconds(protection["ExpirationDate"])) < 1
    assert json.loads(asked(task, state)[1])["protection"] == protection
    invalid = "InvalidParameterException"
    for body, message in (
        ("", "UpdateTaskProtection: failed to decode request"),
        ('{"Cluster":"other"}', "UpdateTaskProtection: failed to decode request"),
        ("x" * 5000, "UpdateTaskProtection: failed to decode request"),
        ("{}", "Invalid request: does not contain 'ProtectionEnabled' field"),
    ):
        status, text = asked(task, state, "PUT", body)
        error = json.loads(text)["error"]
        assert (status, error["Code"], error["Message"]) == (400, invalid, message), body[:20]
    status, text = asked(task, state, "PUT", '{"ProtectionEnabled":true,"ExpiresInMinutes":0}')
    assert status == 400 and json.loads(text)["error"]["Arn"] == arn, "the control plane's own refusal"
    status, text = asked(task, state, "PUT", '{"ProtectionEnabled":false}')
    assert (status, json.loads(text)) == (200, without)

    alone = running(up, shell(IDLE))
    status, text = asked(alone, f"{variables(alone)['ECS_AGENT_URI']}/task-protection/v1/state")
    assert (status, json.loads(text)["failure"]["Reason"]) == (200, "TASK_NOT_VALID")
    stop(up, alone["taskArn"])
    ecs.delete_service(cluster=DEFAULT, service="guarded", force=True)
    until("the service's task to end", lambda: describe(ecs, DEFAULT, arn)["lastStatus"] == "STOPPED")


def test_it_is_there_again_after_the_agents_restart_and_beside_another_berth(up, new_up, subnet):
    """Two Berths on one machine, of which one is killed: each container is answered by its own agent, by the name that it was told first."""
    second = new_up()
    other = running(up, shell(IDLE))
    [found] = second.client("ec2").describe_subnets(
        Filters=[{"Name": "default-for-az", "Values": ["true"]}, {"Name": "availability-zone", "Values": ["us-east-1a"]}]
    )["Subnets"]
    own = [in_mode(second, mode, found["SubnetId"], shell(IDLE)) for mode in ("bridge", "host", "awsvpc")]
    before = [metadata(task, "/task") for task in own]
    assert [told["TaskARN"] for told in before] == [task["taskArn"] for task in own]
    assert metadata(other, "/task")["TaskARN"] == other["taskArn"]
    assert asked(other, variables(own[0])["ECS_CONTAINER_METADATA_URI_V4"])[0] == 404, "another Berth's container"
    second.kill()
    assert metadata(other, "/task")["TaskARN"] == other["taskArn"]
    second.start()
    for task, told in zip(own, before, strict=True):
        url = variables(task)["ECS_CONTAINER_METADATA_URI_V4"]
        until("an answer after the restart", lambda task=task, url=url: asked(task, url)[0] == 200)
        assert metadata(task, "/task") == told
        stop(second, task["taskArn"])
    stop(up, other["taskArn"])


def test_a_hostile_container_gets_no_more_than_its_share(up):
    hostile, quiet = (running(up, shell(IDLE)) for _ in range(2))
    own = variables(hostile)["ECS_CONTAINER_METADATA_URI_V4"]
    path = own.removeprefix(f"http://{ADDRESS}")
    # Heads without end, in one line or in many, and what is no HTTP at all.
    for head in (b"GET /" + b"a" * 100_000, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, b"\0" * 100_000, b"\x16\x03\x01\x02\x00" * 10):
        answer = _reset_or(lambda head=head: sent(hostile, own, head))
        assert b" 200 " not in answer[:20]
    # One that is never finished is hung up on, and so is a body.
    assert b" 200 " not in sent(hostile, own, b"GET /v4/")
    slow = f"PUT {path.replace('/v4/', '/api/')}/task-protection/v1/state HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 50\r\n\r\n{{"
    assert b" 400 " in sent(hostile, own, slow.encode())[:20]
    # Requests in one go: a burst is answered, and so many a second after that.
    requests = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 1999 + b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answers = sent(hostile, own, requests)
    assert answers.count(b"HTTP/1.1 ") == 2000
    assert answers.count(b"HTTP/1.1 404 ") >= 60 and b"HTTP/1.1 429 " in answers
    assert b"You have reached maximum request limit." in answers
    assert metadata(quiet)["KnownStatus"] == "RUNNING", "nobody else's share"
    # Connections: those beyond the limit are closed, and nobody else misses them.
    [pid, *_] = pids_of(hostile["containers"][0])
    command = ["nsenter", "-t", str(pid), "-n", "python3", "-c", CROWD, ADDRESS, "80", "60"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
        assert 1 <= int(crowd.stdout.readline()) <= 32
        assert metadata(quiet)["KnownStatus"] == "RUNNING"
        crowd.stdin.close()
    until("the hostile one to be answered again", lambda: asked(hostile, own)[0] == 200)
    for task in (hostile, quiet):
        stop(up, task["taskArn"])


def _reset_or(act):
    """What comes, or nothing where the other end closed before it had read all."""
    try:
        return act()
    except AssertionError as error:
        assert "ConnectionResetError" in str(error) or "BrokenPipeError" in str(error), error
        return b""
