"""kill -9 of dockerd under a `berth up` that runs its tasks in Docker. Run by test_faults_docker.py, within namespaces that hold nothing else."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import docker_engine  # noqa: E402
from berth import http_status, until  # noqa: E402
from containers import IDLE, ended, finished, hello, host_ports, page, running, said, shell, stop  # noqa: E402
from ecs_calls import describe, register, tasks_of, until_steady  # noqa: E402

DEFAULT = "default"


@pytest.fixture(scope="module", params=["--live-restore=true", "--live-restore=false"])
def docker(request):
    with docker_engine.running(request.param) as daemon:
        daemon.goes_on = request.param.endswith("true")
        yield daemon


@pytest.fixture
def up(docker):
    with docker_engine.berth_up(docker) as berth:
        yield berth


def test_tasks_outlive_a_killed_dockerd_or_are_told_to_have_ended_and_replaced(up, docker):
    ecs = up.ecs
    task = running(up, hello())
    counts = running(up, shell("i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done", stopTimeout=1))
    said(up, counts["taskArn"], "tick 5\n")
    (port,) = host_ports(task)
    ecs.create_service(cluster=DEFAULT, serviceName="web", taskDefinition=register(ecs, containers=[hello()]), desiredCount=1)
    until_steady(ecs, DEFAULT, "web")
    assert page(port)
    docker.kill()
    # Nobody says of a container that cannot be asked about that it has ended, nor is anything started in its place.
    time.sleep(3)
    for arn in (task["taskArn"], counts["taskArn"]):
        assert describe(ecs, DEFAULT, arn)["lastStatus"] == "RUNNING"
    assert http_status(up.endpoint + "/healthz") == 200
    failed = finished(up, shell("exit 3"))
    assert failed["stopCode"] == "TaskFailedToStart" and failed["stoppedReason"].startswith("Cannot"), failed
    (found,) = ecs.describe_services(cluster=DEFAULT, services=["web"])["services"]
    assert found["runningCount"] == 1

    docker.start()
    assert finished(up, shell("exit 4"))["containers"][0]["exitCode"] == 4
    until_steady(ecs, DEFAULT, "web")
    if docker.goes_on:
        assert page(port)
        before = describe(ecs, DEFAULT, counts["taskArn"])
        assert before["lastStatus"] == "RUNNING" and before["startedAt"] == counts["startedAt"]
        assert describe(ecs, DEFAULT, task["taskArn"])["lastStatus"] == "RUNNING"
        for arn in (task["taskArn"], counts["taskArn"]):
            assert stop(up, arn)["stopCode"] == "UserInitiated"
    else:
        # A daemon without live-restore ends what it finds running.
        for arn in (task["taskArn"], counts["taskArn"]):
            after = ended(up, arn)
            assert after["stopCode"] == "EssentialContainerExited" and "exitCode" in after["containers"][0], after
        (replacement,) = tasks_of(ecs, DEFAULT, serviceName="web")
        assert page(host_ports(describe(ecs, DEFAULT, replacement))[0])
    ecs.delete_service(cluster=DEFAULT, service="web", force=True)
    until("no task", lambda: not tasks_of(ecs, DEFAULT))


def test_a_stop_while_dockerd_is_gone_happens_when_it_is_back(up, docker):
    task = running(up, shell(IDLE, stopTimeout=30))["taskArn"]
    docker.kill()
    up.ecs.stop_task(cluster=DEFAULT, task=task)
    time.sleep(1)
    docker.start()
    after = ended(up, task)
    assert after["stopCode"] == "UserInitiated" and "exitCode" in after["containers"][0], after
