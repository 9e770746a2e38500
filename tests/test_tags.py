"""Tags on all five kinds of resources, with AWS's limits."""

import pytest

from berth import unique
from ecs_calls import refused, register, run

MISSING = {
    "service": "service/default/none-such",
    "task": "task/default/" + "0" * 32,
    "container-instance": "container-instance/default/" + "0" * 32,
    "task-definition": "task-definition/none-such:1",
}


@pytest.fixture(params=["cluster", "task-definition", "service", "task", "container-instance"])
def resource(request, ecs, cluster, agents):
    """A resource of each kind, made with the tag `made=yes`; gives its ARN."""
    tags = [{"key": "made", "value": "yes"}]
    if request.param == "cluster":
        return ecs.create_cluster(clusterName=unique("c"), tags=tags)["cluster"]["clusterArn"]
    definition = register(ecs, tags=tags)
    if request.param == "task-definition":
        return definition
    if request.param == "service":
        made = ecs.create_service(cluster=cluster, serviceName=unique("s"), taskDefinition=definition, desiredCount=0, tags=tags)
        return made["service"]["serviceArn"]
    agent = agents(cluster)
    if request.param == "task":
        return run(ecs, cluster, definition, tags=tags)[0]
    ecs.tag_resource(resourceArn=agent.arn, tags=tags)
    return agent.arn


def tags_of(ecs, arn):
    return {tag["key"]: tag["value"] for tag in ecs.list_tags_for_resource(resourceArn=arn)["tags"]}


def test_tags_are_added_replaced_and_removed(ecs, resource):
    assert tags_of(ecs, resource) == {"made": "yes"}
    ecs.tag_resource(resourceArn=resource, tags=[{"key": "b", "value": "1"}, {"key": "made", "value": "again"}])
    assert tags_of(ecs, resource) == {"made": "again", "b": "1"}
    ecs.untag_resource(resourceArn=resource, tagKeys=["made", "never-there"])
    assert tags_of(ecs, resource) == {"b": "1"}
    ecs.untag_resource(resourceArn=resource, tagKeys=["b"])
    assert tags_of(ecs, resource) == {}


def test_fifty_tags_are_the_most(ecs, resource):
    ecs.tag_resource(resourceArn=resource, tags=[{"key": f"k{n}", "value": "v"} for n in range(49)])
    with refused("LimitExceededException", "50"):
        ecs.tag_resource(resourceArn=resource, tags=[{"key": "one-more", "value": "v"}])
    assert len(tags_of(ecs, resource)) == 50
    ecs.tag_resource(resourceArn=resource, tags=[{"key": "k1", "value": "other"}])
    assert tags_of(ecs, resource)["k1"] == "other"


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ([{"key": "", "value": "x"}], "key"),
        ([{"value": "x"}], "key"),
        ([{"key": "k" * 129, "value": "x"}], "key"),
        ([{"key": "k", "value": "v" * 257}], "value"),
        ([{"key": "k#", "value": "v"}], "k"),
        ([{"key": "aws:mine", "value": "v"}], "aws:"),
        ([{"key": "AWS:mine", "value": "v"}], "aws:"),
        ([{"key": "k", "value": "1"}, {"key": "k", "value": "2"}], "Duplicate"),
    ],
)
def test_bad_tags_are_refused_wherever_they_are_given(server, cluster, tags, word):
    ecs = server.loose
    arn = ecs.describe_clusters(clusters=[cluster])["clusters"][0]["clusterArn"]
    with refused("InvalidParameterException", word):
        ecs.tag_resource(resourceArn=arn, tags=tags)
    with refused("InvalidParameterException", word):
        ecs.create_cluster(clusterName=unique("c"), tags=tags)
    with refused("InvalidParameterException", word):
        register(ecs, tags=tags)


@pytest.mark.parametrize("key", ["Ünïcode key", "a.b/c=d+e-f:g@h_i", "k" * 128])
def test_legal_tags_come_back_as_given(ecs, cluster, key):
    arn = ecs.describe_clusters(clusters=[cluster])["clusters"][0]["clusterArn"]
    ecs.tag_resource(resourceArn=arn, tags=[{"key": key, "value": "v" * 256}])
    assert tags_of(ecs, arn) == {key: "v" * 256}


def test_a_tag_without_a_value_has_an_empty_one(ecs, cluster):
    arn = ecs.describe_clusters(clusters=[cluster])["clusters"][0]["clusterArn"]
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "bare"}])
    assert tags_of(ecs, arn) == {"bare": ""}


@pytest.mark.parametrize("kind", MISSING)
def test_an_unknown_resource_is_resource_not_found(ecs, kind):
    arn = f"arn:aws:ecs:us-east-1:000000000000:{MISSING[kind]}"
    with refused("ResourceNotFoundException", "resourceArn"):
        ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "b"}])
    with refused("ResourceNotFoundException", "resourceArn"):
        ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
    # ListTagsForResource has no such error in the model.
    with refused("InvalidParameterException", "resourceArn"):
        ecs.list_tags_for_resource(resourceArn=arn)


def test_an_unknown_cluster_is_cluster_not_found(ecs):
    with refused("ClusterNotFoundException"):
        ecs.list_tags_for_resource(resourceArn="arn:aws:ecs:us-east-1:000000000000:cluster/none-such")


@pytest.mark.parametrize("arn", ["nonsense", "arn:aws:ecs:eu-west-1:000000000000:cluster/default", "arn:aws:s3:::b", "arn:aws:ecs:us-east-1:000000000000:gizmo/a", ""])
def test_a_garbled_or_foreign_arn_is_refused(ecs, arn):
    with refused("InvalidParameterException"):
        ecs.list_tags_for_resource(resourceArn=arn)


def test_tags_stand_beside_a_definition_and_only_when_included(ecs):
    definition = register(ecs, tags=[{"key": "a", "value": "1"}])
    assert "tags" not in ecs.describe_task_definition(taskDefinition=definition)
    assert ecs.describe_task_definition(taskDefinition=definition, include=["TAGS"])["tags"] == [{"key": "a", "value": "1"}]


def test_tags_of_tasks_come_from_the_call_the_definition_and_ecs_itself(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs, tags=[{"key": "from", "value": "definition"}, {"key": "both", "value": "definition"}])

    def tags(**members):
        return tags_of(ecs, run(ecs, cluster, definition, **members)[0])

    assert tags() == {}
    assert tags(propagateTags="TASK_DEFINITION") == {"from": "definition", "both": "definition"}
    assert tags(propagateTags="TASK_DEFINITION", tags=[{"key": "both", "value": "call"}]) == {"from": "definition", "both": "call"}
    assert tags(enableECSManagedTags=True) == {"aws:ecs:clusterName": cluster}
    with refused("InvalidParameterException", "SERVICE"):
        tags(propagateTags="SERVICE")


def test_describe_shows_tags_only_when_included(ecs, cluster, agents):
    agents(cluster)
    (task,) = run(ecs, cluster, register(ecs), tags=[{"key": "a", "value": "1"}])
    assert ecs.describe_tasks(cluster=cluster, tasks=[task])["tasks"][0]["tags"] == []
    assert ecs.describe_tasks(cluster=cluster, tasks=[task], include=["TAGS"])["tasks"][0]["tags"] == [{"key": "a", "value": "1"}]
