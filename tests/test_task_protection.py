"""Task protection: scale-in and deployments leave a service's protected tasks alone."""

import datetime

import pytest

from berth import until
from ecs_calls import container, describe, refused, register, run, service, tasks_of, until_status, until_steady


@pytest.fixture
def web(ecs, cluster, agents):
    """A steady service of three tasks; gives their ARNs."""
    agents(cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs, containers=[container()]), desiredCount=3)
    until_steady(ecs, cluster, "web")
    return sorted(tasks_of(ecs, cluster, serviceName="web"))


def protect(ecs, cluster, *tasks, enabled=True, **members):
    return ecs.update_task_protection(cluster=cluster, tasks=list(tasks), protectionEnabled=enabled, **members)


def test_protection_is_set_shown_and_taken_away(ecs, cluster, web):
    before = datetime.datetime.now(datetime.UTC)
    answer = protect(ecs, cluster, web[0], expiresInMinutes=60)
    (one,) = answer["protectedTasks"]
    assert (one["taskArn"], one["protectionEnabled"], answer["failures"]) == (web[0], True, [])
    assert datetime.timedelta(minutes=59) < one["expirationDate"] - before < datetime.timedelta(minutes=61)
    shown = ecs.get_task_protection(cluster=cluster, tasks=web)["protectedTasks"]
    assert shown == [one, *({"taskArn": arn, "protectionEnabled": False} for arn in web[1:])]
    assert protect(ecs, cluster, web[0], enabled=False)["protectedTasks"] == [{"taskArn": web[0], "protectionEnabled": False}]
    (default,) = protect(ecs, cluster, web[0])["protectedTasks"]
    assert datetime.timedelta(minutes=119) < default["expirationDate"] - before < datetime.timedelta(minutes=121), "two hours by default"


def test_scale_in_leaves_protected_tasks(ecs, cluster, web):
    protect(ecs, cluster, web[0])
    ecs.update_service(cluster=cluster, service="web", desiredCount=0)
    for arn in web[1:]:
        until_status(ecs, cluster, arn, "STOPPED")
    assert service(ecs, cluster, "web")["runningCount"] == 1
    assert describe(ecs, cluster, web[0])["desiredStatus"] == "RUNNING"
    protect(ecs, cluster, web[0], enabled=False)
    until_status(ecs, cluster, web[0], "STOPPED")


def test_a_deployment_waits_for_protected_tasks(ecs, cluster, web):
    protect(ecs, cluster, web[0])
    ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)
    for arn in web[1:]:
        until_status(ecs, cluster, arn, "STOPPED")
    found = service(ecs, cluster, "web")
    assert len(found["deployments"]) == 2 and found["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    assert describe(ecs, cluster, web[0])["desiredStatus"] == "RUNNING"
    protect(ecs, cluster, web[0], enabled=False)
    until_steady(ecs, cluster, "web")
    until_status(ecs, cluster, web[0], "STOPPED")


def test_a_user_may_stop_a_protected_task(ecs, cluster, web):
    protect(ecs, cluster, web[0])
    ecs.stop_task(cluster=cluster, task=web[0])
    until_status(ecs, cluster, web[0], "STOPPED")
    until("its place to be taken", lambda: len(tasks_of(ecs, cluster, serviceName="web")) == 3)


def test_what_cannot_be_protected_is_a_failure(ecs, cluster, web):
    (alone,) = run(ecs, cluster, register(ecs, containers=[container()]))
    nobody = web[0].rsplit("/", 1)[0] + "/" + "0" * 32
    answer = protect(ecs, cluster, alone, nobody, web[0], web[0])
    assert [one["taskArn"] for one in answer["protectedTasks"]] == [web[0]]
    assert answer["failures"] == [{"arn": alone, "reason": "TASK_NOT_VALID"}, {"arn": nobody, "reason": "MISSING"}]
    answer = ecs.get_task_protection(cluster=cluster, tasks=[alone, nobody])
    assert (answer["protectedTasks"], [one["reason"] for one in answer["failures"]]) == ([], ["TASK_NOT_VALID", "MISSING"])


def test_more_protected_tasks_than_the_service_wants_would_block_it(ecs, cluster, web):
    protect(ecs, cluster, *web)
    ecs.update_service(cluster=cluster, service="web", desiredCount=1)
    answer = protect(ecs, cluster, web[0])
    assert (answer["protectedTasks"], answer["failures"]) == ([], [{"arn": web[0], "reason": "DEPLOYMENT_BLOCKED"}])


@pytest.mark.parametrize(
    "members, word",
    [({"expiresInMinutes": 0}, "expiresInMinutes"), ({"expiresInMinutes": 2881}, "expiresInMinutes"), ({"tasks": []}, "tasks"), ({"tasks": ["0" * 32] * 11}, "tasks")],
)
def test_bad_input_is_named(ecs, cluster, members, word):
    with refused("InvalidParameterException", word):
        ecs.update_task_protection(**{"cluster": cluster, "tasks": ["0" * 32], "protectionEnabled": True, **members})


def test_limits(ecs, cluster):
    with refused("InvalidParameterException", "tasks"):
        ecs.get_task_protection(cluster=cluster, tasks=[])
    with refused("InvalidParameterException", "tasks"):
        ecs.get_task_protection(cluster=cluster, tasks=["0" * 32] * 101)
    for call in (lambda: ecs.get_task_protection(cluster="nobody", tasks=["0" * 32]), lambda: protect(ecs, "nobody", "0" * 32)):
        with refused("ClusterNotFoundException"):
            call()
