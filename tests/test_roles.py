"""Roles of tasks as the control plane sees them: credentials in payloads and in messages of their own, what may be signed with them, their end.

A fake agent plays the official one's side; containers that read their credentials are in test_role_credentials.py.
"""

import base64
import json
import time
from datetime import datetime

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from berth import until
from ecs_calls import register, run, tasks_of, until_status, until_steady
from http_call import exchange
from role_calls import EXECUTION_ROLE, TASK_ROLE, client_of, denied, of_message, principal, refused
from websocket import Refused, WebSocket

WITH_ROLES = [{"name": "com.amazonaws.ecs.capability.task-iam-role"}]
BOTH = {"taskRoleArn": TASK_ROLE, "executionRoleArn": EXECUTION_ROLE}
SIX_HOURS = 6 * 3600
INVALID = "UnrecognizedClientException"


def credentials_of(agent, arn):
    """The task role's credentials, as a payload brought them."""
    return agent.wait_for_task(arn, "RUNNING")["roleCredentials"]


def acknowledge(agent, message, credentials):
    agent.send(
        "IAMRoleCredentialsAckRequest", messageId=message["messageId"], expiration=credentials["expiration"], credentialsId=credentials["credentialsId"]
    )


def pushed(agent, arn):
    """Messages of their own that brought a task's credentials, in order."""
    return [m for kind, m in list(agent.frames) if kind == "IAMRoleCredentialsMessage" and m["taskArn"] == arn]


def again(agent, **changes):
    agent.drop()
    until("the agent to be away", lambda: not agent.is_connected())
    agent.connect(**changes)
    until("the agent to be back", agent.is_connected)


def seconds(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


# -- to agents ---------------------------------------------------------------------------------------------------------------


def test_a_payload_brings_the_credentials_of_both_roles(ecs, cluster, agents):
    agent = agents(cluster, attributes=WITH_ROLES)
    (arn,) = run(ecs, cluster, register(ecs, **BOTH))
    task = agent.wait_for_task(arn, "RUNNING")
    own, execution = task["roleCredentials"], task["executionRoleCredentials"]
    assert (own["roleArn"], execution["roleArn"]) == (TASK_ROLE, EXECUTION_ROLE)
    for credentials in (own, execution):
        assert credentials["accessKeyId"].startswith("ASIA") and len(credentials["accessKeyId"]) == 20
        assert len(credentials["secretAccessKey"]) == 40 and len(credentials["credentialsId"]) == 36
        assert SIX_HOURS - 120 < seconds(credentials["expiration"]) - time.time() <= SIX_HOURS
    assert not {own[name] for name in own} & {execution[name] for name in execution if name != "expiration"}
    payload = agent.wait_for("PayloadMessage", lambda m: any(t["arn"] == arn for t in m["tasks"]))
    acknowledge(agent, payload, own)
    acknowledge(agent, payload, execution)
    until_status(ecs, cluster, arn, "RUNNING")
    assert not agent.closed.is_set() and not pushed(agent, arn)
    # A role's name does for its ARN, and an override comes first.
    (other,) = run(ecs, cluster, register(ecs, taskRoleArn="batch"), overrides={"executionRoleArn": EXECUTION_ROLE})
    task = agent.wait_for_task(other, "RUNNING")
    assert task["roleCredentials"]["roleArn"] == "arn:aws:iam::000000000000:role/batch"
    assert task["executionRoleCredentials"]["roleArn"] == EXECUTION_ROLE
    assert task["roleCredentials"]["credentialsId"] != own["credentialsId"]
    (none,) = run(ecs, cluster, register(ecs))
    assert not {"roleCredentials", "executionRoleCredentials"} & set(agent.wait_for_task(none, "RUNNING"))


def test_an_agent_that_has_none_is_pushed_those_of_all_that_runs(ecs, cluster, agents):
    agent = agents(cluster, attributes=WITH_ROLES)
    (arn,) = run(ecs, cluster, register(ecs, **BOTH))
    first = credentials_of(agent, arn)
    until_status(ecs, cluster, arn, "RUNNING")
    again(agent, sendCredentials="true")
    for kind, role in (("TaskApplication", TASK_ROLE), ("TaskExecution", EXECUTION_ROLE)):
        message = agent.wait_for("IAMRoleCredentialsMessage", lambda m, kind=kind: m["taskArn"] == arn and m["roleType"] == kind)
        assert message["roleCredentials"]["roleArn"] == role and message["messageId"]
        acknowledge(agent, message, message["roleCredentials"])
    (own,) = [m["roleCredentials"] for m in pushed(agent, arn) if m["roleType"] == "TaskApplication"]
    assert own["credentialsId"] == first["credentialsId"], "containers were told it, and cannot be told another"
    again(agent, sendCredentials="false")
    assert credentials_of(agent, arn)["credentialsId"] == first["credentialsId"], "with the payload that comes with each connection"
    agent.wait_for("TaskManifestMessage")
    assert not pushed(agent, arn)


def test_what_is_not_acknowledged_is_sent_again(ecs, cluster, agents):
    agent = agents(cluster, attributes=WITH_ROLES)
    (arn,) = run(ecs, cluster, register(ecs, taskRoleArn=TASK_ROLE))
    until_status(ecs, cluster, arn, "RUNNING")
    again(agent, sendCredentials="true")
    message = agent.wait_for("IAMRoleCredentialsMessage", lambda m: m["taskArn"] == arn)
    until("it to come again", lambda: len(pushed(agent, arn)) > 1)
    assert {m["messageId"] for m in pushed(agent, arn)} == {message["messageId"]}
    acknowledge(agent, message, message["roleCredentials"])
    again(agent, sendCredentials="true")
    assert agent.wait_for("IAMRoleCredentialsMessage", lambda m: m["taskArn"] == arn)["messageId"] != message["messageId"]


@pytest.fixture
def brisk(new_berth):
    """A server whose roles' credentials are good for a few seconds."""
    return new_berth("server", arguments=["--role-credentials-seconds", "12"]).start()


def test_credentials_are_renewed_before_they_end_and_refused_after(brisk, agents):
    brisk.ecs.create_cluster(clusterName="c")
    agent = agents("c", berth=brisk, attributes=WITH_ROLES)
    (arn,) = run(brisk.ecs, "c", register(brisk.ecs, **BOTH))
    first = credentials_of(agent, arn)
    for kind in ("TaskApplication", "TaskExecution"):
        message = agent.wait_for("IAMRoleCredentialsMessage", lambda m, kind=kind: m["taskArn"] == arn and m["roleType"] == kind)
        acknowledge(agent, message, message["roleCredentials"])
    fresh = next(m["roleCredentials"] for m in pushed(agent, arn) if m["roleType"] == "TaskApplication")
    assert fresh["credentialsId"] == first["credentialsId"]
    assert not set(of_message(fresh)) & set(of_message(first))
    assert seconds(fresh["expiration"]) > seconds(first["expiration"])
    old = client_of(brisk, of_message(first))

    def is_over():
        try:
            old.list_clusters()
        except old.exceptions.ClientError as error:
            return error.response["Error"]["Code"] == "ExpiredTokenException" and error

    over = until("the old ones to be refused", is_over)
    assert over.response["Error"]["Message"] == "The security token included in the request is expired"
    assert time.time() >= seconds(first["expiration"])
    with refused("RequestExpired"):
        client_of(brisk, of_message(first), "ec2").describe_vpcs()
    # The next ones come as well, and on and on.
    until("more of them", lambda: len({m["roleCredentials"]["accessKeyId"] for m in pushed(agent, arn)}) >= 4)


def test_a_killed_server_knows_what_it_gave_out(new_berth, agents):
    berth = new_berth("server").start()
    berth.ecs.create_cluster(clusterName="c")
    agent = agents("c", berth=berth, attributes=WITH_ROLES)
    (arn,) = run(berth.ecs, "c", register(berth.ecs, taskRoleArn=TASK_ROLE))
    first = credentials_of(agent, arn)
    until_status(berth.ecs, "c", arn, "RUNNING")
    berth.kill()
    berth.start()
    with refused("AccessDeniedException") as caught:
        client_of(berth, of_message(first)).list_clusters()
    assert principal(arn) in str(caught.value)
    agent.connect(sendCredentials="true")
    message = agent.wait_for("IAMRoleCredentialsMessage", lambda m: m["taskArn"] == arn)
    assert message["roleCredentials"] == first, "nothing was kept, and nothing is another"
    # Nor does anything of it stand on the disk or in the log.
    for path in [berth.log, *berth.data_dir.rglob("*")]:
        if path.is_file():
            text = path.read_bytes()
            assert not any(value.encode() in text for value in (*of_message(first)[1:], first["credentialsId"])), path


# -- what may be signed with them ------------------------------------------------------------------------------------------------


@pytest.fixture
def role(server, cluster, agents):
    """A service's task with a role: (its ARN, its credentials)."""
    agent = agents(cluster, attributes=WITH_ROLES)
    definition = register(server.ecs, taskRoleArn=TASK_ROLE)
    server.ecs.create_service(cluster=cluster, serviceName="s", taskDefinition=definition, desiredCount=2)
    until_steady(server.ecs, cluster, "s")
    arn, other = tasks_of(server.ecs, cluster, serviceName="s")
    return arn, of_message(credentials_of(agent, arn)), other


def test_a_role_without_policies_may_do_nothing(server, cluster, role):
    arn, credentials, _ = role
    ecs, who = client_of(server, credentials), principal(arn)
    for action, call in (
        ("ecs:ListClusters", ecs.list_clusters),
        ("ecs:StopTask", lambda: ecs.stop_task(cluster=cluster, task=arn)),
        ("ecs:RegisterContainerInstance", lambda: ecs.register_container_instance(cluster=cluster)),
        ("servicediscovery:ListNamespaces", client_of(server, credentials, "servicediscovery").list_namespaces),
    ):
        with refused("AccessDeniedException") as caught:
            call()
        assert caught.value.response["Error"]["Message"] == denied(who, action)
    with refused("UnauthorizedOperation", 403) as caught:
        client_of(server, credentials, "ec2").describe_vpcs()
    text = caught.value.response["Error"]["Message"]
    assert text.startswith("You are not authorized to perform this operation. User: ") and who in text and "ec2:DescribeVpcs" in text
    until_status(server.ecs, cluster, arn, "RUNNING")


def test_a_task_may_protect_itself_and_nobody_else(server, cluster, role):
    arn, credentials, other = role
    ecs = client_of(server, credentials)
    answer = ecs.update_task_protection(cluster=cluster, tasks=[arn], protectionEnabled=True)
    assert [(t["taskArn"], t["protectionEnabled"]) for t in answer["protectedTasks"]] == [(arn, True)]
    short = arn.rsplit("/", 1)[1]
    assert ecs.get_task_protection(cluster=cluster, tasks=[short])["protectedTasks"][0]["protectionEnabled"] is True
    for tasks in ([other], [arn, other], []):
        with refused("AccessDeniedException") as caught:
            ecs.get_task_protection(cluster=cluster, tasks=tasks)
        assert caught.value.response["Error"]["Message"] == denied(principal(arn), "ecs:GetTaskProtection")
        with refused("AccessDeniedException"):
            ecs.update_task_protection(cluster=cluster, tasks=tasks, protectionEnabled=True)
    with refused("AccessDeniedException"):
        ecs.get_task_protection(cluster="default", tasks=[short])
    shown = server.ecs.get_task_protection(cluster=cluster, tasks=[other])["protectedTasks"]
    assert shown[0]["protectionEnabled"] is False


def asked(berth, credentials, path):
    """The answer to a question of an operator's that is signed with these credentials."""
    request = AWSRequest(method="POST", url=f"{berth.endpoint}{path}", data=b"{}")
    SigV4Auth(Credentials(*credentials), "ecs", "us-east-1").add_auth(request)
    return exchange(berth.endpoint, "POST", path, request.headers.items(), b"{}")


def test_a_role_is_no_agent_and_no_operator(server, cluster, role, agents):
    _, credentials, _ = role
    url = agents(cluster).url()
    request = AWSRequest(method="GET", url=url)
    SigV4Auth(Credentials(*credentials), "ecs", "us-east-1").add_auth(request)
    with pytest.raises(Refused) as caught:
        WebSocket(url, {"Host": url.split("/")[2], **dict(request.headers.items())})
    assert json.loads(caught.value.body)["type"] == "AccessDeniedException" and "ecs:Poll" in caught.value.body
    for path in ("/why", "/plan", "/alarms", "/fargate"):
        answer = asked(server, credentials, path)
        assert (answer.status, answer.code) == (400, "AccessDeniedException"), (path, answer)


def test_what_is_not_theirs_is_no_credential(server, role):
    _, (key, secret, token), _ = role
    wrong = base64.b64decode(token)
    forged = base64.b64encode(wrong.replace(b"role/team/app", b"role/admin/xx")).decode()
    assert forged != token
    root, root_secret = server.credentials
    for code, credentials in (
        (INVALID, (key, secret, forged)),
        (INVALID, (key, secret, token[:-8])),
        (INVALID, (key, secret, "x" * 20_000)),
        (INVALID, (key, secret, None)),
        (INVALID, ("ASIA" + key[4:][::-1], secret, token)),
        (INVALID, (root, root_secret, token)),
        ("InvalidSignatureException", (key, secret[::-1], token)),
    ):
        with refused(code):
            client_of(server, credentials).list_clusters()
    with refused("AuthFailure", 401):
        client_of(server, (key, secret, forged), "ec2").describe_vpcs()
