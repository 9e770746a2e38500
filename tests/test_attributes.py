"""Users' own attributes of container instances."""

import pytest

from ecs_calls import container, refused, register, run


def custom(agent, name="stack", value="production", **members):
    return {"name": name, "value": value, "targetId": agent.arn, **members}


def of(ecs, cluster, agent, name):
    listed = ecs.list_attributes(cluster=cluster, targetType="container-instance", attributeName=name)["attributes"]
    return [one.get("value") for one in listed if one["targetId"] == agent.arn]


def test_an_attribute_is_put_shown_listed_and_deleted(ecs, cluster, agents):
    agent = agents(cluster)
    assert ecs.put_attributes(cluster=cluster, attributes=[custom(agent)])["attributes"] == [custom(agent)]
    shown = ecs.describe_container_instances(cluster=cluster, containerInstances=[agent.arn])["containerInstances"][0]
    assert {"name": "stack", "value": "production"} in shown["attributes"]
    assert of(ecs, cluster, agent, "stack") == ["production"]
    ecs.put_attributes(cluster=cluster, attributes=[custom(agent, value="test")])
    assert of(ecs, cluster, agent, "stack") == ["test"], "the newest value holds"
    gone = ecs.delete_attributes(cluster=cluster, attributes=[{"name": "stack", "targetId": agent.arn}])["attributes"]
    assert gone == [custom(agent, value="test")]
    assert of(ecs, cluster, agent, "stack") == []
    assert ecs.delete_attributes(cluster=cluster, attributes=[{"name": "stack", "targetId": agent.arn}])["attributes"] == []


def test_a_value_guards_a_delete(ecs, cluster, agents):
    agent = agents(cluster)
    ecs.put_attributes(cluster=cluster, attributes=[custom(agent)])
    assert ecs.delete_attributes(cluster=cluster, attributes=[custom(agent, value="other")])["attributes"] == []
    assert of(ecs, cluster, agent, "stack") == ["production"]


def test_an_attribute_may_have_no_value_and_a_target_by_its_id(ecs, cluster, agents):
    agent = agents(cluster)
    short = {"name": "ssd", "targetId": agent.arn.rsplit("/", 1)[1], "targetType": "container-instance"}
    assert ecs.put_attributes(cluster=cluster, attributes=[short])["attributes"] == [{"name": "ssd", "targetId": agent.arn}]
    assert of(ecs, cluster, agent, "ssd") == [None]


def test_lists_name_ecs_own_attributes_too_and_pages_cover_all_once(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    ecs.put_attributes(cluster=cluster, attributes=[custom(first), custom(second, value="test")])
    pages = ecs.get_paginator("list_attributes").paginate(cluster=cluster, targetType="container-instance", PaginationConfig={"PageSize": 1})
    listed = [(one["targetId"], one["name"]) for page in pages for one in page["attributes"]]
    assert len(listed) == len(set(listed))
    assert {(agent.arn, name) for agent in (first, second) for name in ("stack", "ecs.os-type")} <= set(listed)
    only = ecs.list_attributes(cluster=cluster, targetType="container-instance", attributeName="stack", attributeValue="test")["attributes"]
    assert only == [custom(second, value="test")]
    assert of(ecs, cluster, first, "ecs.os-type") == ["linux"]


def test_what_users_set_survives_a_new_registration(ecs, cluster, agents):
    agent = agents(cluster)
    ecs.put_attributes(cluster=cluster, attributes=[custom(agent)])
    agent.register(containerInstanceArn=agent.arn)
    assert of(ecs, cluster, agent, "stack") == ["production"]


def test_ten_are_taken_and_one_more_changes_nothing(ecs, cluster, agents):
    agent = agents(cluster)
    ecs.put_attributes(cluster=cluster, attributes=[custom(agent, f"a{number}") for number in range(10)])
    with refused("AttributeLimitExceededException", "10"):
        ecs.put_attributes(cluster=cluster, attributes=[custom(agent, "a0", "other"), custom(agent, "a10")])
    assert of(ecs, cluster, agent, "a0") == ["production"]
    with refused("InvalidParameterException", "attributes"):
        ecs.put_attributes(cluster=cluster, attributes=[custom(agent, f"a{number}") for number in range(11)])
    with refused("InvalidParameterException", "attributes"):
        ecs.put_attributes(cluster=cluster, attributes=[])


@pytest.mark.parametrize(
    "broken, word",
    [
        ({"name": "a b"}, "attributes.name"),
        ({"name": "x" * 129}, "attributes.name"),
        ({"name": "ecs.os-type"}, "attributes.name"),
        ({"value": " padded"}, "attributes.value"),
        ({"value": "x" * 129}, "attributes.value"),
        ({"value": ""}, "attributes.value"),
        ({"targetId": ""}, "targetId"),
        ({"targetId": "0" * 32}, "targetType"),
    ],
)
def test_a_bad_attribute_is_named(ecs, cluster, agents, broken, word):
    agent = agents(cluster)
    with refused("InvalidParameterException", word):
        ecs.put_attributes(cluster=cluster, attributes=[custom(agent, **broken)])


def test_targets_that_are_not_there(ecs, cluster, agents):
    agent = agents(cluster)
    nobody = agent.arn.rsplit("/", 1)[0] + "/" + "0" * 32
    for call in (ecs.put_attributes, ecs.delete_attributes):
        with refused("TargetNotFoundException", "0" * 32):
            call(cluster=cluster, attributes=[custom(agent), custom(agent, targetId=nobody)])
        with refused("ClusterNotFoundException"):
            call(cluster="nobody", attributes=[custom(agent)])
    assert of(ecs, cluster, agent, "stack") == [], "all of a request or nothing"
    with refused("ClusterNotFoundException"):
        ecs.list_attributes(cluster="nobody", targetType="container-instance")
    with refused("InvalidParameterException", "attributeValue"):
        ecs.list_attributes(cluster=cluster, targetType="container-instance", attributeValue="x")


def test_a_task_runs_beside_custom_attributes(ecs, cluster, agents):
    agent = agents(cluster)
    ecs.put_attributes(cluster=cluster, attributes=[custom(agent)])
    run(ecs, cluster, register(ecs, containers=[container()]))
