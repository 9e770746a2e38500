"""GPUs: a resource that is given by id, to one container alone."""

from berth import until
from ecs_calls import container, describe, refused, register, run, tasks_of, until_status
from fake_agent import FakeAgent


def wants(count, name="app"):
    return container(name, resourceRequirements=[{"type": "GPU", "value": str(count)}])


def start(ecs, cluster, definition, **members):
    """The answer of a RunTask."""
    return ecs.run_task(cluster=cluster, taskDefinition=definition, **members)


def gpus_of(task):
    return {one["name"]: one.get("gpuIds", []) for one in task["containers"]}


def gpus_left(ecs, cluster, agent):
    found = ecs.describe_container_instances(cluster=cluster, containerInstances=[agent.arn])["containerInstances"][0]
    sets = {kind: {one["name"]: one.get("stringSetValue") for one in found[kind]} for kind in ("registeredResources", "remainingResources")}
    assert sets["registeredResources"]["GPU"] == ["GPU-a", "GPU-b", "GPU-c"]
    return sets["remainingResources"]["GPU"]


def test_each_container_gets_gpus_of_its_own_until_its_task_stops(ecs, cluster, agents):
    agent = agents(cluster, gpus=["GPU-c", "GPU-a", "GPU-b"])
    definition = register(ecs, containers=[wants(1, "one"), wants(1, "two"), container("none")])
    first = start(ecs, cluster, definition)["tasks"][0]
    assert gpus_of(first) == {"one": ["GPU-a"], "two": ["GPU-b"], "none": []}
    assert gpus_left(ecs, cluster, agent) == ["GPU-c"]
    answer = start(ecs, cluster, definition)
    assert (answer["tasks"], [failure["reason"] for failure in answer["failures"]]) == ([], ["RESOURCE:GPU"])
    other = start(ecs, cluster, register(ecs, containers=[wants(1)]))["tasks"][0]
    assert gpus_of(other) == {"app": ["GPU-c"]}
    ecs.stop_task(cluster=cluster, task=first["taskArn"])
    until_status(ecs, cluster, first["taskArn"], "STOPPED")
    assert gpus_left(ecs, cluster, agent) == ["GPU-a", "GPU-b"]
    assert gpus_of(describe(ecs, cluster, first["taskArn"])) == {"one": ["GPU-a"], "two": ["GPU-b"], "none": []}, "what it had is still shown"


def test_the_agent_is_told_which(ecs, cluster, agents):
    agent = agents(cluster, gpus=["GPU-a", "GPU-b"])
    [task] = run(ecs, cluster, register(ecs, containers=[container("none"), wants(2)]))

    def told():
        payloads = [message for kind, message in list(agent.frames) if kind == "PayloadMessage"]
        return next((one for payload in payloads for one in payload["tasks"] if one["arn"] == task), None)

    associations = until("the task to come", told)["associations"]
    assert [(one["name"], one["type"], one["containers"]) for one in associations] == [("GPU-a", "gpu", ["app"]), ("GPU-b", "gpu", ["app"])]


def test_an_override_counts_and_startTask_needs_them_as_well(ecs, cluster, agents):
    agent = agents(cluster, gpus=["GPU-a", "GPU-b"])
    bare = agents(cluster)
    definition = register(ecs, containers=[wants(1)])
    more = {"containerOverrides": [{"name": "app", "resourceRequirements": [{"type": "GPU", "value": "2"}]}]}
    assert gpus_of(start(ecs, cluster, definition, overrides=more)["tasks"][0]) == {"app": ["GPU-a", "GPU-b"]}
    answer = ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[agent.arn, bare.arn])
    assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:GPU", "RESOURCE:GPU"]
    assert len(tasks_of(ecs, cluster)) == 1


def test_bad_numbers_are_refused(ecs, cluster):
    for value in ("0", "-1", "65", "two", "", "1.5"):
        with refused("ClientException", "resourceRequirements", "GPU"):
            register(ecs, containers=[wants(value)])
    resources = [{"name": "GPU", "type": "STRINGSET", "stringSetValue": [f"GPU-{number}" for number in range(65)]}]
    with refused("InvalidParameterException", "totalResources", "GPU"):
        ecs.register_container_instance(cluster=cluster, totalResources=resources)


def test_a_restart_keeps_who_has_which(new_berth):
    berth = new_berth("server").start()
    berth.ecs.create_cluster(clusterName="gpus")
    agent = FakeAgent(berth, "gpus", gpus=["GPU-a", "GPU-b"]).join()
    definition = register(berth.ecs, containers=[wants(1)])
    assert gpus_of(start(berth.ecs, "gpus", definition)["tasks"][0]) == {"app": ["GPU-a"]}
    berth.kill()
    berth.start()
    agent.connect()
    until("the agent to be back", agent.is_connected)
    assert gpus_of(start(berth.ecs, "gpus", definition)["tasks"][0]) == {"app": ["GPU-b"]}
    agent.leave()
