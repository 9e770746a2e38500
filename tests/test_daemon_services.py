"""DAEMON services: one task on each container instance that meets the constraints, first in and last out."""

import json
import os
import signal
import uuid
from collections import Counter

import pytest

from berth import unique, until
from containers import IDLE, pids_of, shell
from ecs_calls import container, describe, refused, register, service, tasks_of, texts, until_status, until_steady

QUICK = {"Delay": 1, "MaxAttempts": 60}


def create(ecs, cluster, definition=None, name="log", **members):
    definition = definition or register(ecs, containers=[container()])
    return ecs.create_service(cluster=cluster, serviceName=name, taskDefinition=definition, schedulingStrategy="DAEMON", **members)["service"]


def member_of(expression):
    return [{"type": "memberOf", "expression": expression}]


def stack(agent, value, ecs, cluster):
    ecs.put_attributes(cluster=cluster, attributes=[{"name": "stack", "value": value, "targetId": agent.arn}])


def on(ecs, cluster, agent, name="log"):
    """The service's tasks on an instance."""
    return tasks_of(ecs, cluster, containerInstance=agent.arn, serviceName=name)


def instances_of(ecs, cluster, name="log"):
    """How many of its tasks run on which instance."""
    arns = tasks_of(ecs, cluster, serviceName=name)
    tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    return Counter(task["containerInstanceArn"] for task in tasks)


def new_provider(ecs):
    name = unique("p")
    group = f"arn:aws:autoscaling:us-east-1:000000000000:autoScalingGroup:{uuid.uuid4()}:autoScalingGroupName/{name}"
    ecs.create_capacity_provider(name=name, autoScalingGroupProvider={"autoScalingGroupArn": group})
    return name


def drain(ecs, cluster, agent, status="DRAINING"):
    assert ecs.update_container_instances_state(cluster=cluster, containerInstances=[agent.arn], status=status)["failures"] == []


def test_each_instance_has_one_and_the_waiter_sees_it(ecs, cluster, agents):
    fleet = [agents(cluster) for _ in range(3)]
    made = create(ecs, cluster)
    assert (made["schedulingStrategy"], made["desiredCount"], made["launchType"]) == ("DAEMON", 3, "EC2")
    configuration = made["deploymentConfiguration"]
    assert (configuration["maximumPercent"], configuration["minimumHealthyPercent"]) == (100, 0)
    assert made["availabilityZoneRebalancing"] == "DISABLED"
    ecs.get_waiter("services_stable").wait(cluster=cluster, services=["log"], WaiterConfig=QUICK)
    found = until_steady(ecs, cluster, "log")
    (deployment,) = found["deployments"]
    assert (found["runningCount"], deployment["desiredCount"], deployment["runningCount"]) == (3, 3, 3)
    assert instances_of(ecs, cluster) == {agent.arn: 1 for agent in fleet}
    assert texts(found)[0] == "(service log) has reached a steady state."
    task = describe(ecs, cluster, tasks_of(ecs, cluster, serviceName="log")[0])
    assert (task["group"], task["startedBy"]) == ("service:log", deployment["id"])


def test_without_instances_it_is_steady_and_those_that_come_get_theirs(ecs, cluster, agents):
    assert create(ecs, cluster)["desiredCount"] == 0
    until_steady(ecs, cluster, "log")
    first = agents(cluster)
    until("the first to have it", lambda: instances_of(ecs, cluster) == {first.arn: 1})
    assert until_steady(ecs, cluster, "log")["desiredCount"] == 1
    second = agents(cluster)
    until("both to have it", lambda: instances_of(ecs, cluster) == {first.arn: 1, second.arn: 1})
    assert until_steady(ecs, cluster, "log")["desiredCount"] == 2


def test_attributes_come_and_go(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    stack(first, "prod", ecs, cluster)
    assert create(ecs, cluster, placementConstraints=member_of("attribute:stack == prod"))["desiredCount"] == 1
    until_steady(ecs, cluster, "log")
    (kept,) = on(ecs, cluster, first)
    assert on(ecs, cluster, second) == []
    stack(second, "prod", ecs, cluster)
    until("the second to have it", lambda: instances_of(ecs, cluster) == {first.arn: 1, second.arn: 1})
    until_steady(ecs, cluster, "log")
    stack(first, "test", ecs, cluster)
    task = until_status(ecs, cluster, kept, "STOPPED")
    assert task["stopCode"] == "ServiceSchedulerInitiated"
    assert task["stoppedReason"].startswith("The task no longer meets the placement constraints: (container-instance ")
    found = until_steady(ecs, cluster, "log")
    assert found["desiredCount"] == 1 and instances_of(ecs, cluster) == {second.arn: 1}
    assert any(f"tasks that no longer meet the placement constraints: (task {kept.rsplit('/', 1)[1]})" in text for text in texts(found))
    ecs.delete_attributes(cluster=cluster, attributes=[{"name": "stack", "targetId": second.arn}])
    until("none to be left", lambda: service(ecs, cluster, "log")["desiredCount"] == 0 and not instances_of(ecs, cluster))


def test_the_constraints_of_service_and_definition_hold_both_and_may_change(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    stack(first, "prod", ecs, cluster)
    stack(second, "test", ecs, cluster)
    definition = register(ecs, containers=[container()], placementConstraints=member_of("attribute:stack exists"))
    create(ecs, cluster, definition, placementConstraints=member_of("attribute:stack == prod"))
    until("the first to have it", lambda: instances_of(ecs, cluster) == {first.arn: 1})
    assert ecs.update_service(cluster=cluster, service="log", placementConstraints=[])["service"]["desiredCount"] == 2
    until("both to have it", lambda: instances_of(ecs, cluster) == {first.arn: 1, second.arn: 1})


def test_what_else_runs_there_may_be_a_condition(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    (web,) = ecs.start_task(cluster=cluster, taskDefinition=register(ecs), containerInstances=[first.arn], group="web")["tasks"]
    until_status(ecs, cluster, web["taskArn"], "RUNNING")
    create(ecs, cluster, placementConstraints=member_of("task:group == web and runningTasksCount < 2"))
    found = until_steady(ecs, cluster, "log")
    assert found["desiredCount"] == 1 and instances_of(ecs, cluster) == {first.arn: 1}, "its own task does not count against it"
    assert on(ecs, cluster, second) == []


def test_it_comes_first_to_an_instance_that_others_wait_for(ecs, cluster, agents):
    large = register(ecs, containers=[container(memory=300)])
    create(ecs, cluster, large)
    until_steady(ecs, cluster, "log")
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=large, desiredCount=8)
    until("it to wait for room", lambda: any("unable to place" in text for text in texts(service(ecs, cluster, "web"))))
    fleet = [agents(cluster, memory=512) for _ in range(4)]
    assert until_steady(ecs, cluster, "log")["runningCount"] == 4
    assert instances_of(ecs, cluster) == {agent.arn: 1 for agent in fleet}
    assert tasks_of(ecs, cluster, serviceName="web") == []
    # Nor does anybody slip in where the task before has just ended.
    ecs.update_service(cluster=cluster, service="log", forceNewDeployment=True)
    found = until_steady(ecs, cluster, "log")
    assert found["runningCount"] == 4 and tasks_of(ecs, cluster, serviceName="web") == []


def test_an_update_never_has_two_on_one_instance_and_keeps_the_minimum(ecs, cluster, agents):
    fleet = [agents(cluster) for _ in range(4)]
    create(ecs, cluster, deploymentConfiguration={"minimumHealthyPercent": 50})
    before = until_steady(ecs, cluster, "log")
    fresh = register(ecs, containers=[container()])
    updated = ecs.update_service(cluster=cluster, service="log", taskDefinition=fresh)["service"]
    assert len(updated["deployments"]) == 2 and updated["desiredCount"] == 4

    def look():
        found = service(ecs, cluster, "log")
        assert found["runningCount"] >= 2, "never below the minimum"
        arns = tasks_of(ecs, cluster, serviceName="log")
        tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
        assert all(count == 1 for count in Counter(task["containerInstanceArn"] for task in tasks).values())
        return len(found["deployments"]) == 1 and found["deployments"][0]["rolloutState"] == "COMPLETED"

    until("the update to be done", look)
    found = service(ecs, cluster, "log")
    assert found["taskDefinition"] == fresh and found["deployments"][0]["id"] != before["deployments"][0]["id"]
    assert instances_of(ecs, cluster) == {agent.arn: 1 for agent in fleet}
    for arn in tasks_of(ecs, cluster, serviceName="log"):
        assert describe(ecs, cluster, arn)["taskDefinitionArn"] == fresh


def test_it_leaves_a_drained_instance_last(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    definition = register(ecs, containers=[container()])
    create(ecs, cluster, definition)
    create(ecs, cluster, definition, name="other")
    until_steady(ecs, cluster, "log")
    until_steady(ecs, cluster, "other")
    (alone,) = ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[first.arn])["tasks"]
    until_status(ecs, cluster, alone["taskArn"], "RUNNING")
    drain(ecs, cluster, first)
    found = until_steady(ecs, cluster, "log")
    assert (found["desiredCount"], found["runningCount"]) == (2, 2), "it stays as long as others do"
    (task,) = on(ecs, cluster, first)
    ecs.stop_task(cluster=cluster, task=alone["taskArn"])
    gone = until_status(ecs, cluster, task, "STOPPED")
    assert gone["stoppedReason"].startswith("Scaling activity initiated by (deployment ecs-svc/")
    assert gone["stoppedAt"] >= until_status(ecs, cluster, alone["taskArn"], "STOPPED")["stoppedAt"]
    until("the other one to leave too", lambda: not on(ecs, cluster, first, "other"))
    found = until_steady(ecs, cluster, "log")
    assert (found["desiredCount"], instances_of(ecs, cluster)) == (1, {second.arn: 1})
    drain(ecs, cluster, first, "ACTIVE")
    until("it to be back", lambda: instances_of(ecs, cluster) == {first.arn: 1, second.arn: 1})


def test_no_room_is_told_and_holds_up_no_other_instance(ecs, cluster, agents):
    small, large = agents(cluster, memory=256), agents(cluster, memory=2048)
    create(ecs, cluster, register(ecs, containers=[container(memory=512)]))
    until("the large one to have it", lambda: instances_of(ecs, cluster) == {large.arn: 1})
    found = until("it to say so", lambda: (now := service(ecs, cluster, "log")) and any("unable to place" in text for text in texts(now)) and now)
    (text,) = [text for text in texts(found) if "unable to place" in text]
    assert small.arn.rsplit("/", 1)[1] in text and "insufficient memory" in text
    assert (found["desiredCount"], found["deployments"][0]["rolloutState"]) == (2, "IN_PROGRESS")


def test_a_machine_where_it_fails_holds_up_no_other(ecs, cluster, agents):
    broken = agents(cluster, runs=False)
    create(ecs, cluster)

    def fail():
        for arn in on(ecs, cluster, broken):
            broken.wait_for_task(arn, "RUNNING")
            broken.report(arn, "STOPPED", reason="CannotStartContainerError: no")
        return any("unable to consistently start" in text for text in texts(service(ecs, cluster, "log")))

    until("it to say so", fail)
    good = agents(cluster)
    until("the good one to have it", lambda: on(ecs, cluster, good) and service(ecs, cluster, "log")["runningCount"] == 1)


def test_a_machine_that_is_lost_is_not_waited_for(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    create(ecs, cluster)
    until_steady(ecs, cluster, "log")
    # The user takes it away: nobody takes its place elsewhere.
    ecs.deregister_container_instance(cluster=cluster, containerInstance=first.arn, force=True)
    until("one to be left", lambda: service(ecs, cluster, "log")["desiredCount"] == 1 and instances_of(ecs, cluster) == {second.arn: 1})
    assert until_steady(ecs, cluster, "log")["runningCount"] == 1


def test_a_machine_that_is_not_heard_of_is_dropped_and_has_a_new_one_when_it_is_back(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    create(ecs, cluster)
    until_steady(ecs, cluster, "log")
    (old,) = on(ecs, cluster, first)
    first.drop()
    # An agent that closed its connection has half a minute to come back.
    until("it to be dropped", lambda: service(ecs, cluster, "log")["desiredCount"] == 1)
    found = until_steady(ecs, cluster, "log")
    assert instances_of(ecs, cluster) == {second.arn: 1}, "nobody takes its place elsewhere"
    assert any(f"container instances are not heard of: (task {old.rsplit('/', 1)[1]})" in text for text in texts(found))
    first.connect()
    until_status(ecs, cluster, old, "STOPPED")
    until("it to have a new one", lambda: instances_of(ecs, cluster) == {first.arn: 1, second.arn: 1})
    assert until_steady(ecs, cluster, "log")["desiredCount"] == 2


def test_protection_holds_an_update_up(ecs, cluster, agents):
    agents(cluster), agents(cluster)
    create(ecs, cluster)
    until_steady(ecs, cluster, "log")
    kept, other = tasks_of(ecs, cluster, serviceName="log")
    ecs.update_task_protection(cluster=cluster, tasks=[kept], protectionEnabled=True)
    ecs.update_service(cluster=cluster, service="log", forceNewDeployment=True)
    until_status(ecs, cluster, other, "STOPPED")
    until("the other instance to have a new one", lambda: service(ecs, cluster, "log")["deployments"][0]["runningCount"] == 1)
    assert describe(ecs, cluster, kept)["desiredStatus"] == "RUNNING"
    ecs.update_task_protection(cluster=cluster, tasks=[kept], protectionEnabled=False)
    until_status(ecs, cluster, kept, "STOPPED")
    assert until_steady(ecs, cluster, "log")["runningCount"] == 2


def test_it_is_deleted_without_force_and_drains(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster)
    until_steady(ecs, cluster, "log")
    (task,) = tasks_of(ecs, cluster, serviceName="log")
    assert ecs.delete_service(cluster=cluster, service="log")["service"]["status"] == "DRAINING"
    until_status(ecs, cluster, task, "STOPPED")
    ecs.get_waiter("services_inactive").wait(cluster=cluster, services=["log"], WaiterConfig=QUICK)
    create(ecs, cluster)
    assert until_steady(ecs, cluster, "log")["runningCount"] == 1


def test_lists_tell_the_strategies_apart(ecs, cluster):
    create(ecs, cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=0)
    listed = {strategy: ecs.list_services(cluster=cluster, schedulingStrategy=strategy)["serviceArns"] for strategy in ("DAEMON", "REPLICA")}
    assert [arn.rsplit("/", 1)[1] for arn in listed["DAEMON"] + listed["REPLICA"]] == ["log", "web"]


@pytest.mark.parametrize(
    "members, words",
    [
        ({"desiredCount": 1}, "does not support a desired count for services. Remove the desired count value and try again"),
        ({"desiredCount": 0}, "does not support a desired count for services. Remove the desired count value and try again"),
        ({"placementStrategy": [{"type": "random"}]}, "does not support placement strategies. Remove the placement strategy and try again"),
        ({"deploymentConfiguration": {"maximumPercent": 101}}, "does not support values above 100 for maximumPercent on a deployment configuration"),
        ({"deploymentConfiguration": {"minimumHealthyPercent": 100}}, "Both maximumPercent and minimumHealthyPercent cannot be 100"),
        ({"availabilityZoneRebalancing": "ENABLED"}, "availabilityZoneRebalancing"),
        ({"deploymentConfiguration": {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1}}, "does not support deployment strategies other than ROLLING"),
        ({"deploymentConfiguration": {"strategy": "LINEAR"}}, "does not support deployment strategies other than ROLLING"),
        ({"deploymentConfiguration": {"strategy": "CANARY"}}, "does not support deployment strategies other than ROLLING"),
        ({"deploymentConfiguration": {"maximumPercent": 200, "minimumHealthyPercent": 100}}, "maximumPercent"),
        ({"capacityProviderStrategy": [{"capacityProvider": "own", "weight": 1}]}, "Specifying a capacity provider strategy is not supported"),
    ],
)
def test_what_it_does_not_go_with_is_refused(ecs, cluster, members, words):
    provider = new_provider(ecs)
    ecs.put_cluster_capacity_providers(cluster=cluster, capacityProviders=[provider], defaultCapacityProviderStrategy=[])
    if "capacityProviderStrategy" in members:
        members = {"capacityProviderStrategy": [{"capacityProvider": provider, "weight": 1}]}
    with refused("InvalidParameterException", words):
        create(ecs, cluster, **members)
    create(ecs, cluster)
    update = {**members, "forceNewDeployment": True} if "capacityProviderStrategy" in members else members
    with refused("InvalidParameterException", words):
        ecs.update_service(cluster=cluster, service="log", **update)


@pytest.mark.parametrize(
    "members, word",
    [({"launchType": "FARGATE"}, "FARGATE"), ({"deploymentController": {"type": "EXTERNAL"}}, "EXTERNAL"), ({"schedulingStrategy": "BOTH"}, "schedulingStrategy")],
)
def test_what_it_cannot_be_made_with_is_refused(ecs, cluster, members, word):
    chosen = {"cluster": cluster, "serviceName": "log", "schedulingStrategy": "DAEMON", **members}
    if "deploymentController" not in members:
        chosen["taskDefinition"] = register(ecs)
    with refused("InvalidParameterException", word):
        ecs.create_service(**chosen)


def test_a_clusters_default_providers_are_in_the_way_unless_the_launch_type_is_named(ecs, cluster, agents):
    provider = new_provider(ecs)
    strategy = [{"capacityProvider": provider, "weight": 1}]
    ecs.put_cluster_capacity_providers(cluster=cluster, capacityProviders=[provider], defaultCapacityProviderStrategy=strategy)
    with refused("InvalidParameterException", "Specifying a capacity provider strategy is not supported"):
        create(ecs, cluster)
    agents(cluster)
    create(ecs, cluster, launchType="EC2")
    assert until_steady(ecs, cluster, "log")["runningCount"] == 1


def test_the_aws_cli_and_why_and_plan(server, ecs, cluster, agents):
    fleet = [agents(cluster, memory=512), agents(cluster, memory=64)]
    definition = register(ecs, containers=[container(memory=128)])
    arguments = ["--cluster", cluster, "--service-name", "log", "--task-definition", definition, "--scheduling-strategy", "DAEMON"]
    made = server.aws("ecs", "create-service", *arguments)["service"]
    assert (made["schedulingStrategy"], made["desiredCount"]) == ("DAEMON", 2)
    until("the large one to have it", lambda: service(ecs, cluster, "log")["runningCount"] == 1)
    answer = json.loads(server.run("why", "log", "--cluster", cluster, "--output", "json").stdout)
    assert answer["summary"].startswith("1 of 2 tasks")
    (refusal,) = [reason for reason in answer["reasons"] if reason["code"] == "PLACEMENT"]
    assert (refusal["rule"], refusal["arns"]) == ("RESOURCE:MEMORY", [fleet[1].arn])
    fresh = register(ecs, containers=[container(memory=32)])
    plan = ["plan", "update-service", "--cluster", cluster, "--service", "log", "--task-definition", fresh, "--output", "json"]
    said = json.loads(server.run(*plan, "--add-instances", f"2={fleet[0].arn.rsplit('/', 1)[1]}").stdout)
    assert said["fits"], said
    assert sorted((one["start"], one["stop"]) for one in said["instances"]) == [(1, 0), (1, 0), (1, 0), (1, 1)]
    ecs.update_service(cluster=cluster, service="log", taskDefinition=fresh)
    assert until_steady(ecs, cluster, "log")["runningCount"] == 2


def test_it_goes_on_after_a_restart(new_berth):
    from fake_agent import FakeAgent

    berth = new_berth("server").start()
    agents = [FakeAgent(berth, "default").join() for _ in range(2)]
    try:
        create(berth.ecs, "default")
        until_steady(berth.ecs, "default", "log")
        before = instances_of(berth.ecs, "default")
        berth.kill()
        berth.start()
        found = service(berth.ecs, "default", "log")
        assert (found["schedulingStrategy"], found["desiredCount"]) == ("DAEMON", 2)
        for agent in agents:
            agent.connect()
        agents.append(FakeAgent(berth, "default").join())
        until("the third to have one", lambda: len(instances_of(berth.ecs, "default")) == 3)
        now = instances_of(berth.ecs, "default")
        assert before.items() <= now.items() and set(now.values()) == {1}
    finally:
        for agent in agents:
            agent.leave()


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED (needs root): real containers need namespaces, mounts and cgroups")
def test_with_a_real_container_it_comes_back_and_is_updated(up):
    ecs, cluster = up.ecs, "default"
    create(ecs, cluster, register(ecs, containers=[shell(IDLE)]))
    found = until_steady(ecs, cluster, "log")
    assert (found["desiredCount"], found["runningCount"]) == (1, 1)
    (first,) = tasks_of(ecs, cluster, serviceName="log")
    os.kill(pids_of(describe(ecs, cluster, first)["containers"][0])[0], signal.SIGKILL)
    until_status(ecs, cluster, first, "STOPPED")
    until_steady(ecs, cluster, "log")
    (second,) = tasks_of(ecs, cluster, serviceName="log")
    assert second != first
    ecs.update_service(cluster=cluster, service="log", taskDefinition=register(ecs, containers=[shell(IDLE)]))
    old, new = until_status(ecs, cluster, second, "STOPPED"), until_steady(ecs, cluster, "log")
    (third,) = tasks_of(ecs, cluster, serviceName="log")
    assert describe(ecs, cluster, third)["createdAt"] >= old["stoppedAt"], "the old one is gone before the new one starts"
    assert new["runningCount"] == 1
    ecs.delete_service(cluster=cluster, service="log")
    until_status(ecs, cluster, third, "STOPPED")
