"""ECS's limits: at the limit a request passes, one above it is refused with AWS's error and changes nothing."""

import json

import pytest

from berth import unique
from ecs_calls import container, refused, register, run


def padded(size):
    """A definition of exactly so many bytes as Berth and AWS count them: the JSON of what is registered."""
    family = unique("f")
    body = {"family": family, "containerDefinitions": [container(environment=[{"name": "PAD", "value": ""}])]}
    body["containerDefinitions"][0]["environment"][0]["value"] = "x" * (size - len(json.dumps(body, separators=(",", ":"))))
    return body


def test_definitions_of_64_kib(ecs):
    # What a server adds (cpu 0, empty lists) counts for nothing: only what was sent does, give or take its form.
    ecs.register_task_definition(**padded(64 * 1024 - 512))
    body = padded(64 * 1024 + 512)
    with refused("ClientException", "65536"):
        ecs.register_task_definition(**body)
    assert ecs.list_task_definitions(familyPrefix=body["family"])["taskDefinitionArns"] == []


def test_ten_containers(ecs):
    family = unique("f")
    register(ecs, family, [container(f"c{number}") for number in range(10)])
    with refused("ClientException", "10 containers"):
        register(ecs, family, [container(f"c{number}") for number in range(11)])
    assert len(ecs.list_task_definitions(familyPrefix=family)["taskDefinitionArns"]) == 1


def test_fifty_tags(ecs):
    def tags(count):
        return [{"key": f"key-{number}", "value": "v" * 256} for number in range(count)]

    name = unique("c")
    with refused("InvalidParameterException", "tags"):
        ecs.create_cluster(clusterName=name, tags=tags(51))
    assert ecs.describe_clusters(clusters=[name])["failures"][0]["reason"] == "MISSING"
    arn = ecs.create_cluster(clusterName=name, tags=tags(50))["cluster"]["clusterArn"]
    assert len(ecs.list_tags_for_resource(resourceArn=arn)["tags"]) == 50
    with refused("LimitExceededException", "resourceArn"):
        ecs.tag_resource(resourceArn=arn, tags=[{"key": "one-more", "value": ""}])
    assert len(ecs.list_tags_for_resource(resourceArn=arn)["tags"]) == 50
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "key-0", "value": "other"}])


@pytest.mark.parametrize("method, member, found, missing, most", [
    ("describe_clusters", "clusters", "clusters", "arn", 100),
    ("describe_tasks", "tasks", "tasks", "arn", 100),
    ("describe_container_instances", "containerInstances", "containerInstances", "arn", 100),
    ("describe_services", "services", "services", "arn", 10),
])
def test_ids_of_a_describe(ecs, cluster, method, member, found, missing, most):
    arguments = {} if member == "clusters" else {"cluster": cluster}
    ids = [f"{number:032x}" for number in range(most + 1)]
    answer = getattr(ecs, method)(**arguments, **{member: ids[:most]})
    assert answer[found] == [] and len(answer["failures"]) == most and all(one[missing] for one in answer["failures"])
    with refused("InvalidParameterException", str(most)):
        getattr(ecs, method)(**arguments, **{member: ids})


def test_ten_tasks_a_run_and_ten_instances_a_start(ecs, cluster, agents):
    joined = [agents(cluster, cpu=2048, memory=2048) for _ in range(2)]
    definition = register(ecs)
    assert len(run(ecs, cluster, definition, count=10)) == 10
    for count in (0, 11):
        with refused("InvalidParameterException", "count"):
            ecs.run_task(cluster=cluster, taskDefinition=definition, count=count)
    with refused("InvalidParameterException", "containerInstances"):
        ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[joined[0].arn] * 11)
    assert len(ecs.list_tasks(cluster=cluster)["taskArns"]) == 10


def test_overrides_of_8192_characters(ecs, cluster, agents):
    agents(cluster, memory=2048)
    definition = register(ecs)

    def overrides(size):
        body = {"containerOverrides": [{"name": "app", "environment": [{"name": "PAD", "value": ""}]}]}
        body["containerOverrides"][0]["environment"][0]["value"] = "x" * (size - len(json.dumps(body, separators=(",", ":"))))
        return body

    run(ecs, cluster, definition, overrides=overrides(8192))
    with refused("InvalidParameterException", "8192"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, overrides=overrides(8193))


def test_long_names_tokens_and_reasons(ecs, cluster, agents):
    agents(cluster, memory=2048)
    definition = register(ecs, "f" * 255)
    with refused("ClientException", "Family"):
        register(ecs, "f" * 256)
    for member, most in (("clientToken", 64), ("startedBy", 128)):
        run(ecs, cluster, definition, **{member: "t" * most})
        with refused("InvalidParameterException", member):
            ecs.run_task(cluster=cluster, taskDefinition=definition, **{member: "t" * (most + 1)})
    with refused("InvalidParameterException", "serviceName"):
        ecs.create_service(cluster=cluster, serviceName="s" * 256, taskDefinition=definition, desiredCount=0)
    ecs.create_service(cluster=cluster, serviceName="s" * 255, taskDefinition=definition, desiredCount=0)
