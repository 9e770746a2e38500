"""ExecuteCommand: everything that can be checked is."""

import pytest

from ecs_calls import container, refused, register, run, until_status


@pytest.fixture
def task(ecs, cluster, agents):
    """A running task of two containers, with ECS Exec on."""
    agents(cluster)
    definition = register(ecs, containers=[container("one"), container("two")])
    (arn,) = run(ecs, cluster, definition, enableExecuteCommand=True)
    until_status(ecs, cluster, arn, "RUNNING")
    return arn


def execute(ecs, cluster, arn, **members):
    return ecs.execute_command(**{"cluster": cluster, "task": arn, "container": "one", "command": "/bin/sh", "interactive": True, **members})


def test_nobody_listens_in_the_container(ecs, cluster, task):
    with refused("TargetNotConnectedException", "execute command failed"):
        execute(ecs, cluster, task)


@pytest.mark.parametrize(
    "broken, word",
    [
        ({"interactive": False}, "interactive"),
        ({"command": ""}, "command"),
        ({"container": "three"}, "container"),
        ({"container": ""}, "container"),
        ({"task": "0" * 32}, "task"),
    ],
)
def test_what_is_wrong_is_named(ecs, cluster, task, broken, word):
    with refused("InvalidParameterException", word):
        execute(ecs, cluster, task, **broken)


def test_a_task_without_it_says_what_to_do(ecs, cluster, agents):
    agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs, containers=[container("one")]))
    until_status(ecs, cluster, arn, "RUNNING")
    with refused("InvalidParameterException", "execute command was not enabled", "run a new task with execute command enabled"):
        execute(ecs, cluster, arn)


def test_an_unknown_cluster(ecs, cluster, task):
    with refused("ClusterNotFoundException"):
        execute(ecs, "nobody", task)
