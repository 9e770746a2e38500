"""The credentials of a task's role, read by an AWS SDK from inside real containers, and what may be done with them."""

import json
import sys
import time
from datetime import datetime

import pytest

from berth import Berth, until, with_images
from containers import IDLE, finished, output, pids_of, running, shell, skip_unless_root, stop
from ecs_calls import describe, register, run, tasks_of, until_status, until_steady
from role_calls import EXECUTION_ROLE, TASK_ROLE, client_of, denied, principal, refused
from test_task_metadata import asked, inside, variables

skip_unless_root(__file__)
DEFAULT = "default"
BOTH = {"taskRoleArn": TASK_ROLE, "executionRoleArn": EXECUTION_ROLE}
RELATIVE, FULL = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"
ADDRESS = "http://169.254.170.2"
# botocore, as a program in the container would use it: by the variables alone.
SDK = """
import json, sys
from botocore.credentials import ContainerProvider
found = ContainerProvider(environ=json.load(sys.stdin)).load()
# At once: with a life of seconds each look at a part would ask again.
frozen = found.get_frozen_credentials()
print(json.dumps([found.method, frozen.access_key, frozen.secret_key, frozen.token]))
"""


@pytest.fixture
def subnet(up):
    filters = [{"Name": "default-for-az", "Values": ["true"]}, {"Name": "availability-zone", "Values": ["us-east-1a"]}]
    [found] = up.client("ec2").describe_subnets(Filters=filters)["Subnets"]
    return found["SubnetId"]


def in_mode(up, mode, subnet, *containers, **members):
    """A task that runs in a network mode."""
    definition = register(up.ecs, containers=list(containers) or [shell(IDLE)], networkMode=mode, **members)
    on = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": [subnet]}}} if mode == "awsvpc" else {}
    [arn] = run(up.ecs, DEFAULT, definition, **on)
    return until_status(up.ecs, DEFAULT, arn, "RUNNING")


def place_of(task):
    """Where a task's first container is told to ask."""
    told = variables(task)
    return told.get(FULL) or ADDRESS + told[RELATIVE]


def by_sdk(task):
    """What the SDK finds in the task's network with the container's variables: (access key id, secret, token)."""
    told = {name: value for name, value in variables(task).items() if name.startswith("AWS_CONTAINER")}
    done = inside(task, sys.executable, "-c", SDK, input=json.dumps(told).encode())
    assert done.returncode == 0, done.stderr.decode()
    method, *credentials = json.loads(done.stdout)
    assert method == "container-role"
    return tuple(credentials)


@pytest.mark.parametrize("mode", ["awsvpc", "bridge", "host"])
def test_an_sdk_in_a_container_has_its_tasks_role_and_no_more(up, subnet, mode):
    task = in_mode(up, mode, subnet, shell(IDLE), shell(IDLE, name="side"), **BOTH)
    arn = task["taskArn"]
    told = variables(task)
    assert (FULL in told) == (mode == "host") and (RELATIVE in told) == (mode != "host")
    assert place_of(task).startswith("http://127." if mode == "host" else f"{ADDRESS}/v2/credentials/")
    status, text = asked(task, place_of(task))
    shown = json.loads(text)
    assert status == 200 and set(shown) == {"RoleArn", "AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    assert shown["RoleArn"] == TASK_ROLE, "never the execution role's"
    end = datetime.fromisoformat(shown["Expiration"].replace("Z", "+00:00")).timestamp()
    assert 5 * 3600 < end - time.time() <= 6 * 3600
    credentials = by_sdk(task)
    assert credentials == (shown["AccessKeyId"], shown["SecretAccessKey"], shown["Token"])
    side = next(one for one in task["containers"] if one["name"] == "side")
    assert place_of({**task, "containers": [side]}) == place_of(task), "all containers of a task have its role"
    with refused("AccessDeniedException") as caught:
        client_of(up, credentials).list_clusters()
    assert caught.value.response["Error"]["Message"] == denied(principal(arn), "ecs:ListClusters")
    place = place_of(task)
    assert asked(task, place, "PUT", "{}")[0] == 405
    stop(up, arn)
    other = in_mode(up, mode, subnet, **BOTH)
    status, text = asked(other, place)
    assert (status, json.loads(text)["code"]) == (400, "InvalidIdInRequest"), "they go with their task"
    stop(up, other["taskArn"])


def test_another_tasks_credentials_are_nobodys_business(up, subnet):
    one, other = in_mode(up, "bridge", subnet, **BOTH), in_mode(up, "awsvpc", subnet, **BOTH)
    host = in_mode(up, "host", subnet, **BOTH)
    error = {"code": "InvalidIdInRequest", "message": "CredentialsV2Request: Credentials not found", "HTTPErrorCode": 400}
    for asker, asked_about in ((other, one), (one, other)):
        status, text = asked(asker, place_of(asked_about))
        assert (status, json.loads(text)) == (400, error)
    # A program in the machine's own network, which knows both the place and the name.
    name = place_of(one).rsplit("/", 1)[1]
    status, text = asked(host, f"{place_of(host).rsplit('/', 1)[0]}/{name}")
    assert (status, json.loads(text)) == (400, error)
    status, text = asked(one, f"{ADDRESS}/v2/credentials/{'0' * 8}-0000-0000-0000-{'0' * 12}")
    assert (status, json.loads(text)) == (400, error)
    for path in ("/v2/credentials/", "/v2/credentials"):
        status, text = asked(one, ADDRESS + path)
        assert (status, json.loads(text)["code"]) == (400, "NoIdInRequest")
    without = running(up, shell(IDLE), executionRoleArn=EXECUTION_ROLE)
    assert not {RELATIVE, FULL} & set(variables(without)), "an execution role is the agent's alone"
    for task in (one, other, host, without):
        stop(up, task["taskArn"])
    alone = finished(up, shell("env; echo shown"), networkMode="none", **BOTH)
    assert "AWS_CONTAINER_CREDENTIALS" not in output(up, alone["taskArn"])


def test_a_task_protects_itself_with_its_role(up):
    ecs = up.ecs
    definition = register(ecs, containers=[shell(IDLE)], **BOTH)
    ecs.create_service(cluster=DEFAULT, serviceName="roled", taskDefinition=definition, desiredCount=1)
    until_steady(ecs, DEFAULT, "roled")
    [arn] = tasks_of(ecs, DEFAULT, serviceName="roled")
    own = client_of(up, by_sdk(describe(ecs, DEFAULT, arn)))
    answer = own.update_task_protection(cluster=DEFAULT, tasks=[arn], protectionEnabled=True, expiresInMinutes=5)
    assert answer["protectedTasks"][0]["protectionEnabled"] is True
    ecs.delete_service(cluster=DEFAULT, service="roled", force=True)
    until("the service's task to end", lambda: describe(ecs, DEFAULT, arn)["lastStatus"] == "STOPPED")


@pytest.fixture(scope="module")
def brisk(both_images):
    """A Berth whose roles' credentials are good for a few seconds."""
    with with_images(Berth("up", arguments=["--role-credentials-seconds", "16"]), both_images) as berth:
        yield berth


def test_they_change_under_a_task_that_goes_on_and_come_back_after_a_kill(brisk):
    task = running(brisk, shell(IDLE), **BOTH)
    arn, place = task["taskArn"], place_of(task)
    processes = pids_of(task["containers"][0])[0]
    first = by_sdk(task)
    second = until("other credentials", lambda: (found := by_sdk(task)) != first and found)
    assert not set(second) & set(first)
    with refused("AccessDeniedException"):
        client_of(brisk, second).list_clusters()
    brisk.kill()
    brisk.start()
    third = until("an answer after the restart", lambda: asked(task, place)[0] == 200 and by_sdk(task))
    with refused("AccessDeniedException") as caught:
        client_of(brisk, third).list_clusters()
    assert principal(arn) in str(caught.value)
    until("other credentials after the restart", lambda: by_sdk(task) != third)
    assert pids_of(task["containers"][0])[0] == processes, "the container went on"
    # What the agent keeps of it is the name alone.
    kept = (brisk.data_dir / "agent" / "tasks.log").read_text(errors="replace")
    assert place.rsplit("/", 1)[1] in kept
    assert not any(value in kept for credentials in (first, second, third) for value in credentials[1:])
    stop(brisk, arn)
