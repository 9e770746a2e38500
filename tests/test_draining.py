"""Container instances that are drained: nothing new comes, service tasks move away within the percentages, others stay."""

import pytest

from ecs_calls import container, describe, refused, register, run, service, tasks_of, texts, until_status, until_steady
from berth import until


def drain(ecs, cluster, agent, status="DRAINING"):
    answer = ecs.update_container_instances_state(cluster=cluster, containerInstances=[agent.arn], status=status)
    assert answer["failures"] == []
    (shown,) = answer["containerInstances"]
    assert (shown["containerInstanceArn"], shown["status"]) == (agent.arn, status)
    return shown


def on(ecs, cluster, agent):
    return tasks_of(ecs, cluster, containerInstance=agent.arn)


def test_a_drained_instance_gets_no_task_until_it_is_active_again(ecs, cluster, agents):
    agent = agents(cluster)
    definition = register(ecs, containers=[container()])
    before = ecs.describe_container_instances(cluster=cluster, containerInstances=[agent.arn])["containerInstances"][0]["version"]
    assert drain(ecs, cluster, agent)["version"] == before + 1
    assert drain(ecs, cluster, agent)["version"] == before + 1, "asked for again, it is nothing new"
    answer = ecs.run_task(cluster=cluster, taskDefinition=definition)
    assert answer["tasks"] == [] and answer["failures"], answer
    assert ecs.list_container_instances(cluster=cluster, status="DRAINING")["containerInstanceArns"] == [agent.arn]
    assert ecs.list_container_instances(cluster=cluster, status="ACTIVE")["containerInstanceArns"] == []
    drain(ecs, cluster, agent, "ACTIVE")
    run(ecs, cluster, definition)


def test_service_tasks_move_and_tasks_of_their_own_stay(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    definition = register(ecs, containers=[container()])
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=4)
    until_steady(ecs, cluster, "web")
    (alone,) = [task["taskArn"] for task in ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[first.arn])["tasks"]]
    until_status(ecs, cluster, alone, "RUNNING")
    moved = set(on(ecs, cluster, first)) - {alone}
    assert len(moved) == 2
    drain(ecs, cluster, first)
    until("the service's tasks to be gone", lambda: on(ecs, cluster, first) == [alone])
    found = until_steady(ecs, cluster, "web")
    assert found["runningCount"] == 4 and len(on(ecs, cluster, second)) == 4
    for arn in moved:
        task = until_status(ecs, cluster, arn, "STOPPED")
        assert task["stopCode"] == "ServiceSchedulerInitiated"
        assert task["stoppedReason"].startswith("Scaling activity initiated by (deployment ecs-svc/")
    assert describe(ecs, cluster, alone)["lastStatus"] == "RUNNING"
    assert "(service web) has reached a steady state." in texts(found)


def test_without_room_elsewhere_the_minimum_holds(ecs, cluster, agents):
    agent = agents(cluster)
    definition = register(ecs, containers=[container()])
    configuration = {"minimumHealthyPercent": 50, "maximumPercent": 200}
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=4, deploymentConfiguration=configuration)
    until_steady(ecs, cluster, "web")
    # They count as healthy once they have run for a second.
    until("two to be stopped", lambda: drain(ecs, cluster, agent) and len(on(ecs, cluster, agent)) == 2)
    until("it to say why", lambda: any("unable to place a task" in text for text in texts(service(ecs, cluster, "web"))))
    assert service(ecs, cluster, "web")["runningCount"] == 2, "two of four are the minimum"
    drain(ecs, cluster, agent, "ACTIVE")
    assert until_steady(ecs, cluster, "web")["runningCount"] == 4


@pytest.mark.parametrize("status", ["INACTIVE", "REGISTERING"])
def test_other_states_cannot_be_asked_for(ecs, cluster, agents, status):
    agent = agents(cluster)
    with refused("InvalidParameterException", "status"):
        ecs.update_container_instances_state(cluster=cluster, containerInstances=[agent.arn], status=status)


def test_instances_that_are_not_there_are_failures(ecs, cluster, agents):
    agent = agents(cluster)
    nobody = agent.arn.rsplit("/", 1)[0] + "/" + "0" * 32
    answer = ecs.update_container_instances_state(cluster=cluster, containerInstances=[nobody, agent.arn, agent.arn], status="DRAINING")
    assert [one["containerInstanceArn"] for one in answer["containerInstances"]] == [agent.arn]
    assert answer["failures"] == [{"arn": nobody, "reason": "MISSING"}]
    ecs.deregister_container_instance(cluster=cluster, containerInstance=agent.arn, force=True)
    answer = ecs.update_container_instances_state(cluster=cluster, containerInstances=[agent.arn], status="ACTIVE")
    assert (answer["containerInstances"], answer["failures"]) == ([], [{"arn": agent.arn, "reason": "INACTIVE"}])
    with refused("InvalidParameterException", "containerInstances"):
        ecs.update_container_instances_state(cluster=cluster, containerInstances=[nobody] * 11, status="DRAINING")
    with refused("InvalidParameterException", "containerInstances"):
        ecs.update_container_instances_state(cluster=cluster, containerInstances=[], status="DRAINING")
    with refused("ClusterNotFoundException"):
        ecs.update_container_instances_state(cluster="nobody", containerInstances=[nobody], status="DRAINING")


def test_the_agent_comes_with_berth_and_has_no_update(ecs, cluster, agents):
    agent = agents(cluster)
    with refused("NoUpdateAvailableException", "no update available"):
        ecs.update_container_agent(cluster=cluster, containerInstance=agent.arn)
    with refused("InvalidParameterException", "containerInstance"):
        ecs.update_container_agent(cluster=cluster, containerInstance="0" * 32)
    with refused("ClusterNotFoundException"):
        ecs.update_container_agent(cluster="nobody", containerInstance=agent.arn)
