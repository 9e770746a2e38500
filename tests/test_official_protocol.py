"""The official agent's worse moments, played by the fake agent: sockets lost at each step, tasks it cannot load, late reports, telemetry."""

import json
import time
from urllib.parse import quote

import pytest

from berth import until, unique
from ecs_calls import container, describe, refused, register, run, until_status
from fake_agent import signed_headers
from websocket import Closed, WebSocket

ROLE = "arn:aws:iam::000000000000:role/tasks"


def told(agent, arn):
    """What the connection's payloads wanted of a task, in order."""
    return [t["desiredStatus"] for kind, m in list(agent.frames) if kind == "PayloadMessage" for t in m["tasks"] if t["arn"] == arn]


def again(agent, ecs):
    """The socket breaks, is noticed, and comes back as the same process opens it."""
    agent.drop()
    until("the agent to be away", lambda: not agent.is_connected())
    agent.connect(sendCredentials="false")
    until("the agent to be back", agent.is_connected)


# -- joining ---------------------------------------------------------------------------------------------------------------


def test_a_missing_cluster_has_the_name_that_makes_the_agent_create_it(ecs):
    """Only with ECS_CLUSTER unset, and only on this very error."""
    with refused("ClusterNotFoundException"):
        ecs.register_container_instance(cluster=unique("none"), totalResources=[])


def test_the_cluster_may_be_named_or_given_by_arn(ecs, cluster, agents):
    agent = agents(cluster)
    (known,) = ecs.describe_clusters(clusters=[cluster])["clusters"]
    for spelled in (known["clusterArn"], cluster):
        agent.drop()
        until("the agent to be away", lambda: not agent.is_connected())
        agent.connect(clusterArn=spelled)
        until("the agent to be back", agent.is_connected)
        assert agent.wait_for("TaskManifestMessage")["clusterArn"] == known["clusterArn"]


def test_an_update_is_refused_politely(ecs, cluster, agents):
    agent = agents(cluster)
    with refused("NoUpdateAvailableException", "no update"):
        ecs.update_container_agent(cluster=cluster, containerInstance=agent.arn)


# -- the socket is lost at each step -----------------------------------------------------------------------------------------

STEPS = ["before the ack", "after the ack", "after RUNNING was reported", "before the stop's ack", "after the stop's ack"]


@pytest.mark.parametrize("lost", STEPS)
def test_a_task_lives_through_a_socket_that_is_lost(ecs, cluster, agents, lost):
    agent = agents(cluster, acks=False, runs=False, stops=False)
    (arn,) = run(ecs, cluster, register(ecs))
    agent.wait_for_task(arn, "RUNNING")
    at = STEPS.index(lost)
    if at > 0:
        agent.ack(next(m for kind, m in agent.frames if kind == "PayloadMessage"))
    if at < 2:
        again(agent, ecs)
        # Whether it was taken or not: a new connection is told of everything, and the agent ignores what it knows.
        agent.wait_for_task(arn, "RUNNING")
    agent.report(arn, "RUNNING")
    if at == 2:
        again(agent, ecs)
        listed = agent.wait_for("TaskManifestMessage")["tasks"]
        assert [(t["taskArn"], t["desiredStatus"]) for t in listed] == [(arn, "RUNNING")]
    ecs.stop_task(cluster=cluster, task=arn, reason="enough")
    agent.wait_for_task(arn, "STOPPED")
    if at == 4:
        agent.ack(next(m for kind, m in agent.frames if kind == "PayloadMessage" and m["tasks"][-1]["desiredStatus"] == "STOPPED"))
    if at > 2:
        again(agent, ecs)
        agent.wait_for_task(arn, "STOPPED")
    agent.report(arn, "STOPPED", exit_code=143)
    task = describe(ecs, cluster, arn)
    assert (task["lastStatus"], task["stopCode"], task["stoppedReason"]) == ("STOPPED", "UserInitiated", "enough")
    assert task["containers"][0]["exitCode"] == 143


# -- tasks that it cannot run ------------------------------------------------------------------------------------------------


def test_a_task_that_it_cannot_load_ends_by_its_report_and_is_not_sent_again(ecs, cluster, agents):
    """It acknowledges nothing then, and says STOPPED with this reason, spelled so."""
    agent = agents(cluster, acks=False, runs=False)
    (arn,) = run(ecs, cluster, register(ecs))
    agent.wait_for_task(arn, "RUNNING")
    reason = "UnrecogniedTaskError: Error loading task - invalid volume"
    answer = ecs.submit_task_state_change(cluster=cluster, task=arn, status="STOPPED", reason=reason, containers=[])
    assert answer["acknowledgment"]
    task = describe(ecs, cluster, arn)
    assert (task["lastStatus"], task["stopCode"], task["stoppedReason"]) == ("STOPPED", "TaskFailedToStart", reason)
    # Longer than the first redelivery (5 s); of a task that is still unacknowledged there is one meanwhile.
    (other,) = run(ecs, cluster, register(ecs))
    until("the other task's second delivery", lambda: told(agent, other).count("RUNNING") >= 2)
    assert told(agent, arn) == ["RUNNING"]


FETCHED = {
    "secrets": {"secrets": [{"name": "A", "valueFrom": "/a"}]},
    "environmentFiles": {"environmentFiles": [{"value": "arn:aws:s3:::b/x.env", "type": "s3"}]},
    "repositoryCredentials": {"repositoryCredentials": {"credentialsParameter": "arn:aws:secretsmanager:us-east-1:000000000000:secret:s"}},
}
FETCHES = [
    "ecs.capability.secrets.ssm.environment-variables",
    "ecs.capability.env-files.s3",
    "ecs.capability.private-registry-authentication.secretsmanager",
]


@pytest.mark.parametrize("member", FETCHED)
def test_what_it_fetches_comes_with_the_execution_roles_credentials(ecs, cluster, agents, member):
    agent = agents(cluster, attributes=[{"name": name} for name in FETCHES])
    (arn,) = run(ecs, cluster, register(ecs, containers=[container(**FETCHED[member])], executionRoleArn=ROLE))
    assert agent.wait_for_task(arn, "RUNNING")["executionRoleCredentials"]["roleArn"] == ROLE


@pytest.mark.parametrize("member", ["environmentFiles", "repositoryCredentials"])
def test_what_it_would_wait_for_without_end_ends_with_a_reason_instead(ecs, cluster, agents, member):
    """Without an execution role's credentials it does not begin such a task, and reports nothing of it, ever."""
    agent = agents(cluster, attributes=[{"name": name} for name in FETCHES])
    (arn,) = run(ecs, cluster, register(ecs, containers=[container(**FETCHED[member])]))
    task = until_status(ecs, cluster, arn, "STOPPED")
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith(f"ResourceInitializationError: {member} of container app "), task["stoppedReason"]
    (well,) = run(ecs, cluster, register(ecs))
    until_status(ecs, cluster, well, "RUNNING")
    assert "RUNNING" not in told(agent, arn)


def test_environment_files_of_an_override_come_instead_of_the_definitions(ecs, cluster, agents):
    """Told to an agent that fetches by itself, as Berth's own says of itself."""
    agent = agents(cluster, attributes=[{"name": name} for name in FETCHES], runs=False)
    agent.drop()
    until("the agent to be away", lambda: not agent.is_connected())
    agent.connect(agentVersion="berth-test")
    until("the agent to be back", agent.is_connected)
    own = [{"value": "arn:aws:s3:::b/own.env", "type": "s3"}]
    overrides = {"containerOverrides": [{"name": "app", "environmentFiles": own}]}
    definition = register(ecs, containers=[container(**FETCHED["environmentFiles"])], executionRoleArn=ROLE)
    (arn,) = run(ecs, cluster, definition, overrides=overrides)
    assert agent.wait_for_task(arn, "RUNNING")["containers"][0]["environmentFiles"] == own


def test_an_answer_to_credentials_that_never_were_is_passed_over(ecs, cluster, agents):
    agent = agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    assert not {"roleCredentials", "executionRoleCredentials"} & set(agent.wait_for_task(arn, "RUNNING"))
    agent.send("IAMRoleCredentialsAckRequest", messageId="none", expiration="2030-01-01T00:00:00Z", credentialsId="none")
    until_status(ecs, cluster, arn, "RUNNING")
    assert not agent.closed.is_set() and not any(kind == "IAMRoleCredentialsMessage" for kind, _ in agent.frames)


# -- reports out of time -------------------------------------------------------------------------------------------------------


def test_reports_for_a_deregistered_instance_change_nothing(ecs, cluster, agents):
    agent = agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    until_status(ecs, cluster, arn, "RUNNING")
    ecs.deregister_container_instance(cluster=cluster, containerInstance=agent.arn, force=True)
    ended = describe(ecs, cluster, arn)
    assert ended["lastStatus"] == "STOPPED"
    for status, code in (("RUNNING", None), ("STOPPED", 3)):
        assert agent.report(arn, status, exit_code=code)["acknowledgment"], "it would repeat for a day what is not acknowledged"
    now = describe(ecs, cluster, arn)
    assert (now["lastStatus"], now["stopCode"], now["stoppedReason"]) == ("STOPPED", ended["stopCode"], ended["stoppedReason"])


# -- telemetry -------------------------------------------------------------------------------------------------------------------


class Telemetry:
    def __init__(self, server, cluster, agent):
        instance = quote(agent.arn, safe="")
        self.url = f"{server.endpoint}/ws?agentHash=x&agentVersion=1.105.1&cluster={cluster}&containerInstance={instance}&dockerVersion=20.10"
        self.server, self.socket = server, WebSocket(self.url, signed_headers(server, "GET", self.url))

    def send(self, kind, message, signed=None):
        body = json.dumps({"type": kind, "message": message})
        headers = signed_headers(self.server, "GET", self.url, (body if signed is None else signed).encode())
        self.socket.send("".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n" + body)


def test_each_telemetry_frame_is_acknowledged_in_its_own_words(server, cluster, agents):
    agent = agents(cluster)
    telemetry = Telemetry(server, cluster, agent)
    now = int(time.time() * 1000)
    metadata = {"cluster": cluster, "containerInstance": agent.arn}
    status = {"type": "ContainerRuntime", "status": "OK", "lastUpdated": now, "lastStatusChange": now}
    frames = [
        ("PublishMetricsRequest", {"metadata": {**metadata, "messageId": "1", "idle": True, "fin": True}, "timestamp": now}, "AckPublishMetric"),
        ("PublishHealthRequest", {"metadata": {**metadata, "messageId": "2", "fin": True}, "tasks": [], "timestamp": now}, "AckPublishHealth"),
        (
            "PublishInstanceStatusRequest",
            {"metadata": {**metadata, "requestId": "3"}, "statuses": [status], "timestamp": now},
            "AckPublishInstanceStatus",
        ),
    ]
    for kind, message, answer in frames:
        telemetry.send(kind, message)
        assert json.loads(telemetry.socket.receive())["type"] == answer
    telemetry.socket.drop()


def test_a_telemetry_frame_that_was_changed_on_its_way_ends_the_connection(server, cluster, agents):
    telemetry = Telemetry(server, cluster, agents(cluster))
    telemetry.send("PublishMetricsRequest", {"metadata": {}, "timestamp": 0}, signed="{}")
    with pytest.raises(Closed):
        telemetry.socket.receive()
