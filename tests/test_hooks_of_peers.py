"""Lifecycle hooks where there are several servers: one of them calls, and another goes on when it dies in the middle of a call."""

import threading

import pytest

from berth import Berth, unique, until
from ecs_calls import register, service
from etcd_servers import EtcdCluster
from fake_agent import FakeAgent
from hook_server import HookServer
from test_service_deployments import deployment

PATIENCE = 60
STAGES = ["PRE_SCALE_UP", "POST_SCALE_UP", "TEST_TRAFFIC_SHIFT", "POST_TEST_TRAFFIC_SHIFT", "PRODUCTION_TRAFFIC_SHIFT"]


@pytest.fixture
def hooks():
    server = HookServer()
    yield server
    server.close()


@pytest.fixture
def peers():
    """Two servers; the first one leads."""
    etcd = EtcdCluster()
    made = []
    try:
        etcd.start()
        made = [Berth("server", healthy_after=0.2, arguments=["--store", etcd.url, "--deployment-minute", "0.1"]) for _ in range(2)]
        yield [berth.start() for berth in made]
    finally:
        for berth in made:
            berth.end()
        etcd.end()


def begun(berth, cluster, url, stages):
    """A service whose second deployment begins, with hooks; gives its ARN."""
    ecs = berth.ecs
    configuration = {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1}
    ecs.create_service(
        cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=2, deploymentConfiguration=configuration
    )
    ended(berth, service(ecs, cluster, "web")["currentServiceDeployment"])
    hook = {"hookTargetArn": url, "lifecycleStages": stages}
    changed = ecs.update_service(
        cluster=cluster, service="web", taskDefinition=register(ecs), deploymentConfiguration={"lifecycleHooks": [hook]}
    )
    return changed["service"]["currentServiceDeployment"]


def ended(berth, arn):
    def look():
        found = deployment(berth.ecs, arn)
        assert found["status"] in ("PENDING", "IN_PROGRESS", "SUCCESSFUL"), found
        return found["status"] == "SUCCESSFUL" and found

    return until("the deployment to come out", look, PATIENCE)


def test_each_stage_calls_its_hook_once_whoever_is_asked(peers, hooks):
    first, second = peers
    cluster = unique("c")
    first.ecs.create_cluster(clusterName=cluster)
    with_agent = FakeAgent(first, cluster).join()
    try:
        arn = begun(first, cluster, hooks.url("/once"), STAGES)
        done = ended(first, arn)
        assert [event["lifecycleStage"] for event in hooks.events("/once")] == STAGES
        assert len({event["executionId"] for event in hooks.events("/once")}) == len(STAGES)
        assert [one["status"] for one in done["lifecycleHookDetails"]] == ["SUCCEEDED"] * len(STAGES)
        until("the other peer to show the same", lambda: deployment(second.ecs, arn)["status"] == "SUCCESSFUL", PATIENCE)
        assert deployment(second.ecs, arn)["lifecycleHookDetails"] == done["lifecycleHookDetails"]
    finally:
        with_agent.leave()


def test_a_call_whose_caller_died_is_made_again_by_the_next(peers, hooks):
    first, second = peers
    cluster = unique("c")
    first.ecs.create_cluster(clusterName=cluster)
    with_agent = FakeAgent(second, cluster).join()
    asked = threading.Event()
    try:
        hooks.say("/slow", asked, {"hookStatus": "SUCCEEDED"})
        arn = begun(first, cluster, hooks.url("/slow"), ["POST_SCALE_UP"])
        (lost,) = hooks.wait("/slow", 1)
        first.kill()
        again = hooks.wait("/slow", 2)[1]
        assert (again["executionId"], again["lifecycleStage"]) == (lost["executionId"], "POST_SCALE_UP"), "it is the same run"
        done = ended(second, arn)
        assert [one["status"] for one in done["lifecycleHookDetails"]] == ["SUCCEEDED"]
        assert len(hooks.events("/slow")) == 2
    finally:
        asked.set()
        with_agent.leave()
