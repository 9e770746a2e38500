"""Five hundred tasks with interfaces of their own on one machine: up through the API, and gone without a trace.

BERTH_AWSVPC_TASKS says how many else. The times are printed, never judged.
"""

import os
import re
import subprocess
import time

import ledger
import leftovers
import pytest
from apart import Apart
from awsvpc import address, fetched, inside, interfaces, network, subnet_of
from berth import Berth, until, with_images
from containers import hello, shell, skip_unless_root
from ecs_calls import describe, register, run, tasks_of, until_status

skip_unless_root(__file__)
DEFAULT = "default"
TASKS = int(os.environ.get("BERTH_AWSVPC_TASKS", "500"))
# RunTask starts ten at most.
BATCH = 10
# Starting hundreds of containers takes minutes where a machine has other work.
PATIENCE = 900
# Nothing wakes up while it waits; the signal ends it at once.
STILL = "trap 'exit 0' TERM; sleep 100000 & wait"


@pytest.fixture(scope="module")
def apart(both_images):
    with with_images(Berth("server"), both_images) as server:
        made = Apart(server, ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION="1s")
        try:
            yield made.start()
        finally:
            made.end()


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=60, check=True).stdout


def mark_of(task):
    """How the names of the agent's links to tasks begin: seen at a task's own end of one."""
    number = re.search(r"@if(\d+)", inside(task, "ip", "-o", "link", "show", "eth0").stdout)[1]
    [line] = [line for line in ip("-o", "link").splitlines() if line.startswith(f"{number}: ")]
    return line.split()[1][:5]


def counted(apart, mark):
    """What the machine has of tasks' interfaces, beside what tasks of other kinds have as well."""
    links = [line.split()[1] for line in ip("-o", "link").splitlines() if line.split()[1].startswith(mark)]
    routes = [line for line in ip("route", "show", "proto", "190").splitlines() if f" dev {mark}" in line]
    neighbours = [line for line in ip("neigh", "show", "nud", "permanent").splitlines() if f" dev {mark}" in line]
    return {**leftovers.tally(apart.data_dir), "links": len(links), "routes": len(routes), "neighbours": len(neighbours)}


def settled(apart, mark):
    """The same, once nothing of what is over is left to be removed and the kernel has taken down what it takes down in its own time."""
    until("no task to be kept", lambda: not os.listdir(apart.data_dir / "containers") and not ledger.kept(apart.data_dir), PATIENCE, 0.5)
    before = None
    for _ in range(120):
        now = counted(apart, mark)
        if now == before:
            break
        before = now
        time.sleep(0.5)
    return now


def statuses(ecs, arns):
    found = {}
    for first in range(0, len(arns), 100):
        for task in ecs.describe_tasks(cluster=DEFAULT, tasks=arns[first : first + 100])["tasks"]:
            found[task["taskArn"]] = task
    return found


def until_all(ecs, arns, status):
    def look():
        found = statuses(ecs, arns).values()
        if status == "RUNNING":
            over = [task for task in found if task["lastStatus"] == "STOPPED"]
            assert not over, (len(over), over[0].get("stoppedReason"), over[0]["containers"])
        return len(found) == len(arns) and all(task["lastStatus"] == status for task in found)

    until(f"all {len(arns)} to be {status}", look, PATIENCE, 0.5)
    return statuses(ecs, arns)


def test_five_hundred_come_and_go_without_a_trace(apart):
    ecs, ec2 = apart.ecs, apart.server.client("ec2")
    subnet = subnet_of(ec2)
    on = network(subnet)
    # One of them is first, and gone, so that what is made once is there when it is counted.
    web = register(ecs, containers=[hello(memory=16)], networkMode="awsvpc")
    [first] = run(ecs, DEFAULT, web, networkConfiguration=on)
    mark = mark_of(until_status(ecs, DEFAULT, first, "RUNNING"))
    ecs.stop_task(cluster=DEFAULT, task=first)
    until_all(ecs, [first], "STOPPED")
    until("its address to be free", lambda: not interfaces(ec2, subnet))
    before = settled(apart, mark)
    assert (before["links"], before["routes"], before["neighbours"]) == (0, 0, 0), before

    [server] = run(ecs, DEFAULT, web, networkConfiguration=on)
    server = until_status(ecs, DEFAULT, server, "RUNNING")
    definition = register(ecs, containers=[shell(STILL, memory=6)], networkMode="awsvpc")
    begun = time.monotonic()
    arns = [arn for _ in range(TASKS // BATCH) for arn in run(ecs, DEFAULT, definition, count=BATCH, networkConfiguration=on)]
    taken = time.monotonic()
    tasks = until_all(ecs, arns, "RUNNING")
    up = time.monotonic()
    addresses = {address(task) for task in tasks.values()}
    assert len(addresses) == len(arns) == TASKS // BATCH * BATCH
    assert addresses | {address(server)} == set(interfaces(ec2, subnet))
    busy = counted(apart, mark)
    for kind in ("links", "routes", "neighbours"):
        assert busy[kind] == len(arns) + 1, (kind, busy)
    # The last of them is as much in the network as the first.
    for arn in (arns[0], arns[len(arns) // 2], arns[-1]):
        until("a task to reach another", lambda task=tasks[arn]: "Hello from Berth" in (fetched(task, address(server)) or ""))

    for arn in arns:
        ecs.stop_task(cluster=DEFAULT, task=arn)
    until_all(ecs, arns, "STOPPED")
    down = time.monotonic()
    ecs.stop_task(cluster=DEFAULT, task=server["taskArn"])
    until_all(ecs, [server["taskArn"]], "STOPPED")
    until("all addresses to be free", lambda: not interfaces(ec2, subnet))
    assert tasks_of(ecs, DEFAULT) == []
    assert describe(ecs, DEFAULT, arns[0])["attachments"][0]["status"] == "DELETED"
    after = settled(apart, mark)
    print(f"{len(arns)} tasks: accepted in {taken - begun:.1f} s, running after {up - begun:.1f} s, over in {down - up:.1f} s; busy {busy}, after {after}")
    assert after == before
