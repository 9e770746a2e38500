"""A long row of task lives of every kind: what the kernel, the disk and the agent have afterwards is what they had before.

300 lives; BERTH_SOAK_LIVES says how many else.
"""

import os
import time

import ledger
import leftovers
import pytest
from apart import Apart
from berth import Berth, until, with_images
from containers import IDLE, hello, shell, skip_unless_root
from ecs_calls import register

skip_unless_root(__file__)
DEFAULT = "default"
LIVES = int(os.environ.get("BERTH_SOAK_LIVES", "300"))
# RunTask starts ten at most.
BATCH = 10
# Lives before the first count: what is made once (filters, caches, threads and their allocators' arenas) is there then.
FIRST = 120
# What a life may leave in the agent: nothing. The allocator gives memory back late and in pieces, so that some is granted at all events;
# a record of a task alone takes several KiB, and a thousand lives that each left one are over it.
GRANTED = 4 << 20
GRANTED_A_LIFE = 512


@pytest.fixture(scope="module")
def apart(both_images):
    with with_images(Berth("server"), both_images) as server:
        # What is over is removed at once: here nobody reads its output any more.
        made = Apart(server, ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION="1s")
        try:
            yield made.start()
        finally:
            made.end()


def kinds(ecs):
    """A definition of each kind of life, and whether it ends by itself."""
    volume = {"volumes": [{"name": "v"}]}
    mounted = {"mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]}
    checked = {"healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5}}
    return [
        (register(ecs, containers=[hello(ports=[80, {"containerPort": 53, "protocol": "udp"}], memory=16)]), False),
        (register(ecs, containers=[shell("exit 3", memory=16)]), True),
        (register(ecs, containers=[shell(IDLE, memory=16)], networkMode="host"), False),
        (register(ecs, containers=[shell("echo said; exit 0", memory=16, **mounted)], **volume), True),
        (register(ecs, containers=[shell("sleep 1000 & exit 0", memory=16)], networkMode="none", pidMode="task", ipcMode="task"), True),
        (register(ecs, containers=[{"name": "app", "image": "shell:1", "memory": 16, "entryPoint": ["/none"]}]), True),
        (register(ecs, containers=[shell(IDLE, name="a", memory=16, **checked), shell("exit 0", name="b", memory=16, essential=False)]), False),
        (register(ecs, containers=[shell("a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done", memory=16)]), True),
    ]


def live(apart, definitions, lives):
    """So many lives, in batches of one kind; each batch is there before it is asked to stop."""
    ecs = apart.ecs
    for turn in range(-(-lives // BATCH)):
        definition, ends = definitions[turn % len(definitions)]
        answer = ecs.run_task(cluster=DEFAULT, taskDefinition=definition, count=BATCH)
        assert not answer["failures"], answer["failures"]
        arns = [task["taskArn"] for task in answer["tasks"]]

        def status(wanted, arns=arns):
            found = [task["lastStatus"] for task in ecs.describe_tasks(cluster=DEFAULT, tasks=arns)["tasks"]]
            return all(one in wanted for one in found)

        if not ends:
            until("the batch to run", lambda: status(("RUNNING",)), pause=0.02)
            for arn in arns:
                ecs.stop_task(cluster=DEFAULT, task=arn)
        until("the batch to be over", lambda: status(("STOPPED",)), pause=0.02)


def count(apart):
    """All there is, once the tasks that are over have been removed."""
    until("no task to be kept", lambda: not os.listdir(apart.data_dir / "containers") and not ledger.kept(apart.data_dir), pause=0.5)
    # The kernel takes namespaces down in the background; what the agent holds open for a moment, such as an answer's connection, goes too.
    pid, before = apart.agent.process.pid, None
    for _ in range(60):
        counted = {**leftovers.tally(apart.data_dir), "descriptors": leftovers.descriptors(pid)}
        if counted == before:
            break
        before = counted
        time.sleep(0.5)
    return counted, leftovers.private_memory(pid)


def test_lives_leave_nothing(apart):
    definitions = kinds(apart.ecs)
    live(apart, definitions, FIRST)
    before, memory = count(apart)
    begun = time.monotonic()
    live(apart, definitions, LIVES)
    took = time.monotonic() - begun
    after, memory_after = count(apart)
    grown = memory_after - memory
    print(f"{LIVES} lives in {took:.0f} s; before {before}, {memory} bytes; after {after}, {memory_after} bytes: {grown / LIVES:.0f} bytes a life")
    # The two looks differ by a connection at most; a descriptor that each life left would show.
    assert abs(after.pop("descriptors") - before.pop("descriptors")) <= 3, (before, after)
    assert after == before
    assert grown <= GRANTED + GRANTED_A_LIFE * LIVES, f"the agent has {grown} bytes more after {LIVES} lives: {grown / LIVES:.0f} a life"


def test_the_counting_counts(apart):
    """What the test above compares is more than nothing while tasks run."""
    idle, _ = count(apart)
    (definition, _), *_ = kinds(apart.ecs)
    arns = [task["taskArn"] for task in apart.ecs.run_task(cluster=DEFAULT, taskDefinition=definition, count=4)["tasks"]]

    def all_running():
        return all(task["lastStatus"] == "RUNNING" for task in apart.ecs.describe_tasks(cluster=DEFAULT, tasks=arns)["tasks"])

    until("them to run", all_running)
    busy = leftovers.tally(apart.data_dir)
    for kind, least in {"mounts": 4, "namespaces": 4, "veths": 4, "cgroups": 4, "nft elements": 8, "processes": 4, "files": 8}.items():
        assert busy[kind] >= idle[kind] + least, (kind, idle, busy)
    for arn in arns:
        apart.ecs.stop_task(cluster=DEFAULT, task=arn)
    until("them to be over", lambda: not apart.ecs.list_tasks(cluster=DEFAULT)["taskArns"])
    after, _ = count(apart)
    after.pop("descriptors"), idle.pop("descriptors")
    assert after == idle
