"""Several servers over one etcd cluster: any serves any call, one runs the loops, and neither a server nor a member of etcd is missed."""

import os
import subprocess

import pytest

from berth import Berth, binary, clean_environment, unique, until
from ecs_calls import container, describe, register, run, service, tasks_of, until_status, until_steady
from etcd_servers import EtcdCluster
from fake_agent import FakeAgent
from machine_agent import MachineAgent

# etcd counts a server as dead two seconds after it last heard of it, and looks every half second.
TAKEN_OVER = 60


@pytest.fixture
def etcd():
    cluster = EtcdCluster()
    try:
        yield cluster.start()
    finally:
        cluster.end()


@pytest.fixture
def peers(etcd):
    """Two servers; the first one leads."""
    made = [Berth("server", arguments=["--store", etcd.url]) for _ in range(2)]
    try:
        yield [berth.start() for berth in made]
    finally:
        for berth in made:
            berth.end()


@pytest.fixture
def joined():
    """Joins fake agents to servers: `joined(berth, cluster)`."""
    agents = []

    def join(berth, cluster):
        agent = FakeAgent(berth, cluster)
        agents.append(agent)
        return agent.join()

    yield join
    for agent in agents:
        agent.leave()


def seen(berth, cluster, instance):
    answer = berth.ecs.describe_container_instances(cluster=cluster, containerInstances=[instance])
    return answer["containerInstances"][0]["agentConnected"]


def test_any_peer_serves_any_call(peers, joined):
    first, second = peers
    assert first.credentials == second.credentials, "root credentials are the same everywhere"
    names = [unique("c") for _ in range(20)]
    for number, name in enumerate(names):
        one, other = (first, second) if number % 2 else (second, first)
        one.ecs.create_cluster(clusterName=name)
        # Its own writes are read at once; the other's a moment later.
        assert one.ecs.describe_clusters(clusters=[name])["clusters"][0]["status"] == "ACTIVE"
        until("the other peer to see it", lambda: other.ecs.describe_clusters(clusters=[name])["clusters"], 30)
    cluster = names[0]
    definition = register(first.ecs)
    agents = [joined(first, cluster), joined(second, cluster)]
    for agent in agents:
        for berth in peers:
            until("both to know the agents", lambda berth=berth, agent=agent: seen(berth, cluster, agent.arn), 30)
    until("the second to know the definition", lambda: definition in second.ecs.list_task_definitions()["taskDefinitionArns"], 30)
    # Tasks placed through one peer reach agents that hold their connection to the other.
    arns = [arn for berth in peers for _ in range(3) for arn in run(berth.ecs, cluster, definition, 2)]
    for arn in arns:
        for berth in peers:
            until("both to know the task", lambda berth=berth, arn=arn: not berth.ecs.describe_tasks(cluster=cluster, tasks=[arn])["failures"], 30)
            until_status(berth.ecs, cluster, arn, "RUNNING")
    placed = {describe(first.ecs, cluster, arn)["containerInstanceArn"] for arn in arns}
    assert placed <= {agent.arn for agent in agents}
    second.ecs.stop_task(cluster=cluster, task=arns[0])
    until_status(first.ecs, cluster, arns[0], "STOPPED")


def test_the_loops_go_on_when_their_peer_dies(peers, joined):
    first, second = peers
    cluster = unique("c")
    first.ecs.create_cluster(clusterName=cluster)
    until("the second to know the cluster", lambda: second.ecs.describe_clusters(clusters=[cluster])["clusters"], 30)
    moving, staying = joined(first, cluster), joined(second, cluster)
    until("the first to know both", lambda: seen(first, cluster, staying.arn), 30)
    definition = register(first.ecs)
    first.ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=2)
    until_steady(first.ecs, cluster, "web")
    until("the second to see the service's tasks", lambda: len(tasks_of(second.ecs, cluster, serviceName="web")) == 2, 30)
    until("the second to see the first's agent", lambda: seen(second, cluster, moving.arn), 30)

    first.kill()
    # The second finds the first dead, and with it the connection of its agent, which comes to the second then.
    until("the first's agent to be seen as away", lambda: not seen(second, cluster, moving.arn), TAKEN_OVER)
    assert seen(second, cluster, staying.arn), "the second's own agent is not disturbed"
    second.ecs.update_service(cluster=cluster, service="web", desiredCount=5)
    until("the second to act on it", lambda: len(tasks_of(second.ecs, cluster, serviceName="web")) == 5, TAKEN_OVER)
    moving.berth = second
    moving.connect()
    until("the agent to be connected to the second", lambda: seen(second, cluster, moving.arn), 30)
    until_steady(second.ecs, cluster, "web")
    assert service(second.ecs, cluster, "web")["runningCount"] == 5

    # Back again, it is one of them: what it is told is done by whoever leads.
    first.start()
    assert seen(first, cluster, staying.arn), "a peer that starts forgets nobody's connections but its own"
    first.ecs.update_service(cluster=cluster, service="web", desiredCount=1)
    until("the service to be smaller", lambda: len(tasks_of(first.ecs, cluster, serviceName="web")) == 1, TAKEN_OVER)
    # A clean end gives the lead away at once.
    assert second.terminate() == 0
    staying.berth = first
    staying.connect()
    first.ecs.update_service(cluster=cluster, service="web", desiredCount=3)
    until("the first to act on it", lambda: len(tasks_of(first.ecs, cluster, serviceName="web")) == 3, TAKEN_OVER)


def test_a_machine_goes_to_a_living_peer_by_itself(peers):
    """`berth agent` that knows both servers, and a real machine's worth of it: no peer is needed for its tasks to be known."""
    if os.geteuid() != 0:
        pytest.skip("SKIPPED (needs root): an agent with the native runtime")
    first, second = peers
    cluster = unique("c")
    first.ecs.create_cluster(clusterName=cluster)
    agent = MachineAgent(first, cluster, backends=f"{first.endpoint},{second.endpoint}")
    try:
        agent.start()
        instance = agent.until_connected()
        log = agent.folder / "agent.log"
        before = log.read_text().count("connected to the control plane")
        first.kill()
        until("the agent to dial again", lambda: log.read_text().count("connected to the control plane") > before, TAKEN_OVER)
        until("the second to know it as its own", lambda: seen(second, cluster, instance), 30)
        # What is asked of the second reaches the machine: an image that nobody has is an end with a reason.
        definition = register(second.ecs, containers=[container(image="127.0.0.1:9/none")])
        (arn,) = until("a place", lambda: second.ecs.run_task(cluster=cluster, taskDefinition=definition)["tasks"], 30)
        ended = until("the task's end", lambda: describe(second.ecs, cluster, arn["taskArn"])["lastStatus"] == "STOPPED" and describe(second.ecs, cluster, arn["taskArn"]), 60)
        assert "CannotPullContainerError" in ended["stoppedReason"]
    finally:
        agent.end()


def test_a_lost_member_of_etcd_disturbs_nothing(etcd, peers, joined):
    cluster = unique("c")
    peers[0].ecs.create_cluster(clusterName=cluster)
    until("both to know the cluster", lambda: peers[1].ecs.describe_clusters(clusters=[cluster])["clusters"], 30)
    agents = [joined(berth, cluster) for berth in peers]
    definition = register(peers[0].ecs)
    until("the second to know the definition", lambda: definition in peers[1].ecs.list_task_definitions()["taskDefinitionArns"], 30)
    arns = []
    for number in range(3):
        etcd.kill(number)
        # One of the three was etcd's leader: calls wait for the election, and none of them fails.
        for berth in peers:
            arns += run(berth.ecs, cluster, definition, 2)
            berth.ecs.create_cluster(clusterName=unique("c"))
        etcd.revive(number)
        etcd.until_healthy(number)
    for arn in arns:
        until("the first to know the task", lambda arn=arn: not peers[0].ecs.describe_tasks(cluster=cluster, tasks=[arn])["failures"], 30)
        until_status(peers[0].ecs, cluster, arn, "RUNNING")
    assert all(not agent.closed.is_set() for agent in agents), "no agent lost its connection"


def test_a_store_that_cannot_be_used_is_named(etcd, new_berth):
    def refusal(*arguments):
        done = subprocess.run(
            [str(binary()), "server", "--listen", "127.0.0.1:0", *arguments],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2, done
        return done.stderr

    data_dir = new_berth("server").data_dir
    assert "--store" in refusal("--data-dir", str(data_dir), "--store", "postgres://127.0.0.1:1")
    for number in range(3):
        etcd.kill(number)
    text = refusal("--data-dir", str(data_dir), "--store", etcd.url)
    assert "--store" in text and etcd.url in text and "cannot be reached" in text, text
