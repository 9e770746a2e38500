"""availabilityZoneRebalancing: a steady service's tasks move to zones that have fewer of them, and nothing else is disturbed by it."""

from collections import Counter

import pytest

from berth import until
from ecs_calls import container, describe, refused, register, service, tasks_of, texts, until_steady

ZONE = "attribute:ecs.availability-zone"
NO_ROOM = "(service web) is unable to place a task in z-b because no container instance met all of its requirements."


@pytest.fixture
def join(agents, cluster):
    """Joins an agent in a zone."""

    def join(zone, **settings):
        return agents(cluster, attributes=[{"name": "ecs.availability-zone", "value": zone}], **settings)

    return join


def create(ecs, cluster, count=4, definition=None, **members):
    definition = definition or register(ecs, containers=[container()])
    return ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=count, **members)["service"]


def by_zone(ecs, cluster):
    """How many of the service's tasks are wanted in which zone."""
    arns = tasks_of(ecs, cluster, serviceName="web")
    tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    return dict(Counter(task["availabilityZone"] for task in tasks))


def until_zones(ecs, cluster, **wanted):
    wanted = {name.replace("_", "-"): count for name, count in wanted.items()}
    until(f"zones to have {wanted}", lambda: by_zone(ecs, cluster) == wanted)
    return until_steady(ecs, cluster, "web")


def told(ecs, cluster, *words):
    """The service's events with all of these words, the oldest first."""
    return [text for text in reversed(texts(service(ecs, cluster, "web"))) if all(word in text for word in words)]


def test_a_zone_that_comes_later_gets_its_share(ecs, cluster, join):
    join("z-a")
    made = create(ecs, cluster)
    assert made["availabilityZoneRebalancing"] == "ENABLED"
    before = until_steady(ecs, cluster, "web")
    first = set(tasks_of(ecs, cluster, serviceName="web"))
    join("z-b")
    found = until_zones(ecs, cluster, z_a=2, z_b=2)
    until("the end to be told", lambda: told(ecs, cluster, "is AZ balanced"))
    assert found["deployments"][0]["id"] == before["deployments"][0]["id"], "it is no deployment"
    assert len(ecs.list_service_deployments(cluster=cluster, service="web")["serviceDeployments"]) == 1
    about = told(ecs, cluster, "AZ") + told(ecs, cluster, "due to")
    assert about[0] == "(service web) is not AZ balanced with 4 tasks in z-a and 0 in z-b. AZ Rebalancing in progress."
    assert about[1].startswith("(service web) has started 2 tasks in z-b to AZ Rebalance: (task ")
    (stopped,) = told(ecs, cluster, "has stopped")
    assert stopped.startswith("(service web) has stopped 2 running tasks in z-a due to AZ rebalancing: (task ")
    assert told(ecs, cluster, "is AZ balanced") == ["(service web) is AZ balanced with 2 tasks in z-a and 2 tasks in z-b."]
    assert len(told(ecs, cluster, "has reached a steady state")) == 1, "it was steady all the time"
    order = [text for text in reversed(texts(service(ecs, cluster, "web")))]
    assert order.index(about[1]) < order.index(stopped), "first one more, then one less"
    assert len(first & set(tasks_of(ecs, cluster, serviceName="web"))) == 2, "the others stay where they are"
    # Whatever wakes its planner later: there is nothing more to do or to say.
    events, tasks = len(texts(service(ecs, cluster, "web"))), tasks_of(ecs, cluster, serviceName="web")
    ecs.run_task(cluster=cluster, taskDefinition=register(ecs), count=3)
    ecs.put_attributes(cluster=cluster, attributes=[{"name": "x", "targetId": ecs.list_container_instances(cluster=cluster)["containerInstanceArns"][0]}])
    ecs.update_service(cluster=cluster, service="web", healthCheckGracePeriodSeconds=3)
    assert sorted(tasks_of(ecs, cluster, serviceName="web")) == sorted(tasks)
    assert len(texts(service(ecs, cluster, "web"))) == events


def test_three_zones_and_a_maximum_that_lets_one_move_at_a_time(ecs, cluster, join):
    join("z-a")
    create(ecs, cluster, count=6, deploymentConfiguration={"maximumPercent": 120})
    until_steady(ecs, cluster, "web")
    join("z-b")
    join("z-c")
    until_zones(ecs, cluster, z_a=2, z_b=2, z_c=2)
    assert all("has started 1 tasks in" in text for text in told(ecs, cluster, "to AZ Rebalance"))
    assert len(told(ecs, cluster, "to AZ Rebalance")) == 4


def test_a_zone_without_room_is_told_of_and_taken_when_it_has_some(server, ecs, cluster, join):
    join("z-a")
    create(ecs, cluster)
    until_steady(ecs, cluster, "web")
    join("z-b", cpu=5)
    until("it to be told", lambda: told(ecs, cluster, "unable to place"))
    shown = server.run("why", "web", "--cluster", cluster).stdout
    assert "availability zones are not balanced, with 4 tasks in z-a and 0 in z-b: it is unable to place a task in z-b" in shown
    assert NO_ROOM in server.run("deploy", "status", "web", "--cluster", cluster).stdout
    # Another that has no room either: planned again, but nothing new.
    join("z-b", cpu=5)
    ecs.update_service(cluster=cluster, service="web", healthCheckGracePeriodSeconds=3)
    join("z-b")
    until_zones(ecs, cluster, z_a=2, z_b=2)
    assert told(ecs, cluster, "unable") == [NO_ROOM]
    assert len(told(ecs, cluster, "is not AZ balanced")) == 1


def test_protected_tasks_hold_it_up(server, ecs, cluster, join):
    join("z-a")
    create(ecs, cluster)
    until_steady(ecs, cluster, "web")
    tasks = tasks_of(ecs, cluster, serviceName="web")
    ecs.update_task_protection(cluster=cluster, tasks=tasks, protectionEnabled=True)
    join("z-b")
    until("it to be told", lambda: told(ecs, cluster, "was unable to AZ Rebalance because (taskSet ecs-svc/", "due to task protection."))
    assert by_zone(ecs, cluster) == {"z-a": 4}
    assert "task protection" in server.run("why", "web", "--cluster", cluster).stdout
    ecs.update_task_protection(cluster=cluster, tasks=tasks[:1], protectionEnabled=False)
    until_zones(ecs, cluster, z_a=3, z_b=1)
    assert describe(ecs, cluster, tasks[0])["desiredStatus"] == "STOPPED"
    ecs.update_task_protection(cluster=cluster, tasks=tasks[1:], protectionEnabled=False)
    until_zones(ecs, cluster, z_a=2, z_b=2)


def test_scaling_and_deployments_interrupt_it(server, ecs, cluster, join):
    join("z-a")
    create(ecs, cluster)
    until_steady(ecs, cluster, "web")
    # What starts there stays PENDING, so the tasks in z-a are kept.
    waiting = join("z-b", runs=False)
    until("two to be started there", lambda: by_zone(ecs, cluster) == {"z-a": 4, "z-b": 2})
    found = service(ecs, cluster, "web")
    assert (found["runningCount"], found["pendingCount"]) == (4, 2)
    assert "2 are not healthy yet, and as many others stop then" in server.run("why", "web", "--cluster", cluster).stdout
    ecs.update_service(cluster=cluster, service="web", desiredCount=1)
    until("the scale-in to take those that do not run, and more", lambda: by_zone(ecs, cluster) == {"z-a": 1})
    assert not told(ecs, cluster, "due to AZ rebalancing")
    waiting.runs = True
    ecs.update_service(cluster=cluster, service="web", desiredCount=3)
    until("zones to be even", lambda: sorted(by_zone(ecs, cluster).values()) == [1, 2])
    until_steady(ecs, cluster, "web")
    found = service(ecs, cluster, "web")
    ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)
    until("the new deployment", lambda: service(ecs, cluster, "web")["deployments"][0]["id"] != found["deployments"][0]["id"])
    until_steady(ecs, cluster, "web")
    until("zones to be even", lambda: sorted(by_zone(ecs, cluster).values()) == [1, 2])


@pytest.mark.parametrize(
    "members",
    [
        {"availabilityZoneRebalancing": "DISABLED"},
        {"deploymentConfiguration": {"maximumPercent": 100, "minimumHealthyPercent": 50}},
        {"placementStrategy": [{"type": "spread", "field": "instanceId"}]},
        {"placementConstraints": [{"type": "memberOf", "expression": f"{ZONE} in [z-a, z-b]"}]},
    ],
)
def test_what_is_not_eligible_stays_as_it_is(ecs, cluster, join, members):
    join("z-a")
    assert create(ecs, cluster, **members)["availabilityZoneRebalancing"] == "DISABLED"
    until_steady(ecs, cluster, "web")
    join("z-b")
    ecs.update_service(cluster=cluster, service="web", desiredCount=5)
    until("the scale-out", lambda: len(tasks_of(ecs, cluster, serviceName="web")) == 5)
    until_steady(ecs, cluster, "web")
    assert by_zone(ecs, cluster)["z-a"] >= 4 and not told(ecs, cluster, "AZ")


@pytest.mark.parametrize(
    "members, words",
    [
        ({"deploymentConfiguration": {"maximumPercent": 100, "minimumHealthyPercent": 50}}, "maximumPercent of 100 or less"),
        ({"placementStrategy": [{"type": "binpack", "field": "cpu"}, {"type": "spread", "field": ZONE}]}, "first placementStrategy"),
        ({"placementStrategy": [{"type": "random"}]}, "first placementStrategy"),
        ({"placementConstraints": [{"type": "memberOf", "expression": f"{ZONE} == z-a"}]}, "placementConstraints"),
    ],
)
def test_what_it_does_not_go_with_is_refused(ecs, cluster, members, words):
    with refused("InvalidParameterException", words, "availabilityZoneRebalancing"):
        create(ecs, cluster, 0, availabilityZoneRebalancing="ENABLED", **members)
    create(ecs, cluster, 0, **members)
    with refused("InvalidParameterException", words, "availabilityZoneRebalancing"):
        ecs.update_service(cluster=cluster, service="web", availabilityZoneRebalancing="ENABLED")


def test_an_update_keeps_it_unless_told_otherwise(ecs, cluster):
    strategy = [{"type": "spread", "field": ZONE}, {"type": "binpack", "field": "memory"}]
    assert create(ecs, cluster, 0, placementStrategy=strategy)["availabilityZoneRebalancing"] == "ENABLED"

    def update(**members):
        answer = ecs.update_service(cluster=cluster, service="web", **members)["service"]
        assert len(answer["deployments"]) == 1, "it makes no deployment"
        return answer["availabilityZoneRebalancing"]

    assert update(desiredCount=0) == "ENABLED"
    assert update(availabilityZoneRebalancing="DISABLED") == "DISABLED"
    assert update(healthCheckGracePeriodSeconds=1) == "DISABLED"
    assert update(availabilityZoneRebalancing="ENABLED") == "ENABLED"
    assert update(deploymentConfiguration={"maximumPercent": 100, "minimumHealthyPercent": 50}) == "ENABLED"


def test_external_capacity_is_not_eligible(ecs, cluster):
    with refused("InvalidParameterException", "EXTERNAL launch type"):
        create(ecs, cluster, 0, launchType="EXTERNAL", availabilityZoneRebalancing="ENABLED")
    assert create(ecs, cluster, 0, launchType="EXTERNAL")["availabilityZoneRebalancing"] == "DISABLED"
