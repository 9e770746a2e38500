"""The AWS CLI as people type it, the two commands of an old ECS tutorial first."""

import json
import subprocess
import time

import pytest

from berth import aws_binary, unique, until
from ecs_calls import container, until_status, until_steady


@pytest.fixture
def deepdive(server, agents):
    """The tutorial's cluster with a machine in it, and its task definition `web`."""
    if "deepdive" not in {arn.rsplit("/", 1)[1] for arn in server.ecs.list_clusters()["clusterArns"]}:
        server.aws("ecs", "create-cluster", "--cluster-name", "deepdive")
    agents("deepdive")
    definitions = json.dumps([container("web", portMappings=[{"containerPort": 80}])])
    server.aws("ecs", "register-task-definition", "--family", "web", "--container-definitions", definitions)
    yield server
    for arn in server.ecs.list_services(cluster="deepdive")["serviceArns"]:
        server.ecs.delete_service(cluster="deepdive", service=arn, force=True)
    until("no service", lambda: server.ecs.describe_clusters(clusters=["deepdive"])["clusters"][0]["activeServicesCount"] == 0)
    for arn in server.ecs.list_container_instances(cluster="deepdive")["containerInstanceArns"]:
        server.ecs.deregister_container_instance(cluster="deepdive", containerInstance=arn, force=True)


def words(line):
    return line.split()[1:]


def test_the_tutorials_two_commands_work_as_printed(deepdive):
    made = deepdive.aws(*words("aws ecs create-service --cluster deepdive --service-name web --task-definition web --desired-count 1"))
    assert (made["service"]["serviceName"], made["service"]["desiredCount"]) == ("web", 1)
    assert made["service"]["taskDefinition"].split("/")[1].startswith("web:")
    until_steady(deepdive.ecs, "deepdive", "web")
    started = deepdive.aws(*words("aws ecs run-task --cluster deepdive --task-definition web --count 1"))
    assert started["failures"] == [] and len(started["tasks"]) == 1
    until_status(deepdive.ecs, "deepdive", started["tasks"][0]["taskArn"], "RUNNING")
    deepdive.aws("ecs", "wait", "services-stable", "--cluster", "deepdive", "--services", "web")
    deepdive.aws("ecs", "wait", "tasks-running", "--cluster", "deepdive", "--tasks", started["tasks"][0]["taskArn"])


def test_times_are_epoch_seconds(deepdive):
    """Version 1 of the CLI prints them as they come."""
    found = deepdive.aws("ecs", "describe-task-definition", "--task-definition", "web")["taskDefinition"]["registeredAt"]
    assert isinstance(found, float) and abs(found - time.time()) < 3600, found


def test_the_cli_pages_by_itself_and_by_hand(server):
    mark = unique("cli")
    for n in range(5):
        server.aws("ecs", "register-task-definition", "--family", f"{mark}-{n}", "--container-definitions", json.dumps([container()]))
    every = [f"{mark}-{n}" for n in range(5)]
    listing = ("ecs", "list-task-definition-families", "--family-prefix", mark)
    assert server.aws(*listing, "--page-size", "2")["families"] == every
    first = server.aws(*listing, "--max-items", "3")
    assert first["families"] == every[:3]
    assert server.aws(*listing, "--starting-token", first["NextToken"])["families"] == every[3:]


def test_query_and_text_output(server):
    # Not a list: the CLI applies a query to each page, and other tests may have made more clusters than one has.
    done = server.aws("ecs", "describe-clusters", "--query", "clusters[0].clusterArn", "--output", "text", check=False)
    assert done.stdout.strip() == "arn:aws:ecs:us-east-1:000000000000:cluster/default"


def test_errors_reach_the_user_with_code_and_message_and_exit_code(server):
    done = server.aws("ecs", "update-service", "--service", "none-such", "--desired-count", "1", check=False)
    assert done.returncode in (254, 255)
    assert "(ServiceNotFoundException)" in done.stderr and "Service not found." in done.stderr


def test_wrong_credentials_are_told(server):
    environment = server.environment()
    environment["AWS_SECRET_ACCESS_KEY"] = "wrong"

    done = subprocess.run([aws_binary(), "ecs", "list-clusters"], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0 and "(InvalidSignatureException)" in done.stderr


def test_cli_input_json_and_skeletons_round_trip(server, tmp_path):
    family = unique("cli")
    made = server.aws("ecs", "register-task-definition", "--family", family, "--container-definitions", json.dumps([container()]))
    described = server.aws("ecs", "describe-task-definition", "--task-definition", family)["taskDefinition"]
    assert described == made["taskDefinition"]
    # What people do: describe, edit, register again.
    kept = {"family", "containerDefinitions", "volumes", "placementConstraints"}
    file = tmp_path / "definition.json"
    file.write_text(json.dumps({name: value for name, value in described.items() if name in kept}))
    again = server.aws("ecs", "register-task-definition", "--cli-input-json", file.as_uri())["taskDefinition"]
    assert again["revision"] == 2 and again["containerDefinitions"] == described["containerDefinitions"]


def test_stop_task_and_delete_service(deepdive):
    deepdive.aws(*words("aws ecs create-service --cluster deepdive --service-name gone --task-definition web --desired-count 1"))
    until_steady(deepdive.ecs, "deepdive", "gone")
    (task,) = deepdive.aws("ecs", "run-task", "--cluster", "deepdive", "--task-definition", "web")["tasks"]
    stopped = deepdive.aws("ecs", "stop-task", "--cluster", "deepdive", "--task", task["taskArn"], "--reason", "by hand")["task"]
    assert stopped["stoppedReason"] == "by hand"
    deepdive.aws("ecs", "wait", "tasks-stopped", "--cluster", "deepdive", "--tasks", task["taskArn"])
    deepdive.aws("ecs", "delete-service", "--cluster", "deepdive", "--service", "gone", "--force")
    deepdive.aws("ecs", "wait", "services-inactive", "--cluster", "deepdive", "--services", "gone")
