"""A machine falls silent: its agent is stopped in its tracks (SIGSTOP), as seen from the server no different from a lost host. Its service's
tasks are replaced on the other machine, and end where they are when it comes back."""

import signal

import pytest

from berth import Berth, until
from containers import IDLE, pids_of, shell, skip_unless_root
from ecs_calls import describe, register, service, tasks_of, texts, until_status, until_steady
from machine_agent import MachineAgent

skip_unless_root(__file__)
CLUSTER = "default"


@pytest.fixture
def servers(shell_archive):
    made = []

    def make(*arguments):
        berth = Berth("server", arguments=list(arguments))
        made.append(berth)
        berth.start()
        berth.run("image", "load", str(shell_archive), "shell:1")
        return berth

    yield make
    for berth in made:
        berth.end()


@pytest.fixture
def machines():
    """Two agents of their own: `machines(berth)` gives them by their container instances' ARNs."""
    made = []

    def join(berth):
        def connected():
            arns = berth.ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"]
            found = arns and berth.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=arns)["containerInstances"]
            return {one["containerInstanceArn"] for one in found or [] if one["agentConnected"]}

        by_arn = {}
        for number in range(2):
            agent = MachineAgent(berth)
            made.append(agent)
            agent.start()
            fresh = until("the agent to be connected", lambda number=number: len(now := connected()) > number and now - by_arn.keys())
            by_arn[fresh.pop()] = agent
        return by_arn

    yield join
    for agent in made:
        if agent.process.poll() is None:
            agent.process.send_signal(signal.SIGCONT)
        agent.end()


def make_service(ecs, count=2):
    """A service with a task on each machine; gives its tasks by container instance."""
    definition = register(ecs, containers=[shell(IDLE)])
    ecs.create_service(cluster=CLUSTER, serviceName="web", taskDefinition=definition, desiredCount=count)
    until_steady(ecs, CLUSTER, "web")
    return {(task := describe(ecs, CLUSTER, arn))["containerInstanceArn"]: task for arn in tasks_of(ecs, CLUSTER, serviceName="web")}


def agent_connected(ecs, arn):
    return ecs.describe_container_instances(cluster=CLUSTER, containerInstances=[arn])["containerInstances"][0]["agentConnected"]


def test_service_tasks_of_a_silent_machine_run_elsewhere_and_end_when_it_comes_back(servers, machines):
    berth = servers()
    ecs = berth.ecs
    by_arn = machines(berth)
    placed = make_service(ecs)
    assert placed.keys() == by_arn.keys(), "spread over both"
    lost, kept = sorted(by_arn)
    # A task of no service is nobody's to replace.
    alone = ecs.start_task(cluster=CLUSTER, taskDefinition=register(ecs, containers=[shell(IDLE)]), containerInstances=[lost])["tasks"][0]["taskArn"]
    until_status(ecs, CLUSTER, alone, "RUNNING")
    by_arn[lost].process.send_signal(signal.SIGSTOP)
    old = placed[lost]["taskArn"]

    def replaced():
        tasks = [describe(ecs, CLUSTER, arn) for arn in tasks_of(ecs, CLUSTER, serviceName="web")]
        fresh = [task for task in tasks if task["taskArn"] not in (old, placed[kept]["taskArn"]) and task["lastStatus"] == "RUNNING"]
        return fresh[0] if fresh else None

    fresh = until("a replacement", replaced)
    assert fresh["containerInstanceArn"] == kept
    assert not agent_connected(ecs, lost)
    found = until_steady(ecs, CLUSTER, "web")
    assert (found["runningCount"], found["desiredCount"]) == (2, 2)
    until("the old one to be told", lambda: describe(ecs, CLUSTER, old)["desiredStatus"] == "STOPPED")
    task = describe(ecs, CLUSTER, old)
    assert task["lastStatus"] == "RUNNING" and task["stopCode"] == "ServiceSchedulerInitiated", "nobody saw it end"
    assert task["stoppedReason"] == f"Container instance {lost.rsplit('/', 1)[1]} is not heard of; the task was replaced"
    (said,) = [text for text in texts(found) if "not heard of" in text]
    assert said == f"(service web) has replaced 1 tasks whose container instances are not heard of: (task {old.rsplit('/', 1)[1]})."
    assert pids_of(task["containers"][0]), "it still runs where nobody could tell it to stop"
    assert describe(ecs, CLUSTER, alone)["desiredStatus"] == "RUNNING"
    by_arn[lost].process.send_signal(signal.SIGCONT)
    until_status(ecs, CLUSTER, old, "STOPPED")
    assert not pids_of(task["containers"][0])
    assert describe(ecs, CLUSTER, fresh["taskArn"])["lastStatus"] == "RUNNING"
    assert describe(ecs, CLUSTER, alone)["lastStatus"] == "RUNNING", "the task of no service went on all the while"
    assert service(ecs, CLUSTER, "web")["runningCount"] == 2


def test_switched_off_a_silent_machines_tasks_stay_as_they_were_last_seen(servers, machines):
    berth = servers("--replace-after", "off")
    ecs = berth.ecs
    by_arn = machines(berth)
    placed = make_service(ecs)
    lost, kept = sorted(by_arn)
    by_arn[lost].process.send_signal(signal.SIGSTOP)
    until("the silence to be noticed", lambda: not agent_connected(ecs, lost))
    # Something else happens in the service meanwhile, so that it was certainly planned again: the task of the other machine is replaced.
    ecs.stop_task(cluster=CLUSTER, task=placed[kept]["taskArn"])
    until_status(ecs, CLUSTER, placed[kept]["taskArn"], "STOPPED")
    until_steady(ecs, CLUSTER, "web")
    assert describe(ecs, CLUSTER, placed[lost]["taskArn"])["desiredStatus"] == "RUNNING"
    assert len(tasks_of(ecs, CLUSTER, serviceName="web")) == 2


def test_an_agent_that_is_restarted_is_not_a_lost_machine(servers, machines):
    berth = servers()
    ecs = berth.ecs
    by_arn = machines(berth)
    placed = make_service(ecs)
    for arn, agent in by_arn.items():
        agent.kill()
        until("its end to be noticed", lambda arn=arn: not agent_connected(ecs, arn))
        agent.start()
        until("it to be back", lambda arn=arn: agent_connected(ecs, arn))
    ecs.update_service(cluster=CLUSTER, service="web", desiredCount=3)
    until_steady(ecs, CLUSTER, "web")
    assert {task["taskArn"] for task in placed.values()} < set(tasks_of(ecs, CLUSTER, serviceName="web"))
