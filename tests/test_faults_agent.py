"""What breaks around an agent that is a process of its own: it is killed, its disk is full, a registry stands still."""

import os
import signal
import time

import pytest

import leftovers
from apart import Apart
from berth import Berth, Gone, until, with_images
from bystander import beside
from containers import IDLE, ended, finished, hello, host_ports, page, pids_of, running, shell, skip_unless_root, start, stop
from ecs_calls import describe, register, until_status
from images import pack_shell
from small_disk import SmallDisk
from stalling_registry import StallingRegistry, noise_layer

skip_unless_root(__file__)
DEFAULT = "default"


@pytest.fixture(scope="module")
def images_server(both_images):
    """A server with images, and no agent of its own."""
    with with_images(Berth("server"), both_images) as berth:
        yield berth


@pytest.fixture
def apart(images_server):
    """An agent of the test's own, in the cluster default."""
    made = Apart(images_server)
    try:
        yield made.start()
    finally:
        for arn in images_server.ecs.list_tasks(cluster=DEFAULT)["taskArns"]:
            images_server.ecs.stop_task(cluster=DEFAULT, task=arn)
        until("no task", lambda: not images_server.ecs.list_tasks(cluster=DEFAULT)["taskArns"] or not _alive(made))
        made.end()
        for arn in images_server.ecs.list_container_instances(cluster=DEFAULT)["containerInstanceArns"]:
            images_server.ecs.deregister_container_instance(cluster=DEFAULT, containerInstance=arn, force=True)


def _alive(apart):
    return apart.agent.process.poll() is None


def _until_back(apart):
    instance = apart.agent.start().until_connected()
    assert apart.ecs.list_container_instances(cluster=DEFAULT)["containerInstanceArns"] == [instance], "it is the one that it was"


# -- kill -9 -----------------------------------------------------------------------------------------------------------------


def test_kill_9_of_the_agent_loses_nothing(apart):
    with beside(apart, apart.data_dir, apart.data_dir) as bystander:
        ends, is_killed, is_stopped = running(apart, hello()), running(apart, shell(IDLE)), running(apart, shell(IDLE, stopTimeout=2))
        (port,) = host_ports(ends)
        assert page(port)
        apart.agent.kill()
        bystander.lives()
        page(port, "/exit?code=7")
        os.kill(pids_of(is_killed["containers"][0])[0], signal.SIGKILL)
        until("both to have ended", lambda: not pids_of(ends["containers"][0]) and not pids_of(is_killed["containers"][0]))
        apart.ecs.stop_task(cluster=DEFAULT, task=is_stopped["taskArn"])
        waits = apart.ecs.run_task(cluster=DEFAULT, taskDefinition=register(apart.ecs, containers=[shell("exit 6")]))
        _until_back(apart)
        after = ended(apart, ends["taskArn"])
        assert (after["containers"][0]["exitCode"], after["stopCode"]) == (7, "EssentialContainerExited")
        assert ended(apart, is_killed["taskArn"])["containers"][0]["exitCode"] == 137
        after = ended(apart, is_stopped["taskArn"])
        assert (after["containers"][0]["exitCode"], after["stopCode"]) == (0, "UserInitiated")
        # Whether it found a place depends on whether the server had seen the agent go.
        for task in waits["tasks"]:
            assert ended(apart, task["taskArn"])["containers"][0]["exitCode"] == 6
        bystander.lives()
        # Again and again, at any step of a start.
        arns = []
        for delay in (0, 0.01, 0.03, 0.1):
            answer = apart.ecs.run_task(cluster=DEFAULT, taskDefinition=register(apart.ecs, containers=[shell(IDLE, memory=16)]), count=2)
            arns += [task["taskArn"] for task in answer["tasks"]]
            time.sleep(delay)
            apart.agent.kill()
            _until_back(apart)
        assert arns
        for arn in arns:
            until_status(apart.ecs, DEFAULT, arn, "RUNNING")
            stop(apart, arn)


# -- a full disk -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_small_disk(images_server):
    made = Apart(images_server)
    disk = SmallDisk(made.data_dir, 96)
    try:
        yield made.start(), disk
    finally:
        disk.free()
        for arn in images_server.ecs.list_tasks(cluster=DEFAULT)["taskArns"]:
            images_server.ecs.stop_task(cluster=DEFAULT, task=arn)
        until("no task", lambda: not images_server.ecs.list_tasks(cluster=DEFAULT)["taskArns"] or not _alive(made))
        try:
            made.end()
        finally:
            disk.remove()
        for arn in images_server.ecs.list_container_instances(cluster=DEFAULT)["containerInstanceArns"]:
            images_server.ecs.deregister_container_instance(cluster=DEFAULT, containerInstance=arn, force=True)


def test_a_full_disk_refuses_pulls_and_starts_with_a_reason_and_mends_by_itself(on_small_disk, tmp_path):
    apart, disk = on_small_disk
    other = pack_shell(tmp_path / "other.tar")
    other.write_bytes(other.read_bytes() + b"\0" * 10240)
    apart.server.run("image", "load", str(other), "other:1")
    with beside(apart, apart.data_dir, apart.data_dir) as bystander:
        # Room for what is written of a task, none for an image.
        disk.fill(but=256 << 10)
        task = finished(apart, shell("exit 0", image="other:1"))
        assert task["stopCode"] == "TaskFailedToStart" and "exitCode" not in task["containers"][0], task
        assert task["stoppedReason"].startswith("CannotPullContainerError: ") and "no space left" in task["stoppedReason"].lower(), task["stoppedReason"]
        bystander.lives()
        # Not even for what is written of a task.
        disk.fill()
        task = finished(apart, shell("exit 0"))
        assert task["stopCode"] == "TaskFailedToStart" and "exitCode" not in task["containers"][0], task
        assert "no space left" in task["stoppedReason"].lower(), task["stoppedReason"]
        bystander.lives()
        before = leftovers.files(apart.data_dir / "images")
        disk.free()
        assert finished(apart, shell("exit 5", image="other:1"))["containers"][0]["exitCode"] == 5
        assert finished(apart, shell("exit 6"))["containers"][0]["exitCode"] == 6
        assert leftovers.files(apart.data_dir / "images") > before


def test_what_ends_while_the_disk_is_full_is_told(on_small_disk):
    apart, disk = on_small_disk
    ends, stopped = running(apart, hello()), running(apart, shell(IDLE))
    (port,) = host_ports(ends)
    assert page(port)
    disk.fill()
    page(port, "/exit?code=9")
    assert ended(apart, ends["taskArn"])["containers"][0]["exitCode"] == 9
    assert stop(apart, stopped["taskArn"])["containers"][0]["exitCode"] == 0
    assert _alive(apart), apart.tail()


# -- a registry that stands still -----------------------------------------------------------------------------------------------


@pytest.fixture
def registry(shell_archive):
    made = StallingRegistry([shell_archive.read_bytes(), noise_layer(4 << 20)], ["/bin/sh", "-c"])
    yield made
    made.end()


def _foreign(registry, script):
    return {"name": "app", "image": registry.reference, "memory": 64, "command": [script]}


def _until_stalled(apart, registry, arn):
    def stalled():
        task = describe(apart.ecs, DEFAULT, arn)
        assert task["lastStatus"] != "STOPPED", task
        return registry.stalled.is_set()

    until("the registry to stand still", stalled)


def test_a_registry_that_stalls_in_a_layer_holds_nobody_up_and_the_pull_goes_on_where_it_was(apart, registry):
    with beside(apart, apart.data_dir, apart.data_dir):
        registry.stall_after = 1 << 20
        waits = start(apart, _foreign(registry, "exit 4"))
        _until_stalled(apart, registry, waits)
        # Others are pulled, started and ended meanwhile; it itself can be stopped.
        assert finished(apart, shell("exit 5"))["containers"][0]["exitCode"] == 5
        gone = start(apart, _foreign(registry, "exit 4"))
        task = stop(apart, gone)
        assert task["stopCode"] == "UserInitiated" and "exitCode" not in task["containers"][0], task
        assert describe(apart.ecs, DEFAULT, waits)["lastStatus"] in ("PROVISIONING", "PENDING")
        registry.release()
        assert ended(apart, waits)["containers"][0]["exitCode"] == 4
        assert any(start > 0 for start in registry.ranges), "it went on where it was"


def test_a_task_whose_registry_stalls_can_be_stopped_and_leaves_nothing(apart, registry):
    before = leftovers.paths(apart.data_dir / "images")
    registry.stall_after = 1 << 20
    waits = start(apart, _foreign(registry, "exit 4"))
    _until_stalled(apart, registry, waits)
    task = stop(apart, waits)
    assert task["stopCode"] == "UserInitiated", task
    try:
        until("no half of an image to be left", lambda: leftovers.paths(apart.data_dir / "images") <= before)
    except Gone:
        pytest.fail(f"left: {leftovers.paths(apart.data_dir / 'images') - before}")


def test_a_registry_that_breaks_off_at_the_same_place_again_and_again_is_given_up(apart, registry):
    with beside(apart, apart.data_dir, apart.data_dir):
        before = leftovers.paths(apart.data_dir / "images")
        registry.stuck_at = 1 << 20
        task = finished(apart, _foreign(registry, "exit 4"))
        assert task["stopCode"] == "TaskFailedToStart" and "exitCode" not in task["containers"][0], task
        assert task["stoppedReason"].startswith("CannotPullContainerError: "), task["stoppedReason"]
        # Four times for the rest of each of two layers at most: a registry that stands still would hold the task for half an hour else.
        assert 4 <= registry.ranges.count(1 << 20) <= 8, registry.ranges
        assert not leftovers.paths(apart.data_dir / "images") - before
