"""The deployment circuit breaker: deployments that fail end, and the service goes back to what it was, without a task less."""

import pytest

from berth import Berth, until
from ecs_calls import describe, register, service, tasks_of, texts, until_steady
from test_service_deployments import current, deployment, until_deployment

BREAKER = {"enable": True, "rollback": True}
REASON = "CannotPullContainerError: pull image manifest has been retried 5 time(s): not found"


@pytest.fixture(scope="module")
def server():
    """A server of the module's own: --healthy-after 1, and no other test's load."""
    berth = Berth("server", healthy_after=1)
    try:
        yield berth.start()
    finally:
        berth.end()


def refuse(agent, definition):
    """The agent cannot start tasks of this definition."""
    family, revision = definition.rsplit("/", 1)[1].split(":")
    agent.refuses = lambda task: REASON if (task["family"], task["version"]) == (family, revision) else None


def create(ecs, cluster, count=4, breaker=None, **members):
    configuration = {"deploymentCircuitBreaker": breaker or BREAKER}
    made = ecs.create_service(
        cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=count, deploymentConfiguration=configuration, **members
    )
    until_steady(ecs, cluster, "web")
    return made["service"]


def test_a_breaker_is_echoed_with_what_was_given(ecs, cluster):
    breaker = {**BREAKER, "resetOnHealthyTask": False, "thresholdConfiguration": {"type": "COUNT", "value": 7}}
    ecs.create_service(
        cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=0, deploymentConfiguration={"deploymentCircuitBreaker": breaker}
    )
    assert service(ecs, cluster, "web")["deploymentConfiguration"]["deploymentCircuitBreaker"] == breaker
    ecs.update_service(cluster=cluster, service="web", deploymentConfiguration={"maximumPercent": 150})
    assert service(ecs, cluster, "web")["deploymentConfiguration"]["deploymentCircuitBreaker"] == breaker
    ecs.update_service(cluster=cluster, service="web", deploymentConfiguration={"deploymentCircuitBreaker": {"enable": False, "rollback": False}})
    shown = service(ecs, cluster, "web")["deploymentConfiguration"]["deploymentCircuitBreaker"]
    assert (shown["enable"], shown["rollback"]) == (False, False)


def test_a_deployment_that_cannot_start_goes_back_and_keeps_every_task(ecs, cluster, agents):
    agent = agents(cluster)
    made = create(ecs, cluster)
    old = set(tasks_of(ecs, cluster, serviceName="web"))
    bad = register(ecs)
    refuse(agent, bad)
    changed = ecs.update_service(cluster=cluster, service="web", taskDefinition=bad)["service"]
    arn, failed = changed["currentServiceDeployment"], changed["deployments"][0]["id"]
    done = until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")
    # Four are started at once: the third that fails is too many, and the fourth may have failed as well by then.
    breaker = done["deploymentCircuitBreaker"]
    assert (breaker["status"], breaker["threshold"]) == ("TRIGGERED", 3) and breaker["failureCount"] in (3, 4)
    assert done["rollback"]["serviceRevisionArn"] == made["currentServiceRevisions"][0]["arn"]
    assert done["rollback"]["reason"] == "Service deployment rolled back because the circuit breaker threshold was exceeded."
    after = until_steady(ecs, cluster, "web")
    assert after["taskDefinition"] == made["taskDefinition"]
    assert set(tasks_of(ecs, cluster, serviceName="web")) == old, "what ran goes on"
    (primary,) = after["deployments"]
    assert (primary["desiredCount"], primary["runningCount"], primary["rolloutState"]) == (4, 4, "COMPLETED")
    assert primary["id"] not in (failed, made["deployments"][0]["id"])
    said = texts(after)
    assert f"(service web) (deployment {failed}) deployment failed: tasks failed to start." in said
    assert f"(service web) rolling back to deployment {primary['id']}." in said
    # A task of the deployment that was gone back to is replaced in the new one.
    (lost, *_) = sorted(old)
    ecs.stop_task(cluster=cluster, task=lost)
    until("another in its place", lambda: len(set(tasks_of(ecs, cluster, serviceName="web")) - old) == 1)
    until_steady(ecs, cluster, "web")
    # And the next deployment replaces them all.
    good = register(ecs)
    next_one = ecs.update_service(cluster=cluster, service="web", taskDefinition=good)["service"]["currentServiceDeployment"]
    until_deployment(ecs, next_one, "SUCCESSFUL")
    assert all(describe(ecs, cluster, task)["taskDefinitionArn"] == good for task in tasks_of(ecs, cluster, serviceName="web"))


def test_without_rollback_the_deployment_stays_failed_and_starts_nothing(ecs, cluster, agents):
    agent = agents(cluster)
    create(ecs, cluster, count=2, breaker={"enable": True, "rollback": False})
    old = set(tasks_of(ecs, cluster, serviceName="web"))
    bad = register(ecs)
    refuse(agent, bad)
    changed = ecs.update_service(cluster=cluster, service="web", taskDefinition=bad)["service"]
    stopped = until_deployment(ecs, changed["currentServiceDeployment"], "STOPPED")
    assert stopped["statusReason"] == "ECS deployment circuit breaker: tasks failed to start."
    assert stopped["deploymentCircuitBreaker"]["status"] == "TRIGGERED"
    found = service(ecs, cluster, "web")
    by_status = {one["status"]: one for one in found["deployments"]}
    assert by_status["PRIMARY"]["rolloutState"] == "FAILED"
    assert by_status["PRIMARY"]["rolloutStateReason"] == "ECS deployment circuit breaker: tasks failed to start."
    assert by_status["PRIMARY"]["failedTasks"] >= 3
    assert (by_status["ACTIVE"]["desiredCount"], by_status["ACTIVE"]["runningCount"]) == (2, 2)
    # What the old revision loses it still gets back.
    ecs.stop_task(cluster=cluster, task=sorted(old)[0])
    fresh = until("another", lambda: set(tasks_of(ecs, cluster, serviceName="web")) - old)
    assert describe(ecs, cluster, fresh.pop())["taskDefinitionArn"] != bad
    good = register(ecs)
    arn = ecs.update_service(cluster=cluster, service="web", taskDefinition=good)["service"]["currentServiceDeployment"]
    until_deployment(ecs, arn, "SUCCESSFUL")


def test_a_first_deployment_has_nothing_to_go_back_to(ecs, cluster, agents):
    agent = agents(cluster)
    bad = register(ecs)
    refuse(agent, bad)
    configuration = {"deploymentCircuitBreaker": {**BREAKER, "thresholdConfiguration": {"type": "COUNT", "value": 2}}}
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=bad, desiredCount=1, deploymentConfiguration=configuration)
    found = until_deployment(ecs, current(ecs, cluster), "ROLLBACK_FAILED")
    assert found["deploymentCircuitBreaker"] == {"status": "TRIGGERED", "failureCount": 2, "threshold": 2}
    assert service(ecs, cluster, "web")["deployments"][0]["rolloutState"] == "FAILED"


def test_while_it_goes_well_the_breaker_only_watches(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster, count=1)
    found = deployment(ecs, current(ecs, cluster))
    assert found["deploymentCircuitBreaker"] == {"status": "MONITORING_COMPLETE", "failureCount": 0, "threshold": 3}


def test_a_scale_out_in_mid_deployment_applies_to_both_revisions(ecs, cluster, agents):
    agent = agents(cluster)
    create(ecs, cluster, count=2)
    agent.runs = False
    ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)
    until("two new ones", lambda: service(ecs, cluster, "web")["pendingCount"] == 2)
    ecs.update_service(cluster=cluster, service="web", desiredCount=3)

    def both():
        found = {one["status"]: one for one in service(ecs, cluster, "web")["deployments"]}
        counts = {status: (one["desiredCount"], one["runningCount"] + one["pendingCount"]) for status, one in found.items()}
        return counts == {"PRIMARY": (3, 3), "ACTIVE": (3, 3)}

    until("three of each", both)
