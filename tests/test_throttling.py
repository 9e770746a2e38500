"""Actions held back by `--throttle`, as AWS holds back its own."""

import subprocess

import pytest

from berth import binary, clean_environment, unique
from ecs_calls import container


def register(ecs):
    return ecs.register_task_definition(family=unique("f"), containerDefinitions=[container()])


def test_a_call_beyond_the_burst_is_throttled_and_no_other_action_is(new_berth):
    berth = new_berth("server", arguments=("--throttle", "RegisterTaskDefinition=0.001/3", "--throttle", "ListClusters=1000/1000")).start()
    ecs = berth.ecs
    for _ in range(3):
        register(ecs)
    with pytest.raises(ecs.exceptions.ClientError) as caught:
        register(ecs)
    error = caught.value.response
    assert (error["Error"]["Code"], error["Error"]["Message"]) == ("ThrottlingException", "Rate exceeded")
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert len(ecs.list_task_definitions()["taskDefinitionArns"]) == 3, "what was throttled changed nothing"
    for _ in range(20):
        ecs.list_clusters()


def test_an_sdk_waits_and_gets_through(new_berth):
    berth = new_berth("server", arguments=("--throttle", "RegisterTaskDefinition=4/1")).start()
    ecs = berth.client(retries={"mode": "standard", "total_max_attempts": 12})
    for _ in range(4):
        register(ecs)
    retried = sum(register(ecs)["ResponseMetadata"]["RetryAttempts"] for _ in range(4))
    assert retried > 0, "nobody was held back"


def test_a_bad_throttle_is_a_clear_error():
    ended = subprocess.run([binary(), "server", "--throttle", "Lamp=1/1"], capture_output=True, text=True, env=clean_environment(), timeout=60)
    assert ended.returncode == 2
    assert "--throttle" in ended.stderr and "no action Lamp" in ended.stderr
