"""Short forms of ECS calls that many tests make."""

import contextlib

import botocore.session
import pytest
from botocore.exceptions import ClientError

from berth import unique, until


MODEL = botocore.session.Session().get_service_model("ecs")


@contextlib.contextmanager
def refused(code, *words, status=400):
    """The block must be refused with this error code, one that the operation has in AWS's model, and a message that names each word."""
    with pytest.raises(ClientError) as caught:
        yield caught
    response = caught.value.response
    assert response["Error"]["Code"] == code, response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status, response
    modelled = {shape.name for shape in MODEL.operation_model(caught.value.operation_name).error_shapes}
    # What Berth does not serve yet it says in AWS's word for that, also where an operation always has everything.
    modelled.add("UnsupportedFeatureException")
    assert code in modelled, f"{caught.value.operation_name} has no {code} in AWS's model: {sorted(modelled)}"
    for word in words:
        assert word in response["Error"]["Message"], response


def container(name="app", **members):
    return {"name": name, "image": "hello:latest", "cpu": 10, "memory": 16, **members}


def register(ecs, family=None, containers=None, **members):
    """Registers a definition; gives its ARN."""
    answer = ecs.register_task_definition(
        family=family or unique("f"), containerDefinitions=containers or [container()], **members
    )
    return answer["taskDefinition"]["taskDefinitionArn"]


def run(ecs, cluster, definition, count=1, **members):
    """Runs tasks that must all find a place; gives their ARNs."""
    answer = ecs.run_task(cluster=cluster, taskDefinition=definition, count=count, **members)
    assert not answer["failures"], answer["failures"]
    assert len(answer["tasks"]) == count
    return [task["taskArn"] for task in answer["tasks"]]


def describe(ecs, cluster, arn):
    answer = ecs.describe_tasks(cluster=cluster, tasks=[arn], include=["TAGS"])
    assert not answer["failures"], answer
    return answer["tasks"][0]


def until_status(ecs, cluster, arn, status, patience=120):
    """Waits until a task has this last status; a stop that was not awaited ends the wait with its reason."""

    def look():
        task = describe(ecs, cluster, arn)
        if task["lastStatus"] == status:
            return task
        assert task["lastStatus"] != "STOPPED", f"stopped instead: {task.get('stopCode')} {task.get('stoppedReason')} {task['containers']}"
        return None

    return until(f"task {arn[-8:]} to be {status}", look, patience)


def service(ecs, cluster, name):
    answer = ecs.describe_services(cluster=cluster, services=[name], include=["TAGS"])
    assert not answer["failures"], answer
    return answer["services"][0]


def until_steady(ecs, cluster, name, patience=120):
    """Waits as ServicesStable does, only closer."""

    def look():
        found = service(ecs, cluster, name)
        steady = len(found["deployments"]) == 1 and found["runningCount"] == found["desiredCount"] and found["pendingCount"] == 0
        return found if steady and found["deployments"][0]["rolloutState"] == "COMPLETED" else None

    return until(f"service {name} to be steady", look, patience)


def tasks_of(ecs, cluster, **filters):
    """ARNs of all pages."""
    return [arn for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, **filters) for arn in page["taskArns"]]


def texts(found):
    """A service's event texts, newest first."""
    return [event["message"] for event in found["events"]]
