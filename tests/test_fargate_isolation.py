"""What Fargate tasks are kept to: users of their own, their size, and the ways out that tests/breakout tries. docs/fargate-isolation.md has the list."""

import json
import subprocess
from pathlib import Path

import pytest

from berth import Berth, unique, until, with_images
from containers import IDLE, ended, output, pids_of, said, skip_unless_root, stop
from ecs_calls import register, run, until_status
from images import pack_shell

skip_unless_root(__file__)
FIRST_ID = 0x7000_0000
SOURCE = Path(__file__).parent / "breakout" / "breakout.c"


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A root file system with a shell and the program that tries to get out."""
    folder = tmp_path_factory.mktemp("breakout")
    program = folder / "breakout"
    try:
        subprocess.run(["cc", "-static", "-O1", "-o", program, SOURCE], check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"SKIPPED (needs cc with a static C library): {Path(__file__).name}: {error}")
    more = {str(program): "bin/breakout", "stat": "bin/stat", "chown": "bin/chown", "dd": "bin/dd", "ln": "bin/ln", "grep": "bin/grep"}
    return pack_shell(folder / "tools.tar", more)


@pytest.fixture(scope="module")
def up(tools):
    with with_images(Berth("up"), {"tools:1": tools}) as berth:
        yield berth


@pytest.fixture
def network(up):
    found = up.client("ec2").describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    return {"awsvpcConfiguration": {"subnets": [one["SubnetId"] for one in found]}}


@pytest.fixture
def shop(up):
    name = unique("shop")
    up.ecs.create_cluster(clusterName=name)
    return name


def container(script, name="app", **members):
    return {"name": name, "image": "tools:1", "entryPoint": ["/bin/sh", "-c"], "command": [script], **members}


def start(up, shop, network, *containers, cpu="256", memory="512", **members):
    definition = register(
        up.ecs, containers=list(containers), networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu=cpu, memory=memory, **members
    )
    [arn] = run(up.ecs, shop, definition, launchType="FARGATE", networkConfiguration=network)
    return arn


def first_process(task, name="app"):
    [found] = [one for one in task["containers"] if one["name"] == name]
    return until("its processes", lambda: pids_of(found))[0]


def user(pid):
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:")]
    return int(line.split()[1])


def limits_of(pid):
    """The files of the cgroup above a process's, by their names; of version 1 those of all controllers."""
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        folder = Path("/sys/fs/cgroup", controllers.removeprefix("name=")) / path.lstrip("/")
        for name in ("cpu.cfs_quota_us", "cpu.max", "memory.limit_in_bytes", "memory.max", "pids.max"):
            if (folder.parent / name).is_file() and folder.name != "":
                found[name] = (folder.parent / name).read_text().strip()
    return found


def has_users_of_its_own(up):
    findings = json.loads(up.run("doctor", "--output", "json", check=False).stdout)["findings"]
    [found] = [one for one in findings if one["check"] == "fargate"]
    return found["verdict"] == "good", found["found"]


def test_the_ways_out_are_refused(up, shop, network):
    other = start(up, shop, network, container(IDLE))
    stranger = first_process(until_status(up.ecs, shop, other, "RUNNING"))
    port = up.endpoint.rsplit(":", 1)[1]
    script = f"/bin/breakout 127.0.0.1:{port} 127.0.0.1:51678 {stranger} {up.process.pid} 2>&1; {IDLE}"
    arn = start(up, shop, network, container(script))
    lines = said(up, arn, "all tried").splitlines()
    out = [line for line in lines if "BROKE OUT" in line]
    assert not out, out
    assert len([line for line in lines if " refused: " in line]) > 100, lines
    stop(up, arn, shop)
    stop(up, other, shop)


def test_each_task_has_users_of_its_own(up, shop, network):
    can, why = has_users_of_its_own(up)
    if not can:
        pytest.skip(f"SKIPPED (needs idmapped mounts below an overlay): {Path(__file__).name}: {why}")
    arns = [start(up, shop, network, container(IDLE), container(IDLE, "more")) for _ in range(2)]
    tasks = [until_status(up.ecs, shop, arn, "RUNNING") for arn in arns]
    users = [{user(first_process(task, name)) for name in ("app", "more")} for task in tasks]
    assert all(len(one) == 1 and min(one) >= FIRST_ID for one in users), users
    assert users[0] != users[1], "two tasks are strangers"
    for arn in arns:
        stop(up, arn, shop)


def test_volumes_and_files_are_the_containers_own(up, shop, network):
    script = "id -u; echo text > /data/file; chown 33:34 /data/file; ln -s / /data/up; echo more >> /etc/hosts; stat -c %u:%g / /etc/hosts /data /data/file"
    mount = [{"sourceVolume": "data", "containerPath": "/data"}]
    writer = container(script, "writer", mountPoints=mount, essential=False)
    script = "stat -c %u:%g /data/file; cat /data/file; cat /data/up/etc/hosts | grep -c more; exec /bin/breakout works"
    reader = container(script, "reader", mountPoints=mount, dependsOn=[{"containerName": "writer", "condition": "COMPLETE"}])
    arn = start(up, shop, network, writer, reader, volumes=[{"name": "data"}])
    task = ended(up, arn, shop)
    shown = output(up, arn)
    assert [one["exitCode"] for one in task["containers"]] == [0, 0], (task, shown)
    words = [line.rsplit(" ", 1)[-1] for line in shown.splitlines() if line]
    assert words == ["0", "0:0", "0:0", "0:0", "33:34", "33:34", "text", "0"], shown


def test_users_terminals_and_inits_of_a_container(up, shop, network):
    script = "id -u; id -g; stat -L -c %u:%g /dev/stdout; stat -c %U /; exec /bin/breakout works"
    plain = container(script, "plain", user="65534:33", essential=False)
    seat = container(script, "seat", user="nobody:33", pseudoTerminal=True, linuxParameters={"initProcessEnabled": True}, dependsOn=[{"containerName": "plain", "condition": "COMPLETE"}])
    arn = start(up, shop, network, plain, seat)
    task = ended(up, arn, shop)
    shown = output(up, arn)
    assert [one["exitCode"] for one in task["containers"]] == [0, 0], (task, shown)
    words = [line.strip().rsplit(" ", 1)[-1] for line in shown.splitlines() if line.strip()]
    for words in (words[:4], words[4:8]):
        assert words[:2] == ["65534", "33"] and words[2].startswith("65534:") and words[3] == "root", shown
    # An id that the task has not is named.
    arn = start(up, shop, network, container("true", user="65536"))
    reason = ended(up, arn, shop)["containers"][0].get("reason", "")
    can, _ = has_users_of_its_own(up)
    assert ("0-65535" in reason) == can, reason


def test_ids_outlive_the_agent(up, shop, network):
    arn = start(up, shop, network, container(IDLE))
    before = user(first_process(until_status(up.ecs, shop, arn, "RUNNING")))
    up.terminate()
    up.start()
    assert user(first_process(until_status(up.ecs, shop, arn, "RUNNING"))) == before
    more = start(up, shop, network, container(IDLE))
    other = user(first_process(until_status(up.ecs, shop, more, "RUNNING")))
    can, _ = has_users_of_its_own(up)
    assert (other != before) == can, "what runs already keeps its users to itself"
    stop(up, more, shop)
    stop(up, arn, shop)


def test_the_size_is_a_limit_of_all_containers_together(up, shop, network):
    arn = start(up, shop, network, container(IDLE), container(IDLE, "more"))
    task = until_status(up.ecs, shop, arn, "RUNNING")
    limits = limits_of(first_process(task))
    assert limits.get("cpu.cfs_quota_us", limits.get("cpu.max", "").split(" ")[0]) == "25000", limits
    assert limits.get("memory.limit_in_bytes", limits.get("memory.max")) == str(512 << 20), limits
    assert limits["pids.max"] == "32768", limits
    assert limits == limits_of(first_process(task, "more")), "one cgroup for both"
    stop(up, arn, shop)
    # More than the size is not to be had, though no container has a limit of its own.
    arn = start(up, shop, network, container("exec dd if=/dev/zero of=/dev/null bs=600M count=1"))
    task = ended(up, arn, shop)
    assert task["containers"][0]["exitCode"] == 137, task
    assert task["containers"][0]["reason"].startswith("OutOfMemoryError"), task


def test_a_machine_can_stay_out_of_it(new_berth):
    for settings in ({"arguments": ["--no-fargate"]}, {"environment": {"BERTH_FARGATE": "false"}}):
        berth = new_berth("up", **settings).start()
        assert json.loads(berth.run("fargate", "list", "--output", "json").stdout)["machines"] == []
        [arn] = berth.ecs.list_container_instances(cluster="default")["containerInstanceArns"]
        assert arn, "it is a container instance all the same"
        berth.end()
