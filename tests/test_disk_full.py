"""A full disk: it is said, reading goes on, containers do not notice, and writing comes back by itself; nothing acknowledged is lost.

Each Berth here has its data directory on a small file system of its own. It is mounted at the data directory itself, where also
whoever clears up after a killed run looks for mounts.
"""

import base64
import contextlib
import io
import os
import subprocess
import tarfile

import pytest
from botocore.exceptions import ClientError

from berth import Berth, binary, clean_environment, fresh_folder, http_status, http_text, unique, until
from containers import ended, hello, host_ports, output, page, pids_of, running, said, shell, skip_unless_root
from ecs_calls import container, describe, register, run, service, tasks_of, until_status, until_steady
from fake_agent import FakeAgent
from small_disk import SmallDisk
from test_restart import _reconnected

skip_unless_root(__file__)
DEFAULT = "default"


@pytest.fixture
def on_small_disk():
    """Makes Berths on disks of their own: `on_small_disk("server", 32)`; gives both."""
    made = []

    def make(role, megabytes):
        disk = SmallDisk(fresh_folder(role) / "data", megabytes)
        berth = Berth(role, data_dir=disk.path)
        made.append((berth, disk))
        return berth.start(), disk

    yield make
    for berth, disk in made:
        with contextlib.suppress(OSError):
            disk.free()
        try:
            if berth.alive or berth.role == "up":
                berth.end()
        finally:
            disk.remove()
            with contextlib.suppress(OSError):
                disk.path.rmdir()


class Writer:
    """Registers definitions that take room, and keeps apart what was acknowledged and what was refused."""

    def __init__(self, berth):
        self.berth, self.acknowledged, self.refused = berth, [], []

    def write(self):
        family = unique("f")
        value = base64.b64encode(os.urandom(30_000)).decode()
        try:
            self.acknowledged.append(register(self.berth.ecs, family, containers=[container(environment=[{"name": "X", "value": value}])]))
        except ClientError as error:
            self.refused.append(f"arn:aws:ecs:us-east-1:000000000000:task-definition/{family}:1")
            return error.response
        return None

    def until_full(self, disk):
        """Fills the disk, and what the server had set aside."""
        for _ in range(3_000):
            disk.fill()
            if answer := self.write():
                return answer
        raise AssertionError("the disk did not become full")

    def listed(self):
        pages = self.berth.ecs.get_paginator("list_task_definitions").paginate()
        return {arn for found in pages for arn in found["taskDefinitionArns"]}

    def check(self):
        known = self.listed()
        assert set(self.acknowledged) <= known, "what was acknowledged is lost"
        assert not set(self.refused) & known, "what was refused is there"


def assert_says_so(answer):
    assert answer["Error"]["Code"] == "ServerException", answer
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "the disk is full" in answer["Error"]["Message"], answer


def test_a_server_on_a_full_disk_refuses_to_write_and_goes_on_by_itself(on_small_disk):
    started, disk = on_small_disk("server", 128)
    ecs = started.ecs
    agent = FakeAgent(started, DEFAULT).join()
    definition = register(ecs)
    ecs.create_service(cluster=DEFAULT, serviceName="web", taskDefinition=definition, desiredCount=1)
    until_steady(ecs, DEFAULT, "web")
    (task,) = run(ecs, DEFAULT, definition)
    until_status(ecs, DEFAULT, task, "RUNNING")
    writer = Writer(started)
    for round_ in range(3):
        assert_says_so(writer.until_full(disk))
        for call in (
            lambda: ecs.create_cluster(clusterName=unique("c")),
            lambda: ecs.run_task(cluster=DEFAULT, taskDefinition=definition),
            lambda: ecs.update_service(cluster=DEFAULT, service="web", desiredCount=2),
            lambda: ecs.stop_task(cluster=DEFAULT, task=task),
            lambda: ecs.tag_resource(resourceArn=definition, tags=[{"key": "k", "value": "v" * 200}]),
        ):
            # What is small may still find room in the pages that are there; if not, it says why.
            disk.fill()
            try:
                call()
            except ClientError as error:
                assert_says_so(error.response)
        assert http_status(started.endpoint + "/healthz") == 200
        assert describe(ecs, DEFAULT, task)["taskArn"] == task
        assert service(ecs, DEFAULT, "web")["status"] == "ACTIVE"
        writer.check()
        if round_ == 1:
            started.kill()
            disk.free()
            started.start()
            ecs = started.ecs
            agent.register(containerInstanceArn=agent.arn)
            agent = _reconnected(agent)
        else:
            disk.free()
        assert not writer.write(), "room is there again, and it does not write"
        writer.check()
        disk.fill()
        disk.free()
    ecs.update_service(cluster=DEFAULT, service="web", desiredCount=3)
    until_steady(ecs, DEFAULT, "web")
    assert started.terminate() == 0
    started.start()
    writer.check()
    agent.leave()


def test_a_server_starts_on_a_full_disk_and_goes_on_by_itself(on_small_disk):
    started, disk = on_small_disk("server", 64)
    agent = FakeAgent(started, DEFAULT).join()
    (task,) = run(started.ecs, DEFAULT, register(started.ecs))
    until_status(started.ecs, DEFAULT, task, "RUNNING")
    writer = Writer(started)
    writer.until_full(disk)
    for _ in range(2):
        agent.leave()
        endpoint = started.endpoint
        # It holds its room, so that there is none to say where the server is.
        file, aside = disk.path / "endpoint.json", disk.path / "aside.json"
        started.kill()
        file.rename(aside)
        disk.fill()
        started.start(wait=False)
        until("it to serve", lambda: http_status(endpoint + "/healthz") == 200)
        aside.rename(file)
        assert describe(started.ecs, DEFAULT, task)["taskArn"] == task
        writer.check()
        assert_says_so(writer.until_full(disk))
        writer.check()
        assert started.alive
    disk.free()
    until("it to write again", lambda: not writer.write())
    writer.check()
    until("the agent to be forgotten", lambda: not _connected(started, agent.arn))
    until("commands to find it", lambda: str(started.process.pid) in (disk.path / "endpoint.json").read_text())
    # What lasted long was said once each time, not at every try.
    log = started.log.read_text()
    for words in ("berth_store::writer: the store cannot write", "cannot move the store's log"):
        assert log.count(words) <= 6, log
    assert "writes again" in log, log


def _connected(started, instance):
    (found,) = started.ecs.describe_container_instances(cluster=DEFAULT, containerInstances=[instance])["containerInstances"]
    return found["agentConnected"]


def test_a_backup_can_be_taken_while_the_disk_is_full(on_small_disk, tmp_path, new_berth):
    started, disk = on_small_disk("server", 24)
    writer = Writer(started)
    for _ in range(60):
        assert not writer.write()
    writer.until_full(disk)
    started.run("backup", str(tmp_path / "berth.backup"))
    done = started.run("backup", str(disk.path / "here.backup"), check=False)
    assert done.returncode == 1 and "No space left" in done.stderr, done
    assert not list(disk.path.glob("*.backup")) and not list(disk.path.glob(".berth-backup-*"))
    new = new_berth()
    small = SmallDisk(fresh_folder("restore") / "data", 1)
    try:
        command = [str(binary()), "restore", str(tmp_path / "berth.backup"), "--data-dir"]
        options = {"capture_output": True, "text": True, "timeout": 120, "env": clean_environment(), "check": False}
        refused = subprocess.run([*command, str(small.path)], **options)
        assert refused.returncode == 1 and "the disk is full" in refused.stderr, refused
        assert not os.listdir(small.path)
    finally:
        small.remove()
    restored = subprocess.run([*command, str(new.data_dir)], **options)
    assert restored.returncode == 0, restored
    writer.berth = new.start()
    writer.check()


def test_containers_do_not_notice_a_full_disk(on_small_disk, hello_archive, shell_archive, tmp_path):
    up, disk = on_small_disk("up", 160)
    up.run("image", "load", str(hello_archive), "hello:latest")
    up.run("image", "load", str(shell_archive), "shell:1")
    web, ends = running(up, hello()), running(up, hello())
    assert page(host_ports(ends)[0])
    # It writes more than a pipe holds, and would stand still if nobody took it.
    loud = running(up, shell("i=0; while :; do i=$((i+1)); echo line $i of many more that want to be kept; sleep 0.002; done", stopTimeout=1))
    said(up, loud["taskArn"], "line 10 ")
    pids = {task["taskArn"]: pids_of(task["containers"][0]) for task in (web, loud)}
    (port,) = host_ports(web)
    writer = Writer(up)
    assert_says_so(writer.until_full(disk))

    assert http_status(up.endpoint + "/healthz") == 200
    assert "Hello from Berth" in http_text(f"http://127.0.0.1:{port}/")
    image = tmp_path / "image.tar"
    with tarfile.open(image, "w") as tar:
        entry = tarfile.TarInfo("noise")
        entry.size = 3 << 20
        tar.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    done = up.run("image", "load", str(image), "another:1", check=False)
    assert done.returncode == 1 and "full" in done.stderr, done
    assert http_text(f"http://127.0.0.1:{host_ports(ends)[0]}/exit?code=3")
    until("it to have ended", lambda: not pids_of(ends["containers"][0]))
    switches = [int(_field(pid, "voluntary_ctxt_switches")) for pid in pids[loud["taskArn"]][:1]]
    until("the loud container to go on", lambda: int(_field(pids[loud["taskArn"]][0], "voluntary_ctxt_switches")) > switches[0] + 500)
    for task in (web, loud):
        assert describe(up.ecs, DEFAULT, task["taskArn"])["lastStatus"] == "RUNNING"
        assert pids_of(task["containers"][0])[0] == pids[task["taskArn"]][0]
    assert "line 10 " in output(up, loud["taskArn"])

    disk.free()
    assert not writer.write()
    before = len(output(up, loud["taskArn"]))
    until("its log to go on", lambda: len(output(up, loud["taskArn"])) > before + 1000)
    assert ended(up, ends["taskArn"])["containers"][0]["exitCode"] == 3, "an exit while the disk was full"
    up.run("image", "load", str(image), "another:1")
    again = running(up, hello())
    assert "Hello from Berth" in page(host_ports(again)[0])

    disk.fill()
    up.kill()
    disk.free()
    up.start()
    writer.check()
    for task in (web, loud, again):
        until_status(up.ecs, DEFAULT, task["taskArn"], "RUNNING")
    assert {web["taskArn"], loud["taskArn"], again["taskArn"]} <= set(tasks_of(up.ecs, DEFAULT))
    assert pids_of(web["containers"][0]) == pids[web["taskArn"]]


def _field(pid, name):
    with open(f"/proc/{pid}/status") as file:
        return next(line.split()[1] for line in file if line.startswith(name + ":"))
