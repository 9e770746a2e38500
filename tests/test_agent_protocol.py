"""The agent's side of the server: registration, ACS deliveries, acknowledgements, reconnects, evictions."""

import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from berth import until
from ecs_calls import container, describe, refused, register, run, service, tasks_of, until_status, until_steady
from fake_agent import signed_headers
from websocket import Refused, WebSocket, frame


def payload_tasks(agent):
    return [(task["arn"], task["desiredStatus"]) for kind, m in list(agent.frames) if kind == "PayloadMessage" for task in m["tasks"]]


def manifests(agent):
    return [m for kind, m in list(agent.frames) if kind == "TaskManifestMessage"]


# -- the JSON API ----------------------------------------------------------------------------------------------------------


def test_registration_echoes_every_attribute_and_the_resources(ecs, cluster, agents):
    agent = agents(cluster, cpu=2048, memory=4000, attributes=[{"name": "stack", "value": "blue"}, {"name": "bare"}])
    shown = agent.registered
    echoed = {(a["name"], a.get("value")) for a in shown["attributes"]}
    assert {(a["name"], a.get("value")) for a in agent.attributes} <= echoed
    assert shown["status"] == "ACTIVE" and shown["agentConnected"] is False
    resources = {r["name"]: r for r in shown["registeredResources"]}
    assert (resources["CPU"]["integerValue"], resources["MEMORY"]["integerValue"]) == (2048, 4000)
    assert resources["PORTS"]["stringSetValue"] == ["22", "51678"]
    assert shown["remainingResources"] == shown["registeredResources"]
    assert agent.arn.startswith(f"arn:aws:ecs:us-east-1:000000000000:container-instance/{cluster}/")


def test_registering_again_with_the_arn_keeps_the_instance_and_what_users_set(ecs, cluster, agents):
    agent = agents(cluster, attributes=[{"name": "stack", "value": "blue"}])
    arn = agent.arn
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}])
    agent.resources[0]["integerValue"] = 1000
    agent.attributes = [{"name": "ecs.os-type", "value": "linux"}, {"name": "ecs.capability.new"}]
    agent.register(containerInstanceArn=arn)
    assert agent.arn == arn
    (shown,) = ecs.describe_container_instances(cluster=cluster, containerInstances=[arn], include=["TAGS"])["containerInstances"]
    names = {a["name"]: a.get("value") for a in shown["attributes"]}
    assert names["stack"] == "blue" and "ecs.capability.new" in names and "ecs.capability.full-sync" not in names
    assert shown["tags"] == [{"key": "a", "value": "1"}]
    assert next(r for r in shown["registeredResources"] if r["name"] == "CPU")["integerValue"] == 1000
    assert len(ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]) == 1


def test_registering_again_with_an_unknown_arn_is_refused(ecs, cluster):
    with refused("ClientException", "containerInstanceArn"):
        ecs.register_container_instance(
            cluster=cluster, containerInstanceArn=f"arn:aws:ecs:us-east-1:000000000000:container-instance/{cluster}/{'0' * 32}"
        )


def test_bad_resources_are_refused_by_name(ecs, cluster):
    cases = [("CPU", {"integerValue": -1}), ("PORTS", {"stringSetValue": ["http"]}), ("PORTS", {"stringSetValue": ["70000"]})]
    for name, value in cases:
        with refused("InvalidParameterException", name):
            ecs.register_container_instance(cluster=cluster, totalResources=[{"name": name, **value}])


def test_poll_endpoints_are_this_servers(server, cluster):
    answer = server.ecs.discover_poll_endpoint(cluster=cluster)
    assert answer["endpoint"] == answer["telemetryEndpoint"] == server.endpoint


def test_unknown_instances_are_missing(ecs, cluster):
    arn = f"arn:aws:ecs:us-east-1:000000000000:container-instance/{cluster}/{'0' * 32}"
    answer = ecs.describe_container_instances(cluster=cluster, containerInstances=["0" * 32])
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}]
    with refused("InvalidParameterException", "containerInstance"):
        ecs.deregister_container_instance(cluster=cluster, containerInstance=arn)
    with refused("InvalidParameterException"):
        ecs.describe_container_instances(cluster=cluster, containerInstances=[])


# -- connections -----------------------------------------------------------------------------------------------------------


def test_an_open_socket_is_what_agent_connected_means(ecs, cluster, agents):
    agent = agents(cluster)
    (shown,) = ecs.describe_container_instances(cluster=cluster, containerInstances=[agent.arn])["containerInstances"]
    assert shown["versionInfo"] == {"agentVersion": "1.105.1", "agentHash": "fake", "dockerVersion": "DockerVersion: fake"}
    agent.drop()
    until("the agent to be away", lambda: not agent.is_connected())
    agent.connect(sendCredentials="false")
    until("the agent to be back", agent.is_connected)


def test_connectivity_of_a_task_follows_its_agent(ecs, cluster, agents):
    agent = agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    assert until_status(ecs, cluster, arn, "RUNNING")["connectivity"] == "CONNECTED"
    agent.drop()
    until("DISCONNECTED", lambda: describe(ecs, cluster, arn)["connectivity"] == "DISCONNECTED")
    assert describe(ecs, cluster, arn)["lastStatus"] == "RUNNING"


def test_a_handshake_without_a_good_signature_is_refused(server, cluster, agents):
    agent = agents(cluster)
    url = agent.url()
    with pytest.raises(Refused) as caught:
        WebSocket(url, {"Host": urlsplit(url).netloc})
    assert caught.value.status == 403
    assert json.loads(caught.value.body)["type"] == "AccessDeniedException"
    with pytest.raises(Refused) as caught:
        WebSocket(url, signed_headers(server, "GET", url, key=(server.credentials[0], "x" * 40)))
    assert json.loads(caught.value.body)["type"] == "AccessDeniedException"


def test_what_an_agent_says_before_its_handshake_is_answered_is_heard(server, cluster, agents):
    agent = agents(cluster)
    agent.drop()
    url = agent.url()
    socket = WebSocket(url, signed_headers(server, "GET", url), early=frame(b"hello", opcode=9))
    try:
        assert socket.receive(control=10) == b"hello"
    finally:
        socket.drop()


def test_a_handshake_for_an_unknown_instance_is_refused_in_the_agents_words(cluster, agents):
    agent = agents(cluster)
    agent.drop()
    real = agent.arn
    agent.arn = real.rsplit("/", 1)[0] + "/" + "0" * 32
    with pytest.raises(Refused) as caught:
        agent.connect()
    assert json.loads(caught.value.body)["type"] == "InactiveInstanceException"
    agent.arn = real
    with pytest.raises(Refused) as caught:
        agent.connect(clusterArn=None)
    assert json.loads(caught.value.body)["type"] == "BadRequestException"


def test_a_deregistered_instance_loses_its_socket_and_is_refused_from_then_on(ecs, cluster, agents):
    agent = agents(cluster)
    gone = ecs.deregister_container_instance(cluster=cluster, containerInstance=agent.arn)["containerInstance"]
    assert (gone["status"], gone["agentConnected"]) == ("INACTIVE", False)
    assert agent.closed.wait(60), "the live socket was not closed"
    with pytest.raises(Refused) as caught:
        agent.connect()
    body = json.loads(caught.value.body)
    assert body["type"] == "InactiveInstanceException" and body["message"]["message"]
    with refused("ClientException", "inactive"):
        agent.register(containerInstanceArn=agent.arn)


def test_an_instance_with_tasks_is_deregistered_only_by_force(ecs, cluster, agents):
    agent = agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    until_status(ecs, cluster, arn, "RUNNING")
    with refused("InvalidParameterException", "running tasks"):
        ecs.deregister_container_instance(cluster=cluster, containerInstance=agent.arn)
    assert agent.is_connected()
    ecs.deregister_container_instance(cluster=cluster, containerInstance=agent.arn, force=True)
    assert describe(ecs, cluster, arn)["lastStatus"] == "STOPPED"


def test_a_second_connection_of_an_instance_takes_over(ecs, cluster, agents):
    agent = agents(cluster)
    older, first_closed = agent.socket, agent.closed
    agent.closed = type(first_closed)()
    agent.connect()
    agent.wait_for("TaskManifestMessage")
    until("the older connection to be closed", lambda: _is_over(older))
    assert agent.is_connected()
    (arn,) = run(ecs, cluster, register(ecs))
    agent.wait_for_task(arn, "RUNNING")


def _is_over(websocket):
    try:
        return websocket.socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_heartbeats_come_and_an_agent_that_answers_none_is_let_go(ecs, cluster, agents):
    agent = agents(cluster)
    agent.drop()
    # A brisk heartbeat, as Berth's own agent asks for; this connection answers none.
    agent._on_frame = lambda socket, frame: None
    agent.connect(berthHeartbeat="1")
    message = agent.wait_for("HeartbeatMessage")
    assert message["messageId"] and message["healthy"] is True
    assert agent.closed.wait(120), "a silent agent keeps its connection"
    until("the agent to be away", lambda: not agent.is_connected())


def test_answered_heartbeats_keep_the_connection(cluster, agents):
    agent = agents(cluster)
    agent.drop()
    agent.connect(berthHeartbeat="1")
    until("ten heartbeats", lambda: sum(kind == "HeartbeatMessage" for kind, _ in agent.frames) >= 10)
    assert not agent.closed.is_set()


# -- deliveries ------------------------------------------------------------------------------------------------------------


def test_a_payload_holds_what_the_official_agent_needs(ecs, cluster, agents):
    agent = agents(cluster)
    definition = register(
        ecs,
        containers=[container(portMappings=[{"containerPort": 80}], environment=[{"name": "A", "value": "1"}], stopTimeout=3)],
        networkMode="bridge",
    )
    (arn,) = run(ecs, cluster, definition)
    task = agent.wait_for_task(arn, "RUNNING")
    assert task["taskClusterArn"].endswith(f":cluster/{cluster}")
    assert (task["family"], task["version"]) == tuple(definition.rsplit("/", 1)[1].split(":"))
    (sent,) = task["containers"]
    assert (sent["name"], sent["image"], sent["essential"], sent["stopTimeout"]) == ("app", "hello:latest", True, 3)
    assert sent["environment"]["A"] == "1"
    assert sent["portMappings"][0]["containerPort"] == 80
    assert json.loads(sent.get("overrides") or "{}") == {}
    assert json.loads(sent["dockerConfig"]["hostConfig"])["NetworkMode"] == "bridge"
    message = next(m for kind, m in agent.frames if kind == "PayloadMessage" and m["tasks"][0]["arn"] == arn)
    assert message["messageId"] and message["clusterArn"].endswith(f":cluster/{cluster}") and message["containerInstanceArn"] == agent.arn


def test_numbers_grow_over_payloads_and_manifests_and_reconnects(ecs, cluster, agents):
    agent = agents(cluster)
    definition = register(ecs)
    numbers = []
    for round_ in range(3):
        for _ in range(2):
            (arn,) = run(ecs, cluster, definition)
            agent.wait_for_task(arn, "RUNNING")
        agent.wait_for("TaskManifestMessage")
        for kind, message in list(agent.frames):
            if kind == "PayloadMessage":
                numbers.append(message["seqNum"])
            if kind == "TaskManifestMessage":
                numbers.append(message["timeline"])
        if round_ < 2:
            agent.drop()
            until("the agent to be away", lambda: not agent.is_connected())
            agent.connect()
            until("the agent to be back", agent.is_connected)
    assert numbers == sorted(set(numbers)), numbers


def test_an_unacknowledged_payload_is_delivered_again_on_the_same_connection(ecs, cluster, agents):
    agent = agents(cluster, acks=False, runs=False)
    (arn,) = run(ecs, cluster, register(ecs))
    agent.wait_for_task(arn, "RUNNING")
    until("a second delivery", lambda: payload_tasks(agent).count((arn, "RUNNING")) >= 2)


def test_an_acknowledged_payload_is_not_delivered_again(ecs, cluster, agents):
    agent = agents(cluster, runs=False)
    (arn,) = run(ecs, cluster, register(ecs))
    agent.wait_for_task(arn, "RUNNING")
    # Longer than the first redelivery (5 s) of an unacknowledged one.
    time.sleep(7)
    assert payload_tasks(agent).count((arn, "RUNNING")) == 1


def test_an_unacknowledged_payload_is_delivered_again_after_a_reconnect(ecs, cluster, agents):
    agent = agents(cluster, acks=False, runs=False)
    (arn,) = run(ecs, cluster, register(ecs))
    agent.wait_for_task(arn, "RUNNING")
    agent.drop()
    until("the agent to be away", lambda: not agent.is_connected())
    agent.acks = agent.runs = True
    agent.connect(sendCredentials="false")
    agent.wait_for_task(arn, "RUNNING")
    until_status(ecs, cluster, arn, "RUNNING")


def test_a_stop_while_the_agent_is_away_is_delivered_when_it_is_back(ecs, cluster, agents):
    agent = agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    until_status(ecs, cluster, arn, "RUNNING")
    agent.drop()
    until("the agent to be away", lambda: not agent.is_connected())
    ecs.stop_task(cluster=cluster, task=arn)
    assert describe(ecs, cluster, arn)["lastStatus"] == "RUNNING"
    agent.connect(sendCredentials="false")
    agent.wait_for_task(arn, "STOPPED")
    until_status(ecs, cluster, arn, "STOPPED")


def test_a_manifest_after_a_reconnect_lists_what_should_run_with_a_larger_timeline(ecs, cluster, agents):
    agent = agents(cluster)
    first = agent.wait_for("TaskManifestMessage")
    assert first["tasks"] == []
    running = run(ecs, cluster, register(ecs), count=2)
    for arn in running:
        until_status(ecs, cluster, arn, "RUNNING")
    agent.drop()
    until("the agent to be away", lambda: not agent.is_connected())
    agent.connect()
    second = agent.wait_for("TaskManifestMessage")
    assert {(t["taskArn"], t["desiredStatus"]) for t in second["tasks"]} == {(arn, "RUNNING") for arn in running}
    assert second["timeline"] > first["timeline"]
    assert second["containerInstanceArn"] == agent.arn


def test_an_unacknowledged_manifest_comes_again_with_a_larger_timeline(cluster, agents):
    agent = agents(cluster, acks=False)
    until("a second manifest", lambda: len(manifests(agent)) >= 2)
    first, second = manifests(agent)[:2]
    assert second["timeline"] > first["timeline"] and second["messageId"] != first["messageId"]


def test_only_tasks_that_really_must_end_are_confirmed_for_stopping(ecs, cluster, agents):
    agent = agents(cluster)
    (wanted,) = run(ecs, cluster, register(ecs))
    until_status(ecs, cluster, wanted, "RUNNING")
    agent.drop()
    until("the agent to be away", lambda: not agent.is_connected())
    agent.connect()
    manifest = agent.wait_for("TaskManifestMessage")
    cluster_arn = manifest["clusterArn"]
    stray = wanted.rsplit("/", 1)[0] + "/" + "f" * 32
    candidates = [{"taskArn": arn, "taskClusterArn": cluster_arn, "desiredStatus": "STOPPED"} for arn in (wanted, stray)]
    agent.send("TaskStopVerificationMessage", messageId=manifest["messageId"], stopCandidates=candidates)
    answer = agent.wait_for("TaskStopVerificationAck")
    assert answer["messageId"] == manifest["messageId"]
    assert [task["taskArn"] for task in answer["stopTasks"]] == [stray]
    assert describe(ecs, cluster, wanted)["desiredStatus"] == "RUNNING"


def test_a_stop_of_a_task_that_the_agent_never_knew_ends_it(ecs, cluster, agents):
    """The official agent ignores stops of tasks it never took, so nobody would report them."""
    agent = agents(cluster, runs=False, stops=False)
    (arn,) = run(ecs, cluster, register(ecs))
    agent.wait_for_task(arn, "RUNNING")
    ecs.stop_task(cluster=cluster, task=arn)
    task = until_status(ecs, cluster, arn, "STOPPED")
    assert task["stopCode"] == "UserInitiated"


def test_garbage_frames_do_not_end_the_connection(ecs, cluster, agents):
    agent = agents(cluster)
    agent.socket.send("this is no JSON")
    agent.socket.send("{}")
    agent.send("NeverHeardOf", messageId="1")
    agent.send("AckRequest", cluster=cluster, containerInstance=agent.arn, messageId="no-such-message")
    (arn,) = run(ecs, cluster, register(ecs))
    until_status(ecs, cluster, arn, "RUNNING")


def test_a_hundred_tasks_reach_the_agent(ecs, cluster, agents):
    agent = agents(cluster, cpu=100_000, memory=100_000)
    definition = register(ecs)
    arns = [arn for _ in range(10) for arn in run(ecs, cluster, definition, count=10)]
    until("all to run", lambda: len(tasks_of(ecs, cluster)) == 100 and _running(ecs, cluster) == 100)
    assert sorted(agent.known) == sorted(arns)


def _running(ecs, cluster):
    return ecs.describe_clusters(clusters=[cluster])["clusters"][0]["runningTasksCount"]


# -- reports ---------------------------------------------------------------------------------------------------------------


def test_duplicate_and_late_reports_are_acknowledged_and_change_nothing(ecs, cluster, agents):
    agent = agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    until_status(ecs, cluster, arn, "RUNNING")
    running = describe(ecs, cluster, arn)
    assert agent.report(arn, "RUNNING")["acknowledgment"]
    assert agent.report(arn, "PENDING", containers=[])["acknowledgment"]
    assert describe(ecs, cluster, arn) == running
    agent.report(arn, "STOPPED", exit_code=4)
    stopped = describe(ecs, cluster, arn)
    for status, code in (("RUNNING", None), ("STOPPED", 9), ("PENDING", None)):
        assert agent.report(arn, status, exit_code=code)["acknowledgment"]
    assert describe(ecs, cluster, arn) == stopped
    assert stopped["containers"][0]["exitCode"] == 4


def test_a_container_may_occur_twice_in_one_report(ecs, cluster, agents):
    agent = agents(cluster, runs=False)
    (arn,) = run(ecs, cluster, register(ecs))
    agent.wait_for_task(arn, "RUNNING")
    changes = [{"containerName": "app", "status": "RUNNING", "exitCode": 0}, {"containerName": "app", "status": "STOPPED", "exitCode": 0}]
    agent.report(arn, "RUNNING", containers=changes)
    agent.report(arn, "STOPPED", containers=[])
    task = describe(ecs, cluster, arn)
    assert (task["lastStatus"], task["stopCode"], task["containers"][0]["exitCode"]) == ("STOPPED", "EssentialContainerExited", 0)


def test_a_report_of_an_unknown_task_is_an_invalid_parameter(ecs, cluster):
    """The official agent drops the event on exactly this error."""
    with refused("InvalidParameterException", "task"):
        ecs.submit_task_state_change(cluster=cluster, task="0" * 32, status="RUNNING")
    with refused("InvalidParameterException", "status"):
        ecs.submit_task_state_change(cluster=cluster, task="0" * 32, status="SLEEPING")


def test_the_old_container_report_and_attachment_reports_are_accepted(ecs, cluster):
    assert ecs.submit_container_state_change(cluster=cluster, task="0" * 32, containerName="app", status="RUNNING")["acknowledgment"]
    answer = ecs.submit_attachment_state_changes(cluster=cluster, attachments=[{"attachmentArn": "a", "status": "ATTACHED"}])
    assert answer["acknowledgment"]


def test_health_of_a_container_comes_by_the_telemetry_socket_and_counts(server, ecs, cluster, agents):
    """TCS frames: header lines, an empty line, JSON; the signature covers the JSON."""
    agent = agents(cluster)
    checked = container(healthCheck={"command": ["CMD", "true"]})
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs, containers=[checked]), desiredCount=1)
    until("its task to run", lambda: service(ecs, cluster, "web")["runningCount"] == 1)
    (arn,) = tasks_of(ecs, cluster)
    assert describe(ecs, cluster, arn)["healthStatus"] == "UNKNOWN"
    assert service(ecs, cluster, "web")["deployments"][0]["rolloutState"] == "IN_PROGRESS", "nobody knows yet whether it is healthy"
    query = f"agentHash=fake&agentVersion=1.105.1&cluster={cluster}&containerInstance={agent.arn.replace(':', '%3A').replace('/', '%2F')}&dockerVersion=fake"
    url = f"{server.endpoint}/ws?{query}"
    socket_ = WebSocket(url, signed_headers(server, "GET", url))

    def publish(health):
        now = int(time.time() * 1000)
        containers = [{"containerName": "app", "healthStatus": health, "statusSince": now}]
        task = {"taskArn": arn, "taskDefinitionFamily": "f", "taskDefinitionVersion": "1", "containers": containers}
        metadata = {"cluster": cluster, "containerInstance": agent.arn, "messageId": f"m-{health}", "fin": True}
        body = json.dumps({"type": "PublishHealthRequest", "message": {"metadata": metadata, "tasks": [task], "timestamp": now}})
        headers = signed_headers(server, "GET", url, body.encode())
        socket_.send("".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n" + body)
        assert json.loads(socket_.receive())["type"] == "AckPublishHealth"

    publish("HEALTHY")
    until("it to be healthy", lambda: describe(ecs, cluster, arn)["healthStatus"] == "HEALTHY")
    until_steady(ecs, cluster, "web")
    publish("UNHEALTHY")
    until("it not to be", lambda: describe(ecs, cluster, arn)["healthStatus"] == "UNHEALTHY")
    until("another to be started", lambda: len(tasks_of(ecs, cluster)) == 2)
    publish("HEALTHY")
    until("it to be healthy again", lambda: describe(ecs, cluster, arn)["healthStatus"] == "HEALTHY")
    until("one to be enough again", lambda: len(tasks_of(ecs, cluster)) == 1)
    socket_.drop()
