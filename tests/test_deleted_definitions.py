"""DeleteTaskDefinitions: INACTIVE revisions become DELETE_IN_PROGRESS; what uses them goes on."""

from berth import unique
from ecs_calls import container, describe, refused, register, run, until_status


def test_an_inactive_revision_is_deleted_and_what_runs_goes_on(ecs, cluster, agents):
    agents(cluster)
    family = unique("f")
    arn = register(ecs, family, containers=[container()])
    (task,) = run(ecs, cluster, arn)
    until_status(ecs, cluster, task, "RUNNING")
    ecs.deregister_task_definition(taskDefinition=arn)
    answer = ecs.delete_task_definitions(taskDefinitions=[f"{family}:1", arn])
    (deleted,) = answer["taskDefinitions"]
    assert (deleted["taskDefinitionArn"], deleted["status"], answer["failures"]) == (arn, "DELETE_IN_PROGRESS", [])
    assert deleted["deleteRequestedAt"] >= deleted["deregisteredAt"]
    assert ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]["status"] == "DELETE_IN_PROGRESS"
    listed = ecs.list_task_definitions(familyPrefix=family, status="DELETE_IN_PROGRESS")["taskDefinitionArns"]
    assert listed == [arn]
    assert ecs.list_task_definitions(familyPrefix=family, status="INACTIVE")["taskDefinitionArns"] == []
    assert describe(ecs, cluster, task)["lastStatus"] == "RUNNING"
    with refused("ClientException", "inactive"):
        ecs.run_task(cluster=cluster, taskDefinition=arn)
    again = ecs.delete_task_definitions(taskDefinitions=[arn])
    assert [one["status"] for one in again["taskDefinitions"]] == ["DELETE_IN_PROGRESS"], "asked for again, it is nothing new"
    assert register(ecs, family, containers=[container()]).endswith(":2"), "its number is not given again"


def test_active_and_unknown_revisions_are_failures_and_the_others_are_deleted(ecs):
    family = unique("f")
    active, inactive = register(ecs, family), register(ecs, family)
    ecs.deregister_task_definition(taskDefinition=inactive)
    answer = ecs.delete_task_definitions(taskDefinitions=[active, inactive, f"{family}:99"])
    assert [one["taskDefinitionArn"] for one in answer["taskDefinitions"]] == [inactive]
    assert [(one["arn"].rsplit("/", 1)[1], "deregister" in one["detail"]) for one in answer["failures"]] == [
        (f"{family}:1", True),
        (f"{family}:99", False),
    ]
    assert ecs.describe_task_definition(taskDefinition=active)["taskDefinition"]["status"] == "ACTIVE"


def test_bad_input_is_named(ecs):
    with refused("InvalidParameterException", "taskDefinitions", "revision"):
        ecs.delete_task_definitions(taskDefinitions=[unique("f")])
    with refused("InvalidParameterException", "taskDefinitions"):
        ecs.delete_task_definitions(taskDefinitions=[])
    with refused("InvalidParameterException", "taskDefinitions"):
        ecs.delete_task_definitions(taskDefinitions=[f"f:{number}" for number in range(1, 12)])
