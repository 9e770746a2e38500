"""What breaks on a machine: memory, processes, output, monitors. Each time ECS's words for it, a task beside it that does not notice, and
nothing left behind."""

import os
import signal
import time
from pathlib import Path

import pytest

from berth import http_status, until
from bystander import beside
from containers import IDLE, ended, finished, output, pids_of, running, said, shell, skip_unless_root, start, stop
from ecs_calls import describe, until_status

skip_unless_root(__file__)
DEFAULT = "default"
MIB = 1 << 20


def monitor_of(container):
    """The process that looks after a container: its command line ends with the container's id."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"berth-monitor") and container["runtimeId"].encode() in words:
                found.append(int(folder.name))
    (pid,) = found
    return pid


def resident(pid):
    """Bytes in memory of a process."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS:"))


# -- memory ------------------------------------------------------------------------------------------------------------------


def test_out_of_memory_ends_the_container_and_nobody_else(up):
    with beside(up):
        task = finished(up, shell("a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done", memory=32))
        (container,) = task["containers"]
        assert (container["exitCode"], container["reason"]) == (137, "OutOfMemoryError: Container killed due to memory usage")
        assert (task["stopCode"], task["stoppedReason"]) == ("EssentialContainerExited", "Essential container in task exited")


# -- the monitor -------------------------------------------------------------------------------------------------------------


def assert_lost(task):
    """Nobody can say any more how such a container would have ended: it is stopped, with a reason and without an exit code."""
    (container,) = task["containers"]
    assert container["reason"].startswith("ContainerVanishedError: "), container
    assert "exitCode" not in container, container
    assert (task["stopCode"], task["stoppedReason"]) == ("EssentialContainerExited", "Essential container in task exited")


@pytest.mark.parametrize("members", [{}, {"pidMode": "task"}, {"pidMode": "host"}])
def test_a_container_whose_monitor_is_killed_is_stopped_with_a_reason(up, members):
    """It does not go on unseen: nobody would take its output, see its end or stop it. A service replaces it."""
    with beside(up):
        task = running(up, shell(f"sleep 1000 & {IDLE}"), **members)
        said_before = pids_of(task["containers"][0])
        assert len(said_before) >= 2
        os.kill(monitor_of(task["containers"][0]), signal.SIGKILL)
        assert_lost(ended(up, task["taskArn"]))
        until("its processes to be gone", lambda: not pids_of(task["containers"][0]))


def test_a_monitor_that_is_stopped_holds_nobody_else_up(up):
    """SIGSTOP, as a debugger or a machine short of everything has it: its container cannot be asked; that one ends when it may go on."""
    with beside(up):
        task = running(up, shell(IDLE, stopTimeout=2))
        monitor = monitor_of(task["containers"][0])
        os.kill(monitor, signal.SIGSTOP)
        try:
            assert finished(up, shell("exit 3"))["containers"][0]["exitCode"] == 3
            up.ecs.stop_task(cluster=DEFAULT, task=task["taskArn"])
            assert finished(up, shell("exit 4"))["containers"][0]["exitCode"] == 4
        finally:
            os.kill(monitor, signal.SIGCONT)
        ended(up, task["taskArn"])


# -- processes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [{}, {"pidMode": "host"}])
def test_a_container_that_forks_ten_thousand_processes(up, members):
    """ECS sets no limit of processes on EC2 unless told to; each takes memory in the kernel, and that is the container's."""
    script = "trap '' TERM; echo begin; i=0; while [ $i -lt 10000 ]; do sleep 1000 & i=$((i+1)); done; echo all; while :; do sleep 1; done"
    with beside(up) as bystander:
        arn = start(up, shell(script, memory=256, stopTimeout=3), **members)
        task = until_status(up.ecs, DEFAULT, arn, "RUNNING")

        def settled():
            """The last of them is there, or the memory has ended it."""
            bystander.lives()
            assert http_status(up.endpoint + "/healthz") == 200
            if describe(up.ecs, DEFAULT, arn)["lastStatus"] == "STOPPED":
                return "stopped"
            before = len(pids_of(task["containers"][0]))
            time.sleep(1)
            return len(pids_of(task["containers"][0])) <= before and before

        how = until("it to have all that it gets", settled)
        print(f"{members}: {how}")
        assert how == "stopped" or how < 10_000, "256 MiB do not hold ten thousand processes"
        # Others start and end as ever.
        assert finished(up, shell("exit 5"))["containers"][0]["exitCode"] == 5
        after = stop(up, arn)
        (container,) = after["containers"]
        if after["stopCode"] == "UserInitiated":
            assert container["exitCode"] == 137, "it was killed when its stopTimeout was over"
        else:
            # The kernel chose its first process meanwhile, or that could not fork any more.
            assert after["stopCode"] == "EssentialContainerExited" and container["exitCode"] != 0, after
            assert container["exitCode"] != 137 or container["reason"].startswith("OutOfMemoryError: "), after
        until("all its processes to be gone", lambda: not pids_of(task["containers"][0]))


# -- output ------------------------------------------------------------------------------------------------------------------

LOG_LIMIT = 16 * MIB
LINES = "i=0; while [ $i -lt 5000 ]; do echo line $i of a program that says all that comes to its mind; i=$((i+1)); done >/tmp/lines; "


@pytest.mark.parametrize("flood", [LINES + "echo now; while :; do cat /tmp/lines; done", "echo now; exec cat /dev/zero"], ids=["lines", "no-lines"])
def test_a_container_that_floods_its_output(up, flood):
    """It may write as fast as somebody takes it. What is kept of it is bounded, and so is what that takes."""
    with beside(up):
        task = running(up, shell(flood, stopTimeout=1))
        arn, (container,) = task["taskArn"], task["containers"]
        folder = up.data_dir / "agent" / "containers" / container["runtimeId"]
        assert folder.is_dir(), folder
        monitor = monitor_of(container)
        until("its log to have gone round", lambda: (folder / "output.log.1").exists())
        largest = memory = 0
        written = _written(monitor)
        # Until it has written a good deal more than is kept.
        while _written(monitor) < written + 4 * LOG_LIMIT:
            largest = max(largest, sum(_size(file) for file in folder.glob("output.log*")))
            memory = max(memory, resident(monitor))
            time.sleep(0.02)
        assert largest <= LOG_LIMIT, f"{largest} bytes of output are kept"
        assert memory < 16 * MIB, f"the monitor takes {memory} bytes"
        print(f"{largest} bytes kept at most, {memory} bytes of monitor")
        # Of a program that never ends a line all that is kept is one.
        tail = output(up, arn, "--tail", "3")
        assert 0 < len(tail) <= (MIB if "lines" in flood else LOG_LIMIT)
        # Another's output arrives while it goes on.
        quiet = start(up, shell("echo here; sleep 1; echo and there"))
        said(up, quiet, "and there")
        assert ended(up, quiet)["containers"][0]["exitCode"] == 0
        after = stop(up, arn)
        assert after["containers"][0]["exitCode"] in (137, 143), after
        until("its monitor to be gone", lambda: not os.path.exists(f"/proc/{monitor}"))


def _size(file):
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _written(pid):
    """Bytes that a process has written to files, sockets and pipes."""
    with open(f"/proc/{pid}/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("wchar:"))
