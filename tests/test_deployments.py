"""Deployments of real containers: whatever the new revision does, the service keeps what it promised."""

import time

import pytest

from berth import until
from containers import hello, host_ports, page, skip_unless_root
from ecs_calls import describe, register, service, tasks_of, texts, until_steady
from test_rolling_updates import Watcher
from test_service_deployments import until_deployment

skip_unless_root(__name__)
COUNT = 20
CONFIGURATION = {"minimumHealthyPercent": 75, "maximumPercent": 125, "deploymentCircuitBreaker": {"enable": True, "rollback": True}}


@pytest.fixture(scope="module")
def web(up):
    """A service of 20 real tasks."""
    first = register(up.ecs, family="web", containers=[small()])
    up.ecs.create_service(cluster="default", serviceName="web", taskDefinition=first, desiredCount=COUNT, deploymentConfiguration=CONFIGURATION)
    until_steady(up.ecs, "default", "web")
    return up


def small(**members):
    return hello(stopTimeout=2, **{"memory": 16, **members})


def definitions(ecs):
    return {describe(ecs, "default", arn)["taskDefinitionArn"] for arn in tasks_of(ecs, "default", serviceName="web")}


def test_a_good_update_never_goes_below_the_minimum_nor_above_the_maximum(web):
    ecs = web.ecs
    good = register(ecs, family="web", containers=[small(environment=[{"name": "COLOUR", "value": "green"}])])
    with Watcher(web, "default", "web") as watcher:
        arn = ecs.update_service(cluster="default", service="web", taskDefinition=good)["service"]["currentServiceDeployment"]
        until_deployment(ecs, arn, "SUCCESSFUL")
    assert watcher.least_running >= 15 and watcher.most_live <= 25, (watcher.least_running, watcher.most_live)
    until_steady(ecs, "default", "web")
    assert definitions(ecs) == {good}
    (task, *_) = tasks_of(ecs, "default", serviceName="web")
    (port,) = host_ports(describe(ecs, "default", task))
    assert page(port)


@pytest.mark.parametrize("bad", ["no-such-image", "it-crashes"])
def test_a_bad_update_goes_back_and_takes_nothing_with_it(web, bad):
    ecs = web.ecs
    before = service(ecs, "default", "web")
    old = set(tasks_of(ecs, "default", serviceName="web"))
    wrong = {"no-such-image": small(image="none-such:1"), "it-crashes": small(command=["--no-such-option"], entryPoint=["/none"])}[bad]
    definition = register(ecs, family="web", containers=[wrong])
    with Watcher(web, "default", "web") as watcher:
        arn = ecs.update_service(cluster="default", service="web", taskDefinition=definition)["service"]["currentServiceDeployment"]
        done = until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")
    assert watcher.least_running >= 15, watcher.least_running
    assert done["deploymentCircuitBreaker"]["status"] == "TRIGGERED" and done["deploymentCircuitBreaker"]["threshold"] == 10
    after = until_steady(ecs, "default", "web")
    assert after["taskDefinition"] == before["taskDefinition"] and definitions(ecs) == {before["taskDefinition"]}
    kept = old & set(tasks_of(ecs, "default", serviceName="web"))
    assert len(kept) >= 15, "what the minimum protects was never touched"
    said = " ".join(texts(after))
    assert "deployment failed: tasks failed to start." in said and "rolling back to deployment ecs-svc/" in said


def test_kill_9_in_the_middle_of_an_update_goes_on_where_it_was(web):
    ecs = web.ecs
    good = register(ecs, family="web", containers=[small(environment=[{"name": "COLOUR", "value": "red"}])])
    arn = ecs.update_service(cluster="default", service="web", taskDefinition=good)["service"]["currentServiceDeployment"]
    until("some new tasks", lambda: {good} < definitions(ecs))
    web.kill()
    time.sleep(0.5)
    web.start()
    ecs = web.ecs
    with Watcher(web, "default", "web") as watcher:
        until_deployment(ecs, arn, "SUCCESSFUL")
    assert watcher.least_running >= 15 and watcher.most_live <= 25, (watcher.least_running, watcher.most_live)
    until_steady(ecs, "default", "web")
    assert definitions(ecs) == {good}
    ecs.delete_service(cluster="default", service="web", force=True)
    until("the service to be gone", lambda: service(ecs, "default", "web")["status"] == "INACTIVE")
