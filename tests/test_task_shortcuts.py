"""What moves much between two tasks of one machine takes a shorter way, past the machine's routes and rules."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from awsvpc import address, network, running, subnet_of
from berth import Berth, until, with_images
from containers import IDLE, pids_of, shell, skip_unless_root, stop

skip_unless_root(__file__)
PORT = 5001
MIB = 1 << 20


def link_to(task):
    """The machine's link that leads to the task."""
    routes = subprocess.run(["ip", "-json", "route", "get", address(task)], capture_output=True, text=True, check=True)
    return json.loads(routes.stdout)[0]["dev"]


def counted(link, what):
    return int(Path(f"/sys/class/net/{link}/statistics/{what}_bytes").read_text())


def has_program(link):
    shown = subprocess.run(["tc", "filter", "show", "dev", link, "ingress"], capture_output=True, text=True, check=True)
    return "berth_shortcut" in shown.stdout


RECEIVE = f"""
import socket
with socket.create_server(("", {PORT})) as server:
    connection, _ = server.accept()
    while connection.recv({MIB}):
        pass
"""
SEND = f"""
import socket, sys, time
for _ in range(100):
    try:
        connection = socket.create_connection((sys.argv[1], {PORT}), timeout=10)
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
while True:
    connection.sendall(bytes({MIB}))
"""


def two_tasks(up):
    subnet = subnet_of(up.client("ec2"))
    return [running(up, shell(IDLE), on=network(subnet)) for _ in range(2)]


@contextlib.contextmanager
def program(task, code, *arguments):
    """A program of this machine in the task's network namespace, until the end of the block."""
    [pid, *_] = pids_of(task["containers"][0])
    started = subprocess.Popen(["nsenter", "-t", str(pid), "-n", sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def test_bytes_go_from_link_to_link(up):
    if not shutil.which("tc"):
        pytest.skip("SKIPPED (needs the tc program): which links have the program")
    doctor = json.loads(up.run("doctor", "--output", "json", check=False).stdout)
    [able] = [found for found in doctor["findings"] if found["check"] == "task shortcuts"]
    if able["verdict"] != "good":
        pytest.skip(f"SKIPPED (needs Linux 5.10 and CAP_BPF): {able['found']}")
    receiver, sender = two_tasks(up)
    source, target = link_to(sender), link_to(receiver)
    assert not has_program(source) and not has_program(target), "nothing moves yet"
    with program(receiver, RECEIVE), program(sender, SEND, address(receiver)):
        until("both links to have the program", lambda: has_program(source) and has_program(target))

        def is_short():
            before = counted(source, "rx"), counted(target, "tx")
            until("a hundred MiB to be sent", lambda: counted(source, "rx") > before[0] + 100 * MIB)
            return counted(target, "tx") - before[1] < 10 * MIB

        until("them to take the shorter way", is_short)
    for task in (sender, receiver):
        stop(up, task["taskArn"])
    until("the links to be gone", lambda: not Path(f"/sys/class/net/{source}").exists() and not Path(f"/sys/class/net/{target}").exists())


def test_a_setting_turns_it_off(both_images):
    if not shutil.which("tc"):
        pytest.skip("SKIPPED (needs the tc program): which links have the program")
    with with_images(Berth("up", environment={"BERTH_TASK_SHORTCUTS": "false"}), both_images) as up:
        receiver, sender = two_tasks(up)
        source = link_to(sender)
        with program(receiver, RECEIVE), program(sender, SEND, address(receiver)):
            # Far more, and for longer, than it takes where it is on.
            start, begun = counted(source, "rx"), time.monotonic()
            until("a GiB to be sent", lambda: counted(source, "rx") > start + 1024 * MIB and time.monotonic() > begun + 2)
            assert not has_program(source)
