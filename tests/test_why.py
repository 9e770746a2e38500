"""`berth why`: the reasons, for people and as JSON."""

import json

import pytest

from berth import unique, until
from ecs_calls import container, register, run, service, until_status, until_steady


def why(berth, *arguments):
    return json.loads(berth.run("why", *arguments, "--output", "json").stdout)


def codes(answer):
    return [reason["code"] for reason in answer["reasons"]]


def reason(answer, code):
    [found] = [one for one in answer["reasons"] if one["code"] == code][:1] or [None]
    assert found, answer
    return found


def create(ecs, cluster, definition, desired=1, **members):
    name = unique("s")
    ecs.create_service(cluster=cluster, serviceName=name, taskDefinition=definition, desiredCount=desired, **members)
    return name


def test_a_service_without_instances(server, ecs, cluster):
    name = create(ecs, cluster, register(ecs))
    answer = why(server, name, "--cluster", cluster)
    assert answer["kind"] == "service" and answer["arn"].endswith(f"service/{cluster}/{name}")
    assert reason(answer, "PLACEMENT")["text"] == "no container instance is in the cluster"


def test_each_rule_with_its_instances(server, ecs, cluster, agents):
    small, smaller = agents(cluster, memory=512), agents(cluster, memory=256)
    away = agents(cluster, memory=4096)
    away.leave()
    name = create(ecs, cluster, register(ecs, containers=[container(memory=1024)]))
    until("all agents are seen", lambda: {"RESOURCE:MEMORY", "AGENT"} <= {one.get("rule") for one in why(server, name)["reasons"]})
    answer = why(server, name)
    memory = [one for one in answer["reasons"] if one.get("rule") == "RESOURCE:MEMORY"]
    assert len(memory) == 1
    assert memory[0]["text"].startswith("2 container instances: too little memory: a task needs 1024 MiB, most free are 512")
    assert sorted(memory[0]["arns"]) == sorted([small.arn, smaller.arn])
    [agent] = [one for one in answer["reasons"] if one.get("rule") == "AGENT"]
    assert agent["arns"] == [away.arn]
    shown = server.run("why", name).stdout
    assert "too little memory: a task needs 1024 MiB" in shown and f"{name}: 0 of 1 task of" in shown


def test_what_why_says_comes_true(server, ecs, cluster, agents):
    """The plan that refuses is the one that places: as soon as there is room, the reason goes."""
    agents(cluster, memory=256)
    name = create(ecs, cluster, register(ecs, containers=[container(memory=1024)]))
    assert reason(why(server, name), "PLACEMENT")["rule"] == "RESOURCE:MEMORY"
    agents(cluster, memory=2048)
    until("it runs", lambda: service(ecs, cluster, name)["runningCount"] == 1)
    assert "PLACEMENT" not in codes(why(server, name))


def test_a_deployment_says_what_it_waits_for(server, ecs, cluster, agents):
    agents(cluster, memory=4096)
    first = register(ecs)
    name = create(ecs, cluster, first, desired=2)
    until_steady(ecs, cluster, name)
    assert codes(why(server, name)) == ["STEADY"]
    second = register(ecs, containers=[container(memory=4096)])
    ecs.update_service(cluster=cluster, service=name, taskDefinition=second)
    until("it is being deployed", lambda: "DEPLOYMENT" in codes(why(server, name)))
    answer = why(server, name)
    text = reason(answer, "DEPLOYMENT")["text"]
    assert second.rsplit("/", 1)[1] in text and first.rsplit("/", 1)[1] in text
    assert "never fewer than 2 healthy (minimumHealthyPercent 100), never more than 4 (maximumPercent 200)" in text
    assert reason(answer, "PLACEMENT")["rule"] == "RESOURCE:MEMORY"


def test_an_instance(server, ecs, cluster, agents):
    agent = agents(cluster, cpu=1024, memory=1024)
    run(ecs, cluster, register(ecs, containers=[container(cpu=100, memory=24)]))
    answer = why(server, agent.arn)
    assert answer["kind"] == "containerInstance" and answer["summary"].endswith("with 1 task")
    assert "free are 924 of 1024 CPU units and 1000 of 1024 MiB" in reason(answer, "ROOM")["text"]
    ecs.update_container_instances_state(cluster=cluster, containerInstances=[agent.arn], status="DRAINING")
    answer = why(server, agent.arn.rsplit("/", 1)[1])
    assert reason(answer, "STANDALONE")["text"].startswith("1 task of no service")
    agent.leave()
    until("the agent is away", lambda: "AGENT_AWAY" in codes(why(server, agent.arn)))


def test_a_task_from_its_start_to_its_end(server, ecs, cluster, agents):
    agent = agents(cluster)
    agent.leave()
    agent.join()
    [arn] = run(ecs, cluster, register(ecs))
    assert why(server, arn)["kind"] == "task"
    until_status(ecs, cluster, arn, "RUNNING")
    assert codes(why(server, arn)) == ["RUNNING"]
    ecs.stop_task(cluster=cluster, task=arn, reason="the test is over")
    until_status(ecs, cluster, arn, "STOPPED")
    answer = why(server, arn.rsplit("/", 1)[1][:12])
    assert reason(answer, "STOPPED")["text"] == "a user stopped it: the test is over"


@pytest.mark.parametrize("what, words", [
    ("none-such", "no task, service or container instance 'none-such'"),
    ("arn:aws:ecs:us-east-1:000000000000:cluster/default", "Only tasks, services and container instances"),
    ("arn:aws:ecs:eu-west-1:000000000000:task/default/00000000000000000000000000000000", "of"),
    ("", "no task, service or container instance ''"),
])
def test_what_is_not_there(server, what, words):
    ended = server.run("why", what, check=False)
    assert ended.returncode == 1 and words in ended.stderr, ended


def test_a_name_in_two_clusters(server, ecs, cluster):
    other = unique("c")
    ecs.create_cluster(clusterName=other)
    name, definition = unique("s"), register(ecs)
    for one in (cluster, other):
        ecs.create_service(cluster=one, serviceName=name, taskDefinition=definition, desiredCount=0)
    ended = server.run("why", name, check=False)
    assert ended.returncode == 1 and f"service {name} in cluster {other}" in ended.stderr, ended
    assert why(server, name, "--cluster", other)["arn"].endswith(f"service/{other}/{name}")
    ended = server.run("why", name, "--cluster", "none-such", check=False)
    assert ended.returncode == 1 and "Cluster not found." in ended.stderr, ended


def test_the_last_words_of_a_container_that_dies(up):
    ecs = up.ecs
    definition = register(ecs, containers=[container("talk", image="shell:1", command=["sh", "-c", "echo the disk is on fire >&2; exit 3"])])
    name = create(ecs, "default", definition)
    try:
        until("it failed", lambda: "FAILED" in codes(why(up, name)))
        answer = why(up, name)
        assert "container talk ended with exit code 3" in reason(answer, "FAILED")["text"]
        assert answer["containers"][0]["lastLines"] == ["the disk is on fire"]
        shown = up.run("why", name).stdout
        assert "| the disk is on fire" in shown
        task = answer["containers"][0]["taskArn"]
        answer = why(up, task)
        assert [one["code"] for one in answer["reasons"]] == ["STOPPED", "CONTAINER_ENDED", "SERVICE"]
    finally:
        ecs.delete_service(cluster="default", service=name, force=True)


def test_an_image_that_cannot_be_had(up):
    ecs = up.ecs
    name = create(ecs, "default", register(ecs, containers=[container(image="none-such:1")]))
    try:
        until("it failed", lambda: "FAILED" in codes(why(up, name)))
        assert "never ran: CannotPullContainerError" in reason(why(up, name), "FAILED")["text"]
    finally:
        ecs.delete_service(cluster="default", service=name, force=True)
