"""kill -9 of `berth up`: containers do not notice, and afterwards everything is known again."""

import os
import signal
import subprocess
import time

import pytest

import leftovers
from berth import Berth, binary, clean_environment, fresh_folder, http_text, until, with_images
from containers import IDLE, ended, hello, host_ports, page, pids_of, running, said, shell, skip_unless_root, start, stop
from ecs_calls import describe, register, run, service, tasks_of, until_status, until_steady

skip_unless_root(__file__)
DEFAULT = "default"


@pytest.fixture
def up(both_images):
    """Each test crashes a Berth of its own."""
    with with_images(Berth("up"), both_images) as berth:
        yield berth


def until_running_again(up):
    """The restarted Berth has its agent back."""
    (arn,) = up.ecs.list_container_instances(cluster=DEFAULT)["containerInstanceArns"]

    def connected():
        return up.ecs.describe_container_instances(cluster=DEFAULT, containerInstances=[arn])["containerInstances"][0]["agentConnected"]

    until("the agent to be back", connected)
    return arn


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_containers_go_on_without_berth_and_are_found_again(up, number):
    ecs = up.ecs
    ecs.create_service(cluster=DEFAULT, serviceName="web", taskDefinition=register(ecs, containers=[hello()]), desiredCount=2)
    until_steady(ecs, DEFAULT, "web")
    arns = sorted(tasks_of(ecs, DEFAULT))
    before = {arn: describe(ecs, DEFAULT, arn) for arn in arns}
    ports = [port for task in before.values() for port in host_ports(task)]
    pids = [pid for task in before.values() for pid in pids_of(task["containers"][0])]
    instance = until_running_again(up)
    up.signal(number)
    assert up.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    for port in ports:
        assert "Hello from Berth" in page(port)
    up.start()
    assert until_running_again(up) == instance
    ecs = up.ecs
    until_steady(ecs, DEFAULT, "web")
    assert sorted(tasks_of(ecs, DEFAULT)) == arns
    for arn, known in before.items():
        task = describe(ecs, DEFAULT, arn)
        assert task["lastStatus"] == "RUNNING"
        assert (task["startedAt"], task["containers"][0]["runtimeId"]) == (known["startedAt"], known["containers"][0]["runtimeId"])
        assert host_ports(task) == host_ports(known)
    assert [pid for task in before.values() for pid in pids_of(task["containers"][0])] == pids
    for port in ports:
        assert "Hello from Berth" in page(port)


def test_exits_while_berth_is_gone_are_reported_with_their_codes(up):
    tasks = {code: running(up, hello()) for code in (3, 0)}
    killed, stays = running(up, shell(IDLE)), running(up, hello())
    ports = {code: page(host_ports(task)[0]) and host_ports(task)[0] for code, task in tasks.items()}
    up.kill()
    for code, port in ports.items():
        assert http_text(f"http://127.0.0.1:{port}/exit?code={code}")
    os.kill(pids_of(killed["containers"][0])[0], signal.SIGKILL)
    for task in (*tasks.values(), killed):
        until("the container to be gone", lambda task=task: not pids_of(task["containers"][0]))
    up.start()
    for code, task in tasks.items():
        after = ended(up, task["taskArn"])
        assert after["containers"][0]["exitCode"] == code
        assert after["stopCode"] == "EssentialContainerExited"
    assert ended(up, killed["taskArn"])["containers"][0]["exitCode"] == 137
    assert describe(up.ecs, DEFAULT, stays["taskArn"])["lastStatus"] == "RUNNING"


def test_a_service_replaces_after_the_restart_what_died_before(up):
    ecs = up.ecs
    ecs.create_service(cluster=DEFAULT, serviceName="web", taskDefinition=register(ecs, containers=[hello()]), desiredCount=2)
    until_steady(ecs, DEFAULT, "web")
    dead, alive = tasks_of(ecs, DEFAULT)
    task = describe(ecs, DEFAULT, dead)
    up.kill()
    os.kill(pids_of(task["containers"][0])[0], signal.SIGKILL)
    up.start()
    until("a replacement", lambda: dead not in tasks_of(up.ecs, DEFAULT))
    until_steady(up.ecs, DEFAULT, "web")
    live = tasks_of(up.ecs, DEFAULT)
    assert alive in live and len(live) == 2


def test_a_stop_wished_before_the_crash_happens_after_it(up):
    arn = running(up, shell("trap '' TERM; echo ready; while :; do sleep 0.1; done", stopTimeout=3))["taskArn"]
    said(up, arn, "ready")
    up.ecs.stop_task(cluster=DEFAULT, task=arn)
    up.kill()
    up.start()
    task = ended(up, arn)
    assert (task["containers"][0]["exitCode"], task["stopCode"]) == (137, "UserInitiated")


def test_tasks_started_right_before_the_crash_run_or_stop_but_are_never_lost(up):
    """Killed at any step between RunTask's answer and RUNNING."""
    definition = register(up.ecs, containers=[shell(IDLE, memory=16)])
    arns = []
    for delay in (0, 0.005, 0.01, 0.02, 0.05, 0.1):
        arns += run(up.ecs, DEFAULT, definition, count=2)
        time.sleep(delay)
        up.kill()
        up.start()
    until_running_again(up)
    for arn in arns:
        until(
            "each task to have an end or to run", lambda arn=arn: describe(up.ecs, DEFAULT, arn)["lastStatus"] in ("RUNNING", "STOPPED")
        )
    running_now = [arn for arn in arns if describe(up.ecs, DEFAULT, arn)["lastStatus"] == "RUNNING"]
    assert running_now, "not one survived"
    for arn in running_now:
        assert len(pids_of(describe(up.ecs, DEFAULT, arn)["containers"][0])) >= 1
        stop(up, arn)


def test_logs_go_on_over_a_crash(up):
    arn = running(up, shell("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done", stopTimeout=1))["taskArn"]
    said(up, arn, "line 3\n")
    up.kill()
    time.sleep(1)
    up.start()
    until_running_again(up)
    text = said(up, arn, "line 15\n")
    numbers = [int(line.split()[1]) for line in text.splitlines()]
    assert numbers == list(range(1, len(numbers) + 1)), "lines are lost or doubled"


def test_ephemeral_leaves_nothing_at_sigterm(hello_archive):
    berth = Berth("up", arguments=["--ephemeral"])
    try:
        berth.start()
        berth.run("image", "load", str(hello_archive), "hello:latest")
        arn = start(berth, hello())
        until_status(berth.ecs, DEFAULT, arn, "RUNNING")
        assert berth.terminate() == 0
        assert not berth.data_dir.exists()
        assert not any(leftovers.of(berth.data_dir).values()), leftovers.of(berth.data_dir)
    finally:
        berth.end()


def test_a_second_machine_agent_runs_the_tutorial(up):
    """`berth agent` with amazon-ecs-agent's variables joins another cluster of the same server."""
    up.aws("ecs", "create-cluster", "--cluster-name", "deepdive")
    folder = fresh_folder("agent")
    key, secret = up.credentials
    environment = clean_environment(
        ECS_CLUSTER="deepdive",
        ECS_BACKEND_HOST=up.endpoint,
        ECS_DATADIR=str(folder / "data"),
        ECS_LOGFILE=str(folder / "ecs-agent.log"),
        ECS_EXTERNAL="true",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ACCESS_KEY_ID=key,
        AWS_SECRET_ACCESS_KEY=secret,
    )
    with (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen([str(binary()), "agent"], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        until("the agent to join", lambda: agent.poll() is not None or up.ecs.list_container_instances(cluster="deepdive")["containerInstanceArns"])
        assert agent.poll() is None, (folder / "agent.log").read_text()
        (arn,) = up.ecs.list_container_instances(cluster="deepdive")["containerInstanceArns"]
        until(
            "the agent to be connected",
            lambda: up.ecs.describe_container_instances(cluster="deepdive", containerInstances=[arn])["containerInstances"][0]["agentConnected"],
        )
        register(up.ecs, "web", containers=[hello()])
        up.aws(*"ecs create-service --cluster deepdive --service-name web --task-definition web --desired-count 1".split())
        (task,) = up.aws(*"ecs run-task --cluster deepdive --task-definition web --count 1".split())["tasks"]
        until_steady(up.ecs, "deepdive", "web")
        until_status(up.ecs, "deepdive", task["taskArn"], "RUNNING")
        up.aws("ecs", "wait", "services-stable", "--cluster", "deepdive", "--services", "web")
        for found in tasks_of(up.ecs, "deepdive"):
            assert "Hello from Berth" in page(host_ports(describe(up.ecs, "deepdive", found))[0])
        up.ecs.delete_service(cluster="deepdive", service="web", force=True)
        up.ecs.stop_task(cluster="deepdive", task=task["taskArn"])
        until("no tasks", lambda: not tasks_of(up.ecs, "deepdive") and service(up.ecs, "deepdive", "web")["status"] == "INACTIVE")
        ended(up, task["taskArn"], "deepdive")
    finally:
        agent.terminate()
        try:
            agent.wait(60)
        finally:
            agent.kill()
            agent.wait()
            leftovers.remove_all_of(folder / "data")
